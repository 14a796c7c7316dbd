//! The blocking client.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use prost::Message;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{RecvFlags, SendFlags, SocketFlags};

use crate::assembler::{Assembler, Progress};
use crate::chunker::Chunker;
use crate::client_error::ClientError;
use crate::header::{MAX_MESSAGE, MAX_PACKET};
use crate::messages::drpc::{Call, Response, Status, UNKNOWN_SEQUENCE};
use crate::packet_socket;
use crate::recognise::Framing;

/// How a connection behaves.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Longest wait of one call, sending and receiving together; `None` waits for ever.
    pub timeout: Option<Duration>,
    /// How messages are put into packets.
    pub framing: Framing,
    /// Largest response taken, in bytes.
    pub max_message: usize,
}

impl Default for ClientOptions {
    fn default() -> ClientOptions {
        ClientOptions {
            timeout: Some(Duration::from_secs(60)),
            framing: Framing::Chunked,
            max_message: MAX_MESSAGE,
        }
    }
}

/// A connection to a dRPC server. Every method blocks its thread until done or timed out.
///
/// Sequences count from 1, as DAOS's Go client does: a response to sequence 0 may be an empty message, on which DAOS's C
/// sender asserts.
#[derive(Debug)]
pub struct Client {
    fd: Option<OwnedFd>,
    options: ClientOptions,
    sequence: i64,
    assembler: Assembler,
    packet: Vec<u8>,
    early: VecDeque<Response>,
}

impl Client {
    /// Connects with the default options.
    pub fn connect(path: impl AsRef<Path>) -> Result<Client, ClientError> {
        Client::connect_with(path, ClientOptions::default())
    }

    /// Connects to the socket file at `path`.
    pub fn connect_with(
        path: impl AsRef<Path>,
        options: ClientOptions,
    ) -> Result<Client, ClientError> {
        let path = path.as_ref();
        let fd = open(path, options.timeout).map_err(|errno| ClientError::Connect {
            path: path.to_owned(),
            errno,
        })?;
        let assembler = Assembler::with_framing(options.max_message, options.framing);
        Ok(Client {
            fd: Some(fd),
            options,
            sequence: 0,
            assembler,
            packet: vec![0; MAX_PACKET],
            early: VecDeque::new(),
        })
    }

    /// Connects, calls once, closes (DAOS makes one connection per call).
    pub fn call_once(
        path: impl AsRef<Path>,
        options: ClientOptions,
        module: i32,
        method: i32,
        body: &[u8],
    ) -> Result<Response, ClientError> {
        Client::connect_with(path, options)?.call(module, method, body)
    }

    /// Sequence of the last call; 0 before the first.
    pub fn sequence(&self) -> i64 {
        self.sequence
    }

    /// Whether the connection is of use: no error broke it.
    pub fn is_connected(&self) -> bool {
        self.fd.is_some()
    }

    /// Calls a method and waits for the answer (DAOS `drpc_call` with `R_SYNC`). The response's status is the caller's to
    /// look at. Answers to earlier calls that were given up are skipped.
    pub fn call(&mut self, module: i32, method: i32, body: &[u8]) -> Result<Response, ClientError> {
        let deadline = self.deadline();
        let sequence = self.send_by(module, method, body, deadline)?;
        loop {
            let response = self.receive_by(deadline)?;
            match response.sequence {
                got if got == sequence || got == UNKNOWN_SEQUENCE => return Ok(response),
                got if (1..sequence).contains(&got) => {}
                got => {
                    self.fd = None;
                    return Err(ClientError::WrongSequence {
                        sent: sequence,
                        got,
                    });
                }
            }
        }
    }

    /// Calls a method whose answer must be SUCCESS and a `T`.
    pub fn call_typed<T: Message + Default>(
        &mut self,
        module: i32,
        method: i32,
        request: &impl Message,
    ) -> Result<T, ClientError> {
        let response = self.call(module, method, &request.encode_to_vec())?;
        success(&response)?;
        T::decode(response.body.as_slice()).map_err(|e| ClientError::Undecodable(e.to_string()))
    }

    /// Sends and does not wait: the response is made here, status `SUBMITTED` (DAOS `drpc_call` without `R_SYNC`).
    pub fn submit(
        &mut self,
        module: i32,
        method: i32,
        body: &[u8],
    ) -> Result<Response, ClientError> {
        let sequence = self.send(module, method, body)?;
        Ok(Response::with_status(sequence, Status::Submitted))
    }

    /// Sends a call and returns its sequence; its answer comes out of [`Client::receive`], in the server's order.
    pub fn send(&mut self, module: i32, method: i32, body: &[u8]) -> Result<i64, ClientError> {
        self.send_by(module, method, body, self.deadline())
    }

    /// Waits for the next answer.
    pub fn receive(&mut self) -> Result<Response, ClientError> {
        self.receive_by(self.deadline())
    }

    fn deadline(&self) -> Option<Instant> {
        self.options.timeout.map(|wait| Instant::now() + wait)
    }

