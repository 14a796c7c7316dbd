//! Calls from engine to engine, by rank.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use daos_errno::Der;
use rpc_wire::{Opcode, Stamp};
use spdk_env::DmaBuf;
use spdk_thread::{sleep_until, timeout};

use crate::calls::Reply;
use crate::endpoint::{self, Endpoint};
use crate::group::Member;
use crate::registry::Gather;
use crate::tcp::Payload;
use crate::transport::{Loopback, Transport};

/// Whether a call is sent again when its connection breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// No: the caller knows what to do. It fails at once when there is no connection and none can be made.
    No,
    /// Until its time is up, under the same number: the other engine carries it out once, and answers its attempts alike. Not
    /// with bulk data, which is gone with the first attempt, nor with an offer, whose taker is: UNREACH then.
    Once,
}

/// What is asked of another engine.
#[derive(Debug)]
pub struct RankCall {
    /// The xstream: 0 = system, 1 + t = main of target t.
    pub tag: u32,
    /// The operation.
    pub opcode: Opcode,
    /// The module's message.
    pub body: Vec<u8>,
    /// Raw data: a buffer and how many of its bytes count.
    pub bulk: Option<(DmaBuf, usize)>,
    /// Data that the handler takes in parts when it has room for them ([`crate::Request::pull`]), instead of `bulk`.
    pub offer: Option<Arc<DmaBuf>>,
    /// How long an answer is waited for. The other side hears of it: its scheduler refuses what cannot be done in time.
    pub limit: Duration,
    /// Whether it is sent again.
    pub again: Again,
}

impl RankCall {
    /// A call of the system xstream without bulk data, sent once.
    pub fn new(opcode: Opcode, body: Vec<u8>, limit: Duration) -> RankCall {
        RankCall {
            tag: 0,
            opcode,
            body,
            bulk: None,
            offer: None,
            limit,
            again: Again::No,
        }
    }
}

/// The way to the engines of the group, from the xstream that it was made on. Own xstream only.
#[derive(Clone)]
pub struct Ranks {
    endpoint: Rc<Endpoint>,
}

impl Ranks {
    /// The current xstream's; UNINIT where no RPC service runs, or off any xstream.
    pub fn current() -> Result<Ranks, Der> {
        endpoint::current()
            .map(|endpoint| Ranks { endpoint })
            .ok_or(Der::UNINIT)
    }

    /// Calls an engine of the group. Dropped, the call is forgotten: it is not sent again, and its answer goes nowhere.
    ///
    /// # Errors
    /// No answer came: OOG (no such rank in the group), UNREACH (no connection, or it broke), TIMEDOUT, OVERLOAD_RETRY (the calls in
    /// flight are at their bound), OVERFLOW, SHUTDOWN, or why the engine refuses connections. What the other side answered
    /// is in [`Reply::status`], GRPVER among it: it has another version of the group.
    pub async fn call(&self, rank: u32, call: RankCall) -> Result<Reply, Der> {
        let endpoint = &self.endpoint;
        endpoint.metrics.rank_calls.increment(1);
        let limit = u64::try_from(call.limit.as_nanos()).unwrap_or(u64::MAX);
        let work = timeout(limit, self.attempts(rank, call, limit));
        let result = match endpoint.links().closing().or(work).await {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(Der::TIMEDOUT),
            None => Err(Der::SHUTDOWN),
        };
        if result.is_err() {
            endpoint.metrics.rank_failures.increment(1);
        }
        result
    }

    /// This engine's rank.
    pub(super) fn me(&self) -> u32 {
        self.endpoint.group().membership().me()
    }

    pub(super) fn now(&self) -> u64 {
        self.endpoint.now()
    }

    /// How an operation's answers are put together, if they are.
    pub(super) fn gather(&self, opcode: Opcode) -> Option<Gather> {
        self.endpoint.gather(opcode)
    }

    /// Until the service ends here.
    pub async fn closed(&self) {
        self.endpoint.links().closing().wait().await;
    }

    async fn attempts(&self, rank: u32, mut call: RankCall, limit: u64) -> Result<Reply, Der> {
        let endpoint = &self.endpoint;
        let until = endpoint.now().saturating_add(limit);
        let number = match call.again {
            Again::No => 0,
            Again::Once => endpoint.next_call_id(),
        };
        let is_bare = call.bulk.is_none() && call.offer.is_none();
        let again = call.again == Again::Once && is_bare;
        loop {
            let (member, stamp) = self.look_up(rank, number)?;
            if rank == stamp.rank {
                let (body, bulk) = (std::mem::take(&mut call.body), call.bulk.take());
                let (own, tag, opcode) = (Loopback::current()?, call.tag, call.opcode);
                return match call.offer.take() {
                    Some(data) => own.call_offering(tag, opcode, body, data).await,
                    None => own.call(tag, opcode, body, bulk).await,
                };
            }
            let body = match again {
                true => call.body.clone(),
                false => std::mem::take(&mut call.body),
            };
            let not_before = match self.attempt(member, stamp, &mut call, body, until).await {
                Err((Der::UNREACH, when)) if again => when,
                Err((der, _)) => return Err(der),
                Ok(reply) => return Ok(reply),
            };
            endpoint.metrics.sent_again.increment(1);
            sleep_until(not_before).await;
        }
    }

    fn look_up(&self, rank: u32, number: u64) -> Result<(Member, Stamp), Der> {
        let endpoint = &self.endpoint;
        let membership = endpoint.group().membership();
        let (version, member) = endpoint
            .group()
            .with(|group| (group.version(), group.member(rank).copied()));
        let stamp = Stamp {
            group: version,
            rank: membership.me(),
            incarnation: membership.incarnation(),
            lane: endpoint.lane(),
            number,
            trace: spdk_thread::trace(),
        };
        Ok((member.ok_or(Der::OOG)?, stamp))
    }

    /// One attempt; with an error comes the time before which the next one is of no use.
    async fn attempt(
        &self,
        member: Member,
        stamp: Stamp,
        call: &mut RankCall,
        body: Vec<u8>,
        until: u64,
    ) -> Result<Reply, (Der, u64)> {
        let endpoint = &self.endpoint;
        let link = endpoint.links().get(member.rank, call.tag, member.address);
        let transport = link.open(endpoint, call.tag).await?;
        let left = until.saturating_sub(endpoint.now());
        let after_ms = u32::try_from(left / 1_000_000).unwrap_or(u32::MAX).max(1);
        let payload = Payload {
            body,
            bulk: call.bulk.take(),
            offer: call.offer.clone(),
        };
        let sent = transport.call_as_engine(call.tag, call.opcode, payload, stamp, after_ms);
        // The time of the call is the caller's; here it only says whose silence it was.
        match timeout(left, sent).await {
            Ok(answer) => {
                link.answered();
                answer.map_err(|der| (der, endpoint.now()))
            }
            Err(_) => {
                link.unanswered();
                Err((Der::TIMEDOUT, endpoint.now()))
            }
        }
    }
}

impl fmt::Debug for Ranks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ranks(from {})", self.endpoint.name())
    }
}
