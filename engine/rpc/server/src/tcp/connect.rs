//! An outgoing connection: calls to another engine's xstreams from an xstream of this one.

use std::cell::Cell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use daos_errno::Der;
use rpc_tls::{Stream, TlsError};
use rpc_wire::{
    Buffers, Decoder, FLAG_ENGINE, FLAG_OFFER, Frame, Grant, Header, HelloReply, HelloRequest,
    MAX_BODY, MAX_BULK, Offer, Opcode, PROTOCOL, Pull, Stamp, Step,
};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, connect, getsockname, socket_with, sockopt,
};
use spdk_env::DmaBuf;
use spdk_thread::{TaskWaker, Thread, sleep_until, timeout, yield_now};
use thiserror::Error;

use super::connect_error::{ConnectError, unreachable};
use super::keepalive::watch_over;
use super::offers::Offers;
use super::out_queue::OutQueue;
use super::socket::{Input, Socket, tls_error};
use crate::bell::Bell;
use crate::bulk::{Bulk, BulkPools};
use crate::calls::{Calls, PendingCall, Reply};
use crate::security::Security;
use crate::table::Key;
use crate::transport::Transport;

const READ_AHEAD: usize = 16 << 10;
/// Answers and bytes taken in before other tasks of the xstream get their turn.
const BATCH_ANSWERS: usize = 64;
const BATCH_BYTES: usize = 2 << 20;
/// Frames that wait to be written; an engine that asks for further data breaks its own bound of pulls.
const MAX_FRAMES: usize = 8192;
/// How often an empty pool is looked at while an answer waits for a buffer.
const POOL_RETRY_NS: u64 = 500_000;

/// A connection to one xstream of another engine. Clones share it; the last one dropped closes it. Own xstream only.
///
/// When it breaks, all its calls fail with UNREACH and so do later ones: whoever owns it decides when to connect
/// again, because only the owner knows which requests may be sent twice.
#[derive(Clone)]
pub struct TcpTransport {
    owner: Rc<Owner>,
}

/// What a call carries.
pub(crate) struct Payload {
    /// The module's message.
    pub body: Vec<u8>,
    /// A buffer and how many of its bytes count.
    pub bulk: Option<(DmaBuf, usize)>,
    /// Data that is sent when it is asked for.
    pub offer: Option<Arc<DmaBuf>>,
}

/// Closes the connection when the last clone goes.
struct Owner(Rc<Link>);

struct Link {
    peer: SocketAddr,
    hello: Cell<HelloReply>,
    out: OutQueue,
    offers: Offers,
    bell: Bell,
    calls: Rc<Calls>,
    closed: Cell<bool>,
    /// Why it ended, if that was TLS.
    refused: Cell<Option<TlsError>>,
}

impl Link {
    /// Nobody waits for the answer any more: the engine need not work for it.
    fn cancel(&self, key: Key) {
        self.offers.remove(key.to_u64());
        if self.closed.get() {
            return;
        }
        let header = Header {
            opcode: Opcode::CANCEL.0,
            request_id: key.to_u64(),
            ..Header::default()
        };
        self.out.push(header, Vec::new(), None);
        self.bell.ring();
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.closed.set(true);
        self.0.bell.ring();
    }
}

impl TcpTransport {
    /// Connects to the xstream of `tag` within `limit`, with TLS if `security` says so. At most `max_calls` calls may be in
    /// flight (fewer if the engine says so); bulk of their answers is received into `memory`.
    pub async fn connect(
        addr: SocketAddr,
        tag: u32,
        limit: Duration,
        max_calls: usize,
        memory: BulkPools,
        security: Option<&Security>,
    ) -> Result<TcpTransport, ConnectError> {
        let thread = spdk_thread::current().ok_or(ConnectError::Here(Der::UNINIT))?;
        let limit = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        let made = async {
            let made = establish(&thread, (addr, tag), max_calls, memory.clone(), security).await;
            match (made, security) {
                // It has no certificate yet, and that is allowed.
                (
                    Err(ConnectError::Tls {
                        error: TlsError::Plaintext,
                        ..
                    }),
                    Some(security),
                ) if !security.required => {
                    establish(&thread, (addr, tag), max_calls, memory, None).await
                }
                (made, _) => made,
            }
        };
        match timeout(limit, made).await {
            Ok(result) => result,
            Err(_) => Err(ConnectError::Unreachable {
                addr,
                source: io::ErrorKind::TimedOut.into(),
            }),
        }
    }

