//! Plain text for one error: message, place, the line, a caret, the cure. No colours, no box drawing: it goes to journals too.

use std::fmt::{self, Write};

use crate::error::{ConfigError, Mark};

/// Longest part of a source line that is shown.
const MAX_SHOWN: usize = 120;

pub(crate) fn write(f: &mut fmt::Formatter<'_>, error: &ConfigError) -> fmt::Result {
    writeln!(f, "error: {}", error.message())?;
    let places: Vec<Place> = error.marks().iter().map(Place::of).collect();
    let width = places
        .iter()
        .map(|place| place.line.to_string().len())
        .max()
        .unwrap_or(1);
    for (number, (mark, place)) in error.marks().iter().zip(&places).enumerate() {
        let arrow = if number == 0 { "-->" } else { ":::" };
        let name = mark.at.source.name();
        if mark.at.is_whole_source() {
            writeln!(f, "{:width$}{arrow} {name}", "")?;
            continue;
        }
        let Place {
            line,
            column,
            text,
            indent,
            carets,
        } = place;
        let underline = format!("{:indent$}{} {}", "", "^".repeat(*carets), mark.label);
        writeln!(f, "{:width$}{arrow} {name}:{line}:{column}", "")?;
        writeln!(f, "{:width$} |", "")?;
        writeln!(f, "{line:>width$} | {text}")?;
        writeln!(f, "{:width$} | {}", "", underline.trim_end())?;
    }
    if let Some(help) = error.cure() {
        writeln!(f, "{:width$} = help: {help}", "")?;
    }
    Ok(())
}

/// A mark in terms of lines and columns, both from 1; columns count characters.
pub(crate) struct Place {
    pub(crate) line: usize,
    pub(crate) column: usize,
    text: String,
    indent: usize,
    carets: usize,
}

impl Place {
    pub(crate) fn of(mark: &Mark) -> Place {
        let source = mark.at.source.inner().as_str();
        let start = floor(source, mark.at.span.start);
        let end = floor(source, mark.at.span.end).max(start);
        let line_start = source[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = source[start..]
            .find('\n')
            .map_or(source.len(), |at| start + at);
        let column = source[line_start..start].chars().count();
        let marked = source[start..end.min(line_end)].chars().count();
        let (text, indent) = window(&source[line_start..line_end], column);
        Place {
            line: 1 + source[..line_start].matches('\n').count(),
            column: column + 1,
            carets: marked.clamp(1, MAX_SHOWN.saturating_sub(indent).max(1)),
            text,
            indent,
        }
    }
}

/// The part of `line` to show and where in it the character number `column` stands.
fn window(line: &str, column: usize) -> (String, usize) {
    let skip = if column > MAX_SHOWN / 2 && line.chars().count() > MAX_SHOWN {
        column - MAX_SHOWN / 4
    } else {
        0
    };
    let mut text = String::new();
    let mut indent = column - skip;
    if skip > 0 {
        text.push('…');
        indent += 1;
    }
    for c in line
        .trim_end_matches('\r')
        .chars()
        .skip(skip)
        .take(MAX_SHOWN)
    {
        let _ = text.write_char(if c.is_control() { ' ' } else { c }); // a String takes everything
    }
    (text.trim_end().to_owned(), indent)
}

/// The nearest character boundary at or before `index`.
fn floor(text: &str, index: usize) -> usize {
    let mut index = index.min(text.len());
    while !text.is_char_boundary(index) {
        index -= 1;
    }
    index
}
