//! Data that a requester offers and a handler takes in parts, when it has room for them (Mercury: `HG_Bulk_transfer`).
//!
//! A pull is a [`Ticket`]: the handler waits for it on its xstream, the connection's xstream carries it out ([`Pulls`]). Memory is
//! taken before the requester is asked, so what comes always has its place, and a connection with pulls under way is read on
//! whatever else its frames want ([`crate::tcp`] refuses those then): the data of one request never waits for another's memory.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use daos_errno::Der;
use rpc_wire::{Frame, Grant, Header, Opcode, Pull};
use spdk_env::DmaBuf;
use spdk_thread::{Sleep, TaskWaker, sleep};

use crate::bulk::{Bulk, BulkPools};
use crate::request::Slot;
use crate::table::{Key, Table};

/// Tickets of one connection that wait for their turn; one more is refused.
const MAX_WAITING: usize = 1024;
/// Between two looks into an empty pool.
const POOL_RETRY_NS: u64 = 500_000;
/// What operators see in the list of tasks.
const WAITS_FOR: &str = "offered data";

/// What a requester offers with a request.
#[derive(Clone, Debug)]
pub(crate) enum Offered {
    /// So many bytes, at the other end of a connection.
    There(u64),
    /// This memory of a caller in the same engine.
    Here(Arc<DmaBuf>),
}

impl Offered {
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Offered::There(bytes) => *bytes,
            Offered::Here(buffer) => buffer.len() as u64,
        }
    }
}

/// One pull, seen by who waits for it and by who carries it out, on any two xstreams.
pub(crate) struct Ticket {
    pub(crate) request_id: u64,
    pub(crate) slot: Slot,
    offset: u64,
    len: u32,
    state: Mutex<State>,
}

enum State {
    Waiting(Option<Waker>),
    Done(Result<Bulk, Der>),
    /// Nobody waits any more, or it was handed out.
    Over,
}

impl Ticket {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_wanted(&self) -> bool {
        !matches!(*self.state(), State::Over)
    }

    pub(crate) fn finish(&self, result: Result<Bulk, Der>) {
        let mut state = self.state();
        // What nobody waits for goes back to its pool, outside of the lock.
        let (before, _unwanted) = match &*state {
            State::Waiting(_) => (std::mem::replace(&mut *state, State::Done(result)), None),
            _ => (State::Over, Some(result)),
        };
        drop(state);
        if let State::Waiting(Some(waker)) = before {
            waker.wake();
        }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Ticket({} bytes at {} of request {})",
            self.len, self.offset, self.request_id
        )
    }
}

/// Part of what a request offers, on its way ([`crate::Request::pull`]). Dropped, it is not waited for any more; what of it is on the
/// wire already is thrown away.
#[must_use = "a future does nothing until it is awaited"]
pub struct PullFuture(Step);

enum Step {
    Failed(Der),
    Asked(Arc<Ticket>),
    /// Copied from a caller in this engine, as soon as there is memory.
    Copy(Arc<DmaBuf>, Range<usize>, BulkPools, Option<Sleep>),
}

impl PullFuture {
    pub(crate) fn failed(der: Der) -> PullFuture {
        PullFuture(Step::Failed(der))
    }

    /// From the other end of a connection; the ticket is for its xstream.
    pub(crate) fn asked(
        slot: Slot,
        request_id: u64,
        (offset, len): (u64, u32),
    ) -> (PullFuture, Arc<Ticket>) {
        let ticket = Arc::new(Ticket {
            request_id,
            slot,
            offset,
            len,
            state: Mutex::new(State::Waiting(None)),
        });
        (PullFuture(Step::Asked(Arc::clone(&ticket))), ticket)
    }

    pub(crate) fn copied(from: Arc<DmaBuf>, range: Range<usize>, memory: BulkPools) -> PullFuture {
        PullFuture(Step::Copy(from, range, memory, None))
    }
}

impl Future for PullFuture {
    type Output = Result<DmaBuf, Der>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Step::Failed(der) => Poll::Ready(Err(*der)),
            Step::Asked(ticket) => {
                let mut state = ticket.state();
                match std::mem::replace(&mut *state, State::Over) {
                    State::Done(result) => Poll::Ready(result.map(|bulk| bulk.into_pair().0)),
                    State::Over => Poll::Ready(Err(Der::CANCELED)),
                    State::Waiting(_) => {
                        // The waker goes to another xstream; this only says what is waited for.
                        drop(TaskWaker::from_cx(cx, WAITS_FOR));
                        *state = State::Waiting(Some(cx.waker().clone()));
                        Poll::Pending
                    }
                }
            }
            Step::Copy(from, range, memory, timer) => loop {
                if let Some(mut bulk) = memory.get(range.len()) {
                    bulk.as_mut()
                        .copy_from_slice(&from.as_slice()[range.clone()]);
                    return Poll::Ready(Ok(bulk.into_pair().0));
                }
                let timer = timer.insert(sleep(POOL_RETRY_NS));
                if Pin::new(timer).poll(cx).is_pending() {
                    return Poll::Pending;
                }
            },
        }
    }
}

