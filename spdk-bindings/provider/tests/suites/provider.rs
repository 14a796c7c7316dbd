//! Our reactors, threads and block layer over C SPDK.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use spdk_bdev::testing::{Oracle, drive};
use spdk_bdev::{Descriptor, Mode, Registry};
use spdk_env::{DmaBuf, DmaPool, cpu};
use spdk_provider::{Options, Spdk, SpdkBdev, SpdkThreads};
use spdk_reactor::{ReactorHandle, ReactorOptions, ReactorSet};
use spdk_thread::{Period, PollResult, SendError, Thread, ThreadHandle, ThreadOptions, sleep};

const DEADLINE: Duration = Duration::from_secs(20);
/// In nanoseconds.
const MS: u64 = 1_000_000;

fn spdk(calls: &[(&str, serde_json::Value)]) -> Spdk {
    let options = Options {
        memory_mib: 512,
        no_huge: true,
        interrupt_mode: crate::INTERRUPT_MODE,
        json: json(calls),
        ..Options::default()
    };
    Spdk::start(&options).unwrap()
}

fn json(calls: &[(&str, serde_json::Value)]) -> String {
    let calls: Vec<_> = calls
        .iter()
        .map(|(method, params)| serde_json::json!({ "method": method, "params": params }))
        .collect();
    serde_json::json!({ "subsystems": [{ "subsystem": "bdev", "config": calls }] }).to_string()
}

fn malloc() -> (&'static str, serde_json::Value) {
    let params = serde_json::json!({ "name": "m", "num_blocks": 1024, "block_size": 4096 });
    ("bdev_malloc_create", params)
}

fn reactors(idle_latency_us: u64) -> ReactorSet {
    let cpus = cpu::allowed().unwrap();
    let options = ReactorOptions {
        cpus: vec![cpus[0], *cpus.last().unwrap()],
        idle_latency_us,
        pin: false,
        ..ReactorOptions::default()
    };
    ReactorSet::start(&options).unwrap()
}

fn options(spdk: &Spdk) -> ThreadOptions {
    ThreadOptions {
        provider: Some(SpdkThreads::new(spdk)),
        ..ThreadOptions::default()
    }
}

fn spawn(
    reactor: &ReactorHandle,
    spdk: &Spdk,
    init: impl FnOnce(&Thread) + Send + 'static,
) -> ThreadHandle {
    reactor.spawn_thread("t", options(spdk), init).unwrap()
}

fn stop(mut set: ReactorSet, spdk: Spdk) {
    set.shutdown(DEADLINE).unwrap();
    drop(set);
    spdk.stop().map_err(|held| held.holders).unwrap();
}

/// Messages, tasks, sleeps, pollers of both kinds, at rest and awake: what a thread does it does over SPDK, and then it ends.
#[test]
fn a_thread_lives_over_spdk() {
    for idle_latency_us in [0, 50] {
        let spdk = spdk(&[]);
        let set = reactors(idle_latency_us);
        let (tell, told) = mpsc::channel();
        let thread = spawn(&set.reactors()[0], &spdk, move |thread| {
            assert!(thread.carrier().is_some());
            let timed: Rc<RefCell<Option<spdk_thread::Poller>>> = Rc::default();
            let (own, say) = (timed.clone(), tell.clone());
            let poller = thread.register_poller("timed", Period::Nanos(1_000_000), move |_| {
                say.send("timed").unwrap();
                own.borrow_mut().take();
                PollResult::Busy
            });
            *timed.borrow_mut() = Some(poller);
            let say = tell.clone();
            let task = thread.spawn("task", async move {
                sleep(MS).await;
                say.send("slept").unwrap();
            });
            task.unwrap().detach();
            let say = tell.clone();
            let bad = thread.register_poller("bad", Period::EveryTurn, move |_| {
                say.send("bad").unwrap();
                panic!("contained")
            });
            let task = thread.spawn("hold", async move {
                sleep(5 * MS).await;
                assert!(!bad.is_registered());
            });
            task.unwrap().detach();
        });
        let mut said: Vec<_> = (0..3)
            .map(|_| told.recv_timeout(DEADLINE).unwrap())
            .collect();
        said.sort_unstable();
        assert_eq!(said, ["bad", "slept", "timed"]);
        let (reply, answer) = mpsc::channel();
        for number in 0..1000 {
            let reply = reply.clone();
            while thread.send({
                let reply = reply.clone();
                move |_| reply.send(number).unwrap()
            }) == Err(SendError::Full)
            {
                std::thread::yield_now();
            }
        }
        let got: Vec<i32> = (0..1000)
            .map(|_| answer.recv_timeout(DEADLINE).unwrap())
            .collect();
        assert_eq!(got, (0..1000).collect::<Vec<_>>());
        assert!(told.try_recv().is_err(), "each came once");
        stop(set, spdk);
        assert_eq!(thread.send(|_| ()), Err(SendError::Exited));
    }
}

