//! Client of the object module: pools, containers, put and get of large objects.
//!
//! [`Engine`] connects to an engine's RPC address, [`Pool`] and [`Container`] are found by uuid or label, and a container
//! puts from any `Read`, gets into any `Write`, lists, removes and stats objects. Large objects move in pieces of 1 MiB,
//! eight at a time, over one connection per target. Checksums are computed here before the data leaves and verified here
//! when it comes back. Replacing an object is atomic: until a put returns, readers see the old one, whole.
//!
//! ```no_run
//! # fn main() -> Result<(), obj_client::ObjError> {
//! use obj_client::{Engine, GetOptions, PutOptions};
//! let engine = Engine::connect("127.0.0.1:7800")?;
//! let cont = engine.pool("scratch")?.container("photos")?;
//! cont.put("cat.jpg", &mut std::io::Cursor::new(b"..."), PutOptions::default())?;
//! cont.get("cat.jpg", &mut std::io::stdout(), GetOptions::default())?;
//! # Ok(())
//! # }
//! ```
//!
//! Neighbours: `obj_proto` (messages, placement), `rpc_wire` (connections). Thread rule: blocking, for tools and threads of
//! their own, never on an xstream. Handles are `Send + Sync`; those made from one [`Engine`] take turns on its connections,
//! so threads that shall work in parallel connect each for themselves.

mod container;
mod engine;
mod error;
mod get;
mod info;
mod links;
mod put;

pub use container::{Container, Listing};
pub use engine::{Engine, Pool};
pub use error::ObjError;
pub use get::GetOptions;
pub use info::{
    ContainerInfo, ContainerProperties, ObjectInfo, PoolInfo, PoolMap, PoolStatus, Progress,
    TargetStatus,
};
pub use put::PutOptions;
