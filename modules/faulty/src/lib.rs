//! Compiles the C modules of the tests with the system's compiler and `engine_module.h` alone, as a module's author
//! would. Tests only: nothing that ships depends on it.

use std::path::{Path, PathBuf};

/// Compiles `modules/faulty/c/<name>.c` (or `modules/<name>/<name>.c`) to `<folder>/lib<name>.so`.
///
/// # Panics
/// When there is no C compiler or the file does not compile: both are the test's failure.
pub fn compile(name: &str, folder: &Path) -> PathBuf {
    let modules = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("modules/");
    let faulty = modules.join("faulty/c").join(format!("{name}.c"));
    let source = if faulty.exists() {
        faulty
    } else {
        modules.join(name).join(format!("{name}.c"))
    };
    let library = folder.join(format!("lib{name}.so"));
    let host = &format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let compiler = cc::Build::new()
        .target(host)
        .host(host)
        .opt_level(1)
        .cargo_metadata(false)
        .get_compiler();
    let mut command = compiler.to_command();
    command.args([
        "-std=c11",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Wno-override-init",
        "-fexceptions",
        "-shared",
        "-fPIC",
    ]);
    command
        .arg("-I")
        .arg(modules.join("abi/include"))
        .arg("-o")
        .arg(&library)
        .arg(&source);
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("cannot run the C compiler {:?}: {error}", compiler.path()));
    assert!(
        output.status.success(),
        "{} does not compile:\n{}",
        source.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    library
}
