//! dRPC on the wire: messages, chunk framing, blocking client.
//!
//! dRPC is DAOS's control channel: protobuf [`Call`] and [`Response`] over a local `SOCK_SEQPACKET` socket, cut into packets
//! of at most 128 KiB with a 24-byte header each (DAOS `src/common/drpc.c`, `src/control/drpc/drpc_chunk.go`). Byte for byte
//! what DAOS peers send and expect; message packages and field numbers are theirs.
//!
//! A leaf: tools and tests speak dRPC with this crate alone. The server is `engine_drpc`.
//!
//! Key types:
//! - [`Chunker`]: one message out, packet by packet; [`Assembler`]: packets in, one message out, every field checked;
//! - [`Framing`]: DAOS's chunk headers, or the older framing without (one packet is one message), told by the first packet;
//! - [`Client`]: a connection that calls and waits; [`control::ControlServer`]: what an engine asks its control server;
//! - [`modules`], [`methods`]: every id by name; [`drpc`], [`mgmt`], [`ctl`], [`srv`], [`shared`], [`keel`]: the messages.
//!
//! Thread rule: none, no type here knows a reactor. `Client` blocks its caller: never use it on an xstream that serves.
//!
//! Modules: `messages` (generated types), `header` (the 24 bytes), `recognise` (which framing), `chunker`, `assembler`,
//! `frame_error`, `packet_socket` (one packet in or out), `client`, `client_error`, `control`, `discovery` (the engines of
//! this machine).

mod assembler;
mod chunker;
mod client;
mod client_error;
pub mod control;
pub mod discovery;
mod frame_error;
mod header;
mod messages;
pub mod methods;
pub mod modules;
pub mod packet_socket;
mod recognise;

pub use assembler::{Assembler, Progress};
pub use chunker::{Chunker, Packet};
pub use client::{Client, ClientOptions};
pub use client_error::ClientError;
pub use frame_error::FrameError;
pub use header::{ChunkHeader, HEADER_LEN, MAX_BODY, MAX_CHUNK_DATA, MAX_MESSAGE, MAX_PACKET};
pub use messages::drpc::{Call, Response, Status};
pub use messages::{ctl, drpc, keel, mgmt, shared, srv};
pub use prost::Message;
pub use recognise::{Framing, recognise};
