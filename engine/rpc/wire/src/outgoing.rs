//! One frame on its way out: three pieces that are never copied together.

use std::io::IoSlice;

use crate::header::{HEADER_LEN, Header};

/// A frame that is being written: header, body and bulk stay where they are, and [`Outgoing::slices`] gives what is
/// left of them to a vectored write. `B` and `K` own (or borrow) body and bulk for as long as the frame lives, so a
/// buffer that goes back to a pool when dropped goes back exactly when its last byte has been handed to the kernel.
#[derive(Debug)]
pub struct Outgoing<B, K> {
    head: [u8; HEADER_LEN],
    body: B,
    bulk: K,
    sent: usize,
}

impl<B: AsRef<[u8]>, K: AsRef<[u8]>> Outgoing<B, K> {
    /// Seals `header` for this body and bulk (an empty slice = none), both within the limits ([`Header::seal`]).
    pub fn new(mut header: Header, body: B, bulk: K) -> Outgoing<B, K> {
        let head = header.seal(body.as_ref(), bulk.as_ref());
        Outgoing {
            head,
            body,
            bulk,
            sent: 0,
        }
    }

    /// Bytes of the whole frame.
    pub fn total(&self) -> usize {
        HEADER_LEN + self.body.as_ref().len() + self.bulk.as_ref().len()
    }

    /// Bytes not yet written.
    pub fn remaining(&self) -> usize {
        self.total() - self.sent
    }

    /// The pieces that are left, first to last; empty ones are left out.
    pub fn slices(&self) -> impl Iterator<Item = IoSlice<'_>> {
        let mut skip = self.sent;
        [&self.head[..], self.body.as_ref(), self.bulk.as_ref()]
            .into_iter()
            .filter_map(move |piece| {
                let cut = skip.min(piece.len());
                skip -= cut;
                (cut < piece.len()).then(|| IoSlice::new(&piece[cut..]))
            })
    }

    /// Notes that `bytes` more were written; returns how many of them were behind the end of this frame.
    pub fn advance(&mut self, bytes: usize) -> usize {
        let mine = bytes.min(self.remaining());
        self.sent += mine;
        bytes - mine
    }

    /// Body and bulk, to use their memory again.
    pub fn into_parts(self) -> (B, K) {
        (self.body, self.bulk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_partial_writes_give_the_same_bytes() {
        let whole: Vec<u8> = {
            let frame = Outgoing::new(Header::default(), b"some body", b"and bulk");
            frame.slices().flat_map(|s| s.to_vec()).collect()
        };
        assert_eq!(whole.len(), 64 + 9 + 8);
        for step in 1..=whole.len() {
            let mut frame = Outgoing::new(Header::default(), b"some body", b"and bulk");
            let mut out = Vec::new();
            while frame.remaining() > 0 {
                let mut left = step;
                for slice in frame.slices() {
                    let n = left.min(slice.len());
                    out.extend_from_slice(&slice[..n]);
                    left -= n;
                }
                let beyond = frame.advance(step);
                assert!(beyond == 0 || frame.remaining() == 0);
            }
            assert_eq!(out, whole, "step {step}");
        }
    }

    #[test]
    fn empty_pieces_are_left_out() {
        let frame = Outgoing::new(Header::default(), b"", b"x");
        assert_eq!(frame.slices().count(), 2);
        let mut frame = Outgoing::new(Header::default(), Vec::new(), Vec::new());
        assert_eq!(frame.slices().count(), 1);
        assert_eq!(frame.advance(70), 6);
        assert_eq!(frame.slices().count(), 0);
    }
}
