//! The TCP transport: sockets that are polled by the xstream that owns them.

mod connect;
mod handshake;
mod keepalive;
mod listener;
mod out_queue;
mod runner;
mod session;
mod socket;

pub use connect::{ConnectError, TcpTransport};
pub(crate) use listener::{ListenerControl, listen};
pub(crate) use runner::adopt;
pub(crate) use session::Session;
