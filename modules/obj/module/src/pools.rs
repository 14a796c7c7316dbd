//! Pools and containers, on the system xstream.

use module_sdk::{Der, Reply, Request};
use obj_proto::{PIECE_SIZE, check_label, wire};
use obj_store::{ContainerInfo, PoolInfo, UNIT};
use uuid::Uuid;

use crate::connections;
use crate::failure::Failure;
use crate::handles;
use crate::target::{STATE, Target, changes, on_all, on_target, wall};

/// Smallest share of a target that a pool may have.
const QUOTA_MIN: u64 = 1 << 20;

/// What a target knows of pools and containers.
#[derive(Debug, Clone)]
pub(crate) struct Meta {
    pub(crate) pools: Vec<PoolInfo>,
    pub(crate) conts: Vec<ContainerInfo>,
    total: u64,
    free: u64,
}

pub(crate) fn meta_of(target: &Target) -> Result<Meta, Failure> {
    let store = target.store()?;
    let space = store.space();
    let (total, free) = (space.total, space.free);
    Ok(Meta {
        pools: store.pools(),
        conts: store.containers(None),
        total,
        free,
    })
}

/// What every target knows.
pub(crate) struct View {
    metas: Vec<Result<Meta, Failure>>,
}

impl View {
    pub(crate) async fn take() -> View {
        View {
            metas: on_all("obj_meta", |target| async move { meta_of(&target) }).await,
        }
    }

    /// Of the first target that serves: they agree.
    pub(crate) fn any(&self) -> Result<&Meta, Failure> {
        let first = self.metas.iter().find_map(|m| m.as_ref().ok());
        first.ok_or_else(|| Failure::new(Der::NO_SERVICE, "no target serves"))
    }

    /// That of target 0, when all serve: what a creation needs.
    fn all(&self) -> Result<&Meta, Failure> {
        for meta in &self.metas {
            meta.as_ref().map_err(Clone::clone)?;
        }
        self.any()
    }

    /// That of target 0, which a destruction begins with.
    pub(crate) fn truth(&self) -> Result<&Meta, Failure> {
        let none = || Failure::new(Der::NO_SERVICE, "there is no target 0");
        self.metas
            .first()
            .ok_or_else(none)?
            .as_ref()
            .map_err(Clone::clone)
    }

    /// Every target's space; quota and use are those of the pools that are `of_interest`.
    fn space(&self, of_interest: impl Fn(&PoolInfo) -> bool) -> Vec<wire::TargetSpace> {
        let space = |(target, meta): (u32, &Result<Meta, Failure>)| match meta {
            Ok(meta) => {
                let pools = || meta.pools.iter().filter(|pool| of_interest(pool));
                wire::TargetSpace {
                    target,
                    quota: pools().map(|pool| pool.quota).sum(),
                    used: pools().map(|pool| pool.used).sum(),
                    device_total: meta.total,
                    device_free: meta.free,
                    ..Default::default()
                }
            }
            Err(failure) => wire::TargetSpace {
                target,
                status: failure.der.neg(),
                message: failure.message.clone(),
                ..Default::default()
            },
        };
        (0..).zip(&self.metas).map(space).collect()
    }

    pub(crate) fn pool_info(&self, uuid: &Uuid) -> Result<wire::PoolInfo, Failure> {
        let mine = self.any()?.pool_by(&uuid.to_string())?;
        let shares = self
            .metas
            .iter()
            .flatten()
            .flat_map(|m| &m.pools)
            .filter(|p| p.uuid == *uuid);
        let used = shares.map(|p| p.used).sum();
        let targets = self.metas.len() as u32;
        Ok(wire::PoolInfo {
            uuid: uuid.as_bytes().to_vec(),
            label: mine.label.clone(),
            size: mine.quota * u64::from(targets),
            used,
            created: mine.created,
            targets,
            piece_size: PIECE_SIZE as u32,
        })
    }
}

impl Meta {
    /// By uuid or label.
    pub(crate) fn pool_by(&self, wanted: &str) -> Result<&PoolInfo, Failure> {
        let uuid = Uuid::parse_str(wanted).ok();
        let fits = |p: &&PoolInfo| Some(p.uuid) == uuid || p.label == wanted;
        let none = || Failure::new(Der::NONEXIST, format!("pool '{wanted}' does not exist"));
        self.pools.iter().find(fits).ok_or_else(none)
    }

    /// By uuid or label, in a pool.
    pub(crate) fn cont_by(&self, pool: &Uuid, wanted: &str) -> Result<&ContainerInfo, Failure> {
        let uuid = Uuid::parse_str(wanted).ok();
        let fits =
            |c: &&ContainerInfo| c.pool == *pool && (Some(c.uuid) == uuid || c.label == wanted);
        let text = || format!("container '{wanted}' does not exist in the pool");
        let none = || Failure::new(Der::CONT_NONEXIST, text());
        self.conts.iter().find(fits).ok_or_else(none)
    }
}

