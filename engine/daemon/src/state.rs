//! What the engine knows of itself: shared by the start-up, the control channel and the shutdown.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use drpc_wire::keel::{self, Phase};
use engine_config::Config;
use engine_host::Host;
use engine_iv_service::Incast;
use engine_loader::ModuleInfo;
use engine_rpc::{Heartbeat, Membership, Security};
use engine_telemetry::log::LogControl;
use engine_watchdog::View;
use engine_xstream::Xstreams;
use spdk_reactor::ReactorHandle;
use uuid::Uuid;

use crate::devices::Devices;
use crate::events::Events;
use crate::group::GroupKeeper;

/// Where the engine is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    /// Not all parts run yet.
    Starting,
    /// Everything runs; the control server has not said SET_UP, or a module's setup failed.
    AwaitingSetup,
    /// Open for business.
    Ready,
    /// On its way down.
    Stopping,
}

impl State {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::AwaitingSetup => "awaiting setup",
            State::Ready => "ready",
            State::Stopping => "stopping",
        }
    }
}

/// A rank that nobody has set yet (DAOS: `CRT_NO_RANK`).
pub(crate) const NO_RANK: u32 = u32::MAX;

/// Known once the xstreams run.
pub(crate) struct Running {
    pub(crate) xstreams: Xstreams,
    pub(crate) reactors: Vec<ReactorHandle>,
    pub(crate) view: View,
    pub(crate) host: Host,
    pub(crate) rpc_address: String,
    pub(crate) metrics_address: String,
    /// Who of the group is there; `None`: this engine is alone.
    pub(crate) heartbeat: Option<Heartbeat>,
}

/// A loaded module for listings.
pub(crate) struct ModuleEntry {
    pub(crate) info: ModuleInfo,
    pub(crate) path: String,
}

/// The engine's view of itself. Any thread.
pub(crate) struct Engine {
    pub(crate) config: Config,
    /// Who runs where, as decided at the start.
    pub(crate) topology: keel::Topology,
    pub(crate) uuid: Uuid,
    pub(crate) membership: Membership,
    pub(crate) group: Arc<GroupKeeper>,
    pub(crate) incast: Incast,
    /// How the data channel is encrypted; `None`: it is not.
    pub(crate) security: Option<Security>,
    pub(crate) started: Instant,
    pub(crate) events: Events,
    pub(crate) log: LogControl,
    pub(crate) devices: Devices,
    pub(crate) modules: Vec<ModuleEntry>,
    pub(crate) running: OnceLock<Running>,
    pub(crate) phases: OnceLock<Vec<Phase>>,
    pub(crate) ready_ms: OnceLock<u64>,
    /// One setup at a time: a second SET_UP meanwhile is refused.
    pub(crate) setting_up: AtomicBool,
    state: AtomicU8,
    rank: AtomicU32,
}

/// What an [`Engine`] is made of.
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) topology: keel::Topology,
    pub(crate) uuid: Uuid,
    /// `None`: it comes later.
    pub(crate) rank: Option<u32>,
    pub(crate) membership: Membership,
    pub(crate) group: Arc<GroupKeeper>,
    pub(crate) incast: Incast,
    pub(crate) security: Option<Security>,
    pub(crate) started: Instant,
    pub(crate) events: Events,
    pub(crate) log: LogControl,
    pub(crate) devices: Devices,
    pub(crate) modules: Vec<ModuleEntry>,
}

impl Engine {
    pub(crate) fn new(parts: Parts) -> Arc<Engine> {
        let Parts {
            config,
            topology,
            uuid,
            rank,
            membership,
            group,
            incast,
            security,
            started,
            events,
            log,
            devices,
            modules,
        } = parts;
        devices.book.set_rank(rank.unwrap_or(NO_RANK));
        Arc::new(Engine {
            rank: AtomicU32::new(rank.unwrap_or(NO_RANK)),
            config,
            topology,
            uuid,
            membership,
            group,
            incast,
            security,
            started,
            events,
            log,
            devices,
            modules,
            running: OnceLock::new(),
            phases: OnceLock::new(),
            ready_ms: OnceLock::new(),
            setting_up: AtomicBool::new(false),
            state: AtomicU8::new(State::Starting as u8),
        })
    }

    pub(crate) fn state(&self) -> State {
        let states = [
            State::Starting,
            State::AwaitingSetup,
            State::Ready,
            State::Stopping,
        ];
        states[usize::from(self.state.load(Ordering::Acquire))]
    }

    /// Moves on. Never back from stopping.
    pub(crate) fn set_state(&self, state: State) {
        self.state.fetch_max(state as u8, Ordering::AcqRel);
    }

    pub(crate) fn rank(&self) -> u32 {
        self.rank.load(Ordering::Acquire)
    }

    pub(crate) fn set_rank(&self, rank: u32) {
        self.devices.book.set_rank(rank);
        self.rank.store(rank, Ordering::Release);
    }
}
