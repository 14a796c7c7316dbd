//! The TCP transport: sockets that are polled by the xstream that owns them.

mod handshake;
mod listener;
mod runner;
mod session;
mod socket;

pub(crate) use listener::{ListenerControl, listen};
pub(crate) use runner::adopt;
pub(crate) use session::Session;
