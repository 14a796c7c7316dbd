//! What a request is: class, flags, pool, deadline.

/// Kinds of requests that are queued (DAOS: `enum sched_request_type`; its `ANONYM`, 5, is run at once).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Class {
    /// Changes data.
    Update = 0,
    /// Reads data.
    Fetch = 1,
    /// Frees space: aggregation, reclaim.
    Gc = 2,
    /// Verifies checksums.
    Scrub = 3,
    /// Moves data between targets.
    Migrate = 4,
}

/// How many classes there are.
pub(crate) const CLASSES: usize = 5;

impl Class {
    /// All, by number.
    pub const ALL: [Class; CLASSES] = [
        Class::Update,
        Class::Fetch,
        Class::Gc,
        Class::Scrub,
        Class::Migrate,
    ];
    /// DAOS's `SCHED_REQ_ANONYM`.
    pub const ANONYMOUS: u32 = 5;

    /// By DAOS's number; `None`: anonymous or unknown.
    #[must_use]
    pub fn from_raw(raw: u32) -> Option<Class> {
        Self::ALL.get(raw as usize).copied()
    }

    /// What one costs a cycle (DAOS: `src/engine/sched.c`).
    #[must_use]
    #[inline]
    pub const fn weight(self) -> u32 {
        match self {
            Class::Update | Class::Migrate => 2,
            Class::Fetch => 1,
            Class::Gc => 4,
            Class::Scrub => 3,
        }
    }

    /// Microseconds that one is reckoned to take (DAOS: `src/engine/sched.c`).
    #[must_use]
    pub const fn cost_us(self) -> u64 {
        match self {
            Class::Update | Class::Migrate => 10,
            Class::Fetch => 5,
            Class::Gc => 20,
            Class::Scrub => 15,
        }
    }

    /// For logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Class::Update => "update",
            Class::Fetch => "fetch",
            Class::Gc => "gc",
            Class::Scrub => "scrub",
            Class::Migrate => "migrate",
        }
    }

    /// Whether clients wait for it: update or fetch.
    #[must_use]
    #[inline]
    pub const fn is_io(self) -> bool {
        matches!(self, Class::Update | Class::Fetch)
    }

    #[inline]
    pub(crate) const fn at(self) -> usize {
        self as usize
    }
}

/// DAOS's `SCHED_REQ_FL_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(u32);

impl Flags {
    /// None.
    pub const NONE: Flags = Flags(0);
    /// Kicked in the next cycle, whatever the limits.
    pub const NO_DELAY: Flags = Flags(1);
    /// Comes again and again by itself: does not count as activity that others give way to.
    pub const PERIODIC: Flags = Flags(1 << 1);
    /// Never refused for overload.
    pub const NO_REJECT: Flags = Flags(1 << 2);
    /// Was refused before; set by an enqueue id.
    pub const RESENT: Flags = Flags(1 << 3);
    const KNOWN: u32 = 0xf;

    /// From a module's number. The second value: bits that mean nothing here; they are dropped.
    #[must_use]
    pub const fn from_raw(raw: u32) -> (Flags, u32) {
        (Flags(raw & Self::KNOWN), raw & !Self::KNOWN)
    }

    /// Whether all of `other` are set.
    #[must_use]
    #[inline]
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both.
    #[must_use]
    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

/// A pool's uuid. All zeroes: of no pool in particular; such requests share a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct PoolId(pub [u8; 16]);

/// What a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// Whose.
    pub pool: PoolId,
    /// What kind.
    pub class: Class,
    /// How.
    pub flags: Flags,
    /// The requester gives up after so many milliseconds; 0: it does not say.
    pub timeout_ms: u32,
    /// The id that a refusal gave; 0: a new request.
    pub enqueue_id: u64,
    /// `true`: being kicked is all there is to it, a slice of a ULT's work. `false`: it counts as in service until
    /// [`Scheduler::finished`](crate::Scheduler::finished).
    pub slice: bool,
}

impl Attr {
    /// A new request without flags and deadline.
    #[must_use]
    pub const fn new(pool: PoolId, class: Class) -> Attr {
        Attr {
            pool,
            class,
            flags: Flags::NONE,
            timeout_ms: 0,
            enqueue_id: 0,
            slice: false,
        }
    }

    /// A slice of a ULT's work.
    #[must_use]
    pub const fn slice(pool: PoolId, class: Class) -> Attr {
        Attr {
            slice: true,
            ..Attr::new(pool, class)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_daos() {
        let names: Vec<_> = (0..7)
            .map(|raw| Class::from_raw(raw).map(Class::name))
            .collect();
        let known = ["update", "fetch", "gc", "scrub", "migrate"].map(Some);
        assert_eq!(names[..5], known);
        assert_eq!(names[5..], [None, None], "anonymous and unknown");
        assert_eq!(Class::ALL.map(Class::weight), [2, 1, 4, 3, 2]);
        assert_eq!(Class::ALL.map(Class::cost_us), [10, 5, 20, 15, 10]);
    }

    #[test]
    fn unknown_flags_are_told_and_dropped() {
        assert_eq!(Flags::from_raw(0b1_0101), (Flags(0b0101), 0b1_0000));
        let (flags, _) = Flags::from_raw(u32::MAX);
        assert!(flags.has(Flags::NO_DELAY.with(Flags::RESENT)));
    }
}
