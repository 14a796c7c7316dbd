//! The device's side: enable and disable, fetch, execute, complete.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nvme_spec::feature::AsyncEvent;
use nvme_spec::log::ErrorLogEntry;
use nvme_spec::register::{self, Capabilities, Configuration, ControllerStatus};
use nvme_spec::{COMMAND_BYTES, Command, Completion, Status, status};
use spdk_env::IoSpace;

use crate::controller::Observed;
use crate::events::Events;
use crate::media::Namespace;
use crate::queue::{CompletionQueue, Shadow, SubmissionQueue};
use crate::registers::FakeRegisters;
use crate::script::{Script, Wrong};
use crate::{CompletionOrder, FakeOptions};

/// How a command ended: the completion's first words and status; `None` for one that stays (an event request).
pub(crate) type Outcome = Option<(u64, Status)>;

/// A command on its way to its completion queue.
struct Pending {
    due: u64,
    sq: u16,
    cid: u16,
    result: u64,
    status: Status,
    wrong: Option<Wrong>,
}

/// An interrupt vector.
pub(crate) struct Vector {
    pub(crate) fd: OwnedFd,
    pub(crate) masked: bool,
    pub(crate) raised: bool,
}

pub(crate) struct Device {
    pub(crate) options: FakeOptions,
    pub(crate) registers: Arc<FakeRegisters>,
    pub(crate) space: Arc<IoSpace>,
    pub(crate) namespaces: BTreeMap<u32, Namespace>,
    pub(crate) sqs: BTreeMap<u16, SubmissionQueue>,
    pub(crate) cqs: BTreeMap<u16, CompletionQueue>,
    pub(crate) shadow: Option<Shadow>,
    pub(crate) events: Events,
    pub(crate) script: Script,
    pub(crate) vectors: BTreeMap<u16, Vector>,
    pub(crate) write_cache_on: bool,
    pub(crate) observed: Observed,
    pending: Vec<Pending>,
    /// Fetched, never to be completed unless aborted.
    lost: Vec<(u16, u16)>,
    enabled: bool,
    /// Steps until CSTS.RDY follows.
    settling: Option<u32>,
    hung: bool,
    pub(crate) remove_at: Option<u64>,
    /// Reaches no memory any more.
    pub(crate) cut_off: bool,
}

impl Device {
    pub(crate) fn new(
        options: FakeOptions,
        registers: Arc<FakeRegisters>,
        space: Arc<IoSpace>,
    ) -> Device {
        let namespaces = options.namespaces.iter().cloned().map(Namespace::new);
        let mut device = Device {
            namespaces: (1..).zip(namespaces).collect(),
            registers,
            space,
            sqs: BTreeMap::new(),
            cqs: BTreeMap::new(),
            shadow: None,
            events: Events::new(),
            script: Script::default(),
            vectors: BTreeMap::new(),
            write_cache_on: options.write_cache,
            observed: Observed::default(),
            pending: Vec::new(),
            lost: Vec::new(),
            enabled: false,
            settling: None,
            hung: false,
            remove_at: None,
            cut_off: false,
            options,
        };
        device.power_on();
        device
    }

    fn power_on(&mut self) {
        let options = &self.options;
        let cap = Capabilities(0)
            .with_mqes(u64::from(options.max_queue_entries - 1))
            .with_cqr(1)
            .with_to(u64::from(options.timeout_units))
            .with_dstrd(u64::from(options.dstrd))
            .with_css_nvm(1)
            .with_mpsmin(u64::from(options.mpsmin))
            .with_mpsmax(u64::from(options.mpsmin.max(4)))
            .with_cmbs(u64::from(options.memory_buffer));
        self.registers.set64(register::CAP, cap.0);
        self.registers.set(register::VS, 0x0001_0400);
        if options.memory_buffer {
            // 16 MiB in BAR 2 that take queues, lists and data.
            self.registers.set(register::CMBLOC, 2);
            self.registers
                .set(register::CMBSZ, 16 << 12 | 2 << 8 | 0x1f);
        }
    }

