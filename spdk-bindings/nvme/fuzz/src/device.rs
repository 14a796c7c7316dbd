//! The device: honest where the tape says so, and whatever it says elsewhere.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use nvme_spec::opcode::{admin, io};
use nvme_spec::register::{self, Capabilities, Configuration, ControllerStatus};
use nvme_spec::{
    ALL_NAMESPACES, Command, Completion, IDENTIFY_BYTES, IdentifyController, IdentifyNamespace,
    Status, feature, identify_cns, status,
};
use spdk_env::IoSpace;

use crate::tape::{Rest, Tape};

const QUEUES: u16 = 2;
const BLOCKS: u64 = 4096;
/// Commands of one queue in one step.
const BURST: usize = 8;

struct Sq {
    base: u64,
    entries: u32,
    head: u32,
    tail: u32,
    cq: u16,
}

struct Cq {
    base: u64,
    entries: u32,
    tail: u32,
    phase: bool,
}

pub(crate) struct Device {
    pub(crate) tape: Tape,
    space: Arc<IoSpace>,
    /// Registers below the doorbells that the driver writes, by offset.
    written: BTreeMap<usize, u32>,
    sqs: BTreeMap<u16, Sq>,
    cqs: BTreeMap<u16, Cq>,
    /// Asynchronous event requests that wait.
    events: VecDeque<u16>,
    /// Completions that were held back.
    late: Vec<(u16, Completion)>,
    fatal: bool,
    pub(crate) gone: bool,
    /// Bus mastering is off.
    pub(crate) cut_off: bool,
    /// Accesses to memory that the device was not given, while it was not cut off.
    pub(crate) faults: u32,
}

impl Device {
    pub(crate) fn new(tape: Tape, space: Arc<IoSpace>) -> Device {
        Device {
            tape,
            space,
            written: BTreeMap::new(),
            sqs: BTreeMap::new(),
            cqs: BTreeMap::new(),
            events: VecDeque::new(),
            late: Vec::new(),
            fatal: false,
            gone: false,
            cut_off: false,
            faults: 0,
        }
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone || self.tape.ended() == Some(Rest::Gone)
    }

    pub(crate) fn read(&mut self, offset: usize) -> u32 {
        if self.is_gone() {
            return register::ABSENT;
        }
        if self.tape.is_honest_read() {
            self.truth(offset)
        } else {
            self.tape.u32()
        }
    }

    fn word(&self, offset: usize) -> u32 {
        self.written.get(&offset).copied().unwrap_or(0)
    }

    fn truth(&self, offset: usize) -> u32 {
        let cap = Capabilities(0)
            .with_mqes(63)
            .with_cqr(1)
            .with_to(2)
            .with_css_nvm(1)
            .with_mpsmax(4);
        match offset {
            register::CAP => cap.0 as u32,
            0x04 => (cap.0 >> 32) as u32,
            register::VS => 0x0001_0400,
            register::CSTS => {
                let cc = Configuration(self.word(register::CC));
                let shst = if cc.shn() == 0 {
                    0
                } else {
                    register::SHST_COMPLETE
                };
                let csts = ControllerStatus(0).with_rdy(cc.en()).with_shst(shst);
                csts.with_cfs(u32::from(self.fatal)).0
            }
            _ => self.word(offset),
        }
    }

    pub(crate) fn write(&mut self, offset: usize, value: u32) {
        if offset >= register::DOORBELLS {
            // The stride is 0, whatever the driver was told.
            let (queue, is_cq) = (
                (offset - register::DOORBELLS) / 8,
                !offset.is_multiple_of(8),
            );
            let sq = self.sqs.get_mut(&(queue as u16)).filter(|_| !is_cq);
            if let Some(sq) = sq.filter(|sq| value < sq.entries) {
                sq.tail = value;
            }
            return;
        }
        let before = Configuration(self.word(register::CC)).en();
        self.written.insert(offset, value);
        let after = Configuration(self.word(register::CC)).en();
        if before != after {
            self.reset();
        }
        if after > before {
            let wide = |at: usize| u64::from(self.word(at)) | u64::from(self.word(at + 4)) << 32;
            let (sq, cq) = (wide(register::ASQ), wide(register::ACQ));
            let sizes = self.word(register::AQA);
            self.add_sq(0, sq, (sizes & 0xfff) + 1, 0);
            self.add_cq(0, cq, (sizes >> 16 & 0xfff) + 1);
        }
    }

    fn reset(&mut self) {
        self.sqs.clear();
        self.cqs.clear();
        self.events.clear();
        self.late.clear();
        self.fatal = false;
    }

