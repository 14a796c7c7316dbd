//! Places in a target's scheduler, and pools' space, through the table.
//!
//! Invariant: as `raw.rs`.
#![allow(unsafe_code, reason = "calls through the table, as a C module does")]

use super::places::{REFUSED, engine};
use super::raw::{RAW, host};
use daos_errno::Der;
use module_abi::*;
use std::ptr::{null, null_mut};

fn get(class: u32) -> (i32, usize) {
    let attr = dss_req_attr {
        r#type: class,
        pool_uuid: [7; 16],
        ..dss_req_attr::default()
    };
    let mut req = null_mut();
    // SAFETY: see the top of the file.
    let rc = unsafe { (host().sched_req_get)(&raw const RAW, &raw const attr, &raw mut req) };
    (rc, req.addr())
}

fn put(req: usize) {
    // SAFETY: a number that is no handle any more is what is tested.
    unsafe { (host().sched_req_put)(std::ptr::without_provenance_mut(req)) }
}

fn asleep(req: usize) -> i32 {
    // SAFETY: as `put`.
    unsafe { (host().sched_req_asleep)(std::ptr::without_provenance_mut(req), 1) }
}

#[test]
fn places_are_a_targets_and_stale_after_they_were_given_up() {
    let engine = engine();
    let (system, main) = (engine.system(), engine.main(0));
    assert_eq!(engine.on(&system, || get(2).0), REFUSED);
    for class in [5, 6, u32::MAX] {
        let rc = engine.on(&main, move || get(class).0);
        assert_eq!(rc, Der::INVAL.neg(), "class {class} does not wait");
    }
    let (rc, req) = engine.on(&main, || get(2));
    assert_eq!(rc, 0);
    assert_eq!(engine.on(&main, move || asleep(req)), 0);
    assert_eq!(engine.on(&system, move || asleep(req)), REFUSED);
    engine.on(&main, move || put(req));
    assert_eq!(engine.on(&main, move || asleep(req)), Der::INVAL.neg());
    engine.on(&main, move || put(req));
    // One that is left behind is ended with the xstream.
    assert_eq!(engine.on(&main, || get(3).0), 0);
    engine.stop();
}

#[test]
fn a_pools_pressure_follows_from_what_was_told() {
    let engine = engine();
    let told = |total, free| {
        let uuid = [9u8; 16];
        // SAFETY: see the top of the file.
        unsafe {
            let rc = (host().space_report)(&raw const RAW, uuid.as_ptr(), total, free, 0);
            (rc, (host().space_pressure)(&raw const RAW, uuid.as_ptr()))
        }
    };
    let main = engine.main(0);
    assert_eq!(engine.on(&main, move || told(100, 15)), (0, 3));
    assert_eq!(
        engine.on(&main, move || told(100, 90)),
        (0, 3),
        "it is not looked at again yet"
    );
    assert_eq!(engine.on(&engine.system(), move || told(1, 1)).0, REFUSED);
    let forget = |uuid: *const u8| {
        // SAFETY: see the top of the file.
        unsafe { (host().space_forget)(&raw const RAW, uuid) }
    };
    assert_eq!(engine.on(&main, move || forget([9u8; 16].as_ptr())), 0);
    assert_eq!(engine.on(&main, move || forget(null())), Der::INVAL.neg());
    // Forgotten: it begins anew.
    assert_eq!(engine.on(&main, move || told(100, 90)), (0, 0));
    engine.stop();
}