#[test]
fn pollers_pause_and_change_their_period() {
    let spdk = spdk(&[]);
    let set = reactors(0);
    let (tell, told) = mpsc::channel();
    spawn(&set.reactors()[0], &spdk, move |thread| {
        let count = Rc::new(std::cell::Cell::new(0));
        let own = count.clone();
        let poller = thread.register_poller("p", Period::EveryTurn, move |_| {
            own.set(own.get() + 1);
            PollResult::Idle
        });
        let task = thread.spawn("watch", async move {
            sleep(MS).await;
            let running = count.get();
            poller.pause();
            sleep(MS).await;
            let paused = count.get();
            sleep(5 * MS).await;
            let still = count.get();
            poller.resume();
            sleep(MS).await;
            let resumed = count.get();
            poller.set_period(Period::Nanos(3_600_000_000_000));
            sleep(MS).await;
            let hourly = count.get();
            sleep(5 * MS).await;
            tell.send([
                running > 0,
                paused == still,
                resumed > still,
                hourly == count.get(),
            ])
            .unwrap();
        });
        task.unwrap().detach();
    });
    assert_eq!(told.recv_timeout(DEADLINE).unwrap(), [true; 4]);
    stop(set, spdk);
}

fn device(spdk: &Spdk, name: &str) -> Descriptor {
    let registry = Registry::new();
    let bdev = SpdkBdev::open(spdk, "d", name, |_| ()).unwrap();
    registry.register(std::sync::Arc::new(bdev)).unwrap();
    registry.open("d", Mode::ReadWrite, "test").unwrap()
}

#[test]
fn what_one_thread_writes_another_reads() {
    let spdk = spdk(&[malloc()]);
    let set = reactors(50);
    let descriptor = device(&spdk, "m");
    let (tell, told) = mpsc::channel();
    for (place, reactor) in [0_u64, 1].into_iter().zip(set.reactors()) {
        let (descriptor, tell) = (descriptor.clone(), tell.clone());
        spawn(reactor, &spdk, move |thread| {
            let channel = descriptor.get_channel(thread).unwrap();
            let task = thread.spawn("io", async move {
                for lba in (place..512).step_by(2) {
                    let mut buf = DmaBuf::alloc(4096).unwrap();
                    buf.as_mut_slice().fill(lba as u8);
                    let (result, buf) = channel.write(lba, 1, buf, lba % 3 == 0).await;
                    assert!(result.is_ok() && buf.len() == 4096);
                }
                channel.flush().await.unwrap();
                tell.send(place).unwrap();
            });
            task.unwrap().detach();
        });
    }
    let mut done = [
        told.recv_timeout(DEADLINE).unwrap(),
        told.recv_timeout(DEADLINE).unwrap(),
    ];
    done.sort_unstable();
    assert_eq!(done, [0, 1]);
    let (tell, told) = mpsc::channel();
    let own = descriptor.clone();
    spawn(&set.reactors()[1], &spdk, move |thread| {
        let channel = own.get_channel(thread).unwrap();
        let task = thread.spawn("read", async move {
            let mut good = 0;
            for lba in 0..512 {
                let (result, buf) = channel.read(lba, 1, DmaBuf::alloc(4096).unwrap()).await;
                let same = buf.as_slice().iter().all(|byte| *byte == lba as u8);
                good += u32::from(result.is_ok() && same);
            }
            tell.send(good).unwrap();
        });
        task.unwrap().detach();
    });
    assert_eq!(told.recv_timeout(DEADLINE).unwrap(), 512);
    drop(descriptor);
    stop(set, spdk);
}

