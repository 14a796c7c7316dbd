//! One connected peer: a message on its way in, replies on their way out. Never waits.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use daos_errno::{Der, from_errno};
use drpc_wire::{Assembler, Call, Chunker, Framing, Message, Progress, Response, packet_socket};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use spdk_thread::FdWatch;

use crate::peer::Peer;
use crate::reply;

/// Packets of one message read in one step. Enough to move long messages quickly, few enough that others have their turn.
const PACKETS_PER_STEP: usize = 16;

/// One session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: u64,
    pub(crate) fd: Rc<OwnedFd>,
    /// Tells when the socket is ready, in an installed server.
    pub(crate) watch: Option<FdWatch>,
    pub(crate) peer: Peer,
    assembler: Assembler,
    outgoing: VecDeque<Outgoing>,
    outgoing_bytes: usize,
    /// Calls whose reply is not written whole.
    pub(crate) open_calls: usize,
    /// The message that has begun and is not complete.
    pub(crate) begun: Option<Begun>,
    /// Since when the server does not read it, while it does not.
    paused_at: Option<u64>,
    /// Since when its socket takes no packet, while it takes none.
    pub(crate) stalled_at: Option<u64>,
    /// When it last sent or took a packet.
    pub(crate) last_active: u64,
    /// Nothing more is read; closed once the last packet is out.
    pub(crate) closing: bool,
}

/// When a message began: in time, and in order over all sessions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun {
    pub(crate) at: u64,
    pub(crate) order: u64,
}

#[derive(Debug)]
struct Outgoing {
    message: Chunker,
    answers_call: bool,
}

/// What reading led to.
#[derive(Debug)]
pub(crate) enum Received {
    /// There was nothing (`AGAIN`).
    Nothing,
    /// Some of a message.
    Partial,
    /// A call and the bytes of its body.
    Call(Call),
    /// Not a call; why.
    Unreadable(Der, String),
    /// The peer closed, or the socket broke.
    Gone(Option<Der>),
}

impl Session {
    pub(crate) fn new(id: u64, fd: OwnedFd, peer: Peer, max_message: usize, now: u64) -> Session {
        Session {
            id,
            fd: Rc::new(fd),
            watch: None,
            peer,
            assembler: Assembler::new(max_message),
            outgoing: VecDeque::new(),
            outgoing_bytes: 0,
            open_calls: 0,
            begun: None,
            paused_at: None,
            stalled_at: None,
            last_active: now,
            closing: false,
        }
    }

    /// How this peer puts messages into packets; chunked until it has sent one.
    pub(crate) fn framing(&self) -> Framing {
        self.assembler.framing().unwrap_or_default()
    }

    /// Bytes held for this peer, without the calls that run.
    pub(crate) fn held_bytes(&self) -> usize {
        self.assembler.buffered() + self.outgoing_bytes
    }

