//! The shared libraries of the host's programs, which go into the image: programs are built here and run there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::tools;

/// Libraries and the loader that these programs and libraries need, as absolute paths.
pub(crate) fn needed(programs: &[PathBuf]) -> Result<BTreeSet<PathBuf>> {
    let mut all = BTreeSet::new();
    for program in programs {
        let text = tools::output(Command::new("ldd").arg(program))
            .with_context(|| format!("cannot tell the libraries of {}", program.display()))?;
        all.extend(parse(&String::from_utf8_lossy(&text), program)?);
    }
    Ok(all)
}

/// Lines are `libc.so.6 => /lib/.../libc.so.6 (0x...)`, `/lib64/ld-linux-x86-64.so.2 (0x...)`, `linux-vdso.so.1 (0x...)`, and
/// `statically linked`.
fn parse(text: &str, program: &Path) -> Result<Vec<PathBuf>> {
    let mut libraries = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [name, "=>", "not", "found"] => {
                bail!(
                    "{} needs {name}, which this machine does not have",
                    program.display()
                )
            }
            [_, "=>", path, _] | [path, _] if path.starts_with('/') => libraries.push(path.into()),
            _ => {}
        }
    }
    Ok(libraries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ldd_says_is_understood() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let paths = parse(text, Path::new("/p")).unwrap();
        let expected = [
            "/lib/x86_64-linux-gnu/libc.so.6",
            "/lib64/ld-linux-x86-64.so.2",
        ];
        assert_eq!(paths, expected.map(PathBuf::from));
        assert!(
            parse("\tstatically linked\n", Path::new("/p"))
                .unwrap()
                .is_empty()
        );
        let error = parse("\tlibx.so.1 => not found\n", Path::new("/p")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "/p needs libx.so.1, which this machine does not have"
        );
    }
}
