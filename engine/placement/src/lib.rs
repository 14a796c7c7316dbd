//! From a configuration and a machine to a layout of xstreams, and what an operator should know about it.
//!
//! The daemon starts what a [`Plan`] says, and `keel engine topology --config FILE` shows the same plan without starting anything: one
//! code decides for both. [`machine`] is what `keel config check` and the daemon check a configuration against.
//!
//! Neighbours: below it `engine_config` (what is asked for), `spdk_env::cpu` (what there is), `engine_xstream::Layout` (who goes
//! where) and the messages of `drpc_wire`. Threads: plain data, start-up and tools only; it reads sysfs.
//!
//! | module | holds |
//! |---|---|
//! | `plan` | [`Plan`]: devices located, layout computed |
//! | `report` | the plan as the message that `keel engine topology` prints |
//! | `warnings` | what is not as fast as it could be, with cures |

mod plan;
mod report;
#[cfg(test)]
mod tests;
mod warnings;

pub use plan::{DevicePlace, Plan, PlanError, machine};
pub use warnings::{NOTE, WARNING, add_interrupts};
