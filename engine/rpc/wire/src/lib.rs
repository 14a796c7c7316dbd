//! The data RPC on the wire, and a blocking client.
//!
//! A frame is a fixed 64-byte header ([`Header`], little-endian, its own CRC-32C checked before anything else in it is
//! believed), then the body (protobuf of the module, at most [`MAX_BODY`]), then the bulk (raw bytes, at most
//! [`MAX_BULK`]). Requests carry an [`Opcode`] (module id, protocol version, operation: DAOS `src/include/daos/rpc.h`)
//! and the tag of the xstream that shall serve them; responses carry the request's id, in any order.
//! A connection starts with HELLO ([`HelloRequest`], [`HelloReply`]).
//!
//! A leaf: it knows no xstream and no reactor, so tools that only talk to an engine stay light. The engine's side is
//! `engine_rpc`; both sides share [`Decoder`] (bytes in) and [`Outgoing`] (bytes out), which do no I/O themselves.
//!
//! Thread rule: everything here is plain data; [`Client`] blocks its caller and must never be used on an xstream.
//!
//! | module | concept |
//! |---|---|
//! | `opcode` | module id, version and operation in 32 bits |
//! | `header` | the 64 bytes, limits, what can be wrong with them |
//! | `hello` | the first exchange on a connection |
//! | `stamp` | what an engine adds to its calls to others of its group |
//! | `offer` | bulk data that stays with the requester until it is asked for |
//! | `versions` | which protocol versions an engine serves |
//! | `decoder` | bytes to frames, incrementally, into the caller's buffers |
//! | `outgoing` | one frame on its way out, without copying it together |
//! | `channel` | a socket, with or without TLS on it |
//! | `client`, `client_error` | the blocking, pipelined client |

mod channel;
mod client;
mod client_error;
mod decoder;
mod header;
mod hello;
mod offer;
mod opcode;
mod outgoing;
mod stamp;
mod versions;

pub use client::{Client, ClientOptions, Reply, Retry};
pub use client_error::ClientError;
pub use decoder::{Buffers, Damage, Decoder, Frame, Grant, Step};
pub use header::{
    FLAG_ENGINE, FLAG_OFFER, FLAG_RESPONSE, HEADER_LEN, HEADER_VERSION, Header, HeaderError, MAGIC,
    MAX_BODY, MAX_BULK,
};
pub use hello::{HelloReply, HelloRequest, PROTOCOL};
pub use offer::{Offer, Pull};
pub use opcode::Opcode;
pub use outgoing::Outgoing;
pub use stamp::Stamp;
pub use versions::Versions;
