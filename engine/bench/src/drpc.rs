//! What does a dRPC round trip of 64 bytes cost, beside a bare socket ping-pong that waits in the same way?
//!
//! The engine's side is the real one: [`DrpcServer`] as a poller of a system xstream, which polls while calls come and
//! sleeps in between the slices. The bare peer is a thread that spins on a non-blocking receive and sends the packet
//! back. In both cases the client blocks in `recv` on the other core, and the two take turns, slice by slice, so that
//! both see the same machine and have the server's core to themselves.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use drpc_wire::{Call, Client, Status, methods, modules};
use engine_drpc::{DrpcServer, DrpcSocket, Options, Registry, Reply};
use engine_tls::KeyRegistry;
use engine_xstream::{Core, Layout, LayoutOptions, StartOptions, XstreamSet};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socketpair};
use serde::Serialize;
use spdk_env::Clock;
use spdk_env::cpu::{Topology, pin_current_thread};
use spdk_reactor::{ReactorOptions, ReactorSet};

use crate::histogram::{Histogram, Latency};

/// Bytes of the body, and of the bare packet.
const BODY: usize = 64;
/// Turns that the two take.
const SLICES: u32 = 10;
/// Round trips between two looks at the clock.
const BATCH: u32 = 100;
/// Longer than a round trip, so that the reactor polls from call to call; short beside a slice.
const IDLE_US: u64 = 50;
const WAIT: Duration = Duration::from_secs(10);

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Round trip of a dRPC call.
    pub drpc_us: Latency,
    /// Round trip of a bare packet.
    pub bare_us: Latency,
    /// Median of the first over median of the second.
    pub ratio_p50: f64,
    /// dRPC calls made.
    pub calls: u64,
}

