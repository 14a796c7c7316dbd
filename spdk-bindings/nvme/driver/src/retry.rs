//! Whether a failed command is tried again.

use nvme_spec::{Status, status};

use crate::IoError;
use crate::options::MS;

/// What to do with a failed command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Again, after so many ns.
    Retry {
        after: u64,
    },
    Fail(IoError),
}

/// How long a namespace that is not ready is left alone.
const NOT_READY_DELAY: u64 = 100 * MS;

/// Decides. `aborted`: the driver had asked for the abort; `tries_left`: it may be tried again at all.
pub(crate) fn judge(status: Status, aborted: bool, tries_left: bool) -> Verdict {
    let plain = status.without_flags();
    if aborted && plain == status::ABORTED {
        return if tries_left {
            Verdict::Retry { after: 0 }
        } else {
            Verdict::Fail(IoError::TimedOut)
        };
    }
    let passing = match plain {
        status::NAMESPACE_NOT_READY | status::FORMAT_IN_PROGRESS => Some(NOT_READY_DELAY),
        status::ABORTED
        | status::ABORTED_SQ_DELETED
        | status::INTERNAL_ERROR
        | status::INTERRUPTED
        | status::TRANSIENT_TRANSPORT => Some(0),
        // Path errors (SCT 3).
        other if other.kind() == 3 => Some(0),
        _ => None,
    };
    match passing {
        Some(after) if tries_left && !status.do_not_retry() => Verdict::Retry { after },
        _ => Verdict::Fail(IoError::Status(status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let fail = |status| Verdict::Fail(IoError::Status(status));
        let again = Verdict::Retry { after: 0 };
        assert_eq!(judge(status::INTERRUPTED, false, true), again);
        assert_eq!(
            judge(status::INTERRUPTED, false, false),
            fail(status::INTERRUPTED)
        );
        let final_one = status::INTERRUPTED.with_dnr();
        assert_eq!(judge(final_one, false, true), fail(final_one));
        assert_eq!(
            judge(status::UNRECOVERED_READ, false, true),
            fail(status::UNRECOVERED_READ)
        );
        assert_eq!(
            judge(status::NAMESPACE_NOT_READY, false, true),
            Verdict::Retry {
                after: NOT_READY_DELAY
            }
        );
        assert_eq!(judge(status::ABORTED.with_dnr(), true, true), again);
        assert_eq!(
            judge(status::ABORTED, true, false),
            Verdict::Fail(IoError::TimedOut)
        );
    }
}
