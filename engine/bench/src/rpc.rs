//! What does the data RPC cost over TCP, from an xstream of one engine to one of another: a small call, and large data both ways?
//!
//! Caller and callee have a core each and poll, as engines under load do; the connection is the kernel's loopback. Bulk goes in
//! pieces of 1 MiB, four under way, from and into DMA buffers. `engine/bench/examples/tonic_peer.rs` measures the same with gRPC.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use engine_rpc::{
    BulkClass, BulkPools, HandlerEntry, Opcode, Options, Registry, Request, RpcServer, Seat,
    Security, TcpTransport, Transport,
};
use rpc_tls::{Files, Identity};
use serde::Serialize;
use spdk_env::{Clock, DmaBuf, DmaPool};

use crate::histogram::{Histogram, Latency};
use crate::lane::Lanes;
use crate::peer::Figure;

const MODULE: u8 = 100;
const ECHO: Opcode = Opcode::new(MODULE, 1, 0);
const PUSH: Opcode = Opcode::new(MODULE, 1, 1);
const PULL: Opcode = Opcode::new(MODULE, 1, 2);
const TAKE: Opcode = Opcode::new(MODULE, 1, 3);
/// Bytes of a small call's message, and of its answer.
const SMALL: usize = 64;
/// Bytes of one piece of bulk data.
const PIECE: usize = 1 << 20;
/// Pieces under way.
const WINDOW: usize = 4;
/// Bytes that one request offers.
const OFFER: usize = 64 << 20;
const LIMIT: Duration = Duration::from_secs(10);

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Whether the connection was encrypted.
    pub tls: bool,
    /// A call of 64 bytes and its answer, one at a time.
    pub echo_us: Latency,
    /// Data of requests, MiB per second.
    pub push_mib_per_s: f64,
    /// Data of answers, MiB per second.
    pub pull_mib_per_s: f64,
    /// Data that requests offer and the callee takes in pieces, MiB per second.
    pub take_mib_per_s: f64,
}

impl Report {
    /// For a comparison.
    pub fn figures(&self) -> Vec<Figure> {
        let same = |name, value| Figure {
            name,
            value,
            peer_name: name,
        };
        vec![
            same("echo_p50_us", self.echo_us.p50),
            same("echo_p99_us", self.echo_us.p99),
            same("push_mib_per_s", self.push_mib_per_s),
            same("pull_mib_per_s", self.pull_mib_per_s),
            Figure {
                name: "take_mib_per_s",
                value: self.take_mib_per_s,
                peer_name: "push_mib_per_s",
            },
        ]
    }
}

/// Runs all measurements, `seconds` each; with a directory that has `ca.pem`, `bench.pem` and `bench-key.pem` (for 127.0.0.1)
/// over TLS. Needs two cores.
///
/// # Errors
/// Fewer cores, wrong certificates, or a call that failed.
pub fn run(seconds: f64, certificates: Option<PathBuf>) -> Result<Report> {
    let cpus = spdk_env::cpu::allowed()?;
    ensure!(
        cpus.len() >= 2,
        "caller and callee need a core each; this process may use {cpus:?}"
    );
    let security = certificates.map(security).transpose()?;
    let lanes = Lanes::start(&[cpus[0], cpus[1]])?;
    let (callee, _) = lanes.run::<()>(1, |_, _| ())?;
    let seat = Seat {
        name: "callee".to_owned(),
        tag: Some(0),
        thread: callee,
    };
    let listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let rpc_options = Options {
        tls: security.clone(),
        ..Options::default()
    };
    let server = RpcServer::start_on(vec![seat], registry()?, listen, rpc_options)?;
    let addr = server.addr().context("it listens")?;
    let tls = security.is_some();
    let (caller, receiver) = lanes.run(0, move |thread, sender| {
        let measure = async move {
            // The other side waits for it.
            let _ = sender.send(measure(addr, security, seconds).await);
        };
        drop(thread.spawn("bench", measure));
    })?;
    let patience = Duration::from_secs_f64(seconds * 3.0 + 60.0);
    let measured = receiver.recv_timeout(patience)?;
    server.close();
    drop(caller);
    lanes.stop()?;
    let (echo, [push_mib_per_s, pull_mib_per_s, take_mib_per_s]) = measured?;
    Ok(Report {
        tls,
        echo_us: echo.latency(1.0),
        push_mib_per_s,
        pull_mib_per_s,
        take_mib_per_s,
    })
}

fn security(directory: PathBuf) -> Result<Security> {
    let identity = Identity::load(Files {
        ca: directory.join("ca.pem"),
        certificate: directory.join("bench.pem"),
        key: directory.join("bench-key.pem"),
    })?;
    Ok(Security {
        identity,
        required: true,
        within_machine: true,
    })
}

