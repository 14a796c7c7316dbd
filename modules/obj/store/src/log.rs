//! The log: records of concurrent requests share one write.
//!
//! One task writes it ([`Inner::run_log`]): it takes what is queued, up to a frame, writes it with forced unit access,
//! then applies the records to the index and answers. The next frame starts when this one is durable. When the half is
//! three quarters full a checkpoint begins in the other half (see `checkpoint`); when it is full, commits wait for it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use crate::device::{BlockDev, Buf, Run, UNIT};
use crate::error::StoreError;
use crate::frame::{self, FRAME_MAX, FrameHeader, HEADER, Kind};
use crate::record::Op;
use crate::replay::Tail;
use crate::store::Inner;
use crate::sync::{Event, Mutex, Promise, Ticket, promise};

/// Records that become durable together, or not at all.
struct Commit {
    ops: Vec<Op>,
    bytes: Vec<u8>,
    done: Promise<Result<(), StoreError>>,
}

/// State of the log.
pub(crate) struct Log {
    queue: RefCell<VecDeque<Commit>>,
    /// Anything below changed.
    pub(crate) changed: Event,
    pub(crate) tail: Cell<Tail>,
    /// Held while a frame is written and while the halves change places.
    pub(crate) turn: Mutex,
    /// Records since the running checkpoint began; `None`: none runs.
    pub(crate) carry: RefCell<Option<VecDeque<Vec<u8>>>>,
    pub(crate) checkpoint_wanted: Cell<bool>,
    failed: RefCell<Option<String>>,
    closing: Cell<bool>,
    ended: Cell<bool>,
    /// The checkpoint task has ended, too: nothing of this store is on its way to the device.
    pub(crate) quiet: Cell<bool>,
    pub(crate) frames: Cell<u64>,
    pub(crate) commits: Cell<u64>,
}

impl Log {
    pub(crate) fn new(tail: Tail) -> Self {
        Self {
            queue: RefCell::default(),
            changed: Event::default(),
            tail: Cell::new(tail),
            turn: Mutex::default(),
            carry: RefCell::default(),
            checkpoint_wanted: Cell::new(false),
            failed: RefCell::default(),
            closing: Cell::new(false),
            ended: Cell::new(false),
            quiet: Cell::new(false),
            frames: Cell::new(0),
            commits: Cell::new(0),
        }
    }

    /// No change is accepted any more; why.
    pub(crate) fn failure(&self) -> Option<StoreError> {
        if let Some(cause) = &*self.failed.borrow() {
            return Some(StoreError::ReadOnly {
                cause: cause.clone(),
            });
        }
        self.closing.get().then_some(StoreError::Closing)
    }

    /// From now on the store is read-only: what the device holds of the last frame is unknown, so nothing may be built
    /// on it.
    pub(crate) fn fail(&self, cause: &StoreError) {
        self.failed
            .borrow_mut()
            .get_or_insert_with(|| cause.to_string());
        let waiting = std::mem::take(&mut *self.queue.borrow_mut());
        for commit in waiting {
            commit
                .done
                .fulfil(Err(self.failure().unwrap_or(StoreError::Closing)));
        }
        self.changed.notify();
    }

    /// Queues records. They are applied to the index when durable, before the ticket is ready.
    pub(crate) fn enqueue(
        &self,
        ops: Vec<Op>,
    ) -> Result<Ticket<Result<(), StoreError>>, StoreError> {
        if let Some(error) = self.failure() {
            return Err(error);
        }
        let mut bytes = Vec::with_capacity(256);
        ops.iter().for_each(|op| op.encode(&mut bytes));
        let (done, ticket) = promise();
        self.queue
            .borrow_mut()
            .push_back(Commit { ops, bytes, done });
        self.changed.notify();
        Ok(ticket)
    }

    /// Queues records and waits until they are durable and applied.
    pub(crate) async fn commit(&self, ops: Vec<Op>) -> Result<(), StoreError> {
        self.enqueue(ops)?.await
    }

    /// No new commits; what is queued is still written.
    pub(crate) fn close(&self) {
        self.closing.set(true);
        self.changed.notify();
    }

    /// The log task has written its last frame.
    pub(crate) fn ended(&self) -> bool {
        self.ended.get()
    }

    /// Bytes of records that the next frame takes of the queue.
    fn batch_len(&self, max: usize) -> usize {
        let mut total = 0;
        for commit in &*self.queue.borrow() {
            if total > 0 && total + commit.bytes.len() > max {
                break;
            }
            total += commit.bytes.len();
        }
        total
    }

