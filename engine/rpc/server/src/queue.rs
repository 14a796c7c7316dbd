//! Requests of a main xstream that wait for the scheduler's kick.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use daos_errno::Der;
use engine_xstream::sched::{Admission, Attr, Kick, RequestSched, RequestSource, SourceId, Ticket};
use slab::Slab;

use crate::endpoint::Endpoint;
use crate::registry::Found;
use crate::request::Request;

struct Waiting {
    handler: Found,
    request: Request,
    ticket: Option<Ticket>,
}

/// The side of the endpoint: puts requests in.
pub(crate) struct Queue {
    sched: Rc<RequestSched>,
    source: SourceId,
    waiting: Rc<Kicked>,
}

/// The side of the scheduler: takes them out.
struct Kicked {
    endpoint: Weak<Endpoint>,
    sched: Weak<RequestSched>,
    requests: RefCell<Slab<Waiting>>,
}

impl RequestSource for Kicked {
    fn kick(&self, key: u32, kick: &Kick) {
        let waiting = self.requests.borrow_mut().try_remove(key as usize);
        let (Some(waiting), Some(sched)) = (waiting, self.sched.upgrade()) else {
            return;
        };
        let Waiting {
            handler,
            mut request,
            ..
        } = waiting;
        request.in_service(sched.serve(kick.class));
        match self.endpoint.upgrade() {
            Some(endpoint) => endpoint.run(&handler, request),
            None => request.reply_error(Der::SHUTDOWN),
        }
    }
}

impl Queue {
    /// `None` where no scheduler is: on xstreams that are not a target's main, and on threads that are no xstream.
    pub(crate) fn of_this_xstream(endpoint: Weak<Endpoint>) -> Option<Queue> {
        let xstream = engine_xstream::current()?;
        let sched = Rc::clone(xstream.sched()?);
        let waiting = Rc::new(Kicked {
            endpoint,
            sched: Rc::downgrade(&sched),
            requests: RefCell::default(),
        });
        let source = sched.add_source(waiting.clone());
        Some(Queue {
            sched,
            source,
            waiting,
        })
    }

    /// A request that has a class waits for its kick; others are handled now.
    pub(crate) fn take_in(&self, endpoint: &Endpoint, handler: Found, request: Request) {
        let opcode = request.opcode();
        let class = endpoint.contain(opcode, "classification", || handler.classify(&request));
        let Some(attr) = class.flatten() else {
            return endpoint.run(&handler, request);
        };
        let attr = with_requesters(attr, &request);
        let key = self.waiting.requests.borrow_mut().insert(Waiting {
            handler,
            request,
            ticket: None,
        });
        let admission = self.sched.submit(self.source, key as u32, &attr);
        let mut requests = self.waiting.requests.borrow_mut();
        if let Admission::Queued(ticket) = admission {
            requests[key].ticket = Some(ticket);
            return;
        }
        let Waiting {
            handler,
            mut request,
            ..
        } = requests.remove(key);
        drop(requests);
        if let Admission::Rejected(rejected) = admission {
            return request.reject(rejected);
        }
        request.in_service(self.sched.serve(attr.class));
        endpoint.run(&handler, request);
    }

    /// The service ends: whoever still waits is answered.
    pub(crate) fn close(&self) {
        let all = std::mem::take(&mut *self.waiting.requests.borrow_mut());
        for (_, waiting) in all {
            if let Some(ticket) = waiting.ticket {
                self.sched.cancel(ticket);
            }
            waiting.request.reply_error(Der::SHUTDOWN);
        }
    }
}

/// What the requester said counts where the module said nothing.
fn with_requesters(attr: Attr, request: &Request) -> Attr {
    let info = request.info();
    let or = |own: u32, other: u32| if own == 0 { other } else { own };
    Attr {
        timeout_ms: or(attr.timeout_ms, info.timeout_ms),
        enqueue_id: if attr.enqueue_id == 0 {
            info.enqueue_id
        } else {
            attr.enqueue_id
        },
        ..attr
    }
}
