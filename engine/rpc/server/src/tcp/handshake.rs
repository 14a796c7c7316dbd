//! The first frame of a connection, read on the system xstream: who shall own the socket.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use daos_errno::Der;
use rpc_tls::Stream;
use rpc_wire::{
    FLAG_RESPONSE, HEADER_LEN, Header, HeaderError, HelloReply, HelloRequest, Opcode, Outgoing,
    PROTOCOL,
};
use rustix::net::getsockname;
use spdk_thread::{Elapsed, timeout};
use thiserror::Error;

use super::socket::{Input, Socket, tls_error};
use crate::endpoint::{Endpoint, Phase};
use crate::home::{Message, NewConnection};
use crate::security::Security;

/// Longest HELLO body that is read: later releases may say more than this one knows.
const MAX_HELLO: usize = 256;
/// A refused peer has so long to read why before the connection is closed.
const PARTING: Duration = Duration::from_secs(1);

/// Why a connection got no owner.
#[derive(Debug, Error)]
enum Refusal {
    #[error("it closed before its HELLO")]
    Closed,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Framing(#[from] HeaderError),
    #[error(
        "it speaks TLS, which this engine has no certificate for: give it a [tls] section, or the peer none"
    )]
    Tls,
    #[error(
        "it speaks without TLS, which this engine requires: give the peer a certificate (`keel cert issue`), or set `tls.required = false` until all have one"
    )]
    Plaintext,
    #[error("no whole HELLO within handshake_timeout")]
    Timeout(#[from] Elapsed),
    #[error("its first frame is not a HELLO but {0}")]
    NotHello(Opcode),
    #[error("it speaks protocol {0}, this engine {PROTOCOL}")]
    Protocol(u32),
    #[error("it asks for tag {0}, which this engine does not have")]
    Tag(u32),
    #[error("max_connections ({0}) are open")]
    TooMany(usize),
    #[error("the engine is shutting down")]
    Shutdown,
}

impl Refusal {
    /// What the peer is told, if it has shown that it understands frames.
    fn der(&self) -> Option<Der> {
        match self {
            Refusal::Plaintext => Some(Der::NO_PERM),
            // No frame that it could read, but it sees that nobody here speaks TLS.
            Refusal::Tls => Some(Der::PROTO),
            Refusal::Protocol(_)
            | Refusal::NotHello(_)
            | Refusal::Framing(HeaderError::Version(_)) => Some(Der::PROTO),
            Refusal::Tag(_) => Some(Der::BAD_TARGET),
            Refusal::TooMany(_) => Some(Der::BUSY),
            Refusal::Shutdown => Some(Der::SHUTDOWN),
            _ => None,
        }
    }
}

