//! The cycle: what comes in waits in its pool's queue of its class; each cycle kicks what limits and fairness allow.

use crate::attr::{Attr, CLASSES, Class, Flags, PoolId};
use crate::deadlines::Deadlines;
use crate::limits::{self, FREE, Load};
use crate::options::{
    MAX_CYCLE_MS, MAX_URGENT, MAX_VAIN_VISITS, Options, PRESSED_BURST, QUANTUM, SPARE_ENTRIES,
    SYS_BURST,
};
use crate::overload::{self, Rejected};
use crate::pool::{Pool, Pools, SHARED};
use crate::pressure::Medium;
use crate::queue::Fifo;
use crate::ring::Ring;
use crate::slab::{NONE, Place, Slab};
use crate::stats::SchedStats;
use crate::window::Window;

const IO: usize = 0;
const SYS: usize = 1;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It waits for [`Scheduler::next`].
    Queued(Ticket),
    /// It must not be refused and there is no room: run it now.
    RunNow,
    /// It would not be done in time.
    Rejected(Rejected),
}

/// A queued request, to [`cancel`](Scheduler::cancel) it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    index: u32,
    generation: u32,
}

/// A request whose time has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kick {
    /// The caller's number for it.
    pub token: u64,
    /// Its class.
    pub class: Class,
    /// Its enqueue id.
    pub enqueue_id: u64,
    /// How long it waited, nanoseconds.
    pub waited_ns: u64,
    /// For its deadline, or because it must not wait; not by the limits.
    pub urgent: bool,
}

/// The scheduler of one main xstream.
#[derive(Debug)]
pub struct Scheduler {
    options: Options,
    slab: Slab,
    pools: Pools,
    deadlines: Deadlines,
    urgent: Fifo,
    rings: [Ring; 2],
    /// Of all pools together.
    window: Window,
    /// Weights queued that go through the queues of pools, by class.
    waiting: [u32; CLASSES],
    next_id: u64,
    now_ns: u64,
    cycle: u64,
    /// Cycles that kicked something: what windows count, or an idle xstream's cycles, a million a second, would empty them.
    active: u64,
    active_now: bool,
    /// What this cycle may still do.
    budget: i64,
    urgent_left: u32,
    vain: [u32; 2],
    background_left: u32,
    burst_left: u32,
    stopping: bool,
    stats: SchedStats,
}

impl Scheduler {
    /// An empty one.
    #[must_use]
    pub fn new(options: Options) -> Scheduler {
        let most = options
            .max_queued
            .saturating_add(SPARE_ENTRIES)
            .min(NONE - 1);
        Scheduler {
            slab: Slab::new(options.prepared, most),
            pools: Pools::new(options.max_pools),
            deadlines: Deadlines::new(),
            urgent: Fifo::EMPTY,
            rings: [Ring::EMPTY; 2],
            window: Window::new(),
            waiting: [0; CLASSES],
            next_id: 1,
            now_ns: 0,
            cycle: 0,
            active: 0,
            active_now: false,
            budget: 0,
            urgent_left: 0,
            vain: [0; 2],
            background_left: 0,
            burst_left: 0,
            stopping: false,
            stats: SchedStats::default(),
            options,
        }
    }

