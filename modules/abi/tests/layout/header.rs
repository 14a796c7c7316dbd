//! Reads the header: names of structs, fields, constants and function types. No C parser: the header keeps to one
//! declaration per `;`, and everything above its inline functions is declarations.

use crate::compiler::Layout;

pub struct Header {
    pub structs: Vec<Struct>,
    pub constants: Vec<String>,
    pub typedefs: Vec<(String, String)>, // name, normalised text
    pub level: u32,
}

pub struct Struct {
    pub name: String,
    pub fields: Vec<(String, String)>, // name, normalised declaration
}

pub fn path() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("include/engine_module.h")
}

impl Header {
    /// As a module of that level sees it.
    pub fn read(level: u32) -> Self {
        let text = std::fs::read_to_string(path()).expect("the header is readable");
        let text = without_comments(&text);
        let text = text.split("#ifndef KEEL_MODULE_NO_INLINES").next().unwrap();
        let mut header = Self {
            structs: vec![],
            constants: vec![],
            typedefs: vec![],
            level,
        };
        let mut declarations = String::new();
        let mut seen = vec![]; // of each #if around the line: whether it is taken
        for line in text.lines() {
            let directive = line.trim().strip_prefix('#').map(str::trim);
            match directive.map(|d| d.split_whitespace().next().unwrap_or_default()) {
                Some("if") => seen.push(condition(directive.unwrap(), level)),
                Some("ifdef" | "ifndef") => seen.push(true),
                Some("else") => *seen.last_mut().unwrap() ^= true,
                Some("endif") => drop(seen.pop()),
                _ if seen.contains(&false) => {}
                Some(_) => header
                    .constants
                    .extend(defined_constant(directive.unwrap())),
                None => declarations.push_str(&(line.to_owned() + "\n")),
            }
        }
        header.blocks(&declarations);
        header
    }

    fn blocks(&mut self, text: &str) {
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            let intro = rest[..open].rsplit(';').next().unwrap();
            self.typedefs(&rest[..open - intro.len()]);
            let words: Vec<_> = intro.split_whitespace().collect();
            if words.first() == Some(&"extern") {
                rest = &rest[open + 1..]; // extern "C" {
                continue;
            }
            let close = open + rest[open..].find('}').expect("a block ends");
            let body = &rest[open + 1..close];
            match words[..] {
                ["struct", name] => self.structs.push(Struct {
                    name: name.to_owned(),
                    fields: fields(body),
                }),
                ["enum", _] => self.constants.extend(
                    body.split(',')
                        .filter_map(|e| e.split_whitespace().next().map(str::to_owned)),
                ),
                _ => panic!("what is this block? {intro:?}"),
            }
            rest = &rest[close + 2..]; // };
        }
        self.typedefs(rest);
    }

    fn typedefs(&mut self, text: &str) {
        for declaration in text
            .split(';')
            .map(normalise)
            .filter(|d| d.starts_with("typedef "))
        {
            self.typedefs
                .push((declared_name(&declaration), declaration));
        }
    }
}

fn without_comments(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("/*") {
        out.push_str(&rest[..start]);
        rest = &rest[start + rest[start..].find("*/").expect("a comment ends") + 2..];
    }
    out + rest
}

/// `if DSS_ABI_LEVEL >= N`, the only condition that the header uses.
fn condition(directive: &str, level: u32) -> bool {
    let least = directive.strip_prefix("if DSS_ABI_LEVEL >= ");
    let least = least.unwrap_or_else(|| panic!("what is this condition? {directive}"));
    level >= least.parse().unwrap()
}

/// `define NAME value` with a value and no arguments.
fn defined_constant(directive: &str) -> Option<String> {
    let mut words = directive.trim().strip_prefix("define ")?.split_whitespace();
    let name = words.next().filter(|n| !n.contains('('))?;
    words.next().map(|_| name.to_owned())
}

fn fields(body: &str) -> Vec<(String, String)> {
    body.split(';')
        .map(normalise)
        .filter(|d| !d.is_empty())
        .map(|d| (declared_name(&d), d))
        .collect()
}

fn normalise(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The name that a declaration declares: `(*name)(...)`, `name[...]` or the last word.
fn declared_name(declaration: &str) -> String {
    let declarator = match declaration.split_once("(*") {
        Some((_, pointer)) => pointer.split(')').next().unwrap(),
        None => declaration.split('[').next().unwrap(),
    };
    declarator
        .rsplit(|c: char| !c.is_alphanumeric() && c != '_')
        .find(|w| !w.is_empty())
        .unwrap()
        .to_owned()
}

/// FNV-1a (64 bit) over the constants, and over names, declarations, offsets and sizes of all fields.
pub fn fingerprint(header: &Header, layout: &Layout) -> u64 {
    let mut text = String::new();
    for (name, value) in layout
        .constants
        .iter()
        .filter(|(n, _)| *n != "DSS_ABI_FINGERPRINT")
    {
        text += &format!("{name} = {value}\n");
    }
    for (_, declaration) in &header.typedefs {
        text += &format!("{declaration}\n");
    }
    for s in &header.structs {
        let measured = &layout.structs[&s.name];
        text += &format!("struct {} {} {}\n", s.name, measured.size, measured.align);
        for ((name, declaration), (_, offset, size)) in s.fields.iter().zip(&measured.fields) {
            text += &format!("{name}: {declaration} @ {offset} + {size}\n");
        }
    }
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
