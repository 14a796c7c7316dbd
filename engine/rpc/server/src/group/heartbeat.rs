//! Who of the group is there: every member is asked, again and again, and says which life it lives.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use daos_errno::Der;
use rpc_wire::Opcode;
use spdk_thread::{Thread, quiet, timeout};

use crate::group::collective::{self, SPREAD};
use crate::group::{Group, Membership, RankCall, Ranks};
use crate::registry::{HandlerEntry, RegisterError, Registry};
use crate::request::Request;

/// Module id of the calls that engines keep their group together with.
pub const GROUP_MODULE: u8 = 127;
const PING: Opcode = Opcode::new(GROUP_MODULE, 1, 0);
/// A member with another version of the group is told the newer one: the only call that needs no common version.
pub const GROUP_TELL: Opcode = Opcode::new(GROUP_MODULE, 1, 1);

/// Lets the engine answer other members' heartbeats (its life in 8 bytes, little-endian), and take its part in collective calls;
/// `told` handles [`GROUP_TELL`].
///
/// # Errors
/// When it does already.
pub fn register(
    registry: &Registry,
    membership: &Membership,
    told: impl Fn(Request) + Send + Sync + 'static,
) -> Result<(), RegisterError> {
    let membership = membership.clone();
    let ping = move |request: Request| {
        request.reply(0, &membership.incarnation().to_le_bytes(), None);
    };
    let entries = vec![
        HandlerEntry::new(PING.index(), "group_ping", Arc::new(ping)),
        HandlerEntry::new(GROUP_TELL.index(), "group_tell", Arc::new(told)),
        HandlerEntry::new(SPREAD.index(), "group_spread", Arc::new(collective::serve)),
    ];
    registry.register_protocol(GROUP_MODULE, PING.version(), entries)
}

/// Whether a member is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It never answered, and had not the time yet.
    Unknown,
    /// It has answered within the time that a member may be silent.
    Alive,
    /// It has not.
    Silent,
}

/// A member as it was seen last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its rank.
    pub rank: u32,
    /// Where it is asked.
    pub address: SocketAddr,
    /// Whether it is there.
    pub presence: Presence,
    /// Which life it said it lives; 0: it never answered.
    pub incarnation: u64,
    /// When it answered last, ns of the thread's clock; before that, when it was asked first.
    pub heard_ns: u64,
    /// How long the last answer took, ns.
    pub took_ns: u64,
    /// Why it did not answer the last time, if it did not: GRPVER, it has another version of the group.
    pub failure: Option<Der>,
}

/// What is known of the members. A handle: any thread may look.
#[derive(Clone, Default)]
pub struct Heartbeat {
    seen: Arc<Mutex<BTreeMap<u32, Seen>>>,
}

impl Heartbeat {
    /// Begins to ask every member but this one each `period`; one that has not answered for `silent` is silent. `heard` is told of each
    /// answer and each failure: what was known before, and what is now. On the system xstream; it ends with the RPC service.
    ///
    /// # Errors
    /// UNINIT off any xstream with an RPC service, NOMEM at the bound of tasks.
    pub fn start(
        membership: &Membership,
        (period, silent): (Duration, Duration),
        heard: impl Fn(&Seen, &Seen) + 'static,
    ) -> Result<Heartbeat, Der> {
        let (thread, ranks) = (
            spdk_thread::current().ok_or(Der::UNINIT)?,
            Ranks::current()?,
        );
        let heartbeat = Heartbeat::default();
        let beat = Beat {
            heartbeat: heartbeat.clone(),
            membership: membership.clone(),
            ranks,
            thread: thread.clone(),
            period,
            silent,
            heard: Box::new(heard),
        };
        let run = quiet(Rc::new(beat).run());
        drop(
            thread
                .spawn("group heartbeat", run)
                .map_err(|_| Der::NOMEM)?,
        );
        Ok(heartbeat)
    }

    /// All members but this engine, by rank.
    pub fn seen(&self) -> Vec<Seen> {
        self.lock().values().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Seen>> {
        // Plain values: a panic elsewhere leaves them whole.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Heartbeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.seen()).finish()
    }
}

/// Who is told of each answer: what was known before, and what is now.
type Heard = Box<dyn Fn(&Seen, &Seen)>;

struct Beat {
    heartbeat: Heartbeat,
    membership: Membership,
    ranks: Ranks,
    thread: Thread,
    period: Duration,
    silent: Duration,
    heard: Heard,
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Beat {
    async fn run(self: Rc<Self>) {
        loop {
            let group = self.membership.get();
            self.follow(&group);
            for member in group
                .members()
                .iter()
                .filter(|m| m.rank != self.membership.me())
            {
                let ask = quiet(Rc::clone(&self).ask(member.rank));
                if self.thread.spawn("group ping", ask).is_err() {
                    tracing::warn!(
                        rank = member.rank,
                        "no task to ask this member: the xstream is at its bound"
                    );
                }
            }
            if timeout(nanos(self.period), self.ranks.closed())
                .await
                .is_ok()
            {
                return;
            }
        }
    }

    /// Members come and go with the group.
    fn follow(&self, group: &Group) {
        let now = self.thread.now();
        let mut seen = self.heartbeat.lock();
        seen.retain(|rank, _| group.member(*rank).is_some());
        for member in group
            .members()
            .iter()
            .filter(|m| m.rank != self.membership.me())
        {
            let entry = seen.entry(member.rank).or_insert(Seen {
                rank: member.rank,
                address: member.address,
                presence: Presence::Unknown,
                incarnation: 0,
                heard_ns: now,
                took_ns: 0,
                failure: None,
            });
            entry.address = member.address;
        }
    }

    async fn ask(self: Rc<Self>, rank: u32) {
        let begun = self.thread.now();
        // One period and a bit: the next question does not wait for this one's end.
        let limit = self.period.max(Duration::from_millis(100)) * 2;
        let answer = self
            .ranks
            .call(rank, RankCall::new(PING, Vec::new(), limit))
            .await;
        let life = answer.and_then(|reply| {
            let reply = reply.into_result()?;
            let bytes = reply.body.as_slice().try_into().map_err(|_| Der::PROTO)?;
            Ok(u64::from_le_bytes(bytes))
        });
        let now = self.thread.now();
        let (before, after) = {
            let mut seen = self.heartbeat.lock();
            let Some(member) = seen.get_mut(&rank) else {
                return;
            };
            let before = *member;
            match life {
                Ok(life) => {
                    (member.incarnation, member.heard_ns) = (life.max(member.incarnation), now);
                    (member.took_ns, member.failure) = (now - begun, None);
                    member.presence = Presence::Alive;
                }
                Err(der) => {
                    member.failure = Some(der);
                    if now - member.heard_ns >= nanos(self.silent) {
                        member.presence = Presence::Silent;
                    }
                }
            }
            (before, *member)
        };
        (self.heard)(&before, &after);
    }
}
