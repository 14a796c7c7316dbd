//! One encrypted connection: bytes of the network on one side, ours on the other.
//!
//! The caller reads from the socket into [`Stream::space`] and says how much came ([`Stream::received`]), writes
//! [`Stream::unsent`] to the socket and says how much went ([`Stream::sent`]), and takes and gives plain bytes with
//! [`Stream::read`] and [`Stream::write`]. The memory is taken when the connection begins: 36 KiB for what came in, 68 KiB for
//! what goes out, 16 KiB in which small pieces become one record. A large piece is encrypted from where it is, and what was
//! decrypted goes straight to where the caller wants it.

use std::fmt;
use std::io::IoSlice;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus, WriteTraffic};

use crate::certificate::Certificate;
use crate::error::TlsError;
use crate::identity::Identity;

/// Most plain bytes of one record (RFC 8446, section 5.1).
pub const RECORD: usize = 16 << 10;
/// What a record adds (5 + 1 + 16 bytes), and a key update before it, rounded up.
const OVERHEAD: usize = 128;
/// Two whole records, or the longest handshake message that an honest peer sends.
const INCOMING: usize = 36 << 10;
/// Four whole records: as much per system call.
const OUTGOING: usize = 4 * (RECORD + OVERHEAD) + 1024;
/// With less room than this no record is begun: many small ones would cost more than the wait.
const LEAST_ROOM: usize = 1024 + OVERHEAD;
/// The first byte of a TLS connection: a record of the handshake.
const HANDSHAKE: u8 = 22;
/// How frames without TLS begin.
const FRAME: &[u8] = b"KRPC";

/// Whether a connection that begins with `first` begins with TLS.
pub fn is_tls(first: u8) -> bool {
    first == HANDSHAKE
}

/// What [`Stream::read`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plain {
    /// That many bytes.
    Bytes(usize),
    /// Bytes of the network are needed.
    Nothing,
    /// The peer sends no more.
    End,
}

/// One side of one connection.
pub struct Stream {
    side: Side,
    incoming: Box<[u8]>,
    start: usize,
    end: usize,
    /// Decrypted, and not yet asked for: a write came before the read.
    early: Vec<u8>,
    early_from: usize,
    out: Out,
    stage: Vec<u8>,
    ended: bool,
    failed: Option<TlsError>,
}

enum Side {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

impl Stream {
    /// The side that connects, to `name`: a host name or an address, which must stand in the peer's certificate.
    ///
    /// # Errors
    /// No certificate can be for such a name.
    pub fn client(identity: &Identity, name: &str) -> Result<Stream, TlsError> {
        let server = ServerName::try_from(name.to_owned())
            .map_err(|e| TlsError::Broken(format!("{name:?} is no name of a host: {e}")))?;
        let config = Arc::clone(&identity.loaded().client);
        let side = UnbufferedClientConnection::new(config, server)?;
        Stream::new(Side::Client(side))
    }

    /// The side that was connected to.
    ///
    /// # Errors
    /// [`TlsError::Broken`], which the configuration of [`Identity`] rules out.
    pub fn server(identity: &Identity) -> Result<Stream, TlsError> {
        let config = Arc::clone(&identity.loaded().server);
        Stream::new(Side::Server(UnbufferedServerConnection::new(config)?))
    }

    fn new(side: Side) -> Result<Stream, TlsError> {
        let mut stream = Stream {
            side,
            incoming: vec![0; INCOMING].into_boxed_slice(),
            start: 0,
            end: 0,
            early: Vec::new(),
            early_from: 0,
            out: Out::default(),
            stage: Vec::with_capacity(RECORD),
            ended: false,
            failed: None,
        };
        // A client speaks first.
        stream.advance()?;
        Ok(stream)
    }

    /// Where the next bytes of the network belong; empty only while [`Stream::read`] has bytes to give.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.incoming.len() {
            self.incoming.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        &mut self.incoming[self.end..]
    }

    /// Notes that `bytes` were put there.
    pub fn received(&mut self, bytes: usize) {
        self.end += bytes;
    }

    /// What goes to the network next.
    pub fn unsent(&self) -> &[u8] {
        &self.out.bytes[self.out.start..self.out.end]
    }

    /// Notes that `bytes` of it went.
    pub fn sent(&mut self, bytes: usize) {
        self.out.start += bytes;
        if self.out.start == self.out.end {
            (self.out.start, self.out.end) = (0, 0);
        }
    }

    /// Whether the two sides still make each other's acquaintance: nothing can be written before that is over.
    pub fn is_handshaking(&self) -> bool {
        match &self.side {
            Side::Client(side) => side.is_handshaking(),
            Side::Server(side) => side.is_handshaking(),
        }
    }

