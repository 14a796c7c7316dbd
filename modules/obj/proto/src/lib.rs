//! What the object module and its clients say to each other: opcodes, messages, placement.
//!
//! - [`Op`]: the operations, with their opcode on the wire and the xstream that serves them;
//! - [`wire`]: the protobuf messages, generated from `proto/obj.proto`, where each is documented;
//! - [`Placement`]: object name and piece index to target, the same on both sides;
//! - [`ObjectName`] and [`check_label`]: what names may be;
//! - [`csums`] and [`verify`]: end-to-end checksums of pieces, one CRC-32C per [`CSUM_CHUNK`].
//!
//! Neighbours: `obj_client` speaks it over `rpc_wire`, the `obj` module answers it, `mgmt` calls its pool operations
//! inside the engine. A leaf: pure functions and data, any thread.

mod csum;
mod name;
mod opcode;
mod placement;

pub use csum::{CSUM_CHUNK, ChunkMismatch, csums, verify};
pub use name::{LABEL_MAX, NAME_MAX, NameError, ObjectName, check_label};
pub use opcode::{MODULE_ID, Op, PROTOCOL_VERSION};
pub use placement::{OBJECT_MAX, PIECE_SIZE, Placement, main_tag, pieces_of};

/// Bytes of a handle of a pool or a container: the pool's uuid and a uuid of its own. A request names a container by its uuid or by a handle.
pub const HANDLE_LEN: usize = 32;

/// The protobuf messages. `proto/obj.proto` documents each field.
#[allow(
    missing_docs,
    reason = "generated; the documentation is in proto/obj.proto"
)]
#[allow(clippy::all, reason = "generated")]
pub mod wire {
    include!(concat!(env!("OUT_DIR"), "/keel.obj.rs"));
}
