//! The block device over the emulated controller, on real threads.
#![allow(missing_docs, reason = "tests")]

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bdev_nvme::{DriverOptions, Event, NvmeDevice};
use nvme_fake::{FakeController, FakeOptions, Fault, Match, NamespaceOptions, Wrong};
use nvme_spec::opcode::io;
use nvme_spec::status;
use spdk_bdev::testing::{Oracle, drive};
use spdk_bdev::{Mode, Registry};
use spdk_env::{DmaBuf, DmaPool};
use spdk_reactor::{Depth, ReactorOptions, ReactorSet};
use spdk_thread::{Thread, ThreadOptions};

const MS: u64 = 1_000_000;

fn options(queue_pairs: u16) -> DriverOptions {
    DriverOptions {
        queue_pairs,
        io_timeout: 200 * MS,
        abort_timeout: 100 * MS,
        interrupts: true,
        ..DriverOptions::default()
    }
}

fn attach(fake: &FakeController, queue_pairs: u16) -> NvmeDevice {
    NvmeDevice::attach(Arc::new(fake.clone()), &options(queue_pairs), |_| ()).unwrap()
}

fn register(device: &NvmeDevice, name: &str, nsid: u32) -> Registry {
    let registry = Registry::new();
    registry.register(device.bdev(name, nsid).unwrap()).unwrap();
    registry
}

#[test]
fn namespaces_are_devices_and_keep_what_is_written() {
    let namespaces = vec![
        NamespaceOptions::new(500, 9),
        NamespaceOptions::new(100, 12),
    ];
    let fake = FakeController::new(FakeOptions {
        namespaces,
        interrupts: 4,
        write_cache: true,
        ..FakeOptions::default()
    });
    let _running = fake.run();
    let device = attach(&fake, 2);
    assert_eq!(
        (device.serial(), device.model(), device.firmware()),
        ("FAKE0001", "Keel emulated NVMe", "1.0")
    );
    for (nsid, block) in [(1, 512), (2, 4096)] {
        let registry = register(&device, "d", nsid);
        let descriptor = registry.open("d", Mode::ReadWrite, "test").unwrap();
        let geometry = descriptor.geometry();
        assert_eq!(
            (geometry.block_size, geometry.max_io_blocks),
            (block, (1 << 20) / block)
        );
        assert!(geometry.volatile_write_cache && geometry.unmap_zeroes);
        let thread = Thread::new("t", ThreadOptions::default());
        let channel = descriptor.get_channel(&thread).unwrap();
        // Buffers from the heap: through the bounce buffers.
        drive(&thread, async move {
            let mut oracle = Oracle::new(&channel, u64::from(nsid)).await;
            oracle.run(400).await;
            oracle.verify().await;
        });
    }
    assert_eq!(fake.observed().dma_faults, 0);
}

#[test]
fn a_pool_is_mapped_when_it_is_first_seen_and_then_reached_directly() {
    let fake = FakeController::new(FakeOptions {
        namespaces: vec![NamespaceOptions::new(8192, 9)],
        ..FakeOptions::default()
    });
    let _running = fake.run();
    let device = attach(&fake, 1);
    let registry = register(&device, "d", 1);
    let descriptor = registry.open("d", Mode::ReadWrite, "test").unwrap();
    let thread = Thread::new("t", ThreadOptions::default());
    let channel = descriptor.get_channel(&thread).unwrap();
    let pool = DmaPool::new(1 << 20, 2).unwrap();
    let mut buf = pool.get().unwrap();
    buf.as_mut_slice()
        .iter_mut()
        .enumerate()
        .for_each(|(i, b)| *b = (i / 512) as u8);
    let expected = buf.as_slice().to_vec();
    let back = drive(&thread, async move {
        // Longer than MDTS (128 KiB): split into eight.
        let (result, buf) = channel.write(100, 2048, buf, true).await;
        result.unwrap();
        let (result, buf) = channel.read(100, 2048, buf).await;
        result.unwrap();
        buf.as_slice().to_vec()
    });
    assert_eq!(back, expected);
    assert_eq!(fake.peek(1, 100, 1 << 20), expected);
    assert_eq!(pool.available(), 2);
}

#[test]
fn each_thread_has_a_queue_pair_and_no_more_are_promised_than_there_are() {
    let fake = FakeController::new(FakeOptions::default());
    let _running = fake.run();
    let device = attach(&fake, 2);
    let registry = register(&device, "d", 1);
    let descriptor = registry.open("d", Mode::ReadWrite, "test").unwrap();
    std::thread::scope(|scope| {
        for id in 0..2u64 {
            let descriptor = descriptor.clone();
            scope.spawn(move || {
                let thread = Thread::new("t", ThreadOptions::default());
                let channel = descriptor.get_channel(&thread).unwrap();
                drive(&thread, async move {
                    for lba in (id..600).step_by(2) {
                        let mut buf = DmaBuf::alloc(512).unwrap();
                        buf.as_mut_slice().fill(lba as u8);
                        channel.write(lba, 1, buf, false).await.0.unwrap();
                    }
                });
            });
        }
    });
    for lba in 0..600 {
        assert_eq!(fake.peek(1, lba, 512), [lba as u8; 512]);
    }
    // Threads that ended gave theirs back.
    let threads: Vec<_> = (0..3)
        .map(|_| Thread::new("t", ThreadOptions::default()))
        .collect();
    let channels: Vec<_> = threads
        .iter()
        .map(|thread| descriptor.get_channel(thread))
        .collect();
    assert!(channels[0].is_ok() && channels[1].is_ok());
    let error = channels[2].as_ref().err().unwrap().to_string();
    assert!(
        error.contains("all 2 I/O queue pairs are in use"),
        "{error}"
    );
}

