//! The blocking, pipelined client for tools and tests.

use std::collections::{HashSet, VecDeque};
use std::io::{self, IoSlice};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use daos_errno::Der;
use rpc_tls::Identity;
use rustix::event::PollFlags;

use crate::Opcode;
use crate::channel::Channel;
use crate::client_error::ClientError;
use crate::decoder::{Buffers, Damage, Decoder, Frame, Grant, Step};
use crate::header::{FLAG_OFFER, FLAG_RESPONSE, Header, MAX_BODY, MAX_BULK};
use crate::hello::{HelloReply, HelloRequest, PROTOCOL};
use crate::offer::{Offer, Pull};
use crate::outgoing::Outgoing;
use crate::versions::Versions;

const READ_AHEAD: usize = 16 << 10;
/// Buffers of each kind kept for reuse.
const KEPT: usize = 8;

/// Time-outs of a [`Client`], and who it is. The read and write time-outs run while no byte moves, not over a whole transfer.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Encrypts the connection and shows this certificate; `None`: no TLS.
    pub tls: Option<Identity>,
    /// For the TCP connection, per address.
    pub connect_timeout: Duration,
    /// Waiting for a reply.
    pub read_timeout: Duration,
    /// Waiting for the engine to take a request.
    pub write_timeout: Duration,
}

impl Default for ClientOptions {
    fn default() -> ClientOptions {
        let long = Duration::from_secs(30);
        ClientOptions {
            tls: None,
            connect_timeout: Duration::from_secs(5),
            read_timeout: long,
            write_timeout: long,
        }
    }
}

/// What an engine answered.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Reply {
    /// 0 or a negative DAOS error number.
    pub status: i32,
    /// Protobuf of the module's response.
    pub body: Vec<u8>,
    /// Raw data, if the response has any.
    pub bulk: Option<Vec<u8>>,
    /// With the status OVERLOAD_RETRY: how to come back.
    pub retry: Option<Retry>,
}

/// An engine's advice to a request that it could not have served in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Sent again with this, the request comes before younger ones.
    pub enqueue_id: u64,
    /// When that makes sense. Add some jitter: others hear the same.
    pub after: Duration,
}

impl Reply {
    /// The reply itself unless its status is an error.
    pub fn into_result(self) -> Result<Reply, Der> {
        Der::check(self.status).map(|()| self)
    }
}

/// A connection to one engine. Blocking: for tools, tests and threads of their own, never on an xstream.
///
/// Requests may be pipelined ([`Client::send`], then [`Client::recv`] in any order of completion). At most the number
/// of requests that the engine announced stays outstanding: a `send` beyond it first takes in replies, which `recv`
/// hands out later. While a request does not fit into the socket, replies are read as well, so the two sides never
/// wait for each other.
#[derive(Debug)]
pub struct Client {
    channel: Channel,
    options: ClientOptions,
    hello: HelloReply,
    tag: u32,
    next_id: u64,
    outstanding: HashSet<u64>,
    decoder: Decoder<Vec<u8>>,
    memory: Memory,
    ready: VecDeque<(u64, Result<Reply, ClientError>)>,
    /// What the engine asks for of the data that a request offers, and the request.
    pulls: VecDeque<(u64, Pull)>,
    broken: bool,
}

impl Client {
    /// Connects to the xstream of `tag` (0 = system, 1 + t = main of target t) with default time-outs.
    pub fn connect(
        addr: impl ToSocketAddrs + std::fmt::Debug,
        tag: u32,
    ) -> Result<Client, ClientError> {
        Client::connect_with(addr, tag, ClientOptions::default())
    }

    /// Connects with given time-outs.
    pub fn connect_with(
        addr: impl ToSocketAddrs + std::fmt::Debug,
        tag: u32,
        options: ClientOptions,
    ) -> Result<Client, ClientError> {
        let name = format!("{addr:?}").trim_matches('"').to_owned();
        let socket =
            open(addr, options.connect_timeout).map_err(|source| ClientError::Connect {
                addr: name.clone(),
                source,
            })?;
        let identity = options.tls.as_ref();
        let channel = Channel::new(socket, identity, &name, options.connect_timeout)?;
        let mut client = Client {
            channel,
            options,
            // Until the engine says more, exactly the HELLO may be outstanding.
            hello: HelloReply {
                protocol: PROTOCOL,
                targets: 0,
                max_in_flight: 1,
                max_bulk: 0,
                max_pulls: 0,
            },
            tag,
            next_id: 1,
            outstanding: HashSet::new(),
            decoder: Decoder::new(READ_AHEAD),
            memory: Memory::default(),
            ready: VecDeque::new(),
            pulls: VecDeque::new(),
            broken: false,
        };
        client.hello = client.greet(&name)?;
        Ok(client)
    }

