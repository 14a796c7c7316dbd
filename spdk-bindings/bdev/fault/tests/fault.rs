//! Every fault, and none.

#![allow(missing_docs, reason = "tests")]

use std::sync::Arc;

use bdev_fault::{Effect, FaultBdev, FaultControl, PowerCut, Rule};
use bdev_malloc::MallocBdev;
use spdk_bdev::testing::Oracle;
use spdk_bdev::{Bdev, BdevError, Channel, Mode, Op, OpSet, Registry};
use spdk_env::{DmaBuf, DmaPool};
use spdk_thread::Thread;
use spdk_thread::testing::Lockstep;

const BLOCK: usize = 512;

struct Bench {
    lockstep: Lockstep,
    thread: Thread,
    channel: Channel,
    control: FaultControl,
    /// The device underneath, by itself.
    under: Channel,
}

fn bench(volatile: bool) -> Bench {
    let mut lockstep = Lockstep::new();
    let thread = lockstep.thread("t");
    let inner: Arc<dyn Bdev> = Arc::new(MallocBdev::new("under", BLOCK as u32, 64).unwrap());
    let make = if volatile {
        FaultBdev::with_volatile_cache
    } else {
        FaultBdev::new
    };
    let bdev = make("faulty", Arc::clone(&inner), 42);
    let control = bdev.control();
    let registry = Registry::new();
    registry.register(inner).unwrap();
    registry.register(Arc::new(bdev)).unwrap();
    let channel = registry
        .open("faulty", Mode::ReadWrite, "test")
        .unwrap()
        .get_channel(&thread)
        .unwrap();
    let under = registry
        .open("under", Mode::ReadWrite, "test")
        .unwrap()
        .get_channel(&thread)
        .unwrap();
    Bench {
        lockstep,
        thread,
        channel,
        control,
        under,
    }
}

impl Bench {
    fn write(&mut self, lba: u64, blocks: u32, byte: u8, fua: bool) -> Result<(), BdevError> {
        let channel = self.channel.clone();
        let io = async move {
            let mut buf = DmaBuf::alloc(blocks as usize * BLOCK).unwrap();
            buf.as_mut_slice().fill(byte);
            channel.write(lba, blocks, buf, fua).await.0
        };
        self.lockstep.block_on(&self.thread, io).unwrap()
    }

    fn flush(&mut self) -> Result<(), BdevError> {
        let channel = self.channel.clone();
        self.lockstep
            .block_on(&self.thread, async move { channel.flush().await })
            .unwrap()
    }

    /// The first byte of each of the first `blocks` blocks.
    fn look(&mut self, channel: &Channel, blocks: u64) -> Vec<u8> {
        let channel = channel.clone();
        let io = async move {
            let mut bytes = Vec::new();
            for lba in 0..blocks {
                let (result, buf) = channel.read(lba, 1, DmaBuf::alloc(BLOCK).unwrap()).await;
                result.unwrap();
                assert!(
                    buf.as_slice().iter().all(|byte| *byte == buf.as_slice()[0]),
                    "a torn block"
                );
                bytes.push(buf.as_slice()[0]);
            }
            bytes
        };
        self.lockstep.block_on(&self.thread, io).unwrap()
    }

    fn seen(&mut self, blocks: u64) -> Vec<u8> {
        let channel = self.channel.clone();
        self.look(&channel, blocks)
    }

    fn underneath(&mut self, blocks: u64) -> Vec<u8> {
        let under = self.under.clone();
        self.look(&under, blocks)
    }
}

fn writes() -> OpSet {
    OpSet::of(&[Op::Write])
}

#[test]
fn without_rules_it_is_the_device_underneath() {
    for volatile in [false, true] {
        let mut bench = bench(volatile);
        let (channel, under) = (bench.channel.clone(), bench.under.clone());
        let run = async move {
            let mut oracle = Oracle::new(&channel, 7).await;
            oracle.run(1500).await;
            oracle.verify().await;
            channel.flush().await.unwrap();
            spdk_bdev::testing::verify(&under, oracle.model()).await;
        };
        bench.lockstep.block_on(&bench.thread, run).unwrap();
    }
}