    /// What the engine said about itself.
    pub fn hello(&self) -> HelloReply {
        self.owner.0.hello.get()
    }

    /// Whether the connection has ended; it does not come back.
    pub fn is_closed(&self) -> bool {
        self.owner.0.closed.get()
    }

    /// As [`Transport::call`], in the name of this engine, which waits for `after_ms`.
    pub(crate) fn call_as_engine(
        &self,
        tag: u32,
        opcode: Opcode,
        payload: Payload,
        stamp: Stamp,
        after_ms: u32,
    ) -> PendingCall {
        let header = Header {
            opcode: opcode.0,
            tag,
            after_ms,
            ..Header::default()
        };
        let sent = self.send(header, payload, Some(stamp));
        let pending = sent.unwrap_or_else(PendingCall::failed);
        // A numbered call is carried out once: a dropped attempt may be followed by another one.
        match stamp.number {
            0 => pending,
            _ => pending.lasting(),
        }
    }

    fn send(
        &self,
        mut header: Header,
        payload: Payload,
        stamp: Option<Stamp>,
    ) -> Result<PendingCall, Der> {
        let link = &self.owner.0;
        let Payload {
            mut body,
            bulk,
            offer,
        } = payload;
        if let Some(offer) = &offer {
            if link.hello.get().max_pulls == 0 {
                return Err(Der::NOTSUPPORTED);
            }
            header.flags |= FLAG_OFFER;
            let bytes = offer.len() as u64;
            Offer { bytes }.put(&mut body);
        }
        if let Some(stamp) = stamp {
            header.flags |= FLAG_ENGINE;
            stamp.put(&mut body);
        }
        let bulk_len = bulk.as_ref().map_or(0, |(_, len)| *len);
        if body.len() > MAX_BODY
            || bulk_len > MAX_BULK
            || bulk.as_ref().is_some_and(|(b, len)| *len > b.capacity())
        {
            return Err(Der::OVERFLOW);
        }
        if link.closed.get() {
            return Err(Der::UNREACH);
        }
        let key = link.calls.open().ok_or(Der::OVERLOAD_RETRY)?;
        let pending = PendingCall::waiting(Rc::clone(&link.calls), key);
        header.request_id = key.to_u64();
        if let Some(offer) = offer {
            link.offers.add(header.request_id, offer);
        }
        let bulk = bulk
            .filter(|(_, len)| *len > 0)
            .map(|(buf, len)| Bulk::new(buf, len));
        link.out.push(header, body, bulk);
        link.bell.ring();
        Ok(pending)
    }
}

impl fmt::Debug for TcpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.is_closed() { "closed" } else { "open" };
        write!(f, "TcpTransport({}, {state})", self.owner.0.peer)
    }
}

impl Transport for TcpTransport {
    fn name(&self) -> &'static str {
        "tcp"
    }

    fn start(
        &self,
        tag: u32,
        opcode: Opcode,
        body: Vec<u8>,
        bulk: Option<(DmaBuf, usize)>,
    ) -> Result<PendingCall, Der> {
        let header = Header {
            opcode: opcode.0,
            tag,
            ..Header::default()
        };
        let payload = Payload {
            body,
            bulk,
            offer: None,
        };
        self.send(header, payload, None)
    }

    fn call_offering(
        &self,
        tag: u32,
        opcode: Opcode,
        body: Vec<u8>,
        data: Arc<DmaBuf>,
    ) -> PendingCall {
        let header = Header {
            opcode: opcode.0,
            tag,
            ..Header::default()
        };
        let payload = Payload {
            body,
            bulk: None,
            offer: Some(data),
        };
        self.send(header, payload, None)
            .unwrap_or_else(PendingCall::failed)
    }
}

