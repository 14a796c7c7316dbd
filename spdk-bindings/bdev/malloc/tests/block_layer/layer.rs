//! The layer on a real device: modes, rejects, queues, futures, destruction, counters.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;

use spdk_bdev::{BdevErrorKind, Channel, Descriptor, Mode, Op, Registry, Request};
use spdk_env::{DmaBuf, DmaPool};
use spdk_thread::ThreadOptions;
use spdk_thread::testing::Lockstep;

use crate::setup;

const BLOCK: usize = 512;

fn registry() -> Registry {
    let registry = Registry::new();
    registry.register(setup::device("mem", 512, 64)).unwrap();
    registry.register(setup::device("nil", 4096, 1024)).unwrap();
    registry
}

fn open(registry: &Registry, name: &str) -> Descriptor {
    registry.open(name, Mode::ReadWrite, "test").unwrap()
}

fn filled(blocks: usize, byte: u8) -> DmaBuf {
    let mut buf = DmaBuf::alloc(blocks * BLOCK).unwrap();
    buf.as_mut_slice().fill(byte);
    buf
}

/// Until the device has nothing: what it has takes as many turns as it likes.
fn finish(lockstep: &mut Lockstep, channel: &Channel) {
    while channel.in_flight() > 0 {
        lockstep.step();
    }
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn opening_has_modes_and_names_who_is_first() {
    let registry = registry();
    let text = |mode, holder| {
        registry
            .open("mem", mode, holder)
            .map(drop)
            .map_err(|why| why.to_string())
    };
    let writer = registry.open("mem", Mode::ReadWrite, "first").unwrap();
    assert_eq!(
        text(Mode::ReadWrite, "second").unwrap_err(),
        "block device `mem` is open for writing by `first`: close it there or open it read-only"
    );
    let reader = registry.open("mem", Mode::ReadOnly, "looker").unwrap();
    assert_eq!(
        registry.remove("mem").map(drop).unwrap_err().to_string(),
        "block device `mem` cannot be removed: open by `first`, `looker`"
    );
    let clone = writer.clone();
    drop(writer);
    assert!(
        text(Mode::ReadWrite, "third").is_err(),
        "a clone holds it still"
    );
    drop(clone);
    assert_eq!(text(Mode::ReadWrite, "third"), Ok(()));
    drop(reader);
    assert_eq!(registry.remove("mem").unwrap().name(), "mem");
    assert_eq!(
        text(Mode::ReadOnly, "late").unwrap_err(),
        "no block device named `mem` (there are: nil)"
    );
}

#[test]
fn names_are_unique() {
    let registry = registry();
    let again = registry.register(setup::device("nil", 512, 1)).unwrap_err();
    assert_eq!(
        again.to_string(),
        "a block device named `nil` is registered already"
    );
    let names: Vec<String> = registry
        .list()
        .iter()
        .map(|bdev| bdev.name().to_owned())
        .collect();
    assert_eq!(names, ["mem", "nil"]);
}

/// Whether through a read-only descriptor, the request, and its message.
fn bad_requests() -> Vec<(bool, Request, &'static str)> {
    let buf = || filled(2, 1);
    vec![
        (
            false,
            Request::read(64, 1, buf()),
            "read of 1 blocks at lba 64 rejected: the device ends at lba 64",
        ),
        (
            false,
            Request::read(63, 2, buf()),
            "read of 2 blocks at lba 63 rejected: the device ends at lba 64",
        ),
        (
            false,
            Request::write(u64::MAX, 2, buf()),
            "write of 2 blocks at lba 18446744073709551615 rejected: the device ends at lba 64",
        ),
        (
            false,
            Request::unmap(0, 65),
            "unmap of 65 blocks at lba 0 rejected: the device ends at lba 64",
        ),
        (
            false,
            Request::write_zeroes(0, 0),
            "write-zeroes of 0 blocks at lba 0 rejected: it has no blocks",
        ),
        (
            false,
            Request::read(0, 3, buf()),
            "read of 3 blocks at lba 0 rejected: it needs 1536 bytes and its buffer has 1024",
        ),
        (
            false,
            Request {
                buf: None,
                ..Request::read(0, 1, buf())
            },
            "read of 1 blocks at lba 0 rejected: it has no buffer",
        ),
        (
            true,
            Request::write(0, 1, buf()),
            "write of 1 blocks at lba 0 rejected: the descriptor is read-only",
        ),
        (
            true,
            Request::unmap(0, 1),
            "unmap of 1 blocks at lba 0 rejected: the descriptor is read-only",
        ),
    ]
}

#[test]
fn each_bad_request_gets_its_exact_message_and_its_buffer_back() {
    let mut lockstep = setup::lockstep();
    let thread = lockstep.thread("t");
    let registry = registry();
    let queue = open(&registry, "mem")
        .get_channel(&thread)
        .unwrap()
        .queue(1)
        .unwrap();
    let reader = registry.open("mem", Mode::ReadOnly, "reader").unwrap();
    let reading = reader.get_channel(&thread).unwrap().queue(1).unwrap();
    for (read_only, request, text) in bad_requests() {
        let queue = if read_only { &reading } else { &queue };
        let had_buffer = request.buf.is_some();
        let rejected = queue.submit(request).unwrap_err();
        assert_eq!(rejected.to_string(), text);
        assert_eq!(rejected.request.buf.is_some(), had_buffer);
        assert_eq!(queue.in_flight(), 0);
    }
}

#[test]
fn too_long_and_too_many_are_rejected_with_their_bounds() {
    let mut lockstep = setup::lockstep();
    let thread = lockstep.thread("t");
    let registry = registry();
    let queue = open(&registry, "mem")
        .get_channel(&thread)
        .unwrap()
        .queue(1)
        .unwrap();
    let buf = || filled(2, 1);
    let nil = open(&registry, "nil")
        .get_channel(&thread)
        .unwrap()
        .queue(1)
        .unwrap();
    let long = nil
        .submit(Request::read(0, 257, DmaBuf::alloc(257 * 4096).unwrap()))
        .unwrap_err();
    assert_eq!(
        long.to_string(),
        "read of 257 blocks at lba 0 rejected: one I/O takes at most 256 blocks"
    );
    queue.submit(Request::read(0, 1, buf())).unwrap();
    let full = queue.submit(Request::read(0, 1, buf())).unwrap_err();
    assert_eq!(
        full.to_string(),
        "read of 1 blocks at lba 0 rejected: the queue is full (1 I/Os)"
    );
}

#[test]
fn futures_report_rejects_with_the_device() {
    let mut lockstep = setup::lockstep();
    let thread = lockstep.thread("t");
    let channel = open(&registry(), "mem").get_channel(&thread).unwrap();
    let (result, buf) = lockstep
        .block_on(&thread, async move {
            channel.write(64, 1, filled(1, 7), true).await
        })
        .unwrap();
    let error = result.unwrap_err();
    assert_eq!(
        error.to_string(),
        "write of 1 blocks at lba 64 on `mem` rejected: the device ends at lba 64"
    );
    assert!(matches!(
        error.kind(),
        BdevErrorKind::Rejected { op: Op::Write, .. }
    ));
    assert_eq!(buf.as_slice(), [7; BLOCK]);
}

#[test]
fn a_future_completes_in_the_turn_after_its_submission() {
    let mut lockstep = setup::lockstep();
    let thread = lockstep.thread("t");
    let channel = open(&registry(), "mem").get_channel(&thread).unwrap();
    let data = lockstep.block_on(&thread, async move {
        channel.write(3, 2, filled(2, 9), false).await.0.unwrap();
        channel.write_zeroes(4, 1).await.unwrap();
        channel.flush().await.unwrap();
        channel.read(3, 2, filled(2, 1)).await.1
    });
    let data = data.unwrap();
    assert_eq!((data.as_slice()[0], data.as_slice()[BLOCK]), (9, 0));
}

#[test]
fn more_futures_than_the_channel_holds_wait_in_line() {
    let mut lockstep = setup::lockstep();
    let all_in_one_turn = ThreadOptions {
        task_batch: 1000,
        ..ThreadOptions::default()
    };
    let thread = lockstep.thread_with("t", all_in_one_turn);
    let channel = open(&registry(), "mem").get_channel(&thread).unwrap();
    let order = Rc::new(RefCell::new(Vec::new()));
    let tasks: Vec<_> = (0..1000u32)
        .map(|number| {
            let (channel, order) = (channel.clone(), Rc::clone(&order));
            let io = async move {
                channel
                    .write(u64::from(number % 64), 1, filled(1, number as u8), false)
                    .await
                    .0
                    .unwrap();
                order.borrow_mut().push(number);
            };
            thread.spawn("writer", io).unwrap()
        })
        .collect();
    lockstep.step();
    assert_eq!(channel.in_flight(), 256);
    // One that runs and one that waits go away; their places are not lost.
    tasks[0].abort();
    tasks[900].abort();
    lockstep.settle();
    let mut expected: Vec<u32> = (0..1000).collect();
    expected.retain(|number| ![0, 900].contains(number));
    assert_eq!(*order.borrow(), expected, "first come, first served");
    assert_eq!(channel.in_flight(), 0);
}

#[test]
fn a_dropped_future_gives_its_buffer_back_only_when_the_device_is_done() {
    let mut lockstep = setup::lockstep();
    let thread = lockstep.thread("t");
    let channel = open(&registry(), "mem").get_channel(&thread).unwrap();
    let pool = DmaPool::new(BLOCK, 1).unwrap();
    let buf = pool.get().unwrap();
    let reading = channel.clone();
    let task = thread
        .spawn("reader", async move { drop(reading.read(0, 1, buf).await) })
        .unwrap();
    lockstep.step();
    assert_eq!(channel.in_flight(), 1);
    task.abort();
    drop(task);
    assert_eq!(pool.available(), 0, "the device has it");
    lockstep.settle();
    assert_eq!((pool.available(), channel.in_flight()), (1, 0));
}

#[test]
fn a_channel_dropped_with_io_in_flight_lives_until_the_io_is_back() {
    let mut lockstep = setup::lockstep();
    let thread = lockstep.thread("t");
    let registry = registry();
    let descriptor = open(&registry, "mem");
    let queue = descriptor.get_channel(&thread).unwrap().queue(4).unwrap();
    let pool = DmaPool::new(BLOCK, 4).unwrap();
    for lba in 0..4 {
        queue
            .submit(Request::write(lba, 1, pool.get().unwrap()))
            .unwrap();
    }
    drop((queue, descriptor));
    assert_eq!(pool.available(), 0);
    assert!(
        registry.open("mem", Mode::ReadWrite, "second").is_err(),
        "the writes are still out"
    );
    lockstep.settle();
    assert_eq!(pool.available(), 4);
    assert!(registry.open("mem", Mode::ReadWrite, "second").is_ok());
    thread.request_exit();
    lockstep.settle();
    assert!(thread.is_exited(), "held by {:?}", thread.holders());
}

#[test]
fn queues_share_a_channel_without_mixing() {
    let mut lockstep = setup::lockstep();
    let thread = lockstep.thread("t");
    let channel = open(&registry(), "nil").get_channel(&thread).unwrap();
    let (a, b) = (channel.queue(3).unwrap(), channel.queue(5).unwrap());
    for user in 0..3 {
        a.submit(Request::flush().with_user(user)).unwrap();
    }
    for user in 10..15 {
        b.submit(Request::flush().with_user(user)).unwrap();
    }
    finish(&mut lockstep, &channel);
    let users = |queue: &spdk_bdev::IoQueue, max| {
        let mut users = Vec::new();
        queue.reap(max, |completion| users.push(completion.user));
        users
    };
    assert_eq!(users(&a, 2), [0, 1]);
    assert_eq!((a.in_flight(), b.in_flight()), (1, 5));
    drop(a);
    assert_eq!(users(&b, 99), [10, 11, 12, 13, 14]);
    let c = channel.queue(7).unwrap();
    c.submit(Request::flush().with_user(77)).unwrap();
    finish(&mut lockstep, &channel);
    assert_eq!((users(&c, 9), users(&b, 9)), (vec![77], vec![]));
    let capacity = setup::CAPACITY;
    let much = channel.queue(65_536).unwrap_err();
    assert_eq!(
        much.to_string(),
        format!(
            "a queue of depth 65536 does not fit on the channel of `nil`: {} of its {capacity} I/Os are free",
            capacity - 268,
        )
    );
}

#[test]
fn a_task_can_wait_for_its_queue() {
    let mut lockstep = setup::lockstep();
    let thread = lockstep.thread("t");
    let queue = open(&registry(), "nil")
        .get_channel(&thread)
        .unwrap()
        .queue(8)
        .unwrap();
    let done = lockstep.block_on(&thread, async move {
        let (mut sent, mut done) = (0, 0);
        while done < 100 {
            while sent < 100 && queue.submit(Request::flush().with_user(sent)).is_ok() {
                sent += 1;
            }
            queue.ready().await;
            queue.reap(usize::MAX, |completion| {
                assert_eq!(completion.user, done);
                done += 1;
            });
        }
        done
    });
    assert_eq!(done.unwrap(), 100);
}

#[test]
fn counters_add_up_over_threads() {
    let mut lockstep = setup::lockstep();
    let threads = [lockstep.thread("a"), lockstep.thread("b")];
    let registry = registry();
    let descriptor = open(&registry, "mem");
    for thread in &threads {
        let channel = descriptor.get_channel(thread).unwrap();
        let io = async move {
            channel.write(0, 4, filled(4, 1), false).await.0.unwrap();
            channel.read(0, 1, filled(1, 0)).await.0.unwrap();
            channel.flush().await.unwrap();
            let _ = channel.read(99, 1, filled(1, 0)).await;
        };
        lockstep.block_on(thread, io).unwrap();
    }
    let health = registry.health("mem").unwrap();
    assert_eq!(
        (health.of(Op::Write).ops, health.of(Op::Write).bytes),
        (2, 8 * BLOCK as u64)
    );
    assert_eq!(
        (health.of(Op::Read).ops, health.of(Op::Read).bytes),
        (2, 2 * BLOCK as u64)
    );
    assert_eq!(
        (health.of(Op::Flush).ops, health.errors()),
        (2, 0),
        "rejects never reach the device"
    );
    assert_eq!(descriptor.health(), health);
}

#[test]
fn one_thread_has_one_channel_per_device() {
    let mut lockstep = setup::lockstep();
    let thread = lockstep.thread("t");
    let descriptor = open(&registry(), "mem");
    let (a, b) = (
        descriptor.get_channel(&thread).unwrap(),
        descriptor.get_channel(&thread).unwrap(),
    );
    let queue = a.queue(1).unwrap();
    queue.submit(Request::flush()).unwrap();
    assert_eq!(b.in_flight(), 1);
    assert_eq!(thread.pollers().len(), 1);
    lockstep.settle();
    drop((a, b, queue));
    lockstep.settle();
    assert_eq!(thread.pollers().len(), 0);
}

#[test]
fn an_evicted_device_refuses_and_finishes_what_it_has() {
    let registry = registry();
    let descriptor = open(&registry, "mem");
    let mut lockstep = setup::lockstep();
    let thread = lockstep.thread("t");
    let channel = descriptor.get_channel(&thread).unwrap();
    let queue = channel.queue(4).unwrap();
    queue.submit(Request::write(0, 1, filled(1, 5))).unwrap();
    let woken = Arc::new(Woken::default());
    let waker = Arc::clone(&woken).into();
    let watch = channel.watch_end();
    assert!(!watch.is_over(Some(&waker)));
    registry.set_evicted("mem", true).unwrap();
    assert!(watch.is_over(None) && woken.0.load(Ordering::Relaxed));
    let refused = queue.submit(Request::read(0, 1, filled(1, 0))).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "read of 1 blocks at lba 0 rejected: the device was evicted or removed: `keel devices` says why"
    );
    assert!(refused.request.buf.is_some());
    let other = channel.clone();
    let read = lockstep.block_on(&thread, async move { other.flush().await });
    assert!(read.unwrap().unwrap_err().to_string().contains("evicted"));
    assert_eq!(queue.reap(4, |done| assert!(done.result.is_ok())), 1);
    assert_eq!(
        descriptor.get_channel(&thread).unwrap_err().to_string(),
        "block device `mem` was evicted or removed: `keel devices` says why"
    );
    registry.set_evicted("mem", false).unwrap();
    // Who had it open has to open it again.
    assert!(queue.submit(Request::read(0, 1, filled(1, 0))).is_err());
    assert!(channel.watch_end().is_over(None));
    let again = descriptor.get_channel(&thread).unwrap();
    let queue = again.queue(4).unwrap();
    queue.submit(Request::read(0, 1, filled(1, 0))).unwrap();
    assert!(!again.watch_end().is_over(None));
    assert!(registry.set_evicted("nobody", true).is_err());
}

