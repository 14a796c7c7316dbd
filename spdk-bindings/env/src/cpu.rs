//! The machine's processors as sysfs, procfs and the kernel tell them: which CPUs there are, what they share, which of them this
//! process may use and why not the others; where devices and interrupts are; binding an OS thread to a CPU.
//!
//! Everything is read below a [`Host`], so that a test can build a machine out of files. Start-up and tools only: nothing here
//! is for a data path. Source of the formats: Linux `Documentation/admin-guide/cputopology.rst`, `cgroup-v2.rst`,
//! `cgroup-v1/cpusets.rst`, `Documentation/ABI/stable/sysfs-devices-node`, proc(5).

mod affinity;
mod cgroup;
mod error;
mod host;
mod interrupts;
mod list;
mod locality;
mod node;
#[cfg(test)]
mod tests;
mod topology;

pub use affinity::{allow_current_thread, allowed, pin_current_thread};
pub use cgroup::{Cpuset, Quota};
pub use error::CpuError;
pub use host::Host;
pub use interrupts::{Interrupt, interrupts};
pub use list::{format_list, parse_list};
pub use locality::{Disk, disk_of_path, pci_node};
pub use node::{Hugepages, Node};
pub use topology::{Cpu, Topology, Unusable};
