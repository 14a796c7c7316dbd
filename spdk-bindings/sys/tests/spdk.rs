//! Against the installed SPDK, with memory in ordinary pages. SPDK starts once in a process, so each test needs a process of its own:
//! `cargo nextest run -p spdk_sys --features libspdk`.
//!
//! What went wrong in other bindings of SPDK, and which test watches over it here:
//!
//! | mistake | here |
//! |---|---|
//! | memory freed while SPDK owes a callback (openebs/spdk-rs#128); a dropped future leaves C with a dangling pointer (async-spdk, DataDog/glommio#52) | `a_channel_that_goes_with_io_out_leaves_the_buffers_until_it_is_back`, and with futures `provider.rs` of `spdk_provider` |
//! | a channel that can be copied and gives out its data twice (spdk-rs) | three that do not compile at `Channel` |
//! | buffers sent to other threads while a device writes them (spdk-rs, ironspdk) | a buffer is moved into its I/O, which does not compile otherwise (`Channel`); `DmaMemory` gives out no bytes |
//! | `Poller`, channel, thread declared `Send` (async-spdk), or their thread a duty of the caller (ironspdk, vroom) | one that does not compile at each |
//! | an unwrapped channel that SPDK refuses (openebs/spdk-rs#12) | `Channel::new` answers `None`; `a_channel_that_cannot_be_had_is_an_error` |
//! | a device that goes while its channels are walked (spdk/spdk#3763, #3840) | `a_device_that_goes_under_load_refuses_and_is_let_go_of`, `channels_of_several_threads_let_go_of_a_device` |
//! | a leaked reference, and a process that never ends and says nothing (spdk/spdk#1220) | `it_starts_once_at_a_time_and_again_with_the_same_options`: who is left is counted |
//! | a message to a thread that has exited aborts the process | `threads_end_while_others_send` |
//! | a panic through C | `a_panic_comes_out_of_the_turn_and_not_through_c` |
#![cfg(feature = "libspdk")]
#![allow(missing_docs, reason = "tests")]

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::mpsc;

use spdk_env::{DmaBuf, DmaPool, cpu};
use spdk_sys::{
    Bdev, Channel, DmaMemory, Event, Finished, Op, OpenError, Options, Poller, Refused, SendError,
    Spdk, StartError, Thread,
};

type Job = Box<dyn FnOnce() + Send>;

fn options(json: &str) -> Options {
    Options {
        memory_mib: 512,
        no_huge: true,
        json: json.to_owned(),
        ..Options::default()
    }
}

/// SPDK's JSON with these calls of the block layer.
fn bdevs(calls: &[(&str, serde_json::Value)]) -> String {
    let calls: Vec<_> = calls
        .iter()
        .map(|(method, params)| serde_json::json!({ "method": method, "params": params }))
        .collect();
    serde_json::json!({ "subsystems": [{ "subsystem": "bdev", "config": calls }] }).to_string()
}

fn malloc(blocks: u64) -> String {
    let params = serde_json::json!({ "name": "m", "num_blocks": blocks, "block_size": 4096 });
    bdevs(&[("bdev_malloc_create", params)])
}

fn spdk(json: &str) -> Spdk {
    Spdk::start(&options(json)).unwrap()
}

fn thread(spdk: &Spdk) -> Thread<Job> {
    Thread::create(spdk, "t", 64).unwrap().1.start()
}

fn open(spdk: &Spdk, name: &str) -> Bdev {
    Bdev::open(spdk, name, true, |_| ()).unwrap()
}

fn turn(thread: &Thread<Job>) {
    thread.poll(0, |job| job());
}

/// One I/O from beginning to end.
fn run(
    thread: &Thread<Job>,
    channel: &mut Channel,
    (op, fua): (Op, bool),
    (lba, blocks): (u64, u32),
    buf: Option<DmaBuf>,
) -> Finished {
    channel.submit(0, op, fua, lba, blocks, buf).unwrap();
    let mut finished = None;
    while finished.is_none() {
        turn(thread);
        channel.reap(|one| finished = Some(one));
    }
    finished.unwrap()
}

