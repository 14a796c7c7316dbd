//! The modules' libraries: beside the engine's binary, where cargo puts them and the engine looks for them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Of the modules that the tests load.
const CRATES: [&str; 5] = ["hello", "iv_demo", "mgmt", "obj", "init_panics"];

/// The folder of the engine's binary, with the libraries in it. `cargo test -p engine` builds the binary but not the
/// libraries, which nobody links: cargo is asked for those that are not there or older than their sources.
pub(super) fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_BIN_EXE_keel-engine"))
            .parent()
            .expect("a folder")
            .to_owned();
        if !CRATES.iter().all(|name| is_fresh(&folder, name)) {
            build(&folder);
        }
        folder
    })
}

/// Whether the library is newer than everything that cargo's note beside it names. What cannot be read is not fresh.
fn is_fresh(folder: &Path, name: &str) -> bool {
    let changed = |path: &Path| path.metadata().and_then(|meta| meta.modified()).ok();
    let built = changed(&folder.join(format!("lib{name}.so")));
    let note = std::fs::read_to_string(folder.join(format!("lib{name}.d"))).unwrap_or_default();
    let Some((_, sources)) = note.split_once(": ") else {
        return false;
    };
    let sources = sources.split_ascii_whitespace();
    built.is_some_and(|built| {
        sources
            .map(|path| changed(Path::new(path)))
            .all(|changed| changed.is_some_and(|changed| changed <= built))
    })
}

fn build(folder: &Path) {
    let mut cargo = Command::new(option_env!("CARGO").unwrap_or("cargo"));
    cargo
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["build", "--quiet", "--locked", "--offline", "--target-dir"])
        .arg(folder.parent().expect("the target directory"));
    let profile = folder
        .file_name()
        .and_then(|name| name.to_str())
        .expect("a profile");
    match profile {
        "debug" => {}
        other => {
            cargo.args(["--profile", other]);
        }
    }
    for name in CRATES {
        cargo.args(["-p", name]);
    }
    let output = cargo.output().expect("cargo runs");
    assert!(
        output.status.success(),
        "the modules do not build:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for name in CRATES {
        let library = folder.join(format!("lib{name}.so"));
        assert!(library.exists(), "{} is not there", library.display());
    }
}