    fn send_by(
        &mut self,
        module: i32,
        method: i32,
        body: &[u8],
        deadline: Option<Instant>,
    ) -> Result<i64, ClientError> {
        let sequence = self.sequence + 1;
        let call = Call {
            module,
            method,
            sequence,
            body: body.to_vec(),
        };
        let mut chunker = Chunker::new(call.encode_to_vec(), self.options.framing)?;
        self.sequence = sequence;
        while let Some(packet) = chunker.packet() {
            let fd = self.fd.as_ref().ok_or(ClientError::NotConnected)?;
            if chunker.is_partly_sent() {
                self.arm(Timeout::Send, deadline)?;
            }
            if let Err(errno) = packet_socket::send(fd, &packet, SendFlags::empty()) {
                return self.send_failed(errno, sequence);
            }
            chunker.advance();
        }
        Ok(sequence)
    }

    /// A server that refuses a request says why and closes, perhaps before it was sent whole: its words are still there.
    fn send_failed(&mut self, errno: Errno, sequence: i64) -> Result<i64, ClientError> {
        if matches!(errno, Errno::PIPE | Errno::CONNRESET) {
            for _ in 0..2 {
                if let Ok(response) = self.receive_now() {
                    self.early.push_back(response);
                    self.fd = None;
                    return Ok(sequence);
                }
            }
        }
        self.fd = None;
        Err(self.transport("send", errno))
    }

    fn receive_now(&mut self) -> Result<Response, ClientError> {
        let fd = self.fd.as_ref().ok_or(ClientError::NotConnected)?;
        let len =
            packet_socket::receive(fd, &mut self.packet, RecvFlags::DONTWAIT).map_err(|errno| {
                ClientError::Transport {
                    what: "receive",
                    errno,
                }
            })?;
        match take_packet(&mut self.assembler, &self.packet, len)? {
            Some(response) => Ok(response),
            None => Err(ClientError::Closed),
        }
    }

    fn receive_by(&mut self, deadline: Option<Instant>) -> Result<Response, ClientError> {
        if let Some(response) = self.early.pop_front() {
            return Ok(response);
        }
        let mut first = true;
        loop {
            if !first {
                self.arm(Timeout::Recv, deadline)?;
            }
            first = false;
            let fd = self.fd.as_ref().ok_or(ClientError::NotConnected)?;
            let len = match packet_socket::receive(fd, &mut self.packet, RecvFlags::empty()) {
                Ok(len) => len,
                Err(Errno::AGAIN) => return Err(self.timed_out()),
                Err(errno) => {
                    self.fd = None;
                    return Err(self.transport("receive", errno));
                }
            };
            match take_packet(&mut self.assembler, &self.packet, len) {
                Ok(None) => {}
                Ok(Some(response)) => return Ok(response),
                Err(error) => {
                    self.fd = None;
                    return Err(error);
                }
            }
        }
    }

    /// Cuts the socket's time-out to what is left of the call's, between the packets of one message.
    fn arm(&self, which: Timeout, deadline: Option<Instant>) -> Result<(), ClientError> {
        let (Some(deadline), Some(fd)) = (deadline, &self.fd) else {
            return Ok(());
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(self.timed_out());
        }
        set_socket_timeout(fd, which, Some(left))
            .map_err(|errno| self.transport("setsockopt", errno))
    }

    fn timed_out(&self) -> ClientError {
        ClientError::TimedOut(self.options.timeout.unwrap_or_default())
    }

    fn transport(&self, what: &'static str, errno: Errno) -> ClientError {
        match errno {
            Errno::AGAIN => self.timed_out(),
            errno => ClientError::Transport { what, errno },
        }
    }
}

/// `Refused` unless the response says SUCCESS.
pub(crate) fn success(response: &Response) -> Result<(), ClientError> {
    match response.status() {
        Status::Success => Ok(()),
        status => Err(ClientError::Refused(status)),
    }
}

fn open(path: &Path, timeout: Option<Duration>) -> Result<OwnedFd, Errno> {
    let address = packet_socket::address(path)?;
    let fd = packet_socket::socket(SocketFlags::empty())?;
    if timeout.is_some() {
        set_socket_timeout(&fd, Timeout::Send, timeout)?;
        set_socket_timeout(&fd, Timeout::Recv, timeout)?;
    }
    rustix::net::connect(&fd, &address)?;
    Ok(fd)
}

fn take_packet(
    assembler: &mut Assembler,
    buffer: &[u8],
    len: usize,
) -> Result<Option<Response>, ClientError> {
    if len == 0 {
        return Err(ClientError::Closed);
    }
    let Some(packet) = buffer.get(..len) else {
        return Err(crate::FrameError::LongPacket(len).into());
    };
    match assembler.push(packet)? {
        Progress::More => Ok(None),
        Progress::Message(bytes) => Response::decode(bytes.as_ref())
            .map(Some)
            .map_err(|e| ClientError::Undecodable(e.to_string())),
    }
}