#[test]
fn it_starts_once_at_a_time_and_again_with_the_same_options() {
    let cpus = cpu::allowed().unwrap();
    let signals = caught_signals();
    let first = spdk(&malloc(64));
    assert_eq!(cpu::allowed().unwrap(), cpus, "the caller keeps its cores");
    assert_eq!(caught_signals(), signals, "no signal is taken");
    assert!(matches!(Spdk::start(&options("")), Err(StartError::Twice)));
    let other = first.clone();
    let held = first.stop().unwrap_err();
    assert_eq!(held.holders, 1);
    drop(other);
    held.spdk.stop().unwrap();
    let more = Options {
        memory_mib: 600,
        ..options("")
    };
    let error = Spdk::start(&more).unwrap_err().to_string();
    assert!(
        error.contains("ran in this process before, with 512 MiB in ordinary pages"),
        "{error}"
    );
    let again = spdk(&malloc(128));
    assert_eq!(Bdev::names(&again), ["m"]);
    assert_eq!(open(&again, "m").num_blocks(), 128);
    again
        .stop()
        .map_err(|held| held.holders)
        .unwrap_or_default();
}

/// SIGINT, SIGTERM, SIGUSR1, ... as a mask; without SIGSEGV and SIGBUS, which Rust's own run time watches.
fn caught_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = u64::from_str_radix(line.unwrap().trim(), 16).unwrap();
    mask & !(1 << 6 | 1 << 10)
}

#[test]
fn what_the_machine_does_not_have_is_said_with_the_cure() {
    let huge = Options {
        no_huge: false,
        memory_mib: 100_000_000,
        ..options("")
    };
    let error = Spdk::start(&huge).unwrap_err();
    assert!(matches!(error, StartError::HugePages { .. }), "{error}");
    assert!(error.to_string().contains("echo "), "{error}");
    let cores = Options {
        cores: vec![0, 900],
        ..options("")
    };
    let error = Spdk::start(&cores).unwrap_err().to_string();
    assert!(
        error.contains("the cores 900, which this machine does not have"),
        "{error}"
    );
    // Nothing was spoilt by either.
    drop(spdk(""));
}

#[test]
fn too_little_memory_is_an_error_and_no_second_start_hangs() {
    let little = Options {
        memory_mib: 64,
        ..options("")
    };
    let error = Spdk::start(&little).unwrap_err();
    assert!(error.to_string().contains("memory"), "{error}");
    let again = Spdk::start(&little).unwrap_err();
    assert!(matches!(again, StartError::Spoiled), "{again}");
}

#[test]
fn a_configuration_with_mistakes_says_which() {
    let error = Spdk::start(&options("{ \"subsystems\": [ ")).unwrap_err();
    assert!(matches!(error, StartError::Config { .. }), "{error}");
    assert!(error.to_string().contains("JSON"), "{error}");
    let unknown = bdevs(&[("bdev_malloc_make", serde_json::json!({}))]);
    let error = Spdk::start(&options(&unknown)).unwrap_err().to_string();
    assert!(error.contains("bdev_malloc_make"), "{error}");
    let wrong = bdevs(&[(
        "bdev_malloc_create",
        serde_json::json!({ "num_blocks": "x" }),
    )]);
    let error = Spdk::start(&options(&wrong)).unwrap_err();
    assert!(matches!(error, StartError::Config { .. }), "{error}");
    // And then a right one.
    assert_eq!(Bdev::names(&spdk(&malloc(8))), ["m"]);
}

#[test]
fn a_device_that_is_not_there_is_an_error_that_names_those_that_are() {
    let spdk = spdk(&malloc(8));
    let error = Bdev::open(&spdk, "n", true, |_| ()).unwrap_err();
    assert_eq!(error.to_string(), "SPDK has no block device `n`; it has m");
    assert!(matches!(error, OpenError::NotFound { .. }));
}

