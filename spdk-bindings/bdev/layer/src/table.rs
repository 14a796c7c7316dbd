//! The I/Os of a channel: one cache line each, written once by the submitter and read once by whoever reaps.
//!
//! Requests are not passed from hand to hand: the submitter writes the slot, the device is told its number (the tag), the
//! completion is that number again, as with an NVMe queue pair. Every slot belongs to a lane: one per [`crate::IoQueue`], and lane 0
//! for the futures.

use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::collections::VecDeque;

use crate::health::Tally;
use crate::{BdevError, Completion, Request, SlowIo};

/// One I/O.
#[repr(align(64))]
pub(crate) struct Slot {
    request: Request,
    result: Result<(), BdevError>,
    origin: Origin,
    route: u32,
    at_device: bool,
}

/// For which request an I/O is done, and since when it is at its device.
#[derive(Clone, Copy, Default)]
pub(crate) struct Origin {
    pub(crate) trace: u64,
    pub(crate) since: u64,
}

/// The slots of one user of the channel.
pub(crate) struct Lane {
    free: Vec<u32>,
    /// Oldest first.
    finished: VecDeque<u32>,
    depth: u32,
    /// Its user is gone: what still comes back is dropped.
    abandoned: bool,
    waker: Option<Waker>,
}

impl Lane {
    pub(crate) fn in_flight(&mut self) -> u32 {
        self.depth - self.free.len() as u32
    }

    pub(crate) fn poll_ready(&mut self, cx: &Context<'_>) -> Poll<()> {
        if !self.finished.is_empty() {
            return Poll::Ready(());
        }
        if self
            .waker
            .as_ref()
            .is_none_or(|old| !old.will_wake(cx.waker()))
        {
            self.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

/// All slots and lanes of a channel.
#[derive(Default)]
pub(crate) struct IoTable {
    slots: Vec<Slot>,
    lanes: Vec<Lane>,
    /// Slots of no lane.
    spare: Vec<u32>,
}

impl IoTable {
    /// Makes a lane of `depth` slots and returns its route.
    pub(crate) fn add_lane(&mut self, depth: u32) -> u32 {
        let unused = self.lanes.iter().position(|lane| lane.depth == 0);
        let route = unused.unwrap_or(self.lanes.len()) as u32;
        let free: Vec<u32> = (0..depth).map(|_| self.slot(route)).collect();
        let finished = VecDeque::with_capacity(depth as usize);
        let lane = Lane {
            free,
            finished,
            depth,
            abandoned: false,
            waker: None,
        };
        match unused {
            Some(place) => self.lanes[place] = lane,
            None => self.lanes.push(lane),
        }
        route
    }

    fn slot(&mut self, route: u32) -> u32 {
        if let Some(tag) = self.spare.pop() {
            self.slots[tag as usize].route = route;
            return tag;
        }
        self.slots.push(Slot {
            request: Request::flush(),
            result: Ok(()),
            origin: Origin::default(),
            route,
            at_device: false,
        });
        self.slots.len() as u32 - 1
    }

    pub(crate) fn lane(&mut self, route: u32) -> &mut Lane {
        &mut self.lanes[route as usize]
    }

    pub(crate) fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// Writes a request into a free slot of a lane; gives it back when there is none.
    #[inline]
    pub(crate) fn put(
        &mut self,
        route: u32,
        request: Request,
        origin: Origin,
    ) -> Result<(u32, &mut Request), Request> {
        let Some(tag) = self.lanes[route as usize].free.pop() else {
            return Err(request);
        };
        let slot = &mut self.slots[tag as usize];
        slot.request = request;
        slot.at_device = true;
        slot.origin = origin;
        Ok((tag, &mut slot.request))
    }

    /// Takes the oldest finished I/O of a lane.
    #[inline]
    pub(crate) fn pop(&mut self, route: u32) -> Option<Completion> {
        let lane = &mut self.lanes[route as usize];
        let tag = lane.finished.pop_front()?;
        lane.free.push(tag);
        let slot = &mut self.slots[tag as usize];
        Some(Completion {
            buf: slot.request.buf.take(),
            user: slot.request.user,
            result: core::mem::replace(&mut slot.result, Ok(())),
            op: slot.request.op,
        })
    }

    /// An I/O that has just ended, for who hears of slow ones.
    pub(crate) fn ended<'a>(&self, tag: u32, device: &'a str, now: u64) -> SlowIo<'a> {
        let slot = &self.slots[tag as usize];
        SlowIo {
            device,
            op: slot.request.op,
            lba: slot.request.lba,
            blocks: slot.request.blocks,
            took: Duration::from_nanos(now.saturating_sub(slot.origin.since)),
            trace: slot.origin.trace,
            failed: slot.result.is_err(),
        }
    }

    /// The user of a lane is gone.
    pub(crate) fn abandon(&mut self, route: u32) -> u32 {
        self.lanes[route as usize].abandoned = true;
        self.clear_abandoned(route)
    }

    /// Drops what has come back to a lane without a user. When nothing is out any more, the lane is gone too; returns the
    /// number of slots that became free with it.
    pub(crate) fn clear_abandoned(&mut self, route: u32) -> u32 {
        if !self.lanes[route as usize].abandoned {
            return 0;
        }
        while let Some(completion) = self.pop(route) {
            drop(completion);
        }
        let lane = &mut self.lanes[route as usize];
        if lane.in_flight() > 0 {
            return 0;
        }
        lane.abandoned = false;
        self.spare.append(&mut lane.free);
        core::mem::take(&mut lane.depth)
    }

    /// Who waits for a lane that has something to reap.
    pub(crate) fn take_waker(&mut self, route: u32) -> Option<Waker> {
        let lane = &mut self.lanes[route as usize];
        if lane.finished.is_empty() {
            None
        } else {
            lane.waker.take()
        }
    }
}

/// Takes the finished I/Os of one [`crate::BdevChannel::poll`], and shows the requests of unfinished ones.
pub struct CompletionSink<'a> {
    table: &'a mut IoTable,
    /// For a device that wraps another one: not finished yet, but handed to the wrapper.
    collect: Option<&'a mut Vec<(u32, Result<(), BdevError>)>>,
    tally: Tally,
    progressed: bool,
    now: u64,
    /// Nanoseconds from which on an I/O is slow, and those that were.
    slow_after: u64,
    slow: Vec<u32>,
}

