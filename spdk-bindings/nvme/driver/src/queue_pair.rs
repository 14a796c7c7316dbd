//! [`QueuePair`]: one thread's submission and completion queue. The I/O path.
//!
//! ```text
//! submit -> op (the I/O, owns the buffer) -> one or more commands (slots) -> submission queue -> doorbell, once per turn
//! poll   <- Done, with the buffer         <- last command of the op       <- completion queue, by phase tag
//! ```
//!
//! Nothing here allocates after [`QueuePair::new`], locks, or blocks. Everything is found by number: an op by its index, a command by
//! its id. Ops that find no free command, or that wait for a reset, stand in line (`waiting`), first come first served.

use core::marker::PhantomData;
use core::sync::atomic::{Ordering, fence};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::{Arc, PoisonError};

use nvme_spec::opcode::io as opcode;
use nvme_spec::{COMMAND_BYTES, COMPLETION_BYTES, Command, Completion, DsmRange, Status, register};
use spdk_env::mmio;
use spdk_env::{DeviceBacking, DmaBuf};

use crate::command_table::{CommandTable, Stage};
use crate::data_pointer::describe;
use crate::doorbell::Doorbell;
use crate::io::{Done, Io, IoKind};
use crate::retry::{Verdict, judge};
use crate::shared::{End, Phase, Position, QueueShared, Shared, State, leak};
use crate::{IoError, IoTarget, Refusal, ResetReason};

/// One I/O.
struct Op {
    io: Option<Io>,
    nsid: u32,
    block_shift: u8,
    max_blocks: u32,
    boundary: u32,
    /// Units (blocks, or 1 for a flush) in all, and given to commands so far.
    total: u32,
    next: u32,
    /// Commands that are not finished.
    commands: u32,
    failure: Option<IoError>,
}

/// The right to make a [`QueuePair`], on whichever thread will drive it. `Send`.
pub struct QueueSeed<B: DeviceBacking> {
    pub(crate) shared: Arc<Shared<B>>,
    pub(crate) queue: Arc<QueueShared>,
}

impl<B: DeviceBacking> QueueSeed<B> {
    /// The queue pair, on the calling thread. Memory for all I/Os is taken here.
    #[must_use]
    pub fn attach(self) -> QueuePair<B> {
        QueuePair::new(self.shared, self.queue)
    }
}

/// A queue pair (SPDK: `struct spdk_nvme_qpair`). `!Send`: one thread submits and polls. Several namespaces may share it.
///
/// Dropping it with I/O outstanding leaves the buffers with the controller until the queue is known to be dead.
pub struct QueuePair<B: DeviceBacking> {
    pub(crate) shared: Arc<Shared<B>>,
    pub(crate) queue: Arc<QueueShared>,
    /// The phase that the queue's state is of.
    phase: Phase,
    ops: Box<[Op]>,
    free_ops: Vec<u32>,
    commands: CommandTable,
    /// Ops with blocks that no command has yet.
    waiting: VecDeque<u32>,
    /// Commands to submit again, and when at the earliest.
    retries: VecDeque<(u16, u64)>,
    /// Ops that ended without the device.
    ended: VecDeque<u32>,
    tail: u32,
    head: u32,
    expected_phase: bool,
    sq_doorbell: Doorbell,
    cq_doorbell: Doorbell,
    /// Completions taken that the device has not been told of.
    taken: u32,
    next_scan: u64,
    counters: QueueStats,
    not_send: PhantomData<Rc<()>>,
}

/// What a queue pair has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueStats {
    /// Commands submitted, retries included.
    pub commands: u64,
    /// Commands tried again.
    pub retries: u64,
    /// Commands whose time was over.
    pub timeouts: u64,
    /// Completions that made no sense.
    pub nonsense: u64,
    /// Resets lived through.
    pub resets: u64,
}