    fn status(&self) -> ControllerStatus {
        ControllerStatus(self.registers.get(register::CSTS))
    }

    fn set_status(&self, status: ControllerStatus) {
        self.registers.set(register::CSTS, status.0);
    }

    /// Moves on: registers, then every queue. Returns the completions posted.
    pub(crate) fn step(&mut self) -> u32 {
        self.observed.steps += 1;
        if self
            .remove_at
            .is_some_and(|step| self.observed.steps >= step)
        {
            self.remove_at = None;
            self.registers.remove();
        }
        if self.registers.is_removed() || self.cut_off {
            return 0;
        }
        self.follow_configuration();
        if !self.enabled || self.hung || self.status().cfs() == 1 || self.settling.is_some() {
            return 0;
        }
        self.fetch_all();
        while let Some((cid, event)) = self.events.next() {
            self.finish(0, cid, u64::from(event.dword()), status::SUCCESS, None);
        }
        self.post_all()
    }

    /// CC.EN and CC.SHN against what is.
    fn follow_configuration(&mut self) {
        let cc = Configuration(self.registers.get(register::CC));
        if let Some(left) = self.settling {
            self.settling = left.checked_sub(1);
            if self.settling.is_none() {
                self.set_status(self.status().with_rdy(u32::from(self.enabled)));
            }
            return;
        }
        if (cc.en() == 1) != self.enabled {
            self.enabled = cc.en() == 1;
            self.reset_queues();
            if self.enabled {
                self.observed.enables += 1;
                self.create_admin_queues(cc);
            }
            self.settling = Some(self.options.ready_steps);
        }
        if cc.shn() != 0 && self.status().shst() == 0 {
            self.namespaces.values_mut().for_each(Namespace::flush);
            self.observed.shutdowns += 1;
            self.set_status(self.status().with_shst(register::SHST_COMPLETE));
        }
    }

    fn reset_queues(&mut self) {
        self.sqs.clear();
        self.cqs.clear();
        self.pending.clear();
        self.lost.clear();
        self.shadow = None;
        self.hung = false;
        self.write_cache_on = self.options.write_cache;
        self.events.reset();
        let rdy = self.status().rdy();
        self.set_status(ControllerStatus(0).with_rdy(rdy));
        let doorbells = 2 * (usize::from(self.options.queue_pairs) + 1);
        for doorbell in 0..doorbells {
            self.registers.set(
                register::DOORBELLS + doorbell * (4 << self.options.dstrd),
                0,
            );
        }
    }

    fn create_admin_queues(&mut self, cc: Configuration) {
        let attributes = self.registers.get(register::AQA);
        let (sq, cq) = (
            self.registers.get64(register::ASQ),
            self.registers.get64(register::ACQ),
        );
        let aligned = sq.is_multiple_of(4096) && cq.is_multiple_of(4096);
        if !aligned || cc.iosqes() != 6 || cc.iocqes() != 4 || attributes & 0xfff == 0 {
            self.set_status(self.status().with_cfs(1));
            return;
        }
        self.add_cq(0, cq, (attributes >> 16 & 0xfff) + 1, Some(0));
        self.add_sq(0, sq, (attributes & 0xfff) + 1, 0);
    }

    pub(crate) fn add_cq(&mut self, id: u16, iova: u64, entries: u32, vector: Option<u16>) {
        let queue = CompletionQueue {
            id,
            iova,
            entries,
            tail: 0,
            phase: true,
            vector,
        };
        self.cqs.insert(id, queue);
    }

    pub(crate) fn add_sq(&mut self, id: u16, iova: u64, entries: u32, cq: u16) {
        let queue = SubmissionQueue {
            id,
            iova,
            entries,
            head: 0,
            cq,
            awake: false,
        };
        self.sqs.insert(id, queue);
    }

