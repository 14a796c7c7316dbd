//! A connection's ULT: reads requests, hands them on, writes answers, and decides when it is over.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use daos_errno::Der;
use rpc_wire::{
    Damage, Decoder, FLAG_ENGINE, FLAG_OFFER, Frame, Header, HeaderError, HelloReply, Offer,
    Opcode, PROTOCOL, Stamp, Step,
};
use spdk_thread::{TaskWaker, sleep_until, yield_now};
use thiserror::Error;

use super::admission::{Link, is_pulled};
use super::session::Session;
use super::socket::{Input, Socket};
use crate::bulk::Bulk;
use crate::endpoint::{Endpoint, Phase};
use crate::home::NewConnection;
use crate::metrics::Hold;
use crate::pull::Offered;
use crate::request::{Info, Peer, Request, Route, Slot};

/// Bytes read ahead of the frame in progress: many small requests per read; at most this much of a bulk is moved.
const READ_AHEAD: usize = 16 << 10;
/// Requests and bytes taken from one connection before others of the xstream get their turn.
const BATCH_REQUESTS: usize = 64;
const BATCH_BYTES: usize = 2 << 20;
/// A buffer that a device or another xstream gives back to a bulk pool wakes nobody: while a connection waits for one
/// the pool is looked at this often.
const POOL_RETRY_NS: u64 = 500_000;

/// Why a connection ended.
#[derive(Debug, Error)]
enum End {
    #[error("the peer closed it")]
    Closed,
    #[error("drained for shutdown")]
    Drained,
    #[error("{0}")]
    Framing(#[from] HeaderError),
    #[error("it sent a response where only requests are expected")]
    NotARequest,
    #[error("it sent data that was not asked for")]
    NotAsked,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("a frame stayed unfinished for longer than frame_timeout")]
    FrameTimeout,
    #[error("nothing of the data that it offered came for longer than frame_timeout")]
    PullTimeout,
    #[error("it did not read its answers for longer than write_timeout, {0} bytes waited")]
    WriteTimeout(usize),
    #[error("{0}")]
    Cut(&'static str),
}

/// Takes over a connection that has said HELLO: answers it and serves it until its end.
pub(crate) fn adopt(endpoint: &Rc<Endpoint>, connection: NewConnection) {
    let NewConnection {
        socket,
        tls,
        may_be_engine,
        peer,
        hello_id,
        permit,
    } = connection;
    if endpoint.phase() != Phase::Serving {
        return;
    }
    let max_pulls = endpoint.fabric().options.max_pulls_per_connection;
    let session = Session::new(peer, may_be_engine, max_pulls);
    let Some(key) = endpoint.add_session(Rc::clone(&session)) else {
        return;
    };
    let fabric = endpoint.fabric();
    let hello = HelloReply {
        protocol: PROTOCOL,
        targets: fabric.targets(),
        max_in_flight: fabric.options.max_in_flight_per_connection as u32,
        max_bulk: fabric.bulk.max_len() as u32,
        max_pulls: max_pulls as u32,
    };
    let header = Header {
        opcode: Opcode::HELLO.0,
        tag: endpoint.tag().unwrap_or(0),
        request_id: hello_id,
        ..Header::default()
    };
    session.queue(header, hello.encode().to_vec(), None);
    let runner = Runner {
        link: Link {
            endpoint: Rc::clone(endpoint),
            session,
            key,
            partial: None,
            held: None,
            _permit: permit,
        },
        socket: Socket::new(endpoint.thread(), socket, tls),
        decoder: Decoder::new(READ_AHEAD),
        ended: false,
        frame_since: None,
        stalled_since: None,
        pull_since: None,
        pull_waits: false,
    };
    if endpoint
        .thread()
        .spawn("rpc connection", runner.run())
        .is_err()
    {
        // The future is dropped and with it the connection; its peer sees it closed.
        tracing::warn!(%peer, xstream = endpoint.name(), "no task for an RPC connection: the xstream is at its bound");
    }
}

struct Runner {
    link: Link,
    socket: Socket,
    decoder: Decoder<Bulk>,
    /// The peer sends no more.
    ended: bool,
    /// Since when the frame in progress is unfinished while we read.
    frame_since: Option<u64>,
    /// Since when answers wait without progress.
    stalled_since: Option<u64>,
    /// Since when nothing came while data was asked for.
    pull_since: Option<u64>,
    /// The next pull waits for memory.
    pull_waits: bool,
}

impl Runner {
    async fn run(mut self) {
        let end = loop {
            match self.turn() {
                Ok(true) => yield_now().await,
                Ok(false) => self.wait().await,
                Err(end) => break end,
            }
        };
        self.log(&end);
    }

