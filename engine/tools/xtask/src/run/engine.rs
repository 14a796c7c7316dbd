//! An engine as a child process, and `keel` to talk to it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::Programs;

/// How long the engine may take to stop before it is killed.
const STOP: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(20);

/// A running engine; dropped, it is killed.
pub(crate) struct Engine {
    child: Child,
    keel: PathBuf,
    root: PathBuf,
    pub(crate) socket: PathBuf,
    /// From spawn to the first successful `keel engine ready`.
    pub(crate) start_time: Duration,
}

impl Engine {
    /// Starts an engine on a configuration and waits until it serves.
    pub(crate) fn start(root: &Path, programs: &Programs, config: &str) -> Result<Engine> {
        let text = std::fs::read_to_string(root.join(config))?;
        let parsed: toml::Table = text.parse()?;
        let socket = parsed
            .get("drpc")
            .and_then(|drpc| drpc.get("socket"))
            .and_then(toml::Value::as_str);
        let socket = root.join(socket.context("the configuration names no drpc.socket")?);
        let begun = Instant::now();
        let child = Command::new(&programs.engine)
            .current_dir(root)
            .args(["--config", config])
            .stdin(Stdio::null())
            .spawn();
        let child = child.with_context(|| format!("{} does not run", programs.engine.display()))?;
        let mut engine = Engine {
            child,
            keel: root.join(&programs.keel),
            root: root.to_owned(),
            socket,
            start_time: Duration::ZERO,
        };
        // The socket is there before anything can be asked; an engine that refuses to start ends instead.
        while !engine.socket.exists() {
            if let Some(status) = engine.child.try_wait()? {
                bail!("the engine ended while starting ({status}); its message is above");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        engine.keel(&["engine", "ready", "--wait"])?;
        engine.start_time = begun.elapsed();
        Ok(engine)
    }

    /// Runs a `keel` command that must succeed.
    pub(crate) fn keel(&self, args: &[&str]) -> Result<()> {
        self.output(args).map(drop)
    }

    /// Runs a `keel` command and gives its JSON.
    pub(crate) fn keel_json(&self, args: &[&str]) -> Result<Value> {
        let args: Vec<&str> = args.iter().copied().chain(["--output", "json"]).collect();
        Ok(serde_json::from_slice(&self.output(&args)?)?)
    }

    fn output(&self, args: &[&str]) -> Result<Vec<u8>> {
        let mut command = Command::new(&self.keel);
        let output = command
            .current_dir(&self.root)
            .arg("--socket")
            .arg(&self.socket)
            .args(args)
            .stdin(Stdio::null())
            .output();
        let output = output.with_context(|| format!("{} does not run", self.keel.display()))?;
        ensure!(
            output.status.success(),
            "`keel {}` failed:\n{}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(output.stdout)
    }

    /// Stops it in good order.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.keel(&["engine", "shutdown"])?;
        self.wait(STOP)
    }

    fn wait(&mut self, longest: Duration) -> Result<()> {
        let deadline = Instant::now() + longest;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "the engine ended with {status}");
                return Ok(());
            }
            std::thread::sleep(LOOK);
        }
        bail!("the engine has not stopped within {longest:?}; its log says what holds it")
    }

    /// Waits for Ctrl-C, which the terminal sends to the engine as well.
    pub(crate) fn wait_for_end(&mut self, interrupted: &AtomicBool) -> Result<()> {
        while !interrupted.load(Ordering::Relaxed) {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "the engine ended with {status}");
                return Ok(());
            }
            std::thread::sleep(LOOK);
        }
        // A signal to this process alone has not reached the engine.
        if self.child.try_wait()?.is_none() {
            let _ = self.keel(&["engine", "shutdown"]);
        }
        self.wait(STOP)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // Only after an error: an engine that outlives this command would hold the devices.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
