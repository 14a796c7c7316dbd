//! The environment: once in a process, with what it was given the first time.
#![allow(unsafe_code, reason = "starts and ends SPDK's environment")]
//! - **E1** `STATE` is locked during every start and end, so that they never run at the same time.
//! - **E2** an [`Env`] exists only while the environment and the thread library are up, at most one at a time.

use core::ffi::{CStr, c_char, c_int};
use std::ffi::CString;
use std::fs;
use std::path::Path;
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use spdk_env::cpu;

use crate::error::{StartError, errno};
use crate::{ffi, log};

/// What SPDK takes from the machine, and what it makes there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The process's name, in DPDK's files and logs.
    pub name: String,
    /// Cores on whose NUMA nodes memory is taken. Not where anything runs: threads run where they are started. Empty: the first allowed.
    pub cores: Vec<usize>,
    /// MiB of memory, for buffers, queues, rings and pools.
    pub memory_mib: u32,
    /// Ordinary pages instead of huge ones: works everywhere, and no NVMe device can be used.
    pub no_huge: bool,
    /// SPDK's interrupt mode (`spdk_tgt --interrupt-mode`) for all threads: each has a descriptor that is readable while it has something to do, and
    /// its turns are system calls. What devices cannot interrupt keeps their threads awake.
    pub interrupt_mode: bool,
    /// PCI addresses that may be used. Empty: the PCI bus is not looked at.
    pub pci_allowed: Vec<String>,
    /// SPDK's JSON configuration (`scripts/rpc.py save_config`), as text; empty: none.
    pub json: String,
    /// Unix socket for SPDK's JSON-RPC; `None`: there is none. Not part of what a second start must have the same.
    pub rpc_socket: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            name: "keel".to_owned(),
            cores: Vec::new(),
            memory_mib: 512,
            no_huge: false,
            interrupt_mode: false,
            pci_allowed: Vec::new(),
            json: String::new(),
            rpc_socket: None,
        }
    }
}

impl Options {
    /// What the process keeps until it ends.
    fn is_same_environment(&self, other: &Options) -> bool {
        let kept = |options: &Options| Options {
            json: String::new(),
            rpc_socket: None,
            ..options.clone()
        };
        kept(self) == kept(other)
    }

    fn shown(&self) -> String {
        let Options {
            memory_mib,
            no_huge,
            cores,
            interrupt_mode,
            pci_allowed,
            ..
        } = self;
        let pages = if *no_huge {
            "ordinary pages"
        } else {
            "huge pages"
        };
        let cores = cpu::format_list(cores.iter().copied());
        let pci = if pci_allowed.is_empty() {
            "none".to_owned()
        } else {
            pci_allowed.join(", ")
        };
        let mode = if *interrupt_mode {
            ", interrupt mode"
        } else {
            ""
        };
        format!("{memory_mib} MiB in {pages}, cores {cores}, PCI devices {pci}{mode}")
    }
}

enum State {
    Never,
    Up,
    Down(Options),
    Spoiled,
}

static STATE: Mutex<State> = Mutex::new(State::Never);

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The running environment; it ends with the last reference. (E2)
#[derive(Debug)]
pub(crate) struct Env {
    options: Options,
}

impl Env {
    /// Starts it. What the calling OS thread may run on stays as it is.
    pub(crate) fn start(options: &Options) -> Result<Env, StartError> {
        let mut state = state();
        let again = match &*state {
            State::Never => false,
            State::Up => return Err(StartError::Twice),
            State::Spoiled => return Err(StartError::Spoiled),
            State::Down(before) if before.is_same_environment(options) => true,
            State::Down(before) => {
                let before = before.shown();
                return Err(StartError::OtherOptions { before });
            }
        };
        let arguments = Arguments::of(options)?;
        if !again {
            check_memory(options, Path::new("/sys"))?;
        }
        // E1.
        match init(&arguments, options, again) {
            Ok(()) => {
                *state = State::Up;
                let options = options.clone();
                Ok(Env { options })
            }
            Err(error) => {
                *state = State::Spoiled;
                Err(error)
            }
        }
    }
}

impl Env {
    pub(crate) fn interrupt_mode(&self) -> bool {
        self.options.interrupt_mode
    }

    pub(crate) fn has_pci(&self) -> bool {
        !self.options.pci_allowed.is_empty()
    }
}

