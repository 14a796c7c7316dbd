//! Questions to other ranks and their answers, as calls by rank: a question of the machine is a request, its answer the reply.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use daos_errno::Der;
use engine_iv::{Body, Message, NsId, Rank};
use engine_rpc::{HandlerEntry, Opcode, RankCall, Ranks, RegisterError, Registry, Request};
use engine_tls::TypedKey;
use spdk_thread::Thread;

use crate::incast::Local;
use crate::look;
use crate::service::Service;
use crate::wire::{self, Kind};

/// Module id of the calls that carry incast variables.
pub const IV_MODULE: u8 = 126;
pub(crate) const VERSION: u8 = 1;
/// The machine asks again long before.
const LONGEST: Duration = Duration::from_secs(8);

/// Takes questions in, on the system xstream.
pub(crate) fn register(registry: &Registry, key: TypedKey<Local>) -> Result<(), RegisterError> {
    let entry = |kind: Kind, name: &str| {
        let take = move |request: Request| {
            let here = engine_xstream::current();
            match here.and_then(|here| key.get(here.tls())?.service()) {
                Some(service) => asked(&service, kind, request),
                // Not started, stopped, or another xstream than the system's.
                None => request.reply_error(Der::UNINIT),
            }
        };
        HandlerEntry::new(kind as u16, name, Arc::new(take))
    };
    let operations = vec![
        entry(Kind::Fetch, "iv_fetch"),
        entry(Kind::Update, "iv_update"),
        entry(Kind::Sync, "iv_sync"),
        look::entry(key),
    ];
    registry.register_protocol(IV_MODULE, VERSION, operations)
}

fn asked(service: &Rc<Service>, kind: Kind, mut request: Request) {
    let Some(stamp) = request.engine() else {
        // Only members of the group share variables.
        return request.reply_error(Der::NO_PERM);
    };
    let bulk = request.take_bulk();
    let bulk = bulk
        .as_ref()
        .map(|(buffer, len)| &buffer.as_slice()[..*len]);
    let Some((message, token, budget)) = wire::question(kind, request.body(), bulk) else {
        return request.reply_error(Der::PROTO);
    };
    if let Some(request) = service
        .peers
        .hold((stamp.rank, kind, token), request, budget)
    {
        return request.reply_error(Der::OVERLOAD_RETRY);
    }
    service.meter.question(kind);
    service.receive(stamp.rank, message);
}

type Name = (Rank, Kind, u64);

struct Held {
    request: Request,
    until: u64,
}

/// System xstream only.
pub(crate) struct Peers {
    ranks: Option<Ranks>,
    most: usize,
    held: RefCell<HashMap<Name, Vec<Held>>>,
    count: Cell<usize>,
}

impl Peers {
    pub(crate) fn new(ranks: Option<Ranks>, most: usize) -> Peers {
        Peers {
            ranks,
            most,
            held: RefCell::default(),
            count: Cell::new(0),
        }
    }

    /// For questions that are not the machine's; `None`: no RPC service runs here.
    pub(crate) fn ranks(&self) -> Option<&Ranks> {
        self.ranks.as_ref()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count.get() == 0
    }

    /// Keeps a request until the machine answers its question; it comes back at the bound.
    fn hold(&self, name: Name, request: Request, budget: u64) -> Option<Request> {
        if self.count.get() >= self.most {
            return Some(request);
        }
        self.count.set(self.count.get() + 1);
        let now = spdk_thread::current().map_or(0, |thread| thread.now());
        let until = now.saturating_add(budget);
        self.held
            .borrow_mut()
            .entry(name)
            .or_default()
            .push(Held { request, until });
        None
    }

    /// Answers a question; nobody may wait for it any more.
    pub(crate) fn answer(&self, to: Rank, _ns: NsId, body: Body) {
        let Some((kind, token, answer)) = wire::answer(&body) else {
            return;
        };
        let held = self.held.borrow_mut().remove(&(to, kind, token));
        for held in held.into_iter().flatten() {
            self.count.set(self.count.get() - 1);
            match wire::bulk(answer.long.as_deref()) {
                Ok(bulk) => held.request.reply(0, &answer.body, bulk),
                Err(der) => held.request.reply_error(der),
            }
        }
    }

    /// Questions that their askers have given up.
    pub(crate) fn sweep(&self, now: u64) {
        let mut over = Vec::new();
        self.held.borrow_mut().retain(|_, all| {
            over.extend(all.extract_if(.., |held| held.until <= now));
            !all.is_empty()
        });
        self.end(over, Der::TIMEDOUT);
    }

    pub(crate) fn stop(&self) {
        let all = std::mem::take(&mut *self.held.borrow_mut());
        self.end(all.into_values().flatten().collect(), Der::SHUTDOWN);
    }

    fn end(&self, all: Vec<Held>, der: Der) {
        self.count.set(self.count.get() - all.len());
        all.into_iter()
            .for_each(|held| held.request.reply_error(der));
    }

    /// Asks another rank in a task of its own.
    pub(crate) fn ask(&self, service: Weak<Service>, thread: &Thread, to: Rank, message: Message) {
        let Some((kind, token, question, budget)) = wire::ask(&message) else {
            return;
        };
        let ns = message.ns;
        let Some(ranks) = self.ranks.clone() else {
            return;
        };
        let task = async move {
            let result = match wire::bulk(question.long.as_deref()) {
                Err(der) => Err(der),
                Ok(bulk) => {
                    let opcode = Opcode::new(IV_MODULE, VERSION, kind as u16);
                    let limit = Duration::from_nanos(budget).min(LONGEST);
                    let call = RankCall {
                        bulk,
                        ..RankCall::new(opcode, question.body, limit)
                    };
                    ranks
                        .call(to, call)
                        .await
                        .and_then(engine_rpc::Reply::into_result)
                }
            };
            let body = match result {
                Ok(reply) => wire::answered(kind, token, &reply.body, reply.bulk_bytes()),
                Err(der) => wire::failed(kind, token, translated(der)),
            };
            if let Some(service) = service.upgrade() {
                let (group, term) = (0, 0);
                let message = Message {
                    ns,
                    group,
                    term,
                    body,
                };
                service.receive(to, message);
            }
        };
        // At the bound of tasks the question is lost, as it could be on its way: the machine asks again.
        drop(thread.spawn("iv question", task));
    }
}

/// What the transport says, in the machine's words: what passes by itself is tried again.
fn translated(der: Der) -> Der {
    match der {
        Der::OVERLOAD_RETRY => Der::BUSY,
        Der::SHUTDOWN | Der::UNINIT => Der::UNREACH,
        other => other,
    }
}