    /// Takes in a request, or says that it comes too late. `now_ns` never goes back: an earlier time counts as the last one.
    pub fn enqueue(&mut self, now_ns: u64, attr: &Attr, token: u64) -> Admission {
        self.set_now(now_ns);
        let class = attr.class.at();
        // An id that was never given is of another xstream, or of an earlier life of this one: the request is new here.
        let resent = attr.enqueue_id != 0 && attr.enqueue_id < self.next_id;
        let id = if resent {
            attr.enqueue_id
        } else {
            self.take_id()
        };
        self.stats.classes[class].resent += u64::from(resent);
        let may_refuse = attr.class.is_io() && !attr.flags.has(Flags::NO_REJECT) && !self.stopping;
        if may_refuse && let Some(retry_after_ms) = self.refuses(attr.timeout_ms) {
            return self.reject(class, id, retry_after_ms);
        }
        let Some(index) = self.slab.take() else {
            if may_refuse {
                return self.reject(class, id, 10);
            }
            self.count_kick(SHARED, attr.class, attr.flags, attr.slice);
            return Admission::RunNow;
        };
        let pool = self.pools.get(attr.pool);
        let wait_ms = match u64::from(attr.timeout_ms) {
            timeout if timeout > MAX_CYCLE_MS => timeout - MAX_CYCLE_MS,
            _ => u64::from(self.options.max_wait_ms),
        };
        let entry = &mut self.slab[index];
        let generation = entry.generation;
        (entry.token, entry.id, entry.arrived_ns) = (token, id, self.now_ns);
        (entry.pool, entry.class, entry.flags) = (pool, attr.class, attr.flags);
        entry.slice = attr.slice;
        // DAOS kicks what is older than its time-out less the longest cycle.
        entry.fires_ms = self.now_ns / 1_000_000 + wait_ms + 1;
        self.stats.classes[class].queued += 1;
        let record = &mut self.pools.all[pool as usize];
        record.queued += 1;
        if attr.flags.has(Flags::NO_DELAY) {
            entry.place = Place::Urgent;
            self.urgent.push(&mut self.slab, index);
        } else {
            record.queues[class].push(&mut self.slab, index, resent);
            self.waiting[class] += attr.class.weight();
            self.deadlines.insert(&mut self.slab, index);
            let ring = if attr.class.is_io() { IO } else { SYS };
            if !record.links[ring].linked {
                self.rings[ring].insert(&mut self.pools.all, pool, |pool| &mut pool.links[ring]);
            }
        }
        self.pools.note_use(pool);
        Admission::Queued(Ticket { index, generation })
    }

    fn take_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    fn refuses(&self, timeout_ms: u32) -> Option<u32> {
        let queued = |class: Class| self.stats.class(class).queued;
        let (updates, fetches) = (queued(Class::Update), queued(Class::Fetch));
        overload::refuses(updates, fetches, timeout_ms, self.options.max_queued)
    }

    fn reject(&mut self, class: usize, enqueue_id: u64, retry_after_ms: u32) -> Admission {
        self.stats.classes[class].rejected += 1;
        Admission::Rejected(Rejected {
            enqueue_id,
            retry_after_ms,
        })
    }

    /// Takes a queued request out; `None` when it has been kicked already.
    pub fn cancel(&mut self, ticket: Ticket) -> Option<u64> {
        let entry = self.slab.get(ticket.index)?;
        let queued = entry.generation == ticket.generation && entry.place != Place::Free;
        queued.then(|| self.take_out(ticket.index))
    }

    /// Begins a cycle. Then [`next`](Self::next) gives its requests.
    pub fn begin_cycle(&mut self, now_ns: u64) {
        self.set_now(now_ns);
        self.cycle += 1;
        self.stats.cycles += 1;
        self.active += u64::from(std::mem::take(&mut self.active_now));
        self.budget = i64::from(self.options.kick_limit);
        self.urgent_left = MAX_URGENT;
        self.vain = [0; 2];
        let load = Load {
            recent: self.window.recent(self.active, self.now_ms()),
            queued: self.waiting,
        };
        self.background_left = limits::background(&load, self.options.kick_limit);
        let waits = self.waiting[0] + self.waiting[1] > 0 || load.recent[0] + load.recent[1] > 0;
        self.burst_left = if waits { PRESSED_BURST } else { FREE };
        for _ in 0..MAX_URGENT {
            let Some(index) = self
                .deadlines
                .expire(&mut self.slab, self.now_ns / 1_000_000)
            else {
                break;
            };
            self.leave_queue(index);
            self.slab[index].place = Place::Urgent;
            self.urgent.push(&mut self.slab, index);
        }
    }