impl<B: DeviceBacking> QueuePair<B> {
    fn new(shared: Arc<Shared<B>>, queue: Arc<QueueShared>) -> QueuePair<B> {
        let depth = shared.options.depth.max(1);
        let slots = depth.min(queue.entries - 1);
        let empty = || Op {
            io: None,
            nsid: 0,
            block_shift: 0,
            max_blocks: 0,
            boundary: 0,
            total: 0,
            next: 0,
            commands: 0,
            failure: None,
        };
        let mut pair = QueuePair {
            phase: shared.phase(),
            ops: (0..depth).map(|_| empty()).collect(),
            free_ops: (0..depth).rev().collect(),
            commands: CommandTable::new(slots),
            waiting: VecDeque::with_capacity(depth as usize),
            retries: VecDeque::with_capacity(slots as usize),
            ended: VecDeque::with_capacity(depth as usize),
            tail: 0,
            head: 0,
            expected_phase: true,
            sq_doorbell: Doorbell::new(register::sq_doorbell(queue.id, shared.dstrd), false),
            cq_doorbell: Doorbell::new(register::cq_doorbell(queue.id, shared.dstrd), false),
            taken: 0,
            next_scan: 0,
            counters: QueueStats::default(),
            not_send: PhantomData,
            shared,
            queue,
        };
        let left = *pair
            .queue
            .position
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        pair.start_over();
        if left.phase == Some(pair.phase) {
            // The device's queue is where the last queue pair, on whichever thread, left it.
            (pair.tail, pair.head, pair.expected_phase) =
                (left.tail, left.head, left.expected_phase);
            pair.sq_doorbell.resume(left.tail);
            pair.cq_doorbell.resume(left.head);
        }
        pair
    }

    /// I/Os that it takes at once.
    #[must_use]
    pub fn depth(&self) -> u32 {
        self.ops.len() as u32
    }

    /// I/Os submitted and not completed.
    #[inline]
    #[must_use]
    pub fn outstanding(&self) -> u32 {
        self.ops.len() as u32 - self.free_ops.len() as u32
    }

    /// What it has done.
    #[must_use]
    pub fn stats(&self) -> QueueStats {
        self.counters
    }

    /// The queue's number on the controller.
    #[must_use]
    pub fn id(&self) -> u16 {
        self.queue.id
    }

    /// Takes an I/O. The device learns of it at the next [`QueuePair::ring`] or [`QueuePair::poll`].
    ///
    /// # Errors
    /// The I/O, whole, and why it was not taken.
    #[inline]
    pub fn submit(&mut self, target: &IoTarget, io: Io) -> Result<(), (Io, Refusal)> {
        if let Err(why) = self.check(target, &io) {
            return Err((io, why));
        }
        let Some(index) = self.free_ops.pop() else {
            return Err((io, Refusal::Full));
        };
        if self.outstanding() == 1 {
            self.become_active();
        }
        let op = &mut self.ops[index as usize];
        op.nsid = target.nsid;
        op.block_shift = target.block_shift;
        op.max_blocks = match io.kind {
            IoKind::Read | IoKind::Write | IoKind::Compare => target.max_blocks,
            IoKind::WriteZeroes => 1 << 16,
            IoKind::Deallocate | IoKind::Flush => u32::MAX,
        };
        op.boundary = if io.kind.has_data() {
            target.boundary
        } else {
            0
        };
        op.total = if io.kind == IoKind::Flush {
            1
        } else {
            io.blocks
        };
        op.next = 0;
        op.commands = 0;
        op.failure = None;
        op.io = Some(io);
        if !self.waiting.is_empty() || !self.issue(index) {
            self.park(index);
        }
        Ok(())
    }

    /// An op that cannot go to the device now stands in line; where there is no device any more, it is over.
    #[cold]
    fn park(&mut self, index: u32) {
        match self.phase.state() {
            State::Running | State::Resetting => self.waiting.push_back(index),
            State::Ended | State::EndedUnsafe => {
                let error = self.end_error();
                self.ops[index as usize].failure.get_or_insert(error);
                self.ended.push_back(index);
            }
        }
    }

    fn end_error(&self) -> IoError {
        match self.shared.end() {
            Some(End::Removed) => IoError::Removed,
            Some(End::ShutDown) => IoError::ShutDown,
            Some(End::Failed) | None => IoError::Failed,
        }
    }

    #[inline]
    fn check(&self, target: &IoTarget, io: &Io) -> Result<(), Refusal> {
        let oncs = self.shared.oncs;
        match io.kind {
            IoKind::Flush => return Ok(()),
            IoKind::Compare if oncs & 1 == 0 => return Err(Refusal::Unsupported),
            IoKind::Deallocate if oncs & 1 << 2 == 0 => return Err(Refusal::Unsupported),
            IoKind::WriteZeroes if oncs & 1 << 3 == 0 => return Err(Refusal::Unsupported),
            _ => {}
        }
        let fits = io
            .lba
            .checked_add(u64::from(io.blocks))
            .is_some_and(|end| end <= target.blocks);
        if io.blocks == 0 || !fits {
            return Err(Refusal::Range);
        }
        if io.kind.has_data() {
            let need = u64::from(io.blocks) << target.block_shift;
            let Some(buf) = io.buf.as_ref().filter(|buf| buf.len() as u64 >= need) else {
                return Err(Refusal::Buffer);
            };
            if self.shared.backing.translate(buf, 0).is_none() {
                return Err(Refusal::Unreachable);
            }
        }
        Ok(())
    }

