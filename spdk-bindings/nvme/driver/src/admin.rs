//! The admin queue: commands as futures that [`crate::Controller::poll`] drives.
//!
//! Not a data path: a page of data is allocated for each command that moves data. The page belongs to the command's slot until
//! its completion or a reset, also when nobody waits any more.

use core::cell::{Cell, RefCell};
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::rc::Rc;

use nvme_spec::{COMMAND_BYTES, COMPLETION_BYTES, Command, Completion, Status, register};
use spdk_env::mmio::{self, RegisterWindow};
use spdk_env::{BackingError, DeviceBacking, DmaMemory, PAGE};

use crate::error::NvmeErrorKind;
use crate::options::MS;

/// Entries of the admin queues: event requests, aborts of all queues, and a few questions.
pub(crate) const ENTRIES: u32 = 64;

/// Commands at the device at once.
const SLOTS: usize = 32;

/// How an admin command failed.
#[derive(Debug)]
pub(crate) enum AdminError {
    Status(Status),
    TimedOut,
    /// A reset, or the end.
    CutOff,
    Backing(BackingError),
}

impl AdminError {
    pub(crate) fn of(self, command: &'static str, timeout: u64) -> NvmeErrorKind {
        match self {
            AdminError::Status(status) => NvmeErrorKind::Command { command, status },
            AdminError::TimedOut => NvmeErrorKind::CommandTimeout {
                command,
                ms: timeout / MS,
            },
            AdminError::CutOff => NvmeErrorKind::Interrupted { command },
            AdminError::Backing(error) => error.into(),
        }
    }
}

#[derive(Default)]
enum SlotState {
    #[default]
    Free,
    /// At the device; `watched` while a future waits.
    Submitted {
        watched: bool,
        deadline: u64,
    },
    /// Its time is over, and the future has not looked yet.
    Expired,
    Finished(Result<u64, AdminError>),
}

#[derive(Default)]
struct Slot {
    state: SlotState,
    uses: u8,
    /// The count of disables when the command was cut off or expired.
    cut_at: u32,
    page: Option<DmaMemory>,
}

impl Slot {
    fn free(&mut self) {
        *self = Slot {
            uses: self.uses,
            ..Slot::default()
        };
    }
}

/// The queue. Own thread only.
pub(crate) struct AdminQueue<B: DeviceBacking> {
    backing: std::sync::Arc<B>,
    sq: DmaMemory,
    cq: DmaMemory,
    slots: RefCell<Vec<Slot>>,
    tail: Cell<u32>,
    head: Cell<u32>,
    phase: Cell<bool>,
    dstrd: Cell<u8>,
    /// Commands are taken: between enable and disable.
    open: Cell<bool>,
    /// How often the device has let go of memory.
    disables: Cell<u32>,
    /// Time of the poll that runs.
    pub(crate) now: Cell<u64>,
    /// A command's time was over.
    pub(crate) timed_out: Cell<bool>,
    pub(crate) nonsense: Cell<u64>,
    kept: Cell<bool>,
}

impl<B: DeviceBacking> AdminQueue<B> {
    pub(crate) fn new(backing: std::sync::Arc<B>) -> Result<AdminQueue<B>, BackingError> {
        Ok(AdminQueue {
            sq: backing.alloc_dma(ENTRIES as usize * COMMAND_BYTES, PAGE)?,
            cq: backing.alloc_dma(ENTRIES as usize * COMPLETION_BYTES, PAGE)?,
            slots: RefCell::new((0..SLOTS).map(|_| Slot::default()).collect()),
            tail: Cell::new(0),
            head: Cell::new(0),
            phase: Cell::new(true),
            dstrd: Cell::new(0),
            open: Cell::new(false),
            disables: Cell::new(0),
            now: Cell::new(0),
            timed_out: Cell::new(false),
            nonsense: Cell::new(0),
            kept: Cell::new(false),
            backing,
        })
    }

    /// Empty queues for a device that is disabled; writes their addresses.
    pub(crate) fn open(&self, dstrd: u8) {
        self.sq.clear();
        self.cq.clear();
        self.tail.set(0);
        self.head.set(0);
        self.phase.set(true);
        self.dstrd.set(dstrd);
        self.timed_out.set(false);
        let registers = self.backing.registers();
        registers.write32(
            register::AQA,
            register::admin_queue_attributes(ENTRIES, ENTRIES),
        );
        registers.write64(register::ASQ, self.sq.iova());
        registers.write64(register::ACQ, self.cq.iova());
        self.open.set(true);
    }

