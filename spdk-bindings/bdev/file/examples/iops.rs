//! How many I/Os per second one core does through the block layer: random blocks, one completion per I/O, the latency of each
//! recorded, through the same queue that modules use.
//!
//! `cargo run --release -p bdev_file --example iops -- null|malloc|file:PATH read|write QUEUE_DEPTH SECONDS [IO_SIZE] [uring|threads] [poll|sleep]`
//!
//! `sleep`: with nothing to do, wait for the device's descriptor, as a reactor with an idle goal does; else poll always.

#![allow(clippy::print_stdout, reason = "an example reports on its output")]

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use bdev_file::{Engine, FileBdev, FileOptions};
use bdev_malloc::MallocBdev;
use bdev_null::NullBdev;
use rustix::event::{PollFd, PollFlags, Timespec};
use spdk_bdev::{Bdev, Completion, IoQueue, Mode, Op, Registry, Request};
use spdk_env::{Clock, DmaPool};
use spdk_thread::{Interest, Period, PollResult, Thread, ThreadOptions};

/// Latencies in ticks: 64 steps per power of two.
struct Histogram {
    counts: Vec<u64>,
}

impl Histogram {
    #[inline]
    fn record(&mut self, ticks: u64) {
        let ticks = ticks.max(64);
        let power = 63 - ticks.leading_zeros();
        let step = (ticks >> (power - 6)) & 63;
        self.counts[((power - 6) * 64) as usize + step as usize] += 1;
    }

    fn quantile(&self, q: f64) -> u64 {
        let total: u64 = self.counts.iter().sum();
        let mut left = (total as f64 * q) as u64;
        for (index, count) in self.counts.iter().enumerate() {
            if *count > left {
                let (power, step) = (index as u64 / 64 + 6, index as u64 % 64);
                return (64 + step) << (power - 6);
            }
            left -= count;
        }
        0
    }
}

struct Load {
    queue: IoQueue,
    blocks: u64,
    io_blocks: u32,
    op: Op,
    random: u64,
    started: Vec<u64>,
    latency: Histogram,
    clock: Clock,
}

impl Load {
    #[inline]
    fn next_lba(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let slots = self.blocks / u64::from(self.io_blocks);
        ((u128::from(self.random) * u128::from(slots)) >> 64) as u64 * u64::from(self.io_blocks)
    }

    #[inline]
    fn again(&mut self, completion: Completion) {
        let now = self.clock.raw();
        let user = completion.user as usize;
        self.latency.record(now - self.started[user]);
        self.started[user] = now;
        assert!(completion.result.is_ok(), "{:?}", completion.result);
        let request = Request {
            buf: completion.buf,
            lba: self.next_lba(),
            user: completion.user,
            blocks: self.io_blocks,
            op: self.op,
            fua: false,
        };
        let taken = self.queue.submit(request);
        assert!(taken.is_ok(), "{taken:?}");
    }
}