    /// The next request of this cycle: what is urgent, then background work within its share, then clients' requests,
    /// pool by pool.
    #[expect(
        clippy::should_implement_trait,
        reason = "it borrows nothing and ends with the cycle, not for ever"
    )]
    pub fn next(&mut self) -> Option<Kick> {
        if self.urgent_left > 0
            && let Some(index) = self.urgent.first()
        {
            self.urgent_left -= 1;
            return Some(self.kick(index, true));
        }
        if self.budget <= 0 {
            return None;
        }
        let index = self.pick(SYS).or_else(|| self.pick(IO))?;
        Some(self.kick(index, false))
    }

    /// A request that is not a slice has been answered.
    #[inline]
    pub fn finished(&mut self, class: Class) {
        self.stats.in_service = self.stats.in_service.saturating_sub(class.weight());
    }

    /// Goes round the pools, each of which may kick a quantum before it is the next one's turn.
    fn pick(&mut self, ring: usize) -> Option<u32> {
        let background = self.may_do_background();
        let shut = if ring == IO {
            self.is_full()
        } else {
            self.burst_left == 0 || !background && self.pools.pressed == 0
        };
        if shut && !self.stopping {
            return None;
        }
        while self.rings[ring].len() > 0
            && self.vain[ring] < self.rings[ring].len().min(MAX_VAIN_VISITS)
        {
            let at = self.rings[ring].at();
            self.refresh_limits(at);
            if ring == SYS && !background && !self.is_pressed(at) {
                // All pools' share is used up; whose turn it is, and how much is left of it, stays.
                self.vain[ring] += 1;
                let link = self.pools.all[at as usize].links[ring];
                self.rings[ring].advance(link);
                continue;
            }
            if self.pools.all[at as usize].links[ring].deficit <= 0 {
                self.pools.all[at as usize].links[ring].deficit += QUANTUM;
            }
            let found = if ring == IO {
                self.first_io(at)
            } else {
                self.first_background(at)
            };
            let link = &mut self.pools.all[at as usize].links[ring];
            let Some(index) = found else {
                link.deficit = 0;
                self.vain[ring] += 1;
                let link = *link;
                self.rings[ring].advance(link);
                continue;
            };
            self.vain[ring] = 0;
            link.deficit -= self.slab[index].class.weight() as i32;
            let link = *link;
            if link.deficit <= 0 {
                self.rings[ring].advance(link);
            }
            return Some(index);
        }
        None
    }

    /// Whether pools that have space may do background work: they keep to the share of all pools together.
    fn may_do_background(&self) -> bool {
        let burst = self.burst_left > PRESSED_BURST - SYS_BURST;
        self.background_left > 0 && burst || self.stopping
    }

    fn is_pressed(&mut self, at: u32) -> bool {
        let now_ms = self.now_ms();
        self.pools.all[at as usize].pressure.level(now_ms) > 0
    }

    fn is_full(&self) -> bool {
        let bound = self.options.max_in_service;
        bound > 0 && self.stats.in_service >= bound && !self.stopping
    }

    /// The pool's limits are those of this cycle from here on.
    fn refresh_limits(&mut self, at: u32) {
        let (cycle, active) = (self.cycle, self.active);
        let (now_ms, kick_limit) = (self.now_ms(), self.options.kick_limit);
        let pool = &mut self.pools.all[at as usize];
        if pool.limits_of == cycle {
            return;
        }
        pool.limits_of = cycle;
        pool.spent = [0; CLASSES];
        pool.background_left = FREE;
        if self.stopping {
            pool.limits = [FREE; CLASSES];
            return;
        }
        let load = Load {
            recent: pool.window.recent(active, now_ms),
            queued: Class::ALL.map(|class| pool.queues[class.at()].len() * class.weight()),
        };
        pool.limits = match pool.pressure.level(now_ms) {
            0 => {
                pool.background_left = limits::background(&load, kick_limit);
                limits::unpressed(&load, pool.generation, kick_limit)
            }
            level => {
                let asleep = pool.gc_asleep(load.queued[Class::Gc.at()]);
                let through = pool.pressure.lets_through(now_ms, asleep);
                limits::pressed(&load, level, through, pool.generation, kick_limit)
            }
        };
    }

    /// Update or fetch, whichever came first, if its class is not at its limit.
    fn first_io(&mut self, at: u32) -> Option<u32> {
        let slab = &self.slab;
        let pool = &mut self.pools.all[at as usize];
        let mut best: Option<u32> = None;
        for class in [Class::Update.at(), Class::Fetch.at()] {
            if pool.spent[class] >= pool.limits[class] {
                continue;
            }
            if let Some(index) = pool.queues[class].first(slab)
                && best.is_none_or(|best| slab[index].id < slab[best].id)
            {
                best = Some(index);
            }
        }
        best
    }

    /// Gc and migrate in turns, scrub after them, and once in 256 times before them.
    fn first_background(&mut self, at: u32) -> Option<u32> {
        let slab = &self.slab;
        let pool = &mut self.pools.all[at as usize];
        if pool.background_left == 0 {
            return None;
        }
        let order = match pool.generation {
            0 => [Class::Scrub, Class::Gc, Class::Migrate],
            odd if odd % 2 == 1 => [Class::Migrate, Class::Gc, Class::Scrub],
            _ => [Class::Gc, Class::Migrate, Class::Scrub],
        };
        order
            .into_iter()
            .map(Class::at)
            .filter(|&class| pool.spent[class] < pool.limits[class])
            .find_map(|class| pool.queues[class].first(slab))
    }

    fn kick(&mut self, index: u32, urgent: bool) -> Kick {
        let entry = &self.slab[index];
        let (class, flags, slice) = (entry.class, entry.flags, entry.slice);
        let (enqueue_id, arrived, at) = (entry.id, entry.arrived_ns, entry.pool);
        let weight = class.weight();
        let pool = &mut self.pools.all[at as usize];
        pool.spent[class.at()] += weight;
        if !class.is_io() {
            // Scrub counts only where it was let through, or it would use up the turns of the others.
            if class != Class::Scrub || pool.generation == 0 {
                pool.generation = pool.generation.wrapping_add(1);
            }
            let take = |left: &mut u32| {
                if *left != FREE {
                    *left = left.saturating_sub(weight);
                }
            };
            take(&mut pool.background_left);
            take(&mut self.burst_left);
            if pool.pressure.level(self.now_ns / 1_000_000) == 0 {
                take(&mut self.background_left);
            }
        }
        self.stats.classes[class.at()].urgent += u64::from(urgent);
        self.budget -= i64::from(weight);
        self.count_kick(at, class, flags, slice);
        let token = self.take_out(index);
        Kick {
            token,
            class,
            enqueue_id,
            waited_ns: self.now_ns.saturating_sub(arrived),
            urgent,
        }
    }

    fn count_kick(&mut self, pool: u32, class: Class, flags: Flags, slice: bool) {
        let (active, now_ms, weight) = (self.active, self.now_ms(), class.weight());
        self.active_now = true;
        self.stats.classes[class.at()].kicked += 1;
        if !slice {
            self.stats.in_service = self.stats.in_service.saturating_add(weight);
        }
        if !flags.has(Flags::PERIODIC) {
            self.window.add(active, now_ms, class.at(), weight);
            let pool = &mut self.pools.all[pool as usize];
            pool.window.add(active, now_ms, class.at(), weight);
        }
    }

    /// Out of its pool's queue and of the wheel.
    fn leave_queue(&mut self, index: u32) {
        let (at, class) = (self.slab[index].pool, self.slab[index].class);
        let ring = if class.is_io() { IO } else { SYS };
        self.deadlines.remove(&mut self.slab, index);
        let pool = &mut self.pools.all[at as usize];
        pool.queues[class.at()].remove(&mut self.slab, index);
        self.waiting[class.at()] -= class.weight();
        let of_ring = |class: &Class| class.is_io() == (ring == IO);
        let empty = Class::ALL
            .iter()
            .filter(|class| of_ring(class))
            .all(|class| pool.queues[class.at()].len() == 0);
        if empty {
            self.rings[ring].remove(&mut self.pools.all, at, |pool: &mut Pool| {
                &mut pool.links[ring]
            });
        }
    }

    /// Out of everything; the entry is free afterwards.
    fn take_out(&mut self, index: u32) -> u64 {
        let (at, token) = (self.slab[index].pool, self.slab[index].token);
        match self.slab[index].place {
            Place::Urgent => self.urgent.remove(&mut self.slab, index),
            _ => self.leave_queue(index),
        }
        let class = self.slab[index].class;
        self.stats.classes[class.at()].queued -= 1;
        self.pools.all[at as usize].queued -= 1;
        self.slab.give(index);
        self.pools.note_use(at);
        token
    }

    /// A ULT works for a pool, in a class; until [`detach`](Self::detach).
    pub fn attach(&mut self, pool: PoolId, class: Class) {
        let at = self.pools.get(pool);
        self.pools.all[at as usize].attached[class.at()] += 1;
        self.pools.note_use(at);
    }

    /// Undoes an [`attach`](Self::attach); the ULT is awake.
    pub fn detach(&mut self, pool: PoolId, class: Class) {
        let at = self.pools.find(pool).unwrap_or(SHARED);
        let count = &mut self.pools.all[at as usize].attached[class.at()];
        *count = count.saturating_sub(1);
        self.pools.note_use(at);
    }

    /// An attached ULT falls asleep, because it has nothing to do, or wakes.
    pub fn set_asleep(&mut self, pool: PoolId, class: Class, asleep: bool) {
        let at = self.pools.find(pool).unwrap_or(SHARED);
        let count = &mut self.pools.all[at as usize].asleep[class.at()];
        *count = if asleep {
            count.saturating_add(1)
        } else {
            count.saturating_sub(1)
        };
    }

    /// What a pool has on this target, for its pressure level, which is looked up every 2000 ms at most. `gc_gap_ms`: how
    /// long garbage collection may have to sleep though there is something to free.
    pub fn report_space(&mut self, pool: PoolId, media: &[Medium], gc_gap_ms: u64) {
        let at = self.pools.get(pool);
        if at != SHARED {
            let record = &mut self.pools.all[at as usize];
            record.gone = false;
            let pressed = record.pressure.report(media, gc_gap_ms);
            let before = std::mem::replace(&mut record.told_pressure, pressed);
            self.pools.pressed = self.pools.pressed + u32::from(pressed) - u32::from(before);
        }
    }

    /// A pool's pressure level; 0 for one that is not known.
    pub fn space_pressure(&mut self, now_ns: u64, pool: PoolId) -> u8 {
        self.set_now(now_ns);
        let now_ms = self.now_ms();
        let at = self.pools.find(pool);
        at.map_or(0, |at| self.pools.all[at as usize].pressure.level(now_ms))
    }

    /// A pool does not exist any more: its record goes when nothing of it is queued or attached.
    pub fn pool_gone(&mut self, pool: PoolId) {
        if let Some(at) = self.pools.find(pool)
            && at != SHARED
        {
            self.pools.all[at as usize].gone = true;
            self.pools.note_use(at);
        }
    }

    /// The xstream ends: from now on nothing is limited or refused; what is queued comes out as fast as cycles come.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Whether nothing is queued.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.slab.used() == 0
    }

    /// Totals and the present state.
    #[must_use]
    pub fn stats(&self) -> SchedStats {
        SchedStats {
            pools: self.pools.len() as u32,
            bytes: self.slab.bytes() + self.pools.bytes(),
            ..self.stats
        }
    }

    fn set_now(&mut self, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
        self.deadlines.advance_empty(self.now_ns / 1_000_000);
    }

    fn now_ms(&self) -> u64 {
        self.now_ns / 1_000_000
    }
}