    /// Whether [`Stream::read`] gives bytes that were decrypted before.
    pub fn has_bytes(&self) -> bool {
        self.early_from < self.early.len()
    }

    /// The peer's certificate, which has been verified once the handshake is over.
    pub fn peer(&self) -> Option<Certificate> {
        let shown = match &self.side {
            Side::Client(side) => side.peer_certificates(),
            Side::Server(side) => side.peer_certificates(),
        };
        shown
            .and_then(<[_]>::first)
            .and_then(|der| Certificate::from_der(der).ok())
    }

    /// Goes on with the handshake as far as what was received allows. What it has to say is in [`Stream::unsent`], after an
    /// error too: the peer deserves to hear it.
    ///
    /// # Errors
    /// Why there will be no connection.
    pub fn advance(&mut self) -> Result<(), TlsError> {
        self.run(&mut Sink::none(), None).map(drop)
    }

    /// Takes plain bytes, into `spaces` in order.
    ///
    /// # Errors
    /// Why the connection is of no more use.
    pub fn read(&mut self, spaces: [&mut [u8]; 2]) -> Result<Plain, TlsError> {
        let [first, second] = spaces;
        let mut sink = Sink {
            spaces: [first, second],
            got: 0,
        };
        if self.early_from < self.early.len() {
            self.early_from += sink.fill(&self.early[self.early_from..]);
            if self.early_from == self.early.len() {
                self.early.clear();
                self.early_from = 0;
            }
            return Ok(Plain::Bytes(sink.got));
        }
        self.run(&mut sink, None)?;
        Ok(match (sink.got, self.ended) {
            (0, true) => Plain::End,
            (0, false) => Plain::Nothing,
            (got, _) => Plain::Bytes(got),
        })
    }

    /// Encrypts from `pieces`, in order, what there is room for; returns how many plain bytes that were. 0: send first.
    ///
    /// # Errors
    /// Why the connection is of no more use.
    pub fn write(&mut self, pieces: &[IoSlice<'_>]) -> Result<usize, TlsError> {
        let mut stage = std::mem::take(&mut self.stage);
        let mut job = Job {
            pieces,
            at: 0,
            offset: 0,
            taken: 0,
            stage: &mut stage,
        };
        let result = self.run(&mut Sink::none(), Some(&mut job));
        let taken = job.taken;
        self.stage = stage;
        result.map(|()| taken)
    }

    /// Looks at records until there is nothing to do, or `sink` is full.
    fn run(&mut self, sink: &mut Sink<'_>, mut job: Option<&mut Job<'_>>) -> Result<(), TlsError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let received = &self.incoming[self.start..self.end];
        let result = match self.is_handshaking() && received.starts_with(FRAME) {
            true => Err(TlsError::Plaintext),
            false => self.turns(sink, &mut job),
        };
        let is_stuck = self.start == 0 && self.end == self.incoming.len() && sink.got == 0;
        let result = match result {
            Ok(()) if is_stuck && (self.is_handshaking() || !sink.is_full()) => {
                Err(TlsError::Broken(
                    "the peer sent a message longer than any that is expected".to_owned(),
                ))
            }
            result => result,
        };
        if let Err(error) = &result {
            self.failed = Some(error.clone());
            // What rustls has to tell the peer is the first thing that it gives then.
            let _ = self.turn(&mut Sink::none(), &mut None);
        }
        result
    }

    fn turns(
        &mut self,
        sink: &mut Sink<'_>,
        job: &mut Option<&mut Job<'_>>,
    ) -> Result<(), TlsError> {
        loop {
            let turn = self.turn(sink, job)?;
            let full = sink.got > 0 && sink.is_full();
            if turn == Turn::Stop || full && job.is_none() {
                return Ok(());
            }
        }
    }