#[test]
fn a_reset_under_load_loses_nothing_and_is_told() {
    let fake = FakeController::new(FakeOptions::default());
    let _running = fake.run();
    let (sender, events) = channel();
    let tell = move |event| sender.send(event).unwrap();
    let device = NvmeDevice::attach(Arc::new(fake.clone()), &options(1), tell).unwrap();
    let registry = register(&device, "d", 1);
    let descriptor = registry.open("d", Mode::ReadWrite, "test").unwrap();
    let thread = Thread::new("t", ThreadOptions::default());
    let channel = descriptor.get_channel(&thread).unwrap();
    fake.inject(Fault::once(
        Match {
            opcode: Some(io::WRITE),
            ..Match::queue(1)
        }
        .after(100),
        Wrong::Hang,
    ));
    drive(&thread, async move {
        for lba in 0..300u64 {
            let mut buf = DmaBuf::alloc(512).unwrap();
            buf.as_mut_slice().fill(lba as u8);
            channel.write(lba, 1, buf, false).await.0.unwrap();
        }
    });
    (0..300).for_each(|lba| assert_eq!(fake.peek(1, lba, 512), [lba as u8; 512]));
    let wait = || events.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(matches!(wait(), Event::ResetStarted(_)));
    assert_eq!(wait(), Event::ResetDone);
    let health = device.health();
    assert_eq!((health.failed, health.troubles.timeouts >= 1), (None, true));
}

#[test]
fn errors_name_device_place_and_reason_and_are_counted() {
    let fake = FakeController::new(FakeOptions::default());
    let _running = fake.run();
    let device = attach(&fake, 1);
    let registry = register(&device, "d", 1);
    let descriptor = registry.open("d", Mode::ReadWrite, "test").unwrap();
    let thread = Thread::new("t", ThreadOptions::default());
    let channel = descriptor.get_channel(&thread).unwrap();
    fake.inject(Fault::once(
        Match {
            opcode: Some(io::READ),
            ..Match::queue(1)
        },
        Wrong::Status(status::UNRECOVERED_READ),
    ));
    let (result, buf) = drive(&thread, async move {
        channel.read(7, 2, DmaBuf::alloc(1024).unwrap()).await
    });
    assert_eq!(
        result.unwrap_err().to_string(),
        "read of 2 blocks at lba 7 on `d` failed: the device answered: unrecovered read error (type 2, code 0x81)"
    );
    assert_eq!(
        buf.len(),
        1024,
        "the caller's buffer, not the bounce buffer"
    );
    assert_eq!(
        registry.health("d").unwrap().of(spdk_bdev::Op::Read).errors,
        1
    );
    let health = device.health();
    assert_eq!(health.smart.unwrap().media_errors, 1);
    let newest = health.errors[0];
    assert_eq!((newest.count, newest.queue, newest.nsid), (1, 1, 1));
    assert_eq!((newest.lba, health.errors.len()), (7, 1));
    assert_eq!(health.firmware.unwrap().revisions[0], "1.0");
    assert_eq!(health.telemetry.unwrap().last_block, [2; 3]);
}

#[test]
fn a_removed_device_fails_its_io_and_says_so() {
    let fake = FakeController::new(FakeOptions::default());
    let _running = fake.run();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let device = NvmeDevice::attach(Arc::new(fake.clone()), &options(1), move |event| {
        log.lock().unwrap().push(event)
    })
    .unwrap();
    let registry = register(&device, "d", 1);
    let descriptor = registry.open("d", Mode::ReadWrite, "test").unwrap();
    let thread = Thread::new("t", ThreadOptions::default());
    let channel = descriptor.get_channel(&thread).unwrap();
    fake.remove();
    let error = drive(&thread, async move { channel.flush().await.unwrap_err() });
    assert_eq!(error.errno(), Some(19));
    assert_eq!(
        device.health().failed.unwrap(),
        "nvme fake0: the device is gone: its registers read as all ones"
    );
    assert_eq!(*seen.lock().unwrap(), [Event::Removed]);
}