    fn add_sq(&mut self, id: u16, base: u64, entries: u32, cq: u16) {
        let sq = Sq {
            base,
            entries,
            head: 0,
            tail: 0,
            cq,
        };
        self.sqs.insert(id, sq);
    }

    fn add_cq(&mut self, id: u16, base: u64, entries: u32) {
        let cq = Cq {
            base,
            entries,
            tail: 0,
            phase: true,
        };
        self.cqs.insert(id, cq);
    }

    /// Fetches and executes what was submitted.
    pub(crate) fn step(&mut self) {
        if self.is_gone() || self.cut_off || self.fatal {
            return;
        }
        let ids: Vec<u16> = self.sqs.keys().copied().collect();
        for id in ids {
            for _ in 0..BURST {
                let Some(command) = self.fetch(id) else { break };
                self.execute(id, &command);
            }
        }
    }

    fn fetch(&mut self, id: u16) -> Option<Command> {
        let sq = self.sqs.get_mut(&id).filter(|sq| sq.head != sq.tail)?;
        let mut bytes = [0; 64];
        let at = sq.base + 64 * u64::from(sq.head);
        sq.head = (sq.head + 1) % sq.entries;
        if self.space.read(at, &mut bytes).is_err() {
            self.faults += 1;
            return None;
        }
        let mut words = [0; 8];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        Some(Command { words })
    }

    /// A byte says what becomes of a command.
    fn execute(&mut self, sq: u16, command: &Command) {
        if self.tape.ended() == Some(Rest::Silent) {
            return;
        }
        let what = self.tape.byte();
        match what {
            0..=0x9f => self.honest(sq, command, None),
            0xa0..=0xaf => {
                let mut patch = [0; 40];
                let at = usize::from(self.tape.u16()) % IDENTIFY_BYTES;
                let len = usize::from(what & 0xf) * 2 + 1;
                patch[..len].fill_with(|| self.tape.byte());
                self.honest(sq, command, Some((at, &patch[..len])));
            }
            0xb0..=0xbf => {
                // All of it, over and over again.
                let mut pattern = [0; 16];
                let len = usize::from(what & 0xf) + 1;
                pattern[..len].fill_with(|| self.tape.byte());
                let page: Vec<u8> = pattern[..len]
                    .iter()
                    .copied()
                    .cycle()
                    .take(IDENTIFY_BYTES)
                    .collect();
                self.honest(sq, command, Some((0, &page)));
            }
            0xc0..=0xcf => {
                let status = Status(self.tape.u16() & 0x7fff);
                self.complete(sq, command, 0, status);
            }
            0xd0..=0xd7 => {
                let raw = self.raw();
                self.post(sq, raw, false);
            }
            0xd8..=0xdf => {
                let raw = self.raw();
                self.post(sq, raw, true);
            }
            0xe0..=0xe7 => {} // lost
            0xe8..=0xef => {
                self.honest(sq, command, None);
                self.complete(sq, command, 0, status::SUCCESS);
            }
            0xf0..=0xf4 => {
                let head = self.sqs.get(&sq).map_or(0, |sq| sq.head as u16);
                let held = Completion::new(0, head, sq, command.cid(), status::SUCCESS, false);
                self.late.push((sq, held));
            }
            0xf5..=0xf9 => {
                self.honest(sq, command, None);
                for (sq, held) in core::mem::take(&mut self.late) {
                    self.post(sq, held, false);
                }
            }
            0xfa..=0xfc => {
                self.honest(sq, command, None);
                self.event();
            }
            0xfd | 0xfe => self.fatal = true,
            0xff => self.gone = true,
        }
    }

    fn raw(&mut self) -> Completion {
        Completion {
            result: self.tape.u64(),
            word: self.tape.u64(),
        }
    }

    /// Ends an asynchronous event request, if one waits.
    fn event(&mut self) {
        let dword = self.tape.u32();
        if let Some(cid) = self.events.pop_front() {
            let done = Completion::new(u64::from(dword), 0, 0, cid, status::SUCCESS, false);
            self.post(0, done, false);
        }
    }

    fn complete(&mut self, sq: u16, command: &Command, result: u64, status: Status) {
        let head = self.sqs.get(&sq).map_or(0, |sq| sq.head as u16);
        let done = Completion::new(result, head, sq, command.cid(), status, false);
        self.post(sq, done, false);
    }

