//! The service as the daemon sees it: started over a set of xstreams, drained, closed.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use daos_errno::Der;
use engine_xstream::{Role, XstreamRef, Xstreams};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};
use spdk_thread::{SendError, Thread, ThreadHandle};
use thiserror::Error;

use crate::bulk::BulkPools;
use crate::endpoint::Endpoint;
use crate::fabric::Fabric;
use crate::home::{Control, DrainReport, Home, Message};
use crate::options::Options;
use crate::registry::Registry;
use crate::tcp;

/// An xstream takes this long to answer a control message before it is said to hang.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(10);
/// Beyond a drain's own deadline: for the cut itself.
const CUT_TIME: Duration = Duration::from_secs(1);

/// An xstream that takes part.
#[derive(Clone, Debug)]
pub struct Seat {
    /// The xstream's name, for logs and metrics.
    pub name: String,
    /// 0 = system, 1 + t = main of target t; `None` = it may call but is not called (offload).
    pub tag: Option<u32>,
    /// Its thread.
    pub thread: ThreadHandle,
}

/// Why the service did not start. What had been started has been closed again.
#[derive(Debug, Error)]
pub enum StartError {
    /// Tags must be 0, 1, 2, ... without gap or repetition.
    #[error("the xstreams' tags are not 0 to {expected} exactly once each: {found:?}")]
    Tags {
        /// The highest tag expected.
        expected: usize,
        /// What was given.
        found: Vec<u32>,
    },
    /// The address cannot be listened on.
    #[error("cannot listen for RPC on {addr}: {source}{}", cure(.source))]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The bulk pools do not fit into memory.
    #[error("cannot reserve {bytes} bytes for RPC bulk data: lower the bulk buffer counts")]
    Memory {
        /// All pools together.
        bytes: usize,
    },
    /// An xstream cannot take part.
    #[error("xstream {name} cannot serve RPC: {der}")]
    Xstream {
        /// Its name.
        name: String,
        /// ALREADY: another RPC service runs there. SHUTDOWN: it has ended. TIMEDOUT: it does not answer. NOMEM: its
        /// task table is full. BUSY: its mailbox is.
        der: Der,
    },
}

fn cure(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another engine or program has the port",
        io::ErrorKind::AddrNotAvailable => "; no interface of this machine has the address",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need privileges",
        _ => "",
    }
}

/// The RPC service of one engine. Lives on a control thread, never on an xstream: its methods block.
#[derive(Debug)]
pub struct RpcServer {
    homes: Vec<Arc<Home>>,
    fabric: Arc<Fabric>,
    addr: Option<SocketAddr>,
    closed: bool,
}

impl RpcServer {
    /// Starts the service on all xstreams of an engine: tag 0 is the system xstream, 1 + t the main xstream of target t;
    /// offload xstreams may call. Otherwise as [`RpcServer::start_on`].
    pub fn start(
        xstreams: &Xstreams,
        registry: Registry,
        listen: Option<SocketAddr>,
        options: Options,
    ) -> Result<RpcServer, StartError> {
        let seat = |xstream: &XstreamRef| Seat {
            name: xstream.name().to_owned(),
            tag: match xstream.role() {
                Role::System => Some(0),
                Role::Main => xstream.target().map(|target| 1 + target),
                Role::Offload => None,
            },
            thread: xstream.handle().clone(),
        };
        let seats = xstreams.all().iter().map(seat).collect();
        RpcServer::start_on(seats, registry, listen, options)
    }

    /// Starts the service on every seat; with `listen` also the TCP listener, on the xstream of tag 0. Returns once
    /// every xstream serves: an in-process call made afterwards finds its target. Port 0 takes a free one
    /// ([`RpcServer::addr`]).
    pub fn start_on(
        seats: Vec<Seat>,
        registry: Registry,
        listen: Option<SocketAddr>,
        options: Options,
    ) -> Result<RpcServer, StartError> {
        let socket = listen.map(open).transpose()?;
        let bulk = BulkPools::new(&options.bulk).map_err(|_| StartError::Memory {
            bytes: options
                .bulk
                .iter()
                .map(|class| class.buffer_len * class.count)
                .sum(),
        })?;
        let mut rings = Vec::new();
        let mut homes = Vec::new();
        for seat in &seats {
            let (home, ring) = Home::new(seat.name.clone(), seat.tag, options.ring_capacity);
            homes.push(Arc::new(home));
            rings.push(ring);
        }
        let fabric = Arc::new(Fabric::new(by_tag(&homes)?, options, bulk));
        let addr = socket.as_ref().map(|(_, addr)| *addr);
        let mut socket = socket.map(|(socket, _)| socket);
        // From here on a failure drops the server, which closes what has been started.
        let mut server = RpcServer {
            homes: Vec::new(),
            fabric,
            addr,
            closed: false,
        };
        for ((seat, home), ring) in seats.into_iter().zip(homes).zip(rings) {
            let listener = if seat.tag == Some(0) {
                socket.take()
            } else {
                None
            };
            let (fabric, registry, mine) = (
                Arc::clone(&server.fabric),
                registry.clone(),
                Arc::clone(&home),
            );
            run_on(&seat, move |thread| {
                let endpoint = Endpoint::start(thread, fabric, mine, ring, registry)?;
                match listener {
                    Some(socket) => tcp::listen(&endpoint, socket).map(drop),
                    None => Ok(()),
                }
            })
            .map_err(|der| StartError::Xstream {
                name: seat.name.clone(),
                der,
            })?;
            server.homes.push(home);
        }
        Ok(server)
    }