/// Reads the HELLO and sends the socket to its owner, or refuses it. Runs as a ULT of the system xstream.
pub(super) async fn greet(endpoint: Rc<Endpoint>, fd: OwnedFd, peer: SocketAddr) {
    let mut socket = Socket::new(endpoint.thread(), fd, None);
    let mut hello = Header::default();
    let limit = nanos(endpoint.fabric().options.handshake_timeout);
    let security = endpoint.fabric().options.tls.as_ref();
    let read = timeout(limit, introduce(&mut socket, security, peer, &mut hello)).await;
    let request = read.map_err(Refusal::from).and_then(|inner| inner);
    let result = request.and_then(|request| place(&endpoint, request));
    let certificate = socket.certificate();
    match result {
        Ok((home, permit)) => match socket.into_parts() {
            // The owner answers the HELLO: who is told yes is already served.
            Ok((socket, tls)) => home.post_answer(Message::Adopt(NewConnection {
                socket,
                tls,
                may_be_engine: certificate.is_none_or(|certificate| certificate.may_serve),
                peer,
                hello_id: hello.request_id,
                permit,
            })),
            Err(error) => tracing::warn!(%peer, "cannot hand an RPC connection over: {error}"),
        },
        Err(refusal) => {
            endpoint.metrics.refused.increment(1);
            if let Some(left_out) = endpoint.log_gate.pass(endpoint.now()) {
                tracing::warn!(%peer, left_out, "RPC connection refused: {refusal}");
            }
            if let Some(der) = refusal.der() {
                refuse(&endpoint, &socket, &hello, der);
            }
            let heard = match &refusal {
                Refusal::Io(error) => tls_error(error).is_some(),
                _ => refusal.der().is_some(),
            };
            if heard {
                // An error: it has not read it, or does not close. It had its time.
                let _ = timeout(nanos(PARTING), socket.part()).await;
            }
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// TLS, if the peer begins with it or has to, then the HELLO.
async fn introduce(
    socket: &mut Socket,
    security: Option<&Security>,
    peer: SocketAddr,
    hello: &mut Header,
) -> Result<HelloRequest, Refusal> {
    let first = socket.first_byte().await?.ok_or(Refusal::Closed)?;
    match security {
        None if rpc_tls::is_tls(first) => return Err(Refusal::Tls),
        Some(security) if rpc_tls::is_tls(first) => {
            let stream = Stream::server(&security.identity);
            socket.secure(stream.map_err(io::Error::other)?);
            socket.handshake().await?;
        }
        Some(security) if security.required && !is_exempt(security, socket, peer) => {
            // Its HELLO is read for the answer, which says why.
            read_hello(socket, hello).await?;
            return Err(Refusal::Plaintext);
        }
        _ => {}
    }
    read_hello(socket, hello).await
}

fn is_exempt(security: &Security, socket: &Socket, peer: SocketAddr) -> bool {
    let local = getsockname(socket.fd()).ok();
    let local = local.and_then(|addr| SocketAddr::try_from(addr).ok());
    local.is_some_and(|local| security.exempts(local.ip(), peer.ip()))
}

type Place = (Arc<crate::home::Home>, crate::fabric::ConnectionPermit);

fn place(endpoint: &Endpoint, request: HelloRequest) -> Result<Place, Refusal> {
    let fabric = endpoint.fabric();
    if request.protocol != PROTOCOL {
        return Err(Refusal::Protocol(request.protocol));
    }
    if endpoint.phase() != Phase::Serving {
        return Err(Refusal::Shutdown);
    }
    let home = fabric.home(request.tag).ok_or(Refusal::Tag(request.tag))?;
    let permit = fabric
        .admit_connection()
        .ok_or(Refusal::TooMany(fabric.options.max_connections))?;
    Ok((Arc::clone(home), permit))
}

/// Reads exactly the HELLO: bytes behind it belong to the owner.
async fn read_hello(socket: &Socket, hello: &mut Header) -> Result<HelloRequest, Refusal> {
    let mut head = [0; HEADER_LEN];
    read_exact(socket, &mut head).await?;
    *hello = Header::decode(&head)?;
    if hello.is_response() || hello.opcode() != Opcode::HELLO || hello.bulk_len != 0 {
        return Err(Refusal::NotHello(hello.opcode()));
    }
    let mut body = [0; MAX_HELLO];
    let body = body
        .get_mut(..hello.body_len as usize)
        .ok_or(Refusal::NotHello(hello.opcode()))?;
    read_exact(socket, body).await?;
    let request = HelloRequest::decode(body).ok_or(Refusal::NotHello(hello.opcode()))?;
    // A damaged HELLO asks for who knows what.
    if Outgoing::new(*hello, &*body, b"")
        .slices()
        .next()
        .is_none_or(|sealed| *sealed != head)
    {
        return Err(Refusal::NotHello(hello.opcode()));
    }
    Ok(request)
}

async fn read_exact(socket: &Socket, mut buf: &mut [u8]) -> Result<(), Refusal> {
    while !buf.is_empty() {
        match socket.read([&mut [], buf])? {
            Input::Bytes(got) => buf = &mut std::mem::take(&mut buf)[got..],
            Input::Nothing => poll_fn(|cx| socket.poll_ready(cx, true, false)).await,
            Input::End => return Err(Refusal::Closed),
        }
    }
    Ok(())
}

/// One small frame into an empty send buffer: it fits, and if it does not, the peer sees the connection closed.
fn refuse(endpoint: &Endpoint, socket: &Socket, hello: &Header, der: Der) {
    let said = HelloReply {
        protocol: PROTOCOL,
        targets: endpoint.fabric().targets(),
        max_in_flight: 0,
        max_bulk: 0,
        max_pulls: 0,
    };
    let header = Header {
        flags: FLAG_RESPONSE,
        opcode: Opcode::HELLO.0,
        request_id: hello.request_id,
        status: der.neg(),
        ..Header::default()
    };
    let frame = Outgoing::new(header, said.encode(), b"");
    let pieces: Vec<_> = frame.slices().collect();
    if let Err(error) = socket.write(&pieces) {
        tracing::debug!("a refused RPC peer did not wait for the reason: {error}");
    }
}
