//! Finds SPDK, checks its version, compiles the shim against its headers and says what to link. Does nothing without the feature `libspdk`.
//!
//! | variable | meaning |
//! |---|---|
//! | `SPDK_DIR` | an SPDK source tree that was built, or the prefix that one was installed to; without it pkg-config's own path counts |
//! | `SPDK_LINK` | `static` or `shared`; without it static where there are archives |
//! | `SPDK_CHECK_ONLY` | `1`: nothing is looked for or compiled; good for `cargo check` and `cargo clippy` on a machine without SPDK |
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "cargo reads what a build script prints"
)]

use std::env;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

/// What is linked: devices with all their modules, what starts them, DPDK, and the system's libraries.
const PACKAGES: [&str; 3] = ["spdk_event_bdev", "spdk_env_dpdk", "spdk_syslibs"];

mod shared;
mod version;

use shared::Shared;

const INSTALL: &str = "\
SPDK 26.x is needed. Build one outside of this tree:
    git clone --branch v26.01 --recurse-submodules https://github.com/spdk/spdk && cd spdk
    scripts/pkgdep.sh && ./configure && make
and say where it is: SPDK_DIR=/path/to/spdk (a built source tree, or the --prefix that `make install` went to), or add its
lib/pkgconfig to PKG_CONFIG_PATH. DPDK, pkg-config and a C compiler are needed, too (Debian: apt-get install libdpdk-dev pkg-config gcc).
Without C SPDK leave the feature `libspdk` away: the native provider needs nothing.";

fn main() {
    for variable in [
        "SPDK_DIR",
        "SPDK_LINK",
        "SPDK_CHECK_ONLY",
        "PKG_CONFIG_PATH",
    ] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=shared.rs");
    println!("cargo:rerun-if-changed=version.rs");
    println!("cargo:rerun-if-changed=shim");
    let wanted = env::var_os("CARGO_FEATURE_LIBSPDK").is_some();
    if !wanted || env::var_os("SPDK_CHECK_ONLY").is_some_and(|value| value == "1") {
        return;
    }
    if let Err(why) = build() {
        eprintln!("\nthe feature `libspdk`: {why}\n\n{INSTALL}\n");
        exit(1);
    }
}

fn build() -> Result<(), String> {
    let pkg_config = PkgConfig::new(env::var_os("SPDK_DIR").map(PathBuf::from))?;
    let includes = pkg_config.includes()?;
    check_version(&includes)?;
    let libraries = Libraries::of(&pkg_config.libraries()?);
    let archives = libraries.are_archives(is_static()?)?;
    let mut shim = cc::Build::new();
    shim.files(["env.c", "thread.c", "bdev.c"].map(|file| format!("shim/{file}")));
    for path in &includes {
        // Warnings about SPDK's headers are not for whoever builds this.
        shim.flag(format!("-isystem{}", path.display()));
    }
    if !archives {
        let shared = Shared::of(&libraries.names, &libraries.paths)?;
        let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
        let file = out.join("needed.c");
        std::fs::write(&file, shared.source())
            .map_err(|error| format!("{}: {error}", file.display()))?;
        shim.file(file);
        shim.define("KS_MODULES", format!("\"{}\"", shared.by_name).as_str());
    }
    // Part of the data path, whatever the profile.
    shim.flag("-std=gnu11").opt_level(2).warnings(true);
    shim.try_compile("keel_spdk_shim")
        .map_err(|error| format!("its headers do not compile: {error}"))?;
    libraries.link(archives)
}

/// pkg-config, looking into one SPDK first.
struct PkgConfig {
    path: Option<String>,
}

impl PkgConfig {
    fn new(dir: Option<PathBuf>) -> Result<PkgConfig, String> {
        let Some(dir) = dir else {
            return Ok(PkgConfig { path: None });
        };
        let places = ["build/lib/pkgconfig", "lib/pkgconfig", "lib64/pkgconfig"]
            .map(|place| dir.join(place));
        let Some(found) = places
            .iter()
            .find(|place| place.join("spdk_thread.pc").is_file())
        else {
            let place = dir.display();
            let built = if dir.join("include/spdk").is_dir() {
                "it was not built (make)"
            } else {
                "no SPDK is there"
            };
            return Err(format!(
                "SPDK_DIR={place}: {built}: spdk_thread.pc is in none of build/lib/pkgconfig, lib/pkgconfig, lib64/pkgconfig"
            ));
        };
        let mut path = found.display().to_string();
        if let Ok(more) = env::var("PKG_CONFIG_PATH") {
            let _ = write!(path, ":{more}");
        }
        Ok(PkgConfig { path: Some(path) })
    }

