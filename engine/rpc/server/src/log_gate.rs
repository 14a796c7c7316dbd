//! Keeps a hostile peer from filling the log: so many lines a second, then a count of those left out.

use std::cell::Cell;

const WINDOW_NS: u64 = 1_000_000_000;
const LINES: u32 = 8;

/// One xstream's gate.
#[derive(Debug, Default)]
pub(crate) struct LogGate {
    window: Cell<u64>,
    lines: Cell<u32>,
    left_out: Cell<u64>,
}

impl LogGate {
    /// Whether a line may be written at `now`: `Some(n)` if so, `n` being the lines left out since the last one.
    pub(crate) fn pass(&self, now: u64) -> Option<u64> {
        if now / WINDOW_NS != self.window.get() {
            self.window.set(now / WINDOW_NS);
            self.lines.set(0);
        }
        if self.lines.get() >= LINES {
            self.left_out.set(self.left_out.get() + 1);
            return None;
        }
        self.lines.set(self.lines.get() + 1);
        Some(self.left_out.replace(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_told_later() {
        let gate = LogGate::default();
        let passed = (0..100).filter(|_| gate.pass(5).is_some()).count();
        assert_eq!(passed, LINES as usize);
        assert_eq!(gate.pass(5 + WINDOW_NS), Some(100 - u64::from(LINES)));
        assert_eq!(gate.pass(6 + WINDOW_NS), Some(0));
    }
}
