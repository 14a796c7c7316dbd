//! The store on a simulated device: against a model, through power cuts, damage, faults and full devices.
#![allow(missing_docs, reason = "tests")]

mod damage;
mod faults;
mod model;
mod power_cut;
mod sim;
mod space;
mod uploads;
mod workload;
