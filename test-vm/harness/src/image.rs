//! The guest's root file system, in memory: busybox, the agent, modules, and the libraries of the programs under test.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cpio::Archive;
use crate::guest::Guest;
use crate::libraries;

const INIT: &str = include_str!("../../image/init");
const INITTAB: &str = include_str!("../../image/inittab");
const PROFILE: &str = include_str!("../../image/profile");
const WELCOME: &str = include_str!("../../image/welcome");
/// What Debian has, for the guide that is tried in guests: as much of it as the guide uses.
const STAND_INS: [(&str, &str); 4] = [
    ("install", include_str!("../../image/install")),
    ("systemctl", include_str!("../../image/systemctl")),
    ("journalctl", include_str!("../../image/journalctl")),
    ("useradd", include_str!("../../image/useradd")),
];
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nkeel:x:1000:1000:keel:/tmp:/bin/sh\n";
/// Where Debian's OpenSSL looks; C SPDK does not start where it is missing. It may be empty.
const OPENSSL: &str = "/usr/lib/ssl/openssl.cnf";
const GROUP: &str = "root:x:0:\nkeel:x:1000:\n";
/// Programs that the guest runs from the shared folder; their libraries go into the image.
const PROGRAMS: [&str; 2] = ["keel", "keel-engine"];
pub(crate) const AGENT: &str = "keel-vm-agent";

/// Builds the image. `programs` is where cargo puts programs; `extra` are programs of the host that the guest gets in `/bin`.
pub(crate) fn build(guest: &Guest, programs: &Path, extra: &[PathBuf]) -> Result<Vec<u8>> {
    let mut image = Archive::default();
    for folder in [
        "/dev", "/proc", "/sys", "/tmp", "/run", "/keel", "/state", "/root", "/mnt", "/var/lib",
        "/var/run", "/var/tmp",
    ] {
        image.folder(folder);
    }
    image.file("/init", 0o755, INIT.as_bytes());
    image.file("/etc/inittab", 0o644, INITTAB.as_bytes());
    image.file("/etc/profile", 0o644, PROFILE.as_bytes());
    image.file("/etc/welcome", 0o644, WELCOME.as_bytes());
    image.file("/etc/passwd", 0o644, PASSWD.as_bytes());
    image.file("/etc/group", 0o644, GROUP.as_bytes());
    image.file(OPENSSL, 0o644, b"");
    for (name, script) in STAND_INS {
        image.file(&format!("/bin/{name}"), 0o755, script.as_bytes());
    }
    image.copy("/bin/busybox", 0o755, &guest.busybox())?;
    let agent = programs.join(AGENT);
    image.copy("/bin/keel-vm-agent", 0o755, &agent)?;
    let modules = guest.modules()?;
    let order: Vec<&str> = modules.iter().map(|(name, _)| name.as_str()).collect();
    image.file(
        "/lib/modules/modules.order",
        0o644,
        (order.join("\n") + "\n").as_bytes(),
    );
    for (name, file) in &modules {
        image.copy(&format!("/lib/modules/{name}.ko"), 0o644, file)?;
    }
    let mut linked = vec![agent];
    linked.extend(
        PROGRAMS
            .iter()
            .map(|name| programs.join(name))
            .filter(|program| program.exists()),
    );
    for program in extra {
        let name = program
            .file_name()
            .with_context(|| format!("{} is not a program", program.display()))?;
        image.copy(&format!("/bin/{}", name.to_string_lossy()), 0o755, program)?;
        linked.push(program.clone());
    }
    for library in libraries::needed(&linked)? {
        // Under the name that programs ask for, whatever it is a link to.
        let data = fs::read(&library).with_context(|| library.display().to_string())?;
        image.file(&library.to_string_lossy(), 0o755, &data);
    }
    Ok(image.finish())
}
