//! Starts QEMU and waits for the guest.

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::agent::Agent;
use crate::disks::Disks;
use crate::lab::{BootOptions, Lab};
use crate::profile::Profile;
use crate::qemu::{Console, Launch};
use crate::qmp::Qmp;
use crate::vm::{Parts, Vm};

/// Longest time from start to the agent's first word. Emulated, a guest takes about five seconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_millis(20);

pub(crate) fn boot(
    lab: &Lab,
    profile: &Profile,
    mut disks: Disks,
    run: &Path,
    options: BootOptions,
) -> Result<Vm> {
    disks.before_boot()?;
    let number = options.peer.unwrap_or(1);
    let state = run.join(format!("state{number}"));
    fs::create_dir_all(&state)?;
    let image = run.join("image");
    fs::write(&image, lab.image()?)?;
    // Socket paths are short by law (108 bytes); a target directory may not be.
    let sockets = TempDir::with_prefix("keel-vm-")?;
    let (qmp, agent) = (sockets.path().join("qmp"), sockets.path().join("agent"));
    let (qmp_listener, agent_listener) = (UnixListener::bind(&qmp)?, UnixListener::bind(&agent)?);
    let host_port = free_port()?;
    let network = lab.network();
    let console = unused(run, &format!("console{number}"));
    let launch = Launch {
        profile,
        disks: &disks,
        accel: lab.accel,
        kernel: &lab.kernel(),
        image: &image,
        programs: lab.programs(),
        state: &state,
        qmp: &qmp,
        agent: &agent,
        host_port,
        peer: options.peer.map(|number| (number, network.as_path())),
        console: match options.terminal {
            Some((rows, cols)) => Console::Terminal(rows, cols),
            None => Console::File(&console),
        },
    };
    let errors = unused(run, &format!("qemu{number}"));
    let mut qemu = spawn(&launch, &errors)?;
    let mut words = first_words(&qmp_listener, &agent_listener, &mut qemu);
    // Debian's kernel sometimes stands still when it starts on more emulated processors than the host has real ones.
    if words.is_err() && qemu.try_wait()?.is_none() && options.terminal.is_none() {
        eprintln!("no word from the guest for {PATIENCE:?}: started once more");
        end(&mut qemu);
        fs::rename(&console, unused(run, &format!("console{number}.silent")))?;
        qemu = spawn(&launch, &errors)?;
        words = first_words(&qmp_listener, &agent_listener, &mut qemu);
    }
    match words {
        Ok((qmp, agent, kernel)) => {
            fs::remove_file(&image)?; // QEMU has read its forty MiB
            Ok(Vm::new(Parts {
                qemu,
                qmp,
                agent: Arc::new(agent),
                kernel,
                disks,
                profile: profile.clone(),
                host_port,
                run: run.to_owned(),
                number,
                _sockets: sockets,
            }))
        }
        Err(error) => {
            end(&mut qemu);
            Err(error.context(last_words(&[&errors, &console])))
        }
    }
}

fn end(qemu: &mut Child) {
    let _ = qemu.kill();
    let _ = qemu.wait();
}

/// QEMU connects both channels when it starts; the guest greets when it is up.
fn first_words(
    qmp: &UnixListener,
    agent: &UnixListener,
    qemu: &mut Child,
) -> Result<(Qmp, Agent, String)> {
    let deadline = Instant::now() + PATIENCE;
    let qmp = Qmp::new(accept(qmp, qemu, deadline)?)?;
    let stream = accept(agent, qemu, deadline)?;
    let left = deadline.saturating_duration_since(Instant::now());
    let (agent, kernel) = Agent::greet(stream, left.max(LOOK))?;
    Ok((qmp, agent, kernel))
}

fn spawn(launch: &Launch, errors: &Path) -> Result<Child> {
    let mut command = Command::new("qemu-system-x86_64");
    command.args(launch.arguments());
    let mut log = File::create(errors).with_context(|| errors.display().to_string())?;
    writeln!(log, "{command:?}")?;
    if !matches!(launch.console, Console::Terminal(..)) {
        command.stdin(Stdio::null()).stdout(Stdio::null());
    }
    command
        .stderr(log)
        .spawn()
        .context("cannot run qemu-system-x86_64")
}

/// QEMU connects when it starts; if it does not start, it ends.
fn accept(listener: &UnixListener, qemu: &mut Child, deadline: Instant) -> Result<UnixStream> {
    listener.set_nonblocking(true)?;
    loop {
        if let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(false)?;
            return Ok(stream);
        }
        if let Some(status) = qemu.try_wait()? {
            bail!("QEMU ended while starting ({status})");
        }
        if Instant::now() > deadline {
            bail!("QEMU does not start within {PATIENCE:?}");
        }
        std::thread::sleep(LOOK);
    }
}

/// A port that is free now. Between here and QEMU somebody else may take it; then QEMU says so and ends.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// `NAME.log`, or `NAME.2.log` and so on for later boots of the same run.
fn unused(run: &Path, name: &str) -> std::path::PathBuf {
    let mut path = run.join(format!("{name}.log"));
    let mut nr = 1;
    while path.exists() {
        nr += 1;
        path = run.join(format!("{name}.{nr}.log"));
    }
    path
}

fn last_words(files: &[&Path]) -> String {
    let said: Vec<String> = files.iter().map(|file| tail(file)).collect();
    format!("QEMU and the guest say:\n{}", said.join("\n"))
}

fn tail(file: &Path) -> String {
    let text = String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(20)..].join("\n");
    format!("--- {}\n{last}", file.display())
}