async fn establish(
    thread: &Thread,
    (addr, tag): (SocketAddr, u32),
    max_calls: usize,
    memory: BulkPools,
    security: Option<&Security>,
) -> Result<TcpTransport, ConnectError> {
    let socket = open_secured(thread, addr, security).await?;
    let nothing = HelloReply {
        protocol: PROTOCOL,
        targets: 0,
        max_in_flight: 0,
        max_bulk: 0,
        max_pulls: 0,
    };
    let link = Rc::new(Link {
        peer: addr,
        hello: Cell::new(nothing),
        out: OutQueue::default(),
        offers: Offers::default(),
        bell: Bell::default(),
        calls: Calls::new(1),
        closed: Cell::new(false),
        refused: Cell::new(None),
    });
    let transport = TcpTransport {
        owner: Rc::new(Owner(Rc::clone(&link))),
    };
    let own = Rc::downgrade(&link);
    link.calls.on_forgotten(move |key| {
        if let Some(link) = own.upgrade() {
            link.cancel(key);
        }
    });
    let runner = Runner {
        link: Rc::clone(&link),
        socket,
        decoder: Decoder::new(READ_AHEAD),
        memory: Memory {
            pools: memory,
            held: false,
        },
    };
    drop(
        thread
            .spawn("rpc outgoing", runner.run())
            .map_err(|_| ConnectError::Here(Der::NOMEM))?,
    );
    let hello = HelloRequest {
        protocol: PROTOCOL,
        tag,
    }
    .encode()
    .to_vec();
    let refused = |der| ConnectError::Refused { addr, tag, der };
    let answer = transport
        .call(tag, Opcode::HELLO, hello, None)
        .await
        .map_err(|_| match link.refused.take() {
            Some(error) => ConnectError::Tls { addr, error },
            None => unreachable(addr, io::ErrorKind::ConnectionReset.into()),
        })?;
    let answer = answer.into_result().map_err(refused)?;
    let said = HelloReply::decode(&answer.body).filter(|said| said.protocol == PROTOCOL);
    let said = said.ok_or_else(|| refused(Der::PROTO))?;
    link.hello.set(said);
    link.calls
        .set_max(max_calls.min(said.max_in_flight as usize).max(1));
    Ok(transport)
}

/// A connected socket, past the handshake if it has one.
async fn open_secured(
    thread: &Thread,
    addr: SocketAddr,
    security: Option<&Security>,
) -> Result<Socket, ConnectError> {
    let opened = open(thread, addr).await;
    let mut socket = opened.map_err(|errno| unreachable(addr, errno.into()))?;
    if let Some(security) = security.filter(|security| is_secured(security, &socket, addr)) {
        let stream = Stream::client(&security.identity, &addr.ip().to_string());
        socket.secure(stream.map_err(|error| ConnectError::Tls { addr, error })?);
        let shaken = socket.handshake().await;
        shaken.map_err(|error| unreachable(addr, error))?;
    }
    Ok(socket)
}

fn is_secured(security: &Security, socket: &Socket, peer: SocketAddr) -> bool {
    let local = getsockname(socket.fd()).ok();
    let local = local.and_then(|addr| SocketAddr::try_from(addr).ok());
    !local.is_some_and(|local| security.exempts(local.ip(), peer.ip()))
}

/// A connected, watched socket.
async fn open(thread: &Thread, addr: SocketAddr) -> Result<Socket, Errno> {
    let family = if addr.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let fd = socket_with(
        family,
        SocketType::STREAM,
        SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
        None,
    )?;
    sockopt::set_tcp_nodelay(&fd, true)?;
    watch_over(&fd)?;
    let begun = connect(&fd, &addr);
    let socket = Socket::new(thread, fd, None);
    match begun {
        Ok(()) => Ok(socket),
        Err(Errno::INPROGRESS | Errno::INTR) => {
            socket.forget_writable();
            poll_fn(|cx| socket.poll_ready(cx, false, true)).await;
            sockopt::socket_error(socket.fd())??;
            Ok(socket)
        }
        Err(errno) => Err(errno),
    }
}