pub(crate) fn cont_info(cont: &ContainerInfo) -> wire::ContInfo {
    wire::ContInfo {
        uuid: cont.uuid.as_bytes().to_vec(),
        pool: cont.pool.as_bytes().to_vec(),
        label: cont.label.clone(),
        created: cont.created,
    }
}

/// A uuid that a request may leave to us.
fn uuid_or_new(bytes: &[u8]) -> Result<Uuid, Failure> {
    if bytes.is_empty() {
        return Ok(Uuid::new_v4());
    }
    uuid(bytes)
}

pub(crate) fn uuid(bytes: &[u8]) -> Result<Uuid, Failure> {
    let bad = |_| {
        Failure::new(
            Der::INVAL,
            format!("a uuid has 16 bytes, not {}", bytes.len()),
        )
    };
    Uuid::from_slice(bytes).map_err(bad)
}

/// Refuses to serve pools anywhere but on the system xstream: its lock is what serialises them.
pub(crate) fn on_system(request: &Request) -> Result<(), Failure> {
    match request.target() {
        None => Ok(()),
        Some(_) => Err(Failure::new(
            Der::BAD_TARGET,
            "pools and containers are served by tag 0",
        )),
    }
}

pub(crate) async fn pool_create(request: Request) -> Result<Reply, Failure> {
    on_system(&request)?;
    let req: wire::PoolCreateReq = request.decode()?;
    check_label(&req.label)?;
    let changes = changes();
    let _turn = changes.acquire().await;
    let view = View::take().await;
    let meta = view.all()?;
    if let Ok(old) = meta.pool_by(&req.label) {
        return Err(Failure::exists("pool", &old.label, old.uuid));
    }
    let targets = module_sdk::targets();
    let quota = req.size / u64::from(targets) / UNIT as u64 * UNIT as u64;
    if quota < QUOTA_MIN {
        let least = QUOTA_MIN * u64::from(targets);
        let text = format!(
            "a pool of {} bytes: on {targets} targets it has at least {least}",
            req.size
        );
        return Err(Failure::new(Der::INVAL, text));
    }
    let uuid = uuid_or_new(&req.uuid)?;
    let pool = PoolInfo {
        uuid,
        label: req.label,
        quota,
        used: 0,
        created: wall(),
    };
    create_everywhere(&pool).await?;
    let pool = Some(View::take().await.pool_info(&uuid)?);
    Ok(Reply::message(&wire::PoolCreateRep { pool }))
}

/// Target 0 last: while it has no such pool, there is none.
async fn create_everywhere(pool: &PoolInfo) -> Result<(), Failure> {
    for index in (0..module_sdk::targets()).rev() {
        let info = pool.clone();
        let made = on_target(index, "obj_pool_create", move |target| async move {
            let store = target.store()?;
            Ok(store.create_pool(&info).await?)
        });
        if let Err(failure) = made.await {
            destroy_pool_on(index + 1.., pool.uuid).await?;
            return Err(failure);
        }
    }
    Ok(())
}

/// Destroys a pool on these targets, if it is there.
async fn destroy_pool_on(
    targets: impl std::ops::RangeBounds<u32>,
    uuid: Uuid,
) -> Result<(), Failure> {
    for index in (0..module_sdk::targets()).filter(|t| targets.contains(t)) {
        let gone = on_target(index, "obj_pool_destroy", move |target| async move {
            let store = target.store()?;
            match store.destroy_pool(&uuid).await {
                Err(obj_store::StoreError::NoPool(_)) => {}
                result => result?,
            }
            Ok(module_sdk::forget_pool(uuid.as_bytes())?)
        });
        match gone.await {
            Err(failure) if index == 0 => return Err(failure),
            // It goes when that target comes back: target 0 does not know it.
            Err(failure) => module_sdk::warn!("pool {uuid} stays for now: {}", failure.message),
            Ok(()) => {}
        }
    }
    Ok(())
}

pub(crate) async fn pool_destroy(request: Request) -> Result<Reply, Failure> {
    on_system(&request)?;
    let req: wire::PoolDestroyReq = request.decode()?;
    let changes = changes();
    let _turn = changes.acquire().await;
    let view = View::take().await;
    let meta = view.truth()?;
    let pool = meta.pool_by(&req.pool)?;
    let conts = meta.conts.iter().filter(|c| c.pool == pool.uuid).count();
    if conts > 0 && !req.force {
        let text = format!(
            "pool '{}' has {conts} containers: destroy them first, or force it",
            pool.label
        );
        return Err(Failure::new(Der::BUSY, text));
    }
    let connected = connections::count(pool.uuid);
    if connected > 0 && !req.evict {
        let text = format!(
            "{connected} are connected to pool '{}': let them end, evict them, or force it",
            pool.label
        );
        return Err(Failure::new(Der::BUSY, text));
    }
    connections::evict(pool.uuid).await?;
    destroy_pool_on(.., pool.uuid).await?;
    Ok(Reply::ok())
}