#[test]
fn the_nth_write_to_a_range_fails_and_the_others_do_not() {
    let mut bench = bench(false);
    let effect = Effect::Fail {
        why: "medium error".into(),
        errno: Some(5),
    };
    let rule = bench.control.add(Rule {
        lbas: 10..12,
        after: 1,
        times: Some(1),
        ..Rule::new(writes(), effect)
    });
    let results: Vec<bool> = [(0, 4), (8, 4), (11, 1), (11, 1), (12, 1)]
        .into_iter()
        .map(|(lba, blocks)| bench.write(lba, blocks, 1, false).is_ok())
        .collect();
    assert_eq!(results, [true, true, false, true, true]);
    assert_eq!(bench.control.hits(rule), 1);
    bench.control.clear();
    let effect = Effect::Fail {
        why: "medium error".into(),
        errno: Some(5),
    };
    bench
        .control
        .add(Rule::new(OpSet::of(&[Op::Flush]), effect));
    let error = bench.flush().unwrap_err();
    assert_eq!(
        error.to_string(),
        "flush of 0 blocks at lba 0 on `faulty` failed: medium error"
    );
    assert_eq!(error.errno(), Some(5));
}

#[test]
fn a_probability_follows_its_seed() {
    let run = || {
        let mut bench = bench(false);
        let effect = Effect::Fail {
            why: "x".into(),
            errno: None,
        };
        bench.control.add(Rule {
            probability: 0.3,
            ..Rule::new(writes(), effect)
        });
        (0..60)
            .map(|lba| bench.write(lba, 1, 1, false).is_ok())
            .collect::<Vec<bool>>()
    };
    let first = run();
    assert_eq!(first, run());
    let failed = first.iter().filter(|ok| !**ok).count();
    assert!((5..35).contains(&failed), "{failed} of 60 failed");
}

#[test]
fn a_delay_is_as_long_as_it_says() {
    let mut bench = bench(false);
    bench
        .control
        .add(Rule::new(writes(), Effect::Delay { ns: 1_000 }));
    let channel = bench.channel.clone();
    let io = async move {
        channel
            .write(0, 1, DmaBuf::alloc(BLOCK).unwrap(), false)
            .await
            .0
    };
    let task = bench.thread.spawn("write", io).unwrap();
    bench.lockstep.settle();
    bench.lockstep.advance(999);
    for _ in 0..5 {
        bench.lockstep.step();
    }
    assert!(!task.is_finished());
    bench.lockstep.advance(1);
    for _ in 0..5 {
        bench.lockstep.step();
    }
    assert!(task.is_finished());
}

#[test]
fn a_dropped_future_leaves_its_buffer_with_a_held_io() {
    let mut bench = bench(false);
    let hold = bench.control.add(Rule::new(OpSet::ALL, Effect::Hold));
    let pool = DmaPool::new(BLOCK, 1).unwrap();
    let (channel, buf) = (bench.channel.clone(), pool.get().unwrap());
    let task = bench
        .thread
        .spawn("read", async move { drop(channel.read(0, 1, buf).await) })
        .unwrap();
    bench.lockstep.settle();
    task.abort();
    drop(task);
    bench.lockstep.settle();
    assert_eq!((pool.available(), bench.channel.in_flight()), (0, 1));
    bench.control.remove(hold);
    for _ in 0..3 {
        bench.lockstep.step();
    }
    assert_eq!((pool.available(), bench.channel.in_flight()), (1, 0));
}

#[test]
fn torn_writes_stop_where_they_are_told() {
    for volatile in [false, true] {
        let mut bench = bench(volatile);
        let tear = |acknowledge| Rule {
            times: Some(1),
            ..Rule::new(
                writes(),
                Effect::Tear {
                    blocks: 2,
                    acknowledge,
                },
            )
        };
        bench.control.add(tear(true));
        bench.write(0, 4, 7, false).unwrap();
        assert_eq!(bench.seen(4), [7, 7, 0, 0]);
        bench.control.add(tear(false));
        let error = bench.write(4, 4, 8, false).unwrap_err();
        assert_eq!(
            error.to_string(),
            "write of 4 blocks at lba 4 on `faulty` failed: torn: 2 of 4 blocks reached the device"
        );
        assert_eq!(bench.seen(8), [7, 7, 0, 0, 8, 8, 0, 0]);
    }
}

