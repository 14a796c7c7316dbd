//! `--set KEY=VALUE`: one key of the file replaced from the command line.

use std::sync::Arc;

use miette::NamedSource;
use toml::de::DeValue;

use crate::error::{ConfigError, Kind, SET};
use crate::shape::{Shape, ShapeKind};
use crate::tree::{At, Entry, Node, Source, Table, Value};

/// Most parts of a key; the deepest that exists has three.
const MAX_DEPTH: usize = 16;

/// Puts one override into the tree. The key is dotted, entries of lists are numbers (`device.0.path`); the value is TOML, but a
/// string needs no quotes and a list of strings may be given as `a,b`.
///
/// Whether the key exists and the value fits is found by the validation that follows, which then points at the argument.
pub(crate) fn apply(root: &mut Node, argument: &str) -> Result<(), ConfigError> {
    let source: Source = Arc::new(NamedSource::new(SET, argument.to_owned()));
    let whole = At::new(&source, 0..argument.len(), 0);
    let malformed = |what: &str| {
        let error = ConfigError::new(Kind::Argument, "", format!("`--set`: {what}"));
        error
            .at(&whole, "expected KEY=VALUE")
            .help("for example --set engine.targets=4")
    };
    let (key, text) = argument
        .split_once('=')
        .ok_or_else(|| malformed("there is no `=`"))?;
    let trimmed = key.trim();
    if trimmed.is_empty()
        || trimmed
            .split('.')
            .any(|step| step.is_empty() || step.contains(char::is_whitespace))
    {
        return Err(malformed("the key is empty or has an empty part"));
    }
    if trimmed.split('.').count() > MAX_DEPTH {
        return Err(malformed("the key has too many parts"));
    }
    let key_at = At::new(&source, 0..key.trim_end().len().max(1), 0);
    let blank = text.len() - text.trim_start().len();
    let shape = Shape::root().find(trimmed);
    let value = value(text.trim(), shape, &source, key.len() + 1 + blank);
    let steps: Vec<&str> = trimmed.split('.').collect();
    insert(root, &steps, value, &key_at)
}

/// The value as TOML, or as the bare string that the key's type asks for.
fn value(text: &str, shape: Option<&Shape>, source: &Source, offset: usize) -> Node {
    let at = At::new(source, 0..text.len(), offset);
    let bare = |text: &str| Node {
        value: Value::String(text.to_owned()),
        at: at.clone(),
    };
    let parsed = DeValue::parse(text)
        .ok()
        .map(|value| Node::from_toml(&value, source, offset));
    let kind = shape.map(|shape| &shape.kind);
    match (kind, parsed) {
        (Some(ShapeKind::List { .. }), Some(node)) if matches!(node.value, Value::Array(_)) => node,
        (Some(ShapeKind::List { item, .. }), _)
            if !matches!(item.kind, ShapeKind::Table { .. }) =>
        {
            let items = text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty());
            let items = items
                .map(|item| value(item, Some(item_shape(shape)), source, offset))
                .map(|node| Node {
                    at: at.clone(),
                    ..node
                });
            Node {
                value: Value::Array(items.collect()),
                at: at.clone(),
            }
        }
        (Some(ShapeKind::Text(_) | ShapeKind::Choice(_)), Some(node))
            if !matches!(node.value, Value::String(_)) =>
        {
            bare(text)
        }
        (_, Some(node)) => node,
        (_, None) => bare(text),
    }
}

fn item_shape(shape: Option<&Shape>) -> &Shape {
    match shape.map(|shape| &shape.kind) {
        Some(ShapeKind::List { item, .. }) => item,
        _ => Shape::root(),
    }
}

fn insert(node: &mut Node, steps: &[&str], new: Node, key_at: &At) -> Result<(), ConfigError> {
    let Some((step, rest)) = steps.split_first() else {
        *node = new;
        return Ok(());
    };
    let is_number = step.parse::<usize>().ok();
    match (&mut node.value, is_number) {
        (Value::Table(table), _) => {
            let entry = table
                .0
                .entry((*step).to_owned())
                .or_insert_with(|| empty(rest, key_at));
            if rest.is_empty() {
                entry.key_at = key_at.clone();
            }
            insert(&mut entry.node, rest, new, key_at)
        }
        (Value::Array(items), Some(index)) if index <= items.len() => {
            if index == items.len() {
                items.push(empty(rest, key_at).node);
            }
            insert(&mut items[index], rest, new, key_at)
        }
        (Value::Array(items), _) => {
            let message = format!("`{step}` is not the number of an entry");
            let error = ConfigError::new(Kind::Argument, "", message).at(key_at, "");
            Err(error.help(format!(
                "entries are numbered from 0; {} adds one",
                items.len()
            )))
        }
        (other, _) => {
            let message = format!("`{step}` is looked for inside {}", other.type_name());
            Err(ConfigError::new(Kind::Argument, "", message)
                .at(key_at, "only tables and arrays have keys")
                .help("give the key without what follows it"))
        }
    }
}

/// What `rest` will be put into.
fn empty(rest: &[&str], key_at: &At) -> Entry {
    let value = match rest.first() {
        Some(step) if step.parse::<usize>().is_ok() => Value::Array(Vec::new()),
        _ => Value::Table(Table::default()),
    };
    Entry {
        key_at: key_at.clone(),
        node: Node {
            value,
            at: key_at.clone(),
        },
    }
}