    /// One round of writing, reading and dispatching. True: there is more to do at once.
    fn turn(&mut self) -> Result<bool, End> {
        if let Some(why) = self.link.session.is_cut() {
            return Err(End::Cut(why));
        }
        self.start_pulls();
        self.flush()?;
        let draining = self.link.endpoint.phase() != Phase::Serving;
        let more = self.may_read() && self.receive()?;
        // What handlers answered at once leaves in this turn.
        self.flush()?;
        let session = &self.link.session;
        if (draining || self.ended) && session.in_flight.get() == 0 && self.unsent() == 0 {
            return Err(if self.ended {
                End::Closed
            } else {
                End::Drained
            });
        }
        self.check_deadlines()?;
        Ok(more)
    }

    /// Requests in flight may still need data that their connection brings.
    fn may_read(&self) -> bool {
        let serving = self.link.endpoint.phase() == Phase::Serving;
        !self.ended && (serving || self.link.session.pulls.is_under_way())
    }

    fn start_pulls(&mut self) {
        let Link {
            endpoint, session, ..
        } = &self.link;
        let memory = &endpoint.fabric().bulk;
        let is_canceled = |id| session.is_canceled(id);
        let send = |header, body| session.out.push(header, body, None);
        self.pull_waits = session.pulls.start(memory, is_canceled, send);
    }

    /// Bytes of answers that the kernel has not taken.
    fn unsent(&self) -> usize {
        self.link.session.out.bytes() + self.socket.unsent()
    }

    fn flush(&mut self) -> Result<(), End> {
        let endpoint = &self.link.endpoint;
        let sent = self
            .link
            .session
            .out
            .flush(&self.socket, |body| endpoint.budget.recycle(body))?;
        if sent > 0 {
            endpoint.metrics.sent_bytes.increment(sent as u64);
        }
        let unsent = self.unsent();
        if sent > 0 || unsent == 0 {
            self.stalled_since = None;
        }
        if unsent > 0 && self.stalled_since.is_none() {
            self.stalled_since = Some(self.link.endpoint.now());
        }
        Ok(())
    }

    /// Decodes and reads until there is nothing, no room, or enough for one turn (true).
    fn receive(&mut self) -> Result<bool, End> {
        let (mut requests, mut bytes) = (0, 0);
        self.link.held = None;
        self.link.session.wants_room.set(false);
        loop {
            match self.decoder.next(&mut self.link)? {
                Step::Frame(frame) => {
                    self.frame_since = None;
                    self.dispatch(frame)?;
                    requests += 1;
                    if requests >= BATCH_REQUESTS {
                        return Ok(true);
                    }
                }
                Step::Skipped(header) => self.refuse(header)?,
                Step::Held => return Ok(false),
                Step::NeedBytes if bytes >= BATCH_BYTES => return Ok(true),
                Step::NeedBytes => match self.socket.read(self.decoder.spaces())? {
                    Input::Nothing => return Ok(false),
                    Input::Bytes(got) => {
                        self.decoder.filled(got);
                        bytes += got;
                        self.pull_since = None;
                        self.link
                            .endpoint
                            .metrics
                            .received_bytes
                            .increment(got as u64);
                    }
                    Input::End => {
                        // Half a frame is of no use; what is in flight is still answered.
                        self.ended = true;
                        self.link.session.pulls.fail_all();
                        return Ok(false);
                    }
                },
            }
        }
    }

