//! The processor: which cores this process may use, what they share, and binding an OS thread to one.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// One logical CPU that this process may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cpu {
    /// The kernel's number.
    pub id: usize,
    /// Physical core, numbered within the package.
    pub core: usize,
    /// Package (socket).
    pub package: usize,
    /// NUMA node; 0 on a machine without NUMA.
    pub node: usize,
    /// All logical CPUs of the same physical core, this one included, usable or not.
    pub siblings: Vec<usize>,
}

/// The CPUs that this process may use, in ascending order of their ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// The usable CPUs.
    pub cpus: Vec<Cpu>,
}

/// Why the topology is unknown or an OS thread could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum CpuError {
    /// A sysfs file is there but does not read as expected.
    #[error("{path}: expected {expected}, found {found:?}")]
    Sysfs {
        /// The file.
        path: PathBuf,
        /// What it should have held.
        expected: &'static str,
        /// What it held.
        found: String,
    },
    /// The kernel refused to tell or set the affinity.
    #[error(
        "cannot {action}: {source} (the process may use CPUs {allowed:?}; a cgroup cpuset or taskset may forbid the rest)"
    )]
    Affinity {
        /// What was tried.
        action: String,
        /// The CPUs that are allowed, as far as known.
        allowed: Vec<usize>,
        /// The kernel's answer.
        source: std::io::Error,
    },
}

impl Topology {
    /// Reads sysfs and this thread's affinity, which cgroup cpusets and `taskset` restrict.
    ///
    /// # Errors
    /// [`CpuError`] if the affinity cannot be read or a topology file is malformed. Files that are missing (containers
    /// without sysfs) are no error: each CPU then counts as a core of its own on node 0.
    pub fn discover() -> Result<Topology, CpuError> {
        Self::from_sysfs(Path::new("/sys/devices/system"), &allowed()?)
    }

    /// The topology that `root` (normally `/sys/devices/system`) describes, of the CPUs in `allowed`.
    ///
    /// # Errors
    /// [`CpuError::Sysfs`] if a file is malformed.
    pub fn from_sysfs(root: &Path, allowed: &[usize]) -> Result<Topology, CpuError> {
        let nodes = nodes(root)?;
        let mut cpus = Vec::with_capacity(allowed.len());
        for &id in allowed {
            let directory = root.join(format!("cpu/cpu{id}/topology"));
            let siblings = match read(&directory.join("thread_siblings_list")) {
                Some((path, text)) => {
                    parse_list(&text).ok_or_else(|| malformed(path, "a list of CPUs", text))?
                }
                None => vec![id],
            };
            cpus.push(Cpu {
                id,
                core: number(&directory.join("core_id"))?.unwrap_or(id),
                package: number(&directory.join("physical_package_id"))?.unwrap_or(0),
                node: nodes.get(&id).copied().unwrap_or(0),
                siblings,
            });
        }
        cpus.sort_by_key(|cpu| cpu.id);
        Ok(Topology { cpus })
    }

    /// The CPU with this id, if this process may use it.
    #[must_use]
    pub fn get(&self, id: usize) -> Option<&Cpu> {
        self.cpus.iter().find(|cpu| cpu.id == id)
    }

    /// The usable CPUs of a NUMA node.
    pub fn on_node(&self, node: usize) -> impl Iterator<Item = &Cpu> {
        self.cpus.iter().filter(move |cpu| cpu.node == node)
    }

    /// One usable CPU of each physical core, the lowest: hyper-thread siblings left out.
    #[must_use]
    pub fn physical_cores(&self) -> Vec<usize> {
        let mut seen = std::collections::BTreeSet::new();
        self.cpus
            .iter()
            .filter(|cpu| seen.insert((cpu.package, cpu.core)))
            .map(|cpu| cpu.id)
            .collect()
    }

    /// NUMA nodes with at least one usable CPU, ascending.
    #[must_use]
    pub fn numa_nodes(&self) -> Vec<usize> {
        self.cpus
            .iter()
            .map(|cpu| cpu.node)
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect()
    }
}

/// The CPUs that the calling OS thread may run on, ascending.
///
/// # Errors
/// [`CpuError::Affinity`] if the kernel does not say.
pub fn allowed() -> Result<Vec<usize>, CpuError> {
    let set = sched_getaffinity(None).map_err(|errno| CpuError::Affinity {
        action: "read the CPU affinity".into(),
        allowed: Vec::new(),
        source: errno.into(),
    })?;
    Ok((0..CpuSet::MAX_CPU)
        .filter(|&cpu| set.is_set(cpu))
        .collect())
}

/// Binds the calling OS thread to one CPU.
///
/// # Errors
/// [`CpuError::Affinity`] if the CPU does not exist or the process may not use it.
pub fn pin_current_thread(cpu: usize) -> Result<(), CpuError> {
    set_affinity(&[cpu], || format!("bind a thread to CPU {cpu}"))
}

/// Lets the calling OS thread run on all of `cpus`: what a helper thread does that was started from a bound one.
///
/// # Errors
/// [`CpuError::Affinity`] if none of them may be used.
pub fn allow_current_thread(cpus: &[usize]) -> Result<(), CpuError> {
    set_affinity(cpus, || format!("let a thread run on CPUs {cpus:?}"))
}