#[test]
fn what_is_written_is_read() {
    let spdk = spdk(&malloc(64));
    let (thread, bdev) = (thread(&spdk), open(&spdk, "m"));
    let facts = bdev.facts().clone();
    assert_eq!((facts.block_size, facts.num_blocks), (4096, 64));
    assert_eq!(facts.module, "malloc");
    let mut channel = Channel::new(&bdev, &thread, 4).unwrap();
    let mut buf = DmaBuf::alloc(8192).unwrap();
    buf.as_mut_slice().fill(0x5a);
    let done = run(&thread, &mut channel, (Op::Write, true), (62, 2), Some(buf));
    assert_eq!((done.errno, done.buf.as_ref().unwrap().len()), (0, 8192));
    let mut buf = done.buf.unwrap();
    buf.as_mut_slice().fill(0);
    let done = run(&thread, &mut channel, (Op::Read, false), (62, 2), Some(buf));
    assert!(
        done.buf
            .unwrap()
            .as_slice()
            .iter()
            .all(|byte| *byte == 0x5a)
    );
    for op in [Op::Flush, Op::Unmap, Op::WriteZeroes] {
        let done = run(&thread, &mut channel, (op, false), (62, 1), None);
        assert_eq!(done.errno, 0, "{op:?}");
    }
    let buf = DmaBuf::alloc(4096).unwrap();
    let done = run(&thread, &mut channel, (Op::Read, false), (62, 1), Some(buf));
    assert!(done.buf.unwrap().as_slice().iter().all(|byte| *byte == 0));
}

#[test]
fn bad_requests_come_back_with_their_buffer() {
    let spdk = spdk(&malloc(64));
    let (thread, bdev) = (thread(&spdk), open(&spdk, "m"));
    let mut channel = Channel::new(&bdev, &thread, 2).unwrap();
    let mut why = |tag, op, lba, blocks, len: usize| {
        let buf = (len > 0).then(|| DmaBuf::alloc(len).unwrap());
        let refused = channel.submit(tag, op, false, lba, blocks, buf);
        let (why, buf) = refused.unwrap_err();
        assert_eq!(buf.map_or(0, |buf| buf.len()), len);
        why
    };
    assert_eq!(why(0, Op::Read, 0, 2, 4096), Refused::Buffer);
    assert_eq!(why(0, Op::Write, 0, 1, 0), Refused::Buffer);
    assert_eq!(why(2, Op::Read, 0, 1, 4096), Refused::Tag);
    assert_eq!(why(0, Op::Read, 64, 1, 4096), Refused::Errno(22));
    assert_eq!(why(0, Op::Read, u64::MAX, 1, 4096), Refused::Errno(22));
    channel
        .submit(0, Op::Read, false, 0, 1, Some(DmaBuf::alloc(4096).unwrap()))
        .unwrap();
    let (why, _) = channel
        .submit(0, Op::Read, false, 0, 1, Some(DmaBuf::alloc(4096).unwrap()))
        .unwrap_err();
    assert_eq!(why, Refused::Tag, "it is out");
}

/// async-spdk, glommio#52: a buffer that goes while the device writes it.
#[test]
fn a_channel_that_goes_with_io_out_leaves_the_buffers_until_it_is_back() {
    let delay = serde_json::json!({ "name": "d", "base_bdev_name": "m", "avg_read_latency": 20_000,
        "p99_read_latency": 20_000, "avg_write_latency": 20_000, "p99_write_latency": 20_000 });
    let memory = serde_json::json!({ "name": "m", "num_blocks": 64, "block_size": 4096 });
    let spdk = spdk(&bdevs(&[
        ("bdev_malloc_create", memory),
        ("bdev_delay_create", delay),
    ]));
    let (thread, bdev) = (thread(&spdk), open(&spdk, "d"));
    let pool = DmaPool::new(4096, 8).unwrap();
    let mut channel = Channel::new(&bdev, &thread, 8).unwrap();
    for tag in 0..8 {
        let buf = pool.get();
        channel
            .submit(tag, Op::Read, false, u64::from(tag), 1, buf)
            .unwrap();
    }
    drop((channel, bdev));
    assert_eq!(pool.available(), 0, "SPDK has them");
    while pool.available() < 8 {
        turn(&thread);
    }
    // The thread, the device and SPDK were held by the I/O, and are not any more.
    assert_eq!(thread.holders(), 1);
    drop(thread);
    spdk.stop().map_err(|held| held.holders).unwrap();
}

