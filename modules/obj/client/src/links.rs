//! Connections: one per xstream that is talked to, opened when first needed.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use daos_errno::Der;
use obj_proto::{Op, wire};
use prost::Message;
use rpc_tls::Identity;
use rpc_wire::{Client, ClientError, ClientOptions, Reply};

use crate::ObjError;

/// How long an overloaded engine is asked again.
const PATIENCE: Duration = Duration::from_secs(30);
/// First pause at least, and longest, without jitter.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(4));

/// What the engine advises, more with each attempt, and not the same as everybody else: half to one and a half of it.
fn pause(advice: Duration, attempt: u32, random: u32) -> Duration {
    let least = PAUSES.0.saturating_mul(1 << attempt.min(10));
    let pause = advice.max(least).min(PAUSES.1);
    pause / 2 + pause.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// Different in each process and at each call.
fn random() -> u32 {
    RandomState::new().hash_one(Instant::now()) as u32
}

/// The connections of one engine.
pub(crate) struct Links {
    addr: String,
    options: ClientOptions,
    open: BTreeMap<u32, Client>,
}

/// What a successful reply carried.
pub(crate) struct Answer<M> {
    pub(crate) message: M,
    pub(crate) bulk: Vec<u8>,
}

impl Links {
    pub(crate) fn new(addr: &str, identity: Option<Identity>) -> Self {
        Self {
            addr: addr.to_owned(),
            options: ClientOptions {
                tls: identity,
                ..ClientOptions::default()
            },
            open: BTreeMap::new(),
        }
    }

    /// The connection to an xstream: 0 the system's, 1 + t that of target t.
    pub(crate) fn to(&mut self, tag: u32) -> Result<&mut Client, ObjError> {
        if !self.open.contains_key(&tag) {
            let client = Client::connect_with(self.addr.as_str(), tag, self.options.clone())?;
            self.open.insert(tag, client);
        }
        self.open
            .get_mut(&tag)
            .ok_or(ObjError::Transport(ClientError::NothingOutstanding))
    }

    /// Forgets a connection that is of no more use, or that has replies outstanding which nobody wants.
    pub(crate) fn drop_link(&mut self, tag: u32) {
        self.open.remove(&tag);
    }

    /// One request and its reply. A connection that turns out to have been closed since its last use (the engine was
    /// restarted) is opened again, once: the request has not been sent then, or was not answered and is safe to repeat
    /// when `again` says so.
    pub(crate) fn call<M: Message + Default>(
        &mut self,
        tag: u32,
        op: Op,
        body: &impl Message,
        bulk: &[u8],
        again: bool,
    ) -> Result<Answer<M>, ObjError> {
        let body = body.encode_to_vec();
        let reused = self.open.contains_key(&tag);
        let bulk = (!bulk.is_empty()).then_some(bulk);
        let mut reply = self.patient(tag, op, &body, bulk)?;
        if reused
            && again
            && matches!(
                reply,
                Err(ClientError::Closed { .. } | ClientError::Io { .. })
            )
        {
            self.drop_link(tag);
            reply = self.patient(tag, op, &body, bulk)?;
        }
        if reply
            .as_ref()
            .is_err_and(|e| !matches!(e, ClientError::Damaged { .. } | ClientError::TooLong { .. }))
        {
            self.drop_link(tag);
        }
        open_reply(op, reply?)
    }

    /// One request, again and again while the engine is overloaded and says when to come back; with its advice in hand
    /// it keeps its place. At last the refusal is the reply.
    fn patient(
        &mut self,
        tag: u32,
        op: Op,
        body: &[u8],
        bulk: Option<&[u8]>,
    ) -> Result<Result<Reply, ClientError>, ObjError> {
        let began = Instant::now();
        let (mut enqueue_id, mut attempt) = (0, 0);
        loop {
            let reply = self
                .to(tag)?
                .call_again(op.opcode(), body, bulk, enqueue_id);
            let retry = reply.as_ref().ok().and_then(|reply| reply.retry);
            let Some(retry) = retry.filter(|_| began.elapsed() < PATIENCE) else {
                return Ok(reply);
            };
            enqueue_id = retry.enqueue_id;
            std::thread::sleep(pause(retry.after, attempt, random()));
            attempt += 1;
        }
    }

    /// Sends a request whose reply [`Links::recv`] gives later.
    pub(crate) fn send(
        &mut self,
        tag: u32,
        op: Op,
        body: &impl Message,
        bulk: &[u8],
    ) -> Result<u64, ObjError> {
        let bulk = (!bulk.is_empty()).then_some(bulk);
        Ok(self
            .to(tag)?
            .send(op.opcode(), &body.encode_to_vec(), bulk)?)
    }

    /// The next reply of a connection: the request's id, and the reply or what is wrong with it.
    pub(crate) fn recv(&mut self, tag: u32) -> Result<(u64, Result<Reply, ClientError>), ObjError> {
        match self.to(tag)?.recv() {
            Ok((id, reply)) => Ok((id, Ok(reply))),
            Err(error @ ClientError::Damaged { id, .. }) => Ok((id, Err(error))),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives the memory of a bulk back to the connection that it came from.
    pub(crate) fn recycle(&mut self, tag: u32, bulk: Vec<u8>) {
        if let Some(client) = self.open.get_mut(&tag) {
            client.recycle(Reply {
                status: 0,
                body: Vec::new(),
                bulk: Some(bulk),
                ..Reply::default()
            });
        }
    }
}

/// The message and bulk of a reply, or the error that it carries.
pub(crate) fn open_reply<M: Message + Default>(
    op: Op,
    reply: Reply,
) -> Result<Answer<M>, ObjError> {
    if let Err(der) = Der::check(reply.status) {
        let said = wire::Error::decode(&*reply.body)
            .unwrap_or_default()
            .message;
        let silent = || format!("{} was refused: {}", op.name(), der.text());
        let message = if said.is_empty() { silent() } else { said };
        return Err(ObjError::Engine { der, message });
    }
    let message = M::decode(&*reply.body).map_err(|e| ObjError::Answer {
        op: op.name(),
        why: e.to_string(),
    })?;
    Ok(Answer {
        message,
        bulk: reply.bulk.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rpc_wire::{FLAG_RESPONSE, HEADER_LEN, Header, HelloReply, PROTOCOL};
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn pauses_follow_the_advice_grow_and_differ() {
        let ms = Duration::from_millis;
        assert_eq!(pause(ms(100), 0, 0), ms(50));
        assert_eq!(pause(ms(100), 0, u32::MAX), ms(150));
        assert_eq!(pause(ms(1), 0, 0), ms(5));
        assert_eq!(pause(ms(1), 5, 0), ms(160));
        assert_eq!(pause(Duration::MAX, u32::MAX, 0), ms(2_000));
        assert_ne!((random(), random()), (random(), random()));
    }

    fn read(socket: &mut TcpStream) -> Header {
        let mut head = [0; HEADER_LEN];
        socket.read_exact(&mut head).unwrap();
        let header = Header::decode(&head).unwrap();
        let mut rest = vec![0; (header.body_len + header.bulk_len) as usize];
        socket.read_exact(&mut rest).unwrap();
        header
    }

    fn answer(socket: &mut TcpStream, mut header: Header, body: &[u8]) {
        header.flags = FLAG_RESPONSE;
        let head = header.seal(body, &[]);
        socket.write_all(&head).unwrap();
        socket.write_all(body).unwrap();
    }

    #[test]
    fn a_refused_request_comes_back_with_its_id() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let engine = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let hello = read(&mut socket);
            let said = HelloReply {
                protocol: PROTOCOL,
                targets: 1,
                max_in_flight: 8,
                max_bulk: 0,
                max_pulls: 0,
            };
            answer(&mut socket, hello, &said.encode());
            let mut ids = Vec::new();
            for enqueue_id in [77, 78, 0] {
                let asked = read(&mut socket);
                assert_eq!(asked.after_ms, 30_000, "it says when it gives up");
                ids.push(asked.enqueue_id);
                let refused = enqueue_id != 0;
                let header = Header {
                    status: if refused {
                        Der::OVERLOAD_RETRY.neg()
                    } else {
                        0
                    },
                    enqueue_id,
                    after_ms: u32::from(refused),
                    ..asked
                };
                answer(&mut socket, header, &[]);
            }
            ids
        });
        let mut links = Links::new(&addr, None);
        let req = wire::PoolListReq {};
        let rep = links.call::<wire::PoolListRep>(0, Op::PoolList, &req, &[], false);
        assert!(rep.is_ok_and(|rep| rep.message.pools.is_empty()));
        assert_eq!(engine.join().unwrap(), [0, 77, 78]);
    }
}
