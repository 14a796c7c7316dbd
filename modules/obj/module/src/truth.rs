//! What pools' incast variables say: the system xstream's tables, and the classes that answer from them.
//!
//! A pool's namespace exists while somebody is connected to the pool. Its root is this engine's system xstream, so a class answers a fetch from
//! the tables here, and a target learns of a variable with the first request that needs it. Sources: DAOS `src/pool/srv_iv.c`, `src/container/container_iv.c`.

use std::collections::HashMap;

use module_sdk::iv::{self, IvClass, IvKey, IvPlace, IvVar};
use module_sdk::prost::Message;
use module_sdk::{Der, warn};
use obj_proto::wire;
use uuid::Uuid;

use crate::failure::Failure;
use crate::handles::{EVERYWHERE, LATER};
use crate::target::{STATE, on_all};

/// Open at a time in the engine, of pools and of containers; one more is `DER_BUSY`.
const OPEN_MAX: usize = 65_536;

/// System xstream only.
#[derive(Default)]
pub(crate) struct Truth {
    /// Of all pools: each lies on all targets.
    pub(crate) map: wire::PoolMap,
    /// Pools that somebody is connected to.
    pub(crate) pools: HashMap<Uuid, Connected>,
}

/// A pool that somebody is connected to.
pub(crate) struct Connected {
    pub(crate) props: wire::PoolProps,
    pub(crate) connections: HashMap<Uuid, wire::PoolConnection>,
    /// Of containers that were opened.
    pub(crate) conts: HashMap<Uuid, wire::ContProps>,
    /// Handles of containers that are out.
    pub(crate) open: HashMap<Uuid, wire::Capability>,
}

impl Truth {
    /// Whether one more may be connected or opened.
    pub(crate) fn has_room(&self) -> Result<(), Failure> {
        let pools = self.pools.values();
        let out = pools.map(|pool| pool.connections.len() + pool.open.len());
        if out.sum::<usize>() < OPEN_MAX {
            return Ok(());
        }
        Err(Failure::new(Der::BUSY, "too many handles are out"))
    }
}

/// A class that answers from the tables.
macro_rules! class {
    ($(#[$doc:meta])* $name:ident = $id:literal, $text:literal, $value:ty, $find:expr) => {
        $(#[$doc])*
        pub(crate) struct $name;

        impl IvClass for $name {
            type Value = $value;
            const ID: u32 = $id;
            const NAME: &'static str = $text;
            const MAX_VALUE: u32 = 256 << 10;

            fn fetch(&mut self, at: &IvPlace, key: &IvKey, _: Option<$value>) -> Result<$value, Der> {
                let key = Uuid::from_slice(key.bytes()).map_err(|_| Der::INVAL)?;
                let find: fn(&Truth, &Connected, &Uuid) -> Option<$value> = $find;
                STATE.with(|state| {
                    let truth = state.truth.borrow();
                    let pool = truth.pools.get(&Uuid::from_bytes(at.ns)).ok_or(Der::NONEXIST)?;
                    find(&truth, pool, &key).ok_or(Der::NONEXIST)
                })
            }
        }

        impl $name {
            /// The variable of that name in a pool's namespace.
            pub(crate) fn of(pool: Uuid, key: Uuid) -> Result<IvVar<$value>, Der> {
                variable::<$value>(pool, $id, key)
            }
        }
    };
}

fn variable<T: Message + Default + 'static>(
    pool: Uuid,
    class: u32,
    key: Uuid,
) -> Result<IvVar<T>, Der> {
    let key = IvKey::new(class, key.as_bytes())?;
    Ok(IvVar::new(pool.into_bytes(), key))
}

class!(
    /// Which targets serve.
    PoolMaps = 1, "pool_map", wire::PoolMap, |truth, _, _| Some(truth.map.clone())
);
class!(
    /// Label and share of a pool.
    PoolProps = 2, "pool_prop", wire::PoolProps, |_, pool, _| Some(pool.props.clone())
);
class!(
    /// Who is connected to a pool.
    Connections = 3, "pool_conn", wire::PoolConnection, |_, pool, key| pool.connections.get(key).copied()
);
class!(
    /// What a handle of a container allows.
    Capabilities = 7, "cont_capa", wire::Capability, |_, pool, key| pool.open.get(key).cloned()
);
class!(
    /// Label of a container.
    ContProps = 8, "cont_prop", wire::ContProps, |_, pool, key| pool.conts.get(key).cloned()
);

/// Before anything runs.
pub(crate) fn register() -> Result<(), Der> {
    iv::register_class(PoolMaps)?;
    iv::register_class(PoolProps)?;
    iv::register_class(Connections)?;
    iv::register_class(Capabilities)?;
    iv::register_class(ContProps)
}

/// Looks which targets serve, and tells all who have the map of a pool. Under the lock of changes.
pub(crate) async fn look_at_targets() {
    let stores = on_all("obj_map", |target| async move { target.store().map(drop) }).await;
    let state = |store: Result<(), Failure>| match store {
        Ok(()) => wire::TargetState::default(),
        Err(failure) => wire::TargetState {
            status: failure.der.neg(),
            message: failure.message,
        },
    };
    let targets: Vec<_> = stores.into_iter().map(state).collect();
    let changed = STATE.with(|state| {
        let mut truth = state.truth.borrow_mut();
        if truth.map.targets == targets {
            return None;
        }
        let version = truth.map.version + 1;
        truth.map = wire::PoolMap { version, targets };
        let pools: Vec<Uuid> = truth.pools.keys().copied().collect();
        Some((truth.map.clone(), pools))
    });
    let Some((map, pools)) = changed else { return };
    for pool in pools {
        let told = match PoolMaps::of(pool, pool) {
            Ok(variable) => variable.update(&map, EVERYWHERE).await.map(drop),
            Err(der) => Err(der.into()),
        };
        if let Err(failure) = told {
            warn!("not every target knows the map of pool {pool}: {failure}");
        }
    }
}

/// A pool has another label. Those who have its properties hear of it by and by (DAOS: lazily).
pub(crate) async fn pool_relabelled(pool: Uuid, label: &str) -> Result<(), Failure> {
    let props = STATE.with(|state| {
        let mut truth = state.truth.borrow_mut();
        let known = truth.pools.get_mut(&pool)?;
        label.clone_into(&mut known.props.label);
        Some(known.props.clone())
    });
    if let Some(props) = props {
        let told = PoolProps::of(pool, pool)?.update(&props, LATER).await;
        told.map_err(|failure| Failure::new(failure.der, failure.to_string()))?;
    }
    Ok(())
}

/// A container has another label: known to all when this returns.
pub(crate) async fn cont_relabelled(pool: Uuid, cont: Uuid, label: &str) -> Result<(), Failure> {
    let props = STATE.with(|state| {
        let mut truth = state.truth.borrow_mut();
        let known = truth.pools.get_mut(&pool)?.conts.get_mut(&cont)?;
        label.clone_into(&mut known.label);
        Some(known.clone())
    });
    if let Some(props) = props {
        let told = ContProps::of(pool, cont)?.update(&props, EVERYWHERE).await;
        told.map_err(|failure| Failure::new(failure.der, failure.to_string()))?;
    }
    Ok(())
}
