//! Inside one engine: message rings between xstreams. Buffers move; nothing is serialised.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use daos_errno::Der;
use rpc_wire::{MAX_BODY, MAX_BULK, Opcode};
use spdk_env::DmaBuf;

use crate::bulk::Bulk;
use crate::calls::PendingCall;
use crate::endpoint::{self, Endpoint};
use crate::pull::Offered;
use crate::request::{Info, Peer, Request, Route, Slot};
use crate::transport::Transport;

/// The way to the xstreams of this engine, from the xstream it was made on.
pub struct Loopback {
    endpoint: Rc<Endpoint>,
}

impl Loopback {
    /// The current xstream's; UNINIT where no RPC service runs, or off any xstream.
    pub fn current() -> Result<Loopback, Der> {
        endpoint::current()
            .map(|endpoint| Loopback { endpoint })
            .ok_or(Der::UNINIT)
    }
}

impl fmt::Debug for Loopback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Loopback(from {})", self.endpoint.name())
    }
}

impl Transport for Loopback {
    fn name(&self) -> &'static str {
        "loopback"
    }

    fn start(
        &self,
        tag: u32,
        opcode: Opcode,
        body: Vec<u8>,
        bulk: Option<(DmaBuf, usize)>,
    ) -> Result<PendingCall, Der> {
        let bulk_len = bulk.as_ref().map_or(0, |(_, len)| *len);
        if body.len() > MAX_BODY
            || bulk_len > MAX_BULK
            || bulk.as_ref().is_some_and(|(b, len)| *len > b.capacity())
        {
            return Err(Der::OVERFLOW);
        }
        let bulk = bulk
            .filter(|(_, len)| *len > 0)
            .map(|(buf, len)| Bulk::new(buf, len));
        self.begin((tag, opcode), body, bulk, None)
    }

    fn call_offering(
        &self,
        tag: u32,
        opcode: Opcode,
        body: Vec<u8>,
        data: Arc<DmaBuf>,
    ) -> PendingCall {
        if body.len() > MAX_BODY {
            return PendingCall::failed(Der::OVERFLOW);
        }
        self.begin((tag, opcode), body, None, Some(Offered::Here(data)))
            .unwrap_or_else(PendingCall::failed)
    }
}

impl Loopback {
    fn begin(
        &self,
        (tag, opcode): (u32, Opcode),
        body: Vec<u8>,
        bulk: Option<Bulk>,
        offered: Option<Offered>,
    ) -> Result<PendingCall, Der> {
        let endpoint = &self.endpoint;
        let key = endpoint.open_call()?;
        let info = Info {
            opcode,
            tag,
            request_id: endpoint.next_call_id(),
            trace: match spdk_thread::trace() {
                0 => endpoint.new_trace(),
                trace => trace,
            },
            map_version: 0,
            peer: Peer::Local(endpoint.tag()),
            arrived: endpoint.now(),
            enqueue_id: 0,
            timeout_ms: 0,
            stamp: None,
            charge: 0,
        };
        let pending = PendingCall::waiting(Rc::clone(endpoint.calls()), key);
        let route = Route {
            home: endpoint.home(),
            slot: Slot::Call(key),
        };
        endpoint.route(Request::new(info, body, bulk, route).offering(offered));
        Ok(pending)
    }
}

/// Calls a handler of this engine from the current xstream: [`Loopback::current`] and [`Transport::call`] in one.
pub fn call(
    tag: u32,
    opcode: impl Into<Opcode>,
    body: Vec<u8>,
    bulk: Option<(DmaBuf, usize)>,
) -> PendingCall {
    match Loopback::current() {
        Ok(loopback) => loopback.call(tag, opcode.into(), body, bulk),
        Err(der) => PendingCall::failed(der),
    }
}
