//! A non-blocking stream socket on one thread: reads and writes that say when to wait, and the wait itself.
//!
//! A socket that is idle costs no system call: the reactor's epoll says when it became readable or writable, and only
//! then is it tried. A read that came back short emptied the socket, so it is not tried again before the next event.

use std::cell::Cell;
use std::future::Future;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags};
use spdk_thread::{FdWatch, Interest, Thread};

/// What a read came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// That many bytes.
    Bytes(usize),
    /// Nothing now; [`Socket::poll_ready`] tells when to try again.
    Nothing,
    /// The peer sends no more.
    End,
}

/// Own thread only.
pub(super) struct Socket {
    fd: Rc<OwnedFd>,
    watch: FdWatch,
    may_read: Cell<bool>,
    may_write: Cell<bool>,
}

impl Socket {
    /// Watches `fd`, which must be non-blocking, on `thread`. The first read and write are tried at once.
    pub(super) fn new(thread: &Thread, fd: OwnedFd) -> Socket {
        let fd = Rc::new(fd);
        let watch = thread.watch_fd(Rc::clone(&fd), Interest::BOTH);
        Socket {
            fd,
            watch,
            may_read: Cell::new(true),
            may_write: Cell::new(true),
        }
    }

    /// Reads into `spaces`, in order.
    pub(super) fn read(&self, spaces: [&mut [u8]; 2]) -> io::Result<Input> {
        self.note_events();
        if !self.may_read.get() {
            return Ok(Input::Nothing);
        }
        let wanted: usize = spaces.iter().map(|space| space.len()).sum();
        let [first, second] = spaces;
        let result = match first.is_empty() {
            true => rustix::io::read(&*self.fd, second),
            false => rustix::io::readv(
                &*self.fd,
                &mut [IoSliceMut::new(first), IoSliceMut::new(second)],
            ),
        };
        match result {
            Ok(0) => Ok(Input::End),
            Ok(got) => {
                // An end of stream behind these bytes raises an event of its own.
                self.may_read.set(got == wanted);
                Ok(Input::Bytes(got))
            }
            Err(Errno::AGAIN) => {
                self.may_read.set(false);
                Ok(Input::Nothing)
            }
            Err(Errno::INTR) => Ok(Input::Bytes(0)),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Writes what fits; 0 = nothing now, [`Socket::poll_ready`] tells when to try again.
    pub(super) fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.note_events();
        if !self.may_write.get() {
            return Ok(0);
        }
        let mut nothing = SendAncillaryBuffer::default();
        match rustix::net::sendmsg(&*self.fd, slices, &mut nothing, SendFlags::NOSIGNAL) {
            Ok(sent) => Ok(sent),
            Err(Errno::AGAIN) => {
                self.may_write.set(false);
                Ok(0)
            }
            Err(Errno::INTR) => Ok(0),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Ready once the socket may be read (if `read`) or written (if `write`).
    pub(super) fn poll_ready(&self, cx: &mut Context<'_>, read: bool, write: bool) -> Poll<()> {
        self.note_events();
        let readable =
            read && (self.may_read.get() || pin!(self.watch.readable()).poll(cx).is_ready());
        let writable =
            write && (self.may_write.get() || pin!(self.watch.writable()).poll(cx).is_ready());
        self.may_read.set(self.may_read.get() || readable);
        self.may_write.set(self.may_write.get() || writable);
        if readable || writable {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// The descriptor, watched no longer, to hand to another thread.
    pub(super) fn into_fd(self) -> io::Result<OwnedFd> {
        drop(self.watch);
        match Rc::try_unwrap(self.fd) {
            Ok(fd) => Ok(fd),
            // The reactor still holds it until it has told epoll: a second descriptor of the same socket serves.
            Err(shared) => Ok(rustix::io::fcntl_dupfd_cloexec(&*shared, 0)?),
        }
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// The socket cannot be written yet (it is connecting): the next write waits for the event.
    pub(super) fn forget_writable(&self) {
        self.may_write.set(false);
    }

    fn note_events(&self) {
        // Asking for an event arms it, so only what is missing is asked for.
        if !self.may_read.get() && self.watch.take_readable() {
            self.may_read.set(true);
        }
        if !self.may_write.get() && self.watch.take_writable() {
            self.may_write.set(true);
        }
    }
}