    /// A request went by for which there was no room while data was on its way.
    fn refuse(&mut self, header: Header) -> Result<(), End> {
        let Link {
            endpoint,
            session,
            partial,
            ..
        } = &mut self.link;
        if let Some(charge) = partial.take() {
            endpoint.budget.release(charge);
        }
        if header.is_response() {
            return Err(End::NotAsked);
        }
        let der = match endpoint.phase() {
            Phase::Serving => Der::OVERLOAD_RETRY,
            Phase::Draining | Phase::Closed => Der::SHUTDOWN,
        };
        let answer = Header {
            opcode: header.opcode,
            tag: header.tag,
            request_id: header.request_id,
            status: der.neg(),
            ..Header::default()
        };
        session.queue(answer, Vec::new(), None);
        Ok(())
    }

    /// Data that was asked for.
    fn pulled(&self, frame: Frame<Bulk>) -> Result<(), End> {
        let session = &self.link.session;
        match session.pulls.finish(frame) {
            true => {
                // There is room for the next one.
                session.bell.ring();
                Ok(())
            }
            false => Err(End::NotAsked),
        }
    }

    fn dispatch(&mut self, frame: Frame<Bulk>) -> Result<(), End> {
        if is_pulled(&frame.header) {
            return self.pulled(frame);
        }
        let Frame {
            header,
            mut body,
            bulk,
            damage,
        } = frame;
        let Link {
            endpoint,
            session,
            key,
            partial,
            ..
        } = &mut self.link;
        let charge = partial.take();
        if header.is_response() || (header.opcode == Opcode::CANCEL.0 && header.body_len > 0) {
            charge
                .into_iter()
                .for_each(|charge| endpoint.budget.release(charge));
            return Err(End::NotARequest);
        }
        if header.opcode == Opcode::CANCEL.0 {
            if session.cancel(header.request_id) {
                endpoint.canceled(*key, header.request_id);
            }
            return Ok(());
        }
        let charge = charge.unwrap_or(0);
        session.in_flight.set(session.in_flight.get() + 1);
        endpoint
            .metrics
            .in_flight
            .set(endpoint.budget.requests() as f64);
        let from_engine = header.flags & FLAG_ENGINE != 0 && damage.is_none();
        let stamp = match from_engine {
            true => Stamp::take(&mut body),
            false => None,
        };
        let is_offering = header.flags & FLAG_OFFER != 0 && damage.is_none();
        let offer = match is_offering {
            true => Offer::take(&mut body),
            false => None,
        };
        let info = described(endpoint, session, &header, stamp, charge);
        let route = Route {
            home: endpoint.home(),
            slot: Slot::Session(*key),
        };
        let offered = offer.map(|offer| Offered::There(offer.bytes));
        let request = Request::new(info, body, bulk, route).offering(offered);
        match damage {
            None if from_engine && stamp.is_none() => request.reply_error(Der::PROTO),
            None if is_offering && offer.is_none() => request.reply_error(Der::PROTO),
            None if from_engine && !session.may_be_engine => request.reply_error(Der::NO_PERM),
            None => endpoint.admit(request),
            Some(damage) => damaged(endpoint, request, damage),
        }
        Ok(())
    }