    fn turn(
        &mut self,
        sink: &mut Sink<'_>,
        job: &mut Option<&mut Job<'_>>,
    ) -> Result<Turn, TlsError> {
        let records = &mut self.incoming[self.start..self.end];
        let mut look = Look {
            sink,
            early: &mut self.early,
            out: &mut self.out,
            ended: &mut self.ended,
            job,
        };
        let (discard, turn) = match &mut self.side {
            Side::Client(side) => look.at(side.process_tls_records(records)),
            Side::Server(side) => look.at(side.process_tls_records(records)),
        };
        self.start += discard;
        turn
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("handshaking", &self.is_handshaking())
            .field("ended", &self.ended)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Again,
    Stop,
}

/// What goes out.
struct Out {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Default for Out {
    fn default() -> Out {
        Out {
            bytes: vec![0; OUTGOING].into_boxed_slice(),
            start: 0,
            end: 0,
        }
    }
}

/// What a look at the records may touch.
struct Look<'a, 's, 'j, 'p> {
    sink: &'a mut Sink<'s>,
    early: &'a mut Vec<u8>,
    out: &'a mut Out,
    ended: &'a mut bool,
    job: &'a mut Option<&'j mut Job<'p>>,
}

impl Look<'_, '_, '_, '_> {
    fn at<D>(&mut self, status: UnbufferedStatus<'_, '_, D>) -> (usize, Result<Turn, TlsError>) {
        let UnbufferedStatus { mut discard, state } = status;
        let turn = match state {
            Err(error) => Err(error.into()),
            Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
                match traffic.next_record() {
                    None => break Ok(Turn::Again),
                    Some(Err(error)) => break Err(error.into()),
                    Some(Ok(record)) => {
                        discard += record.discard;
                        let took = self.sink.fill(record.payload);
                        self.early.extend_from_slice(&record.payload[took..]);
                    }
                }
            },
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                match data.encode(&mut self.out.bytes[self.out.end..]) {
                    Ok(bytes) => {
                        self.out.end += bytes;
                        Ok(Turn::Again)
                    }
                    // There is room again when what waits has been sent.
                    Err(EncodeError::InsufficientSize(_)) if self.out.end > 0 => Ok(Turn::Stop),
                    Err(error) => Err(TlsError::Broken(error.to_string())),
                }
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                // It is in `out`, and the caller sends that.
                data.done();
                Ok(Turn::Again)
            }
            Ok(ConnectionState::WriteTraffic(traffic)) => match self.job.take() {
                Some(job) => job.run(traffic, self.out).map(|()| Turn::Stop),
                None => Ok(Turn::Stop),
            },
            Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                *self.ended = true;
                Ok(Turn::Stop)
            }
            // Early data is not switched on; what a later rustls may add cannot be waited for.
            Ok(_) => Ok(Turn::Stop),
        };
        (discard, turn)
    }
}

/// Where plain bytes go.
struct Sink<'a> {
    spaces: [&'a mut [u8]; 2],
    got: usize,
}

impl Sink<'_> {
    fn none() -> Sink<'static> {
        Sink {
            spaces: [&mut [], &mut []],
            got: 0,
        }
    }

    fn is_full(&self) -> bool {
        self.spaces.iter().all(|space| space.is_empty())
    }

    /// How many of `bytes` found room.
    fn fill(&mut self, bytes: &[u8]) -> usize {
        let mut from = 0;
        for space in &mut self.spaces {
            let count = space.len().min(bytes.len() - from);
            let (here, rest) = std::mem::take(space).split_at_mut(count);
            here.copy_from_slice(&bytes[from..from + count]);
            *space = rest;
            from += count;
        }
        self.got += from;
        from
    }
}

/// Plain bytes to encrypt.
struct Job<'a> {
    pieces: &'a [IoSlice<'a>],
    /// The piece that is next, and how much of it is done.
    at: usize,
    offset: usize,
    taken: usize,
    stage: &'a mut Vec<u8>,
}

impl Job<'_> {
    fn run<D>(&mut self, mut traffic: WriteTraffic<'_, D>, out: &mut Out) -> Result<(), TlsError> {
        loop {
            let room = out.bytes.len() - out.end;
            if room < LEAST_ROOM {
                return Ok(());
            }
            let (plain, at, offset) = self.record(RECORD.min(room - OVERHEAD));
            if plain.is_empty() {
                return Ok(());
            }
            let bytes = traffic.encrypt(plain, &mut out.bytes[out.end..]);
            let count = plain.len();
            out.end += bytes.map_err(|e| TlsError::Broken(e.to_string()))?;
            (self.at, self.offset) = (at, offset);
            self.taken += count;
        }
    }

    /// The next plain bytes, at most `most`: part of one large piece, or small ones put together. With them comes the place
    /// behind them.
    fn record(&mut self, most: usize) -> (&[u8], usize, usize) {
        let (mut at, mut offset) = (self.at, self.offset);
        if let Some(piece) = self.pieces.get(at)
            && piece.len() - offset >= most
        {
            return (&piece[offset..offset + most], at, offset + most);
        }
        self.stage.clear();
        while let Some(piece) = self.pieces.get(at) {
            let count = (piece.len() - offset).min(most - self.stage.len());
            self.stage.extend_from_slice(&piece[offset..offset + count]);
            offset += count;
            if offset < piece.len() {
                break;
            }
            (at, offset) = (at + 1, 0);
        }
        (self.stage, at, offset)
    }
}
