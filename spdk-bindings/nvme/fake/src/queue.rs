//! Queues as the device sees them.

use nvme_spec::{Completion, register};
use spdk_env::{IoFault, IoSpace};

use crate::registers::FakeRegisters;

/// A submission queue.
pub(crate) struct SubmissionQueue {
    pub(crate) id: u16,
    pub(crate) iova: u64,
    pub(crate) entries: u32,
    pub(crate) head: u32,
    pub(crate) cq: u16,
    /// With shadow doorbells: looking at the shadow without being told.
    pub(crate) awake: bool,
}

/// A completion queue.
pub(crate) struct CompletionQueue {
    pub(crate) id: u16,
    pub(crate) iova: u64,
    pub(crate) entries: u32,
    pub(crate) tail: u32,
    pub(crate) phase: bool,
    pub(crate) vector: Option<u16>,
}

/// The shadow doorbells and event indexes (Base 5.8).
#[derive(Clone, Copy)]
pub(crate) struct Shadow {
    pub(crate) doorbells: u64,
    pub(crate) event_indexes: u64,
}

/// A 32-bit word at an I/O address.
pub(crate) fn load(space: &IoSpace, iova: u64) -> Result<u32, IoFault> {
    let mut word = [0; 4];
    space.read(iova, &mut word)?;
    Ok(u32::from_le_bytes(word))
}

impl SubmissionQueue {
    /// How far the driver has filled the queue, or `None` when it has rung in a way that makes no sense.
    pub(crate) fn tail(
        &mut self,
        registers: &FakeRegisters,
        space: &IoSpace,
        shadow: Option<Shadow>,
        dstrd: u8,
    ) -> Result<Option<u32>, IoFault> {
        let doorbell = register::sq_doorbell(self.id, dstrd);
        let tail = match shadow.filter(|_| self.id > 0) {
            None => registers.get(doorbell),
            Some(shadow) => {
                self.awake |= registers.take_rung(doorbell);
                if !self.awake {
                    return Ok(Some(self.head));
                }
                let offset = (doorbell - register::DOORBELLS) as u64;
                let mut tail = load(space, shadow.doorbells + offset)?;
                if tail == self.head {
                    // Before going to sleep: the index that has to be passed to wake it, then one last look.
                    space.write(shadow.event_indexes + offset, &tail.to_le_bytes())?;
                    tail = load(space, shadow.doorbells + offset)?;
                    self.awake = tail != self.head;
                }
                tail
            }
        };
        Ok((tail < self.entries).then_some(tail))
    }
}

impl CompletionQueue {
    /// Free entries, by the driver's head doorbell; one always stays free.
    pub(crate) fn room(
        &self,
        registers: &FakeRegisters,
        space: &IoSpace,
        shadow: Option<Shadow>,
        dstrd: u8,
    ) -> u32 {
        let doorbell = register::cq_doorbell(self.id, dstrd);
        let mut head = registers.get(doorbell);
        if let Some(shadow) = shadow.filter(|_| self.id > 0) {
            let offset = (doorbell - register::DOORBELLS) as u64;
            head = load(space, shadow.doorbells + offset).unwrap_or(head);
        }
        (head + self.entries - self.tail - 1) % self.entries
    }

    /// Writes an entry: the first word, then the one with the phase tag.
    pub(crate) fn post(
        &mut self,
        space: &IoSpace,
        completion: Completion,
        advance: bool,
    ) -> Result<(), IoFault> {
        let at = self.iova + u64::from(self.tail) * 16;
        space.write(at, &completion.result.to_le_bytes())?;
        space.write(at + 8, &completion.word.to_le_bytes())?;
        if advance {
            self.tail += 1;
            if self.tail == self.entries {
                self.tail = 0;
                self.phase = !self.phase;
            }
        }
        Ok(())
    }
}