#[test]
fn a_device_that_was_removed_comes_back_under_the_same_descriptor() {
    let registry = registry();
    let descriptor = open(&registry, "mem");
    let mut lockstep = setup::lockstep();
    let thread = lockstep.thread("t");
    let before = registry.get("mem").unwrap();
    let (uuid, geometry) = (before.uuid(), before.geometry());
    let gone = Arc::downgrade(&before);
    drop(before);
    let channel = descriptor.get_channel(&thread).unwrap();
    let again = |blocks| setup::device("mem", geometry.block_size, blocks);
    let in_use = registry.put_back(again(geometry.num_blocks)).unwrap_err();
    assert!(in_use.to_string().contains("is in use"), "{in_use}");
    registry.withdraw("mem").unwrap();
    // It is listed as it was, and nothing keeps it once its channels are closed.
    let listed = registry.get("mem").unwrap();
    assert_eq!((listed.uuid(), listed.geometry()), (uuid, geometry));
    assert_eq!(descriptor.bdev().driver(), setup::DRIVER);
    drop((channel, listed));
    lockstep.settle();
    assert!(gone.upgrade().is_none());
    let smaller = registry
        .put_back(again(geometry.num_blocks - 1))
        .unwrap_err();
    assert!(smaller.to_string().contains("blocks and had"), "{smaller}");
    registry.put_back(again(geometry.num_blocks)).unwrap();
    assert!(descriptor.get_channel(&thread).is_err(), "not let in yet");
    registry.set_evicted("mem", false).unwrap();
    let channel = descriptor.get_channel(&thread).unwrap();
    let flushed = lockstep.block_on(&thread, async move { channel.flush().await });
    flushed.unwrap().unwrap();
    assert_ne!(descriptor.bdev().uuid(), uuid, "it is the new one");
}
