//! The TCP transport: sockets that are polled by the xstream that owns them.

mod admission;
mod connect;
mod connect_error;
mod handshake;
mod keepalive;
mod listener;
mod offers;
mod out_queue;
mod runner;
mod session;
mod socket;

pub(crate) use connect::Payload;
pub use connect::TcpTransport;
pub use connect_error::ConnectError;
pub(crate) use listener::{ListenerControl, listen};
pub(crate) use runner::adopt;
pub(crate) use session::Session;