    /// The first I/O after a rest: from now on a reset waits for our acknowledgement.
    #[cold]
    fn become_active(&mut self) {
        self.queue.active.store(1, Ordering::SeqCst);
        // Against the fence of `Shared::set_phase`: either we see its phase or it sees us active.
        fence(Ordering::SeqCst);
        self.follow_phase();
        if self.phase.state() == State::Resetting {
            self.queue.acknowledge(self.phase);
        }
    }

    /// Gives the blocks of an op to commands; false when some are left because no command is free or a reset is under way.
    #[inline]
    fn issue(&mut self, index: u32) -> bool {
        if self.phase.state() != State::Running {
            return false;
        }
        loop {
            let op = &self.ops[index as usize];
            let (start, left) = (op.next, op.total - op.next);
            if left == 0 {
                return true;
            }
            let mut blocks = left.min(op.max_blocks);
            if op.boundary != 0 {
                blocks = blocks.min(to_boundary(op, start));
            }
            let Some(number) = self.commands.take(index, start, blocks) else {
                return false;
            };
            let op = &mut self.ops[index as usize];
            op.next += blocks;
            op.commands += 1;
            self.write_command(number);
        }
    }

    /// Puts the command of a slot into the submission queue.
    #[inline]
    fn write_command(&mut self, number: u16) {
        let slot = self.commands.slot(number);
        let (index, start, blocks) = (slot.op, slot.start, slot.blocks);
        let Some(command) = self.build(number, index, start, blocks) else {
            // The buffer was reachable when the I/O was taken; a backing that forgets it cannot be written to.
            return self.command_failed(number, IoError::Failed);
        };
        let cid = self.commands.submitted(number);
        let words = command.with_cid(cid).words;
        self.queue
            .sq
            .write_words(self.tail as usize * COMMAND_BYTES, &words);
        self.tail += 1;
        if self.tail == self.queue.entries {
            self.tail = 0;
        }
        self.counters.commands += 1;
    }

    #[inline]
    fn build(&self, number: u16, index: u32, start: u32, blocks: u32) -> Option<Command> {
        let op = &self.ops[index as usize];
        let io = op.io.as_ref()?;
        let lba = io.lba + u64::from(start);
        let code = match io.kind {
            IoKind::Read => opcode::READ,
            IoKind::Write => opcode::WRITE,
            IoKind::Compare => opcode::COMPARE,
            IoKind::WriteZeroes => {
                return Some(Command::blocks(
                    opcode::WRITE_ZEROES,
                    op.nsid,
                    lba,
                    blocks,
                    io.fua,
                ));
            }
            IoKind::Flush => return Some(Command::flush(op.nsid)),
            IoKind::Deallocate => {
                let (list, at) = self.list(number);
                list.write_words(at, &DsmRange { lba, blocks }.words());
                return Some(Command::deallocate(op.nsid, 1).with_prps(list.iova() + at as u64, 0));
            }
        };
        let command = Command::blocks(code, op.nsid, lba, blocks, io.fua);
        let (offset, len) = (
            (start as usize) << op.block_shift,
            (blocks as usize) << op.block_shift,
        );
        let shared = &*self.shared;
        describe(
            &*shared.backing,
            command,
            io.buf.as_ref()?,
            offset,
            len,
            shared.sgl,
            self.list(number),
        )
    }

    /// Where the list of a slot lies.
    #[inline]
    fn list(&self, number: u16) -> (&spdk_env::DmaMemory, usize) {
        let at = number as usize * self.shared.list_stride;
        (&self.queue.lists[at / LIST_CHUNK], at % LIST_CHUNK)
    }

    /// Tells the device of everything submitted since the last time: one register write.
    #[inline]
    pub fn ring(&mut self) {
        if self.tail != self.sq_doorbell.value() && self.phase.state() == State::Running {
            let shared = &*self.shared;
            self.sq_doorbell
                .ring(self.tail, shared.backing.registers(), shared.shadows.get());
        }
    }

