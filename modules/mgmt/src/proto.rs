//! Generated messages; the `.proto` files document each field.
#![allow(clippy::all, dead_code, unreachable_pub, reason = "generated")]

/// Bodies of module 2.
pub(crate) mod mgmt {
    include!(concat!(env!("OUT_DIR"), "/mgmt.rs"));
}
/// Bodies of module 2 that DAOS keeps in package ctl.
pub(crate) mod ctl {
    include!(concat!(env!("OUT_DIR"), "/ctl.rs"));
}
/// Bodies of module 100.
pub(crate) mod keel {
    include!(concat!(env!("OUT_DIR"), "/keel.rs"));
}
