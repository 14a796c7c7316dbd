//! How shared libraries stay with the program.
//!
//! Linkers leave away what no object calls by name. Modules of SPDK's are never called by name, they announce themselves when they are loaded;
//! and SPDK's shared libraries do not say which of the system's and DPDK's they need. So the shim names a symbol of each library, which makes it
//! one that the program needs; the few that have none (`libspdk_event_bdev.so`) it loads by their names when it starts.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Part of the C library: always there.
const C_LIBRARY: [&str; 4] = ["pthread", "dl", "rt", "m"];

/// What the shim is compiled with.
#[derive(Default)]
pub(crate) struct Shared {
    /// Names that the loader knows, with colons between.
    pub(crate) by_name: String,
    symbols: Vec<String>,
}

impl Shared {
    /// Of these libraries, as `-l` names them, in these folders.
    pub(crate) fn of(names: &[String], folders: &[PathBuf]) -> Result<Shared, String> {
        let mut shared = Shared::default();
        for name in names
            .iter()
            .filter(|name| !C_LIBRARY.contains(&name.as_str()))
        {
            let file = |ending| {
                let file = format!("lib{name}.{ending}");
                let places = folders.iter().map(|folder| folder.join(&file));
                places.into_iter().find(|path| path.is_file())
            };
            let Some(path) = file("so") else {
                if file("a").is_some() {
                    continue;
                }
                return Err(format!(
                    "lib{name}.so is in none of {folders:?}; its package, with what is for developers, has to be installed"
                ));
            };
            let path = behind_script(path)?;
            match symbol(&path)? {
                Some(symbol) => shared.symbols.push(symbol),
                None => {
                    let colon = if shared.by_name.is_empty() { "" } else { ":" };
                    let _ = write!(shared.by_name, "{colon}{}", loaded_as(&path));
                }
            }
        }
        Ok(shared)
    }

    /// A table of the symbols, in C.
    pub(crate) fn source(&self) -> String {
        let mut text = String::from("/* Made by build.rs: a symbol of each shared library. */\n");
        for (number, symbol) in self.symbols.iter().enumerate() {
            let _ = writeln!(
                text,
                "extern const char ks_symbol_{number}[] __asm__(\"{symbol}\");"
            );
        }
        text += "const void *const ks_needed[] = {\n";
        for number in 0..self.symbols.len() {
            let _ = writeln!(text, "\tks_symbol_{number},");
        }
        text + "};\n"
    }
}

/// `lib….so` may be a text for the linker, which names the library itself.
fn behind_script(path: PathBuf) -> Result<PathBuf, String> {
    let said = |error| format!("{}: {error}", path.display());
    let bytes = fs::read(&path).map_err(said)?;
    if bytes.starts_with(b"\x7fELF") {
        return Ok(path);
    }
    let text = String::from_utf8_lossy(&bytes);
    let mut words = text.split([' ', '\n', '(', ')']);
    let found = words.find(|word| word.starts_with('/') && word.contains(".so"));
    found.map(PathBuf::from).ok_or_else(|| {
        format!(
            "{}: neither a library nor a text that names one",
            path.display()
        )
    })
}

/// The name that programs ask the loader for: what the link points to.
fn loaded_as(path: &Path) -> String {
    let target = fs::read_link(path).unwrap_or_else(|_| path.to_owned());
    let name = target.file_name().unwrap_or(target.as_os_str());
    name.to_string_lossy().into_owned()
}

/// A function that it has, if any.
fn symbol(path: &Path) -> Result<Option<String>, String> {
    let output = Command::new("nm")
        .args(["-D", "--defined-only"])
        .arg(path)
        .output()
        .map_err(|error| format!("nm (of Debian's binutils) cannot be run: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("nm {}: {}", path.display(), said.trim()));
    }
    Ok(first_function(&String::from_utf8_lossy(&output.stdout)))
}

/// Lines are `0000000000001234 T name@@VERSION`; an older version has one `@`.
fn first_function(text: &str) -> Option<String> {
    let functions = text.lines().filter_map(|line| {
        let (_, name) = line.split_once(" T ")?;
        let (name, version) = name.split_once('@').unwrap_or((name, "@"));
        (version.starts_with('@') && !name.starts_with('_')).then(|| name.to_owned())
    });
    functions.into_iter().next()
}
