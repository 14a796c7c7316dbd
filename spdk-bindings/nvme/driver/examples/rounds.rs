//! A fixed number of rounds of 32 reads over the emulated controller, without a clock: for counting instructions.
//!
//! ```text
//! cargo build --release -p spdk_nvme --example rounds
//! valgrind --tool=callgrind --toggle-collect='*submit_round*' --toggle-collect='*take_round*' target/release/examples/rounds 1000
//! ```
//!
//! The instructions collected, divided by what it prints, are those of one I/O.

#![allow(clippy::print_stdout, reason = "an example reports on its output")]

use std::error::Error;
use std::sync::Arc;

use nvme_fake::{FakeController, FakeOptions, NamespaceOptions};
use spdk_env::{DeviceBacking, DmaPool};
use spdk_nvme::{Controller, Io, IoKind, IoTarget, Options, QueuePair};

const DEPTH: u32 = 32;

#[inline(never)]
fn submit_round(pair: &mut QueuePair<FakeController>, target: &IoTarget, ios: &mut Vec<Io>) {
    for io in ios.drain(..) {
        assert!(
            pair.submit(target, io).is_ok(),
            "the queue pair is as deep as the round"
        );
    }
    pair.ring();
}

#[inline(never)]
fn take_round(pair: &mut QueuePair<FakeController>, ios: &mut Vec<Io>) {
    pair.poll(1, |done| {
        assert_eq!(done.result, Ok(()));
        ios.push(done.io);
    });
}

fn main() -> Result<(), Box<dyn Error>> {
    let rounds: u64 = std::env::args().nth(1).ok_or("how many rounds?")?.parse()?;
    let mut namespace = NamespaceOptions::new(1 << 21, 9);
    namespace.discard = true;
    let fake = FakeController::new(FakeOptions {
        namespaces: vec![namespace],
        ..FakeOptions::default()
    });
    let pool = DmaPool::new(4096, DEPTH as usize)?;
    fake.map_pool(&pool)?;
    let mut controller = Controller::new(Arc::new(fake.clone()), Options::default())?;
    let mut now = 0;
    controller.attach(|| {
        fake.step();
        now += 1_000_000;
        now
    })?;
    let namespace = controller.namespaces().remove(0);
    let mut pair = controller.queue_pair()?.attach();
    let buf = |_| Ok(pool.get().ok_or("the pool is too small")?);
    let bufs = (0..DEPTH)
        .map(buf)
        .collect::<Result<Vec<_>, Box<dyn Error>>>()?;
    let mut ios: Vec<Io> = bufs
        .into_iter()
        .zip(0..)
        .map(|(buf, i)| Io::new(IoKind::Read, i * 8, 8).with_buf(buf))
        .collect();
    for _ in 0..rounds {
        submit_round(&mut pair, &namespace.target(), &mut ios);
        fake.step();
        while ios.len() < DEPTH as usize {
            take_round(&mut pair, &mut ios);
        }
    }
    println!("{} I/Os", rounds * u64::from(DEPTH));
    Ok(())
}