    /// No more commands; those that wait are cut off.
    pub(crate) fn close(&self) {
        self.open.set(false);
        for slot in self.slots.borrow_mut().iter_mut() {
            if let SlotState::Submitted { watched: true, .. } = slot.state {
                slot.state = SlotState::Finished(Err(AdminError::CutOff));
                slot.cut_at = self.disables.get();
            }
        }
    }

    /// The device has let go of memory: pages of commands that nobody waits for are freed.
    pub(crate) fn release(&self) {
        self.disables.set(self.disables.get().wrapping_add(1));
        for slot in self.slots.borrow_mut().iter_mut() {
            if let SlotState::Submitted { watched: false, .. } = slot.state {
                slot.free();
            }
        }
    }

    /// Nobody waits for this slot any more. Its page is freed once the device has let go of it.
    fn give_up(&self, slot: &mut Slot) {
        let finished = matches!(
            slot.state,
            SlotState::Finished(Ok(_) | Err(AdminError::Status(_) | AdminError::TimedOut))
        );
        let cut_off = !matches!(slot.state, SlotState::Submitted { .. });
        if finished || (cut_off && slot.cut_at != self.disables.get()) {
            slot.free();
        } else {
            slot.state = SlotState::Submitted {
                watched: false,
                deadline: u64::MAX,
            };
        }
    }

    /// The device could not be stopped: all memory that it was given is never used again.
    pub(crate) fn keep_for_ever(&self) {
        self.kept.set(true);
    }

    /// Runs a command without data; dword 0 and 1 of its completion.
    pub(crate) fn run(&self, command: Command, timeout: u64) -> Running<'_, B> {
        Running {
            queue: self,
            step: Step::Start(command, None, timeout),
        }
    }

    /// Runs a command that fills (or reads) up to one page, and returns the page.
    pub(crate) async fn run_with_page(
        &self,
        command: Command,
        timeout: u64,
    ) -> Result<DmaMemory, AdminError> {
        let page = self
            .backing
            .alloc_dma(PAGE, PAGE)
            .map_err(AdminError::Backing)?;
        let command = command.with_prps(page.iova(), 0);
        let mut running = Running {
            queue: self,
            step: Step::Start(command, Some(page), timeout),
        };
        let (_, page) = Finished(&mut running).await?;
        page.ok_or(AdminError::CutOff)
    }

    fn submit(
        &self,
        command: Command,
        page: &mut Option<DmaMemory>,
        timeout: u64,
    ) -> Option<usize> {
        let mut slots = self.slots.borrow_mut();
        let number = slots
            .iter()
            .position(|slot| matches!(slot.state, SlotState::Free))?;
        let slot = &mut slots[number];
        slot.uses = slot.uses.wrapping_add(1);
        slot.page = page.take();
        slot.state = SlotState::Submitted {
            watched: true,
            deadline: self.now.get().saturating_add(timeout),
        };
        let cid = u16::from(slot.uses & 0x7f) << 8 | number as u16;
        self.sq.write_words(
            self.tail.get() as usize * COMMAND_BYTES,
            &command.with_cid(cid).words,
        );
        self.tail.set((self.tail.get() + 1) % ENTRIES);
        let doorbell = register::sq_doorbell(0, self.dstrd.get());
        self.backing.registers().write32(doorbell, self.tail.get());
        Some(number)
    }

    /// Takes completions and looks at the time.
    pub(crate) fn poll(&self) {
        if !self.open.get() {
            return;
        }
        let mut taken = 0;
        while taken < ENTRIES {
            let at = self.head.get() as usize * COMPLETION_BYTES;
            let word = self.cq.read_u64(at + 8);
            if Completion::phase_of(word) != self.phase.get() {
                break;
            }
            mmio::read_barrier();
            let entry = Completion {
                result: self.cq.read_u64(at),
                word,
            };
            taken += 1;
            self.head.set((self.head.get() + 1) % ENTRIES);
            if self.head.get() == 0 {
                self.phase.set(!self.phase.get());
            }
            self.complete(entry);
        }
        if taken > 0 {
            let doorbell = register::cq_doorbell(0, self.dstrd.get());
            self.backing.registers().write32(doorbell, self.head.get());
        }
        self.expire();
    }

    fn complete(&self, entry: Completion) {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut((entry.cid() & 0xff) as usize);
        let known =
            slot.filter(|slot| entry.sq() == 0 && u16::from(slot.uses & 0x7f) == entry.cid() >> 8);
        match known {
            Some(slot) => match slot.state {
                SlotState::Submitted { watched: true, .. } => {
                    let status = entry.status();
                    let failed = AdminError::Status(status);
                    slot.state = SlotState::Finished(if status.is_success() {
                        Ok(entry.result)
                    } else {
                        Err(failed)
                    });
                }
                SlotState::Submitted { .. } => slot.free(),
                SlotState::Expired => slot.state = SlotState::Finished(Err(AdminError::TimedOut)),
                _ => self.nonsense.set(self.nonsense.get() + 1),
            },
            None => self.nonsense.set(self.nonsense.get() + 1),
        }
    }

    fn expire(&self) {
        let now = self.now.get();
        for slot in self.slots.borrow_mut().iter_mut() {
            if let SlotState::Submitted {
                watched: true,
                deadline,
            } = slot.state
                && now >= deadline
            {
                self.timed_out.set(true);
                slot.state = SlotState::Expired;
                slot.cut_at = self.disables.get();
            }
        }
    }

    fn look(&self, number: usize) -> Option<(Result<u64, AdminError>, Option<DmaMemory>)> {
        let mut slots = self.slots.borrow_mut();
        let slot = &mut slots[number];
        let failed = match &slot.state {
            SlotState::Finished(Ok(value)) => {
                let outcome = (Ok(*value), slot.page.take());
                slot.free();
                return Some(outcome);
            }
            SlotState::Finished(Err(AdminError::Status(status))) => AdminError::Status(*status),
            SlotState::Finished(Err(AdminError::CutOff)) => AdminError::CutOff,
            // The page stays with the slot: the device may still write to it.
            SlotState::Finished(Err(_)) | SlotState::Expired => AdminError::TimedOut,
            SlotState::Submitted { .. } | SlotState::Free => return None,
        };
        self.give_up(slot);
        Some((Err(failed), None))
    }

    fn detach(&self, number: usize) {
        self.give_up(&mut self.slots.borrow_mut()[number]);
    }
}

