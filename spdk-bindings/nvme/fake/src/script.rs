//! What the device does wrong, and to whom.

use nvme_spec::{Command, Status};

/// Which commands a fault is for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Match {
    /// Only those of this submission queue; 0 is the admin queue.
    pub queue: Option<u16>,
    /// Only those with this opcode.
    pub opcode: Option<u8>,
    /// Only those that touch this block.
    pub lba: Option<u64>,
    /// Let so many that match pass first.
    pub skip: u32,
}

impl Match {
    /// Commands of a queue.
    #[must_use]
    pub fn queue(queue: u16) -> Match {
        Match {
            queue: Some(queue),
            ..Match::default()
        }
    }

    /// Admin commands with an opcode.
    #[must_use]
    pub fn admin(opcode: u8) -> Match {
        Match {
            queue: Some(0),
            opcode: Some(opcode),
            ..Match::default()
        }
    }

    /// The same, letting the first `skip` pass.
    #[must_use]
    pub fn after(self, skip: u32) -> Match {
        Match { skip, ..self }
    }

    fn fits(&self, queue: u16, command: &Command) -> bool {
        let touches = |lba: u64| {
            (command.lba()..command.lba() + u64::from(command.block_count())).contains(&lba)
        };
        self.queue.is_none_or(|want| want == queue)
            && self.opcode.is_none_or(|want| want == command.opcode())
            && self.lba.is_none_or(touches)
    }
}

/// What goes wrong with a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    /// Not executed, ends with this status.
    Status(Status),
    /// Half of the data is moved, then it ends with this status.
    Torn(Status),
    /// Fetched and never completed; an abort finds it.
    Lost,
    /// Completed so many steps later.
    Late(u32),
    /// Completed twice.
    Duplicate,
    /// Completed, and so is a command that does not exist.
    AndUnknown(u16),
    /// The completion is written with the phase tag of the last round.
    WrongPhase,
    /// The completion names this submission queue.
    WrongQueue(u16),
    /// The completion says that the submission queue's head is here.
    WrongHead(u16),
    /// The device is pulled out when it fetches the command.
    Remove,
    /// Fatal error: CSTS.CFS, nothing moves until a reset.
    Fatal,
    /// Nothing moves any more, and nothing says so.
    Hang,
}

/// A fault of the script.
#[derive(Debug, Clone)]
pub struct Fault {
    /// To which commands.
    pub to: Match,
    /// What.
    pub wrong: Wrong,
    /// How often; then it is gone.
    pub times: u32,
}

impl Fault {
    /// Once.
    #[must_use]
    pub fn once(to: Match, wrong: Wrong) -> Fault {
        Fault {
            to,
            wrong,
            times: 1,
        }
    }

    /// Always.
    #[must_use]
    pub fn always(to: Match, wrong: Wrong) -> Fault {
        Fault {
            to,
            wrong,
            times: u32::MAX,
        }
    }
}

/// What is wrong with the registers.
#[derive(Debug, Clone)]
pub enum RegisterFault {
    /// A register reads as this, whatever it holds (stuck CSTS, nonsense in CAP).
    Value {
        /// Its offset.
        offset: usize,
        /// What is read.
        value: u32,
    },
    /// After so many reads everything reads as ones.
    AllOnesAfter(u64),
    /// The next reads answer this, one value each.
    Noise(Vec<u32>),
    /// Nothing is wrong any more.
    None,
}

/// The faults that wait for their command.
#[derive(Default)]
pub(crate) struct Script {
    faults: Vec<Fault>,
}

impl Script {
    pub(crate) fn add(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    pub(crate) fn clear(&mut self) {
        self.faults.clear();
    }

    /// What goes wrong with a command: the first fault that fits.
    pub(crate) fn take(&mut self, queue: u16, command: &Command) -> Option<Wrong> {
        for (at, fault) in self.faults.iter_mut().enumerate() {
            if !fault.to.fits(queue, command) {
                continue;
            }
            if fault.to.skip > 0 {
                fault.to.skip -= 1;
                continue;
            }
            let wrong = fault.wrong.clone();
            if fault.times != u32::MAX {
                fault.times -= 1;
            }
            if fault.times == 0 {
                self.faults.remove(at);
            }
            return Some(wrong);
        }
        None
    }
}
