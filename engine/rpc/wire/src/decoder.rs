//! Bytes to frames, incrementally, without I/O of its own.
//!
//! The caller reads into [`Decoder::spaces`] (a vectored read: first the rest of the body or bulk that is due, in its
//! final place, then the read-ahead buffer), tells how much came ([`Decoder::filled`]) and takes frames out
//! ([`Decoder::next`]). So many small frames cost one read, and of a large bulk at most one read-ahead buffer's worth is
//! moved; the rest is received straight into the buffer that the device will use.

use crate::header::{HEADER_LEN, Header, HeaderError};

/// How much of a body's memory is set aside before the peer has sent that much.
const BODY_STEP: usize = 64 << 10;

/// Where the decoder takes memory from, and the say whether a frame may be taken in at all.
pub trait Buffers {
    /// Memory of a bulk; at least as long as the `bulk_len` it was asked for.
    type Bulk: AsRef<[u8]> + AsMut<[u8]>;

    /// Memory for the body of the frame that `header` starts (any capacity, content is dropped).
    fn admit(&mut self, header: &Header) -> Grant<Vec<u8>>;

    /// Memory for the bulk of an admitted frame. Asked only if `bulk_len` is not 0.
    fn bulk(&mut self, header: &Header) -> Grant<Self::Bulk>;
}

/// What [`Buffers`] has for a part of a frame.
#[derive(Debug)]
pub enum Grant<T> {
    /// This.
    Take(T),
    /// Nothing now: the stream is held, and asked again at the next [`Decoder::next`].
    Hold,
    /// Nothing: what is left of the frame is dropped as it comes ([`Step::Skipped`]).
    Skip,
}

impl<T> Grant<T> {
    /// Held unless there is something.
    pub fn or_hold(found: Option<T>) -> Grant<T> {
        found.map_or(Grant::Hold, Grant::Take)
    }
}

/// Which part of a frame did not match its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The body.
    Body,
    /// The bulk; the body is sound.
    Bulk,
}

/// A whole frame.
#[derive(Debug)]
pub struct Frame<K> {
    /// Its header.
    pub header: Header,
    /// Its body, `body_len` bytes.
    pub body: Vec<u8>,
    /// Its bulk if `bulk_len` is not 0: the first `bulk_len` bytes count.
    pub bulk: Option<K>,
    /// Set if body or bulk were damaged on the way; the framing is intact and the next frame follows.
    pub damage: Option<Damage>,
}

/// What [`Decoder::next`] came to.
#[derive(Debug)]
pub enum Step<K> {
    /// A frame.
    Frame(Frame<K>),
    /// One that [`Buffers`] had no memory for has gone by.
    Skipped(Header),
    /// More bytes are needed.
    NeedBytes,
    /// [`Buffers`] held the stream: read nothing until there is memory again.
    Held,
}

/// Incremental decoder of one direction of one connection.
#[derive(Debug)]
pub struct Decoder<K> {
    ahead: Box<[u8]>,
    start: usize,
    end: usize,
    state: State<K>,
}

#[derive(Debug)]
enum State<K> {
    /// Between frames, or with part of a header.
    Header,
    /// A header that is not admitted yet.
    Admit(Header),
    Body(Partial<K>),
    Bulk(Partial<K>),
    /// So many bytes of a frame are still to be dropped.
    Skip(Header, usize),
    /// Framing is lost for good.
    Lost(HeaderError),
}

#[derive(Debug)]
struct Partial<K> {
    header: Header,
    body: Vec<u8>,
    bulk: Option<K>,
    /// Bytes of the current section that have come, and their checksum.
    got: usize,
    crc: u32,
    damage: Option<Damage>,
}

impl<K: AsRef<[u8]> + AsMut<[u8]>> Decoder<K> {
    /// A decoder with `read_ahead` bytes of buffer (at least one header).
    pub fn new(read_ahead: usize) -> Decoder<K> {
        let ahead = vec![0; read_ahead.max(HEADER_LEN)].into_boxed_slice();
        Decoder {
            ahead,
            start: 0,
            end: 0,
            state: State::Header,
        }
    }

    /// Where the next bytes belong, in order; either may be empty. Never read while [`Step::Held`] is in force.
    pub fn spaces(&mut self) -> [&mut [u8]; 2] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.ahead.len() {
            self.ahead.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        // Bytes that wait in the read-ahead buffer come first: only behind them may the section be filled directly.
        let direct = if self.end == 0 {
            self.state.window()
        } else {
            &mut []
        };
        [direct, &mut self.ahead[self.end..]]
    }

    /// Notes that the last [`Decoder::spaces`] were filled with `bytes` bytes, in order.
    pub fn filled(&mut self, bytes: usize) {
        let direct = if self.end == 0 {
            self.state.window().len().min(bytes)
        } else {
            0
        };
        if direct > 0 {
            self.state.took(direct);
        }
        self.end += bytes - direct;
        debug_assert!(self.end <= self.ahead.len());
    }

    /// Whether a frame has begun and is not complete: such a frame has a deadline.
    pub fn is_mid_frame(&self) -> bool {
        match self.state {
            State::Header => self.start != self.end,
            State::Lost(_) => false,
            _ => true,
        }
    }