#[test]
fn a_device_that_goes_under_load_refuses_and_is_let_go_of() {
    let spdk = spdk(&malloc(64));
    let (tell, told) = mpsc::channel();
    let bdev = Bdev::open(&spdk, "m", true, move |event| tell.send(event).unwrap()).unwrap();
    let thread = thread(&spdk);
    let mut channel = Channel::new(&bdev, &thread, 32).unwrap();
    let deleting = {
        let spdk = spdk.clone();
        let delete = bdevs(&[("bdev_malloc_delete", serde_json::json!({ "name": "m" }))]);
        std::thread::spawn(move || spdk.load(&delete).map_err(|error| error.to_string()))
    };
    let mut free: Vec<(u32, DmaBuf)> = (0..32)
        .map(|tag| (tag, DmaBuf::alloc(4096).unwrap()))
        .collect();
    let mut done = 0_u64;
    let kept = loop {
        if let Some((tag, buf)) = free.pop() {
            match channel.submit(tag, Op::Write, false, u64::from(tag), 1, Some(buf)) {
                Ok(()) => continue,
                Err((Refused::Removed, buf)) => break buf,
                Err((why, _)) => panic!("{why}"),
            }
        }
        turn(&thread);
        channel.reap(|one| {
            done += 1;
            free.push((one.tag, one.buf.unwrap()));
        });
    };
    assert!(kept.is_some(), "the buffer of what was refused");
    assert_eq!(told.recv().unwrap(), Event::Removed);
    assert!(bdev.is_removed() && channel.is_removed());
    while channel.outstanding() > 0 {
        turn(&thread);
        channel.reap(drop);
    }
    drop((channel, bdev));
    while !deleting.is_finished() {
        turn(&thread);
    }
    assert_eq!(deleting.join().unwrap(), Ok(()));
    assert!(Bdev::names(&spdk).is_empty());
}

/// Each lets go of its channel on its own thread, while the others do I/O; SPDK walks them meanwhile.
#[test]
fn channels_of_several_threads_let_go_of_a_device() {
    let spdk = spdk(&malloc(64));
    let bdev = open(&spdk, "m");
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let (spdk, bdev) = (spdk.clone(), bdev.clone());
            std::thread::spawn(move || {
                let thread = thread(&spdk);
                let mut channel = Channel::new(&bdev, &thread, 1).unwrap();
                drop(bdev);
                let mut buf = Some(DmaBuf::alloc(4096).unwrap());
                let mut done = 0_u64;
                loop {
                    match channel.submit(0, Op::Write, false, 0, 1, buf.take()) {
                        Ok(()) => {}
                        Err((Refused::Removed, _)) => return done,
                        Err((why, _)) => panic!("{why}"),
                    }
                    while channel.outstanding() > 0 {
                        turn(&thread);
                        channel.reap(|one| {
                            done += 1;
                            buf = one.buf;
                        });
                    }
                }
            })
        })
        .collect();
    drop(bdev);
    let delete = bdevs(&[("bdev_malloc_delete", serde_json::json!({ "name": "m" }))]);
    spdk.load(&delete).unwrap();
    for worker in workers {
        worker.join().unwrap();
    }
    assert!(Bdev::names(&spdk).is_empty());
    spdk.stop().map_err(|held| held.holders).unwrap();
}

