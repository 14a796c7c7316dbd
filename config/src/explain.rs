//! `keel config explain KEY`: what a key is for, its unit, range and default, from the doc comments of the structs.

use std::fmt::Write;

use serde_json::Value as Json;

use crate::shape::{Shape, ShapeKind};
use crate::words;

/// A key that [`explain`] was asked for and that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no key `{key}`{}", .near.as_ref().map(|near| format!(": did you mean `{near}`?")).unwrap_or_default())]
pub struct UnknownKey {
    /// What was asked for.
    pub key: String,
    /// The key that was probably meant.
    pub near: Option<String>,
}

/// Explains a key such as `engine.targets`, or a section such as `engine` with the keys in it. Entries of lists may be numbered
/// or not: `device.path` and `device.0.path` are the same.
///
/// # Errors
/// [`UnknownKey`] with the nearest key that exists.
pub fn explain(key: &str) -> Result<String, UnknownKey> {
    let plain: Vec<&str> = key
        .split('.')
        .filter(|step| step.parse::<usize>().is_err())
        .collect();
    let plain = plain.join(".");
    let all = all();
    let shape = match plain.is_empty() {
        true if key.is_empty() => Shape::root(),
        _ => match all.iter().find(|(name, _)| *name == plain) {
            Some((_, shape)) => shape,
            None => return Err(unknown(key, &plain, &all)),
        },
    };
    Ok(text(&plain, shape))
}

/// Every key with a value, dotted and sorted: `drpc.max_message`, `device.path`, `provider`.
pub fn keys() -> Vec<String> {
    let values = all()
        .into_iter()
        .filter(|(_, shape)| inside(shape).is_none());
    values.map(|(key, _)| key).collect()
}

fn unknown(key: &str, plain: &str, all: &[(String, &'static Shape)]) -> UnknownKey {
    let last_part_fits = || {
        let ending = format!(".{plain}");
        all.iter()
            .find(|(name, _)| name.ends_with(&ending))
            .map(|(name, _)| name.clone())
    };
    let near = words::closest(plain, all.iter().map(|(name, _)| name.as_str())).map(str::to_owned);
    UnknownKey {
        key: key.to_owned(),
        near: near.or_else(last_part_fits),
    }
}

/// Sections and keys.
fn all() -> Vec<(String, &'static Shape)> {
    let mut found = Vec::new();
    collect("", Shape::root(), &mut found);
    found
}

fn collect(prefix: &str, shape: &'static Shape, found: &mut Vec<(String, &'static Shape)>) {
    for (name, shape) in inside(shape).into_iter().flatten() {
        let key = if prefix.is_empty() {
            name.clone()
        } else {
            format!("{prefix}.{name}")
        };
        found.push((key.clone(), shape));
        collect(&key, shape, found);
    }
}

fn inside(shape: &'static Shape) -> Option<&'static std::collections::BTreeMap<String, Shape>> {
    match &shape.kind {
        ShapeKind::Table { keys, .. } => Some(keys),
        ShapeKind::List { item, .. } => inside(item),
        _ => None,
    }
}

fn text(key: &str, shape: &'static Shape) -> String {
    let mut out = String::new();
    if let Some(keys) = inside(shape) {
        let head = match &shape.kind {
            _ if key.is_empty() => "the configuration file".to_owned(),
            ShapeKind::List { .. } => format!("[[{key}]]"),
            _ => format!("[{key}]"),
        };
        let _ = writeln!(out, "{head}\n\n{}\n", wrap(&section_doc(shape)));
        let width = keys.keys().map(String::len).max().unwrap_or(0);
        for (name, shape) in keys {
            let _ = writeln!(out, "    {name:width$}  {}", summary(shape));
        }
        return out;
    }
    let _ = writeln!(out, "{key}\n\n{}\n", wrap(&shape.doc));
    let _ = writeln!(out, "    value    {}", value(shape));
    if let Some(unit) = &shape.unit {
        let _ = writeln!(out, "    unit     {unit}");
    }
    let _ = writeln!(
        out,
        "    default  {}",
        shape
            .default
            .as_ref()
            .map_or_else(|| "none".into(), toml_text)
    );
    if let ShapeKind::Choice(known) = &shape.kind {
        for (word, doc) in known {
            let _ = writeln!(out, "\n    {word:?}: {doc}");
        }
    }
    out
}

fn section_doc(shape: &Shape) -> String {
    match &shape.kind {
        ShapeKind::List { item, .. } if shape.doc.is_empty() => item.doc.clone(),
        _ => shape.doc.clone(),
    }
}

fn summary(shape: &'static Shape) -> String {
    match &shape.kind {
        _ if inside(shape).is_some() => "section".into(),
        _ => match &shape.default {
            Some(default) => format!("{} (default {})", value(shape), toml_text(default)),
            None => value(shape),
        },
    }
}

fn value(shape: &Shape) -> String {
    match &shape.kind {
        ShapeKind::Table { .. } => "a table".into(),
        ShapeKind::List { item, .. } => format!("a list, each entry {}", value(item)),
        ShapeKind::Integer { min, max } => format!("an integer from {min} to {max}"),
        ShapeKind::Boolean => "true or false".into(),
        ShapeKind::Choice(known) => known
            .iter()
            .map(|(word, _)| format!("{word:?}"))
            .collect::<Vec<_>>()
            .join(" or "),
        ShapeKind::Size { min, max } => format!("a size from \"{min}\" to \"{max}\""),
        ShapeKind::Text(format) => format!("{}, as a string", words::noun(*format)),
    }
}

/// A default as it would stand in the file.
fn toml_text(value: &Json) -> String {
    match value {
        Json::Array(items) => format!(
            "[{}]",
            items.iter().map(toml_text).collect::<Vec<_>>().join(", ")
        ),
        other => other.to_string(),
    }
}

/// Breaks at 88 columns.
fn wrap(text: &str) -> String {
    let mut out = String::new();
    let mut column = 0;
    for word in text.split(' ') {
        if column > 0 && column + 1 + word.len() > 88 {
            out.push('\n');
            column = 0;
        } else if column > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += word.len();
    }
    out
}