    fn fetch_all(&mut self) {
        let ids: Vec<u16> = self.sqs.keys().copied().collect();
        for id in ids {
            for _ in 0..self.options.burst {
                let Some((command, head)) = self.fetch(id) else {
                    break;
                };
                if let Some(queue) = self.sqs.get_mut(&id) {
                    queue.head = head;
                }
                self.run(id, &command);
                if self.hung || self.registers.is_removed() || self.status().cfs() == 1 {
                    return;
                }
            }
        }
    }

    /// The next command of a queue and where the head is after it.
    fn fetch(&mut self, id: u16) -> Option<(Command, u32)> {
        let queue = self.sqs.get_mut(&id)?;
        let tail = queue.tail(
            &self.registers,
            &self.space,
            self.shadow,
            self.options.dstrd,
        );
        let head = queue.head;
        let (iova, entries) = (queue.iova, queue.entries);
        let Ok(Some(tail)) = tail else {
            self.observed.bad_doorbells += 1;
            self.events.raise(AsyncEvent::INVALID_DOORBELL_VALUE);
            return None;
        };
        if tail == head {
            return None;
        }
        let mut bytes = [0; COMMAND_BYTES];
        if self
            .space
            .read(iova + u64::from(head) * COMMAND_BYTES as u64, &mut bytes)
            .is_err()
        {
            self.observed.dma_faults += 1;
            self.set_status(self.status().with_cfs(1));
            return None;
        }
        let mut command = Command::default();
        for (word, bytes) in command.words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().unwrap_or_default());
        }
        Some((command, (head + 1) % entries))
    }

    /// Executes a command, unless the script has other plans.
    fn run(&mut self, sq: u16, command: &Command) {
        self.observed.commands += 1;
        let wrong = self.script.take(sq, command);
        match &wrong {
            Some(Wrong::Remove) => return self.registers.remove(),
            Some(Wrong::Fatal) => return self.set_status(self.status().with_cfs(1)),
            Some(Wrong::Hang) => {
                self.hung = true;
                return;
            }
            Some(Wrong::Lost) => return self.lost.push((sq, command.cid())),
            Some(Wrong::Status(status)) => {
                self.log_failure(sq, command, *status);
                return self.finish(sq, command.cid(), 0, *status, None);
            }
            Some(Wrong::Torn(status)) => {
                self.observed.torn += 1;
                self.half(command);
                self.log_failure(sq, command, *status);
                return self.finish(sq, command.cid(), 0, *status, None);
            }
            _ => {}
        }
        let outcome = if sq == 0 {
            self.admin(command)
        } else {
            self.io(command)
        };
        if let Some((result, status)) = outcome {
            if !status.is_success() {
                // The script's statuses are lies, this one is not.
                self.observed.dma_faults +=
                    u64::from(status.without_flags() == status::DATA_TRANSFER_ERROR);
                self.log_failure(sq, command, status);
            }
            self.finish(sq, command.cid(), result, status, wrong);
        }
    }

    fn log_failure(&mut self, sq: u16, command: &Command, status: Status) {
        if status.is_media_error() && status.without_flags() != status::COMPARE_FAILURE {
            self.events.smart.media_errors += 1;
        }
        self.events.failed(ErrorLogEntry {
            count: 0,
            queue: sq,
            cid: command.cid(),
            status: status.0 << 1,
            lba: command.lba(),
            nsid: command.nsid(),
        });
    }

    fn finish(&mut self, sq: u16, cid: u16, result: u64, status: Status, wrong: Option<Wrong>) {
        let late = if let Some(Wrong::Late(steps)) = wrong {
            u64::from(steps)
        } else {
            0
        };
        self.pending.push(Pending {
            due: self.observed.steps + late,
            sq,
            cid,
            result,
            status,
            wrong,
        });
    }

    /// Ends a command that was lost or is late; what an abort asks for.
    pub(crate) fn abort(&mut self, sq: u16, cid: u16) -> bool {
        self.observed.aborts += 1;
        if let Some(at) = self.lost.iter().position(|lost| *lost == (sq, cid)) {
            self.lost.swap_remove(at);
            self.finish(sq, cid, 0, status::ABORTED, None);
            return true;
        }
        let now = self.observed.steps;
        let late = (self.pending.iter_mut()).find(|p| p.sq == sq && p.cid == cid && p.due > now);
        late.map(|pending| {
            pending.due = now;
            pending.status = status::ABORTED;
        })
        .is_some()
    }

    /// Commands of a queue that is deleted.
    pub(crate) fn forget_queue(&mut self, sq: u16) {
        self.lost.retain(|(queue, _)| *queue != sq);
        self.pending.retain(|pending| pending.sq != sq);
    }

    fn post_all(&mut self) -> u32 {
        let now = self.observed.steps;
        let (mut due, later): (Vec<_>, Vec<_>) = core::mem::take(&mut self.pending)
            .into_iter()
            .partition(|p| p.due <= now);
        self.pending = later;
        if self.options.order == CompletionOrder::Reversed {
            due.reverse();
        }
        let mut posted = 0;
        for pending in due {
            if let Some(waits) = self.post(pending) {
                self.pending.push(waits);
            } else {
                posted += 1;
            }
        }
        posted
    }

    /// Posts one completion; gives it back when its queue is full.
    fn post(&mut self, pending: Pending) -> Option<Pending> {
        let sq = self.sqs.get(&pending.sq)?;
        let (head, cq) = (sq.head as u16, sq.cq);
        let cq = self.cqs.get_mut(&cq)?;
        let room = cq.room(
            &self.registers,
            &self.space,
            self.shadow,
            self.options.dstrd,
        );
        if room < 2
            && (room == 0 || matches!(pending.wrong, Some(Wrong::Duplicate | Wrong::AndUnknown(_))))
        {
            return Some(pending);
        }
        let Pending {
            sq,
            cid,
            result,
            status,
            ..
        } = pending;
        let entry = |phase| Completion::new(result, head, sq, cid, status, phase);
        let mut faults = 0;
        let mut put = |cq: &mut CompletionQueue, entry: Completion, advance| {
            faults += u64::from(cq.post(&self.space, entry, advance).is_err());
        };
        match pending.wrong {
            Some(Wrong::WrongPhase) => put(cq, entry(!cq.phase), true),
            Some(Wrong::WrongQueue(other)) => {
                let wrong = Completion::new(result, head, other, cid, status, cq.phase);
                put(cq, wrong, true);
            }
            Some(Wrong::WrongHead(head)) => {
                let wrong = Completion::new(result, head, sq, cid, status, cq.phase);
                put(cq, wrong, true);
            }
            Some(Wrong::Duplicate) => {
                put(cq, entry(cq.phase), true);
                put(cq, entry(cq.phase), true);
            }
            Some(Wrong::AndUnknown(unknown)) => {
                let extra = Completion::new(0, head, sq, unknown, status, cq.phase);
                put(cq, extra, true);
                put(cq, entry(cq.phase), true);
            }
            _ => put(cq, entry(cq.phase), true),
        }
        self.observed.dma_faults += faults;
        self.observed.completions += 1;
        let vector = cq.vector;
        vector.into_iter().for_each(|vector| self.interrupt(vector));
        None
    }

    fn interrupt(&mut self, vector: u16) {
        if let Some(vector) = self.vectors.get_mut(&vector) {
            vector.raised = true;
            if !vector.masked {
                vector.deliver();
            }
        }
    }
}

impl Vector {
    /// Makes the descriptor readable if the interrupt was raised.
    pub(crate) fn deliver(&mut self) {
        if core::mem::take(&mut self.raised) {
            // Fails only when the counter is full: then the descriptor is readable.
            let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
        }
    }
}