/// A subsystem failed to start: SPDK does not start them again in this process, and would not say so.
pub(crate) fn spoil() {
    *state() = State::Spoiled;
}

impl Drop for Env {
    fn drop(&mut self) {
        let mut state = state();
        // SAFETY: E1, E2: every thread, poller, channel and memory of SPDK's holds this value, so none is left.
        unsafe {
            ffi::ks_thread_lib_fini();
            ffi::ks_env_fini();
        }
        if !matches!(*state, State::Spoiled) {
            *state = State::Down(self.options.clone());
        }
    }
}

fn init(arguments: &Arguments, options: &Options, again: bool) -> Result<(), StartError> {
    let rc = log::open();
    if rc < 0 {
        return Err(StartError::Environment {
            why: errno(rc),
            said: Vec::new(),
        });
    }
    load_modules()?;
    log::begin();
    let memory = c_int::try_from(options.memory_mib).unwrap_or(c_int::MAX);
    let pci: Vec<*const c_char> = arguments.pci.iter().map(|text| text.as_ptr()).collect();
    // SAFETY: E1; the texts and the list live until the call returns (K1 of shim.h).
    let rc = unsafe {
        ffi::ks_env_init(
            arguments.name.as_ptr(),
            arguments.mask.as_ptr(),
            memory,
            c_int::from(options.no_huge),
            if pci.is_empty() {
                ptr::null()
            } else {
                pci.as_ptr()
            },
            pci.len(),
            c_int::from(again),
        )
    };
    let said = log::end();
    if rc < 0 {
        let why = errno(rc);
        return Err(StartError::Environment { why, said });
    }
    check_version()?;
    // SAFETY: E1: the environment is up and the library is not.
    let rc = unsafe { ffi::ks_thread_lib_init(c_int::from(options.interrupt_mode)) };
    if rc < 0 {
        return Err(StartError::Threads(errno(rc)));
    }
    Ok(())
}

/// Shared libraries whose modules announce themselves; nothing where SPDK is linked statically.
fn load_modules() -> Result<(), StartError> {
    let mut missing = [0_u8; 512];
    // SAFETY: E1; the buffer has the announced length, and a zero in it afterwards.
    let rc = unsafe { ffi::ks_modules_load(missing.as_mut_ptr().cast(), missing.len()) };
    if rc == 0 {
        return Ok(());
    }
    let missing = CStr::from_bytes_until_nul(&missing).unwrap_or_default();
    Err(StartError::Library(missing.to_string_lossy().into_owned()))
}

/// What is loaded must be what the shim's layouts come from, in year and month.
fn check_version() -> Result<(), StartError> {
    // SAFETY: reads two numbers.
    let (headers, library) =
        unsafe { (ffi::ks_version_of_headers(), ffi::ks_version_of_library()) };
    compare_versions(headers, library)
}

/// As hundreds of the major number and the minor one.
fn compare_versions(headers: u32, library: u32) -> Result<(), StartError> {
    let shown = |version: u32| format!("{}.{:02}", version / 100, version % 100);
    // A library that does not introduce itself is taken at its soname's word.
    if library != 0 && library != headers {
        return Err(StartError::Version {
            headers: shown(headers),
            library: shown(library),
        });
    }
    Ok(())
}

struct Arguments {
    name: CString,
    mask: CString,
    pci: Vec<CString>,
}

impl Arguments {
    fn of(options: &Options) -> Result<Arguments, StartError> {
        let text = |what: &str, text: &str| {
            CString::new(text).map_err(|_| {
                StartError::Option(format!("SPDK's {what} {text:?} has a zero byte in it"))
            })
        };
        if options.name.is_empty() || options.name.contains(char::is_whitespace) {
            let why = format!(
                "SPDK's process name {:?} is empty or has a blank in it",
                options.name
            );
            return Err(StartError::Option(why));
        }
        if options.no_huge && !options.pci_allowed.is_empty() {
            let why = format!(
                "SPDK without huge pages cannot use NVMe devices ({}): their memory must stay where it is",
                options.pci_allowed.join(", ")
            );
            return Err(StartError::Option(why));
        }
        if options.memory_mib < 64 {
            let why = format!(
                "SPDK shall have {} MiB of memory, and needs at least 64 for its pools (512 is usual)",
                options.memory_mib
            );
            return Err(StartError::Option(why));
        }
        let cores = check_cores(&options.cores)?;
        let pci = options.pci_allowed.iter();
        Ok(Arguments {
            name: text("process name", &options.name)?,
            mask: text("cores", &format!("[{}]", cpu::format_list(cores)))?,
            pci: pci
                .map(|address| text("PCI address", address))
                .collect::<Result<_, _>>()?,
        })
    }
}

