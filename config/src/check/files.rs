//! Modules, sockets and directories.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::{Fault, Rules};
use crate::Config;
use crate::error::Kind;
use crate::machine::{Machine, PathKind};
use crate::words;

pub(super) fn check(rules: &mut Rules<'_>) {
    module_twice(rules);
    sockets_differ(rules);
    if let Some(machine) = rules.machine {
        module_path(rules, machine);
        modules_found(rules, machine);
        storage_dir(rules, machine);
        socket(rules, machine);
        log_file(rules, machine);
    }
}

/// Whether the engine itself makes this directory before it needs it: only `storage_dir`.
pub(super) fn made_at_start(directory: &Path, config: &Config) -> bool {
    directory == config.engine.storage_dir
}

fn module_twice(rules: &mut Rules<'_>) {
    let load: &[String] = &rules.config.modules.load;
    for (number, name) in load.iter().enumerate() {
        let Some(first) = load[..number].iter().position(|other| other == name) else {
            continue;
        };
        rules.report(Fault {
            kind: Kind::Conflict,
            key: &format!("modules.load[{number}]"),
            message: format!("module {name:?} is listed twice"),
            label: "listed again",
            help: "a module is loaded once: remove one of them".into(),
            also: Some((&format!("modules.load[{first}]"), "first listed here")),
        });
    }
}

fn sockets_differ(rules: &mut Rules<'_>) {
    let drpc = &rules.config.drpc;
    if drpc.control_server.as_ref() != Some(&drpc.socket)
        || !rules.sound(&["drpc.socket", "drpc.control_server"])
    {
        return;
    }
    rules.report(Fault {
        kind: Kind::Conflict,
        key: "drpc.control_server",
        message: "`drpc.control_server` is the engine's own socket".into(),
        label: "the same as `drpc.socket`",
        help: "give the control server's socket, or leave the key out if there is none".into(),
        also: Some(("drpc.socket", "the engine listens here")),
    });
}

fn module_path(rules: &mut Rules<'_>, machine: &Machine) {
    let dirs: &[PathBuf] = &rules.config.modules.path;
    for (number, dir) in dirs
        .iter()
        .enumerate()
        .filter(|(_, dir)| !machine.is_directory(dir))
    {
        rules.report(Fault {
            kind: Kind::Machine,
            key: &format!("modules.path[{number}]"),
            message: format!("{} is not a directory", dir.display()),
            label: "no such directory",
            help: "a relative path starts at the directory that the engine is started in".into(),
            also: None,
        });
    }
}

fn modules_found(rules: &mut Rules<'_>, machine: &Machine) {
    let modules = &rules.config.modules;
    if !rules.sound(&["modules.load", "modules.path"])
        || modules.path.iter().any(|dir| !machine.is_directory(dir))
    {
        return;
    }
    let mut dirs: Vec<&PathBuf> = modules.path.iter().chain(&machine.module_dirs).collect();
    let mut seen = HashSet::new();
    dirs.retain(|dir| seen.insert(*dir));
    let there: Vec<String> = dirs
        .iter()
        .flat_map(|dir| machine.modules_in(dir))
        .collect();
    for (number, name) in modules.load.iter().enumerate() {
        if dirs
            .iter()
            .any(|dir| machine.at(&dir.join(format!("lib{name}.so"))).is_some())
        {
            continue;
        }
        let near = words::closest(name, there.iter().map(String::as_str))
            .map(|near| format!("did you mean {near:?}? "));
        let looked: Vec<String> = dirs.iter().map(|dir| dir.display().to_string()).collect();
        rules.report(Fault {
            kind: Kind::Machine,
            key: &format!("modules.load[{number}]"),
            message: format!("module {name:?} is not found"),
            label: "no such module",
            help: format!(
                "{}lib{name}.so was looked for in: {}",
                near.unwrap_or_default(),
                looked.join(", ")
            ),
            also: None,
        });
    }
}

/// The engine makes the directory, with those above it; something else in the way is not removed.
fn storage_dir(rules: &mut Rules<'_>, machine: &Machine) {
    let dir = &rules.config.engine.storage_dir;
    if !rules.sound(&["engine.storage_dir"]) {
        return;
    }
    let is_there = |path: &&Path| machine.is_directory(path) || machine.at(path).is_some();
    let Some(nearest) = dir.ancestors().find(is_there) else {
        return;
    };
    if machine.is_directory(nearest) {
        return;
    }
    let shown = nearest.display();
    let message = if nearest == dir {
        format!("{shown} is not a directory")
    } else {
        format!(
            "{} cannot be created: {shown} is not a directory",
            dir.display()
        )
    };
    rules.report(Fault {
        kind: Kind::Machine,
        key: "engine.storage_dir",
        message,
        label: "not a directory",
        help: "it is not removed: choose another place or move it away".into(),
        also: None,
    });
}

fn socket(rules: &mut Rules<'_>, machine: &Machine) {
    let path = &rules.config.drpc.socket;
    if !rules.sound(&["drpc.socket"]) {
        return;
    }
    let (message, label, help) = match machine.at(path) {
        Some(info) if info.kind == PathKind::Socket => return, // a stale one is replaced, a live one refused when binding
        Some(_) => {
            let message = format!("{} is there and is not a socket", path.display());
            (
                message,
                "not a socket",
                "it is not removed: choose another path or move it away".to_owned(),
            )
        }
        None => {
            let dir = path.parent().unwrap_or(Path::new(""));
            if machine.is_directory(dir) || made_at_start(dir, rules.config) {
                return;
            }
            let message = format!(
                "{} cannot be created: {} is not a directory",
                path.display(),
                dir.display()
            );
            let help = format!(
                "create it, or set RuntimeDirectory=keel in the systemd unit for /run/keel: mkdir -p {}",
                dir.display()
            );
            (message, "no such directory", help)
        }
    };
    rules.report(Fault {
        kind: Kind::Machine,
        key: "drpc.socket",
        message,
        label,
        help,
        also: None,
    });
}

fn log_file(rules: &mut Rules<'_>, machine: &Machine) {
    let Some(path) = &rules.config.telemetry.log_file else {
        return;
    };
    let dir = path.parent().unwrap_or(Path::new(""));
    let (message, label, help) = match machine.at(path) {
        Some(info) if info.kind == PathKind::Directory => {
            let message = format!("{} is a directory", path.display());
            (
                message,
                "not a file",
                format!("name a file in it: {}", path.join("engine.log").display()),
            )
        }
        None if !machine.is_directory(dir) && !made_at_start(dir, rules.config) => {
            let message = format!(
                "{} cannot be created: {} is not a directory",
                path.display(),
                dir.display()
            );
            (
                message,
                "no such directory",
                format!("create it: mkdir -p {}", dir.display()),
            )
        }
        _ => return,
    };
    rules.report(Fault {
        kind: Kind::Machine,
        key: "telemetry.log_file",
        message,
        label,
        help,
        also: None,
    });
}