    /// Moves on: rings, takes completions, submits what waits. `now` is the thread's time in ns. Calls `done` for each finished I/O and
    /// returns how many there were.
    #[inline]
    pub fn poll(&mut self, now: u64, mut done: impl FnMut(Done)) -> u32 {
        if self.shared.phase() != self.phase {
            self.follow_phase();
        }
        self.ring();
        let mut finished = 0;
        if self.phase.state() == State::Running {
            finished = self.reap(now, &mut done);
        }
        if !self.ended.is_empty() {
            finished += self.take_ended(&mut done);
        }
        if !self.waiting.is_empty() || !self.retries.is_empty() {
            self.pump(now);
        }
        self.ring();
        let is_quiet = finished == 0 && self.outstanding() == 0;
        if is_quiet || self.taken > self.queue.entries / 4 {
            self.acknowledge();
        }
        if now >= self.next_scan {
            self.scan(now);
        }
        if finished > 0 && self.outstanding() == 0 {
            self.queue.active.store(0, Ordering::Release);
        }
        finished
    }

    /// Takes the completions that are there, at most one round of the queue.
    #[inline]
    fn reap(&mut self, now: u64, done: &mut impl FnMut(Done)) -> u32 {
        let (mut finished, mut taken) = (0, 0);
        while taken < self.queue.entries {
            let at = self.head as usize * COMPLETION_BYTES;
            let word = self.queue.cq.read_u64(at + 8);
            if Completion::phase_of(word) != self.expected_phase {
                break;
            }
            mmio::read_barrier();
            taken += 1;
            self.head += 1;
            if self.head == self.queue.entries {
                self.head = 0;
                self.expected_phase = !self.expected_phase;
            }
            let entry = Completion { result: 0, word };
            let known = self.commands.named(entry.cid()).filter(|_| {
                entry.sq() == self.queue.id && u32::from(entry.sq_head()) < self.queue.entries
            });
            match known {
                Some(number) => finished += self.command_done(number, entry.status(), now, done),
                None => self.nonsense(entry),
            }
        }
        self.taken += taken;
        finished
    }

    /// Gives the entries that were taken back to the device. Not at each poll: a register write costs more than the completion that it is
    /// for, and holds up the next submission. Late by a quarter of the queue at most, so the device always has room to go on.
    #[inline]
    fn acknowledge(&mut self) {
        if self.taken > 0 && self.phase.state() == State::Running {
            let shared = &*self.shared;
            self.cq_doorbell
                .ring(self.head, shared.backing.registers(), shared.shadows.get());
        }
        self.taken = 0;
    }

    #[inline]
    fn command_done(
        &mut self,
        number: u16,
        status: Status,
        now: u64,
        done: &mut impl FnMut(Done),
    ) -> u32 {
        if !status.is_success() {
            return self.command_ended_badly(number, status, now, done);
        }
        let index = self.commands.slot(number).op;
        self.commands.release(number);
        let op = &mut self.ops[index as usize];
        op.commands -= 1;
        if op.commands == 0 && op.next == op.total {
            self.finish(index, done);
            return 1;
        }
        0
    }

    #[cold]
    fn command_ended_badly(
        &mut self,
        number: u16,
        status: Status,
        now: u64,
        done: &mut impl FnMut(Done),
    ) -> u32 {
        let limit = self.shared.options.retries;
        let slot = self.commands.slot(number);
        let aborted = slot.stage == Stage::Aborting;
        match judge(status, aborted, slot.tries < limit) {
            Verdict::Retry { after } => self.retry(number, now.saturating_add(after)),
            Verdict::Fail(error) => {
                let index = slot.op;
                self.command_failed(number, error);
                // Reported here and now if it was the last command.
                if self.ended.back() == Some(&index) {
                    self.ended.pop_back();
                    self.finish(index, done);
                    return 1;
                }
            }
        }
        0
    }

