//! One thread's channel on a device of SPDK's.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use spdk_bdev::{BdevChannel, BdevError, CompletionSink, Op, Request};
use spdk_ring::Message;
use spdk_sys::{Bdev, Channel, Finished, Poller, Refused};
use spdk_thread::Thread;

use crate::bounce::{self, Bounce};

/// I/Os of one channel; SPDK has 65,535 for all unless its configuration says otherwise, and those it lacks wait here.
const CAPACITY: u32 = 4096;
/// How often a channel without I/O looks whether its device is to go.
const LOOK_US: u64 = 50_000;

const EINVAL: i32 = 22;
const ENODEV: i32 = 19;
const ENOMEM: i32 = 12;

pub(crate) struct SpdkChannel {
    name: String,
    /// Gone once the device is.
    channel: Rc<RefCell<Option<Channel>>>,
    /// SPDK had no room: tried again in each poll, in order.
    waiting: VecDeque<u32>,
    /// Reported at the next poll.
    refused: VecDeque<(u32, i32)>,
    /// A device without a volatile cache that knows no flush: there is nothing to do.
    flush_is_nothing: bool,
    /// SPDK wakes its threads.
    interrupts: bool,
    /// Only where drivers reach registered memory alone.
    bounce: Option<Bounce>,
    _look: Option<Poller>,
}

impl SpdkChannel {
    pub(crate) fn new(
        name: &str,
        bdev: &Bdev,
        thread: &spdk_sys::Thread<Message<Thread>>,
        (flush_is_nothing, copies): (bool, bool),
    ) -> Option<SpdkChannel> {
        let bounce = match copies {
            true => Some(Bounce::new(CAPACITY, bdev.facts().block_size)?),
            false => None,
        };
        let channel = Channel::new(bdev, thread, CAPACITY)?;
        let channel = Rc::new(RefCell::new(Some(channel)));
        let own = Rc::downgrade(&channel);
        let look = Poller::register(thread, "spdk device", LOOK_US, move || {
            if let Some(channel) = own.upgrade() {
                let mut channel = channel.borrow_mut();
                let goes = |channel: &Channel| channel.is_removed() && channel.outstanding() == 0;
                if channel.as_ref().is_some_and(goes) {
                    *channel = None;
                }
            }
            false
        });
        Some(SpdkChannel {
            name: name.to_owned(),
            channel,
            waiting: VecDeque::with_capacity(64),
            refused: VecDeque::with_capacity(64),
            flush_is_nothing,
            interrupts: thread.in_interrupt_mode(),
            bounce,
            _look: look,
        })
    }

    /// Gives an I/O to SPDK; `false` when it has no room.
    #[inline]
    fn start(&mut self, tag: u32, request: &mut Request) -> bool {
        let mut channel = self.channel.borrow_mut();
        let Some(channel) = channel.as_mut() else {
            self.refused.push_back((tag, ENODEV));
            return true;
        };
        let op = match request.op {
            Op::Read => spdk_sys::Op::Read,
            Op::Write => spdk_sys::Op::Write,
            Op::WriteZeroes => spdk_sys::Op::WriteZeroes,
            Op::Unmap => spdk_sys::Op::Unmap,
            Op::Flush if self.flush_is_nothing => {
                self.refused.push_back((tag, 0));
                return true;
            }
            Op::Flush => spdk_sys::Op::Flush,
        };
        let mut buf = if request.op.has_data() {
            request.buf.take()
        } else {
            None
        };
        if let Some(bounce) = &mut self.bounce
            && let Some(own) = buf.take()
        {
            match bounce.give(tag, request, own) {
                Ok(given) => buf = Some(given),
                Err(own) => {
                    request.buf = Some(own);
                    return false;
                }
            }
        }
        let fua = request.fua && !self.flush_is_nothing;
        match channel.submit(tag, op, fua, request.lba, request.blocks, buf) {
            Ok(()) => true,
            Err((why, buf)) => {
                if let Some(buf) = buf {
                    request.buf = Some(match &mut self.bounce {
                        Some(bounce) => bounce.take_back(tag, false, buf),
                        None => buf,
                    });
                }
                refused(&mut self.refused, tag, why)
            }
        }
    }

    #[cold]
    fn look_after_the_rest(&mut self, done: &mut CompletionSink<'_>) {
        while let Some((tag, errno)) = self.refused.pop_front() {
            let result = outcome(&self.name, done.request(tag), errno);
            done.complete(tag, result);
        }
        while let Some(tag) = self.waiting.pop_front() {
            if !self.start(tag, done.request(tag)) {
                self.waiting.push_front(tag);
                break;
            }
        }
    }
}

/// Whether SPDK has refused it for good, which is then reported at the next poll; `false`: it has no room now.
#[cold]
fn refused(list: &mut VecDeque<(u32, i32)>, tag: u32, why: Refused) -> bool {
    let errno = match why {
        Refused::Busy => return false,
        Refused::Removed => ENODEV,
        Refused::Errno(errno) => errno,
        _ => EINVAL,
    };
    list.push_back((tag, errno));
    true
}

#[inline]
fn outcome(name: &str, request: &Request, errno: i32) -> Result<(), BdevError> {
    match errno {
        0 => Ok(()),
        _ => Err(failure(name, request, errno)),
    }
}

#[cold]
fn failure(name: &str, request: &Request, errno: i32) -> BdevError {
    let why = match errno {
        ENODEV => "the device was taken away".to_owned(),
        _ => format!("SPDK reports: {}", std::io::Error::from_raw_os_error(errno)),
    };
    BdevError::io(name, request, why, Some(errno))
}

impl BdevChannel for SpdkChannel {
    #[inline]
    fn submit(&mut self, tag: u32, request: &mut Request) {
        if !self.waiting.is_empty() || !self.start(tag, request) {
            self.waiting.push_back(tag);
        }
    }

    #[inline]
    fn poll(&mut self, _now: u64, done: &mut CompletionSink<'_>) {
        let name = &self.name;
        if let Some(channel) = &mut *self.channel.borrow_mut() {
            let (waiting, bounce) = (&mut self.waiting, &mut self.bounce);
            channel.reap(|Finished { tag, buf, errno }| {
                let request = done.request(tag);
                if let Some(buf) = buf {
                    let own = match bounce {
                        Some(bounce) => {
                            bounce.take_back(tag, bounce::has_read(request, errno), buf)
                        }
                        None => buf,
                    };
                    request.buf = Some(own);
                }
                if errno == ENOMEM {
                    // Not the device's fault, and nothing is lost: once more when there is room.
                    waiting.push_back(tag);
                    return;
                }
                let result = outcome(name, request, errno);
                done.complete(tag, result);
            });
        }
        if !self.refused.is_empty() || !self.waiting.is_empty() {
            self.look_after_the_rest(done);
        }
    }

    fn capacity(&self) -> u32 {
        CAPACITY
    }

    /// SPDK calls the youngest poller first, its users' before the channel's: what came in a turn would wait for the one after the next.
    fn has_finished(&self) -> bool {
        let channel = self.channel.borrow();
        channel.as_ref().is_some_and(Channel::has_finished)
    }

    fn wakes_by_carrier(&self) -> bool {
        self.interrupts
    }

    fn needs_poll(&self) -> bool {
        !self.interrupts || !self.waiting.is_empty() || !self.refused.is_empty()
    }
}
