//! A non-blocking socket with or without TLS on it, as the blocking client sees it.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rpc_tls::{Identity, Plain, Stream, TlsError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::client_error::ClientError;

/// Reads and writes as a non-blocking socket does: `WouldBlock` says to [`Channel::wait`].
#[derive(Debug)]
pub(crate) struct Channel {
    socket: TcpStream,
    tls: Option<Box<Stream>>,
}

impl Channel {
    /// Takes a connected, non-blocking socket; with an identity, past the handshake with `name` (`HOST:PORT`) within `limit`.
    pub(crate) fn new(
        socket: TcpStream,
        identity: Option<&Identity>,
        name: &str,
        limit: Duration,
    ) -> Result<Channel, ClientError> {
        let refused = |error| ClientError::Tls {
            addr: name.to_owned(),
            error,
        };
        let Some(identity) = identity else {
            return Ok(Channel { socket, tls: None });
        };
        let host = name.rsplit_once(':').map_or(name, |(host, _)| host);
        let stream = Stream::client(identity, host.trim_matches(['[', ']'])).map_err(refused)?;
        let mut channel = Channel {
            socket,
            tls: Some(Box::new(stream)),
        };
        let end = Instant::now() + limit;
        while !channel.shake().map_err(|e| handshake(e, name))? {
            let left = end.saturating_duration_since(Instant::now());
            let moved = channel.wait(PollFlags::IN, left);
            if !moved.map_err(|e| handshake(e, name))? {
                return Err(ClientError::TimedOut {
                    what: "agreeing on TLS",
                    after: limit,
                    outstanding: 0,
                });
            }
        }
        Ok(channel)
    }

    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.socket.peer_addr()
    }

    /// As far as the handshake goes now; true: it is over.
    fn shake(&mut self) -> io::Result<bool> {
        let Some(tls) = &mut self.tls else {
            return Ok(true);
        };
        loop {
            let went = tls.advance();
            push(&mut self.socket, tls)?;
            went.map_err(failed)?;
            if !tls.is_handshaking() {
                return Ok(true);
            }
            match self.socket.read(tls.space()) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(got) => tls.received(got),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether something that was written has not left yet.
    pub(crate) fn has_unsent(&self) -> bool {
        self.tls
            .as_ref()
            .is_some_and(|tls| !tls.unsent().is_empty())
    }

    /// Writes what fits.
    pub(crate) fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return self.socket.write_vectored(slices);
        };
        push(&mut self.socket, tls)?;
        let taken = tls.write(slices).map_err(failed)?;
        push(&mut self.socket, tls)?;
        match taken == 0 && !tls.unsent().is_empty() {
            true => Err(io::ErrorKind::WouldBlock.into()),
            false => Ok(taken),
        }
    }

    /// Reads into `spaces`, in order; 0: the engine sends no more.
    pub(crate) fn read(&mut self, spaces: [&mut [u8]; 2]) -> io::Result<usize> {
        let [first, second] = spaces;
        let Some(tls) = &mut self.tls else {
            let mut both = [IoSliceMut::new(first), IoSliceMut::new(second)];
            return self.socket.read_vectored(&mut both);
        };
        loop {
            let plain = tls.read([&mut *first, &mut *second]);
            match plain.map_err(failed)? {
                Plain::Bytes(got) => return Ok(got),
                Plain::End => return Ok(0),
                Plain::Nothing => match self.socket.read(tls.space())? {
                    0 => return Ok(0),
                    got => tls.received(got),
                },
            }
        }
    }

    /// Waits for `events`, and for room if something is unsent; false: not within `limit`.
    pub(crate) fn wait(&self, events: PollFlags, limit: Duration) -> io::Result<bool> {
        if self.tls.as_ref().is_some_and(|tls| tls.has_bytes()) {
            return Ok(true);
        }
        let room = match self.has_unsent() {
            true => PollFlags::OUT,
            false => PollFlags::empty(),
        };
        let mut fds = [PollFd::new(&self.socket, events | room)];
        let limit = Timespec {
            tv_sec: limit.as_secs().cast_signed(),
            tv_nsec: limit.subsec_nanos().into(),
        };
        match poll(&mut fds, Some(&limit)) {
            Ok(0) => Ok(false),
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(true),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Sends what is encrypted, as far as the socket takes it.
fn push(socket: &mut TcpStream, tls: &mut Stream) -> io::Result<()> {
    while !tls.unsent().is_empty() {
        match socket.write(tls.unsent()) {
            Ok(sent) => tls.sent(sent),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn failed(error: TlsError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn handshake(error: io::Error, name: &str) -> ClientError {
    ClientError::io("agreeing on TLS with the engine", error).with_address(name)
}