    fn ask(&self, arguments: &[&str]) -> Result<Vec<String>, String> {
        let mut command =
            Command::new(env::var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into()));
        command.args(arguments).args(PACKAGES);
        if let Some(path) = &self.path {
            command.env("PKG_CONFIG_PATH", path);
        }
        let output = command
            .output()
            .map_err(|error| format!("pkg-config cannot be run: {error}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!(
                "SPDK was not found by pkg-config, and SPDK_DIR does not say where it is:\n{}",
                said.trim()
            ));
        }
        let words = String::from_utf8_lossy(&output.stdout);
        Ok(words.split_whitespace().map(str::to_owned).collect())
    }

    fn includes(&self) -> Result<Vec<PathBuf>, String> {
        let words = self.ask(&["--cflags", "--keep-system-cflags"])?;
        let paths = words.iter().filter_map(|word| word.strip_prefix("-I"));
        Ok(paths.map(PathBuf::from).collect())
    }

    fn libraries(&self) -> Result<Vec<String>, String> {
        self.ask(&["--libs", "--static", "--keep-system-libs"])
    }
}

/// The headers', before a compiler stumbles over what changed.
fn check_version(includes: &[PathBuf]) -> Result<(), String> {
    let found = includes
        .iter()
        .map(|path| path.join("spdk/version.h"))
        .find(|path| path.is_file());
    let Some(path) = found else {
        return Err(format!("spdk/version.h is in none of {includes:?}"));
    };
    let text =
        std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    version::check(&text).map_err(|why| format!("{} {why}", path.display()))
}

/// `None`: whatever is there.
fn is_static() -> Result<Option<bool>, String> {
    match env::var("SPDK_LINK").as_deref() {
        Err(_) | Ok("") => Ok(None),
        Ok("static") => Ok(Some(true)),
        Ok("shared") => Ok(Some(false)),
        Ok(other) => Err(format!("SPDK_LINK={other}: it is static or shared")),
    }
}

/// What pkg-config says about linking.
#[derive(Default)]
struct Libraries {
    paths: Vec<PathBuf>,
    names: Vec<String>,
    /// Archives by path.
    files: Vec<PathBuf>,
}

impl Libraries {
    fn of(words: &[String]) -> Libraries {
        let mut libraries = Libraries::default();
        for word in words {
            if let Some(path) = word.strip_prefix("-L") {
                libraries.paths.push(path.into());
            } else if let Some(name) = word.strip_prefix("-l") {
                libraries.names.push(name.to_owned());
            } else if word.ends_with(".a") {
                libraries.files.push(word.into());
            }
        }
        // Where a distribution's archives are; pkg-config leaves such places away.
        if let Ok(target) = env::var("CARGO_CFG_TARGET_ARCH") {
            libraries
                .paths
                .push(format!("/usr/lib/{target}-linux-gnu").into());
        }
        libraries.paths.dedup();
        libraries
    }

    fn archive(&self, name: &str) -> Option<PathBuf> {
        let file = format!("lib{name}.a");
        self.paths
            .iter()
            .map(|path| path.join(&file))
            .find(|path| path.is_file())
    }

    fn are_archives(&self, wanted: Option<bool>) -> Result<bool, String> {
        let has_archives = self.archive("spdk_thread").is_some();
        match wanted {
            Some(true) if !has_archives => {
                Err("SPDK_LINK=static, and libspdk_thread.a is not there".into())
            }
            _ => Ok(wanted.unwrap_or(has_archives)),
        }
    }

    /// Modules and drivers announce themselves in constructors that nobody calls by name: of SPDK's and DPDK's archives all objects are
    /// linked.
    fn link(&self, archives: bool) -> Result<(), String> {
        for path in &self.paths {
            println!("cargo:rustc-link-search=native={}", path.display());
        }
        for name in &self.names {
            let ours = name.starts_with("spdk_") || name.starts_with("rte_");
            let archive = ours && archives && self.archive(name).is_some();
            if archive {
                println!("cargo:rustc-link-lib=static:+whole-archive,-bundle={name}");
            } else if name != "pthread" && name != "dl" && name != "rt" && name != "m" {
                println!("cargo:rustc-link-lib=dylib={name}");
            }
        }
        if archives && self.archive("rte_eal").is_some() {
            // What DPDK's archives need beside what SPDK names.
            println!("cargo:rustc-link-lib=dylib=numa");
        }
        for file in &self.files {
            link_file(file)?;
        }
        Ok(())
    }
}

fn link_file(file: &Path) -> Result<(), String> {
    let name = file
        .file_stem()
        .and_then(|name| name.to_str())
        .and_then(|name| name.strip_prefix("lib"));
    let (Some(folder), Some(name)) = (file.parent(), name) else {
        return Err(format!("{}: not the name of a library", file.display()));
    };
    println!("cargo:rustc-link-search=native={}", folder.display());
    println!("cargo:rustc-link-lib=static:-bundle={name}");
    Ok(())
}
