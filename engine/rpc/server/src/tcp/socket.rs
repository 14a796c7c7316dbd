//! A non-blocking stream socket on one thread: reads and writes that say when to wait, and the wait itself.
//!
//! A socket that is idle costs no system call: the reactor's epoll says when it became readable or writable, and only
//! then is it tried. A read that came back short emptied the socket, so it is not tried again before the next event.

use std::cell::{Cell, RefCell, RefMut};
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use rpc_tls::{Plain, Stream, TlsError};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown};
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
    /// What is between the socket and our bytes, if something is.
    tls: Option<RefCell<Box<Stream>>>,
}

impl Socket {
    /// Watches `fd`, which must be non-blocking, on `thread`. The first read and write are tried at once.
    pub(super) fn new(thread: &Thread, fd: OwnedFd, tls: Option<Box<Stream>>) -> Socket {
        let fd = Rc::new(fd);
        let watch = thread.watch_fd(Rc::clone(&fd), Interest::BOTH);
        Socket {
            fd,
            watch,
            may_read: Cell::new(true),
            may_write: Cell::new(true),
            tls: tls.map(RefCell::new),
        }
    }

    /// From here on everything goes through `tls`; [`Socket::handshake`] comes next.
    pub(super) fn secure(&mut self, tls: Stream) {
        self.tls = Some(RefCell::new(Box::new(tls)));
    }

    /// The two sides of a secured connection get to know each other. What went wrong is told to the peer, too.
    pub(super) async fn handshake(&self) -> io::Result<()> {
        while !self.shake()? {
            poll_fn(|cx| self.poll_ready(cx, true, false)).await;
        }
        Ok(())
    }

    /// As far as the handshake goes now; true: it is over.
    fn shake(&self) -> io::Result<bool> {
        let Some(mut tls) = self.tls() else {
            return Ok(true);
        };
        loop {
            let went = tls.advance();
            self.push(&mut tls)?;
            went.map_err(failed)?;
            if !tls.is_handshaking() && tls.unsent().is_empty() {
                return Ok(true);
            }
            match self.read_raw([&mut [], tls.space()])? {
                Input::Bytes(got) => tls.received(got),
                Input::Nothing => return Ok(false),
                Input::End => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }

    /// Reads into `spaces`, in order.
    pub(super) fn read(&self, spaces: [&mut [u8]; 2]) -> io::Result<Input> {
        let Some(mut tls) = self.tls() else {
            return self.read_raw(spaces);
        };
        let [first, second] = spaces;
        loop {
            let plain = tls.read([&mut *first, &mut *second]);
            if plain.is_err() {
                // The peer hears why, if it still listens.
                self.push(&mut tls)?;
            }
            match plain.map_err(failed)? {
                Plain::Bytes(got) => return Ok(Input::Bytes(got)),
                Plain::End => return Ok(Input::End),
                Plain::Nothing => match self.read_raw([&mut [], tls.space()])? {
                    Input::Bytes(got) => tls.received(got),
                    other => return Ok(other),
                },
            }
        }
    }

    fn tls(&self) -> Option<RefMut<'_, Box<Stream>>> {
        self.tls.as_ref().map(RefCell::borrow_mut)
    }

    fn read_raw(&self, spaces: [&mut [u8]; 2]) -> io::Result<Input> {
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

    /// Writes what fits; 0 = nothing now, [`Socket::poll_ready`] tells when to try again. Of a secured connection some of it may
    /// still be [`Socket::unsent`].
    pub(super) fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let Some(mut tls) = self.tls() else {
            return self.write_raw(slices);
        };
        self.push(&mut tls)?;
        let taken = tls.write(slices).map_err(failed)?;
        self.push(&mut tls)?;
        Ok(taken)
    }

    /// Writes what a secured connection has encrypted and not yet sent.
    pub(super) fn flush(&self) -> io::Result<()> {
        match self.tls() {
            Some(mut tls) => self.push(&mut tls),
            None => Ok(()),
        }
    }

    /// Encrypted bytes that wait to be written.
    pub(super) fn unsent(&self) -> usize {
        self.tls().map_or(0, |tls| tls.unsent().len())
    }

    fn push(&self, tls: &mut Stream) -> io::Result<()> {
        while !tls.unsent().is_empty() {
            match self.write_raw(&[IoSlice::new(tls.unsent())])? {
                0 => break,
                sent => tls.sent(sent),
            }
        }
        Ok(())
    }

    fn write_raw(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
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
        let write = write || self.unsent() > 0;
        let ahead = self.tls().is_some_and(|tls| tls.has_bytes());
        let readable = read
            && (ahead || self.may_read.get() || pin!(self.watch.readable()).poll(cx).is_ready());
        let writable =
            write && (self.may_write.get() || pin!(self.watch.writable()).poll(cx).is_ready());
        self.may_read
            .set(self.may_read.get() || (readable && !ahead));
        self.may_write.set(self.may_write.get() || writable);
        if readable || writable {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// The first byte that the peer sends, which stays to be read; `None`: it sends none.
    pub(super) async fn first_byte(&self) -> io::Result<Option<u8>> {
        let mut first = [0];
        loop {
            match rustix::net::recv(&*self.fd, &mut first, RecvFlags::PEEK) {
                Ok((_, 0)) => return Ok(None),
                Ok(_) => return Ok(Some(first[0])),
                Err(Errno::AGAIN) => self.may_read.set(false),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            }
            poll_fn(|cx| self.poll_ready(cx, true, false)).await;
        }
    }

    /// Ends our side and waits until the peer has ended its own: a socket closed with bytes unread would take the last words
    /// away from a peer that has not read them yet.
    pub(super) async fn part(&self) {
        let _ = rustix::net::shutdown(&*self.fd, Shutdown::Write);
        let mut nowhere = [0; 4096];
        while let Ok(input) = self.read_raw([&mut [], &mut nowhere]) {
            match input {
                Input::Bytes(_) => {}
                Input::Nothing => poll_fn(|cx| self.poll_ready(cx, true, false)).await,
                Input::End => return,
            }
        }
    }

    /// The peer's certificate, on a secured connection.
    pub(super) fn certificate(&self) -> Option<rpc_tls::Certificate> {
        self.tls().and_then(|tls| tls.peer())
    }

    /// The descriptor, watched no longer, and what secures it, to hand to another thread.
    pub(super) fn into_parts(self) -> io::Result<(OwnedFd, Option<Box<Stream>>)> {
        drop(self.watch);
        let fd = match Rc::try_unwrap(self.fd) {
            Ok(fd) => fd,
            // The reactor still holds it until it has told epoll: a second descriptor of the same socket serves.
            Err(shared) => rustix::io::fcntl_dupfd_cloexec(&*shared, 0)?,
        };
        Ok((fd, self.tls.map(RefCell::into_inner)))
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

/// Travels as an I/O error; [`tls_error`] finds it again.
fn failed(error: TlsError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// What went wrong with TLS, if that is what went wrong.
pub(super) fn tls_error(error: &io::Error) -> Option<&TlsError> {
    error.get_ref()?.downcast_ref()
}