#[test]
fn lost_writes_are_acknowledged_and_gone() {
    let mut bench = bench(false);
    bench.control.add(Rule {
        times: Some(1),
        ..Rule::new(writes(), Effect::Lose)
    });
    bench.write(0, 1, 7, true).unwrap();
    bench.write(1, 1, 8, true).unwrap();
    assert_eq!(bench.seen(2), [0, 8]);
}

#[test]
fn a_volatile_cache_writes_at_the_flush() {
    let mut bench = bench(true);
    assert!(bench.channel.geometry().volatile_write_cache);
    bench.write(0, 2, 1, false).unwrap();
    bench.write(1, 2, 2, false).unwrap();
    assert_eq!(bench.seen(4), [1, 2, 2, 0]);
    assert_eq!(bench.underneath(4), [0, 0, 0, 0]);
    // FUA: this one, and not those before it.
    bench.write(2, 1, 3, true).unwrap();
    assert_eq!(bench.underneath(4), [0, 0, 3, 0]);
    assert_eq!(bench.seen(4), [1, 2, 3, 0]);
    bench.flush().unwrap();
    assert_eq!(bench.underneath(4), [1, 2, 3, 0]);
    assert_eq!(bench.control.unflushed(), []);
}

#[test]
fn a_power_cut_loses_what_was_not_flushed() {
    let mut bench = bench(true);
    bench.write(0, 1, 1, false).unwrap();
    bench.flush().unwrap();
    for (lba, byte) in [(0, 2), (1, 3), (0, 4), (2, 5)] {
        bench.write(lba, 1, byte, false).unwrap();
    }
    let writes: Vec<(u64, u64)> = bench
        .control
        .unflushed()
        .iter()
        .map(|write| (write.id, write.lba))
        .collect();
    assert_eq!(writes, [(2, 0), (3, 1), (4, 0), (5, 2)]);
    // The medium took the third and the second: a legal order without a flush between them.
    bench.control.power_cut(&PowerCut::KeepWrites(vec![2, 3]));
    let dead = bench.write(5, 1, 1, false).unwrap_err();
    assert_eq!(
        dead.to_string(),
        "write of 1 blocks at lba 5 on `faulty` failed: the power was cut"
    );
    bench.control.power_on();
    assert_eq!(bench.seen(3), [2, 3, 0]);
    bench.control.power_cut(&PowerCut::LoseAll);
    bench.control.power_on();
    assert_eq!(
        bench.seen(3),
        [2, 3, 0],
        "what reached the medium stays there"
    );
    bench.flush().unwrap();
    assert_eq!(bench.underneath(3), [2, 3, 0]);
}

#[test]
fn a_seed_decides_what_survives() {
    let run = |seed| {
        let mut bench = bench(true);
        for lba in 0..32 {
            bench.write(lba, 1, 9, false).unwrap();
        }
        bench.control.power_cut(&PowerCut::KeepSome { seed });
        bench.control.power_on();
        bench.seen(32)
    };
    let survivors = run(1);
    assert_eq!(survivors, run(1));
    assert_ne!(survivors, run(2));
    assert!(survivors.contains(&0) && survivors.contains(&9));
}

#[test]
fn io_that_is_out_when_the_power_goes_fails() {
    let mut bench = bench(true);
    bench.write(0, 1, 1, false).unwrap();
    let hold = bench
        .control
        .add(Rule::new(OpSet::of(&[Op::Flush]), Effect::Hold));
    let channel = bench.channel.clone();
    let task = bench
        .thread
        .spawn("flush", async move { channel.flush().await })
        .unwrap();
    bench.lockstep.settle();
    bench.control.power_cut(&PowerCut::LoseAll);
    bench.control.power_on();
    bench.control.remove(hold);
    let result = bench
        .lockstep
        .block_on(&bench.thread, task)
        .unwrap()
        .unwrap();
    assert_eq!(
        result.unwrap_err().to_string(),
        "flush of 0 blocks at lba 0 on `faulty` failed: the power was cut"
    );
    assert_eq!(bench.seen(1), [0]);
}
