//! What `keel` says and how it exits, without an engine: the wrong things a newcomer tries first.

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// Runs `keel` where no engine can be found.
fn keel(folder: &Path, args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keel"));
    command
        .current_dir(folder)
        .env("KEEL_RUN_DIR", folder.join("run"))
        .env_remove("KEEL_SOCKET")
        .args(args);
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let text = |bytes: Vec<u8>| {
        String::from_utf8(bytes)
            .unwrap()
            .replace(&folder.display().to_string(), "DIR")
    };
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn fails(args: &[&str]) -> (i32, String) {
    let folder = TempDir::new().unwrap();
    let (code, stdout, stderr) = keel(folder.path(), args);
    assert_eq!(stdout, "", "{args:?}");
    (code, stderr)
}

#[test]
fn no_engine_runs() {
    let says = "keel: no engine runs on this machine\n  cure: start one (`keel-engine --config FILE`, or `cargo xtask run` in a checkout), or name its socket with --socket\n";
    for command in [
        &["engine", "status"][..],
        &["modules"],
        &["pool", "list"],
        &["obj", "ls", "p", "c"],
        &["metrics"],
    ] {
        assert_eq!(fails(command), (69, says.to_owned()), "{command:?}");
    }
}

#[test]
fn errors_are_json_when_json_is_asked_for() {
    let (code, stderr) = fails(&["engine", "status", "-o", "json"]);
    let value: serde_json::Value = serde_json::from_str(&stderr).unwrap();
    assert_eq!(
        (code, value["exit_code"].as_i64(), value["error"].as_str()),
        (69, Some(69), Some("no engine runs on this machine"))
    );
}

#[test]
fn a_socket_that_is_not_there() {
    let (code, stderr) = fails(&["--socket", "gone.sock", "engine", "ready"]);
    assert_eq!(code, 69, "{stderr}");
    assert!(
        stderr.contains("gone.sock")
            && stderr.contains("cure: check that the engine runs and that --socket is its socket"),
        "{stderr}"
    );
}

#[test]
fn wrong_usage_is_explained() {
    for (args, says) in [
        (&["pool", "create", "tank"][..], "--size <SIZE>"),
        (
            &["pool", "create", "tank", "--size", "many"],
            "invalid value 'many' for '--size <SIZE>'",
        ),
        (
            &["bench", "bdev", "--device", "null", "--queue-depth", "0"],
            "0 is not in 1..=4096",
        ),
        (&["engin"], "unrecognized subcommand 'engin'"),
    ] {
        let (code, stderr) = fails(args);
        assert_eq!(code, 2, "{args:?}: {stderr}");
        assert!(stderr.contains(says), "{args:?}: {stderr}");
    }
}

#[test]
fn benchmarks_name_what_they_cannot_do() {
    assert_eq!(
        fails(&["bench", "bdev", "--device", "tape"]),
        (
            1,
            "keel: device `tape` is none of null, malloc, file:PATH, nvme:ADDRESS\n".to_owned()
        )
    );
    let (code, stderr) = fails(&["bench", "bdev", "--device", "file:gone.img"]);
    assert!(code == 1 && stderr.contains("gone.img"), "{stderr}");
}

#[test]
fn one_json_object_per_benchmark() {
    let folder = TempDir::new().unwrap();
    let cpu = std::fs::read_to_string("/proc/self/status").unwrap();
    let allowed = cpu
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .unwrap()
        .trim();
    let first: String = allowed.chars().take_while(char::is_ascii_digit).collect();
    let (code, stdout, stderr) = keel(
        folder.path(),
        &[
            "bench",
            "bdev",
            "--device",
            "null",
            "--seconds",
            "0.05",
            "--cores",
            &first,
            "-o",
            "json",
        ],
    );
    assert_eq!(code, 0, "{stderr}");
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert!(
        report["iops"].as_f64().unwrap() > 0.0
            && report["mib_per_s"].is_number()
            && report["cpu_seconds"].is_number()
    );
    for key in ["mean", "p50", "p99", "p999", "p9999"] {
        assert!(report["latency_us"][key].is_number(), "{key}");
    }
}

#[test]
fn configurations_are_checked_without_an_engine() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("bad.toml"), "[engine]\ntragets = 4\n").unwrap();
    let (code, _, stderr) = keel(folder.path(), &["config", "check", "--config", "bad.toml"]);
    assert_eq!(code, 78, "{stderr}");
    assert!(
        stderr.contains("bad.toml:2:1") && stderr.contains("did you mean `targets`?"),
        "{stderr}"
    );
    let (code, stdout, _) = keel(folder.path(), &["config", "explain", "engine.targets"]);
    assert!(code == 0 && stdout.contains("engine.targets"), "{stdout}");
    let (code, _, stderr) = keel(folder.path(), &["config", "explain", "engine.tragets"]);
    assert_eq!(
        (code, stderr.as_str()),
        (
            66,
            "keel: there is no key `engine.tragets`: did you mean `engine.targets`?\n  cure: `keel config explain` lists all keys\n"
        )
    );
    let (code, stdout, _) = keel(folder.path(), &["config", "schema"]);
    assert!(code == 0 && serde_json::from_str::<serde_json::Value>(&stdout).is_ok());
}

