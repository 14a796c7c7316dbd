//! Block I/O and RPC in the middle of straight-line code.
//!
//! Invariant: as `raw.rs`.
#![allow(unsafe_code, reason = "calls through the table, as a C module does")]

use super::fixture::{BLOCK, SHARE};
use super::raw::{host, next_held};
use super::ults::{Handle, SERVE, ULTS, attr, engine, on, spawn, start};
use daos_errno::Der;
use module_abi::*;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicU32, Ordering};

fn open() -> *mut dss_bdev {
    // SAFETY: see the top of the file: all zeroes is a valid info.
    unsafe {
        let (mut info, mut bdev) = (std::mem::zeroed(), null_mut());
        assert_eq!(
            (host().bdev_open)(&raw const ULTS, &raw mut info, &raw mut bdev),
            0
        );
        bdev
    }
}

fn buffer(fill: u8) -> dss_buf {
    let mut buf = dss_buf::EMPTY;
    // SAFETY: see the top of the file.
    unsafe {
        assert_eq!((host().buf_alloc)(u64::from(BLOCK), &raw mut buf), 0);
        std::slice::from_raw_parts_mut(buf.addr.cast::<u8>(), BLOCK as usize).fill(fill);
    }
    buf
}

fn first(buf: &dss_buf) -> u8 {
    // SAFETY: ours, a block long.
    unsafe { buf.addr.cast::<u8>().read() }
}

fn io(bdev: *mut dss_bdev, op: u32, lba: u64, buf: dss_buf) -> (i32, dss_buf) {
    let mut io = dss_bdev_io {
        op,
        flags: 0,
        lba,
        blocks: 1,
        reserved: 0,
        buf,
        done: None,
        arg: null_mut(),
    };
    // SAFETY: see the top of the file.
    let rc = unsafe { (host().bdev_io_wait)(bdev, &raw mut io) };
    (rc, io.buf)
}

#[test]
fn blocks_are_written_and_read_in_the_middle() {
    let engine = engine();
    on(&engine, &engine.main(0), || {
        let bdev = open();
        let (rc, buf) = io(bdev, DSS_BDEV_WRITE, 3, buffer(7));
        assert_eq!((rc, first(&buf)), (0, 7), "the buffer is back");
        assert_eq!(io(bdev, DSS_BDEV_FLUSH, 0, dss_buf::EMPTY).0, 0);
        assert_eq!(io(bdev, DSS_BDEV_WRITE_ZEROES, 4, dss_buf::EMPTY).0, 0);
        let (rc, buf) = io(bdev, DSS_BDEV_READ, 4, buf);
        assert_eq!((rc, first(&buf)), (0, 0));
        let (rc, buf) = io(bdev, DSS_BDEV_READ, 3, buf);
        assert_eq!((rc, first(&buf)), (0, 7));
        let (rc, buf) = io(bdev, DSS_BDEV_READ, SHARE, buf);
        assert_eq!(
            (rc, first(&buf)),
            (Der::INVAL.neg(), 7),
            "outside: still the caller's"
        );
        assert_eq!(
            io(bdev, DSS_BDEV_READ, 3, dss_buf::EMPTY).0,
            Der::INVAL.neg()
        );
        // SAFETY: see the top of the file.
        unsafe {
            (host().buf_free)(buf);
            (host().bdev_close)(bdev);
        }
        assert_eq!(
            io(bdev, DSS_BDEV_FLUSH, 0, dss_buf::EMPTY).0,
            Der::INVAL.neg(),
            "closed"
        );
    });
    engine.stop();
}

