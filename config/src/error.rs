//! What is wrong with a configuration: one error for each thing, each with its place and its cure.

use std::fmt;
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, SourceCode};

use crate::render::Place;
use crate::tree::At;

/// What sort of mistake an error is about; stable words for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// The file cannot be read.
    Unreadable,
    /// The text is not TOML.
    Syntax,
    /// A `--set` argument is not `KEY=VALUE`.
    Argument,
    /// A key that does not exist.
    UnknownKey,
    /// A key that must be given and is not.
    MissingKey,
    /// A value of another type.
    WrongType,
    /// A number, size or length outside its range.
    OutOfRange,
    /// A value of the right type that means nothing here.
    BadValue,
    /// Two values that do not go together.
    Conflict,
    /// The machine does not have what the configuration asks for.
    Machine,
}

impl Kind {
    /// The word for scripts, as in `keel::config::unknown_key`.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Unreadable => "unreadable",
            Kind::Syntax => "syntax",
            Kind::Argument => "argument",
            Kind::UnknownKey => "unknown_key",
            Kind::MissingKey => "missing_key",
            Kind::WrongType => "wrong_type",
            Kind::OutOfRange => "out_of_range",
            Kind::BadValue => "bad_value",
            Kind::Conflict => "conflict",
            Kind::Machine => "machine",
        }
    }
}

/// What an override is called where a file name would stand.
pub(crate) const SET: &str = "--set";

/// A place in a source and what to say under it.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    pub(crate) at: At,
    pub(crate) label: String,
}

/// One thing that is wrong. Displays as its message alone; [`ConfigErrors`] displays with lines and carets.
#[derive(Clone, Debug)]
pub struct ConfigError {
    kind: Kind,
    key: String,
    message: String,
    help: Option<String>,
    marks: Vec<Mark>,
}

impl ConfigError {
    pub(crate) fn new(
        kind: Kind,
        key: impl Into<String>,
        message: impl Into<String>,
    ) -> ConfigError {
        ConfigError {
            kind,
            key: key.into(),
            message: message.into(),
            help: None,
            marks: Vec::new(),
        }
    }

    /// Adds a place; the first one is where the error is, later ones are what it refers to.
    pub(crate) fn at(mut self, at: &At, label: impl Into<String>) -> ConfigError {
        self.marks.push(Mark {
            at: at.clone(),
            label: label.into(),
        });
        self
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> ConfigError {
        self.help = Some(help.into());
        self
    }

    /// What sort of mistake it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The key it is about, such as `engine.targets` or `device[1].path`; empty if it is about the file.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What is wrong, in one sentence.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do about it.
    pub fn cure(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// File, line and column (both from 1), if the error has a place. The file of an override is `--set`.
    pub fn place(&self) -> Option<(&str, usize, usize)> {
        let mark = self.marks.first()?;
        let place = Place::of(mark);
        Some((mark.at.source.name(), place.line, place.column))
    }

    pub(crate) fn marks(&self) -> &[Mark] {
        &self.marks
    }

    /// Files before arguments, then by position, so that the list reads like the file.
    fn order(&self) -> (u8, usize) {
        match self.marks.first() {
            Some(mark) if mark.at.source.name() == SET => (1, mark.at.span.start),
            Some(mark) => (0, mark.at.span.start),
            None => (2, 0),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ConfigError {}

impl Diagnostic for ConfigError {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(format!("keel::config::{}", self.kind.as_str())))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as _)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.marks
            .first()
            .map(|mark| &mark.at.source as &dyn SourceCode)
    }

    /// A report has one source, so only the marks in the first mark's source are shown.
    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let source = &self.marks.first()?.at.source;
        let here = self
            .marks
            .iter()
            .filter(move |mark| Arc::ptr_eq(&mark.at.source, source));
        Some(Box::new(here.map(|mark| {
            let label = (!mark.label.is_empty()).then(|| mark.label.clone());
            LabeledSpan::new(label, mark.at.span.start, mark.at.span.len())
        })))
    }
}

/// Everything that is wrong with a configuration, in the order of the file; never empty.
///
/// `Display` gives plain text with file, line, column and a caret for each error, fit for a journal. As a
/// [`miette::Diagnostic`] it is a report whose related errors are the single ones.
#[derive(Clone, Debug)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    pub(crate) fn new(mut errors: Vec<ConfigError>) -> ConfigErrors {
        debug_assert!(
            !errors.is_empty(),
            "an error report says at least one thing"
        );
        errors.sort_by_key(ConfigError::order);
        ConfigErrors(errors)
    }

    /// The single errors.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for error in &self.0 {
            crate::render::write(f, error)?;
            writeln!(f)?;
        }
        match self.0.len() {
            1 => write!(f, "1 error in the configuration"),
            n => write!(f, "{n} errors in the configuration"),
        }
    }
}

impl std::error::Error for ConfigErrors {}

impl Diagnostic for ConfigErrors {
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(
            self.0.iter().map(|error| error as &dyn Diagnostic),
        ))
    }
}
