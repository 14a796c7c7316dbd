//! A channel on the device's I/O threads.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use rustix::event::EventfdFlags;
use spdk_bdev::{BdevChannel, CompletionSink, Request};

use crate::io_threads::{Finished, IoThreads, Mailbox};

pub(crate) struct ThreadChannel {
    threads: Arc<IoThreads>,
    mailbox: Arc<Mailbox>,
    capacity: u32,
    wake: Rc<OwnedFd>,
    /// Empty between polls.
    finished: Vec<Finished>,
}

impl ThreadChannel {
    pub(crate) fn new(threads: Arc<IoThreads>, capacity: u32) -> std::io::Result<ThreadChannel> {
        let bell = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let wake = Rc::new(bell.try_clone()?);
        let mailbox = Arc::new(Mailbox::new(bell));
        Ok(ThreadChannel {
            threads,
            mailbox,
            capacity,
            wake,
            finished: Vec::new(),
        })
    }
}

impl BdevChannel for ThreadChannel {
    fn submit(&mut self, tag: u32, request: &mut Request) {
        self.threads.submit(tag, request.detach(), &self.mailbox);
    }

    fn poll(&mut self, _now: u64, done: &mut CompletionSink<'_>) {
        self.mailbox.collect(&mut self.finished);
        for Finished { tag, buf, result } in self.finished.drain(..) {
            done.request(tag).buf = buf;
            done.complete(tag, result);
        }
    }

    fn capacity(&self) -> u32 {
        self.capacity
    }

    fn wake_fd(&self) -> Option<Rc<OwnedFd>> {
        Some(Rc::clone(&self.wake))
    }

    fn needs_poll(&self) -> bool {
        false
    }
}
