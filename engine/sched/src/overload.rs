//! Refusing what would not be done in time anyway (DAOS: `src/engine/sched.c`).

use crate::Class;
use crate::options::MAX_CYCLE_MS;

/// For the way there and back, milliseconds (DAOS).
const ROUND_TRIP_MS: u64 = 100;
/// Shortest and longest advice, milliseconds.
const RETRY_MS: (u64, u64) = (10, 10_000);

/// A refused request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rejected {
    /// The id to come back with: it keeps the request's place among younger ones.
    pub enqueue_id: u64,
    /// When that makes sense, milliseconds from now.
    pub retry_after_ms: u32,
}

/// How long what is queued will take, with half as much again for what cannot be foreseen, milliseconds.
fn queue_ms(updates: u32, fetches: u32) -> u64 {
    let us =
        u64::from(updates) * Class::Update.cost_us() + u64::from(fetches) * Class::Fetch.cost_us();
    us / 1000 * 3 / 2
}

/// Whether a request has to be refused, and the advice. An empty queue refuses nobody, however short the time-out.
pub(crate) fn refuses(updates: u32, fetches: u32, timeout_ms: u32, max_queued: u32) -> Option<u32> {
    let queued = updates + fetches;
    if queued == 0 {
        return None;
    }
    let wait = queue_ms(updates, fetches);
    let late = timeout_ms > 0 && wait + MAX_CYCLE_MS + ROUND_TRIP_MS > u64::from(timeout_ms);
    (late || queued >= max_queued).then(|| wait.clamp(RETRY_MS.0, RETRY_MS.1) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_is_half_as_much_again_and_228_ms() {
        // 100,000 updates: 1000 ms, 1500 with the margin, 1728 in all.
        assert_eq!(refuses(100_000, 0, 1_727, u32::MAX), Some(1_500));
        assert_eq!(refuses(100_000, 0, 1_728, u32::MAX), None);
        assert_eq!(refuses(0, 200_000, 1_727, u32::MAX), Some(1_500));
        assert_eq!(
            refuses(100_000, 0, 0, u32::MAX),
            None,
            "it did not say when it gives up"
        );
        assert_eq!(refuses(0, 1, 227, u32::MAX), Some(10));
        assert_eq!(refuses(0, 0, 1, u32::MAX), None);
    }

    #[test]
    fn the_queue_is_bounded_whatever_the_time_out() {
        assert_eq!(refuses(5, 5, 0, 10), Some(10));
        assert_eq!(refuses(5, 4, 0, 10), None);
        assert_eq!(refuses(1 << 20, 0, 0, 1 << 20), Some(10_000));
    }
}
