//! Doorbells, with their shadows in memory where the controller has that (Base 5.8).

use nvme_spec::register;
use spdk_env::DmaMemory;
use spdk_env::mmio::{self, RegisterWindow};

/// The shadow doorbells and event indexes of a controller: a page each.
pub(crate) struct Shadows {
    pub(crate) doorbells: DmaMemory,
    pub(crate) event_indexes: DmaMemory,
}

/// One doorbell of a queue.
#[derive(Clone, Copy)]
pub(crate) struct Doorbell {
    offset: usize,
    shadowed: bool,
    /// What it was last rung with.
    value: u32,
}

impl Doorbell {
    /// The doorbell at a register offset, not rung yet.
    pub(crate) fn new(offset: usize, shadowed: bool) -> Doorbell {
        Doorbell {
            offset,
            shadowed,
            value: 0,
        }
    }

    pub(crate) fn value(self) -> u32 {
        self.value
    }

    /// The device was told of this value before.
    pub(crate) fn resume(&mut self, value: u32) {
        self.value = value;
    }

    /// Tells the device. Everything that it is to see was written before.
    #[inline]
    pub(crate) fn ring(
        &mut self,
        value: u32,
        registers: &impl RegisterWindow,
        shadows: Option<&Shadows>,
    ) {
        let before = core::mem::replace(&mut self.value, value);
        if self.shadowed
            && let Some(shadows) = shadows
            && !tell(shadows, self.offset - register::DOORBELLS, before, value)
        {
            return;
        }
        registers.write32(self.offset, value);
    }
}

/// Writes the shadow; true when the device asked to be told.
fn tell(shadows: &Shadows, at: usize, before: u32, value: u32) -> bool {
    mmio::write_barrier();
    shadows.doorbells.write_u32(at, value);
    // The device writes its event index and then looks at the shadow once more; we the other way round. One of us sees the other.
    mmio::full_barrier();
    let event = shadows.event_indexes.read_u32(at);
    passes(event as u16, before as u16, value as u16)
}

/// Whether going from `before` to `value` passes `event` (as virtio's `vring_need_event`; modulo 65,536).
fn passes(event: u16, before: u16, value: u16) -> bool {
    value.wrapping_sub(event).wrapping_sub(1) < value.wrapping_sub(before)
}

#[cfg(test)]
mod tests {
    use super::passes;

    #[test]
    fn the_device_is_told_exactly_when_its_index_is_passed() {
        assert!(passes(5, 5, 6) && passes(5, 3, 9));
        assert!(!passes(5, 6, 9) && !passes(9, 3, 9));
        // Round the end of a queue of 1,024 entries.
        assert!(passes(1023, 1023, 0));
        assert!(passes(65_535, 65_535, 0) && !passes(0, 65_535, 0));
    }
}
