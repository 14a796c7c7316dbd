//! Asks the system's C compiler where everything is.

use crate::header::{self, Header};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;

#[derive(Clone)]
pub struct Layout {
    pub structs: BTreeMap<String, Measured>,
    pub constants: BTreeMap<String, i128>,
    pub opcode_sample: i128,
}

#[derive(Clone, Default)]
pub struct Measured {
    pub size: usize,
    pub align: usize,
    pub fields: Vec<(String, usize, usize)>,
}

pub fn measure(header: &Header) -> Layout {
    let output = run(&program(header));
    let mut layout = Layout {
        structs: BTreeMap::new(),
        constants: BTreeMap::new(),
        opcode_sample: -1,
    };
    for line in output.lines() {
        let words: Vec<_> = line.split(' ').collect();
        let number = |i: usize| words[i].parse::<usize>().unwrap();
        match words[0] {
            "struct" => {
                let measured = Measured {
                    size: number(2),
                    align: number(3),
                    fields: vec![],
                };
                layout.structs.insert(words[1].to_owned(), measured);
            }
            "field" => layout.structs.get_mut(words[1]).unwrap().fields.push((
                words[2].to_owned(),
                number(3),
                number(4),
            )),
            "const" => drop(
                layout
                    .constants
                    .insert(words[1].to_owned(), words[2].parse().unwrap()),
            ),
            "opcode" => layout.opcode_sample = words[1].parse().unwrap(),
            other => panic!("unexpected line {other}"),
        }
    }
    layout
}

fn program(header: &Header) -> String {
    let mut c = format!(
        "#include <stdio.h>\n#define DSS_ABI_LEVEL {}u\n#include \"engine_module.h\"\nDSS_MODULE_HOST();\nint main(void)\n{{\n",
        header.level
    );
    for s in &header.structs {
        let name = &s.name;
        writeln!(
            c,
            "printf(\"struct {name} %zu %zu\\n\", sizeof(struct {name}), _Alignof(struct {name}));"
        )
        .unwrap();
        for (field, _) in &s.fields {
            writeln!(
                c,
                "printf(\"field {name} {field} %zu %zu\\n\", offsetof(struct {name}, {field}), \
                 sizeof(((struct {name} *)0)->{field}));"
            )
            .unwrap();
        }
    }
    for name in &header.constants {
        // Enumerators may be negative; only these two need all 64 bits.
        let (format, cast) = if ["DSS_ABI_FINGERPRINT", "DSS_FOREVER"].contains(&name.as_str()) {
            ("%llu", "unsigned long long")
        } else {
            ("%lld", "long long")
        };
        writeln!(c, "printf(\"const {name} {format}\\n\", ({cast})({name}));").unwrap();
    }
    c + "printf(\"opcode %lu\\n\", (unsigned long)DSS_RPC_OPCODE(4, 1, 0x203));\nreturn 0;\n}\n"
}

fn run(program: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let (source, binary) = (dir.path().join("layout.c"), dir.path().join("layout"));
    std::fs::write(&source, program).unwrap();
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let compiler = cc::Build::new()
        .target(&target)
        .host(&target)
        .opt_level(0)
        .cargo_metadata(false)
        .get_compiler()
        .to_command();
    let mut compiler: Command = compiler;
    compiler.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-I"]);
    let compiled = compiler
        .arg(header::path().parent().unwrap())
        .arg(&source)
        .arg("-o")
        .arg(&binary)
        .output()
        .unwrap();
    assert!(
        compiled.status.success(),
        "the header does not compile: {}",
        String::from_utf8_lossy(&compiled.stderr)
    );
    String::from_utf8(Command::new(&binary).output().unwrap().stdout).unwrap()
}
