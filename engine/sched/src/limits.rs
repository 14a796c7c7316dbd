//! Who is throttled: weights by class that a pool may kick in one cycle (DAOS: `throttle_io`, `throttle_sys`, sched.c).

use crate::attr::{CLASSES, Class};
use crate::options::{PRESSED_BURST, SYS_BURST};
use crate::pressure::PRESSURE_LEVELS;

/// Weights below which a window says nothing (DAOS).
const MIN_WINDOW: u32 = 2500;
/// Percent for clients while data is being moved, and otherwise (DAOS: `REBUILD_RATIO`).
const IO_SHARE_MIGRATING: u32 = 70;
const IO_SHARE: u32 = 90;
pub(crate) const FREE: u32 = u32::MAX;

/// What is known of a pool, or of all of them together.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Load {
    /// Weights kicked in the window, by class.
    pub recent: [u32; CLASSES],
    /// Weights queued.
    pub queued: [u32; CLASSES],
}

impl Load {
    fn active(&self, class: Class) -> bool {
        self.recent[class.at()] > 0 || self.queued[class.at()] > 0
    }

    fn io(&self) -> bool {
        self.active(Class::Update) || self.active(Class::Fetch)
    }

    /// What the window holds, with what clients are about to add.
    fn window(&self, kick_limit: u32) -> u32 {
        let recent: u32 = self.recent.iter().sum();
        let coming = self.queued[0]
            .saturating_add(self.queued[1])
            .min(kick_limit);
        recent.saturating_add(coming).max(MIN_WINDOW)
    }
}

fn percent(of: u32, percent: u32) -> u32 {
    (u64::from(of) * u64::from(percent) / 100) as u32
}

/// Updates and fetches that are more than a cycle kicks are scaled down together.
fn scaled(load: &Load, kick_limit: u32, out: &mut [u32; CLASSES]) {
    let all = u64::from(load.queued[0]) + u64::from(load.queued[1]);
    if all > u64::from(kick_limit) {
        for class in [0, 1] {
            let part = u64::from(load.queued[class]) * u64::from(kick_limit) / all;
            out[class] = (part as u32).max(u32::from(load.queued[class] > 0));
        }
    }
}

/// What background work may take together in a cycle, while there is space: what the window leaves of its share.
pub(crate) fn background(load: &Load, kick_limit: u32) -> u32 {
    if !load.io() {
        return FREE;
    }
    let share = if load.active(Class::Migrate) {
        IO_SHARE_MIGRATING
    } else {
        IO_SHARE
    };
    let used = load.recent[2] + load.recent[3] + load.recent[4];
    percent(load.window(kick_limit), 100 - share)
        .saturating_sub(used)
        .min(SYS_BURST)
}

/// Limits of a pool that has space; gc and migrate share what is left and take turns, scrub has the rest and is let through
/// when the count of background kicks, `generation`, comes round to 0.
pub(crate) fn unpressed(load: &Load, generation: u8, kick_limit: u32) -> [u32; CLASSES] {
    let mut out = [FREE; CLASSES];
    scaled(load, kick_limit, &mut out);
    let left = background(load, kick_limit);
    if left == FREE {
        return out;
    }
    let others = load.queued[Class::Gc.at()].saturating_add(load.queued[Class::Migrate.at()]);
    let rest = left.saturating_sub(others);
    out[Class::Gc.at()] = left;
    out[Class::Migrate.at()] = left;
    out[Class::Scrub.at()] = rest.max(u32::from(generation == 0 && left > 0));
    out
}