#[test]
fn a_body_must_be_hexadecimal() {
    let (code, stderr) = fails(&[
        "drpc", "call", "--module", "0", "--method", "1", "--body", "xyz",
    ]);
    assert_eq!(
        (code, stderr.as_str()),
        (
            1,
            "keel: --body `xyz` is not a row of hexadecimal bytes\n  cure: give two digits per byte, e.g. 0a1b2c, or @FILE\n"
        )
    );
}

#[test]
fn the_topology_that_a_file_would_start_is_drawn_without_an_engine() {
    let folder = TempDir::new().unwrap();
    let device = "[[device]]\nname = \"mem0\"\nkind = \"malloc\"\nsize = \"64MiB\"\n";
    let text = format!("[engine]\ntargets = 2\noversubscribe = true\n{device}");
    std::fs::write(folder.path().join("engine.toml"), text).unwrap();
    let topology = |more: &[&str]| {
        let args = ["engine", "topology", "--config", "engine.toml"];
        keel(folder.path(), &[&args[..], more].concat())
    };
    let (code, stdout, stderr) = topology(&[]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.starts_with("3 xstreams on "), "{stdout}");
    assert!(
        stdout.contains("keel_io_1 - mem0")
            && stdout.contains("\u{2514}\u{2500} mem0: malloc, targets 0-1"),
        "{stdout}"
    );
    assert!(!stdout.contains('\x1b'), "no colours in a pipe");
    let (code, stdout, _) = topology(&["-o", "json"]);
    let value: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        (code, value["xstreams"][1]["name"].as_str()),
        (0, Some("keel_io_0"))
    );
    let (code, _, stderr) = topology(&["--set", "engine.cpus=8191"]);
    assert_eq!(code, 78);
    assert!(
        stderr.starts_with("keel: cpus: 8191 cannot be used; usable: "),
        "{stderr}"
    );
    let one = format!("engine.cpus={}", spdk_env::cpu::allowed().unwrap()[0]);
    let alone = "engine.oversubscribe=false";
    let (code, _, stderr) = topology(&["--set", &one, "--set", alone]);
    assert_eq!(code, 78);
    let said = "3 cores are needed (1 system + 2 targets + 0 helpers) but 1 are usable in cpus = ";
    assert!(stderr.contains(said), "{stderr}");
    assert_eq!(
        fails(&["engine", "topology", "--set", "engine.targets=2"]).0,
        2,
        "--set needs --config"
    );
}