    /// Where it listens, if it does.
    pub fn addr(&self) -> Option<SocketAddr> {
        self.addr
    }

    /// Open connections.
    pub fn connections(&self) -> usize {
        self.fabric.connections()
    }

    /// Stops taking connections and requests, lets those in flight finish and be written, closes the connections. What
    /// is left at the deadline is cut: the result names the xstreams and how many connections each cut. In-process calls
    /// go on until [`RpcServer::close`], so that modules can still talk while they clean up.
    pub fn drain(&self, deadline: Duration) -> Vec<(String, usize)> {
        let (done, reports) = mpsc::channel();
        let timeout_ns = u64::try_from(deadline.as_nanos()).unwrap_or(u64::MAX);
        for home in &self.homes {
            home.post_answer(Message::Control(Control::Drain {
                timeout_ns,
                done: done.clone(),
            }));
        }
        drop(done);
        collect(&reports, self.homes.len(), deadline + CUT_TIME)
            .into_iter()
            .filter(|report| report.cut > 0)
            .map(|report| (report.xstream, report.cut))
            .collect()
    }

    /// Ends the service: what is still in flight is cut, waiting calls fail with SHUTDOWN, the xstreams hold nothing of
    /// it any more. Does [`RpcServer::drain`]'s work at once if that was not called.
    pub fn close(mut self) {
        self.close_all(CONTROL_TIMEOUT);
    }

    fn close_all(&mut self, timeout: Duration) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        self.drain(Duration::ZERO);
        let (done, reports) = mpsc::channel();
        for home in &self.homes {
            home.post_answer(Message::Control(Control::Close { done: done.clone() }));
        }
        drop(done);
        let answered = collect(&reports, self.homes.len(), timeout).len();
        if answered < self.homes.len() {
            tracing::warn!(
                answered,
                of = self.homes.len(),
                "not every xstream closed its RPC service in time"
            );
        }
    }
}

impl Drop for RpcServer {
    fn drop(&mut self) {
        self.close_all(CONTROL_TIMEOUT);
    }
}

/// Waits for `count` reports or the time-out; a channel without senders ends the wait.
fn collect(
    reports: &mpsc::Receiver<DrainReport>,
    count: usize,
    timeout: Duration,
) -> Vec<DrainReport> {
    let end = Instant::now() + timeout;
    let mut all = Vec::new();
    while all.len() < count {
        match reports.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(report) => all.push(report),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    all
}

fn by_tag(homes: &[Arc<Home>]) -> Result<Vec<Arc<Home>>, StartError> {
    let mut tagged: Vec<Arc<Home>> = homes
        .iter()
        .filter(|home| home.tag.is_some())
        .cloned()
        .collect();
    tagged.sort_by_key(|home| home.tag);
    let found: Vec<u32> = tagged.iter().filter_map(|home| home.tag).collect();
    if found.is_empty()
        || found
            .iter()
            .enumerate()
            .any(|(at, &tag)| at != tag as usize)
    {
        return Err(StartError::Tags {
            expected: found.len().saturating_sub(1),
            found,
        });
    }
    Ok(tagged)
}

/// Runs `f` on the seat's thread and waits for its result.
fn run_on(
    seat: &Seat,
    f: impl FnOnce(&Thread) -> Result<(), Der> + Send + 'static,
) -> Result<(), Der> {
    let (done, result) = mpsc::channel();
    let message = move |thread: &Thread| {
        // The starter may have given up waiting.
        let _ = done.send(f(thread));
    };
    seat.thread.send(message).map_err(|error| match error {
        SendError::Full => Der::BUSY,
        SendError::Exited => Der::SHUTDOWN,
    })?;
    match result.recv_timeout(CONTROL_TIMEOUT) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => Err(Der::TIMEDOUT),
        Err(RecvTimeoutError::Disconnected) => Err(Der::SHUTDOWN),
    }
}

/// A listening, non-blocking socket and its real address.
fn open(addr: SocketAddr) -> Result<(OwnedFd, SocketAddr), StartError> {
    let fail = |errno: rustix::io::Errno| StartError::Listen {
        addr,
        source: errno.into(),
    };
    let family = if addr.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let socket = socket_with(
        family,
        SocketType::STREAM,
        SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
        None,
    );
    let socket = socket.map_err(fail)?;
    // A restarted engine takes its port back though old connections linger in TIME_WAIT.
    sockopt::set_socket_reuseaddr(&socket, true).map_err(fail)?;
    bind(&socket, &addr).map_err(fail)?;
    rustix::net::listen(&socket, 1024).map_err(fail)?;
    let real = rustix::net::getsockname(&socket)
        .map_err(fail)?
        .try_into()
        .unwrap_or(addr);
    Ok((socket, real))
}
