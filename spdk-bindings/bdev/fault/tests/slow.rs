//! Who hears of slow I/Os, and for which request they were.

#![allow(missing_docs, reason = "tests")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bdev_fault::{Effect, FaultBdev, FaultControl, Rule};
use bdev_malloc::MallocBdev;
use spdk_bdev::{Mode, Op, OpSet, Registry, Request, SlowIo, SlowIos};
use spdk_env::DmaBuf;
use spdk_thread::testing::Lockstep;
use spdk_thread::{Thread, traced};

const LIMIT: u64 = 1_000_000;

type Told = Arc<Mutex<Vec<String>>>;

/// A device whose I/O takes as long as rules say, and what is told of it.
fn device(told: &Told) -> (Registry, FaultControl) {
    let told = Arc::clone(told);
    let tell = move |io: &SlowIo<'_>| {
        let line = format!(
            "{} of {} blocks at {} on {}: {:?}, trace {}{}",
            io.op,
            io.blocks,
            io.lba,
            io.device,
            io.took,
            io.trace,
            if io.failed { ", failed" } else { "" }
        );
        told.lock().unwrap().push(line);
    };
    let registry = Registry::telling(SlowIos {
        after: Duration::from_nanos(LIMIT),
        tell: Arc::new(tell),
    });
    let under = Arc::new(MallocBdev::new("under", 512, 64).unwrap());
    let bdev = FaultBdev::new("disk", under, 1);
    let control = bdev.control();
    registry.register(Arc::new(bdev)).unwrap();
    (registry, control)
}

fn delay(ops: &[Op], ns: u64) -> Rule {
    Rule::new(OpSet::of(ops), Effect::Delay { ns })
}

fn buffer() -> DmaBuf {
    DmaBuf::alloc(512).unwrap()
}

/// Lets time pass, and the device and its users do what is due then.
fn pass(lockstep: &mut Lockstep, ns: u64) {
    lockstep.settle();
    lockstep.advance(ns);
    for _ in 0..5 {
        lockstep.step();
    }
}

/// Does `io` in the name of request `trace`, in a task that it starts.
fn in_the_name_of<F: Future<Output = ()> + 'static>(thread: &Thread, trace: u64, io: F) {
    let starter = thread.clone();
    let start = async move {
        traced(trace, || starter.spawn("io", io).unwrap().detach());
    };
    thread.spawn("request", start).unwrap().detach();
}

#[test]
fn a_slow_io_is_told_with_its_request_and_a_quick_one_is_not() {
    let told = Told::default();
    let (registry, control) = device(&told);
    control.add(delay(&[Op::Write], LIMIT));
    control.add(delay(&[Op::Read], LIMIT - 1));
    let mut lockstep = Lockstep::new();
    let thread = lockstep.thread("t");
    let opened = registry.open("disk", Mode::ReadWrite, "test").unwrap();
    let channel = opened.get_channel(&thread).unwrap();

    let (writer, reader) = (channel.clone(), channel.clone());
    in_the_name_of(&thread, 7, async move {
        writer.write(3, 1, buffer(), false).await.0.unwrap();
    });
    in_the_name_of(&thread, 8, async move {
        reader.read(3, 1, buffer()).await.0.unwrap();
    });
    pass(&mut lockstep, LIMIT - 1);
    pass(&mut lockstep, 1);
    assert_eq!(channel.in_flight(), 0);
    let line = "write of 1 blocks at 3 on disk: 1ms, trace 7";
    assert_eq!(std::mem::take(&mut *told.lock().unwrap()), [line]);
}

#[test]
fn io_of_a_queue_is_told_too_and_one_that_failed_says_so() {
    let told = Told::default();
    let (registry, control) = device(&told);
    control.add(delay(&[Op::Read], 2 * LIMIT));
    let fails = Effect::Fail {
        why: "bad".to_owned(),
        errno: None,
    };
    control.add(Rule::new(OpSet::of(&[Op::Read]), fails));
    let mut lockstep = Lockstep::new();
    let thread = lockstep.thread("t");
    let opened = registry.open("disk", Mode::ReadWrite, "test").unwrap();
    let queue = opened.get_channel(&thread).unwrap().queue(4).unwrap();
    in_the_name_of(&thread, 0xabc, async move {
        queue.submit(Request::read(5, 1, buffer())).unwrap();
        queue.ready().await;
        let completion = queue.pop().unwrap();
        assert!(completion.result.is_err());
    });
    pass(&mut lockstep, 2 * LIMIT);
    let line = "read of 1 blocks at 5 on disk: 2ms, trace 2748, failed";
    assert_eq!(*told.lock().unwrap(), [line]);
}