impl Drop for PullFuture {
    fn drop(&mut self) {
        if let Step::Asked(ticket) = &self.0 {
            let before = std::mem::replace(&mut *ticket.state(), State::Over);
            drop(before);
        }
    }
}

impl fmt::Debug for PullFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Step::Failed(der) => write!(f, "PullFuture(failed: {der:?})"),
            Step::Asked(ticket) => write!(f, "PullFuture({ticket:?})"),
            Step::Copy(_, range, ..) => write!(f, "PullFuture({range:?} of this engine)"),
        }
    }
}

/// The pulls of one connection. Own xstream only.
pub(crate) struct Pulls {
    waiting: RefCell<VecDeque<Arc<Ticket>>>,
    active: RefCell<Table<Active>>,
    under_way: Cell<usize>,
}

struct Active {
    ticket: Arc<Ticket>,
    memory: Option<Bulk>,
}

impl Pulls {
    pub(crate) fn new(max: usize) -> Pulls {
        Pulls {
            waiting: RefCell::default(),
            active: RefCell::new(Table::new(max)),
            under_way: Cell::new(0),
        }
    }

    /// Takes a ticket in; the connection's ULT starts it.
    pub(crate) fn queue(&self, ticket: Arc<Ticket>) {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() < MAX_WAITING {
            return waiting.push_back(ticket);
        }
        drop(waiting);
        ticket.finish(Err(Der::OVERLOAD_RETRY));
    }

    /// Whether data is on its way: then the connection must be read.
    pub(crate) fn is_under_way(&self) -> bool {
        self.under_way.get() > 0
    }

    /// Asks for as much as there is room for. True: the next one waits for memory.
    pub(crate) fn start(
        &self,
        memory: &BulkPools,
        is_canceled: impl Fn(u64) -> bool,
        mut send: impl FnMut(Header, Vec<u8>),
    ) -> bool {
        while let Some(ticket) = self.next(&is_canceled) {
            let mut active = self.active.borrow_mut();
            if active.is_full() {
                self.waiting.borrow_mut().push_front(ticket);
                return false;
            }
            let Some(room) = memory.get(ticket.len as usize) else {
                self.waiting.borrow_mut().push_front(ticket);
                return true;
            };
            let (request_id, offset, len) = (ticket.request_id, ticket.offset, ticket.len);
            let memory = Some(room);
            let Ok(key) = active.insert(Active { ticket, memory }) else {
                return false;
            };
            self.under_way.set(active.len());
            let header = Header {
                opcode: Opcode::PULL.0,
                request_id,
                ..Header::default()
            };
            let number = key.to_u64();
            let pull = Pull {
                number,
                offset,
                len,
            };
            send(header, pull.encode().to_vec());
        }
        false
    }

    /// The first that somebody still waits for.
    fn next(&self, is_canceled: &impl Fn(u64) -> bool) -> Option<Arc<Ticket>> {
        loop {
            let ticket = self.waiting.borrow_mut().pop_front()?;
            if is_canceled(ticket.request_id) {
                ticket.finish(Err(Der::CANCELED));
            } else if ticket.is_wanted() {
                return Some(ticket);
            }
        }
    }

    /// Where the data of an answer belongs. One that was not asked for has no place.
    pub(crate) fn place(&self, header: &Header) -> Grant<Bulk> {
        let mut active = self.active.borrow_mut();
        let asked = active.get_mut(Key::from_u64(header.request_id));
        let fits = |active: &&mut Active| active.ticket.len == header.bulk_len;
        match asked.filter(fits).and_then(|active| active.memory.take()) {
            Some(memory) => Grant::Take(memory),
            None => Grant::Skip,
        }
    }

    /// The answer to a pull. False: it was not asked for, or is not what was.
    pub(crate) fn finish(&self, frame: Frame<Bulk>) -> bool {
        let mut active = self.active.borrow_mut();
        let removed = active.remove(Key::from_u64(frame.header.request_id));
        self.under_way.set(active.len());
        drop(active);
        let Some(Active { ticket, .. }) = removed else {
            return false;
        };
        let result = match (frame.damage, Der::check(frame.header.status), frame.bulk) {
            (None, Ok(()), Some(bulk)) => Ok(bulk),
            (None, Err(der), None) => Err(der),
            (Some(_), ..) => Err(Der::CSUM),
            _ => {
                ticket.finish(Err(Der::PROTO));
                return false;
            }
        };
        ticket.finish(result);
        true
    }

    /// The connection has ended.
    pub(crate) fn fail_all(&self) {
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        let active = std::mem::replace(&mut *self.active.borrow_mut(), Table::new(0));
        self.under_way.set(0);
        let active = active.into_values().map(|active| active.ticket);
        for ticket in waiting.into_iter().chain(active) {
            ticket.finish(Err(Der::UNREACH));
        }
    }
}

#[cfg(test)]
mod tests;