/// No memory; that a device is to go is refused the same way.
#[test]
fn a_channel_that_cannot_be_had_is_an_error() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let spdk = spdk(&malloc(64));
    let (thread, bdev) = (thread(&spdk), open(&spdk, "m"));
    let before = getrlimit(Resource::As);
    let none = Rlimit {
        current: Some(0),
        ..before
    };
    setrlimit(Resource::As, none).unwrap();
    let refused = Channel::new(&bdev, &thread, 1 << 24);
    setrlimit(Resource::As, before).unwrap();
    assert!(refused.is_none());
    assert_eq!(thread.holders(), 1);
    let delete = bdevs(&[("bdev_malloc_delete", serde_json::json!({ "name": "m" }))]);
    let deleting = {
        let spdk = spdk.clone();
        std::thread::spawn(move || spdk.load(&delete).map_err(|error| error.to_string()))
    };
    while !bdev.is_removed() {
        turn(&thread);
    }
    assert!(Channel::new(&bdev, &thread, 4).is_none());
    drop(bdev);
    assert_eq!(deleting.join().unwrap(), Ok(()));
}

#[test]
fn a_device_that_grows_says_so() {
    let null = serde_json::json!({ "name": "n", "num_blocks": 1024, "block_size": 4096 });
    let spdk = spdk(&bdevs(&[("bdev_null_create", null)]));
    let (tell, told) = mpsc::channel();
    let bdev = Bdev::open(&spdk, "n", true, move |event| tell.send(event).unwrap()).unwrap();
    let grow = serde_json::json!({ "name": "n", "new_size": 8 });
    spdk.load(&bdevs(&[("bdev_null_resize", grow)])).unwrap();
    assert_eq!(told.recv().unwrap(), Event::Resized(2048));
    assert_eq!((bdev.num_blocks(), bdev.facts().num_blocks), (2048, 1024));
}

#[test]
fn messages_of_one_sender_keep_their_order_and_the_bound_holds() {
    let spdk = spdk("");
    let (address, seed) = Thread::<(u8, u32)>::create(&spdk, "t", 32).unwrap();
    for number in 0..32 {
        address.send((0, number)).unwrap();
    }
    assert_eq!(address.send((9, 9)), Err(SendError::Full((9, 9))));
    let thread = seed.start();
    let senders: Vec<_> = (1..=2)
        .map(|who| {
            let address = address.clone();
            std::thread::spawn(move || {
                for number in 0..20_000 {
                    while address.send((who, number)).is_err() {
                        std::thread::yield_now();
                    }
                }
            })
        })
        .collect();
    let mut next = [0_u32; 3];
    let mut count = 0;
    while count < 40_032 {
        let turn = thread.poll(0, |(who, number)| {
            assert_eq!(number, next[usize::from(who)]);
            next[usize::from(who)] += 1;
        });
        assert!(turn.messages <= 8, "SPDK's batch");
        count += turn.messages;
    }
    senders
        .into_iter()
        .for_each(|sender| sender.join().unwrap());
    // Accepted and never run: dropped with the thread.
    let (held, seen) = (std::sync::Arc::new(()), Cell::new(0));
    let (address, seed) = Thread::<std::sync::Arc<()>>::create(&spdk, "u", 4).unwrap();
    address.send(held.clone()).unwrap();
    let other = seed.start();
    other.poll(0, |_| seen.set(seen.get() + 1));
    address.send(held.clone()).unwrap();
    drop(other);
    assert_eq!((seen.get(), std::sync::Arc::strong_count(&held)), (1, 1));
    assert!(matches!(address.send(held), Err(SendError::Gone(_))));
}

