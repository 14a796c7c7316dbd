//! Times, bounds and modes.

use daos_errno::Der;

/// Nanoseconds: a point on the caller's monotonic clock, or a length of time.
pub type Nanos = u64;

/// Longest value that travels inside a message (DAOS: 20 KiB less 1 KiB for the rest).
pub const INLINE: usize = 19_456;

/// What a machine waits for and how much it keeps. At each bound an operation or message is refused with the code given there.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a silent peer is waited for before a question is asked again; doubles with each attempt up to sixteen times.
    pub hop_ns: Nanos,
    /// First pause after a refusal that may pass (NOTLEADER, GRPVER, BUSY ...); doubles up to `hop_ns`.
    pub pause_ns: Nanos,
    /// Operations of this rank at a time: BUSY.
    pub max_operations: usize,
    /// Variables that a namespace keeps something of: NOMEM for another one.
    pub max_entries: usize,
    /// Who waits for one variable's fetch at a time: BUSY.
    pub max_waiters: usize,
    /// Changes of others on their way up through this rank, and changes on their way down, each: BUSY.
    pub max_passing: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            hop_ns: 500_000_000,
            pause_ns: 1_000_000,
            max_operations: 4096,
            max_entries: 65_536,
            max_waiters: 1024,
            max_passing: 4096,
        }
    }
}

/// How a change comes down from the root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sync {
    /// Not at all: done when the root has it. Others see it when they fetch next.
    #[default]
    None,
    /// To all: done when all have it. It fails if one does not take it, and the others keep it.
    Eager,
    /// To all: done when the root has it.
    Lazy,
    /// The value that the root makes of it comes back the way that the change went up, and each rank there keeps it.
    Bidirectional,
}

/// Which way a question goes up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shortcut {
    /// From parent to parent; each may answer, or keep the answer.
    #[default]
    None,
    /// Straight to the root.
    ToRoot,
}

/// How a change travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct How {
    /// Down.
    pub sync: Sync,
    /// Up.
    pub shortcut: Shortcut,
}

impl From<Sync> for How {
    fn from(sync: Sync) -> How {
        How {
            sync,
            shortcut: Shortcut::None,
        }
    }
}

/// Whether the same question may be answered otherwise a moment later (DAOS `server_iv.c`: retryable RPC codes, NOTLEADER, BUSY).
pub(crate) fn is_transient(der: Der) -> bool {
    matches!(
        der,
        Der::TIMEDOUT
            | Der::GRPVER
            | Der::EXCLUDED
            | Der::UNREACH
            | Der::NOTLEADER
            | Der::BUSY
            | Der::OOG
    )
}