    /// The next frame, if its bytes are there. An error is final: the stream has lost its framing.
    pub fn next<B: Buffers<Bulk = K>>(&mut self, buffers: &mut B) -> Result<Step<K>, HeaderError> {
        loop {
            self.state = match std::mem::replace(&mut self.state, State::Header) {
                State::Header => match self.take_header() {
                    Ok(Some(header)) => State::Admit(header),
                    Ok(None) => return Ok(Step::NeedBytes),
                    Err(error) => State::Lost(error),
                },
                State::Lost(error) => {
                    self.state = State::Lost(error.clone());
                    return Err(error);
                }
                State::Admit(header) => match buffers.admit(&header) {
                    Grant::Take(body) => State::Body(Partial::new(header, body)),
                    Grant::Skip => {
                        State::Skip(header, header.body_len as usize + header.bulk_len as usize)
                    }
                    Grant::Hold => {
                        self.state = State::Admit(header);
                        return Ok(Step::Held);
                    }
                },
                State::Skip(header, mut left) => {
                    let gone = left.min(self.end - self.start);
                    self.start += gone;
                    left -= gone;
                    if left == 0 {
                        return Ok(Step::Skipped(header));
                    }
                    self.state = State::Skip(header, left);
                    return Ok(Step::NeedBytes);
                }
                State::Body(mut partial) => {
                    partial.pull_body(&self.ahead[self.start..self.end], &mut self.start);
                    if partial.got < partial.header.body_len as usize {
                        self.state = State::Body(partial);
                        return Ok(Step::NeedBytes);
                    }
                    partial.end_body();
                    State::Bulk(partial)
                }
                State::Bulk(mut partial) => {
                    if partial.header.bulk_len == 0 {
                        return Ok(Step::Frame(partial.finish()));
                    }
                    if partial.bulk.is_none() {
                        match buffers.bulk(&partial.header) {
                            Grant::Take(bulk) => partial.bulk = Some(bulk),
                            Grant::Skip => {
                                let header = partial.header;
                                self.state = State::Skip(header, header.bulk_len as usize);
                                continue;
                            }
                            Grant::Hold => {
                                self.state = State::Bulk(partial);
                                return Ok(Step::Held);
                            }
                        }
                    }
                    partial.pull_bulk(&self.ahead[self.start..self.end], &mut self.start);
                    if partial.got < partial.header.bulk_len as usize {
                        self.state = State::Bulk(partial);
                        return Ok(Step::NeedBytes);
                    }
                    return Ok(Step::Frame(partial.finish()));
                }
            };
        }
    }

    fn take_header(&mut self) -> Result<Option<Header>, HeaderError> {
        let Some(bytes) = self.ahead[self.start..self.end].first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let header = Header::decode(bytes)?;
        self.start += HEADER_LEN;
        Ok(Some(header))
    }
}

impl<K: AsRef<[u8]> + AsMut<[u8]>> State<K> {
    /// The part of the current section that may be filled directly.
    fn window(&mut self) -> &mut [u8] {
        match self {
            State::Body(partial) => partial.body_window(),
            State::Bulk(Partial {
                header,
                bulk: Some(bulk),
                got,
                ..
            }) => &mut bulk.as_mut()[*got..header.bulk_len as usize],
            _ => &mut [],
        }
    }

    /// `bytes` were put at the start of the window.
    fn took(&mut self, bytes: usize) {
        match self {
            State::Body(partial) => {
                let Partial { body, got, .. } = &*partial;
                partial.crc = crc32c::crc32c_append(partial.crc, &body[*got..*got + bytes]);
                partial.got += bytes;
            }
            State::Bulk(Partial {
                bulk: Some(bulk),
                got,
                crc,
                ..
            }) => {
                *crc = crc32c::crc32c_append(*crc, &bulk.as_ref()[*got..*got + bytes]);
                *got += bytes;
            }
            _ => debug_assert_eq!(bytes, 0, "no section is open"),
        }
    }
}

impl<K: AsRef<[u8]> + AsMut<[u8]>> Partial<K> {
    fn new(header: Header, mut body: Vec<u8>) -> Partial<K> {
        body.clear();
        Partial {
            header,
            body,
            bulk: None,
            got: 0,
            crc: 0,
            damage: None,
        }
    }

    /// Memory grows with what came, so that a peer's word alone never makes us set aside the maximum.
    fn body_window(&mut self) -> &mut [u8] {
        let want = (self.header.body_len as usize).min(self.got + BODY_STEP);
        if self.body.len() < want {
            self.body.resize(want, 0);
        }
        &mut self.body[self.got..want]
    }

    fn pull_body(&mut self, ahead: &[u8], start: &mut usize) {
        let take = ahead.len().min(self.header.body_len as usize - self.got);
        self.body.truncate(self.got);
        self.body.extend_from_slice(&ahead[..take]);
        self.crc = crc32c::crc32c_append(self.crc, &ahead[..take]);
        self.got += take;
        *start += take;
    }

    fn end_body(&mut self) {
        self.body.truncate(self.got);
        if self.crc != self.header.body_crc {
            self.damage = Some(Damage::Body);
        }
        (self.got, self.crc) = (0, 0);
    }

    fn pull_bulk(&mut self, ahead: &[u8], start: &mut usize) {
        let take = ahead.len().min(self.header.bulk_len as usize - self.got);
        if let Some(bulk) = &mut self.bulk {
            bulk.as_mut()[self.got..self.got + take].copy_from_slice(&ahead[..take]);
            self.crc = crc32c::crc32c_append(self.crc, &ahead[..take]);
            self.got += take;
            *start += take;
        }
    }

    fn finish(self) -> Frame<K> {
        let bulk_damage = (self.crc != self.header.bulk_crc).then_some(Damage::Bulk);
        Frame {
            header: self.header,
            body: self.body,
            bulk: self.bulk,
            damage: self.damage.or(bulk_damage),
        }
    }
}

#[cfg(test)]
mod tests;
