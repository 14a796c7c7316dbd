//! The data RPC of an engine: handlers registered by modules, requests dispatched to the xstream that owns the target.
//!
//! [`Registry`] maps (module id, version, operation) to an [`RpcHandler`]. [`RpcServer`] makes every xstream an endpoint:
//! it polls its own sockets, serves requests for its tag and passes others on over message rings. A [`Request`] is
//! answered once, now or later, in any order. Modules of one engine call each other with [`call`]; [`Transport`] is
//! what a caller sees whatever carries the request, and [`Ranks`] finds the other engines of a group. Frames, limits and the blocking client are `rpc_wire`'s.
//!
//! Below: `rpc_wire`, `spdk_thread` (tasks, watched descriptors), `spdk_env` (DMA buffers). Above: `engine_host`, which
//! lends all this to modules.
//!
//! Thread rule: [`Registry`], [`Request`] and handlers are `Send`; calls and everything inside belong to one xstream;
//! [`RpcServer`] blocks and lives on a control thread. Nothing on the data path allocates (memory of a body carries the
//! answer), locks or waits; every queue is bounded, and [`Options`] says what happens at each bound.
//!
//! | module | concept |
//! |---|---|
//! | `registry`, `request` | handlers by opcode; a request and its one answer |
//! | `server`, `drain` | start, drain, close |
//! | `endpoint`, `home`, `fabric` | one xstream's side; what others reach of it; what all share |
//! | `tcp` | sockets: listener, handshake, connection in, connection out |
//! | `pull` | data that requesters offer and handlers take in parts |
//! | `queue` | requests that wait for the scheduler |
//! | `security` | which connections are encrypted |
//! | `group` | other engines, by rank |
//! | `transport`, `calls` | calls from here, and their waiting answers |
//! | `options`, `budget`, `bulk`, `table`, `bell` | bounds and memory |
//! | `metrics`, `slow`, `log_gate` | what operators see |

mod bell;
mod budget;
mod bulk;
mod calls;
mod drain;
mod endpoint;
mod fabric;
mod group;
mod home;
mod log_gate;
mod metrics;
mod options;
mod pull;
mod queue;
mod registry;
mod request;
mod security;
mod server;
mod slow;
mod table;
mod tcp;
mod transport;

pub use bulk::BulkPools;
pub use calls::{PendingCall, Reply};
pub use group::{
    Again, Collective, GROUP_MODULE, GROUP_TELL, Group, Heartbeat, Member, Membership, Part,
    Presence, RankCall, Ranks, Seen, register,
};
pub use options::{BulkClass, Options, SlowHook};
pub use pull::PullFuture;
pub use registry::{
    Gather, HandlerEntry, MAX_MODULE_ID, MAX_VERSIONS, ProtocolInfo, RegisterError, Registry,
    RpcHandler,
};
pub use request::{Peer, Request};
pub use rpc_wire::{Opcode, Stamp};
pub use security::Security;
pub use server::{RpcServer, Seat, StartError};
pub use slow::SlowRequest;
pub use tcp::{ConnectError, TcpTransport};
pub use transport::{Loopback, Transport, call, negotiate};
