//! C SPDK's devices through `spdk_sys` alone: a thread, a channel, a loop. What is between this and the same device in the block layer is ours;
//! what is between this and bdevperf is the wrapper.

use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use spdk_bdev::Op;
use spdk_env::DmaBuf;
use spdk_sys::{Bdev, Channel, Finished, Thread};

use crate::bdev::{Options, Report};
use crate::lane::cpu_seconds;
use crate::load::{Load, TIMED_TOGETHER};

/// Runs the measurement on SPDK's device `name`, on one core.
pub(crate) fn run(options: &Options, name: &str) -> Result<Report> {
    let &[core] = options.cores.as_slice() else {
        bail!("spdk_sys:{name} is measured on one core");
    };
    let options = options.clone();
    let name = name.to_owned();
    let measured = std::thread::spawn(move || {
        spdk_env::cpu::pin_current_thread(core)?;
        measure(&options, &name)
    });
    measured
        .join()
        .map_err(|_| anyhow!("the measurement panicked"))?
}

fn measure(options: &Options, name: &str) -> Result<Report> {
    let spdk = crate::spdk::spdk()?;
    let bdev = Bdev::open(&spdk, name, true, |_| ())?;
    let (_, seed) = Thread::<()>::create(&spdk, "bench", 1)?;
    let thread = seed.start();
    let _current = thread.enter();
    let channel = Channel::new(&bdev, &thread, options.queue_depth)
        .context("SPDK has no channel left for the benchmark")?;
    let facts = bdev.facts();
    let mut lane = Lane {
        channel,
        load: Load::new(options, facts.num_blocks, facts.block_size, 0x9e37_79b9),
        errors: 0,
    };
    for number in 0..options.queue_depth {
        let buf = DmaBuf::alloc(options.io_size as usize)?;
        let now = lane.load.now();
        lane.submit(number, Some(buf), now)?;
    }
    let (started, cpu) = (Instant::now(), cpu_seconds());
    let mut back = Vec::with_capacity(options.queue_depth as usize);
    while lane.channel.outstanding() > 0 {
        thread.poll(0, |()| ());
        lane.turn(&mut back)?;
    }
    let seconds = started.elapsed().as_secs_f64();
    let cpu = cpu_seconds() - cpu;
    let (histogram, _) = lane.load.end();
    Ok(Report::new(
        options,
        &histogram,
        lane.errors,
        (seconds, cpu),
    ))
}

struct Lane {
    channel: Channel,
    load: Load,
    errors: u64,
}

impl Lane {
    #[inline]
    fn turn(&mut self, back: &mut Vec<Finished>) -> Result<()> {
        let over = self.load.is_over();
        self.channel.reap(|finished| back.push(finished));
        let mut time = 0;
        for (place, Finished { tag, buf, errno }) in back.drain(..).enumerate() {
            if place % TIMED_TOGETHER == 0 {
                time = self.load.now();
            }
            self.load.ended(u64::from(tag), time);
            self.errors += u64::from(errno != 0);
            if !over {
                self.submit(tag, buf, time)?;
            }
        }
        Ok(())
    }

    #[inline]
    fn submit(&mut self, tag: u32, buf: Option<DmaBuf>, now: u64) -> Result<()> {
        let (op, lba) = self.load.next(u64::from(tag), now);
        let op = match op {
            Op::Write => spdk_sys::Op::Write,
            _ => spdk_sys::Op::Read,
        };
        let blocks = self.load.blocks();
        match self.channel.submit(tag, op, false, lba, blocks, buf) {
            Ok(()) => Ok(()),
            Err((why, _)) => bail!("SPDK refuses I/O {tag}: {why}"),
        }
    }
}
