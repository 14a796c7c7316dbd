//! The engine's process.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use drpc_wire::{Client, ClientOptions, Message, keel, methods, modules};
use rustix::process::{Pid, Signal, kill_process};

use tempfile::TempDir;

use super::config::Config;
use super::libraries;

/// Longest wait for anything. Nothing here needs a hundredth of it; a machine that is busy may.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);

/// Waits until `look` finds something.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(LOOK);
    }
}

/// A running `keel-engine`. Dropped, it is killed.
pub struct Engine {
    child: Child,
    log: PathBuf,
    socket: PathBuf,
    dir: Arc<TempDir>,
}

/// How an engine ended.
#[derive(Debug)]
pub struct Exited {
    /// `None`: by a signal.
    pub code: Option<i32>,
    /// All that it wrote.
    pub log: String,
}

impl Exited {
    /// Fails unless the engine ended so and said this.
    #[track_caller]
    pub fn expect(&self, code: i32, said: &str) {
        assert_eq!(self.code, Some(code), "{}", self.log);
        assert!(
            self.log.contains(said),
            "no `{said}` in the log:\n{}",
            self.log
        );
    }
}

impl Engine {
    pub(super) fn spawn(file: &Path, config: &Config) -> Engine {
        let (dir, socket) = (config.dir.clone(), config.socket.clone());
        // A log for each start: what an earlier engine said must not answer for this one.
        static STARTS: AtomicU32 = AtomicU32::new(0);
        let nr = STARTS.fetch_add(1, Ordering::Relaxed);
        let log = dir.path().join(format!("engine.{nr}.log"));
        libraries::folder();
        let out = File::create(&log).expect("the log");
        let engine = env!("CARGO_BIN_EXE_keel-engine");
        let mut command = match &config.netns {
            None => Command::new(engine),
            // It becomes the engine: the process is the same.
            Some(space) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", space, engine]);
                command
            }
        };
        let child = command
            .arg("--config")
            .arg(file)
            .env("KEEL_RUN_DIR", dir.path().join("run"))
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC")
            .env_remove("RUST_BACKTRACE")
            .envs(config.env.iter().map(|(name, value)| (*name, value)))
            .stdin(Stdio::null())
            .stdout(out.try_clone().expect("the log"))
            .stderr(out)
            .spawn()
            .expect("the engine's process");
        Engine {
            child,
            log,
            socket,
            dir,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// A connection to its dRPC socket.
    pub fn drpc(&self) -> Client {
        let options = ClientOptions {
            timeout: Some(PATIENCE),
            ..ClientOptions::default()
        };
        Client::connect_with(&self.socket, options).expect("the engine's dRPC socket")
    }

    /// One call on a connection of its own that must succeed.
    #[track_caller]
    pub fn ask<T: Message + Default>(&self, module: i32, method: i32, body: &impl Message) -> T {
        match self.drpc().call_typed(module, method, body) {
            Ok(answer) => answer,
            Err(error) => panic!("{module}.{method}: {error}\n{}", self.log()),
        }
    }

    /// Where it is in its life; `None` while nobody answers.
    fn state(&self) -> Option<String> {
        let mut client = Client::connect(&self.socket).ok()?;
        let answer: keel::EngineReady = client
            .call_typed(modules::KEEL, methods::ENGINE_READY, &())
            .ok()?;
        Some(answer.state)
    }

    /// Waits until the engine says that it is there.
    #[track_caller]
    pub fn wait_state(&mut self, wanted: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if self.state().as_deref() == Some(wanted) {
                return;
            }
            let ended = self.child.try_wait().expect("the engine's status");
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "the engine is not `{wanted}`, its end is {ended:?}"
            );
            std::thread::sleep(LOOK);
        }
    }

    /// Waits until the engine that sets itself up has done so; a failure of that is final.
    #[track_caller]
    pub(super) fn wait_first_setup(&mut self) {
        let over = ["ready after ", "setup failed; "];
        let deadline = Instant::now() + PATIENCE;
        while !over.iter().any(|said| self.log().contains(said)) {
            let ended = self.child.try_wait().expect("the engine's status");
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "the engine does not set itself up: {ended:?}"
            );
            std::thread::sleep(LOOK);
        }
        assert!(!self.log().contains(over[1]), "its setup failed");
        self.wait_ready();
    }

    #[track_caller]
    pub fn wait_ready(&mut self) {
        self.wait_state("ready");
    }

    /// Waits until the engine has logged this.
    #[track_caller]
    pub fn wait_log(&self, said: &str) {
        eventually(said, || self.log().contains(said).then_some(()));
    }

    pub fn status(&self) -> keel::EngineStatus {
        self.ask(modules::KEEL, methods::ENGINE_STATUS, &())
    }

    /// `host:port` of the data RPC.
    pub fn rpc_address(&self) -> String {
        self.status().rpc_address
    }

    /// A connection of the object client.
    pub fn connect(&self) -> obj_client::Engine {
        obj_client::Engine::connect(&self.rpc_address()).expect("the engine's RPC port")
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .expect("a pid");
        kill_process(pid, signal).expect("a signal to the engine");
    }

    /// Kill -9, and waits until the process is gone.
    pub fn kill(mut self) -> String {
        self.signal(Signal::KILL);
        self.child.wait().expect("the engine's status");
        self.log()
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(self) -> Exited {
        self.signal(Signal::TERM);
        self.exited()
    }

    /// Waits until the engine has ended by itself.
    #[track_caller]
    pub fn exited(mut self) -> Exited {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("the engine's status") {
                break status;
            }
            assert!(
                Instant::now() < deadline,
                "the engine does not end:\n{}",
                self.log()
            );
            std::thread::sleep(LOOK);
        };
        Exited {
            code: status.code(),
            log: self.log(),
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<_> = log.lines().rev().take(40).collect();
            let tail: Vec<_> = tail.into_iter().rev().collect();
            #[expect(
                clippy::print_stderr,
                reason = "what the engine said explains a failure"
            )]
            {
                eprintln!("--- end of {}:\n{}", self.log.display(), tail.join("\n"));
            }
        }
    }
}
