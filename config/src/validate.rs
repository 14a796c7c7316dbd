//! Keys, types and ranges: the tree against its [`Shape`], every mistake reported, the rest kept.
//!
//! What is wrong is cut out of the tree that goes on to serde, and its key is remembered as hidden: a semantic rule that would
//! need it stays silent, so that one mistake gives one error.

use std::collections::BTreeMap;

use crate::ByteSize;
use crate::error::{ConfigError, Kind};
use crate::shape::{Format, Shape, ShapeKind};
use crate::tree::{At, Entry, Node, Table, Value};
use crate::words;

/// What is left of a tree after the mistakes are cut out.
pub(crate) struct Validated {
    pub(crate) root: Node,
    pub(crate) errors: Vec<ConfigError>,
    pub(crate) hidden: Vec<String>,
}

pub(crate) fn validate(root: &Node) -> Validated {
    let mut walk = Walk {
        errors: Vec::new(),
        hidden: Vec::new(),
    };
    let clean = walk.node(root, Shape::root(), "");
    let root = clean.unwrap_or_else(|| Node {
        value: Value::Table(Table::default()),
        at: root.at.clone(),
    });
    Validated {
        root,
        errors: walk.errors,
        hidden: walk.hidden,
    }
}

struct Walk {
    errors: Vec<ConfigError>,
    hidden: Vec<String>,
}

impl Walk {
    fn report(&mut self, error: ConfigError) {
        self.hidden.push(error.key().to_owned());
        self.errors.push(error);
    }

    /// The node without its mistakes; `None` if nothing usable is left.
    fn node(&mut self, node: &Node, shape: &Shape, key: &str) -> Option<Node> {
        let value = match (&shape.kind, &node.value) {
            (ShapeKind::Table { keys, required }, Value::Table(table)) => {
                Some(Value::Table(self.table(table, node, keys, required, key)))
            }
            (ShapeKind::List { item, max }, Value::Array(items)) => {
                self.list(items, node, item, *max, key)
            }
            (ShapeKind::Integer { min, max }, Value::Integer(n)) => {
                self.integer(*n, node, *min, *max, key)
            }
            (ShapeKind::Integer { min, max }, Value::HugeInteger) => {
                self.out_of_range(node, key, "does not fit in 64 bits", &range(min, max));
                None
            }
            (ShapeKind::Boolean, Value::Boolean(b)) => Some(Value::Boolean(*b)),
            (ShapeKind::Size { min, max }, Value::String(text)) => match ByteSize::parse(text) {
                Ok(size) => self.size(size, node, *min, *max, key),
                Err(help) => {
                    let error =
                        ConfigError::new(Kind::BadValue, key, format!("`{key}` is not a size"));
                    self.report(error.at(&node.at, allowed(&range(min, max))).help(help));
                    None
                }
            },
            (ShapeKind::Size { min, max }, Value::Integer(n)) => match u64::try_from(*n) {
                Ok(n) => self.size(ByteSize(n), node, *min, *max, key),
                Err(_) => {
                    self.out_of_range(
                        node,
                        key,
                        &format!("is out of range: {n}"),
                        &range(min, max),
                    );
                    None
                }
            },
            (ShapeKind::Choice(known), Value::String(text)) => self.choice(text, known, node, key),
            (ShapeKind::Text(format), Value::String(text)) => match words::check(*format, text) {
                Ok(()) => Some(node.value.clone()),
                Err((what, help)) => {
                    let error = ConfigError::new(Kind::BadValue, key, format!("`{key}` {what}"));
                    self.report(
                        error
                            .at(&node.at, format!("expected {}", words::noun(*format)))
                            .help(help),
                    );
                    None
                }
            },
            _ => {
                self.report(wrong_type(node, &shape.kind, key));
                None
            }
        };
        value.map(|value| Node {
            value,
            at: node.at.clone(),
        })
    }