#[test]
fn a_shutdown_is_orderly_and_the_next_attach_finds_the_data() {
    let fake = FakeController::new(FakeOptions {
        write_cache: true,
        ..FakeOptions::default()
    });
    let running = fake.run();
    let device = attach(&fake, 1);
    let uuid = device.bdev("d", 1).unwrap().uuid();
    let registry = register(&device, "d", 1);
    let descriptor = registry.open("d", Mode::ReadWrite, "test").unwrap();
    let thread = Thread::new("t", ThreadOptions::default());
    let channel = descriptor.get_channel(&thread).unwrap();
    drive(&thread, async move {
        channel
            .write(
                1,
                1,
                DmaBuf::alloc(512)
                    .map(|mut b| {
                        b.as_mut_slice().fill(9);
                        b
                    })
                    .unwrap(),
                false,
            )
            .await
            .0
            .unwrap()
    });
    drop(device);
    assert_eq!((fake.observed().shutdowns, fake.io_queues()), (1, 0));
    drop(running);
    let fresh = fake.reinsert();
    let _running = fresh.run();
    let device = attach(&fresh, 1);
    assert_eq!(device.bdev("d", 1).unwrap().uuid(), uuid);
    assert_eq!(
        fresh.peek(1, 1, 512),
        [9; 512],
        "the shutdown wrote the cache back"
    );
}

#[test]
fn a_namespace_that_is_not_there_or_cannot_be_used_is_refused_in_words() {
    let mut with_metadata = NamespaceOptions::new(100, 9);
    with_metadata.metadata = 16;
    let fake = FakeController::new(FakeOptions {
        namespaces: vec![with_metadata],
        ..FakeOptions::default()
    });
    let _running = fake.run();
    let device = attach(&fake, 1);
    let refused = |nsid| device.bdev("d", nsid).err().unwrap().to_string();
    assert_eq!(
        refused(3),
        "nvme fake0: it cannot be driven: it has no namespace 3 (there are: 1)"
    );
    assert!(refused(1).starts_with(
        "nvme fake0: it cannot be driven: namespace 1: it is formatted with 16 bytes of metadata"
    ));
}

/// Flushes a controller that can interrupt, one after the other, from a reactor with this latency goal: the result, or its error number.
fn on_a_reactor(
    idle_latency_us: u64,
    test: impl FnOnce(&FakeController, &dyn Fn() -> Result<(), Option<i32>>, &ReactorSet),
) {
    let fake = FakeController::new(FakeOptions {
        interrupts: 4,
        ..FakeOptions::default()
    });
    let _running = fake.run();
    let device = attach(&fake, 1);
    let registry = register(&device, "d", 1);
    let descriptor = registry.open("d", Mode::ReadWrite, "test").unwrap();
    let cpu = spdk_env::cpu::allowed().unwrap()[0];
    let options = ReactorOptions {
        cpus: vec![cpu],
        idle_latency_us,
        pin: true,
        name_prefix: "test".into(),
    };
    let mut set = ReactorSet::start(&options).unwrap();
    let thread = set.reactors()[0]
        .spawn_thread("t", ThreadOptions::default(), |_| {})
        .unwrap();
    let flush = || {
        let (reply, answer) = channel();
        let descriptor = descriptor.clone();
        thread
            .send(move |thread: &Thread| {
                let channel = descriptor.get_channel(thread).unwrap();
                let task = thread.spawn("flush", async move {
                    let _ = reply.send(channel.flush().await.map_err(|error| error.errno()));
                });
                task.unwrap().detach();
            })
            .unwrap();
        answer.recv_timeout(Duration::from_secs(60)).unwrap()
    };
    test(&fake, &flush, &set);
    drop(descriptor);
    set.shutdown(Duration::from_secs(60)).unwrap();
}

/// On a reactor that sleeps while it waits: it must be woken by completions, by time-outs of a command that is lost for ever, by a
/// reset, and by removal.
#[test]
fn a_sleeping_reactor_is_woken_by_completions_time_outs_resets_and_removal() {
    on_a_reactor(20, |fake, flush, set| {
        fake.inject(Fault::once(only_io(), Wrong::Late(LONG)));
        assert_eq!(flush(), Ok(()), "completion");
        assert!(fake.observed().unmaskings > 0);
        fake.inject(Fault::once(only_io(), Wrong::Lost));
        assert_eq!(flush(), Ok(()), "time-out, abort, retry");
        fake.inject(Fault::once(only_io(), Wrong::Fatal));
        assert_eq!(flush(), Ok(()), "reset, retry");
        assert!(
            set.reactors()[0].stats().at(Depth::Sleep).count > 0,
            "it never slept"
        );
        fake.inject(Fault::once(only_io(), Wrong::Remove));
        assert_eq!(flush(), Err(Some(19)), "removal");
    });
}

/// It looks at the queue all the time: an interrupt would cost it a system call to let through and another to stop.
#[test]
fn a_reactor_that_always_polls_is_never_interrupted() {
    on_a_reactor(0, |fake, flush, _| {
        fake.inject(Fault::once(only_io(), Wrong::Late(LONG)));
        assert_eq!(flush(), Ok(()));
        assert_eq!(fake.observed().unmaskings, 0);
    });
}

/// Steps of the controller that take about 10 ms, give or take: far longer than polling goes on.
const LONG: u32 = 20_000;

fn only_io() -> Match {
    Match::queue(1)
}
