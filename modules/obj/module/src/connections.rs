//! Who is connected to pools. The first connection makes the pool's namespace of incast variables, the last one takes it away.

use module_sdk::iv::{self, NsId};
use module_sdk::{Der, Reply, Request};
use obj_proto::wire;
use uuid::Uuid;

use crate::failure::Failure;
use crate::handles::{self, EVERYWHERE, split, untold};
use crate::pools::{View, on_system};
use crate::target::{STATE, changes, wall};
use crate::truth::{Connected, Connections, PoolMaps, PoolProps};

pub(crate) async fn pool_connect(request: Request) -> Result<Reply, Failure> {
    on_system(&request)?;
    let req: wire::PoolConnectReq = request.decode()?;
    let changes = changes();
    let _turn = changes.acquire().await;
    let view = View::take().await;
    let pool = view.any()?.pool_by(&req.pool)?;
    let info = view.pool_info(&pool.uuid)?;
    let room = STATE.with(|state| state.truth.borrow().has_room());
    room?;
    iv::create(pool.uuid.into_bytes(), false).await?;
    let connection = wire::PoolConnection {
        read_only: req.read_only,
        connected: wall(),
    };
    let own = Uuid::new_v4();
    let map = STATE.with(|state| {
        let mut truth = state.truth.borrow_mut();
        let known = truth.pools.entry(pool.uuid).or_insert_with(|| Connected {
            props: wire::PoolProps {
                label: pool.label.clone(),
                quota: pool.quota,
                created: pool.created,
            },
            connections: Default::default(),
            conts: Default::default(),
            open: Default::default(),
        });
        known.connections.insert(own, connection);
        truth.map.clone()
    });
    Ok(Reply::message(&wire::PoolConnectRep {
        pool: Some(info),
        handle: [pool.uuid.into_bytes(), own.into_bytes()].concat(),
        map: Some(map),
    }))
}

pub(crate) async fn pool_disconnect(request: Request) -> Result<Reply, Failure> {
    on_system(&request)?;
    let req: wire::PoolDisconnectReq = request.decode()?;
    let (pool, own) = split(&req.handle)?;
    let changes = changes();
    let _turn = changes.acquire().await;
    let open = STATE.with(|state| {
        let truth = state.truth.borrow();
        let known = truth.pools.get(&pool)?;
        known.connections.get(&own)?;
        let of_own = known
            .open
            .values()
            .filter(|open| open.connection == own.as_bytes());
        Some(of_own.count())
    });
    match open {
        None => Err(Failure::new(
            Der::NO_HDL,
            "nobody is connected by this handle",
        )),
        Some(0) => {
            take_away(pool, own).await?;
            Ok(Reply::ok())
        }
        Some(open) => {
            let text = format!("{open} containers are open by this connection: close them first");
            Err(Failure::new(Der::BUSY, text))
        }
    }
}

pub(crate) async fn pool_evict(request: Request) -> Result<Reply, Failure> {
    on_system(&request)?;
    let req: wire::PoolEvictReq = request.decode()?;
    let changes = changes();
    let _turn = changes.acquire().await;
    let pool = View::take().await.any()?.pool_by(&req.pool)?.uuid;
    let count = evict(pool).await?;
    Ok(Reply::message(&wire::PoolEvictRep { count }))
}

/// How many are connected to a pool.
pub(crate) fn count(pool: Uuid) -> usize {
    STATE.with(|state| {
        let truth = state.truth.borrow();
        truth
            .pools
            .get(&pool)
            .map_or(0, |known| known.connections.len())
    })
}

/// Takes all connections of a pool away, and with them the handles of its containers; how many. Under the lock of changes.
pub(crate) async fn evict(pool: Uuid) -> Result<u32, Failure> {
    let all = STATE.with(|state| {
        let truth = state.truth.borrow();
        let known = truth.pools.get(&pool);
        known.map_or(Vec::new(), |known| {
            known.connections.keys().copied().collect()
        })
    });
    let count = all.len() as u32;
    for own in all {
        take_away(pool, own).await?;
    }
    Ok(count)
}

/// No target takes a handle of this connection any more once this returns.
async fn take_away(pool: Uuid, own: Uuid) -> Result<(), Failure> {
    STATE.with(|state| {
        let mut truth = state.truth.borrow_mut();
        let Some(known) = truth.pools.get_mut(&pool) else {
            return;
        };
        known.connections.remove(&own);
        known
            .open
            .retain(|_, open| open.connection != own.as_bytes());
        if known.connections.is_empty() {
            truth.pools.remove(&pool);
        }
    });
    let told = Connections::of(pool, own)?.invalidate(EVERYWHERE).await;
    let ns: NsId = pool.into_bytes();
    iv::destroy(ns).await?;
    told.map(drop).map_err(untold)
}

/// What this xstream knows of a pool: its own cache, or else the system xstream's answer, which it keeps.
pub(crate) async fn pool_map(request: Request) -> Result<Reply, Failure> {
    let req: wire::PoolMapReq = request.decode()?;
    let (pool, own) = split(&req.pool_handle)?;
    handles::known(&Connections::of(pool, own)?).await?;
    let map = handles::known(&PoolMaps::of(pool, pool)?).await?;
    let props = handles::known(&PoolProps::of(pool, pool)?).await?;
    Ok(Reply::message(&wire::PoolMapRep {
        map: Some((*map).clone()),
        props: Some((*props).clone()),
    }))
}

/// The engine stops.
pub(crate) async fn end() {
    let left = STATE.with(|state| std::mem::take(&mut state.truth.borrow_mut().pools));
    for (pool, known) in left {
        for _ in known.connections {
            if let Err(der) = iv::destroy(pool.into_bytes()).await {
                module_sdk::debug!("namespace of pool {pool}: {der}");
            }
        }
    }
}
