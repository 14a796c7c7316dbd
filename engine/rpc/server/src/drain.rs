//! The end of service on one xstream: finish what was begun, within a deadline.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::mpsc::Sender;
use std::task::Poll;

use spdk_thread::TaskWaker;

use crate::endpoint::Endpoint;
use crate::home::DrainReport;
use crate::tcp::ListenerControl;

/// Who waits for the last connection to close, and the listener to stop, if this is its xstream.
#[derive(Default)]
pub(crate) struct DrainWatch {
    waiter: RefCell<Option<TaskWaker>>,
    listener: RefCell<Option<Rc<ListenerControl>>>,
}

impl DrainWatch {
    pub(crate) fn set_listener(&self, listener: Rc<ListenerControl>) {
        *self.listener.borrow_mut() = Some(listener);
    }

    /// The last connection is gone.
    pub(crate) fn notify(&self) {
        let waiter = self.waiter.borrow_mut().take();
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }

    fn stop_listener(&self) {
        let listener = self.listener.borrow_mut().take();
        if let Some(listener) = listener {
            listener.stop();
        }
    }
}

pub(crate) fn report(endpoint: &Endpoint, cut: usize) -> DrainReport {
    DrainReport {
        xstream: endpoint.name().to_owned(),
        cut,
    }
}

/// Stops reading, lets connections finish for at most `timeout_ns`, cuts those that are left, reports on `done`.
pub(crate) fn start(endpoint: &Rc<Endpoint>, timeout_ns: u64, done: Sender<DrainReport>) {
    endpoint.drain.stop_listener();
    endpoint.kick_all(None);
    let task = wait(Rc::clone(endpoint), timeout_ns, done.clone());
    if endpoint.thread().spawn("rpc drain", task).is_err() {
        // No task may be started any more: then nothing can be waited for.
        let cut = endpoint.sessions();
        endpoint.kick_all(Some("the engine is shutting down"));
        let _ = done.send(report(endpoint, cut));
    }
}

async fn wait(endpoint: Rc<Endpoint>, timeout_ns: u64, done: Sender<DrainReport>) {
    let empty = || {
        poll_fn(|cx| {
            if endpoint.sessions() == 0 {
                return Poll::Ready(());
            }
            *endpoint.drain.waiter.borrow_mut() =
                Some(TaskWaker::from_cx(cx, "connections to drain"));
            Poll::Pending
        })
    };
    let mut cut = 0;
    if spdk_thread::timeout(timeout_ns, empty()).await.is_err() {
        cut = endpoint.sessions();
        tracing::warn!(
            xstream = endpoint.name(),
            cut,
            "RPC connections did not drain in time and are cut"
        );
        endpoint.kick_all(Some("the drain deadline passed"));
        empty().await;
    }
    // The starter may have given up waiting.
    let _ = done.send(report(&endpoint, cut));
}
