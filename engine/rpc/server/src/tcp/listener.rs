//! The listening socket, a ULT of the system xstream.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with, sockopt};
use slab::Slab;
use spdk_thread::{FdWatch, Interest, JoinHandle, TaskWaker, sleep};

use super::handshake::greet;
use super::keepalive::watch_over;
use crate::endpoint::Endpoint;

/// Out of descriptors or memory: waits this long before it accepts again.
const PAUSE_NS: u64 = 100_000_000;
/// Connections accepted in one turn.
const BATCH: usize = 16;

/// Stops the listener and what it has begun. Own xstream only.
pub(crate) struct ListenerControl {
    stopped: Cell<bool>,
    waker: RefCell<Option<TaskWaker>>,
    handshakes: RefCell<Slab<JoinHandle<()>>>,
}

impl ListenerControl {
    /// No further connection; unfinished handshakes are dropped.
    pub(crate) fn stop(&self) {
        self.stopped.set(true);
        for handshake in self.handshakes.take() {
            handshake.1.abort();
        }
        self.wake();
    }

    fn wake(&self) {
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn sweep(&self) {
        self.handshakes
            .borrow_mut()
            .retain(|_, handshake| !handshake.is_finished());
    }

    fn is_full(&self, max: usize) -> bool {
        if self.handshakes.borrow().len() >= max {
            self.sweep();
        }
        self.handshakes.borrow().len() >= max
    }
}

/// Accepts connections on `socket` (listening, non-blocking) until stopped.
pub(crate) fn listen(
    endpoint: &Rc<Endpoint>,
    socket: OwnedFd,
) -> Result<Rc<ListenerControl>, daos_errno::Der> {
    let control = Rc::new(ListenerControl {
        stopped: Cell::new(false),
        waker: RefCell::new(None),
        handshakes: RefCell::default(),
    });
    let watch = endpoint
        .thread()
        .watch_fd(Rc::new(socket), Interest::READABLE);
    let task = accept_all(Rc::clone(endpoint), Rc::clone(&control), watch);
    drop(
        endpoint
            .thread()
            .spawn("rpc listener", task)
            .map_err(|_| daos_errno::Der::NOMEM)?,
    );
    endpoint.drain.set_listener(Rc::clone(&control));
    Ok(control)
}

async fn accept_all(endpoint: Rc<Endpoint>, control: Rc<ListenerControl>, watch: FdWatch) {
    let max = endpoint.fabric().options.max_handshakes.max(1);
    while !control.stopped.get() {
        let full = control.is_full(max);
        let (mut accepted, mut pause) = (0, false);
        while !control.stopped.get() && !control.is_full(max) && accepted < BATCH {
            match accept_with(watch.fd(), SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(socket) => {
                    accepted += 1;
                    start_handshake(&endpoint, &control, socket);
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(errno) => {
                    tracing::error!("cannot accept RPC connections, trying again shortly: {errno}");
                    pause = true;
                    break;
                }
            }
        }
        match (pause, full, accepted) {
            (true, ..) => sleep(PAUSE_NS).await,
            (_, _, BATCH) => spdk_thread::yield_now().await,
            _ => wait(&control, &watch, control.is_full(max)).await,
        }
    }
}

/// Waits for a connection, for a handshake's end if there is no place for more, or for the stop.
async fn wait(control: &ListenerControl, watch: &FdWatch, full: bool) {
    let mut parked = false;
    poll_fn(|cx| {
        if control.stopped.get() || (parked && full && control.waker.borrow().is_none()) {
            return Poll::Ready(());
        }
        *control.waker.borrow_mut() = Some(TaskWaker::from_cx(cx, "rpc connections"));
        parked = true;
        if full {
            Poll::Pending
        } else {
            pin!(watch.readable()).poll(cx).map(drop)
        }
    })
    .await;
}

fn start_handshake(endpoint: &Rc<Endpoint>, control: &Rc<ListenerControl>, socket: OwnedFd) {
    let peer: Option<SocketAddr> = rustix::net::getpeername(&socket)
        .ok()
        .and_then(|addr| addr?.try_into().ok());
    // Gone already, or no answer may wait for another: both only when the peer has closed.
    let set = sockopt::set_tcp_nodelay(&socket, true).and_then(|()| watch_over(&socket));
    let (Some(peer), Ok(())) = (peer, set) else {
        return;
    };
    let (endpoint2, control2) = (Rc::clone(endpoint), Rc::clone(control));
    let task = async move {
        greet(endpoint2, socket, peer).await;
        control2.wake();
    };
    match endpoint.thread().spawn("rpc handshake", task) {
        Ok(handle) => {
            control.handshakes.borrow_mut().insert(handle);
        }
        Err(_) => {
            tracing::warn!(%peer, "no task for an RPC handshake: the system xstream is at its bound")
        }
    }
}
