//! Deadlines: a wheel of 4096 slots of a millisecond through the entries. Beyond its horizon an entry waits in the last
//! slot and is put in again.

use crate::slab::{NONE, Slab};

const SLOTS: u64 = 4096;

#[derive(Debug)]
pub(crate) struct Deadlines {
    heads: Box<[u32]>,
    /// All slots up to this millisecond have been emptied.
    past_ms: u64,
    len: u32,
}

impl Deadlines {
    pub(crate) fn new() -> Deadlines {
        Deadlines {
            heads: vec![NONE; SLOTS as usize].into_boxed_slice(),
            past_ms: 0,
            len: 0,
        }
    }

    /// The first `now`: an empty wheel moves there at once.
    pub(crate) fn advance_empty(&mut self, now_ms: u64) {
        if self.len == 0 {
            self.past_ms = self.past_ms.max(now_ms);
        }
    }

    /// The entry is handed out by [`expire`](Self::expire) once its `fires_ms` has come.
    pub(crate) fn insert(&mut self, slab: &mut Slab, index: u32) {
        let earliest = self.past_ms + 1;
        let at = slab[index]
            .fires_ms
            .clamp(earliest, self.past_ms + SLOTS - 1);
        let slot = (at % SLOTS) as u32;
        let head = self.heads[slot as usize];
        let entry = &mut slab[index];
        (entry.timer_slot, entry.timer_prev, entry.timer_next) = (slot, NONE, head);
        if head != NONE {
            slab[head].timer_prev = index;
        }
        self.heads[slot as usize] = index;
        self.len += 1;
    }

    pub(crate) fn remove(&mut self, slab: &mut Slab, index: u32) {
        let entry = &mut slab[index];
        let (slot, prev, next) = (entry.timer_slot, entry.timer_prev, entry.timer_next);
        if slot == NONE {
            return;
        }
        entry.timer_slot = NONE;
        match prev {
            NONE => self.heads[slot as usize] = next,
            prev => slab[prev].timer_next = next,
        }
        if next != NONE {
            slab[next].timer_prev = prev;
        }
        self.len -= 1;
    }

    /// The next entry whose time has come by `now_ms`, taken out of the wheel.
    pub(crate) fn expire(&mut self, slab: &mut Slab, now_ms: u64) -> Option<u32> {
        if self.len == 0 {
            self.past_ms = self.past_ms.max(now_ms);
            return None;
        }
        if now_ms.saturating_sub(self.past_ms) >= SLOTS {
            self.rebuild(slab, now_ms);
        }
        while self.past_ms < now_ms {
            let index = self.heads[((self.past_ms + 1) % SLOTS) as usize];
            if index == NONE {
                self.past_ms += 1;
                continue;
            }
            self.remove(slab, index);
            if slab[index].fires_ms <= now_ms {
                return Some(index);
            }
            // It was beyond the horizon when it was put in.
            self.insert(slab, index);
        }
        None
    }

    /// The clock has jumped by a round or more: everything is put in again, what is overdue into the slot that is next.
    #[cold]
    fn rebuild(&mut self, slab: &mut Slab, now_ms: u64) {
        let mut chain = NONE;
        for slot in 0..SLOTS as usize {
            while self.heads[slot] != NONE {
                let index = self.heads[slot];
                self.remove(slab, index);
                slab[index].timer_next = chain;
                chain = index;
            }
        }
        self.past_ms = now_ms - 1;
        while chain != NONE {
            let index = chain;
            chain = slab[index].timer_next;
            self.insert(slab, index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    fn expired(wheel: &mut Deadlines, slab: &mut Slab, now: u64) -> Vec<u64> {
        let next = || {
            let index = wheel.expire(slab, now)?;
            Some(slab[index].fires_ms)
        };
        let mut fired: Vec<u64> = std::iter::from_fn(next).collect();
        fired.sort_unstable();
        fired
    }

    #[test]
    fn it_agrees_with_a_sorted_list_whatever_the_clock_does() {
        for seed in 0..50 {
            let mut rng = StdRng::seed_from_u64(seed);
            let (mut slab, mut wheel) = (Slab::new(1, 4096), Deadlines::new());
            let mut model: Vec<(u64, u32)> = Vec::new();
            let mut now = rng.random_range(0..1 << 40);
            wheel.advance_empty(now);
            for _ in 0..300 {
                for _ in 0..rng.random_range(0..4) {
                    let index = slab.take().unwrap();
                    slab[index].fires_ms = now + rng.random_range(1..20_000);
                    wheel.insert(&mut slab, index);
                    model.push((slab[index].fires_ms, index));
                }
                if rng.random_bool(0.2) && !model.is_empty() {
                    let (_, index) = model.swap_remove(rng.random_range(0..model.len()));
                    wheel.remove(&mut slab, index);
                    slab.give(index);
                }
                now += match rng.random_range(0..20) {
                    0 => rng.random_range(0..100_000),
                    1..5 => rng.random_range(0..5_000),
                    _ => rng.random_range(0..3),
                };
                let mut due: Vec<u64> = Vec::new();
                model.retain(|&(at, _)| {
                    if at <= now {
                        due.push(at);
                    }
                    at > now
                });
                due.sort_unstable();
                assert_eq!(
                    expired(&mut wheel, &mut slab, now),
                    due,
                    "seed {seed}, now {now}"
                );
            }
        }
    }
}