/// SPDK aborts the process on a send to an exited thread: ours must be refused, whenever it comes.
#[test]
fn threads_end_while_others_send() {
    let spdk = spdk("");
    for _ in 0..200 {
        let (address, seed) = Thread::<u32>::create(&spdk, "t", 16).unwrap();
        let sender = std::thread::spawn(move || {
            loop {
                if matches!(address.send(1), Err(SendError::Gone(_))) {
                    return;
                }
            }
        });
        let thread = seed.start();
        for _ in 0..50 {
            thread.poll(0, |_| ());
        }
        drop(thread);
        sender.join().unwrap();
    }
}

#[test]
fn a_poller_may_end_itself_and_its_function_goes_once() {
    let spdk = spdk("");
    let thread = thread(&spdk);
    let held = Rc::new(());
    let slot = Rc::new(RefCell::new(None));
    let (own, in_it) = (slot.clone(), held.clone());
    let poller = Poller::register(&thread, "p", 0, move || {
        let _held = &in_it;
        own.borrow_mut().take();
        true
    });
    *slot.borrow_mut() = poller;
    assert_eq!(Rc::strong_count(&held), 2);
    assert!(thread.poll(0, |job| job()).busy);
    assert_eq!(Rc::strong_count(&held), 1);
    turn(&thread);
    assert!(!thread.has_active_pollers());

    let calls = Rc::new(Cell::new(0));
    let counted = calls.clone();
    let poller = Poller::register(&thread, "q", 0, move || {
        counted.set(counted.get() + 1);
        false
    })
    .unwrap();
    turn(&thread);
    poller.pause();
    turn(&thread);
    let paused = calls.get();
    turn(&thread);
    assert_eq!(calls.get(), paused);
    poller.resume();
    turn(&thread);
    turn(&thread);
    assert!(calls.get() > paused);
    drop(poller);
    let last = calls.get();
    turn(&thread);
    assert_eq!((calls.get(), Rc::strong_count(&calls)), (last, 1));
}

#[test]
fn a_timed_poller_is_announced_and_comes() {
    let spdk = spdk("");
    let thread = thread(&spdk);
    assert_eq!(thread.next_deadline_in(), None);
    let came = Rc::new(Cell::new(false));
    let own = came.clone();
    let _poller = Poller::register(&thread, "p", 2000, move || {
        own.set(true);
        true
    });
    assert!(thread.next_deadline_in().is_some_and(|ns| ns <= 2_000_000));
    while !came.get() {
        turn(&thread);
    }
}

#[test]
fn a_panic_comes_out_of_the_turn_and_not_through_c() {
    let spdk = spdk("");
    let thread = thread(&spdk);
    let poller = Poller::register(&thread, "p", 0, || panic!("poller")).unwrap();
    let address = thread.address();
    let ran = Rc::new(Cell::new(0));
    assert!(address.send(Box::new(|| panic!("message"))).is_ok());
    let panicked = |thread: &Thread<Job>| {
        let caught = catch_unwind(AssertUnwindSafe(|| turn(thread)));
        *caught.unwrap_err().downcast::<&str>().unwrap()
    };
    // The first of a turn comes out.
    assert_eq!(panicked(&thread), "message");
    assert_eq!(panicked(&thread), "poller");
    drop(poller);
    let own = ran.clone();
    let _next = Poller::register(&thread, "q", 0, move || {
        own.set(own.get() + 1);
        false
    });
    turn(&thread);
    turn(&thread);
    assert!(ran.get() > 0, "the thread lives on");
}

#[test]
fn memory_is_zeroed_aligned_and_holds_spdk() {
    let spdk = spdk("");
    let memory = DmaMemory::zeroed(&spdk, 1 << 20, 4096, None).unwrap();
    assert_eq!(
        (memory.len(), memory.as_ptr().addr().get() % 4096),
        (1 << 20, 0)
    );
    let held = spdk.stop().unwrap_err();
    assert_eq!(held.holders, 1);
    assert!(DmaMemory::zeroed(&held.spdk, 1 << 40, 4096, None).is_none());
    drop(memory);
    held.spdk.stop().map_err(|held| held.holders).unwrap();
}