    fn check_deadlines(&mut self) -> Result<(), End> {
        let now = self.link.endpoint.now();
        // Time in which we do not read is not the peer's.
        if !self.decoder.is_mid_frame() || self.link.held.is_some() || self.ended {
            self.frame_since = None;
        } else if self.frame_since.is_none() {
            self.frame_since = Some(now);
        }
        let options = &self.link.endpoint.fabric().options;
        if passed(self.frame_since, options.frame_timeout, now) {
            return Err(End::FrameTimeout);
        }
        if !self.link.session.pulls.is_under_way() || self.link.held.is_some() {
            self.pull_since = None;
        } else if self.pull_since.is_none() {
            self.pull_since = Some(now);
        }
        if passed(self.pull_since, options.frame_timeout, now) {
            return Err(End::PullTimeout);
        }
        if passed(self.stalled_since, options.write_timeout, now) {
            return Err(End::WriteTimeout(self.unsent()));
        }
        Ok(())
    }

    /// When to look again though nothing happened.
    fn next_look(&self) -> Option<u64> {
        let options = &self.link.endpoint.fabric().options;
        let frame = self
            .frame_since
            .map(|since| since.saturating_add(nanos(options.frame_timeout)));
        let write = self
            .stalled_since
            .map(|since| since.saturating_add(nanos(options.write_timeout)));
        let pull = self
            .pull_since
            .map(|since| since.saturating_add(nanos(options.frame_timeout)));
        let pool = (self.pull_waits || self.link.held == Some(Hold::BulkPool))
            .then(|| self.link.endpoint.now() + POOL_RETRY_NS);
        [frame, write, pull, pool].into_iter().flatten().min()
    }

    /// Waits for the socket, an answer to write, room, or a deadline.
    async fn wait(&self) {
        let mut timer = self.next_look().map(sleep_until);
        let session = &self.link.session;
        let read = self.link.held.is_none() && self.may_read();
        poll_fn(|cx| {
            if session.bell.park(TaskWaker::from_cx(cx, "rpc peer")) {
                return Poll::Ready(());
            }
            if self
                .socket
                .poll_ready(cx, read, session.out.bytes() > 0)
                .is_ready()
            {
                return Poll::Ready(());
            }
            match &mut timer {
                Some(timer) => Pin::new(timer).poll(cx),
                None => Poll::Pending,
            }
        })
        .await;
    }

    fn log(&self, end: &End) {
        let Link {
            endpoint, session, ..
        } = &self.link;
        let (peer, xstream, in_flight) = (session.peer, endpoint.name(), session.in_flight.get());
        match end {
            End::Closed | End::Drained => {
                tracing::debug!(%peer, xstream, "RPC connection closed: {end}")
            }
            _ => {
                if let Some(left_out) = endpoint.log_gate.pass(endpoint.now()) {
                    tracing::warn!(%peer, xstream, in_flight, left_out, "RPC connection closed: {end}");
                }
            }
        }
    }
}

fn damaged(endpoint: &Endpoint, request: Request, damage: Damage) {
    endpoint.metrics.damaged.increment(1);
    if let Some(left_out) = endpoint.log_gate.pass(endpoint.now()) {
        let part = match damage {
            Damage::Body => "body",
            Damage::Bulk => "bulk",
        };
        tracing::warn!(
            ?request,
            left_out,
            "the {part} of a request does not match its checksum"
        );
    }
    request.reply_error(Der::CSUM);
}

fn described(
    endpoint: &Endpoint,
    session: &Session,
    header: &Header,
    stamp: Option<Stamp>,
    charge: u32,
) -> Info {
    Info {
        opcode: header.opcode(),
        tag: header.tag,
        request_id: header.request_id,
        trace: match stamp {
            Some(stamp) if stamp.trace != 0 => stamp.trace,
            _ => endpoint.new_trace(),
        },
        map_version: header.map_version,
        peer: Peer::Tcp(session.peer),
        arrived: endpoint.now(),
        enqueue_id: header.enqueue_id,
        timeout_ms: header.after_ms,
        stamp,
        charge,
    }
}

fn nanos(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn passed(since: Option<u64>, limit: std::time::Duration, now: u64) -> bool {
    since.is_some_and(|since| now.saturating_sub(since) >= nanos(limit))
}