pub(crate) async fn pool_list(request: Request) -> Result<Reply, Failure> {
    on_system(&request)?;
    let view = View::take().await;
    let all = view.any()?.pools.iter().map(|p| view.pool_info(&p.uuid));
    let pools = all.collect::<Result<_, _>>()?;
    Ok(Reply::message(&wire::PoolListRep { pools }))
}

pub(crate) async fn pool_query(request: Request) -> Result<Reply, Failure> {
    on_system(&request)?;
    let req: wire::PoolQueryReq = request.decode()?;
    let view = View::take().await;
    let meta = view.any()?;
    let uuid = meta.pool_by(&req.pool)?.uuid;
    let targets = view.space(|pool| pool.uuid == uuid);
    let containers = meta.conts.iter().filter(|c| c.pool == uuid).count() as u32;
    let pool = Some(view.pool_info(&uuid)?);
    let map_version = STATE.with(|state| state.truth.borrow().map.version);
    Ok(Reply::message(&wire::PoolQueryRep {
        pool,
        targets,
        containers,
        map_version,
        connections: connections::count(uuid) as u32,
    }))
}

pub(crate) async fn target_list(request: Request) -> Result<Reply, Failure> {
    on_system(&request)?;
    let _: wire::TargetListReq = request.decode()?;
    let targets = View::take().await.space(|_| true);
    Ok(Reply::message(&wire::TargetListRep { targets }))
}

pub(crate) async fn cont_create(request: Request) -> Result<Reply, Failure> {
    on_system(&request)?;
    let req: wire::ContCreateReq = request.decode()?;
    check_label(&req.label)?;
    let changes = changes();
    let _turn = changes.acquire().await;
    let view = View::take().await;
    let meta = view.all()?;
    let pool = meta.pool_by(&req.pool)?.uuid;
    if let Ok(old) = meta.cont_by(&pool, &req.label) {
        return Err(Failure::exists("container", &old.label, old.uuid));
    }
    let uuid = uuid_or_new(&req.uuid)?;
    let cont = ContainerInfo {
        uuid,
        pool,
        label: req.label,
        created: wall(),
    };
    for index in (0..module_sdk::targets()).rev() {
        let info = cont.clone();
        let made = on_target(index, "obj_cont_create", move |target| async move {
            let store = target.store()?;
            Ok(store.create_container(&info).await?)
        });
        if let Err(failure) = made.await {
            destroy_cont_on(index + 1.., uuid).await?;
            return Err(failure);
        }
    }
    Ok(Reply::message(&wire::ContCreateRep {
        cont: Some(cont_info(&cont)),
    }))
}

async fn destroy_cont_on(
    targets: impl std::ops::RangeBounds<u32>,
    uuid: Uuid,
) -> Result<(), Failure> {
    for index in (0..module_sdk::targets()).filter(|t| targets.contains(t)) {
        let gone = on_target(index, "obj_cont_destroy", move |target| async move {
            let store = target.store()?;
            match store.destroy_container(&uuid).await {
                Err(obj_store::StoreError::NoContainer(_)) => Ok(()),
                result => Ok(result?),
            }
        });
        match gone.await {
            Err(failure) if index == 0 => return Err(failure),
            Err(failure) => {
                module_sdk::warn!("container {uuid} stays for now: {}", failure.message)
            }
            Ok(()) => {}
        }
    }
    Ok(())
}

pub(crate) async fn cont_destroy(request: Request) -> Result<Reply, Failure> {
    on_system(&request)?;
    let req: wire::ContDestroyReq = request.decode()?;
    let changes = changes();
    let _turn = changes.acquire().await;
    let view = View::take().await;
    let meta = view.truth()?;
    let pool = meta.pool_by(&req.pool)?.uuid;
    let cont = meta.cont_by(&pool, &req.cont)?.uuid;
    handles::close_all(pool, cont).await?;
    destroy_cont_on(.., cont).await?;
    Ok(Reply::ok())
}

pub(crate) async fn cont_list(request: Request) -> Result<Reply, Failure> {
    on_system(&request)?;
    let req: wire::ContListReq = request.decode()?;
    let view = View::take().await;
    let meta = view.any()?;
    let pool = meta.pool_by(&req.pool)?.uuid;
    let conts = meta
        .conts
        .iter()
        .filter(|c| c.pool == pool)
        .map(cont_info)
        .collect();
    Ok(Reply::message(&wire::ContListRep { conts }))
}

pub(crate) async fn cont_query(request: Request) -> Result<Reply, Failure> {
    on_system(&request)?;
    let req: wire::ContQueryReq = request.decode()?;
    let view = View::take().await;
    let meta = view.any()?;
    let pool = meta.pool_by(&req.pool)?.uuid;
    let cont = Some(cont_info(meta.cont_by(&pool, &req.cont)?));
    Ok(Reply::message(&wire::ContQueryRep { cont }))
}
