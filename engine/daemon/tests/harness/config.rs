//! Configurations as text, in a scratch directory of their own.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use super::process::{Engine, Exited};

/// What is under the targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A sparse file each, which stays between starts.
    File,
    /// Memory, gone with the engine.
    Malloc,
}

/// Which provider the engines of this run have, and with it whose devices: `KEEL_TEST_PROVIDER=libspdk` says that of C SPDK, so that
/// tests that do not mind run over both (`cargo xtask test --provider libspdk`).
pub fn is_over_spdk() -> bool {
    std::env::var("KEEL_TEST_PROVIDER").is_ok_and(|name| name == "libspdk")
}

/// A scratch directory and what an engine in it is told. The directory goes with the last of it and its engines.
pub struct Config {
    pub dir: Arc<TempDir>,
    /// Names its configuration and storage directory: `engine`, unless several share the directory.
    pub name: String,
    pub targets: u32,
    pub kind: Kind,
    /// Bytes of one device.
    pub size: u64,
    pub modules: Vec<String>,
    /// Where modules are looked for first.
    pub module_path: Option<PathBuf>,
    pub control_server: Option<PathBuf>,
    /// Directory of the device files; the scratch directory unless told.
    pub device_dir: Option<PathBuf>,
    /// The engine's dRPC socket.
    pub socket: PathBuf,
    /// Where its data RPC listens.
    pub listen: SocketAddr,
    /// Whether there is a metrics port.
    pub metrics: bool,
    /// Whether missing device files are made.
    pub create: bool,
    /// Whether xstreams may share cores, with each other and with other engines.
    pub oversubscribe: bool,
    /// Further lines of `[engine]`.
    pub engine_keys: String,
    /// From when on a request or an I/O is slow, in microseconds.
    pub slow_us: u32,
    /// Lines above all sections.
    pub top: String,
    /// Sections that nothing above writes.
    pub more: String,
    /// Whether SPDK is under it: its threads, and a device of its own for each target.
    pub spdk: bool,
    /// Further lines of `[spdk]`.
    pub spdk_keys: String,
    /// SPDK's JSON configuration, if not the one that makes the devices.
    pub spdk_json: Option<String>,
    /// The network namespace that it runs in, if not the test's.
    pub netns: Option<String>,
    /// Environment of the engine's process.
    pub env: Vec<(&'static str, String)>,
}

impl Config {
    /// One target per device of 64 MiB, the modules that ship.
    pub fn new(targets: u32, kind: Kind) -> Config {
        let dir = TempDir::with_prefix("keel-test-").expect("a scratch directory");
        Config {
            socket: dir.path().join("engine.sock"),
            dir: Arc::new(dir),
            name: "engine".to_owned(),
            targets,
            kind,
            size: 64 << 20,
            modules: ["mgmt", "obj", "hello"].map(str::to_owned).to_vec(),
            module_path: None,
            control_server: None,
            device_dir: None,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            metrics: false,
            create: true,
            oversubscribe: true,
            engine_keys: String::new(),
            slow_us: 1_000_000,
            top: String::new(),
            more: String::new(),
            spdk: is_over_spdk(),
            spdk_keys: String::new(),
            spdk_json: None,
            netns: None,
            env: Vec::new(),
        }
    }

    /// In memory, with these modules; libraries of them that are in the scratch directory come first.
    pub fn with_modules(modules: &[&str]) -> Config {
        let mut config = Config::new(2, Kind::Malloc);
        config.modules = modules.iter().map(|name| (*name).to_owned()).collect();
        config.module_path = Some(config.path().to_owned());
        config
    }

