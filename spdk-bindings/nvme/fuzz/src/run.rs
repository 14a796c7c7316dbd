//! [`run`]: one life of a controller over a tape.

use std::cell::Cell;
use std::sync::Arc;

use spdk_env::{DeviceBacking, DmaPool};
use spdk_nvme::{Controller, ControllerState, Io, IoKind, Namespace, Options, QueuePair};

use crate::{FuzzBacking, Outcome, Tape};

const MS: u64 = 1_000_000;
/// That pass in one turn.
const TURN: u64 = 4 * MS;
/// More turns than any ladder of time-outs has.
const TURNS: u32 = 60_000;
const IOS: u32 = 24;
const KINDS: [IoKind; 6] = [
    IoKind::Write,
    IoKind::Read,
    IoKind::Flush,
    IoKind::Deallocate,
    IoKind::WriteZeroes,
    IoKind::Read,
];

struct Life {
    device: Arc<FuzzBacking>,
    controller: Controller<FuzzBacking>,
    pool: DmaPool,
    clock: Cell<u64>,
    outcome: Outcome,
}

fn tick(clock: &Cell<u64>, device: &FuzzBacking) -> u64 {
    device.step();
    clock.set(clock.get() + TURN);
    clock.get()
}

/// Brings a controller up over the bytes, does I/O, resets it, reads its logs, shuts it down.
///
/// # Panics
/// When the driver hangs, loses a buffer, or has the device reach for memory that it was not given.
#[must_use]
pub fn run(bytes: &[u8]) -> Outcome {
    let device = Arc::new(FuzzBacking::new(Tape::new(bytes)));
    let options = Options {
        queue_pairs: 1,
        queue_entries: 8,
        depth: 12,
        io_timeout: 80 * MS,
        abort_timeout: 40 * MS,
        admin_timeout: 200 * MS,
        reset_attempts: 2,
        retries: 2,
        ..Options::default()
    };
    let pool = match DmaPool::new(64 << 10, 16) {
        Ok(pool) => pool,
        Err(error) => panic!("{error}"),
    };
    if let Err(error) = device.map_pool(&pool) {
        panic!("{error}");
    }
    let mut outcome = Outcome::default();
    match Controller::new(Arc::clone(&device), options) {
        Err(error) => outcome.saw_error("open", &error.kind),
        Ok(controller) => {
            let life = Life {
                device: Arc::clone(&device),
                controller,
                pool: pool.clone(),
                clock: Cell::new(0),
                outcome,
            };
            outcome = life.live();
        }
    }
    device.step();
    assert_eq!(
        device.faults(),
        0,
        "DMA outside of what the device was given"
    );
    assert_eq!(pool.available(), pool.count(), "a buffer is missing");
    outcome
}

impl Life {
    fn live(mut self) -> Outcome {
        let (clock, device) = (&self.clock, &self.device);
        if let Err(error) = self.controller.attach(|| tick(clock, device)) {
            self.outcome.saw_error("attach", &error.kind);
            return self.outcome;
        }
        let namespaces = self.controller.namespaces();
        for refused in namespaces.iter().filter_map(|ns| ns.refused.as_ref()) {
            let letters = refused.to_string();
            let kind = letters
                .split_whitespace()
                .take(4)
                .collect::<Vec<_>>()
                .join("-");
            let kind: String = kind
                .chars()
                .filter(|c| c.is_ascii_alphabetic() || *c == '-')
                .collect();
            self.outcome.saw(format!("namespace-refused-{kind}"));
        }
        let usable = namespaces.iter().find(|ns| ns.refused.is_none());
        match (usable.cloned(), self.controller.queue_pair()) {
            (Some(namespace), Ok(seed)) => {
                let mut pair = seed.attach();
                self.transfer(&mut pair, &namespace);
                self.ask();
                self.end(Some(pair));
            }
            (None, _) => {
                self.outcome.saw("no-namespace");
                self.end(None);
            }
            (_, Err(error)) => {
                self.outcome.saw_error("pair", &error.kind);
                self.end(None);
            }
        }
        self.outcome.saw_end(&self.controller.state());
        self.outcome
    }

    fn turn(&mut self) {
        let now = tick(&self.clock, &self.device);
        self.controller.poll(now);
        while let Some(event) = self.controller.take_event() {
            self.outcome.saw_event(&event);
        }
    }

    fn transfer(&mut self, pair: &mut QueuePair<FuzzBacking>, namespace: &Namespace) {
        let target = namespace.target();
        let (mut asked, mut taken, mut finished) = (0, 0, 0);
        for turn in 0..TURNS {
            while asked < IOS && asked - finished < 12 {
                let kind = KINDS[asked as usize % KINDS.len()];
                let block = namespace.block_size() as usize;
                let blocks = (8192 / block).max(1).min(namespace.blocks as usize) as u32;
                let blocks = if kind == IoKind::Flush { 0 } else { blocks };
                let mut io = Io::new(kind, 0, blocks);
                if kind.has_data() {
                    let Some(buf) = self.pool.get() else { break };
                    io = io.with_buf(buf);
                }
                asked += 1;
                match pair.submit(&target, io) {
                    Ok(()) => taken += 1,
                    Err((_, why)) => {
                        finished += 1;
                        taken += 1;
                        self.outcome
                            .saw(format!("io-not-taken-{why:?}").to_ascii_lowercase());
                    }
                }
            }
            pair.ring();
            let outcome = &mut self.outcome;
            finished += pair.poll(self.clock.get(), |done| {
                assert!(done.io.buf.is_some() || !done.io.kind.has_data());
                outcome.saw_io(done.result);
            });
            if turn == 6 {
                self.controller.request_reset();
            }
            self.turn();
            if asked == IOS && finished == taken {
                return;
            }
        }
        panic!(
            "{finished} of {taken} I/Os came back; controller {:?}",
            self.controller.state()
        );
    }

    /// What owners ask beside I/O.
    fn ask(&mut self) {
        if self.controller.state() != ControllerState::Ready {
            return;
        }
        let (clock, device) = (&self.clock, &self.device);
        let question = self.controller.smart_log();
        let smart = self.controller.drive(question, || tick(clock, device));
        match smart {
            Ok(_) => self.outcome.saw("smart-read"),
            Err(error) => self.outcome.saw_error("smart", &error.kind),
        }
    }

    fn end(&mut self, mut pair: Option<QueuePair<FuzzBacking>>) {
        self.controller.shut_down();
        for _ in 0..TURNS {
            let over = |state: ControllerState| {
                matches!(
                    state,
                    ControllerState::ShutDown | ControllerState::Failed(_)
                )
            };
            if over(self.controller.state()) {
                return;
            }
            if let Some(pair) = &mut pair {
                pair.poll(self.clock.get(), |_| ());
            }
            self.turn();
        }
        panic!("it never ends: {:?}", self.controller.state());
    }
}