    fn greet(&mut self, addr: &str) -> Result<HelloReply, ClientError> {
        let hello = HelloRequest {
            protocol: PROTOCOL,
            tag: self.tag,
        }
        .encode();
        let reply = self.call(Opcode::HELLO, &hello, None);
        let reply = reply.map_err(|error| error.with_address(addr))?;
        let said = HelloReply::decode(&reply.body);
        if let Some(said) = said.filter(|said| said.protocol != PROTOCOL) {
            return Err(ClientError::Protocol {
                addr: addr.to_owned(),
                theirs: said.protocol,
            });
        }
        let refused = |der| ClientError::Refused {
            addr: addr.to_owned(),
            tag: self.tag,
            der,
        };
        Der::check(reply.status).map_err(refused)?;
        said.ok_or_else(|| refused(Der::PROTO))
    }

    /// What the engine said about itself: targets, limits.
    pub fn hello(&self) -> &HelloReply {
        &self.hello
    }

    /// The tag this connection was opened for.
    pub fn tag(&self) -> u32 {
        self.tag
    }

    /// The engine's address.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.channel.peer_addr()
    }

    /// Requests whose reply was not yet handed out by [`Client::recv`].
    pub fn outstanding(&self) -> usize {
        self.outstanding.len() + self.ready.len()
    }

    /// One request and its reply. Replies to earlier [`Client::send`]s are kept for [`Client::recv`].
    pub fn call(
        &mut self,
        opcode: impl Into<Opcode>,
        body: &[u8],
        bulk: Option<&[u8]>,
    ) -> Result<Reply, ClientError> {
        self.call_again(opcode, body, bulk, 0)
    }

    /// The same for a request that was refused with OVERLOAD_RETRY, with the id that the refusal gave.
    pub fn call_again(
        &mut self,
        opcode: impl Into<Opcode>,
        body: &[u8],
        bulk: Option<&[u8]>,
        enqueue_id: u64,
    ) -> Result<Reply, ClientError> {
        let bulk = bulk.unwrap_or_default();
        let id = self.start(self.tag, opcode.into(), (body, bulk), 0, enqueue_id)?;
        self.wait_for(id, &[])
    }

    /// One request that offers `data`, of any length, instead of carrying it: the engine's handler asks for the parts that it wants,
    /// when it has room for them, while this waits for the reply.
    ///
    /// # Errors
    /// [`ClientError::NoOffers`]: nothing was sent.
    pub fn call_offering(
        &mut self,
        opcode: impl Into<Opcode>,
        body: &[u8],
        data: &[u8],
    ) -> Result<Reply, ClientError> {
        if self.hello.max_pulls == 0 {
            return Err(ClientError::NoOffers);
        }
        let mut told = body.to_vec();
        Offer {
            bytes: data.len() as u64,
        }
        .put(&mut told);
        let id = self.start(self.tag, opcode.into(), (&told, &[]), FLAG_OFFER, 0)?;
        self.wait_for(id, data)
    }

    /// The reply to one request, of whose `data` the engine may ask for parts meanwhile.
    fn wait_for(&mut self, id: u64, data: &[u8]) -> Result<Reply, ClientError> {
        loop {
            self.answer_pulls(id, data)?;
            if let Some(at) = self.ready.iter().position(|(ready, _)| *ready == id) {
                return self
                    .ready
                    .remove(at)
                    .map_or(Err(ClientError::NothingOutstanding), |(_, reply)| reply);
            }
            self.step(None)?;
        }
    }

    /// The highest of `known` protocol versions of a module that the engine serves as well.
    ///
    /// # Errors
    /// [`ClientError::Versions`]: none, or it has no such module.
    pub fn negotiate(&mut self, module: u8, known: &[u8]) -> Result<u8, ClientError> {
        let reply = self.call(Opcode::VERSIONS, &Versions::ask(module), None)?;
        let served = match reply.into_result() {
            Ok(reply) => Versions(reply.body),
            Err(_) => Versions::default(),
        };
        served.highest(known).map_err(|_| ClientError::Versions {
            module,
            served: served.0,
            known: known.to_vec(),
        })
    }

    /// Sends a request to this connection's xstream; returns its id once all of it is in the socket.
    pub fn send(
        &mut self,
        opcode: impl Into<Opcode>,
        body: &[u8],
        bulk: Option<&[u8]>,
    ) -> Result<u64, ClientError> {
        self.send_to(self.tag, opcode, body, bulk)
    }

    /// Sends a request for another xstream of the same engine: it is forwarded there, which costs a message each way.
    pub fn send_to(
        &mut self,
        tag: u32,
        opcode: impl Into<Opcode>,
        body: &[u8],
        bulk: Option<&[u8]>,
    ) -> Result<u64, ClientError> {
        self.start(tag, opcode.into(), (body, bulk.unwrap_or_default()), 0, 0)
    }

    fn start(
        &mut self,
        tag: u32,
        opcode: Opcode,
        (body, bulk): (&[u8], &[u8]),
        flags: u16,
        enqueue_id: u64,
    ) -> Result<u64, ClientError> {
        for (part, len, limit) in [
            ("body", body.len(), MAX_BODY),
            ("bulk", bulk.len(), MAX_BULK),
        ] {
            if len > limit {
                return Err(ClientError::TooLong { part, len, limit });
            }
        }
        while self.outstanding.len() >= self.hello.max_in_flight.max(1) as usize {
            self.step(None)?;
        }
        let id = self.next_id;
        self.next_id += 1;
        let header = Header {
            flags,
            opcode: opcode.0,
            tag,
            request_id: id,
            enqueue_id,
            after_ms: u32::try_from(self.options.read_timeout.as_millis()).unwrap_or(0),
            ..Header::default()
        };
        let mut frame = Outgoing::new(header, body, bulk);
        self.outstanding.insert(id);
        while frame.remaining() > 0 || self.channel.has_unsent() {
            self.step(Some(&mut frame))?;
        }
        Ok(id)
    }

    /// The next reply that is there, in the order of arrival. A damaged one is an error of its own
    /// ([`ClientError::Damaged`]); the connection goes on.
    pub fn recv(&mut self) -> Result<(u64, Reply), ClientError> {
        loop {
            if let Some((id, reply)) = self.ready.pop_front() {
                return reply.map(|reply| (id, reply));
            }
            if self.outstanding.is_empty() {
                return Err(ClientError::NothingOutstanding);
            }
            self.step(None)?;
        }
    }

    /// Gives the memory of a used reply back, so that streaming many large replies does not allocate each.
    pub fn recycle(&mut self, reply: Reply) {
        self.memory.keep(reply);
    }

    /// One wait for the socket and what it then allows: writing of `frame` if given, reading always.
    fn step(&mut self, frame: Option<&mut Outgoing<&[u8], &[u8]>>) -> Result<(), ClientError> {
        if self.broken {
            return Err(ClientError::Closed {
                outstanding: self.outstanding.len(),
            });
        }
        let result = self.try_step(frame);
        self.broken = result.is_err();
        result
    }

    fn try_step(&mut self, frame: Option<&mut Outgoing<&[u8], &[u8]>>) -> Result<(), ClientError> {
        if let Some(frame) = frame {
            let slices: Vec<IoSlice<'_>> = frame.slices().collect();
            match self.channel.write(&slices) {
                Ok(sent) => {
                    frame.advance(sent);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The engine may have said why it closed: read that first.
                Err(source)
                    if !matches!(
                        source.kind(),
                        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                    ) =>
                {
                    return Err(ClientError::io("writing to the engine", source));
                }
                Err(_) => return self.read(),
            }
            let (both, limit) = (PollFlags::IN | PollFlags::OUT, self.options.write_timeout);
            self.wait(both, "sending", limit)?;
        } else {
            self.wait(PollFlags::IN, "receiving", self.options.read_timeout)?;
        }
        self.read()
    }

    fn wait(
        &self,
        events: PollFlags,
        what: &'static str,
        after: Duration,
    ) -> Result<(), ClientError> {
        match self.channel.wait(events, after) {
            Ok(true) => Ok(()),
            Ok(false) => Err(ClientError::TimedOut {
                what,
                after,
                outstanding: self.outstanding.len(),
            }),
            Err(source) => Err(ClientError::Io {
                what: "poll",
                source,
            }),
        }
    }

    /// Reads once, if there is something, and decodes what is whole.
    fn read(&mut self) -> Result<(), ClientError> {
        let got = match self.channel.read(self.decoder.spaces()) {
            Ok(0) => {
                return Err(ClientError::Closed {
                    outstanding: self.outstanding.len(),
                });
            }
            Ok(got) => got,
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                return Ok(());
            }
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                ) =>
            {
                return Err(ClientError::Closed {
                    outstanding: self.outstanding.len(),
                });
            }
            Err(source) => {
                return Err(ClientError::io("reading from the engine", source));
            }
        };
        self.decoder.filled(got);
        while let Step::Frame(frame) = self.decoder.next(&mut self.memory)? {
            match frame.header.opcode() {
                Opcode::PULL if !frame.header.is_response() => self.take_pull(&frame)?,
                _ => self.take_reply(frame)?,
            }
        }
        Ok(())
    }

    fn take_pull(&mut self, frame: &Frame<Vec<u8>>) -> Result<(), ClientError> {
        let id = frame.header.request_id;
        let pull = Pull::decode(&frame.body).filter(|_| frame.damage.is_none());
        let most = self.hello.max_pulls as usize;
        let pull = pull.filter(|_| self.pulls.len() < most);
        self.pulls
            .push_back((id, pull.ok_or(ClientError::Unexpected(id))?));
        Ok(())
    }

    /// Answers all that the engine asked for of what request `id` offers.
    fn answer_pulls(&mut self, id: u64, data: &[u8]) -> Result<(), ClientError> {
        while let Some((offering, pull)) = self.pulls.pop_front() {
            let part = match offering == id {
                true => pull.range(data.len()).ok_or(Der::OVERFLOW),
                false => Err(Der::NONEXIST),
            };
            let (status, range) = match part {
                Ok(range) => (0, range),
                Err(der) => (der.neg(), 0..0),
            };
            let header = Header {
                flags: FLAG_RESPONSE,
                opcode: Opcode::PULL.0,
                tag: self.tag,
                request_id: pull.number,
                status,
                ..Header::default()
            };
            let mut frame = Outgoing::new(header, &[][..], &data[range]);
            while frame.remaining() > 0 || self.channel.has_unsent() {
                self.step(Some(&mut frame))?;
            }
        }
        Ok(())
    }

    fn take_reply(&mut self, frame: Frame<Vec<u8>>) -> Result<(), ClientError> {
        let id = frame.header.request_id;
        if !frame.header.is_response() || !self.outstanding.remove(&id) {
            return Err(ClientError::Unexpected(id));
        }
        let reply = match frame.damage {
            None => Ok(Reply {
                status: frame.header.status,
                body: frame.body,
                bulk: frame.bulk,
                retry: (frame.header.enqueue_id != 0).then(|| Retry {
                    enqueue_id: frame.header.enqueue_id,
                    after: Duration::from_millis(frame.header.after_ms.into()),
                }),
            }),
            Some(damage) => Err(ClientError::Damaged {
                id,
                part: if damage == Damage::Body {
                    "body"
                } else {
                    "bulk"
                },
            }),
        };
        self.ready.push_back((id, reply));
        Ok(())
    }
}