    fn table(
        &mut self,
        table: &Table,
        node: &Node,
        keys: &BTreeMap<String, Shape>,
        required: &[String],
        key: &str,
    ) -> Table {
        let mut clean = Table::default();
        for (name, entry) in &table.0 {
            let path = join(key, name);
            let Some(shape) = keys.get(name) else {
                self.unknown(name, &path, &entry.key_at, keys, key);
                continue;
            };
            if let Some(node) = self.node(&entry.node, shape, &path) {
                clean.0.insert(
                    name.clone(),
                    Entry {
                        key_at: entry.key_at.clone(),
                        node,
                    },
                );
            }
        }
        for name in required {
            if clean.0.contains_key(name) {
                continue;
            }
            let path = join(key, name);
            if !table.0.contains_key(name) && !self.hidden.contains(&path) {
                let error =
                    ConfigError::new(Kind::MissingKey, &path, format!("`{path}` is missing"));
                let error = error.at(&node.at, format!("needs the key `{name}`"));
                let doc = keys
                    .get(name)
                    .map(|shape| first_sentence(&shape.doc))
                    .unwrap_or_default();
                self.report(error.help(format!("`{name}`: {doc}")));
            }
            self.hidden.push(path);
            if let Some(shape) = keys.get(name) {
                let filler = Node {
                    value: filler(&shape.kind),
                    at: node.at.clone(),
                };
                clean.0.insert(
                    name.clone(),
                    Entry {
                        key_at: node.at.clone(),
                        node: filler,
                    },
                );
            }
        }
        clean
    }

    fn unknown(
        &mut self,
        name: &str,
        path: &str,
        at: &At,
        keys: &BTreeMap<String, Shape>,
        table: &str,
    ) {
        let place = if table.is_empty() {
            "at the top level".into()
        } else {
            format!("in `{table}`")
        };
        let error = ConfigError::new(
            Kind::UnknownKey,
            path,
            format!("unknown key `{name}` {place}"),
        );
        let error = error.at(at, "unknown key");
        let (hidden, help) = if let Some(near) =
            words::closest(name, keys.keys().map(String::as_str))
        {
            (Some(join(table, near)), format!("did you mean `{near}`?"))
        } else if let Some((section, _)) = sections().find(|(_, keys)| keys.contains_key(name)) {
            (
                Some(join(section, name)),
                format!("`{name}` belongs to [{section}]"),
            )
        } else {
            let known: Vec<&str> = keys.keys().map(String::as_str).collect();
            (None, format!("known keys {place}: {}", known.join(", ")))
        };
        self.hidden.extend(hidden);
        self.errors.push(error.help(help));
    }

    fn list(
        &mut self,
        items: &[Node],
        node: &Node,
        item: &Shape,
        max: usize,
        key: &str,
    ) -> Option<Value> {
        if items.len() > max {
            self.out_of_range(
                node,
                key,
                &format!("has {} entries", items.len()),
                &format!("at most {max}"),
            );
            return None;
        }
        let clean: Vec<Node> = items
            .iter()
            .enumerate()
            .filter_map(|(index, node)| self.node(node, item, &format!("{key}[{index}]")))
            .collect();
        if clean.len() < items.len() {
            self.hidden.push(key.to_owned()); // the numbers of the entries behind have changed
        }
        Some(Value::Array(clean))
    }

    fn integer(&mut self, n: i64, node: &Node, min: i64, max: i64, key: &str) -> Option<Value> {
        if (min..=max).contains(&n) {
            return Some(Value::Integer(n));
        }
        self.out_of_range(
            node,
            key,
            &format!("is out of range: {n}"),
            &range(&min, &max),
        );
        None
    }

    fn size(
        &mut self,
        size: ByteSize,
        node: &Node,
        min: ByteSize,
        max: ByteSize,
        key: &str,
    ) -> Option<Value> {
        if (min..=max).contains(&size) {
            return Some(Value::String(size.to_string()));
        }
        self.out_of_range(
            node,
            key,
            &format!("is out of range: {size}"),
            &range(&min, &max),
        );
        None
    }

    fn choice(
        &mut self,
        text: &str,
        known: &[(String, String)],
        node: &Node,
        key: &str,
    ) -> Option<Value> {
        if known.iter().any(|(word, _)| word == text) {
            return Some(Value::String(text.to_owned()));
        }
        let list: Vec<String> = known.iter().map(|(word, _)| format!("{word:?}")).collect();
        let error = ConfigError::new(Kind::BadValue, key, format!("`{key}` cannot be {text:?}"));
        let error = error.at(&node.at, allowed(&list.join(", ")));
        let lower = text.to_lowercase();
        let near = words::closest(&lower, known.iter().map(|(word, _)| word.as_str()));
        self.report(match near {
            Some(near) => error.help(format!("did you mean {near:?}?")),
            None => error,
        });
        None
    }