    /// Takes the commits that `len`, from [`Log::batch_len`], counted.
    fn take_batch(&self, len: usize) -> (Vec<Commit>, Vec<u8>) {
        let mut queue = self.queue.borrow_mut();
        let (mut batch, mut bytes) = (Vec::new(), Vec::with_capacity(len));
        while bytes.len() < len
            && let Some(commit) = queue.pop_front()
        {
            bytes.extend_from_slice(&commit.bytes);
            batch.push(commit);
        }
        (batch, bytes)
    }

    /// Remembers durable records for the half that is being prepared.
    fn carry(&self, records: Vec<u8>, max: usize) {
        if let Some(carry) = &mut *self.carry.borrow_mut() {
            match carry.back_mut() {
                Some(last) if last.len() + records.len() <= max => last.extend(records),
                _ => carry.push_back(records),
            }
        }
    }
}

impl<D: BlockDev> Inner<D> {
    /// Most bytes of records in one frame.
    pub(crate) fn records_max(&self) -> usize {
        FRAME_MAX.min(self.sb.half_units as usize / 8 * UNIT) - HEADER
    }

    /// Writes one frame into a half, with the buffer kept in `spare`. `fua`: durable when it returns.
    pub(crate) async fn write_frame(
        &self,
        (half, at): (u8, u64),
        header: FrameHeader,
        records: &[u8],
        spare: &RefCell<Option<D::Buf>>,
        fua: bool,
    ) -> Result<(), StoreError> {
        let units = header.units();
        if at + u64::from(units) > self.sb.half_units {
            let what = "the metadata log has no room for its checkpoint".to_owned();
            return Err(StoreError::Invalid { what });
        }
        let kept = spare.borrow_mut().take();
        let mut buf = match kept {
            Some(buf) => buf,
            None => self.media.alloc(frame::units_for(self.records_max()))?,
        };
        frame::encode(self.sb.seed(), header, records, buf.as_mut_slice());
        let run = Run {
            unit: self.sb.half_start(half) + at,
            units,
        };
        let buf = self.media.write(&[run], buf, fua).await?;
        *spare.borrow_mut() = Some(buf);
        Ok(())
    }

    /// The task that writes the log. Ends when the store is closed and everything queued is durable.
    pub(crate) async fn run_log(&self) {
        let log = &self.log;
        loop {
            let work = || {
                let (empty, closing) = (log.queue.borrow().is_empty(), log.closing.get());
                if empty {
                    closing.then_some(false)
                } else {
                    Some(true)
                }
            };
            if !log.changed.wait(work).await {
                break;
            }
            let turn = log.turn.lock().await;
            let len = log.batch_len(self.records_max());
            let tail = log.tail.get();
            if len > 0 && tail.next + u64::from(frame::units_for(len)) > self.sb.half_units {
                drop(turn);
                self.wait_for_room(tail).await;
            } else if len > 0 {
                self.group_commit(len).await;
            }
        }
        log.ended.set(true);
        log.changed.notify();
    }

    /// The half is full: nothing goes on until the checkpoint in the other one is done.
    async fn wait_for_room(&self, full: Tail) {
        let log = &self.log;
        log.checkpoint_wanted.set(true);
        log.changed.notify();
        let moved = || {
            let failed = log.failed.borrow().is_some();
            (failed || log.tail.get().generation != full.generation).then_some(())
        };
        log.changed.wait(moved).await;
    }

    async fn group_commit(&self, len: usize) {
        let log = &self.log;
        let (batch, bytes) = log.take_batch(len);
        let Tail {
            half,
            generation,
            seq,
            next,
            ..
        } = log.tail.get();
        let header = FrameHeader {
            kind: Kind::Records,
            generation,
            seq,
            len: bytes.len() as u32,
        };
        if let Err(error) = self
            .write_frame((half, next), header, &bytes, &self.log_buf, true)
            .await
        {
            log.fail(&error);
            for commit in batch {
                commit
                    .done
                    .fulfil(Err(log.failure().unwrap_or(StoreError::Closing)));
            }
            return;
        }
        let next = next + u64::from(header.units());
        log.tail.set(Tail {
            seq: seq + 1,
            next,
            ..log.tail.get()
        });
        log.frames.set(log.frames.get() + 1);
        log.commits.set(log.commits.get() + batch.len() as u64);
        log.carry(bytes, self.records_max());
        for commit in batch {
            let mut index = self.index.borrow_mut();
            commit.ops.into_iter().for_each(|op| index.apply(op));
            drop(index);
            commit.done.fulfil(Ok(()));
        }
        if next > self.sb.half_units / 4 * 3 && log.carry.borrow().is_none() {
            log.checkpoint_wanted.set(true);
            log.changed.notify();
        }
    }
}