fn registry() -> Result<Registry> {
    let registry = Registry::new();
    let source = DmaPool::new(PIECE, 2 * WINDOW)?;
    let echo = |request: Request| {
        let mut body = [0; SMALL];
        let sent = request.body();
        let len = sent.len().min(SMALL);
        body[..len].copy_from_slice(&sent[..len]);
        request.reply(0, &body[..len], None);
    };
    let push = |request: Request| request.reply(0, b"", None);
    let pull = move |request: Request| {
        let piece = source.get().map(|buffer| (buffer, PIECE));
        request.reply(0, b"", piece);
    };
    let take = |request: Request| request.serve_in_ult("take", take);
    let entries = vec![
        HandlerEntry::new(ECHO.index(), "echo", Arc::new(echo)),
        HandlerEntry::new(PUSH.index(), "push", Arc::new(push)),
        HandlerEntry::new(PULL.index(), "pull", Arc::new(pull)),
        HandlerEntry::new(TAKE.index(), "take", Arc::new(take)),
    ];
    registry.register_protocol(MODULE, 1, entries)?;
    Ok(registry)
}

/// Takes all that is offered, `WINDOW` pieces under way.
async fn take(request: Request) {
    let pieces = request.offered() / PIECE as u64;
    let piece = |nr: u64| request.pull(nr * PIECE as u64, PIECE);
    let mut under_way: VecDeque<_> = (0..pieces.min(WINDOW as u64)).map(piece).collect();
    let mut next = under_way.len() as u64;
    while let Some(first) = under_way.pop_front() {
        if let Err(der) = first.await {
            drop(under_way);
            return request.reply_error(der);
        }
        if next < pieces {
            under_way.push_back(piece(next));
            next += 1;
        }
    }
    request.reply(0, b"", None);
}

async fn measure(
    addr: SocketAddr,
    security: Option<Security>,
    seconds: f64,
) -> Result<(Histogram, [f64; 3])> {
    let ns = (seconds * 1e9) as u64;
    let memory = BulkPools::new(&[BulkClass {
        buffer_len: PIECE,
        count: 2 * WINDOW,
    }])?;
    let security = security.as_ref();
    let tcp = TcpTransport::connect(addr, 0, LIMIT, 64, memory, security).await?;
    let clock = Clock::tsc();
    let (mut echo, start) = (Histogram::default(), clock.now());
    let mut body = vec![7; SMALL];
    while clock.now() - start < ns || echo.count() == 0 {
        let begun = clock.now();
        body = tcp.call(0, ECHO, body, None).await?.into_result()?.body;
        echo.record(clock.now() - begun);
        ensure!(body.len() == SMALL, "the echo came back wrong");
    }
    let source = DmaPool::new(PIECE, 2 * WINDOW)?;
    let push = stream(&tcp, PUSH, ns, || {
        source.get().map(|buffer| (buffer, PIECE))
    })
    .await?;
    let pull = stream(&tcp, PULL, ns, || None).await?;
    let (offer, start, mut bytes) = (Arc::new(DmaBuf::alloc(OFFER)?), clock.now(), 0);
    while clock.now() - start < ns || bytes == 0 {
        let call = tcp.call_offering(0, TAKE, Vec::new(), Arc::clone(&offer));
        call.await?.into_result()?;
        bytes += OFFER;
    }
    let take = rate(bytes as u64, clock.now() - start);
    Ok((echo, [push, pull, take]))
}

/// MiB per second.
fn rate(bytes: u64, ns: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20) / (ns as f64 / 1e9)
}

/// Keeps `WINDOW` calls under way, each with a piece of data there or back; MiB per second.
async fn stream(
    tcp: &TcpTransport,
    opcode: Opcode,
    ns: u64,
    piece: impl Fn() -> Option<(DmaBuf, usize)>,
) -> Result<f64> {
    let clock = Clock::tsc();
    let call = || tcp.call(0, opcode, Vec::new(), piece());
    let mut under_way: VecDeque<_> = (0..WINDOW).map(|_| call()).collect();
    let (start, mut pieces) = (clock.now(), 0u64);
    while let Some(first) = under_way.pop_front() {
        let reply = first.await?.into_result()?;
        let right = opcode == PUSH || reply.bulk_bytes().len() == PIECE;
        ensure!(right, "the data came back wrong");
        drop(reply);
        pieces += 1;
        if clock.now() - start < ns {
            under_way.push_back(call());
        }
    }
    Ok(rate(pieces * PIECE as u64, clock.now() - start))
}

#[cfg(test)]
mod tests {
    #[test]
    fn calls_and_data_come_back() {
        if spdk_env::cpu::allowed().unwrap().len() < 2 {
            return;
        }
        let report = super::run(0.02, None).unwrap();
        assert!(report.push_mib_per_s > 0.0 && report.take_mib_per_s > 0.0 && !report.tls);
    }
}