/// Runs both measurements, `seconds` each. Needs two cores: one for the engine's side, one for the client.
pub fn run(seconds: f64) -> Result<Report> {
    let topology = Topology::discover()?;
    let cores = Core::of(&topology);
    ensure!(
        cores.len() >= 2,
        "server and client need a core each; this process may use {}",
        cores.len()
    );
    let folder = std::env::temp_dir().join(format!("keel-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let result = measure(&cores, &folder.join("drpc.sock"), seconds);
    // A leftover in the temporary folder is not worth an error.
    let _ = std::fs::remove_dir_all(&folder);
    result
}

fn measure(cores: &[Core], path: &std::path::Path, seconds: f64) -> Result<Report> {
    let (server_core, client_cpu) = (&cores[..1], cores[1].cpu);
    let options = LayoutOptions {
        targets: 1,
        helpers: 0,
        oversubscribe: true,
        ..LayoutOptions::default()
    };
    let layout = Layout::compute(&options, server_core)?;
    let reactors = ReactorOptions {
        cpus: layout.cpus(),
        idle_latency_us: IDLE_US,
        pin: true,
        name_prefix: "bench".to_owned(),
    };
    let set = XstreamSet::start(
        layout,
        ReactorSet::start(&reactors)?,
        &KeyRegistry::new(),
        &StartOptions::default(),
    )?;
    let registry = Registry::new();
    let echo = |call: Call, reply: Reply| reply.success(call.body);
    registry
        .register(modules::TEST, Arc::new(echo))
        .map_err(|der| anyhow!("{der}"))?;
    let socket = DrpcSocket::bind(path, Options::default().mode)?;
    let install = move |xstream: &engine_xstream::Xstream| {
        engine_drpc::install(
            DrpcServer::new(socket, registry, Options::default()),
            xstream,
        )
    };
    let service = set.system().call_blocking("install dRPC", WAIT, install)?;

    let path = path.to_owned();
    let server_cpu = server_core[0].cpu;
    let client = std::thread::spawn(move || -> Result<(Histogram, Histogram)> {
        pin_current_thread(client_cpu)?;
        let mut drpc = Client::connect(&path)?;
        let bare = Bare::start(server_cpu)?;
        let slice_ns = (seconds * 1e9) as u64 / u64::from(SLICES);
        let (mut ours, mut theirs) = (Histogram::default(), Histogram::default());
        for _ in 0..SLICES {
            time(slice_ns, &mut ours, || call(&mut drpc))?;
            bare.awake.store(true, Ordering::Release);
            time(slice_ns, &mut theirs, || bare.round_trip())?;
            bare.awake.store(false, Ordering::Release);
        }
        Ok((ours, theirs))
    });
    let result = client.join().map_err(|_| anyhow!("the client panicked"))?;
    service.shutdown(WAIT)?;
    set.shutdown(WAIT, |_| ())
        .context("the benchmark's xstreams")?;
    let (ours, theirs) = result?;
    let ns_per_tick = Clock::tsc().ticks_to_ns(1 << 30) as f64 / (1u64 << 30) as f64;
    let (drpc_us, bare_us) = (ours.latency(ns_per_tick), theirs.latency(ns_per_tick));
    Ok(Report {
        ratio_p50: drpc_us.p50 / bare_us.p50,
        drpc_us,
        bare_us,
        calls: ours.count(),
    })
}

fn time(
    ns: u64,
    histogram: &mut Histogram,
    mut round_trip: impl FnMut() -> Result<()>,
) -> Result<()> {
    let clock = Clock::tsc();
    let end = clock.now() + ns;
    while clock.now() < end {
        for _ in 0..BATCH {
            let begun = clock.raw();
            round_trip()?;
            histogram.record(clock.raw() - begun);
        }
    }
    Ok(())
}

fn call(client: &mut Client) -> Result<()> {
    let response = client.call(modules::TEST, methods::TEST_ECHO, &[7; BODY])?;
    ensure!(
        response.status() == Status::Success && response.body.len() == BODY,
        "the echo came back wrong"
    );
    Ok(())
}

/// A thread that sends packets back, and this end of the socket pair to it.
struct Bare {
    fd: OwnedFd,
    /// Spins while true; otherwise it leaves the core to the engine's side.
    awake: Arc<AtomicBool>,
}

impl Bare {
    fn start(cpu: usize) -> Result<Bare> {
        let (fd, peer) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let awake = Arc::new(AtomicBool::new(false));
        let spins = awake.clone();
        std::thread::Builder::new()
            .name("bench_bare".to_owned())
            .spawn(move || {
                // Shares the core with the reactor, which sleeps while this one is measured.
                let _ = pin_current_thread(cpu);
                let mut packet = [0; 4096];
                loop {
                    let flags = if spins.load(Ordering::Acquire) {
                        RecvFlags::DONTWAIT
                    } else {
                        RecvFlags::empty()
                    };
                    match rustix::net::recv(&peer, &mut packet[..], flags) {
                        Err(rustix::io::Errno::AGAIN) => std::hint::spin_loop(),
                        Ok((len, _)) if len > 0 => {
                            let _ = rustix::net::send(&peer, &packet[..len], SendFlags::empty());
                        }
                        _ => return,
                    }
                }
            })?;
        Ok(Bare { fd, awake })
    }

    fn round_trip(&self) -> Result<()> {
        rustix::net::send(&self.fd, &[7; BODY], SendFlags::empty())?;
        let mut packet = [0; BODY];
        let (len, _) = rustix::net::recv(&self.fd, &mut packet[..], RecvFlags::empty())?;
        ensure!(len == BODY, "the packet came back wrong");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn calls_and_packets_come_back() {
        if spdk_env::cpu::Topology::discover()
            .unwrap()
            .physical_cores()
            .len()
            < 2
        {
            assert!(
                super::run(0.01)
                    .unwrap_err()
                    .to_string()
                    .starts_with("server and client need a core each")
            );
            return;
        }
        assert!(super::run(0.05).unwrap().calls > 0);
    }
}
