//! An outgoing connection: calls to another engine's xstreams from an xstream of this one.

use std::cell::Cell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use daos_errno::Der;
use rpc_tls::{Stream, TlsError};
use rpc_wire::{
    Buffers, Decoder, FLAG_ENGINE, Frame, Header, HelloReply, HelloRequest, MAX_BODY, MAX_BULK,
    Opcode, PROTOCOL, Stamp, Step,
};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, connect, getsockname, socket_with, sockopt,
};
use spdk_env::DmaBuf;
use spdk_thread::{TaskWaker, Thread, sleep_until, timeout, yield_now};
use thiserror::Error;

use super::keepalive::watch_over;
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
/// How often an empty pool is looked at while an answer waits for a buffer.
const POOL_RETRY_NS: u64 = 500_000;

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// Nobody answers there, or not in time.
    #[error("cannot connect to engine {addr}: {source}")]
    Unreachable {
        /// The address.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Somebody answers there, and one side does not believe the other.
    #[error("cannot connect to engine {addr}: {error}")]
    Tls {
        /// The address.
        addr: SocketAddr,
        /// Why.
        error: TlsError,
    },
    /// The engine does not want this connection.
    #[error("engine {addr} refused the connection for tag {tag}: {der}{}", cure(*.der))]
    Refused {
        /// The address.
        addr: SocketAddr,
        /// The tag asked for.
        tag: u32,
        /// Its reason.
        der: Der,
    },
    /// Not on a thread, or the thread takes no more tasks.
    #[error("no RPC connection can be made from here: {0}")]
    Here(Der),
}

fn cure(der: Der) -> &'static str {
    match der {
        Der::NO_PERM => "; it requires TLS: give this engine a [tls] section",
        _ => "",
    }
}

/// A connection to one xstream of another engine. Clones share it; the last one dropped closes it. Own xstream only.
///
/// When it breaks, all its calls fail with UNREACH and so do later ones: whoever owns it decides when to connect
/// again, because only the owner knows which requests may be sent twice.
#[derive(Clone)]
pub struct TcpTransport {
    owner: Rc<Owner>,
}

/// Closes the connection when the last clone goes.
struct Owner(Rc<Link>);

struct Link {
    peer: SocketAddr,
    hello: Cell<HelloReply>,
    out: OutQueue,
    bell: Bell,
    calls: Rc<Calls>,
    closed: Cell<bool>,
    /// Why it ended, if that was TLS.
    refused: Cell<Option<TlsError>>,
}

impl Link {
    /// Nobody waits for the answer any more: the engine need not work for it.
    fn cancel(&self, key: Key) {
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
        (mut body, bulk): (Vec<u8>, Option<(DmaBuf, usize)>),
        stamp: Stamp,
        after_ms: u32,
    ) -> PendingCall {
        stamp.put(&mut body);
        let header = Header {
            flags: FLAG_ENGINE,
            opcode: opcode.0,
            tag,
            after_ms,
            ..Header::default()
        };
        let sent = self.send(header, body, bulk);
        let pending = sent.unwrap_or_else(PendingCall::failed);
        // A numbered call is carried out once: a dropped attempt may be followed by another one.
        match stamp.number {
            0 => pending,
            _ => pending.lasting(),
        }
    }

    fn send(
        &self,
        header: Header,
        body: Vec<u8>,
        bulk: Option<(DmaBuf, usize)>,
    ) -> Result<PendingCall, Der> {
        let link = &self.owner.0;
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
        let header = Header {
            request_id: key.to_u64(),
            ..header
        };
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
        self.send(header, body, bulk)
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
    };
    let link = Rc::new(Link {
        peer: addr,
        hello: Cell::new(nothing),
        out: OutQueue::default(),
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

fn unreachable(addr: SocketAddr, source: io::Error) -> ConnectError {
    match tls_error(&source) {
        Some(error) => ConnectError::Tls {
            addr,
            error: error.clone(),
        },
        None => ConnectError::Unreachable { addr, source },
    }
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
    #[error("{0}")]
    Io(#[from] io::Error),
}

struct Memory {
    pools: BulkPools,
    held: bool,
}

impl Buffers for Memory {
    type Bulk = Bulk;

    fn admit(&mut self, _: &Header) -> Option<Vec<u8>> {
        // An answer's body goes to the caller; how many there are is bounded by the calls.
        Some(Vec::new())
    }

    fn bulk(&mut self, header: &Header) -> Option<Bulk> {
        let bulk = self.pools.get(header.bulk_len as usize);
        self.held = bulk.is_none();
        bulk
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
            return Err(End::NotAResponse);
        }
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
