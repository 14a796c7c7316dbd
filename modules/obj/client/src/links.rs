//! Connections: one per xstream that is talked to, opened when first needed.

use std::collections::BTreeMap;

use daos_errno::Der;
use obj_proto::{Op, wire};
use prost::Message;
use rpc_wire::{Client, ClientError, Reply};

use crate::ObjError;

/// The connections of one engine.
pub(crate) struct Links {
    addr: String,
    open: BTreeMap<u32, Client>,
}

/// What a successful reply carried.
pub(crate) struct Answer<M> {
    pub(crate) message: M,
    pub(crate) bulk: Vec<u8>,
}

impl Links {
    pub(crate) fn new(addr: &str) -> Self {
        Self {
            addr: addr.to_owned(),
            open: BTreeMap::new(),
        }
    }

    /// The connection to an xstream: 0 the system's, 1 + t that of target t.
    pub(crate) fn to(&mut self, tag: u32) -> Result<&mut Client, ObjError> {
        if !self.open.contains_key(&tag) {
            let client = Client::connect(self.addr.as_str(), tag)?;
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
        let mut reply = self.to(tag)?.call(op.opcode(), &body, bulk);
        if reused
            && again
            && matches!(
                reply,
                Err(ClientError::Closed { .. } | ClientError::Io { .. })
            )
        {
            self.drop_link(tag);
            reply = self.to(tag)?.call(op.opcode(), &body, bulk);
        }
        if reply
            .as_ref()
            .is_err_and(|e| !matches!(e, ClientError::Damaged { .. } | ClientError::TooLong { .. }))
        {
            self.drop_link(tag);
        }
        open_reply(op, reply?)
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