    /// Whether there are packets to write.
    pub(crate) fn wants_write(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether nothing is begun, running or to be written.
    pub(crate) fn is_idle(&self) -> bool {
        self.open_calls == 0 && self.begun.is_none() && self.outgoing.is_empty()
    }

    /// Whether the server reads it now.
    pub(crate) fn is_read(&self) -> bool {
        self.paused_at.is_none() && !self.closing
    }

    /// Stops or resumes reading. The time between does not count against a begun message.
    pub(crate) fn set_read(&mut self, read: bool, now: u64) {
        match (read, self.paused_at) {
            (false, None) => self.paused_at = Some(now),
            (true, Some(since)) => {
                self.paused_at = None;
                if let Some(begun) = &mut self.begun {
                    begun.at += now.saturating_sub(since);
                }
            }
            _ => {}
        }
    }

    /// Reads until a message is complete, the socket is empty or the step's share is used up. `order` numbers a message that
    /// begins now.
    pub(crate) fn receive(&mut self, buffer: &mut [u8], now: u64, order: u64) -> Received {
        for packet in 0..PACKETS_PER_STEP {
            let len = match packet_socket::receive(&self.fd, buffer, RecvFlags::DONTWAIT) {
                Ok(0) => return Received::Gone(None),
                Ok(len) => len,
                Err(errno) => match Fate::of_receive(errno) {
                    Fate::Keep if packet > 0 => return Received::Partial,
                    Fate::Keep => return Received::Nothing,
                    Fate::Close(der) => return Received::Gone(Some(der)),
                },
            };
            self.last_active = now;
            let Some(bytes) = buffer.get(..len) else {
                let error = drpc_wire::FrameError::LongPacket(len);
                return Received::Unreadable(error.der(), error.to_string());
            };
            match self.assembler.push(bytes) {
                Ok(Progress::More) => {
                    self.begun.get_or_insert(Begun { at: now, order });
                }
                Ok(Progress::Message(message)) => {
                    self.begun = None;
                    return match Call::decode(message.as_ref()) {
                        Ok(call) => Received::Call(call),
                        Err(error) => Received::Unreadable(Der::PROTO, error.to_string()),
                    };
                }
                Err(error) => {
                    self.begun = None;
                    return Received::Unreadable(error.der(), error.to_string());
                }
            }
        }
        Received::Partial
    }

    /// Queues the answer to a call and writes what the socket takes.
    pub(crate) fn answer(&mut self, message: Chunker, now: u64) -> Result<u64, Errno> {
        self.queue(message, true);
        self.flush(now)
    }

    /// Tells the peer that its call could not be read; the session ends once that is written.
    pub(crate) fn refuse(&mut self, now: u64) -> Result<u64, Errno> {
        let response = Response::unreadable_call();
        self.queue(reply::chunker(&response, self.framing()), false);
        self.closing = true;
        self.flush(now)
    }

    fn queue(&mut self, message: Chunker, answers_call: bool) {
        self.outgoing_bytes += message.message_len();
        self.outgoing.push_back(Outgoing {
            message,
            answers_call,
        });
    }

    /// Writes packets until the socket takes no more; how many replies to calls are written whole.
    pub(crate) fn flush(&mut self, now: u64) -> Result<u64, Errno> {
        let mut replies = 0;
        while let Some(front) = self.outgoing.front_mut() {
            while let Some(packet) = front.message.packet() {
                match packet_socket::send(&self.fd, &packet, SendFlags::DONTWAIT) {
                    Ok(()) => front.message.advance(),
                    Err(Errno::AGAIN) => {
                        self.stalled_at.get_or_insert(now);
                        return Ok(replies);
                    }
                    Err(errno) => return Err(errno),
                }
                self.stalled_at = None;
                self.last_active = now;
            }
            self.outgoing_bytes -= front.message.message_len();
            if front.answers_call {
                self.open_calls -= 1;
                replies += 1;
            }
            self.outgoing.pop_front();
        }
        self.stalled_at = None;
        Ok(replies)
    }

    /// When this session is to be closed if nothing moves before.
    pub(crate) fn stall_deadline(&self, stall_timeout: u64) -> Option<u64> {
        let reading = self.begun.filter(|_| self.is_read()).map(|b| b.at);
        let since = match (reading, self.stalled_at) {
            (Some(a), Some(b)) => a.min(b),
            (a, b) => a.or(b)?,
        };
        Some(since.saturating_add(stall_timeout))
    }
}

/// What a failed receive does to its session (DAOS `process_session_activity`): only "nothing there" leaves it open.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Keep,
    Close(Der),
}

impl Fate {
    fn of_receive(errno: Errno) -> Fate {
        match errno {
            Errno::AGAIN => Fate::Keep,
            errno => Fate::Close(from_errno(errno.raw_os_error())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recv_call_again_keeps_the_session_every_other_error_closes_it() {
        assert_eq!(Fate::of_receive(Errno::AGAIN), Fate::Keep);
        assert_eq!(Fate::of_receive(Errno::WOULDBLOCK), Fate::Keep);
        assert_eq!(Fate::of_receive(Errno::NOMEM), Fate::Close(Der::NOMEM));
        assert_eq!(Fate::of_receive(Errno::IO), Fate::Close(Der::IO));
        assert_eq!(Fate::of_receive(Errno::CONNRESET), Fate::Close(Der::MISC));
    }
}
