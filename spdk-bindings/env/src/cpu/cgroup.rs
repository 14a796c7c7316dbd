//! What the process's control groups leave it: CPUs (cpuset) and time (quota), version 1 and 2.

use std::path::{Path, PathBuf};

use super::{CpuError, Host};

/// The CPUs that a cgroup leaves its processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpuset {
    /// The cgroup that says so, as in `/proc/self/cgroup`.
    pub cgroup: String,
    /// Its effective CPUs.
    pub cpus: Vec<usize>,
}

/// The time that a cgroup leaves its processes together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// The cgroup that says so.
    pub cgroup: String,
    /// Microseconds of CPU time in each period, over all CPUs.
    pub quota_us: u64,
    /// The period, in microseconds.
    pub period_us: u64,
}

impl Quota {
    /// As a number of CPUs in thousandths: 1,500 is one and a half.
    #[must_use]
    pub fn milli_cpus(&self) -> u64 {
        self.quota_us.saturating_mul(1000) / self.period_us.max(1)
    }
}

/// A cgroup directory of the process: where the hierarchy is mounted, and the path from there.
struct Group {
    mount: PathBuf,
    path: PathBuf,
}

impl Group {
    /// The group and those round it, innermost first.
    fn outwards(&self) -> impl Iterator<Item = (String, PathBuf)> {
        let steps = self.path.ancestors().map(Path::to_owned);
        steps.map(|path| {
            let name = Path::new("/").join(&path).display().to_string();
            (name, self.mount.join(path))
        })
    }
}

/// The cpuset of this process; `None` without cpusets.
pub(super) fn cpuset(host: &Host) -> Result<Option<Cpuset>, CpuError> {
    let files = [
        "cpuset.cpus.effective",
        "cpuset.effective_cpus",
        "cpuset.cpus",
    ];
    for group in groups(host, "cpuset") {
        // A group without the controller obeys the nearest one round it that has it.
        for (cgroup, directory) in group.outwards() {
            for file in files {
                let cpus = host.list(directory.join(file))?;
                if let Some(cpus) = cpus.filter(|cpus| !cpus.is_empty()) {
                    return Ok(Some(Cpuset { cgroup, cpus }));
                }
            }
        }
    }
    Ok(None)
}

/// The tightest quota on this process: each group round it counts.
pub(super) fn quota(host: &Host) -> Result<Option<Quota>, CpuError> {
    let mut tightest: Option<Quota> = None;
    for group in groups(host, "cpu") {
        for (cgroup, directory) in group.outwards() {
            let Some((quota_us, period_us)) = quota_in(host, &directory)? else {
                continue;
            };
            let quota = Quota {
                cgroup,
                quota_us,
                period_us,
            };
            if tightest
                .as_ref()
                .is_none_or(|tightest| quota.milli_cpus() < tightest.milli_cpus())
            {
                tightest = Some(quota);
            }
        }
    }
    Ok(tightest)
}

fn quota_in(host: &Host, directory: &Path) -> Result<Option<(u64, u64)>, CpuError> {
    let file = directory.join("cpu.max");
    if let Some(text) = host.read(&file) {
        // "max 100000" or "150000 100000"
        let (quota, period) = text.split_once(' ').unwrap_or((&text, "100000"));
        if quota == "max" {
            return Ok(None);
        }
        return match (quota.parse(), period.parse()) {
            (Ok(quota), Ok(period)) => Ok(Some((quota, period))),
            _ => Err(host.malformed(&file, "a quota and a period", text)),
        };
    }
    let quota = host.number(directory.join("cpu.cfs_quota_us"))?; // -1: no quota
    let period = host.number(directory.join("cpu.cfs_period_us"))?;
    Ok(quota
        .zip(period)
        .map(|(quota, period)| (quota as u64, period as u64)))
}

/// The process's groups of the hierarchies that may hold `controller`: version 1's own one, then version 2's.
fn groups(host: &Host, controller: &str) -> Vec<Group> {
    let member = host.read("/proc/self/cgroup").unwrap_or_default();
    let mounts = host.read("/proc/self/mountinfo").unwrap_or_default();
    let mut found = Vec::new();
    for line in member.lines() {
        // "3:cpuset:/batch", "4:cpu,cpuacct:/batch", "0::/system.slice/keel.service"
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let unified = controllers.is_empty();
        if !unified && !controllers.split(',').any(|name| name == controller) {
            continue;
        }
        let mount = mounts
            .lines()
            .find_map(|line| mount_of(line, (!unified).then_some(controller)));
        let Some((root, mount)) = mount else {
            continue;
        };
        // In a container the mount may show a part of the tree only; a path outside of it leaves the mount's own root.
        let path = Path::new(path);
        let path = path.strip_prefix(&root).unwrap_or(Path::new(""));
        let group = Group {
            mount,
            path: path.to_owned(),
        };
        match unified {
            true => found.push(group),
            false => found.insert(0, group),
        }
    }
    found
}

/// (root, mount point) of a line of mountinfo, if it mounts the hierarchy: of a version 1 controller, or version 2.
fn mount_of(line: &str, controller: Option<&str>) -> Option<(PathBuf, PathBuf)> {
    // 34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(3);
    let (root, mount) = (left.next()?, left.next()?);
    let mut right = right.split(' ');
    let kind = right.next()?;
    let fits = match controller {
        None => kind == "cgroup2",
        Some(name) => kind == "cgroup" && right.nth(1)?.split(',').any(|option| option == name),
    };
    fits.then(|| (root.into(), mount.into()))
}
