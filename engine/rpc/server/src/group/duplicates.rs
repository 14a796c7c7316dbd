//! Calls that came before: a call that an engine sends again, because its connection broke before the answer came, is not carried out
//! again but gets the same answer.
//!
//! It comes in on the xstream that its first attempt came in on, for both connections asked for the same tag.

use std::collections::{BTreeMap, HashMap};

use daos_errno::Der;
use rpc_wire::Stamp;

use crate::request::Request;

/// Calls of one lane that are known. A caller has fewer in flight; an older one that comes again is answered ALREADY.
const KNOWN: usize = 256;
/// Lanes: xstreams of other engines. At the bound BUSY.
const LANES: usize = 4096;
/// Longest answer that is kept; one that is longer or has bulk data is answered ALREADY when its call comes again.
const KEPT_BODY: usize = 4096;
/// Attempts of one call that wait for the same answer; one more gets BUSY.
const ATTEMPTS: usize = 4;

/// What becomes of a call.
pub(crate) enum Admitted {
    New(Request),
    /// Its answer comes with that of its first attempt.
    Waits,
    /// To be answered so.
    Known(Request, i32, Vec<u8>),
}

#[derive(Default)]
pub(crate) struct Duplicates {
    lanes: HashMap<(u32, u32), Lane>,
}

#[derive(Default)]
struct Lane {
    incarnation: u64,
    calls: BTreeMap<u64, Call>,
    /// Numbers up to here are forgotten.
    forgotten: u64,
}

enum Call {
    /// Its handler has it; these attempts wait.
    Running(Vec<Request>),
    Done {
        status: i32,
        body: Option<Vec<u8>>,
    },
}

impl Duplicates {
    /// Looks a call up. What is answered or stored here loses its stamp, so that its answer counts for no call.
    pub(crate) fn admit(&mut self, stamp: &Stamp, mut request: Request) -> Admitted {
        let refused = |mut request: Request, der: Der| {
            request.forget_stamp();
            Admitted::Known(request, der.neg(), Vec::new())
        };
        let at = (stamp.rank, stamp.lane);
        if !self.lanes.contains_key(&at) && self.lanes.len() >= LANES {
            return refused(request, Der::BUSY);
        }
        let lane = self.lanes.entry(at).or_default();
        if stamp.incarnation > lane.incarnation {
            // What the former life asked for is over.
            *lane = Lane {
                incarnation: stamp.incarnation,
                ..Lane::default()
            };
        }
        if stamp.incarnation < lane.incarnation || stamp.number <= lane.forgotten {
            return refused(request, Der::ALREADY);
        }
        let known = lane.calls.contains_key(&stamp.number);
        if !known && lane.calls.len() >= KNOWN && !lane.forget_one() {
            return refused(request, Der::BUSY);
        }
        match lane.calls.get_mut(&stamp.number) {
            Some(Call::Running(waiting)) if waiting.len() < ATTEMPTS => {
                request.forget_stamp();
                waiting.push(request);
                Admitted::Waits
            }
            Some(Call::Running(_)) => refused(request, Der::BUSY),
            Some(Call::Done { body: None, .. }) => refused(request, Der::ALREADY),
            Some(Call::Done {
                status,
                body: Some(body),
            }) => {
                request.forget_stamp();
                Admitted::Known(request, *status, body.clone())
            }
            None => {
                lane.calls.insert(stamp.number, Call::Running(Vec::new()));
                Admitted::New(request)
            }
        }
    }

    /// A call has its answer; `None`: it was not carried out, so the next attempt is new. Gives the attempts that wait for it.
    pub(crate) fn finish(
        &mut self,
        stamp: &Stamp,
        answer: Option<(i32, &[u8], bool)>,
    ) -> Vec<Request> {
        let lane = self.lanes.get_mut(&(stamp.rank, stamp.lane));
        let Some(lane) = lane.filter(|lane| lane.incarnation == stamp.incarnation) else {
            return Vec::new();
        };
        let before = match answer {
            None => lane.calls.remove(&stamp.number),
            Some((status, body, bulk)) => {
                let kept = !bulk && body.len() <= KEPT_BODY;
                let body = kept.then(|| body.to_vec());
                lane.calls.insert(stamp.number, Call::Done { status, body })
            }
        };
        match before {
            Some(Call::Running(waiting)) => waiting,
            _ => Vec::new(),
        }
    }
}

impl Lane {
    /// Makes room by the oldest call that has its answer.
    fn forget_one(&mut self) -> bool {
        let done =
            |(number, call): (&u64, &Call)| matches!(call, Call::Done { .. }).then_some(*number);
        let Some(number) = self.calls.iter().find_map(done) else {
            return false;
        };
        self.calls.remove(&number);
        self.forgotten = self.forgotten.max(number);
        // Older ones that still run stay known: `forgotten` is looked at first, their attempts hear ALREADY.
        true
    }
}