enum Step {
    Start(Command, Option<DmaMemory>, u64),
    Submitted(usize),
    Done,
}

/// A command on its way. Dropped: the command goes on and its completion is forgotten.
pub(crate) struct Running<'a, B: DeviceBacking> {
    queue: &'a AdminQueue<B>,
    step: Step,
}

type Outcome = Result<(u64, Option<DmaMemory>), AdminError>;

impl<B: DeviceBacking> Running<'_, B> {
    fn advance(&mut self) -> Poll<Outcome> {
        if let Step::Start(command, page, timeout) = &mut self.step {
            if !self.queue.open.get() {
                return Poll::Ready(Err(AdminError::CutOff));
            }
            if let Some(number) = self.queue.submit(*command, page, *timeout) {
                self.step = Step::Submitted(number);
            }
            return Poll::Pending;
        }
        let Step::Submitted(number) = self.step else {
            return Poll::Ready(Err(AdminError::CutOff));
        };
        match self.queue.look(number) {
            Some((result, page)) => {
                self.step = Step::Done;
                Poll::Ready(result.map(|value| (value, page)))
            }
            None => Poll::Pending,
        }
    }
}

impl<B: DeviceBacking> Future for Running<'_, B> {
    type Output = Result<u64, AdminError>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        self.advance()
            .map(|outcome| outcome.map(|(value, _)| value))
    }
}

struct Finished<'a, 'q, B: DeviceBacking>(&'a mut Running<'q, B>);

impl<B: DeviceBacking> Future for Finished<'_, '_, B> {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Outcome> {
        self.0.advance()
    }
}

impl<B: DeviceBacking> Drop for Running<'_, B> {
    fn drop(&mut self) {
        if let Step::Submitted(number) = self.step {
            self.queue.detach(number);
        }
    }
}

/// Shared by the futures of one controller.
pub(crate) type Admin<B> = Rc<AdminQueue<B>>;

impl<B: DeviceBacking> Drop for AdminQueue<B> {
    fn drop(&mut self) {
        if self.kept.get() {
            self.sq.leak();
            self.cq.leak();
            for slot in self.slots.get_mut().drain(..) {
                slot.page.into_iter().for_each(|mut page| page.leak());
            }
        }
    }
}