    fn out_of_range(&mut self, node: &Node, key: &str, what: &str, range: &str) {
        let error = ConfigError::new(Kind::OutOfRange, key, format!("`{key}` {what}"));
        self.report(error.at(&node.at, allowed(range)));
    }
}

fn wrong_type(node: &Node, kind: &ShapeKind, key: &str) -> ConfigError {
    let expected = match kind {
        ShapeKind::Table { .. } => "a table",
        ShapeKind::List { .. } => "an array",
        ShapeKind::Integer { .. } => "an integer",
        ShapeKind::Boolean => "a boolean",
        ShapeKind::Size { .. } => "a size",
        ShapeKind::Choice(_) | ShapeKind::Text(_) => "a string",
    };
    let label = match kind {
        ShapeKind::Integer { min, max } => allowed(&range(min, max)),
        ShapeKind::Size { min, max } => allowed(&range(min, max)),
        ShapeKind::Boolean => allowed("true, false"),
        ShapeKind::Choice(known) => allowed(
            &known
                .iter()
                .map(|(word, _)| format!("{word:?}"))
                .collect::<Vec<_>>()
                .join(", "),
        ),
        ShapeKind::Text(format) => format!("expected {}", words::noun(*format)),
        ShapeKind::Table { .. } | ShapeKind::List { .. } => format!("expected {expected}"),
    };
    let help = match (kind, &node.value) {
        (ShapeKind::Integer { .. }, Value::String(text)) if text.trim().parse::<i64>().is_ok() => {
            Some(format!("remove the quotes: {}", text.trim()))
        }
        (ShapeKind::Boolean, Value::String(text)) if matches!(text.as_str(), "true" | "false") => {
            Some(format!("remove the quotes: {text}"))
        }
        (ShapeKind::Text(_), Value::Integer(n)) => Some(format!("put it in quotes: \"{n}\"")),
        (ShapeKind::List { item, .. }, Value::Table(_))
            if matches!(item.kind, ShapeKind::Table { .. }) =>
        {
            Some(format!("each entry has two pairs of brackets: [[{key}]]"))
        }
        (ShapeKind::Table { .. }, Value::Array(_)) => Some(format!("there is only one: [{key}]")),
        (ShapeKind::List { .. }, Value::String(text)) => {
            Some(format!("put it in brackets: [{text:?}]"))
        }
        _ => None,
    };
    let message = format!("`{key}` must be {expected}, not {}", node.value.type_name());
    let error = ConfigError::new(Kind::WrongType, key, message).at(&node.at, label);
    match help {
        Some(help) => error.help(help),
        None => error,
    }
}

/// Stands in for a required value that is missing or wrong; nobody looks at it, since its key is hidden.
fn filler(kind: &ShapeKind) -> Value {
    match kind {
        ShapeKind::Choice(known) => Value::String(
            known
                .first()
                .map(|(word, _)| word.clone())
                .unwrap_or_default(),
        ),
        ShapeKind::Integer { min, .. } => Value::Integer(*min),
        ShapeKind::Boolean => Value::Boolean(false),
        ShapeKind::Size { min, .. } => Value::String(min.to_string()),
        ShapeKind::Text(Format::SocketAddress) => Value::String("0.0.0.0:0".into()),
        ShapeKind::Text(_) => Value::String(String::new()),
        ShapeKind::List { .. } => Value::Array(Vec::new()),
        ShapeKind::Table { .. } => Value::Table(Table::default()),
    }
}

fn sections() -> impl Iterator<Item = (&'static str, &'static BTreeMap<String, Shape>)> {
    let ShapeKind::Table { keys, .. } = &Shape::root().kind else {
        return Vec::new().into_iter();
    };
    let tables = keys.iter().filter_map(|(name, shape)| match &shape.kind {
        ShapeKind::Table { keys, .. } => Some((name.as_str(), keys)),
        _ => None,
    });
    tables.collect::<Vec<_>>().into_iter()
}

fn join(table: &str, key: &str) -> String {
    if table.is_empty() {
        key.to_owned()
    } else {
        format!("{table}.{key}")
    }
}

fn allowed(range: &str) -> String {
    format!("allowed: {range}")
}

fn range<T: std::fmt::Display>(min: &T, max: &T) -> String {
    format!("{min} to {max}")
}

pub(crate) fn first_sentence(doc: &str) -> String {
    doc.split_inclusive(". ")
        .next()
        .unwrap_or("")
        .trim_end()
        .to_owned()
}