#[test]
fn a_host_is_asked_for_what_a_file_needs() {
    let folder = TempDir::new().unwrap();
    let device = "[[device]]\nname = \"s\"\nkind = \"nvme\"\naddress = \"ffff:ff:1f.7\"\n";
    std::fs::write(folder.path().join("engine.toml"), device).unwrap();
    let doctor = ["node", "doctor", "--config", "engine.toml"];
    let (code, stdout, stderr) = keel(folder.path(), &doctor);
    assert_eq!((code, stderr.as_str()), (2, ""));
    assert!(
        stdout.starts_with("KN001 fault ffff:ff:1f.7: there is no such PCI device\n  cure: give the address of an SSD"),
        "{stdout}"
    );
    let (code, stdout, _) = keel(folder.path(), &[&doctor[..], &["-o", "json"]].concat());
    let value: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let first = &value["findings"][0];
    assert_eq!(
        (code, first["code"].as_str(), first["severity"].as_str()),
        (2, Some("KN001"), Some("fault"))
    );
    let (code, stdout, stderr) = keel(
        folder.path(),
        &["node", "prepare", "--dry-run", "--config", "engine.toml"],
    );
    assert_eq!((code, stdout.as_str()), (78, ""));
    assert!(
        stderr.starts_with("keel: KN001 fault ffff:ff:1f.7"),
        "{stderr}"
    );
    let (code, stderr) = fails(&["node", "prepare"]);
    assert!(
        code == 78 && stderr.starts_with("keel: no SSD is named\n  cure: give PCI addresses"),
        "{stderr}"
    );
    let (code, stderr) = fails(&["node", "doctor", "nvme0"]);
    assert!(
        code == 2 && stderr.contains("`nvme0` is not a PCI address such as 0000:05:00.0"),
        "{stderr}"
    );
}

/// A command that ends well, and what it prints.
fn says(folder: &Path, args: &[&str]) -> String {
    let (code, stdout, stderr) = keel(folder, args);
    assert_eq!(code, 0, "{args:?}: {stderr}");
    stdout
}

#[test]
fn certificates_are_made_shown_and_not_overwritten() {
    let folder = TempDir::new().unwrap();
    let dir = folder.path();
    let missing = keel(dir, &["cert", "issue", "e0"]);
    assert_eq!(missing.0, 66);
    assert!(
        missing.2.contains("`keel cert init` makes an authority"),
        "{}",
        missing.2
    );

    says(dir, &["cert", "init", "--name", "us", "--days", "40"]);
    let again = keel(dir, &["cert", "init"]);
    assert_eq!(
        (again.0, again.2.contains("ca.pem is already there")),
        (73, true)
    );
    let made = says(
        dir,
        &["cert", "issue", "e0", "--address", "10.0.0.1", "--out", "e"],
    );
    assert!(
        made.starts_with("engine \"e0\" (10.0.0.1, e0, localhost, 127.0.0.1, ::1), good until "),
        "{made}"
    );
    assert!(
        made.contains("(40 days left), issued by \"us\"\ne/e0.pem\ne/e0-key.pem\n"),
        "{made}"
    );
    let again = keel(dir, &["cert", "issue", "e0", "--out", "e"]);
    assert_eq!(
        (again.0, again.2.contains("`issue --replace` renews")),
        (73, true)
    );
    says(
        dir,
        &[
            "cert",
            "issue",
            "e0",
            "--out",
            "e",
            "--replace",
            "--days",
            "7",
        ],
    );
    let shown: serde_json::Value =
        serde_json::from_str(&says(dir, &["cert", "show", "e/e0.pem", "-o", "json"])).unwrap();
    assert_eq!(
        (shown["engine"].as_bool(), shown["days_left"].as_i64()),
        (Some(true), Some(7))
    );
    let alice = says(dir, &["cert", "issue", "alice", "--client", "-o", "json"]);
    let alice: serde_json::Value = serde_json::from_str(&alice).unwrap();
    assert_eq!(
        (
            alice["engine"].as_bool(),
            alice["addresses"].as_array().map(Vec::len)
        ),
        (Some(false), Some(0))
    );
}

#[test]
fn certificates_that_cannot_be_made_or_read_are_explained() {
    let folder = TempDir::new().unwrap();
    let dir = folder.path();
    says(dir, &["cert", "init"]);
    says(dir, &["cert", "issue", "e0", "--out", "e"]);
    let no_cert = keel(dir, &["cert", "show", "e/e0-key.pem"]);
    assert_eq!(no_cert.0, 65, "{}", no_cert.2);
    let bad = keel(dir, &["cert", "issue", "e1", "--address", "10.0.0.0/8"]);
    assert_eq!(
        (
            bad.0,
            bad.2.contains("neither the name of a host nor an address")
        ),
        (65, true)
    );
    let half = keel(dir, &["--tls-ca", "ca.pem", "pool", "list"]);
    assert_eq!(
        (half.0, half.2.contains("--tls-certificate")),
        (2, true),
        "{}",
        half.2
    );
}
