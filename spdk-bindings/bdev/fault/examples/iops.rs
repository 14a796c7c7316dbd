//! How many I/Os per second one core does through the block layer: random blocks, one completion per I/O, the latency of each
//! recorded, through the same queue that modules use.
//!
//! `cargo run --release -p bdev_fault --example iops -- null|malloc|file:PATH read|write QUEUE_DEPTH SECONDS [IO_SIZE] [uring|threads] [poll|sleep]`
//!
//! `sleep`: with nothing to do, wait for the device's descriptor, as a reactor with an idle goal does; else poll always.

#![allow(clippy::print_stdout, reason = "an example reports on its output")]

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::os::fd::OwnedFd;
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

struct Args {
    device: String,
    op: Op,
    depth: u32,
    seconds: u64,
    io_size: u32,
    threads: bool,
    sleeps: bool,
}

fn arguments() -> Result<Args, Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [device, workload, depth, seconds, rest @ ..] = &args[..] else {
        return Err(
            "arguments: null|malloc|file:PATH read|write QUEUE_DEPTH SECONDS [IO_SIZE] [uring|threads] [poll|sleep]"
                .into(),
        );
    };
    Ok(Args {
        device: device.clone(),
        op: if workload == "write" {
            Op::Write
        } else {
            Op::Read
        },
        depth: depth.parse()?,
        seconds: seconds.parse()?,
        io_size: rest.first().map_or(Ok(4096), |size| size.parse())?,
        threads: rest.get(1).is_some_and(|word| word == "threads"),
        sleeps: rest.get(2).is_some_and(|word| word == "sleep"),
    })
}

/// The queue with its first I/Os in flight.
fn start(args: &Args, thread: &Thread) -> Result<Load, Box<dyn Error>> {
    let registry = Registry::new();
    registry.register(device(&args.device, args.threads)?)?;
    let descriptor = registry.open("device", Mode::ReadWrite, "iops")?;
    let geometry = descriptor.geometry();
    if geometry.bytes() < 1 << 20 || args.io_size < geometry.block_size {
        return Err("the device or the I/O size is too small".into());
    }
    let clock = Clock::tsc();
    let pool = DmaPool::new(args.io_size as usize, args.depth as usize)?;
    let mut load = Load {
        queue: descriptor.get_channel(thread)?.queue(args.depth)?,
        blocks: geometry.num_blocks,
        io_blocks: args.io_size / geometry.block_size,
        op: args.op,
        random: 0x9e37_79b9_7f4a_7c15,
        started: vec![clock.raw(); args.depth as usize],
        latency: Histogram {
            counts: vec![0; 58 * 64],
        },
        clock,
    };
    for user in 0..u64::from(args.depth) {
        let buf = pool.get().ok_or("pool")?;
        let request = Request {
            op: args.op,
            ..Request::read(load.next_lba(), load.io_blocks, buf)
        };
        load.queue.submit(request.with_user(user))?;
    }
    Ok(load)
}

/// Seconds of processor time that this thread has used.
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Waits for the device's descriptor, as a reactor would.
fn sleep(thread: &Thread, watched: &mut Vec<(u32, Rc<OwnedFd>)>) -> Result<(), Box<dyn Error>> {
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
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = arguments()?;
    let thread = Thread::new("iops", ThreadOptions::default());
    let load = Rc::new(RefCell::new(start(&args, &thread)?));
    let clock = load.borrow().clock;
    let count = Rc::new(Cell::new(0u64));
    let poller = thread.register_poller("load", Period::EveryTurn, {
        let (load, count, depth) = (Rc::clone(&load), Rc::clone(&count), args.depth);
        move |_| {
            let mut load = load.borrow_mut();
            let mut done = 0;
            while done < depth {
                let Some(completion) = load.queue.pop() else {
                    break;
                };
                load.again(completion);
                done += 1;
            }
            count.set(count.get() + u64::from(done));
            if done > 0 {
                PollResult::Busy
            } else {
                PollResult::Idle
            }
        }
    });
    // The device's channel announces its work.
    poller.set_interrupt_mode(true);
    let (first, first_cpu, mut turns, mut watched) = (clock.now(), cpu_seconds(), 0u64, Vec::new());
    let mut now = first;
    while now - first < args.seconds * 1_000_000_000 {
        now = clock.now();
        turns += 1;
        if !thread.poll(now).is_busy() && args.sleeps && !thread.needs_polling() {
            sleep(&thread, &mut watched)?;
        }
    }
    let (elapsed, used, done) = (
        (now - first) as f64 / 1e9,
        cpu_seconds() - first_cpu,
        count.get() as f64,
    );
    let load = load.borrow();
    let micros = |q| clock.ticks_to_ns(load.latency.quantile(q)) as f64 / 1e3;
    println!(
        "{} {} {} B, depth {}: {:.0} IOPS ({:.0} per CPU second), {:.1} I/Os per turn, p50 {:.2} us, p99 {:.2} us, p99.9 {:.2} us",
        args.device,
        args.op,
        args.io_size,
        args.depth,
        done / elapsed,
        done / used,
        done / turns as f64,
        micros(0.5),
        micros(0.99),
        micros(0.999)
    );
    Ok(())
}