#[test]
fn more_ults_than_the_queue_holds_all_get_their_turn() {
    static DONE: AtomicU32 = AtomicU32::new(0);
    let engine = engine();
    on(&engine, &engine.main(0), || {
        let bdev = Handle::new(open());
        let mut ults = vec![null_mut(); 200]; // the queue holds 32
        for (ult, lba) in ults.iter_mut().zip(0..) {
            let round = move || {
                let fill = lba as u8;
                let (rc, buf) = io(bdev.get(), DSS_BDEV_WRITE, lba, buffer(fill));
                assert_eq!(rc, 0);
                let (rc, buf) = io(bdev.get(), DSS_BDEV_READ, lba, buf);
                assert_eq!((rc, first(&buf)), (0, fill));
                // SAFETY: see the top of the file.
                unsafe { (host().buf_free)(buf) };
                DONE.fetch_add(1, Ordering::AcqRel);
            };
            assert_eq!(spawn(&attr(c"io", DSS_XS_SELF, -1), Some(ult), round), 0);
        }
        // SAFETY: see the top of the file.
        unsafe {
            for ult in ults {
                assert_eq!((host().ult_join)(ult), 0);
                assert_eq!((host().ult_free)(ult), 0);
            }
            (host().bdev_close)(bdev.get());
        }
    });
    assert_eq!(DONE.load(Ordering::Acquire), 200);
    engine.stop();
}

fn call(tag: u32, opcode: u32, body: &[u8]) -> Result<(i32, Vec<u8>), i32> {
    // SAFETY: see the top of the file: all zeroes is a valid answer.
    unsafe {
        let mut answer: dss_rpc_answer = std::mem::zeroed();
        let (data, len) = (body.as_ptr(), body.len() as u64);
        let (this, out) = (&raw const ULTS, &raw mut answer);
        let rc = (host().rpc_call_wait)(this, tag, opcode, data, len, null_mut(), out);
        if rc != 0 {
            return Err(rc);
        }
        let body = std::slice::from_raw_parts(answer.body, answer.body_len as usize).to_vec();
        let status = answer.status;
        (host().rpc_answer_free)(out);
        (host().rpc_answer_free)(out); // given back before: nothing
        Ok((status, body))
    }
}

#[test]
fn a_call_is_answered_in_the_middle_and_its_handler_may_wait_too() {
    let engine = engine();
    on(&engine, &engine.main(0), || {
        assert_eq!(call(2, SERVE, b"hello"), Ok((0, b"hello".to_vec())));
        assert_eq!(
            call(1, SERVE, b"self"),
            Ok((0, b"self".to_vec())),
            "its own xstream"
        );
        assert_eq!(call(9, SERVE, b""), Ok((Der::BAD_TARGET.neg(), vec![])));
        assert_eq!(
            call(2, SERVE + 1, b"")
                .map_err(|rc| rc < 0)
                .ok()
                .map(|(rc, _)| rc < 0),
            Some(true)
        );
    });
    engine.stop();
}

#[test]
fn bulk_data_moves_with_a_call_and_comes_back_with_the_answer() {
    let engine = engine();
    let echo = move || {
        // SAFETY: see the top of the file: all zeroes is a valid answer.
        unsafe {
            let (mut answer, mut bulk): (dss_rpc_answer, _) = (std::mem::zeroed(), buffer(9));
            let (this, bulk_at, out) = (&raw const ULTS, &raw mut bulk, &raw mut answer);
            let rc = (host().rpc_call_wait)(this, 2, super::raw::HOLD, null(), 0, bulk_at, out);
            assert_eq!((rc, answer.status, bulk.is_empty()), (0, 0, true));
            assert_eq!(
                (answer.bulk.len, first(&answer.bulk)),
                (u64::from(BLOCK), 9)
            );
            (host().rpc_answer_free)(out); // with the bulk data that is still in there
            assert!(answer.bulk.is_empty());
        }
    };
    let called = start(&engine, &engine.main(0), echo);
    let held = next_held();
    engine.on(&engine.main(1), move || {
        // SAFETY: see the top of the file.
        unsafe {
            let bulk = (host().rpc_bulk)(super::raw::handle(held));
            (host().rpc_reply)(super::raw::handle(held), 0, null(), 0, bulk);
        }
    });
    called.get();
    engine.stop();
}