/// The block layer's own oracle, which every native device passes, over modules of SPDK's.
#[test]
fn devices_hold_what_was_written_to_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, vec![0; 1 << 20]).unwrap();
        path.display().to_string()
    };
    let path = file("aio");
    let aio = serde_json::json!({ "name": "a", "filename": path, "block_size": 4096 });
    let path = file("uring");
    let uring = serde_json::json!({ "name": "u", "filename": path, "block_size": 4096 });
    let spdk = spdk(&[
        malloc(),
        ("bdev_aio_create", aio),
        ("bdev_uring_create", uring),
    ]);
    let thread = Thread::new("t", options(&spdk));
    for (name, module) in [("m", "malloc"), ("a", "aio"), ("u", "uring")] {
        let bdev = SpdkBdev::open(&spdk, name, name, |_| ()).unwrap();
        assert_eq!(bdev.module(), module);
        let registry = Registry::new();
        registry.register(std::sync::Arc::new(bdev)).unwrap();
        let descriptor = registry.open(name, Mode::ReadWrite, "test").unwrap();
        let channel = descriptor.get_channel(&thread).unwrap();
        drive(&thread, async move {
            let mut oracle = Oracle::new(&channel, 0x5eed).await;
            oracle.run(2000).await;
            oracle.verify().await;
        });
    }
}

/// As an engine does that is restarted in its process: everything goes, and everything comes again.
#[test]
fn reactors_and_devices_start_again_in_the_same_process() {
    for round in 0..3_u8 {
        let spdk = spdk(&[malloc()]);
        let set = reactors(50);
        let descriptor = device(&spdk, "m");
        let (tell, told) = mpsc::channel();
        let own = descriptor.clone();
        spawn(&set.reactors()[0], &spdk, move |thread| {
            let channel = own.get_channel(thread).unwrap();
            let task = thread.spawn("io", async move {
                let mut buf = DmaBuf::alloc(4096).unwrap();
                buf.as_mut_slice().fill(round + 1);
                channel.write(7, 1, buf, false).await.0.unwrap();
                let (result, buf) = channel.read(7, 1, DmaBuf::alloc(4096).unwrap()).await;
                result.unwrap();
                tell.send(buf.as_slice()[4095]).unwrap();
            });
            task.unwrap().detach();
        });
        assert_eq!(told.recv_timeout(DEADLINE).unwrap(), round + 1);
        drop(descriptor);
        stop(set, spdk);
    }
}

#[test]
fn a_thread_of_the_native_provider_is_refused() {
    let spdk = spdk(&[malloc()]);
    let descriptor = device(&spdk, "m");
    let thread = Thread::new("native", ThreadOptions::default());
    let error = descriptor.get_channel(&thread).unwrap_err().to_string();
    assert!(error.contains("none of SPDK's"), "{error}");
}

#[test]
fn a_dropped_future_detaches_and_a_device_that_goes_fails_its_io() {
    let delay = serde_json::json!({ "name": "slow", "base_bdev_name": "m", "avg_read_latency": 1_000_000,
        "p99_read_latency": 1_000_000, "avg_write_latency": 1_000_000, "p99_write_latency": 1_000_000 });
    let spdk = spdk(&[malloc(), ("bdev_delay_create", delay)]);
    let set = reactors(50);
    let descriptor = device(&spdk, "slow");
    let pool = DmaPool::new(4096, 4).unwrap();
    let (tell, told) = mpsc::channel();
    let (own, buffers) = (descriptor.clone(), pool.clone());
    spawn(&set.reactors()[0], &spdk, move |thread| {
        let channel = own.get_channel(thread).unwrap();
        let task = thread.spawn("io", async move {
            for lba in 0..4 {
                let read = channel.read(lba, 1, buffers.get().unwrap());
                assert!(spdk_thread::timeout(MS / 10, read).await.is_err());
            }
            let out = (channel.in_flight(), buffers.available());
            while buffers.available() < 4 {
                sleep(MS).await;
            }
            tell.send((out, 0)).unwrap();
            // Until the device goes.
            loop {
                let (result, _) = channel
                    .write(0, 1, DmaBuf::alloc(4096).unwrap(), false)
                    .await;
                if let Err(error) = result {
                    tell.send(((0, 0), error.errno().unwrap_or(0))).unwrap();
                    return;
                }
            }
        });
        task.unwrap().detach();
    });
    assert_eq!(told.recv_timeout(DEADLINE).unwrap(), ((4, 0), 0));
    spdk.load(&json(&[(
        "bdev_delay_delete",
        serde_json::json!({ "name": "slow" }),
    )]))
    .unwrap();
    assert_eq!(told.recv_timeout(DEADLINE).unwrap(), ((0, 0), 19));
    drop(descriptor);
    stop(set, spdk);
}
