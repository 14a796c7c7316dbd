//! Printing results: a table or sentences for people, one JSON value for programs.

use std::io::Write;

use serde::Serialize;

use crate::cli::Format;
use crate::error::{CliError, Exit};

/// Prints `value` as JSON, or what `text` makes of it.
pub(crate) fn show<T: Serialize>(
    format: Format,
    value: &T,
    text: impl FnOnce(&T) -> String,
) -> Result<(), CliError> {
    let mut out = match format {
        Format::Json => serde_json::to_string_pretty(value)
            .map_err(|e| CliError::new(Exit::Software, e.to_string()))?,
        Format::Text => text(value),
    };
    if !out.is_empty() && !out.ends_with('\n') {
        out.push('\n');
    }
    write_out(out.as_bytes())
}

/// Writes bytes to the standard output. A reader that has gone away (`keel metrics | head`) is no error.
pub(crate) fn write_out(bytes: &[u8]) -> Result<(), CliError> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(CliError::new(
            Exit::IoErr,
            format!("standard output: {error}"),
        )),
        _ => Ok(()),
    }
}

/// Rows under headings, columns as wide as they need to be; numbers to the right.
pub(crate) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count());
        cells
            .max()
            .unwrap_or(0)
            .max(headings[column].chars().count())
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for (cell, &width) in cells.zip(&widths) {
            let numeric = cell.starts_with(|c: char| c.is_ascii_digit()) && cell.len() < 16;
            let padded = if numeric {
                format!("{cell:>width$}  ")
            } else {
                format!("{cell:<width$}  ")
            };
            line.push_str(&padded);
        }
        format!("{}\n", line.trim_end())
    };
    let mut out = line(&mut headings.iter().copied());
    for row in rows {
        out.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    out
}

/// Bytes as people read them: 4096 -> `4.0 KiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_numbers_stand_right() {
        let rows = vec![
            vec!["tank".to_owned(), "7".to_owned()],
            vec!["a".to_owned(), "1024".to_owned()],
        ];
        assert_eq!(
            table(&["NAME", "SIZE"], &rows),
            "NAME  SIZE\ntank     7\na     1024\n"
        );
    }

    #[test]
    fn bytes_change_unit_at_1024() {
        assert_eq!(
            [
                bytes(0),
                bytes(1023),
                bytes(1024),
                bytes(1 << 30),
                bytes(u64::MAX)
            ],
            ["0 B", "1023 B", "1.0 KiB", "1.0 GiB", "16384.0 PiB"]
        );
    }
}