/// Limits of a pool that runs out of space. `let_through`: waiting for garbage collection is of no use.
pub(crate) fn pressed(
    load: &Load,
    level: u8,
    let_through: bool,
    generation: u8,
    kick_limit: u32,
) -> [u32; CLASSES] {
    let mut out = [FREE; CLASSES];
    scaled(load, kick_limit, &mut out);
    let others = load.io() || load.active(Class::Migrate);
    if !others {
        return out;
    }
    let (_, share) = PRESSURE_LEVELS[usize::from(level).min(PRESSURE_LEVELS.len() - 1)];
    let window = load.window(kick_limit);
    let left = percent(window, share).saturating_sub(load.recent[Class::Gc.at()]);
    out[Class::Gc.at()] = left.min(PRESSED_BURST);
    if left > 0 && !let_through {
        out[Class::Update.at()] = 0;
        out[Class::Migrate.at()] = 0;
    }
    let scrub = percent(window, 100 - IO_SHARE).saturating_sub(load.recent[Class::Scrub.at()]);
    out[Class::Scrub.at()] = if generation == 0 {
        scrub.clamp(1, SYS_BURST)
    } else {
        scrub.min(SYS_BURST)
    };
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const U: usize = 0;
    const F: usize = 1;
    const G: usize = 2;
    const S: usize = 3;
    const M: usize = 4;

    fn load(recent: [u32; CLASSES], queued: [u32; CLASSES]) -> Load {
        Load { recent, queued }
    }

    #[test]
    fn without_clients_background_work_is_free() {
        let load = load([0, 0, 5000, 0, 0], [0, 0, 400, 300, 200]);
        assert_eq!(unpressed(&load, 2, 6400), [FREE; CLASSES]);
        assert_eq!(background(&load, 6400), FREE);
    }

    #[test]
    fn clients_have_90_percent_and_70_while_data_is_moved() {
        let busy = |gc, migrate| load([9000, 0, gc, 0, migrate], [10, 0, 40, 0, 0]);
        // 90 % of 10,010.
        assert_eq!(background(&busy(1000, 0), 6400), 1);
        assert_eq!(background(&busy(1010, 0), 6400), 0);
        // Migrate counts, and makes it 70 % of 10,012.
        assert_eq!(
            background(&busy(1000, 2), 6400),
            16,
            "what one cycle kicks at most"
        );
        assert_eq!(background(&load([7000, 0, 2999, 0, 1], [0; 5]), 6400), 0);
    }

    #[test]
    fn a_small_window_counts_as_2500() {
        let load = load([10, 0, 249, 0, 0], [0, 0, 40, 0, 0]);
        assert_eq!(background(&load, 6400), 1);
    }

    #[test]
    fn gc_and_migrate_share_and_scrub_comes_last() {
        let load = load([100, 0, 0, 0, 0], [2, 0, 400, 300, 200]);
        assert_eq!(unpressed(&load, 2, 6400), [FREE, FREE, 16, 0, 16]);
        assert_eq!(
            unpressed(&load, 0, 6400)[S],
            1,
            "let through when the count comes round"
        );
        let only = Load {
            queued: [2, 0, 4, 300, 0],
            ..load
        };
        assert_eq!(unpressed(&only, 2, 6400), [FREE, FREE, 16, 12, 16]);
    }

    #[test]
    fn more_than_a_cycle_is_scaled_to_a_cycle() {
        let load = load([0; 5], [9600, 3200, 0, 0, 0]);
        let limits = unpressed(&load, 2, 6400);
        assert_eq!((limits[U], limits[F]), (4800, 1600));
        let fits = Load {
            queued: [3200, 3200, 0, 0, 0],
            ..load
        };
        assert_eq!(unpressed(&fits, 2, 6400)[..2], [FREE, FREE]);
    }

    #[test]
    fn under_pressure_gc_has_its_share_first_and_fetch_is_never_limited() {
        // Level 3: 60 % of 10,000.
        let below = load([4000, 1000, 5000, 0, 0], [0, 0, 4, 0, 4]);
        assert_eq!(pressed(&below, 3, false, 2, 6400), [0, FREE, 64, 16, 0]);
        assert_eq!(
            pressed(&below, 3, true, 2, 6400)[U],
            FREE,
            "no use in waiting"
        );
        let above = load([3000, 1000, 6000, 0, 0], [0, 0, 4, 0, 4]);
        let limits = pressed(&above, 3, false, 2, 6400);
        assert_eq!(
            (limits[U], limits[F], limits[G], limits[M]),
            (FREE, FREE, 0, FREE)
        );
        let alone = load([0, 0, 9000, 100, 0], [0, 0, 4, 0, 0]);
        assert_eq!(pressed(&alone, 5, false, 2, 6400), [FREE; CLASSES]);
    }
}