fn check_cores(wanted: &[usize]) -> Result<Vec<usize>, StartError> {
    let allowed = cpu::allowed().map_err(|error| StartError::Option(error.to_string()))?;
    if wanted.is_empty() {
        return Ok(allowed.first().copied().into_iter().collect());
    }
    let missing: Vec<usize> = wanted
        .iter()
        .copied()
        .filter(|cpu| !allowed.contains(cpu))
        .collect();
    if missing.is_empty() {
        return Ok(wanted.to_vec());
    }
    Err(StartError::Cores {
        missing: cpu::format_list(missing),
        allowed: cpu::format_list(allowed),
    })
}

/// DPDK says of too few huge pages that it "cannot init memory", after minutes of trying.
fn check_memory(options: &Options, sys: &Path) -> Result<(), StartError> {
    if options.no_huge {
        return Ok(());
    }
    let mut free_mib = 0;
    for entry in fs::read_dir(sys.join("kernel/mm/hugepages"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name();
        let kib = name.to_str().and_then(|name| {
            let number = name.strip_prefix("hugepages-")?.strip_suffix("kB")?;
            number.parse::<u64>().ok()
        });
        let free = fs::read_to_string(entry.path().join("free_hugepages")).unwrap_or_default();
        free_mib += kib.unwrap_or(0) * free.trim().parse::<u64>().unwrap_or(0) / 1024;
    }
    if free_mib >= u64::from(options.memory_mib) {
        return Ok(());
    }
    let total = fs::read_to_string(sys.join("kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"));
    let total: u64 = total.unwrap_or_default().trim().parse().unwrap_or(0);
    let missing = u64::from(options.memory_mib) - free_mib;
    Err(StartError::HugePages {
        needed_mib: options.memory_mib,
        free_mib,
        pages: total + missing.div_ceil(2),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(options: &Options) -> String {
        match Arguments::of(options) {
            Ok(_) => "accepted".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn options_that_make_no_sense_are_refused_before_dpdk_sees_them() {
        let good = Options::default();
        assert_eq!(refused(&good), "accepted");
        let huge = Options {
            no_huge: true,
            pci_allowed: vec!["0000:01:00.0".into()],
            ..good.clone()
        };
        assert!(refused(&huge).contains("cannot use NVMe devices (0000:01:00.0)"));
        let little = Options {
            memory_mib: 16,
            ..good.clone()
        };
        assert!(refused(&little).contains("needs at least 64"));
        let missing = Options {
            cores: vec![0, 4000],
            ..good.clone()
        };
        assert!(refused(&missing).starts_with("SPDK shall run on the cores 4000, which"));
        let name = Options {
            name: "a b".into(),
            ..good
        };
        assert!(refused(&name).contains("has a blank"));
    }

    #[test]
    fn a_library_of_another_version_is_refused_by_number() {
        assert!(compare_versions(2609, 2609).is_ok() && compare_versions(2609, 0).is_ok());
        let error = compare_versions(2609, 2501).unwrap_err().to_string();
        assert!(
            error.starts_with("SPDK 25.01 is loaded, and this program was compiled for 26.09"),
            "{error}"
        );
    }

    #[test]
    fn too_few_huge_pages_come_with_the_command() {
        let sys = std::env::temp_dir().join(format!("spdk_sys_{}", std::process::id()));
        let pages = sys.join("kernel/mm/hugepages/hugepages-2048kB");
        fs::create_dir_all(&pages).unwrap();
        fs::write(pages.join("nr_hugepages"), "100\n").unwrap();
        fs::write(pages.join("free_hugepages"), "90\n").unwrap();
        let options = Options {
            memory_mib: 200,
            ..Options::default()
        };
        let error = check_memory(&options, &sys).unwrap_err().to_string();
        assert!(
            error.contains("180 MiB are free: echo 110 > /proc/sys/vm/nr_hugepages"),
            "{error}"
        );
        let less = Options {
            memory_mib: 180,
            ..options
        };
        assert!(check_memory(&less, &sys).is_ok());
        fs::remove_dir_all(sys).unwrap();
    }
}
