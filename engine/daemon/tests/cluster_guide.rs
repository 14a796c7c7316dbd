//! `docs/operating/cluster.md` from the first command to the last, on three machines as it asks for.

#![allow(missing_docs, reason = "a test")]

mod harness;

use harness::{Machine, Machines, eventually};

const CLUSTER: &str = include_str!("../../../docs/operating/cluster.md");
/// Where each engine is before.
const INSTALL: &str = include_str!("../../../docs/operating/install.md");

/// A fenced block: the section that it is in, its language, its text.
type Block<'a> = (&'a str, &'a str, String);

fn blocks(guide: &str) -> Vec<Block<'_>> {
    let (mut section, mut blocks) = ("", Vec::new());
    let mut lines = guide.lines();
    while let Some(line) = lines.next() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title;
        } else if let Some(language) = line.strip_prefix("```") {
            let text: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            blocks.push((section, language, text.join("\n")));
        }
    }
    blocks
}

fn block(guide: &'static str, language: &str) -> String {
    let found = blocks(guide).into_iter().find(|block| block.1 == language);
    found.expect("a block in this language").2
}

/// An engine as install.md leaves it, but with memory instead of SSDs, on cores that three machines share.
fn install(machine: &Machine) {
    let toml = block(INSTALL, "toml");
    let (before, _) = toml.split_once("[[device]]").expect("devices");
    let targets = "targets = 4 ";
    assert!(before.contains(targets), "{before}");
    let before = before.replace(
        targets,
        "oversubscribe = true\nidle_latency_us = 50\ntargets = 1 ",
    );
    let before = before.replace("[rpc]\n", "[rpc]\nbulk_memory = \"32MiB\"\n");
    let device = "[[device]]\nname = \"ssd0\"\nkind = \"malloc\"\nsize = \"64MiB\"\n";
    machine.write("/etc/keel/engine.toml", &format!("{before}{device}"));
    let unit = block(INSTALL, "ini");
    machine.write("/etc/systemd/system/keel-engine.service", &unit);
    run(machine, "systemctl start keel-engine");
}

#[track_caller]
fn run(machine: &Machine, script: &str) -> String {
    match machine.sh(script) {
        Ok(said) => said,
        Err(said) => {
            let logs =
                ["/var/log/etcd.log", "/var/log/keel-engine.log"].map(|log| machine.read(log));
            panic!(
                "machine {}: {script}\n{said}\n{}",
                machine.nr(),
                logs.join("\n---\n")
            )
        }
    }
}

/// Runs a block where its section's title says.
fn follow(machines: &[Machine], section: &str, script: &str) {
    let script = |machine: &Machine| format!("n={}\n{script}", machine.nr());
    if section.ends_with("on storage-1") {
        run(&machines[0], &script(&machines[0]));
    } else if section.ends_with("on one machine after the other") {
        machines
            .iter()
            .for_each(|machine| drop(run(machine, &script(machine))));
    } else {
        assert!(
            section.ends_with("on each machine"),
            "where is `{section}`?"
        );
        std::thread::scope(|scope| {
            for machine in machines {
                scope.spawn(move || run(machine, &script(machine)));
            }
        });
    }
}

/// A text without what differs from run to run: numbers, units, and how wide columns are.
fn shape(text: &str) -> String {
    let word = |word: &str| match word {
        "us" | "ms" | "s" => "UNIT".to_owned(),
        word => {
            let digits = word.split(|c: char| c.is_ascii_digit());
            let parts: Vec<&str> = digits
                .filter(|part| !part.is_empty() && *part != ".")
                .collect();
            parts.join("#")
        }
    };
    let line = |line: &str| {
        line.split_whitespace()
            .map(word)
            .collect::<Vec<_>>()
            .join(" ")
    };
    text.trim_end()
        .lines()
        .map(line)
        .collect::<Vec<_>>()
        .join("\n")
}

/// A command, and what the guide promises about its output.
fn compare(machine: &Machine, text: &str) {
    let (command, promised) = text.split_once('\n').expect("a command and its output");
    let command = command.strip_prefix("$ ").expect("a command");
    let mut said = String::new();
    eventually("what the guide promises", || {
        let now = run(machine, command);
        let is_so = shape(&now) == shape(promised);
        said = now;
        is_so.then_some(())
    });
}

#[track_caller]
fn wait_said(machine: &Machine, all: &[&str]) {
    eventually(&format!("{all:?}"), || {
        let said = run(machine, "keel group status");
        all.iter().all(|part| said.contains(part)).then_some(())
    });
}

#[test]
fn from_one_engine_to_three_by_the_guide() {
    if std::process::Command::new("etcd")
        .arg("--version")
        .output()
        .is_err()
    {
        return harness::skipped("no etcd (install with: sudo apt-get install etcd-server)");
    }
    let machines = match Machines::boot(3) {
        Ok(machines) => machines,
        Err(why) => return harness::skipped(&why),
    };
    let machines = machines.all();
    machines.iter().for_each(install);
    // storage-1 has been in use.
    run(
        &machines[0],
        "keel pool create tank --size 32MiB && keel cont create tank photos",
    );
    let mut followed = Vec::new();
    for (section, language, text) in blocks(CLUSTER) {
        match language {
            "sh" => follow(machines, section, &text),
            "console" => compare(&machines[0], &text),
            _ => continue,
        }
        followed.push(section);
    }
    assert_eq!(followed.len(), 4, "{followed:?}");

    // etcd beside an engine is gone: the others' serve.
    run(&machines[0], "systemctl stop etcd");
    wait_said(&machines[0], &["led by rank 0", "10.20.0.3:10010  alive"]);
    // The leader is gone, too.
    run(&machines[0], "systemctl kill keel-engine");
    for machine in &machines[1..] {
        wait_said(machine, &["led by rank 1", "10.20.0.3:10010"]);
    }
    run(&machines[0], "systemctl start keel-engine");
    wait_said(
        &machines[0],
        &["led by rank 1", "self", "10.20.0.2:10010  alive, leads"],
    );
    // Without a majority of etcd nobody leads, and everybody says why.
    run(&machines[1], "systemctl stop etcd");
    wait_said(&machines[1], &["led by nobody"]);
    for machine in machines {
        wait_said(machine, &["note: etcd is not reached", "10.20.0.3:10010"]);
    }
    run(&machines[0], "systemctl start etcd");
    wait_said(
        &machines[2],
        &["10.20.0.1:10010  alive", "10.20.0.2:10010  alive"],
    );
}
