//! The parsed file with the place of every key and value kept, whatever source it came from.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use miette::NamedSource;
use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{ConfigError, ConfigErrors, Kind};

/// A text that keys come from: a file, or one `--set` argument.
pub(crate) type Source = Arc<NamedSource<String>>;

/// Longest configuration file that is read.
pub(crate) const MAX_FILE: u64 = 1 << 20;

/// Where in which source something stands.
#[derive(Clone, Debug)]
pub(crate) struct At {
    pub(crate) source: Source,
    pub(crate) span: Range<usize>,
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) at: At,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    String(String),
    Integer(i64),
    /// An integer literal that does not fit in 64 bits.
    HugeInteger,
    Float,
    Boolean(bool),
    Datetime,
    Array(Vec<Node>),
    Table(Table),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Table(pub(crate) BTreeMap<String, Entry>);

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key_at: At,
    pub(crate) node: Node,
}

/// One step from a node to one inside it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

impl Value {
    /// The type with its article, as messages say it.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Value::String(_) => "a string",
            Value::Integer(_) | Value::HugeInteger => "an integer",
            Value::Float => "a float",
            Value::Boolean(_) => "a boolean",
            Value::Datetime => "a date",
            Value::Array(_) => "an array",
            Value::Table(_) => "a table",
        }
    }

    fn from_toml(value: &DeValue<'_>, source: &Source, offset: usize) -> Value {
        match value {
            DeValue::String(text) => Value::String(text.to_string()),
            DeValue::Integer(n) => match i64::from_str_radix(n.as_str(), n.radix()) {
                Ok(n) => Value::Integer(n),
                Err(_) => Value::HugeInteger,
            },
            DeValue::Float(_) => Value::Float,
            DeValue::Boolean(b) => Value::Boolean(*b),
            DeValue::Datetime(_) => Value::Datetime,
            DeValue::Array(items) => Value::Array(
                items
                    .iter()
                    .map(|item| Node::from_toml(item, source, offset))
                    .collect(),
            ),
            DeValue::Table(table) => Value::Table(Table::from_toml(table, source, offset)),
        }
    }

    /// The value for serde. Only validated trees get here; what has no meaning in the configuration becomes a string.
    pub(crate) fn to_toml(&self) -> toml::Value {
        match self {
            Value::String(text) => toml::Value::String(text.clone()),
            Value::Integer(n) => toml::Value::Integer(*n),
            Value::Boolean(b) => toml::Value::Boolean(*b),
            Value::HugeInteger | Value::Float | Value::Datetime => {
                toml::Value::String(String::new())
            }
            Value::Array(items) => {
                toml::Value::Array(items.iter().map(|item| item.value.to_toml()).collect())
            }
            Value::Table(table) => toml::Value::Table(
                table
                    .0
                    .iter()
                    .map(|(key, entry)| (key.clone(), entry.node.value.to_toml()))
                    .collect(),
            ),
        }
    }
}

impl Node {
    /// Spans of `value` are moved by `offset` bytes into `source`.
    pub(crate) fn from_toml(value: &Spanned<DeValue<'_>>, source: &Source, offset: usize) -> Node {
        Node {
            value: Value::from_toml(value.get_ref(), source, offset),
            at: At::new(source, value.span(), offset),
        }
    }

    /// The entry or item at `path`, if there is one.
    pub(crate) fn find(&self, path: &[Step<'_>]) -> Option<&Node> {
        path.iter()
            .try_fold(self, |node, step| match (step, &node.value) {
                (Step::Key(key), Value::Table(table)) => table.0.get(*key).map(|entry| &entry.node),
                (Step::Index(index), Value::Array(items)) => items.get(*index),
                _ => None,
            })
    }
}

impl Table {
    fn from_toml(table: &DeTable<'_>, source: &Source, offset: usize) -> Table {
        let entry = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
            let key: &Spanned<std::borrow::Cow<'_, str>> = key;
            let entry = Entry {
                key_at: At::new(source, key.span(), offset),
                node: Node::from_toml(value, source, offset),
            };
            (key.get_ref().to_string(), entry)
        };
        Table(table.iter().map(entry).collect())
    }
}

impl At {
    /// Whether it stands for the source as such: the place of what is not in it.
    pub(crate) fn is_whole_source(&self) -> bool {
        self.span == (0..0)
    }

    pub(crate) fn new(source: &Source, span: Range<usize>, offset: usize) -> At {
        At {
            source: source.clone(),
            span: span.start + offset..span.end + offset,
        }
    }
}

/// Parses a whole document; every syntax error is reported, not only the first.
pub(crate) fn parse(name: &str, text: &str) -> Result<Node, ConfigErrors> {
    let source: Source = Arc::new(NamedSource::new(name, text.to_owned()));
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        let table = Table::from_toml(table.get_ref(), &source, 0);
        let at = At::new(&source, 0..0, 0);
        return Ok(Node {
            value: Value::Table(table),
            at,
        });
    }
    let error = |error: &toml::de::Error| {
        let span = error.span().unwrap_or(0..0);
        ConfigError::new(Kind::Syntax, "", error.message()).at(&At::new(&source, span, 0), "")
    };
    Err(ConfigErrors::new(errors.iter().map(error).collect()))
}

/// Reads and parses a file of at most [`MAX_FILE`] bytes.
pub(crate) fn read(path: &Path) -> Result<Node, ConfigErrors> {
    let name = path.display().to_string();
    let fail = |why: String, help: &str| {
        let error = ConfigError::new(Kind::Unreadable, "", format!("cannot read {name}: {why}"));
        ConfigErrors::new(vec![error.help(help)])
    };
    let meta = std::fs::metadata(path).map_err(|error| {
        fail(
            error.to_string(),
            "give the path of a configuration file, such as config/examples/dev.toml",
        )
    })?;
    if !meta.is_file() {
        return Err(fail(
            "it is not a file".into(),
            "give the path of the file itself",
        ));
    }
    if meta.len() > MAX_FILE {
        return Err(fail(
            format!("it has {} bytes, more than 1 MiB", meta.len()),
            "is it really a configuration file?",
        ));
    }
    let bytes = std::fs::read(path).map_err(|error| {
        fail(
            error.to_string(),
            "the user that runs the engine must be able to read it",
        )
    })?;
    match String::from_utf8(bytes) {
        Ok(text) => parse(&name, &text),
        Err(error) => {
            let good = error.utf8_error().valid_up_to();
            let line = 1 + error.as_bytes()[..good]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count();
            Err(fail(
                format!("line {line} is not UTF-8 text"),
                "save the file as UTF-8",
            ))
        }
    }
}
