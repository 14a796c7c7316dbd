//! Boots virtual machines with emulated NVMe controllers, runs programs in them and ends them, politely or by a power cut.
//!
//! [`Lab::open`] takes the machine's one VM slot and prepares what every guest needs: Debian's kernel and a busybox, downloaded
//! once, kept below the target directory, never installed. [`Lab::boot`] starts QEMU on a [`Profile`] and gives a [`Vm`] once
//! the agent inside answers. A [`Vm`] runs scripts ([`Vm::run`], [`Vm::start`]), moves files, finds its SSDs by name, speaks QMP,
//! and ends by [`Vm::power_off`] or [`Vm::cut_power`]; its [`Disks`] outlive it and go into the next one.
//!
//! The programs under test are not copied: the guest sees the folder where cargo put them, read-only, at `/keel`.
//!
//! Neighbours: `test_vm_agent` is the guest's side of the channel; `vm_tests` has the tests and `cargo xtask vm` starts it.
//! For test programs only, hence `anyhow`: every error here is for a person to read.
#![allow(
    clippy::print_stderr,
    reason = "says what it downloads, installs and waits for"
)]

mod accel;
mod agent;
mod boot;
mod cpio;
mod debian;
mod disks;
mod guest;
mod image;
mod kernel_modules;
mod lab;
mod libraries;
mod process;
mod profile;
mod qemu;
mod qmp;
mod runs;
mod tools;
mod vm;

pub use disks::Disks;
pub use lab::{BootOptions, Lab};
pub use process::{Output, Process};
pub use profile::{Namespace, Nvme, Profile};
pub use qmp::Qmp;
pub use tools::{Unavailable, program};
pub use vm::Vm;
