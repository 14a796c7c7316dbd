//! The commands of a queue pair that are at the device: a slot each, named by the command id.
//!
//! A command id is the slot's number below and, in the bits that are left, how often the slot was used: a completion that comes
//! twice, or late, names a use that is over and is recognised as nonsense.

/// One command.
#[derive(Clone, Copy)]
pub(crate) struct Slot {
    /// The I/O that it is part of.
    pub(crate) op: u32,
    /// First block and number of blocks, from the I/O's first.
    pub(crate) start: u32,
    pub(crate) blocks: u32,
    pub(crate) stage: Stage,
    pub(crate) tries: u8,
    uses: u16,
    /// When its time is over; 0 until the first look after its submission.
    pub(crate) deadline: u64,
}

/// Where a command is on the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Free,
    /// At the device.
    Submitted,
    /// Past its time; its abort is asked for.
    Aborting,
    /// To be submitted again.
    Retrying,
}

pub(crate) struct CommandTable {
    slots: Box<[Slot]>,
    free: Vec<u16>,
    slot_bits: u32,
    use_mask: u16,
}

impl CommandTable {
    /// `count` slots, 1 to 65,535.
    pub(crate) fn new(count: u32) -> CommandTable {
        let count = count.clamp(1, 65_535);
        let slot_bits = u32::BITS - (count - 1).leading_zeros();
        let empty = Slot {
            op: 0,
            start: 0,
            blocks: 0,
            stage: Stage::Free,
            tries: 0,
            uses: 0,
            deadline: 0,
        };
        CommandTable {
            slots: vec![empty; count as usize].into(),
            // Low numbers first: fewer cache lines in use.
            free: (0..count as u16).rev().collect(),
            slot_bits,
            use_mask: ((1u32 << (16 - slot_bits)) - 1) as u16,
        }
    }

    pub(crate) fn capacity(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Commands that have a slot.
    #[inline]
    pub(crate) fn in_use(&self) -> u32 {
        self.slots.len() as u32 - self.free.len() as u32
    }

    /// Takes a slot for part of an I/O.
    #[inline]
    pub(crate) fn take(&mut self, op: u32, start: u32, blocks: u32) -> Option<u16> {
        let number = self.free.pop()?;
        let slot = &mut self.slots[number as usize];
        slot.op = op;
        slot.start = start;
        slot.blocks = blocks;
        slot.tries = 0;
        Some(number)
    }

    /// The slot goes to the device: the command id of this use.
    #[inline]
    pub(crate) fn submitted(&mut self, number: u16) -> u16 {
        let use_mask = self.use_mask;
        let slot = &mut self.slots[number as usize];
        slot.stage = Stage::Submitted;
        slot.deadline = 0;
        // Without bits to count with there is only one use.
        slot.uses = slot.uses.wrapping_add(1) & use_mask;
        number | (u32::from(slot.uses) << self.slot_bits) as u16
    }

    /// The id under which the device knows a slot.
    pub(crate) fn cid(&self, number: u16) -> u16 {
        number | (u32::from(self.slots[number as usize].uses) << self.slot_bits) as u16
    }

    /// The slot that a completion names, if that use of it is at the device.
    #[inline]
    pub(crate) fn named(&self, cid: u16) -> Option<u16> {
        let number = (u32::from(cid) & ((1u32 << self.slot_bits) - 1)) as u16;
        let slot = self.slots.get(number as usize)?;
        let current = u32::from(cid) >> self.slot_bits == u32::from(slot.uses);
        (current && matches!(slot.stage, Stage::Submitted | Stage::Aborting)).then_some(number)
    }

    #[inline]
    pub(crate) fn slot(&mut self, number: u16) -> &mut Slot {
        &mut self.slots[number as usize]
    }

    #[inline]
    pub(crate) fn release(&mut self, number: u16) {
        self.slots[number as usize].stage = Stage::Free;
        self.free.push(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_names_one_use_of_one_slot() {
        let mut table = CommandTable::new(3);
        let number = table.take(7, 0, 1).unwrap();
        let first = table.submitted(number);
        assert_eq!(table.named(first), Some(number));
        table.release(number);
        assert_eq!(table.named(first), None, "late or twice");
        let again = table.take(8, 0, 1).unwrap();
        let second = table.submitted(again);
        assert_eq!(
            (again, table.named(first), table.named(second)),
            (number, None, Some(number))
        );
        assert_eq!(table.cid(again), second);
        // Slot 3 does not exist, though the id has room for it.
        assert_eq!(table.named(3), None);
    }

    #[test]
    fn the_largest_table_has_no_bits_to_spare() {
        let mut table = CommandTable::new(1 << 20);
        assert_eq!(table.capacity(), 65_535);
        let mut seen = std::collections::HashSet::new();
        while let Some(number) = table.take(0, 0, 0) {
            let cid = table.submitted(number);
            assert!(cid != 0xffff && seen.insert(cid) && table.named(cid) == Some(number));
        }
        assert_eq!((seen.len(), table.in_use()), (65_535, 65_535));
    }
}
