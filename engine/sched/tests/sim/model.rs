//! What a run must keep: every request is kicked or refused once, in time, in order.

use engine_sched::{Admission, Attr, Class, Flags, Kick, Options, PoolId, SchedStats, Scheduler};
use std::collections::{BTreeSet, HashMap};

pub(crate) const MS: u64 = 1_000_000;

pub(crate) fn pool(number: u64) -> PoolId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&(number + 1).to_le_bytes());
    PoolId(id)
}

struct Waiting {
    attr: Attr,
    id: u64,
    arrived_ns: u64,
}

/// A scheduler and what is known to be in it.
pub(crate) struct Model {
    pub(crate) sched: Scheduler,
    options: Options,
    pub(crate) now: u64,
    next_token: u64,
    waiting: HashMap<u64, Waiting>,
    youngest_id: u64,
    /// In service, by class.
    serving: Vec<Class>,
    pub(crate) kicked: u64,
    pub(crate) refused: u64,
    /// When whom to have kicked: (millisecond, token).
    due: BTreeSet<(u64, u64)>,
    /// Deadlines that came at once are kicked 6400 per cycle; tests that have more say so.
    pub(crate) many_deadlines: bool,
}

impl Model {
    pub(crate) fn new(options: Options) -> Model {
        Model {
            sched: Scheduler::new(options.clone()),
            options,
            now: 77 * MS,
            next_token: 0,
            waiting: HashMap::new(),
            youngest_id: 0,
            serving: Vec::new(),
            kicked: 0,
            refused: 0,
            due: BTreeSet::new(),
            many_deadlines: false,
        }
    }

    pub(crate) fn stats(&self) -> SchedStats {
        self.sched.stats()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Refused exactly when the rule says so; the id that the client comes back with then.
    pub(crate) fn enqueue(&mut self, attr: Attr) -> Result<(), u64> {
        let stats = self.stats();
        let queued = |class| u64::from(stats.class(class).queued);
        let (updates, fetches) = (queued(Class::Update), queued(Class::Fetch));
        let estimate = (updates * 10 + fetches * 5) / 1000;
        let late =
            attr.timeout_ms > 0 && estimate + estimate / 2 + 228 > u64::from(attr.timeout_ms);
        let full = updates + fetches >= u64::from(self.options.max_queued);
        let token = self.next_token;
        self.next_token += 1;
        match self.sched.enqueue(self.now, &attr, token) {
            Admission::Rejected(rejected) => {
                assert!(
                    attr.class.is_io() && !attr.flags.has(Flags::NO_REJECT),
                    "{attr:?} cannot be refused"
                );
                assert!(
                    updates + fetches > 0 && (late || full),
                    "{attr:?} was refused without need"
                );
                assert!(rejected.retry_after_ms >= 10);
                self.note_id(&attr, rejected.enqueue_id);
                self.refused += 1;
                Err(rejected.enqueue_id)
            }
            Admission::Queued(_) => {
                let id = if attr.enqueue_id == 0 || attr.enqueue_id > self.youngest_id {
                    self.youngest_id += 1;
                    self.youngest_id
                } else {
                    attr.enqueue_id
                };
                let arrived_ns = self.now;
                let waiting = Waiting {
                    attr,
                    id,
                    arrived_ns,
                };
                self.due.insert((self.due(&waiting), token));
                self.waiting.insert(token, waiting);
                Ok(())
            }
            Admission::RunNow => panic!("there is room for {attr:?}"),
        }
    }

    fn note_id(&mut self, attr: &Attr, id: u64) {
        if attr.enqueue_id == 0 || attr.enqueue_id > self.youngest_id {
            assert_eq!(id, self.youngest_id + 1, "ids rise by one");
            self.youngest_id = id;
        } else {
            assert_eq!(id, attr.enqueue_id, "who comes back keeps its id");
        }
    }

    /// One cycle at the present time. Requests stay in service until [`finish`](Self::finish).
    pub(crate) fn cycle(&mut self) -> Vec<(Attr, Kick)> {
        self.sched.begin_cycle(self.now);
        let mut kicks = Vec::new();
        while let Some(kick) = self.sched.next() {
            let Some(waiting) = self.waiting.remove(&kick.token) else {
                panic!("{kick:?} was kicked twice or never came");
            };
            self.due.remove(&(self.due(&waiting), kick.token));
            assert_eq!(
                (kick.class, kick.enqueue_id),
                (waiting.attr.class, waiting.id)
            );
            assert_eq!(kick.waited_ns, self.now - waiting.arrived_ns);
            self.kicked += 1;
            if !waiting.attr.slice {
                self.serving.push(kick.class);
            }
            kicks.push((waiting.attr, kick));
        }
        self.check_deadlines();
        let stats = self.stats();
        assert_eq!(stats.queued() as usize, self.waiting.len());
        let serving: u32 = self.serving.iter().map(|class| class.weight()).sum();
        assert_eq!(stats.in_service, serving);
        kicks
    }

    /// Nobody is left whose time had come.
    fn check_deadlines(&self) {
        if let (Some((due, token)), false) = (self.due.first(), self.many_deadlines) {
            assert!(
                self.now / MS <= *due,
                "{:?} should have been kicked",
                self.waiting[token].attr
            );
        }
    }

    fn due(&self, waiting: &Waiting) -> u64 {
        let bound = match u64::from(waiting.attr.timeout_ms) {
            timeout if timeout > 128 => timeout - 128,
            _ => u64::from(self.options.max_wait_ms),
        };
        waiting.arrived_ns / MS + bound
    }

    /// The oldest `count` requests in service are answered.
    pub(crate) fn finish(&mut self, count: usize) {
        for class in self.serving.drain(..count.min(self.serving.len())) {
            self.sched.finished(class);
        }
    }

    /// Cycles until nothing waits.
    pub(crate) fn drain(&mut self) {
        for _ in 0..10_000_000u64 {
            if self.waiting.is_empty() {
                assert!(self.sched.is_empty());
                return;
            }
            self.cycle();
            self.finish(usize::MAX);
            self.now += MS;
        }
        panic!("{} requests never came out", self.waiting.len());
    }
}