    /// Another engine in the same scratch directory, with a socket and a storage directory of its own.
    pub fn beside(other: &Config, name: &str) -> Config {
        let mut config = Config::new(other.targets, other.kind);
        config.socket = other.path().join(format!("{name}.sock"));
        config.name = name.to_owned();
        config.dir = other.dir.clone();
        config.modules.clone_from(&other.modules);
        config
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn storage(&self) -> PathBuf {
        self.path().join(format!("{}.storage", self.name))
    }

    /// The file of a target's device.
    pub fn device(&self, target: u32) -> PathBuf {
        let dir = self.device_dir.as_deref().unwrap_or(self.path());
        dir.join(format!("d{target}.img"))
    }

    /// Makes the file of a target's device by hand.
    pub fn make_device(&self, target: u32, len: u64) -> File {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(true);
        let file = options.open(self.device(target)).expect("a device file");
        file.set_len(len).expect("its length");
        file
    }

    /// As the engine reads it.
    pub fn text(&self) -> String {
        use std::fmt::Write;
        let list = |items: Vec<String>| {
            let quoted: Vec<_> = items.iter().map(|item| format!("{item:?}")).collect();
            quoted.join(", ")
        };
        let (provider, section) = match self.spdk {
            true => ("provider = \"libspdk\"\n\n", self.spdk_section()),
            false => ("", String::new()),
        };
        let top = &self.top;
        let paths = self.module_path.iter().map(|p| p.display().to_string());
        let mut text = format!(
            "{top}{provider}[engine]\nstorage_dir = {:?}\ntargets = {}\noversubscribe = {}\nidle_latency_us = 50\n{}\n\n\
             [modules]\nload = [{}]\npath = [{}]\n\n\
             [drpc]\nsocket = {:?}\n",
            self.storage(),
            self.targets,
            self.oversubscribe,
            self.engine_keys,
            list(self.modules.clone()),
            list(paths.collect()),
            self.socket,
        );
        if let Some(socket) = &self.control_server {
            let _ = writeln!(text, "control_server = {socket:?}");
        }
        let _ = writeln!(text, "\n[rpc]\nlisten = \"{}\"", self.listen);
        text += "bulk_memory = \"32MiB\"\n\n[telemetry]\nlog_mask = \"INFO\"\n";
        let _ = writeln!(text, "slow_us = {}", self.slow_us);
        if self.metrics {
            text += "metrics_listen = \"127.0.0.1:0\"\n";
        }
        let _ = write!(text, "\n{}{section}", self.more);
        for target in 0..self.targets {
            let _ = write!(text, "\n[[device]]\nname = \"d{target}\"\n");
            let _ = match self.kind {
                _ if self.spdk => writeln!(text, "kind = \"spdk\"\nbdev = \"d{target}\""),
                Kind::Malloc => writeln!(text, "kind = \"malloc\"\nsize = {}", self.size),
                Kind::File if self.create => writeln!(
                    text,
                    "kind = \"file\"\npath = {:?}\ncreate = true\nsize = {}",
                    self.device(target),
                    self.size
                ),
                Kind::File => writeln!(text, "kind = \"file\"\npath = {:?}", self.device(target)),
            };
        }
        text
    }

    fn spdk_section(&self) -> String {
        let malloc = match self.kind {
            Kind::Malloc => u64::from(self.targets) * self.size,
            Kind::File => 0,
        };
        let memory = if self.spdk_keys.contains("memory") {
            String::new()
        } else {
            format!("memory = \"{}MiB\"\n", 512 + malloc.div_ceil(1 << 20))
        };
        let pages = if self.spdk_keys.contains("hugepages") {
            ""
        } else {
            "hugepages = false\n"
        };
        let (json, keys) = (self.spdk_file(), &self.spdk_keys);
        format!("\n[spdk]\n{memory}{pages}json = {json:?}\n{keys}\n")
    }

    fn spdk_file(&self) -> PathBuf {
        self.path().join(format!("{}.spdk.json", self.name))
    }

    /// What SPDK is told: a device of its own for each target.
    fn spdk_text(&self) -> String {
        if let Some(text) = &self.spdk_json {
            return text.clone();
        }
        let call = |target: u32| {
            let name = format!("d{target}");
            match self.kind {
                Kind::Malloc => serde_json::json!({ "method": "bdev_malloc_create", "params": {
                    "name": name, "num_blocks": self.size / 4096, "block_size": 4096 } }),
                Kind::File => serde_json::json!({ "method": "bdev_aio_create", "params": {
                    "name": name, "filename": self.device(target), "block_size": 4096 } }),
            }
        };
        let calls: Vec<_> = (0..self.targets).map(call).collect();
        serde_json::json!({ "subsystems": [{ "subsystem": "bdev", "config": calls }] }).to_string()
    }

    fn prepare_spdk(&self) {
        std::fs::write(self.spdk_file(), self.spdk_text()).expect("SPDK's configuration");
        for target in 0..self.targets {
            if self.kind == Kind::File && self.create && !self.device(target).exists() {
                self.make_device(target, self.size);
            }
        }
    }

    /// Starts an engine and waits until it is open for business.
    pub fn start(&self) -> Engine {
        let mut engine = self.spawn();
        engine.wait_first_setup();
        engine
    }

    /// Starts an engine and waits for nothing.
    pub fn spawn(&self) -> Engine {
        let file = self.path().join(format!("{}.toml", self.name));
        std::fs::write(&file, self.text()).expect("the configuration");
        if self.spdk {
            self.prepare_spdk();
        }
        Engine::spawn(&file, self)
    }

    /// Starts an engine that must not start.
    pub fn fails(&self) -> Exited {
        self.spawn().exited()
    }
}
