//! Calls that wait for their answers on one xstream.

use std::cell::{OnceCell, RefCell};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use daos_errno::Der;
use spdk_env::DmaBuf;
use spdk_thread::TaskWaker;

use crate::table::{Key, Table};

/// The answer to a call.
pub struct Reply {
    /// 0 or a negative DAOS error number.
    pub status: i32,
    /// The module's message.
    pub body: Vec<u8>,
    /// Raw data: a buffer and how many of its bytes count.
    pub bulk: Option<(DmaBuf, usize)>,
}

impl Reply {
    /// The reply itself unless its status is an error.
    pub fn into_result(self) -> Result<Reply, Der> {
        Der::check(self.status).map(|()| self)
    }

    /// The raw data; empty if there is none.
    pub fn bulk_bytes(&self) -> &[u8] {
        self.bulk
            .as_ref()
            .map_or(&[], |(buf, len)| &buf.as_slice()[..*len])
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Reply {{ status: {}, body: {} bytes, ",
            self.status,
            self.body.len()
        )?;
        write!(
            f,
            "bulk: {} bytes }}",
            self.bulk.as_ref().map_or(0, |(_, len)| *len)
        )
    }
}

enum State {
    Waiting(Option<TaskWaker>),
    Ready(Result<Reply, Der>),
}

/// The waiting calls of one xstream (or one outgoing connection); bounded.
pub(crate) struct Calls {
    table: RefCell<Table<State>>,
    /// Hears of calls that nobody waits for any more.
    forgotten: OnceCell<Box<dyn Fn(Key)>>,
}

impl Calls {
    pub(crate) fn new(max: usize) -> Rc<Calls> {
        Rc::new(Calls {
            table: RefCell::new(Table::new(max)),
            forgotten: OnceCell::new(),
        })
    }

    /// `tell` is called for each call that is dropped before its answer, unless it was to be carried out all the same.
    pub(crate) fn on_forgotten(&self, tell: impl Fn(Key) + 'static) {
        let is_first = self.forgotten.set(Box::new(tell)).is_ok();
        debug_assert!(is_first, "one listener");
    }

    /// A place for an answer; `None` at the bound.
    pub(crate) fn open(&self) -> Option<Key> {
        self.table.borrow_mut().insert(State::Waiting(None)).ok()
    }

    pub(crate) fn set_max(&self, max: usize) {
        self.table.borrow_mut().set_max(max);
    }

    /// Gives the answer to whoever waits; an answer nobody waits for any more is dropped.
    pub(crate) fn complete(&self, key: Key, result: Result<Reply, Der>) {
        let previous = match self.table.borrow_mut().get_mut(key) {
            Some(state @ State::Waiting(_)) => Some(std::mem::replace(state, State::Ready(result))),
            _ => None,
        };
        if let Some(State::Waiting(Some(waker))) = previous {
            waker.wake();
        }
    }

    /// Fails every waiting call.
    pub(crate) fn fail_all(&self, der: Der) {
        let mut wakers = Vec::new();
        for state in self.table.borrow_mut().iter_mut() {
            if let State::Waiting(waker) = state {
                wakers.extend(waker.take());
                *state = State::Ready(Err(der));
            }
        }
        wakers.into_iter().for_each(TaskWaker::wake);
    }
}

/// A call under way. Dropping it forgets the answer; another engine is told so, and stops working on it where it can. Own xstream
/// only.
#[must_use = "a call is only answered to whoever waits for it"]
pub struct PendingCall(Inner);

enum Inner {
    Failed(Der),
    Waiting {
        calls: Rc<Calls>,
        key: Key,
        /// Whether the other side hears that it was dropped.
        cancels: bool,
    },
}

impl PendingCall {
    pub(crate) fn failed(der: Der) -> PendingCall {
        PendingCall(Inner::Failed(der))
    }

    pub(crate) fn waiting(calls: Rc<Calls>, key: Key) -> PendingCall {
        let cancels = true;
        PendingCall(Inner::Waiting {
            calls,
            key,
            cancels,
        })
    }

    /// Dropped, it is carried out all the same.
    pub(crate) fn lasting(mut self) -> PendingCall {
        if let Inner::Waiting { cancels, .. } = &mut self.0 {
            *cancels = false;
        }
        self
    }
}

impl fmt::Debug for PendingCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Inner::Failed(der) => write!(f, "PendingCall(failed: {der:?})"),
            Inner::Waiting { key, .. } => write!(f, "PendingCall({key:?})"),
        }
    }
}

impl Future for PendingCall {
    type Output = Result<Reply, Der>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (calls, key) = match &self.0 {
            Inner::Failed(der) => return Poll::Ready(Err(*der)),
            Inner::Waiting { calls, key, .. } => (calls, *key),
        };
        let mut table = calls.table.borrow_mut();
        match table.get_mut(key) {
            Some(State::Waiting(waker)) => {
                *waker = Some(TaskWaker::from_cx(cx, "an RPC answer"));
                return Poll::Pending;
            }
            Some(State::Ready(_)) => {}
            // Polled after completion: the answer was handed out.
            None => return Poll::Ready(Err(Der::CANCELED)),
        }
        match table.remove(key) {
            Some(State::Ready(result)) => Poll::Ready(result),
            _ => Poll::Ready(Err(Der::CANCELED)),
        }
    }
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        let Inner::Waiting {
            calls,
            key,
            cancels,
        } = &self.0
        else {
            return;
        };
        let forgotten = calls.table.borrow_mut().remove(*key);
        if let (Some(State::Waiting(_)), true, Some(tell)) =
            (&forgotten, cancels, calls.forgotten.get())
        {
            tell(*key);
        }
    }
}
