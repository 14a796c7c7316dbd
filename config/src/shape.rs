//! What the file may look like, read from the JSON schema that schemars derives from the typed [`Config`]: keys, types, ranges,
//! defaults and the doc comments. So the structs are the only place where a key is described.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use schemars::generate::SchemaSettings;
use serde_json::Value as Json;

use crate::{ByteSize, Config};

/// The schema of one key.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) kind: ShapeKind,
    pub(crate) doc: String,
    pub(crate) default: Option<Json>,
    pub(crate) unit: Option<String>,
}

#[derive(Debug)]
pub(crate) enum ShapeKind {
    Table {
        keys: BTreeMap<String, Shape>,
        required: Vec<String>,
    },
    List {
        item: Box<Shape>,
        max: usize,
    },
    Integer {
        min: i64,
        max: i64,
    },
    Boolean,
    /// The words, each with its doc comment.
    Choice(Vec<(String, String)>),
    Size {
        min: ByteSize,
        max: ByteSize,
    },
    Text(Format),
}

/// What the characters of a string must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Any,
    Path,
    SocketPath,
    SocketAddress,
    SystemName,
    DeviceName,
    ModuleName,
    LogMask,
    CpuList,
    PciAddress,
}

/// The schema of a configuration file as JSON text (draft 2020-12), for editors and for `keel config schema`. The file
/// `config/schema/engine.schema.json` holds the same text.
pub fn schema_json() -> String {
    let mut text = serde_json::to_string_pretty(&schema()).unwrap_or_default();
    text.push('\n');
    text
}

fn schema() -> Json {
    let settings =
        SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings
        .into_generator()
        .into_root_schema_for::<Config>()
        .to_value();
    drop_null(&mut schema);
    schema
}

/// TOML has no null: an optional key is left out.
fn drop_null(schema: &mut Json) {
    match schema {
        Json::Object(map) => {
            if let Some(Json::Array(types)) = map.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    map.insert("type".into(), only);
                }
            }
            map.retain(|key, value| !(key == "default" && value.is_null()));
            map.values_mut().for_each(drop_null);
        }
        Json::Array(items) => items.iter_mut().for_each(drop_null),
        _ => {}
    }
}

impl Shape {
    /// The shape of the whole file.
    pub(crate) fn root() -> &'static Shape {
        static ROOT: OnceLock<Shape> = OnceLock::new();
        ROOT.get_or_init(|| Shape::read(&schema()))
    }

    fn read(schema: &Json) -> Shape {
        let text = |key: &str| schema.get(key).and_then(Json::as_str).map(str::to_owned);
        Shape {
            kind: ShapeKind::read(schema),
            doc: unwrap_lines(&text("description").unwrap_or_default()),
            default: schema.get("default").cloned(),
            unit: text("x-unit"),
        }
    }

    /// The shape at a dotted key, where a list's items are numbers: `device.0.path`.
    pub(crate) fn find(&self, key: &str) -> Option<&Shape> {
        key.split('.')
            .try_fold(self, |shape, step| match &shape.kind {
                ShapeKind::Table { keys, .. } => keys.get(step),
                ShapeKind::List { item, .. } if step.parse::<usize>().is_ok() => Some(&**item),
                _ => None,
            })
    }
}

impl ShapeKind {
    fn read(schema: &Json) -> ShapeKind {
        if let Some(words) = choice(schema) {
            return ShapeKind::Choice(words);
        }
        let format = schema.get("format").and_then(Json::as_str).unwrap_or("");
        if format == "byte-size" || schema.get("x-min").is_some() {
            return ShapeKind::Size {
                min: size(schema, "x-min", 0),
                max: size(schema, "x-max", i64::MAX as u64),
            };
        }
        let number = |key: &str| schema.get(key).and_then(Json::as_i64);
        match schema.get("type").and_then(Json::as_str) {
            Some("object") => ShapeKind::Table {
                keys: properties(schema),
                required: strings(schema.get("required")),
            },
            Some("array") => ShapeKind::List {
                item: Box::new(item(schema)),
                max: number("maxItems")
                    .and_then(|n| usize::try_from(n).ok())
                    .unwrap_or(usize::MAX),
            },
            Some("integer") => ShapeKind::Integer {
                min: number("minimum").unwrap_or(i64::MIN),
                max: number("maximum").unwrap_or(i64::MAX),
            },
            Some("boolean") => ShapeKind::Boolean,
            _ => ShapeKind::Text(Format::of(format)),
        }
    }
}

impl Format {
    fn of(name: &str) -> Format {
        match name {
            "path" => Format::Path,
            "socket-path" => Format::SocketPath,
            "socket-address" => Format::SocketAddress,
            "system-name" => Format::SystemName,
            "device-name" => Format::DeviceName,
            "module-name" => Format::ModuleName,
            "log-mask" => Format::LogMask,
            "cpu-list" => Format::CpuList,
            "pci-address" => Format::PciAddress,
            _ => Format::Any,
        }
    }
}

/// The shape of a list's entries; the format of strings stands at the list, where an attribute can put it.
fn item(list: &Json) -> Shape {
    let mut item = Shape::read(list.get("items").unwrap_or(&Json::Null));
    if let Some(format) = list.get("x-item-format").and_then(Json::as_str) {
        item.kind = ShapeKind::Text(Format::of(format));
    }
    item
}

fn properties(schema: &Json) -> BTreeMap<String, Shape> {
    let properties = schema.get("properties").and_then(Json::as_object);
    properties
        .map(|map| {
            map.iter()
                .map(|(key, schema)| (key.clone(), Shape::read(schema)))
                .collect()
        })
        .unwrap_or_default()
}

/// The words of an enum, in either of the two forms that schemars writes; one that may be left out is `anyOf` it and null.
fn choice(schema: &Json) -> Option<Vec<(String, String)>> {
    if let Some(alternatives) = schema.get("anyOf") {
        return alternatives.as_array()?.iter().find_map(choice);
    }
    if let Some(words) = schema.get("enum") {
        return Some(
            strings(Some(words))
                .into_iter()
                .map(|word| (word, String::new()))
                .collect(),
        );
    }
    let variants = schema.get("oneOf")?.as_array()?;
    let word = |variant: &Json| {
        let word = variant.get("const")?.as_str()?.to_owned();
        let doc = variant
            .get("description")
            .and_then(Json::as_str)
            .unwrap_or("");
        Some((word, unwrap_lines(doc)))
    };
    variants.iter().map(word).collect()
}

fn strings(value: Option<&Json>) -> Vec<String> {
    let items = value.and_then(Json::as_array);
    items
        .map(|items| {
            items
                .iter()
                .filter_map(Json::as_str)
                .map(str::to_owned)
                .collect()
        })
        .unwrap_or_default()
}

fn size(schema: &Json, key: &str, otherwise: u64) -> ByteSize {
    let text = schema.get(key).and_then(Json::as_str);
    text.and_then(|text| ByteSize::parse(text).ok())
        .unwrap_or(ByteSize(otherwise))
}

/// Doc comments are broken at the source's width; a sentence is not.
fn unwrap_lines(doc: &str) -> String {
    let paragraphs: Vec<String> = doc
        .split("\n\n")
        .map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    paragraphs.join("\n\n")
}
