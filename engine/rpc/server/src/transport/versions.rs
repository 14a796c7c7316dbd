//! Which protocol version of a module to speak with another engine.

use daos_errno::Der;
use rpc_wire::{Opcode, Versions};

use crate::transport::Transport;

/// The highest of `known` versions of a module's protocol that the engine at the other end serves as well. Ask once per
/// connection: modules do not change while they are served.
///
/// # Errors
/// UNREG: it has no such module. PROTO: no version in common. Otherwise as [`Transport::call`].
pub async fn negotiate<T: Transport>(
    via: &T,
    tag: u32,
    module: u8,
    known: &[u8],
) -> Result<u8, Der> {
    let answer = via.call(tag, Opcode::VERSIONS, Versions::ask(module), None);
    Versions(answer.await?.into_result()?.body).highest(known)
}