fn set_affinity(cpus: &[usize], action: impl Fn() -> String) -> Result<(), CpuError> {
    let refused = |source: std::io::Error| CpuError::Affinity {
        action: action(),
        allowed: allowed().unwrap_or_default(),
        source,
    };
    let mut set = CpuSet::new();
    for &cpu in cpus {
        if cpu >= CpuSet::MAX_CPU {
            return Err(refused(std::io::ErrorKind::InvalidInput.into()));
        }
        set.set(cpu);
    }
    sched_setaffinity(None, &set).map_err(|errno| refused(errno.into()))
}

/// CPU -> NUMA node.
fn nodes(root: &Path) -> Result<BTreeMap<usize, usize>, CpuError> {
    let mut map = BTreeMap::new();
    let Ok(entries) = std::fs::read_dir(root.join("node")) else {
        return Ok(map);
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(node) = name
            .to_str()
            .and_then(|n| n.strip_prefix("node"))
            .and_then(|n| n.parse::<usize>().ok())
        else {
            continue;
        };
        if let Some((path, text)) = read(&entry.path().join("cpulist")) {
            let cpus = parse_list(&text).ok_or_else(|| malformed(path, "a list of CPUs", text))?;
            map.extend(cpus.into_iter().map(|cpu| (cpu, node)));
        }
    }
    Ok(map)
}

fn read(path: &Path) -> Option<(PathBuf, String)> {
    std::fs::read_to_string(path)
        .ok()
        .map(|text| (path.to_owned(), text.trim().to_owned()))
}

fn number(path: &Path) -> Result<Option<usize>, CpuError> {
    let Some((path, text)) = read(path) else {
        return Ok(None);
    };
    // Virtual machines and some boards say -1 for "unknown".
    match text.parse::<i64>() {
        Ok(value) => Ok(usize::try_from(value).ok()),
        Err(_) => Err(malformed(path, "a number", text)),
    }
}

fn malformed(path: PathBuf, expected: &'static str, found: String) -> CpuError {
    CpuError::Sysfs {
        path,
        expected,
        found,
    }
}

/// The kernel's list format: `0-3,8,10-11`. The empty string is the empty list.
fn parse_list(text: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        if first > last || last - first >= CpuSet::MAX_CPU * 64 {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn lists_of_the_kernel() {
        assert_eq!(
            parse_list("0-3,8,10-11\n"),
            Some(vec![0, 1, 2, 3, 8, 10, 11])
        );
        assert_eq!(parse_list(""), Some(vec![]));
        for bad in ["a", "3-1", "1-", "-1", "0-99999999999", "1,,x"] {
            assert_eq!(parse_list(bad), None, "{bad}");
        }
    }

    /// Two packages of two cores with two hyper-threads each; the siblings of core c are c and c + 4.
    fn machine() -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("scratch directory");
        for cpu in 0..8 {
            let directory = root.path().join(format!("cpu/cpu{cpu}/topology"));
            fs::create_dir_all(&directory).expect("directory");
            let core = cpu % 4;
            fs::write(directory.join("core_id"), format!("{}\n", core % 2)).expect("file");
            fs::write(
                directory.join("physical_package_id"),
                format!("{}\n", core / 2),
            )
            .expect("file");
            fs::write(
                directory.join("thread_siblings_list"),
                format!("{core},{}\n", core + 4),
            )
            .expect("file");
        }
        for (node, list) in [(0, "0-1,4-5"), (1, "2-3,6-7")] {
            let directory = root.path().join(format!("node/node{node}"));
            fs::create_dir_all(&directory).expect("directory");
            fs::write(directory.join("cpulist"), list).expect("file");
        }
        root
    }

    #[test]
    fn cores_packages_nodes_and_siblings() {
        let root = machine();
        let topology = Topology::from_sysfs(root.path(), &[0, 1, 2, 4, 6]).expect("topology");
        assert_eq!(topology.physical_cores(), [0, 1, 2]);
        assert_eq!(topology.numa_nodes(), [0, 1]);
        assert_eq!(
            topology.on_node(1).map(|cpu| cpu.id).collect::<Vec<_>>(),
            [2, 6]
        );
        let cpu = topology.get(6).expect("allowed");
        assert_eq!(
            (cpu.package, cpu.core, cpu.node, &cpu.siblings[..]),
            (1, 0, 1, &[2, 6][..])
        );
        assert!(topology.get(3).is_none(), "not allowed");
    }

    #[test]
    fn missing_files_mean_one_core_per_cpu_and_malformed_ones_are_named() {
        let root = machine();
        let topology = Topology::from_sysfs(root.path(), &[30, 31]).expect("topology");
        assert_eq!(topology.physical_cores(), [30, 31]);
        fs::write(root.path().join("cpu/cpu1/topology/core_id"), "many").expect("file");
        let error = Topology::from_sysfs(root.path(), &[0, 1]).expect_err("malformed");
        assert!(
            error
                .to_string()
                .contains("cpu1/topology/core_id: expected a number, found \"many\""),
            "{error}"
        );
    }

    #[test]
    fn this_machine_can_be_discovered_and_pinned_to() {
        let topology = Topology::discover().expect("topology");
        let first = topology.cpus.first().expect("at least one CPU").id;
        std::thread::spawn(move || {
            pin_current_thread(first).expect("an allowed CPU");
            assert_eq!(allowed().expect("affinity"), [first]);
        })
        .join()
        .expect("no panic");
        let error = std::thread::spawn(|| pin_current_thread(100_000))
            .join()
            .expect("no panic")
            .expect_err("no such CPU");
        assert!(error.to_string().contains("CPU 100000"), "{error}");
    }
}