/// The first address that accepts, as a non-blocking socket without Nagle's delay.
fn open(addr: impl ToSocketAddrs, timeout: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for addr in addr.to_socket_addrs()? {
        match TcpStream::connect_timeout(&addr, timeout) {
            Ok(socket) => {
                socket.set_nodelay(true)?;
                socket.set_nonblocking(true)?;
                return Ok(socket);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Used buffers, for the next replies.
#[derive(Debug, Default)]
struct Memory {
    bodies: Vec<Vec<u8>>,
    bulks: Vec<Vec<u8>>,
}

impl Memory {
    fn keep(&mut self, reply: Reply) {
        if self.bodies.len() < KEPT {
            self.bodies.push(reply.body);
        }
        if let Some(bulk) = reply.bulk
            && self.bulks.len() < KEPT
        {
            self.bulks.push(bulk);
        }
    }
}

impl Buffers for Memory {
    type Bulk = Vec<u8>;

    fn admit(&mut self, _: &Header) -> Grant<Vec<u8>> {
        Grant::Take(self.bodies.pop().unwrap_or_default())
    }

    fn bulk(&mut self, header: &Header) -> Grant<Vec<u8>> {
        let mut bulk = self.bulks.pop().unwrap_or_default();
        bulk.resize(header.bulk_len as usize, 0);
        Grant::Take(bulk)
    }
}
