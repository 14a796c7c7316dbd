//! Completion queue entries (Base 3.3.3.2, figure 90).

use crate::Status;

/// Bytes of a completion queue entry, as its power of two in CC.IOCQES says.
pub const COMPLETION_BYTES: usize = 16;

/// One completion as it lies in a completion queue: two little-endian words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Completion {
    /// Dwords 0 and 1: command specific.
    pub result: u64,
    /// Dwords 2 and 3: SQ head, SQ id, command id, phase and status.
    pub word: u64,
}

impl Completion {
    /// A completion with all its fields.
    #[must_use]
    pub const fn new(
        result: u64,
        sq_head: u16,
        sq: u16,
        cid: u16,
        status: Status,
        phase: bool,
    ) -> Completion {
        let status = (status.0 as u64) << 1 | phase as u64;
        Completion {
            result,
            word: sq_head as u64 | (sq as u64) << 16 | (cid as u64) << 32 | status << 48,
        }
    }

    /// Phase tag of the second word of an entry: set in odd rounds of the queue.
    #[inline]
    #[must_use]
    pub const fn phase_of(word: u64) -> bool {
        word & (1 << 48) != 0
    }

    /// Where the controller's head of the submission queue is.
    #[inline]
    #[must_use]
    pub const fn sq_head(&self) -> u16 {
        self.word as u16
    }

    /// The submission queue.
    #[inline]
    #[must_use]
    pub const fn sq(&self) -> u16 {
        (self.word >> 16) as u16
    }

    /// The command.
    #[inline]
    #[must_use]
    pub const fn cid(&self) -> u16 {
        (self.word >> 32) as u16
    }

    /// How it went.
    #[inline]
    #[must_use]
    pub const fn status(&self) -> Status {
        Status((self.word >> 49) as u16)
    }

    /// Phase tag.
    #[inline]
    #[must_use]
    pub const fn phase(&self) -> bool {
        Completion::phase_of(self.word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status;

    #[test]
    fn what_goes_in_comes_out() {
        let entry = Completion::new(
            7,
            0xfffe,
            3,
            0x1234,
            status::LBA_OUT_OF_RANGE.with_dnr(),
            true,
        );
        assert_eq!(
            (entry.sq_head(), entry.sq(), entry.cid()),
            (0xfffe, 3, 0x1234)
        );
        assert!(entry.phase() && entry.status().do_not_retry());
        assert_eq!(entry.status().without_flags(), status::LBA_OUT_OF_RANGE);
        assert_eq!(entry.word >> 48, 0x8101);
    }
}