impl<'a> CompletionSink<'a> {
    pub(crate) fn new(table: &'a mut IoTable, now: u64, slow_after: u64) -> CompletionSink<'a> {
        CompletionSink {
            table,
            collect: None,
            tally: Tally::default(),
            progressed: false,
            now,
            slow_after,
            slow: Vec::new(),
        }
    }

    /// A sink over the same requests that collects tags and results, for a device that polls the channel of the device
    /// underneath it: what is collected is not finished until the wrapper completes it here.
    #[must_use]
    pub fn nested<'b>(
        &'b mut self,
        collect: &'b mut Vec<(u32, Result<(), BdevError>)>,
    ) -> CompletionSink<'b> {
        CompletionSink {
            table: self.table,
            collect: Some(collect),
            tally: Tally::default(),
            progressed: false,
            now: self.now,
            slow_after: self.slow_after,
            slow: Vec::new(),
        }
    }

    /// The request of an I/O that is at the device.
    #[inline]
    #[must_use]
    pub fn request(&mut self, tag: u32) -> &mut Request {
        &mut self.table.slots[tag as usize].request
    }

    /// An I/O is finished, and its buffer back in its request.
    #[inline]
    pub fn complete(&mut self, tag: u32, result: Result<(), BdevError>) {
        if let Some(list) = &mut self.collect {
            list.push((tag, result));
            return;
        }
        let slot = &mut self.table.slots[tag as usize];
        if !slot.at_device {
            debug_assert!(
                false,
                "a device completed I/O {tag}, which it does not have"
            );
            return;
        }
        slot.at_device = false;
        if self.now.saturating_sub(slot.origin.since) >= self.slow_after {
            self.slow.push(tag);
        }
        self.tally
            .count(slot.request.op, slot.request.blocks, result.is_ok());
        slot.result = result;
        self.table.lanes[slot.route as usize]
            .finished
            .push_back(tag);
    }

    /// Something moved on without being finished (an I/O of several steps): the device wants to be polled in the next turn.
    #[inline]
    pub fn progress(&mut self) {
        self.progressed = true;
    }

    /// What was finished, whether anything moved on, and which I/Os were slow.
    pub(crate) fn into_parts(self) -> (Tally, bool, Vec<u32>) {
        (self.tally, self.progressed, self.slow)
    }
}
