//! ULTs that work in slices and wait for their turn in between: garbage collection, scrubbing, migration.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use slab::Slab;
use spdk_thread::TaskWaker;

use super::{Admission, Attr, Class, Kick, PoolId, RequestSched, RequestSource, SLICES, Ticket};

#[derive(Default)]
struct Slice {
    queued: Option<Ticket>,
    waker: Option<TaskWaker>,
    kicked: bool,
}

/// The slices of an xstream's ULTs, by key.
#[derive(Default)]
pub(super) struct Slices(RefCell<Slab<Slice>>);

impl RequestSource for Slices {
    fn kick(&self, key: u32, _: &Kick) {
        let waker = self.0.borrow_mut().get_mut(key as usize).and_then(|slice| {
            (slice.queued, slice.kicked) = (None, true);
            slice.waker.take()
        });
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A ULT's place in the scheduler (DAOS: `sched_req_get` to `sched_req_put`). By one ULT at a time.
pub struct SchedReq {
    sched: Rc<RequestSched>,
    pool: PoolId,
    class: Class,
    key: u32,
    asleep: Cell<bool>,
}

impl SchedReq {
    /// For work of this class on behalf of a pool.
    pub fn new(sched: &Rc<RequestSched>, pool: PoolId, class: Class) -> SchedReq {
        let key = sched.slices.0.borrow_mut().insert(Slice::default()) as u32;
        sched.core.borrow_mut().attach(pool, class);
        SchedReq {
            sched: Rc::clone(sched),
            pool,
            class,
            key,
            asleep: Cell::new(false),
        }
    }

    /// Waits for the turn of the next slice; others run meanwhile, always (DAOS: `sched_req_yield`).
    pub async fn turn(&self) {
        poll_fn(|cx| self.poll_turn(cx)).await;
    }

    /// The same by hand.
    pub fn poll_turn(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.set_asleep(false);
        {
            let mut all = self.sched.slices.0.borrow_mut();
            let slice = &mut all[self.key as usize];
            if std::mem::take(&mut slice.kicked) {
                return Poll::Ready(());
            }
            let old = slice.waker.replace(TaskWaker::from_cx(cx, "scheduler"));
            if slice.queued.is_some() {
                drop(all);
                drop(old);
                return Poll::Pending;
            }
        }
        let attr = Attr::slice(self.pool, self.class);
        let admission = self.sched.submit(SLICES, self.key, &attr);
        let mut all = self.sched.slices.0.borrow_mut();
        let slice = &mut all[self.key as usize];
        match admission {
            Admission::Queued(ticket) => slice.queued = Some(ticket),
            Admission::RunNow | Admission::Rejected(_) => {
                slice.kicked = true;
                drop(all);
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }

    /// It has nothing to do from now on, until its next [`turn`](Self::turn): in a pool that runs out of space nobody waits
    /// for it then.
    pub fn set_asleep(&self, asleep: bool) {
        if self.asleep.replace(asleep) != asleep {
            self.sched
                .core
                .borrow_mut()
                .set_asleep(self.pool, self.class, asleep);
        }
    }

    /// Its pool's pressure level, 0 to 5 (DAOS: `sched_req_space_check`).
    pub fn space_pressure(&self) -> u8 {
        self.sched.space_pressure(self.pool)
    }
}

impl Drop for SchedReq {
    fn drop(&mut self) {
        self.set_asleep(false);
        let slice = self.sched.slices.0.borrow_mut().remove(self.key as usize);
        let mut core = self.sched.core.borrow_mut();
        if let Some(ticket) = slice.queued {
            core.cancel(ticket);
        }
        core.detach(self.pool, self.class);
    }
}

impl fmt::Debug for SchedReq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SchedReq({})", self.class.name())
    }
}
