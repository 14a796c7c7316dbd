//! Buffers and shares: from the right place it works, from the wrong one it answers an error and does nothing.
//!
//! Invariant: as `raw.rs`.
#![allow(unsafe_code, reason = "calls through the table, as a C module does")]

use super::fixture::{BLOCK, SHARE};
use super::places::{REFUSED, engine, wait_for};
use super::raw::{RAW, handle, host};
use daos_errno::Der;
use module_abi::*;
use std::ffi::{c_char, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering};

fn alloc(len: u64) -> Result<dss_buf, i32> {
    let mut buf = dss_buf::EMPTY;
    // SAFETY: see the top of the file.
    let rc = unsafe { (host().buf_alloc)(len, &raw mut buf) };
    if rc == 0 { Ok(buf) } else { Err(rc) }
}

#[test]
fn buffers_come_zeroed_and_go_back_once() {
    let engine = engine();
    assert_eq!(alloc(10).unwrap_err(), REFUSED);
    engine.on(&engine.main(0), || {
        assert_eq!(alloc(0).unwrap_err(), Der::INVAL.neg());
        assert_eq!(alloc(1 << 40).unwrap_err(), Der::NOMEM.neg());
        let buf = alloc(5000).unwrap();
        assert!(buf.len == 5000 && buf.capacity >= 5000 && buf.addr.addr().is_multiple_of(4096));
        // SAFETY: ours, 5000 bytes.
        let bytes = unsafe { std::slice::from_raw_parts_mut(buf.addr.cast::<u8>(), 5000) };
        assert!(bytes.iter().all(|b| *b == 0));
        bytes.fill(9);
        let again = dss_buf { ..buf };
        // SAFETY: see the top of the file; the second is a double free, which is caught.
        unsafe {
            (host().buf_free)(buf);
            (host().buf_free)(again);
            (host().buf_free)(dss_buf::EMPTY);
        }
    });
    engine.stop();
}

static DONE: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" fn io_done(arg: *mut c_void, rc: i32, buf: dss_buf) {
    assert_eq!(rc, 0);
    // SAFETY: moves back to the engine.
    unsafe { (host().buf_free)(buf) };
    DONE.store(arg.addr(), Ordering::Release);
}

fn open() -> Result<(usize, dss_bdev_info), i32> {
    // SAFETY: all zeroes is a valid info.
    let (mut info, mut bdev) = (unsafe { std::mem::zeroed::<dss_bdev_info>() }, null_mut());
    // SAFETY: see the top of the file.
    let rc = unsafe { (host().bdev_open)(&raw const RAW, &raw mut info, &raw mut bdev) };
    if rc == 0 {
        Ok((bdev.addr(), info))
    } else {
        Err(rc)
    }
}

fn submit(bdev: usize, op: u32, lba: u64, blocks: u32, len: u64, arg: usize) -> i32 {
    let buf = if len > 0 {
        alloc(len).unwrap_or(dss_buf::EMPTY)
    } else {
        dss_buf::EMPTY
    };
    let io = dss_bdev_io {
        op,
        flags: 0,
        lba,
        blocks,
        reserved: 0,
        buf,
        done: Some(io_done),
        arg: handle(arg),
    };
    // SAFETY: see the top of the file.
    let rc = unsafe { (host().bdev_submit)(handle(bdev), &raw const io) };
    if rc < 0 {
        // SAFETY: refused: still ours.
        unsafe { (host().buf_free)(io.buf) };
    }
    rc
}

#[test]
fn shares_are_opened_on_main_xstreams_and_bounded() {
    let engine = engine();
    assert_eq!(open().unwrap_err(), REFUSED);
    assert_eq!(engine.on(&engine.system(), open).unwrap_err(), REFUSED);
    assert_eq!(
        engine.on(&engine.main(1), open).unwrap_err(),
        Der::NONEXIST.neg(),
        "no device"
    );
    let (bdev, info) = engine.on(&engine.main(0), open).unwrap();
    assert_eq!((info.num_blocks, info.block_size), (SHARE, BLOCK));
    assert_eq!(
        (info.device_uuid, info.engine_uuid, info.device_name[0]),
        ([7; 16], [9; 16], b'm' as c_char)
    );
    let block = u64::from(BLOCK);
    assert_eq!(
        engine.on(&engine.system(), move || submit(
            bdev,
            DSS_BDEV_FLUSH,
            0,
            0,
            0,
            1
        )),
        REFUSED
    );
    // SAFETY: see the top of the file: of another xstream.
    engine.on(&engine.system(), move || unsafe {
        (host().bdev_close)(handle(bdev))
    });
    engine.on(&engine.main(0), move || {
        let refused = Der::INVAL.neg();
        for (op, lba, blocks, len) in [
            (DSS_BDEV_READ, SHARE - 1, 2, 2 * block), // past the share, not past the device
            (DSS_BDEV_READ, u64::MAX, 1, block),
            (DSS_BDEV_WRITE, 0, 2, block), // short buffer
            (DSS_BDEV_WRITE, 0, 1, 0),     // none
            (DSS_BDEV_UNMAP, SHARE, 1, 0),
            (9, 0, 1, block),
        ] {
            assert_eq!(
                submit(bdev, op, lba, blocks, len, 1),
                refused,
                "op {op} at {lba}"
            );
        }
        assert_eq!(submit(bdev, DSS_BDEV_WRITE, SHARE - 1, 1, block, 33), 0);
    });
    wait_for("the write", || DONE.load(Ordering::Acquire) == 33);
    engine.on(&engine.main(0), move || {
        assert_eq!(submit(bdev, DSS_BDEV_READ, 0, 1, block, 34), 0);
        // SAFETY: see the top of the file; with I/O in flight.
        unsafe { (host().bdev_close)(handle(bdev)) };
        assert_eq!(
            submit(bdev, DSS_BDEV_READ, 0, 1, block, 35),
            Der::INVAL.neg(),
            "stale"
        );
    });
    wait_for("the read that was in flight", || {
        DONE.load(Ordering::Acquire) == 34
    });
    engine.stop();
}
