//! Frames that wait to be written to one socket.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;

use rpc_wire::{Header, Outgoing};
use spdk_env::DmaBuf;

use super::socket::Socket;
use crate::bulk::Bulk;

/// Pieces given to one write: header, body and bulk of many frames leave in one system call.
const PIECES: usize = 48;

/// The bulk of a frame.
#[derive(Debug)]
pub(super) enum Piece {
    None,
    /// All of a buffer.
    Whole(Bulk),
    /// A part of memory that stays its owner's.
    Part(Arc<DmaBuf>, Range<usize>),
}

impl From<Option<Bulk>> for Piece {
    fn from(bulk: Option<Bulk>) -> Piece {
        bulk.map_or(Piece::None, Piece::Whole)
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        match self {
            Piece::None => &[],
            Piece::Whole(bulk) => bulk.as_ref(),
            Piece::Part(data, range) => &data.as_slice()[range.clone()],
        }
    }
}

/// Own OS thread only. Bounded by what may be in flight on its connection.
#[derive(Debug, Default)]
pub(super) struct OutQueue {
    frames: RefCell<VecDeque<Outgoing<Vec<u8>, Piece>>>,
    bytes: Cell<usize>,
}

impl OutQueue {
    /// Seals and queues a frame.
    pub(super) fn push(&self, header: Header, body: Vec<u8>, bulk: impl Into<Piece>) {
        let frame = Outgoing::new(header, body, bulk.into());
        self.bytes.set(self.bytes.get() + frame.total());
        self.frames.borrow_mut().push_back(frame);
    }

    /// Frames that wait to be written.
    pub(super) fn frames(&self) -> usize {
        self.frames.borrow().len()
    }

    /// Bytes that wait to be written.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.get()
    }

    /// Writes until everything is out or the socket is full. What is out goes back: bulk to its pool, the body to
    /// `recycle`. Returns the bytes written.
    pub(super) fn flush(
        &self,
        socket: &Socket,
        mut recycle: impl FnMut(Vec<u8>),
    ) -> io::Result<usize> {
        socket.flush()?;
        let mut total = 0;
        while self.bytes.get() > 0 {
            let mut frames = self.frames.borrow_mut();
            let sent = {
                let mut pieces = [IoSlice::new(&[]); PIECES];
                let mut used = 0;
                let all = frames.iter().flat_map(Outgoing::slices);
                for (piece, slot) in all.zip(pieces.iter_mut()) {
                    *slot = piece;
                    used += 1;
                }
                socket.write(&pieces[..used])?
            };
            if sent == 0 {
                break;
            }
            total += sent;
            self.bytes.set(self.bytes.get() - sent);
            let mut left = sent;
            while let Some(frame) = frames.front_mut() {
                left = frame.advance(left);
                if frame.remaining() > 0 {
                    break;
                }
                if let Some(frame) = frames.pop_front() {
                    recycle(frame.into_parts().0);
                }
            }
        }
        Ok(total)
    }
}