/// Why the connection ended.
#[derive(Debug, Error)]
enum End {
    #[error("closed by its owner")]
    Owner,
    #[error("closed by the engine")]
    Peer,
    #[error("{0}")]
    Framing(#[from] rpc_wire::HeaderError),
    #[error("the engine sent a request where only responses are expected")]
    NotAResponse,
    #[error("the engine asks for more data than it takes")]
    Greedy,
    #[error("{0}")]
    Io(#[from] io::Error),
}

struct Memory {
    pools: BulkPools,
    held: bool,
}

impl Buffers for Memory {
    type Bulk = Bulk;

    fn admit(&mut self, _: &Header) -> Grant<Vec<u8>> {
        // An answer's body goes to the caller; how many there are is bounded by the calls.
        Grant::Take(Vec::new())
    }

    fn bulk(&mut self, header: &Header) -> Grant<Bulk> {
        let bulk = self.pools.get(header.bulk_len as usize);
        self.held = bulk.is_none();
        Grant::or_hold(bulk)
    }
}

/// The connection's ULT.
struct Runner {
    link: Rc<Link>,
    socket: Socket,
    decoder: Decoder<Bulk>,
    memory: Memory,
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.link.closed.set(true);
        self.link.calls.fail_all(Der::UNREACH);
    }
}

impl Runner {
    async fn run(mut self) {
        let end = loop {
            match self.turn() {
                Ok(true) => yield_now().await,
                Ok(false) => self.wait().await,
                Err(end) => break end,
            }
        };
        tracing::debug!(peer = %self.link.peer, "outgoing RPC connection ended: {end}");
        if let End::Io(error) = &end {
            self.link.refused.set(tls_error(error).cloned());
        }
    }

    fn turn(&mut self) -> Result<bool, End> {
        if self.link.closed.get() {
            // Calls that were taken back with the connection: the engine need not work for them.
            self.link.out.flush(&self.socket, drop)?;
            return Err(End::Owner);
        }
        let written = self.link.out.flush(&self.socket, drop);
        // Why the engine closed comes before the fact that it did.
        let more = self.receive()?;
        written?;
        Ok(more)
    }

    fn receive(&mut self) -> Result<bool, End> {
        let (mut answers, mut bytes) = (0, 0);
        self.memory.held = false;
        loop {
            match self.decoder.next(&mut self.memory)? {
                Step::Frame(frame) => {
                    self.complete(frame)?;
                    answers += 1;
                    if answers >= BATCH_ANSWERS {
                        return Ok(true);
                    }
                }
                // Nothing is granted that way.
                Step::Skipped(_) => {}
                Step::Held => return Ok(false),
                Step::NeedBytes if bytes >= BATCH_BYTES => return Ok(true),
                Step::NeedBytes => match self.socket.read(self.decoder.spaces())? {
                    Input::Nothing => return Ok(false),
                    Input::Bytes(got) => {
                        self.decoder.filled(got);
                        bytes += got;
                    }
                    Input::End => return Err(End::Peer),
                },
            }
        }
    }

    fn complete(&self, frame: Frame<Bulk>) -> Result<(), End> {
        if !frame.header.is_response() {
            return self.give(&frame);
        }
        self.link.offers.remove(frame.header.request_id);
        // Nobody may wait for it any more: then it is dropped.
        let key = Key::from_u64(frame.header.request_id);
        let result = match frame.damage {
            Some(_) => Err(Der::CSUM),
            None => Ok(Reply {
                status: frame.header.status,
                body: frame.body,
                bulk: frame.bulk.map(Bulk::into_pair),
            }),
        };
        self.link.calls.complete(key, result);
        Ok(())
    }

    /// The engine asks for data that a call offers.
    fn give(&self, frame: &Frame<Bulk>) -> Result<(), End> {
        let is_pull = frame.header.opcode() == Opcode::PULL && frame.damage.is_none();
        let pull = Pull::decode(&frame.body).filter(|_| is_pull);
        let pull = pull.ok_or(End::NotAResponse)?;
        if self.link.out.frames() > MAX_FRAMES {
            return Err(End::Greedy);
        }
        let id = frame.header.request_id;
        self.link.offers.answer(id, &pull, &self.link.out);
        // It leaves in the next turn, which comes at once.
        self.link.bell.ring();
        Ok(())
    }

    async fn wait(&self) {
        let now = spdk_thread::current().map_or(0, |thread| thread.now());
        let mut retry = self.memory.held.then(|| sleep_until(now + POOL_RETRY_NS));
        poll_fn(|cx| {
            if self.link.bell.park(TaskWaker::from_cx(cx, "rpc engine")) {
                return Poll::Ready(());
            }
            let write = self.link.out.bytes() > 0;
            if self
                .socket
                .poll_ready(cx, !self.memory.held, write)
                .is_ready()
            {
                return Poll::Ready(());
            }
            match &mut retry {
                Some(retry) => Pin::new(retry).poll(cx),
                None => Poll::Pending,
            }
        })
        .await;
    }
}
