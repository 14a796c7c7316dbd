//! The end of a thread: what holds it is named, and nothing that was accepted is lost.
use rustix::event::{EventfdFlags, eventfd};
use spdk_thread::{
    ChannelError, FdChange, FdWatch, Interest, IoDevice, Period, PollResult, SendError, SpawnError,
    Thread, sleep,
};
use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::setup;

#[test]
fn everything_that_holds_a_thread_is_named() {
    let mut lockstep = setup::lockstep();
    let thread = lockstep.thread("a");
    let device = IoDevice::new("disk0", |_: &Thread| Ok::<_, std::io::Error>(()));
    let poller = thread.register_poller("heartbeat", Period::Nanos(5), |_| PollResult::Idle);
    let channel = thread.get_io_channel(&device).expect("a channel");
    let second = channel.clone();
    let fd = eventfd(0, EventfdFlags::empty()).expect("eventfd");
    let watch = thread.watch_fd(Rc::new(fd), Interest::READABLE);
    let task = thread.spawn("nap", sleep(3_000_000)).expect("room");
    lockstep.step();
    lockstep.advance(2_000_000);
    thread.request_exit();
    lockstep.step();
    assert!(!thread.is_exited() && !thread.is_running());
    thread
        .handle()
        .send(|_| {})
        .expect("still takes messages: holders may need them");
    let holders = thread.holders();
    let number = holders[3]
        .strip_prefix("watch of descriptor ")
        .and_then(|fd| fd.parse::<u32>().ok());
    assert!(number.is_some(), "{holders:?}");
    let others: Vec<&str> = holders
        .iter()
        .map(String::as_str)
        .filter(|line| !line.starts_with("watch"))
        .collect();
    let expected = [
        "poller heartbeat",
        "task nap (age 2 ms, waits for sleep)",
        "io channel of disk0 (2 references)",
        "1 message in the mailbox",
    ];
    assert_eq!(others, expected);
    assert_eq!(
        thread.spawn("late", async {}).err(),
        Some(SpawnError::Exiting)
    );
    let other = IoDevice::new("disk1", |_: &Thread| Ok::<_, std::io::Error>(()));
    assert!(
        matches!(thread.get_io_channel(&other), Err(ChannelError::Exiting { device }) if device == "disk1")
    );
    drop((poller, channel, second, watch));
    task.abort();
    lockstep.step();
    assert!(thread.is_exited(), "{:?}", thread.holders());
    assert_eq!(thread.handle().send(|_| {}), Err(SendError::Exited));
    assert_eq!(device.channels(), 0);
    assert!(!lockstep.step(), "an exited thread does nothing");
}

#[test]
fn a_message_that_arrives_with_the_exit_runs_and_may_hold_the_thread_again() {
    let mut lockstep = setup::lockstep();
    let thread = lockstep.thread("a");
    thread_local!(static KEPT: RefCell<Option<spdk_thread::Poller>> = const { RefCell::new(None) });
    thread.request_exit();
    thread
        .handle()
        .send(|thread| {
            let poller = thread.register_poller("late", Period::EveryTurn, |_| PollResult::Idle);
            KEPT.with(|kept| *kept.borrow_mut() = Some(poller));
        })
        .expect("not exited yet");
    lockstep.step();
    assert!(!thread.is_exited());
    assert_eq!(thread.holders(), ["poller late"]);
    drop(KEPT.take());
    lockstep.step();
    assert!(thread.is_exited());
}

#[test]
fn a_channel_is_shared_on_its_thread_and_destroyed_when_nobody_refers_to_it() {
    static MADE: AtomicU32 = AtomicU32::new(0);
    struct Queue(u32, Arc<AtomicU32>);
    impl Drop for Queue {
        fn drop(&mut self) {
            self.1.fetch_add(1, Ordering::Relaxed);
        }
    }
    let mut lockstep = setup::lockstep();
    let (a, b) = (lockstep.thread("a"), lockstep.thread("b"));
    let dropped = Arc::new(AtomicU32::new(0));
    let counter = dropped.clone();
    let device = IoDevice::new("disk", move |_: &Thread| {
        Ok::<_, std::io::Error>(Queue(MADE.fetch_add(1, Ordering::Relaxed), counter.clone()))
    });
    let first = a.get_io_channel(&device).expect("a channel");
    let again = a.get_io_channel(&device).expect("the same");
    let other = b.get_io_channel(&device).expect("another");
    assert_eq!((first.0, again.0, other.0, device.channels()), (0, 0, 1, 2));
    drop((first, again));
    assert_eq!(
        dropped.load(Ordering::Relaxed),
        0,
        "destroyed in a turn, not in the drop"
    );
    let revived = a.get_io_channel(&device).expect("the same, revived");
    lockstep.step();
    assert_eq!((revived.0, dropped.load(Ordering::Relaxed)), (0, 0));
    drop(revived);
    assert!(a.has_ready_work());
    lockstep.step();
    assert_eq!((dropped.load(Ordering::Relaxed), device.channels()), (1, 1));
    device.close();
    assert!(matches!(
        a.get_io_channel(&device),
        Err(ChannelError::Closed { .. })
    ));
    assert_eq!(b.get_io_channel(&device).expect("exists already").0, 1);
    drop(other);
}

