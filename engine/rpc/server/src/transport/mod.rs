//! How a request gets from here to the xstream that serves it.

mod loopback;
mod versions;

use std::sync::Arc;

use daos_errno::Der;
use rpc_wire::Opcode;
use spdk_env::DmaBuf;

pub use loopback::{Loopback, call};
pub use versions::negotiate;

use crate::calls::PendingCall;

/// A way to an engine's xstreams. What a module can do over one it can do over another: the same opcodes, tags,
/// statuses and limits. Own xstream only.
pub trait Transport {
    /// For logs.
    fn name(&self) -> &'static str;

    /// As [`Transport::call`]; an error says that nothing was sent.
    ///
    /// # Errors
    /// OVERFLOW, OVERLOAD_RETRY, SHUTDOWN, UNREACH.
    fn start(
        &self,
        tag: u32,
        opcode: Opcode,
        body: Vec<u8>,
        bulk: Option<(DmaBuf, usize)>,
    ) -> Result<PendingCall, Der>;

    /// Sends a request to the xstream of `tag` (0 = system, 1 + t = main of target t). `bulk` is a buffer and how many
    /// of its bytes count; it moves with the request.
    ///
    /// The future's error says that no answer will come (BAD_TARGET, OVERFLOW, OVERLOAD_RETRY, SHUTDOWN, UNREACH);
    /// what the handler answered, errors included, is in [`crate::Reply::status`].
    fn call(
        &self,
        tag: u32,
        opcode: Opcode,
        body: Vec<u8>,
        bulk: Option<(DmaBuf, usize)>,
    ) -> PendingCall {
        self.start(tag, opcode, body, bulk)
            .unwrap_or_else(PendingCall::failed)
    }

    /// As [`Transport::call`], of a request that offers `data` (its `len` counts) instead of carrying it: the handler takes the parts
    /// that it wants, when it has room for them ([`crate::Request::pull`]). Dropped, the call offers nothing any more.
    ///
    /// NOTSUPPORTED: the other engine is older than offers.
    fn call_offering(
        &self,
        tag: u32,
        opcode: Opcode,
        body: Vec<u8>,
        data: Arc<DmaBuf>,
    ) -> PendingCall;
}