    /// Writes a completion into the queue that belongs to `sq`; with its own phase tag, or as it is.
    fn post(&mut self, sq: u16, done: Completion, as_is: bool) {
        let cq = self.sqs.get(&sq).map_or(sq, |sq| sq.cq);
        let Some(cq) = self.cqs.get_mut(&cq) else {
            return;
        };
        let tag = u64::from(cq.phase) << 48;
        let word = if as_is {
            done.word
        } else {
            done.word & !(1 << 48) | tag
        };
        let at = cq.base + 16 * u64::from(cq.tail);
        cq.tail = (cq.tail + 1) % cq.entries;
        cq.phase ^= cq.tail == 0;
        let bytes = [done.result.to_le_bytes(), word.to_le_bytes()].concat();
        if self.space.write(at, &bytes).is_err() {
            self.faults += 1;
        }
    }

    /// As a device should, but with a part of its data exchanged.
    fn honest(&mut self, sq: u16, command: &Command, patch: Option<(usize, &[u8])>) {
        if sq > 0 {
            return self.io(sq, command, patch);
        }
        let mut result = 0;
        match command.opcode() {
            admin::IDENTIFY => self.identify(command, patch),
            admin::GET_LOG_PAGE => self.deliver(command, &[0; IDENTIFY_BYTES], patch),
            admin::CREATE_CQ => {
                let (base, cdw) = (command.prps().0, command.cdw(10));
                self.add_cq(cdw as u16, base, (cdw >> 16) + 1);
            }
            admin::CREATE_SQ => {
                let (base, cdw) = (command.prps().0, command.cdw(10));
                let cq = (command.cdw(11) >> 16) as u16;
                self.add_sq(cdw as u16, base, (cdw >> 16) + 1, cq);
            }
            admin::DELETE_SQ => drop(self.sqs.remove(&(command.cdw(10) as u16))),
            admin::DELETE_CQ => drop(self.cqs.remove(&(command.cdw(10) as u16))),
            admin::SET_FEATURES | admin::GET_FEATURES => {
                result = u64::from(feature::queue_count(QUEUES));
                if let Some((_, bytes)) = patch {
                    result = bytes.iter().fold(0, |word, b| word << 8 | u64::from(*b));
                }
            }
            admin::ASYNC_EVENT => return self.events.push_back(command.cid()),
            // Not aborted.
            admin::ABORT => result = 1,
            _ => return self.complete(sq, command, 0, status::INVALID_OPCODE.with_dnr()),
        }
        self.complete(sq, command, result, status::SUCCESS);
    }

    fn identify(&mut self, command: &Command, patch: Option<(usize, &[u8])>) {
        let page = match command.cdw(10) as u8 {
            identify_cns::CONTROLLER => IdentifyController {
                serial: "FUZZ".into(),
                model: "fuzz".into(),
                firmware: "1".into(),
                mdts: 5,
                version: 0x0001_0400,
                oaes: 1 << 8 | 1 << 9,
                abort_limit: 3,
                async_event_limit: 3,
                sqes: 0x66,
                cqes: 0x44,
                namespaces: 1,
                oncs: 0b1101,
                vwc: 1,
                ..IdentifyController::default()
            }
            .to_bytes(),
            identify_cns::ACTIVE_NAMESPACES => {
                let mut page = [0; IDENTIFY_BYTES];
                page[0] = u8::from(command.nsid() == 0);
                page
            }
            identify_cns::NAMESPACE if command.nsid() != ALL_NAMESPACES => {
                let mut namespace = IdentifyNamespace {
                    blocks: BLOCKS,
                    capacity: BLOCKS,
                    ..IdentifyNamespace::default()
                };
                namespace.formats[0].data_shift = 9;
                namespace.to_bytes()
            }
            _ => [0; IDENTIFY_BYTES],
        };
        self.deliver(command, &page, patch);
    }

    /// To the first page of a command's data.
    fn deliver(&mut self, command: &Command, page: &[u8], patch: Option<(usize, &[u8])>) {
        let mut page = page.to_vec();
        if let Some((at, bytes)) = patch {
            let len = bytes.len().min(page.len() - at);
            page[at..at + len].copy_from_slice(&bytes[..len]);
        }
        let log = command.opcode() == admin::GET_LOG_PAGE;
        let dwords = (command.cdw(10) >> 16 | command.cdw(11) << 16) as usize + 1;
        let len = if log {
            page.len().min(4 * dwords)
        } else {
            page.len()
        };
        if self.space.write(command.prps().0, &page[..len]).is_err() {
            self.faults += 1;
        }
    }

    fn io(&mut self, sq: u16, command: &Command, patch: Option<(usize, &[u8])>) {
        if let (io::READ, Some((_, bytes))) = (command.opcode(), patch) {
            let len = bytes.len().min(64);
            if self.space.write(command.prps().0, &bytes[..len]).is_err() {
                self.faults += 1;
            }
        }
        self.complete(sq, command, 0, status::SUCCESS);
    }
}