    fn retry(&mut self, number: u16, not_before: u64) {
        let slot = self.commands.slot(number);
        slot.stage = Stage::Retrying;
        slot.tries += 1;
        self.retries.push_back((number, not_before));
        self.counters.retries += 1;
        self.queue.counters.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// A command will not succeed: no more commands for its op, which ends with the last of those that are out.
    #[cold]
    fn command_failed(&mut self, number: u16, error: IoError) {
        let index = self.commands.slot(number).op;
        self.commands.release(number);
        if error == IoError::TimedOut {
            self.queue.counters.lost.fetch_add(1, Ordering::Relaxed);
        }
        let op = &mut self.ops[index as usize];
        op.failure.get_or_insert(error);
        op.commands -= 1;
        let had_more = op.next != op.total;
        op.total = op.next;
        if had_more {
            self.waiting.retain(|other| *other != index);
        }
        if self.ops[index as usize].commands == 0 {
            self.ended.push_back(index);
        }
    }

    #[inline]
    fn finish(&mut self, index: u32, done: &mut impl FnMut(Done)) {
        let op = &mut self.ops[index as usize];
        let result = op.failure.map_or(Ok(()), Err);
        let io = op.io.take();
        self.free_ops.push(index);
        if let Some(io) = io {
            done(Done { io, result });
        }
    }

    #[cold]
    fn take_ended(&mut self, done: &mut impl FnMut(Done)) -> u32 {
        let mut finished = 0;
        while let Some(index) = self.ended.pop_front() {
            self.finish(index, done);
            finished += 1;
        }
        finished
    }

    /// Submits what waits, oldest first.
    #[cold]
    fn pump(&mut self, now: u64) {
        if self.phase.state() != State::Running {
            return;
        }
        for _ in 0..self.retries.len() {
            match self.retries.pop_front() {
                Some((number, due)) if due <= now => self.write_command(number),
                Some(later) => self.retries.push_back(later),
                None => {}
            }
        }
        while let Some(index) = self.waiting.pop_front() {
            if !self.issue(index) {
                self.waiting.push_front(index);
                break;
            }
        }
    }

    #[cold]
    fn nonsense(&mut self, entry: Completion) {
        self.counters.nonsense += 1;
        let seen = self.queue.counters.nonsense.fetch_add(1, Ordering::Relaxed) + 1;
        if seen <= 4 {
            tracing::warn!(
                device = self.shared.backing.address(),
                queue = self.queue.id,
                cid = entry.cid(),
                sq = entry.sq(),
                sq_head = entry.sq_head(),
                "a completion that belongs to no command"
            );
        }
        if seen.is_multiple_of(self.shared.options.nonsense_limit.max(1)) {
            self.shared.request_reset(ResetReason::Nonsense);
        }
    }

    /// Looks for commands whose time is over: abort first, then a reset.
    #[cold]
    fn scan(&mut self, now: u64) {
        let (io_timeout, abort_timeout) = (
            self.shared.options.io_timeout,
            self.shared.options.abort_timeout,
        );
        self.next_scan = now.saturating_add((io_timeout.min(abort_timeout) / 8).max(1));
        if self.commands.in_use() == 0 || self.phase.state() != State::Running {
            return;
        }
        for number in 0..self.commands.capacity() as u16 {
            let cid = self.commands.cid(number);
            let slot = self.commands.slot(number);
            if !matches!(slot.stage, Stage::Submitted | Stage::Aborting) {
                continue;
            }
            if slot.deadline == 0 {
                slot.deadline = now.saturating_add(io_timeout);
            } else if now < slot.deadline {
            } else if slot.stage == Stage::Aborting {
                return self.shared.request_reset(ResetReason::TimedOut);
            } else {
                let word = 1 << 16 | u32::from(cid);
                let free =
                    self.queue
                        .abort
                        .compare_exchange(0, word, Ordering::AcqRel, Ordering::Relaxed);
                // One at a time; the others of a stuck queue are noticed at the next look, and the first leads to the reset.
                if free.is_ok() {
                    slot.stage = Stage::Aborting;
                    slot.deadline = now.saturating_add(abort_timeout);
                    self.counters.timeouts += 1;
                    self.queue.counters.timeouts.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// The controller has moved on to another phase.
    #[cold]
    fn follow_phase(&mut self) {
        let phase = self.shared.phase();
        if phase == self.phase {
            return;
        }
        let generation_changed = phase.generation() != self.phase.generation();
        self.phase = phase;
        match phase.state() {
            State::Resetting => self.queue.acknowledge(phase),
            State::Running => {
                if generation_changed {
                    self.counters.resets += 1;
                    self.cut_off();
                }
                self.start_over();
            }
            State::Ended | State::EndedUnsafe => self.end(phase.state() == State::Ended),
        }
    }

    /// Empty queues, as a device just enabled has them. The controller zeroed their memory.
    fn start_over(&mut self) {
        let (id, dstrd) = (self.queue.id, self.shared.dstrd);
        let shadowed = self.shared.shadows_on.load(Ordering::Acquire);
        self.tail = 0;
        self.head = 0;
        self.taken = 0;
        self.expected_phase = true;
        self.sq_doorbell = Doorbell::new(register::sq_doorbell(id, dstrd), shadowed);
        self.cq_doorbell = Doorbell::new(register::cq_doorbell(id, dstrd), shadowed);
    }

    /// A reset has ended every command that was at the device: try again, or fail.
    fn cut_off(&mut self) {
        let limit = self.shared.options.retries;
        for number in 0..self.commands.capacity() as u16 {
            let slot = self.commands.slot(number);
            if !matches!(slot.stage, Stage::Submitted | Stage::Aborting) {
                continue;
            }
            if slot.tries < limit {
                self.retry(number, 0);
            } else {
                self.command_failed(number, IoError::TimedOut);
            }
        }
    }

    /// The controller is over: everything fails. Buffers come back if the device cannot write to them any more.
    fn end(&mut self, safe: bool) {
        let error = self.end_error();
        self.retries.clear();
        for number in 0..self.commands.capacity() as u16 {
            let slot = self.commands.slot(number);
            let at_device = matches!(slot.stage, Stage::Submitted | Stage::Aborting);
            if slot.stage == Stage::Free {
                continue;
            }
            let index = slot.op as usize;
            if at_device && !safe {
                let buf = self.ops[index].io.as_mut().and_then(|io| io.buf.take());
                buf.into_iter().for_each(leak);
            }
            self.command_failed(number, error);
        }
        while let Some(index) = self.waiting.pop_front() {
            self.ops[index as usize].failure.get_or_insert(error);
            self.ended.push_back(index);
        }
    }

    /// The descriptor that becomes readable when the queue has completions, if the queue interrupts.
    #[must_use]
    pub fn interrupt_fd(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        use std::os::fd::AsFd;
        self.queue.interrupt.as_ref().map(|(_, fd)| fd.as_fd())
    }

    /// Lets interrupts through before the thread sleeps, or stops them while it polls. Not for every I/O: it may enter the kernel.
    /// False when the queue does not interrupt.
    pub fn set_interrupts(&mut self, on: bool) -> bool {
        if on {
            self.acknowledge();
        }
        let Some((vector, _)) = &self.queue.interrupt else {
            return false;
        };
        self.shared.backing.mask_interrupt(*vector, !on)
    }

    /// True when completions are there that [`QueuePair::poll`] has not taken: asked after interrupts were let through, before sleeping.
    #[must_use]
    pub fn has_completions(&self) -> bool {
        let word = self
            .queue
            .cq
            .read_u64(self.head as usize * COMPLETION_BYTES + 8);
        Completion::phase_of(word) == self.expected_phase || self.shared.phase() != self.phase
    }
}

/// Bytes of a chunk of PRP lists; a multiple of every stride.
pub(crate) const LIST_CHUNK: usize = 64 << 10;

/// Blocks from a place in an op to the next boundary of the namespace.
#[cold]
fn to_boundary(op: &Op, start: u32) -> u32 {
    let lba = op.io.as_ref().map_or(0, |io| io.lba) + u64::from(start);
    let boundary = u64::from(op.boundary);
    (boundary - lba % boundary) as u32
}

impl<B: DeviceBacking> Drop for QueuePair<B> {
    fn drop(&mut self) {
        self.follow_phase();
        let ended = matches!(self.phase.state(), State::Ended | State::EndedUnsafe);
        let bufs: Vec<DmaBuf> = (self.ops.iter_mut())
            .filter_map(|op| op.io.as_mut()?.buf.take())
            .collect();
        let busy = self.commands.in_use() > 0;
        if busy && !ended {
            // Still active: nobody else gets the queue until the controller has deleted and made it anew.
            self.queue.orphan(bufs);
        } else {
            self.acknowledge();
            *self
                .queue
                .position
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Position {
                phase: Some(self.phase),
                tail: self.tail,
                head: self.head,
                expected_phase: self.expected_phase,
            };
            self.queue.active.store(0, Ordering::Release);
            self.queue.taken.store(false, Ordering::Release);
        }
    }
}