fn device(name: &str, threads: bool) -> Result<Arc<dyn Bdev>, Box<dyn Error>> {
    Ok(match name {
        "null" => Arc::new(NullBdev::new("device", 512, 1 << 21)),
        "malloc" => Arc::new(MallocBdev::new("device", 512, 1 << 20)?),
        file => {
            let path = file
                .strip_prefix("file:")
                .ok_or("device: null, malloc or file:PATH")?;
            let engine = if threads {
                Engine::Threads
            } else {
                Engine::Auto
            };
            let options = FileOptions {
                engine,
                ..FileOptions::default()
            };
            let bdev = FileBdev::open("device", Path::new(path), &options)?;
            println!("{bdev:?}");
            Arc::new(bdev)
        }
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [name, workload, depth, seconds, rest @ ..] = &args[..] else {
        return Err(
            "arguments: null|malloc|file:PATH read|write QUEUE_DEPTH SECONDS [IO_SIZE] [threads]"
                .into(),
        );
    };
    let (depth, seconds): (u32, u64) = (depth.parse()?, seconds.parse()?);
    let io_size: u32 = rest.first().map_or(Ok(4096), |size| size.parse())?;
    let op = if workload == "write" {
        Op::Write
    } else {
        Op::Read
    };

    let registry = Registry::new();
    registry.register(device(
        name,
        rest.get(1).is_some_and(|word| word == "threads"),
    )?)?;
    let descriptor = registry.open("device", Mode::ReadWrite, "iops")?;
    let geometry = descriptor.geometry();
    if geometry.num_blocks * u64::from(geometry.block_size) < 1 << 20 {
        return Err("the device is too small".into());
    }
    let thread = Thread::new("iops", ThreadOptions::default());
    let channel = descriptor.get_channel(&thread)?;
    let queue = channel.queue(depth)?;
    drop(channel);
    let clock = Clock::tsc();
    let pool = DmaPool::new(io_size as usize, depth as usize)?;
    let mut load = Load {
        queue,
        blocks: geometry.num_blocks,
        io_blocks: io_size / geometry.block_size,
        op,
        random: 0x9e37_79b9_7f4a_7c15,
        started: vec![clock.raw(); depth as usize],
        latency: Histogram {
            counts: vec![0; 58 * 64],
        },
        clock,
    };
    for user in 0..u64::from(depth) {
        let request = Request {
            op,
            ..Request::read(load.next_lba(), load.io_blocks, pool.get().ok_or("pool")?)
        };
        load.queue.submit(request.with_user(user))?;
    }
    let load = Rc::new(RefCell::new(load));
    let count = Rc::new(Cell::new(0u64));
    let poller = thread.register_poller("load", Period::EveryTurn, {
        let (load, count) = (Rc::clone(&load), Rc::clone(&count));
        move |_| {
            let mut load = load.borrow_mut();
            let mut done = 0;
            while done < depth as usize {
                let Some(completion) = load.queue.pop() else {
                    break;
                };
                load.again(completion);
                done += 1;
            }
            count.set(count.get() + done as u64);
            if done > 0 {
                PollResult::Busy
            } else {
                PollResult::Idle
            }
        }
    });
    // The device's channel announces its work.
    poller.set_interrupt_mode(true);
    let cpu = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    };
    let (start, start_cpu, mut turns) = (clock.now(), cpu(), 0u64);
    let mut now = start;
    let sleeps = rest.get(2).is_some_and(|word| word == "sleep");
    let mut watched = Vec::new();
    while now - start < seconds * 1_000_000_000 {
        now = clock.now();
        let busy = thread.poll(now).is_busy();
        turns += 1;
        if sleeps && !busy && !thread.needs_polling() {
            thread.drain_fd_changes(|change| {
                watched.retain(|(id, _)| *id != change.id);
                if change.interest.readable {
                    watched.push((change.id, change.fd));
                }
            });
            let mut fds: Vec<PollFd<'_>> = watched
                .iter()
                .map(|(_, fd)| PollFd::new(fd, PollFlags::IN))
                .collect();
            let limit = Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            };
            if rustix::event::poll(&mut fds, Some(&limit))? > 0 {
                watched
                    .iter()
                    .for_each(|(id, _)| thread.fd_ready(*id, Interest::READABLE));
            }
        }
    }
    let used = cpu() - start_cpu;
    let (elapsed, done) = ((now - start) as f64 / 1e9, count.get());
    drop(poller);
    let load = load.borrow();
    let micros = |q| load.clock.ticks_to_ns(load.latency.quantile(q)) as f64 / 1e3;
    println!(
        "{name} {workload} {io_size} B, depth {depth}: {:.0} IOPS ({:.0} per CPU second), {:.1} I/Os per turn, p50 {:.2} us, p99 {:.2} us, p99.9 {:.2} us",
        done as f64 / elapsed,
        done as f64 / used,
        done as f64 / turns as f64,
        micros(0.5),
        micros(0.99),
        micros(0.999)
    );
    Ok(())
}