#[test]
fn a_constructor_that_fails_is_passed_on() {
    let mut lockstep = setup::lockstep();
    let thread = lockstep.thread("a");
    let device = IoDevice::<()>::new("disk", |_: &Thread| Err("no queue pair left"));
    let error = thread.get_io_channel(&device).expect_err("fails");
    assert_eq!(error.to_string(), "no channel of disk: no queue pair left");
    assert_eq!(device.channels(), 0);
}

/// What the reactor would do to epoll.
fn changes(thread: &Thread) -> Vec<(u32, Interest, bool)> {
    let mut all = Vec::new();
    thread.drain_fd_changes(
        |FdChange {
             id,
             interest,
             closed,
             ..
         }| all.push((id, interest, closed)),
    );
    all
}

/// A watch of both directions, and what epoll knows it by.
fn watched(thread: &Thread, fd: Rc<OwnedFd>) -> (FdWatch, u32) {
    // What the thread watches by itself.
    let _ = changes(thread);
    let watch = thread.watch_fd(fd, Interest::BOTH);
    let [(id, Interest::READABLE, false)] = changes(thread)[..] else {
        panic!("writing only when somebody asks");
    };
    (watch, id)
}

#[test]
fn watches_are_armed_on_demand_and_quiet_when_nobody_takes() {
    let mut lockstep = setup::lockstep();
    let thread = lockstep.thread("a");
    let fd = Rc::new(eventfd(0, EventfdFlags::empty()).expect("eventfd"));
    let (watch, id) = watched(&thread, fd);
    assert!(!watch.take_readable());
    thread.fd_ready(id, Interest::READABLE);
    assert!(watch.take_readable() && !watch.take_readable());
    assert_eq!(changes(&thread), [], "the common case costs no system call");
    thread.fd_ready(id, Interest::READABLE);
    thread.fd_ready(id, Interest::READABLE);
    assert_eq!(
        changes(&thread),
        [(id, Interest::NONE, false)],
        "nobody takes: quiet"
    );
    assert!(watch.take_readable());
    assert_eq!(
        changes(&thread),
        [(id, Interest::READABLE, false)],
        "taken: heard again"
    );
    assert!(!watch.take_writable());
    assert_eq!(changes(&thread), [(id, Interest::BOTH, false)]);
    thread.fd_ready(id, Interest::WRITABLE);
    assert_eq!(changes(&thread), [(id, Interest::READABLE, false)]);
    assert!(watch.take_writable());
    assert_eq!(changes(&thread), []);
    drop(watch);
    assert_eq!(changes(&thread), [(id, Interest::NONE, true)]);
}

#[test]
fn tasks_wait_for_descriptors() {
    let mut lockstep = setup::lockstep();
    let thread = lockstep.thread("a");
    let fd = Rc::new(eventfd(0, EventfdFlags::empty()).expect("eventfd"));
    let (watch, id) = watched(&thread, fd);
    let watch = Rc::new(watch);
    let seen = Rc::new(Cell::new(0));
    for writable in [false, true] {
        let (watch, seen) = (watch.clone(), seen.clone());
        let wait = async move {
            if writable {
                watch.writable().await
            } else {
                watch.readable().await
            }
            seen.set(seen.get() + 1);
        };
        thread.spawn("waits", wait).expect("room").detach();
    }
    lockstep.settle();
    let waits: Vec<_> = thread.tasks().iter().map(|task| task.waits_for).collect();
    assert_eq!(waits, ["a readable descriptor", "a writable descriptor"]);
    thread.fd_ready(id, Interest::WRITABLE);
    lockstep.settle();
    assert_eq!(seen.get(), 1);
    thread.fd_ready(id, Interest::BOTH);
    lockstep.settle();
    assert_eq!(seen.get(), 2);
}
