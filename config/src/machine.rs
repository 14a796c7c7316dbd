//! What the semantic checks may know of the machine. It is handed in, so that a check gives the same answer everywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::Provider;

/// The machine that a configuration is checked against.
#[derive(Clone, Debug)]
pub struct Machine {
    /// CPUs that the engine may run on (affinity and cgroup counted in), by the kernel's numbers.
    pub cpus: BTreeMap<u32, MachineCpu>,
    /// CPUs that are there but that the engine may not run on.
    pub unusable: BTreeMap<u32, UnusableCpu>,
    /// Providers that this build contains.
    pub providers: Vec<Provider>,
    /// Where modules are looked for after `modules.path`; see [`Machine::module_dirs_of`].
    pub module_dirs: Vec<PathBuf>,
    files: Files,
}

/// A CPU that the engine may run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineCpu {
    /// Its NUMA node.
    pub node: u32,
    /// The lowest usable CPU of its physical core: the same for all hyper-threads of a core.
    pub core: u32,
}

/// Why a CPU cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnusableCpu {
    /// What forbids it, after "CPU 3 cannot be used: ".
    pub why: String,
    /// What can be done about it.
    pub cure: String,
}

#[derive(Clone, Debug)]
enum Files {
    /// This host's file system.
    Host,
    /// Only what is listed; every other path is not there.
    Listed(BTreeMap<PathBuf, PathInfo>),
}

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathInfo {
    /// What sort of thing it is.
    pub kind: PathKind,
    /// Length in bytes; 0 where the kind has none.
    pub len: u64,
    /// Device and inode: two paths with the same pair are the same file.
    pub id: (u64, u64),
}

/// What sort of thing is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A kernel block device.
    BlockDevice,
    /// A Unix socket.
    Socket,
    /// Anything else.
    Other,
}

impl Machine {
    /// This host: its file system, with CPUs as the caller found them (`spdk_env::cpu::Topology`).
    pub fn host(
        cpus: BTreeMap<u32, MachineCpu>,
        unusable: BTreeMap<u32, UnusableCpu>,
        providers: Vec<Provider>,
    ) -> Machine {
        let exe = std::env::current_exe().unwrap_or_default();
        let module_dirs = Machine::module_dirs_of(exe.parent().unwrap_or(Path::new("")));
        Machine {
            cpus,
            unusable,
            providers,
            module_dirs,
            files: Files::Host,
        }
    }

    /// A machine that has exactly what is said: one NUMA node with all `cores`, the native provider, and no files.
    pub fn described(cores: u32) -> Machine {
        Machine {
            cpus: (0..cores)
                .map(|cpu| (cpu, MachineCpu { node: 0, core: cpu }))
                .collect(),
            unusable: BTreeMap::new(),
            providers: vec![Provider::Native],
            module_dirs: Vec::new(),
            files: Files::Listed(BTreeMap::new()),
        }
    }

    /// Physical cores that the engine may run on, of one NUMA node or of all.
    pub fn cores(&self, node: Option<u32>) -> u32 {
        let here = |cpu: &&MachineCpu| node.is_none_or(|node| cpu.node == node);
        let cores = self.cpus.values().filter(here).map(|cpu| cpu.core);
        cores.collect::<BTreeSet<u32>>().len() as u32
    }

    /// NUMA nodes with cores that the engine may run on.
    pub fn numa_nodes(&self) -> BTreeSet<u32> {
        self.cpus.values().map(|cpu| cpu.node).collect()
    }

    /// Adds a path to a described machine; on a host it changes nothing. Each path is a file of its own.
    #[must_use]
    pub fn with_path(mut self, path: impl Into<PathBuf>, kind: PathKind, len: u64) -> Machine {
        if let Files::Listed(paths) = &mut self.files {
            let id = (0, paths.len() as u64);
            paths.insert(path.into(), PathInfo { kind, len, id });
        }
        self
    }

    /// The engine's own module directories for an executable in `exe_dir`: beside it, then `../lib/keel`.
    pub fn module_dirs_of(exe_dir: &Path) -> Vec<PathBuf> {
        let mut dirs = vec![exe_dir.to_owned()];
        dirs.extend(exe_dir.parent().map(|up| up.join("lib/keel")));
        dirs
    }

    pub(crate) fn at(&self, path: &Path) -> Option<PathInfo> {
        let paths = match &self.files {
            Files::Listed(paths) => return paths.get(path).copied(),
            Files::Host => path,
        };
        let meta = std::fs::metadata(paths).ok()?;
        let file_type = meta.file_type();
        let kind = if file_type.is_file() {
            PathKind::File
        } else if file_type.is_dir() {
            PathKind::Directory
        } else if file_type.is_block_device() {
            PathKind::BlockDevice
        } else if file_type.is_socket() {
            PathKind::Socket
        } else {
            PathKind::Other
        };
        let len = if kind == PathKind::File {
            meta.len()
        } else {
            0
        };
        Some(PathInfo {
            kind,
            len,
            id: (meta.dev(), meta.ino()),
        })
    }

    pub(crate) fn is_directory(&self, path: &Path) -> bool {
        // The directory of a bare file name is the current one, which is always there.
        path.as_os_str().is_empty()
            || self
                .at(path)
                .is_some_and(|info| info.kind == PathKind::Directory)
    }

    /// Names of the modules in a directory: `obj` for `libobj.so`. At most 1,000 of them.
    pub(crate) fn modules_in(&self, dir: &Path) -> Vec<String> {
        let module = |name: &str| Some(name.strip_prefix("lib")?.strip_suffix(".so")?.to_owned());
        match &self.files {
            Files::Listed(paths) => paths
                .keys()
                .filter(|path| path.parent() == Some(dir))
                .filter_map(|path| module(path.file_name()?.to_str()?))
                .collect(),
            Files::Host => {
                let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
                entries
                    .filter_map(|entry| module(entry.file_name().to_str()?))
                    .take(1000)
                    .collect()
            }
        }
    }
}
