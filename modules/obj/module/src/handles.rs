//! Open containers: handles given out by the system xstream, checked by each target in its own cache.
//!
//! A request that names a container by its uuid is not checked.

use std::cell::OnceCell;
use std::rc::Rc;
use std::time::Duration;

use module_sdk::iv::{IvFailure, IvHow, IvSync, IvVar};
use module_sdk::prost::Message;
use module_sdk::{Der, Reply, Request};
use obj_proto::{HANDLE_LEN, wire};
use uuid::Uuid;

use crate::failure::Failure;
use crate::pools::{View, cont_info, on_system, uuid};
use crate::target::{STATE, Target, changes, wall};
use crate::truth::{Capabilities, Connections, ContProps, PoolMaps};

/// Handles that a target remembers the variables of.
const KNOWN_MAX: usize = 65_536;
/// For a variable to come from the system xstream, or a change of it to reach all targets.
const WITHIN: Duration = Duration::from_secs(10);
pub(crate) const EVERYWHERE: IvHow = IvHow::new(IvSync::Eager, WITHIN);
pub(crate) const LATER: IvHow = IvHow::new(IvSync::Lazy, WITHIN);

/// What a request wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// What a target looks at when a request comes with a handle.
pub(crate) struct Handle {
    pool: Uuid,
    capability: IvVar<wire::Capability>,
    /// Known with the first capability: a handle goes with its connection.
    connection: OnceCell<IvVar<wire::PoolConnection>>,
}

impl Handle {
    fn new(bytes: &[u8]) -> Result<Handle, Failure> {
        let (pool, own) = split(bytes)?;
        Ok(Handle {
            pool,
            capability: Capabilities::of(pool, own)?,
            connection: OnceCell::new(),
        })
    }

    /// The capability, if the handle is out, and so is the connection that it was opened with.
    async fn check(&self) -> Result<Rc<wire::Capability>, Failure> {
        let capability = known(&self.capability).await?;
        let connection = match self.connection.get() {
            Some(connection) => connection,
            None => {
                let new = Connections::of(self.pool, uuid(&capability.connection)?)?;
                self.connection.get_or_init(|| new)
            }
        };
        known(connection).await?;
        Ok(capability)
    }
}

/// What this xstream knows of a handle: from its own cache, or else fetched.
pub(crate) async fn known<T: Message + Default + 'static>(
    variable: &IvVar<T>,
) -> Result<Rc<T>, Failure> {
    let failed = |failure: IvFailure| match failure.der {
        Der::NONEXIST => {
            let text = "the handle was closed or taken away: connect and open again";
            Failure::new(Der::NO_HDL, text)
        }
        der => Failure::new(der, format!("the handle cannot be checked: {failure}")),
    };
    variable.fetch(WITHIN).await.map_err(failed)
}

/// Pool and own uuid of a handle.
pub(crate) fn split(handle: &[u8]) -> Result<(Uuid, Uuid), Failure> {
    let (pool, own) = handle.split_at_checked(HANDLE_LEN / 2).unwrap_or_default();
    Ok((uuid(pool)?, uuid(own)?))
}

/// The container that a request names by its uuid or by a handle, if the handle is good for it.
pub(crate) async fn container(
    target: &Target,
    named: &[u8],
    access: Access,
) -> Result<Uuid, Failure> {
    let Ok(bytes) = <[u8; HANDLE_LEN]>::try_from(named) else {
        return uuid(named);
    };
    let known = target.handles.borrow().get(&bytes).cloned();
    let handle = match known {
        Some(known) => known,
        None => learnt(target, bytes)?,
    };
    let checked = handle.check().await;
    let capability = checked.inspect_err(|_| drop(target.handles.borrow_mut().remove(&bytes)))?;
    if access == Access::Write && capability.read_only {
        let text = "the container was opened to read only";
        return Err(Failure::new(Der::NO_PERM, text));
    }
    uuid(&capability.cont)
}

fn learnt(target: &Target, bytes: [u8; HANDLE_LEN]) -> Result<Rc<Handle>, Failure> {
    let new = Rc::new(Handle::new(&bytes)?);
    let mut handles = target.handles.borrow_mut();
    if handles.len() >= KNOWN_MAX {
        // Those that are still out come back with their next requests.
        handles.clear();
    }
    handles.insert(bytes, Rc::clone(&new));
    Ok(new)
}

/// Whether all targets serve, as this one knows of it: what an object of several pieces needs. Who comes without a handle finds out.
pub(crate) async fn all_serve(named: &[u8]) -> Result<(), Failure> {
    if named.len() != HANDLE_LEN {
        return Ok(());
    }
    let (pool, _) = split(named)?;
    let map = known(&PoolMaps::of(pool, pool)?).await?;
    let down = map.targets.iter().find(|target| target.status != 0);
    down.map_or(Ok(()), |target| {
        let der = Der::check(target.status).err().unwrap_or(Der::MISC);
        let text = format!(
            "an object of several pieces needs all targets: {}",
            target.message
        );
        Err(Failure::new(der, text))
    })
}

pub(crate) async fn cont_open(request: Request) -> Result<Reply, Failure> {
    on_system(&request)?;
    let req: wire::ContOpenReq = request.decode()?;
    let (pool, connection) = split(&req.pool_handle)?;
    let changes = changes();
    let _turn = changes.acquire().await;
    let view = View::take().await;
    let cont = view.any()?.cont_by(&pool, &req.cont)?;
    let own = Uuid::new_v4();
    let opened = STATE.with(|state| {
        let mut truth = state.truth.borrow_mut();
        truth.has_room()?;
        let none = || {
            Failure::new(
                Der::NO_HDL,
                "nobody is connected by this handle: connect again",
            )
        };
        let known = truth.pools.get_mut(&pool).ok_or_else(none)?;
        let by = known.connections.get(&connection).ok_or_else(none)?;
        if by.read_only && !req.read_only {
            let text = "the pool is connected to read only: so are its containers";
            return Err(Failure::new(Der::NO_PERM, text));
        }
        let capability = wire::Capability {
            cont: cont.uuid.as_bytes().to_vec(),
            read_only: req.read_only,
            opened: wall(),
            connection: connection.as_bytes().to_vec(),
        };
        let props = wire::ContProps {
            label: cont.label.clone(),
            created: cont.created,
        };
        known.open.insert(own, capability);
        known.conts.insert(cont.uuid, props);
        Ok(())
    });
    opened?;
    Ok(Reply::message(&wire::ContOpenRep {
        cont: Some(cont_info(cont)),
        handle: [pool.into_bytes(), own.into_bytes()].concat(),
    }))
}

pub(crate) async fn cont_close(request: Request) -> Result<Reply, Failure> {
    on_system(&request)?;
    let req: wire::ContCloseReq = request.decode()?;
    let (pool, own) = split(&req.handle)?;
    let changes = changes();
    let _turn = changes.acquire().await;
    let was_out = take_away(pool, own).await?;
    if !was_out {
        return Err(Failure::new(Der::NO_HDL, "no such handle is out"));
    }
    Ok(Reply::ok())
}

/// No target takes the handle any more once this returns; false: it was not out.
async fn take_away(pool: Uuid, own: Uuid) -> Result<bool, Failure> {
    let gone = STATE.with(|state| {
        let mut truth = state.truth.borrow_mut();
        let known = truth.pools.get_mut(&pool)?;
        known.open.remove(&own)
    });
    if gone.is_none() {
        return Ok(false);
    }
    let told = Capabilities::of(pool, own)?.invalidate(EVERYWHERE).await;
    told.map(|_| true).map_err(untold)
}

/// A container is destroyed: its handles go first. Under the lock of changes.
pub(crate) async fn close_all(pool: Uuid, cont: Uuid) -> Result<(), Failure> {
    let open = STATE.with(|state| {
        let mut truth = state.truth.borrow_mut();
        let Some(known) = truth.pools.get_mut(&pool) else {
            return Vec::new();
        };
        known.conts.remove(&cont);
        let of_cont = known
            .open
            .iter()
            .filter(|(_, open)| open.cont == cont.as_bytes());
        of_cont.map(|(own, _)| *own).collect()
    });
    for own in open {
        take_away(pool, own).await?;
    }
    Ok(())
}

pub(crate) fn untold(failure: IvFailure) -> Failure {
    let text = format!("not every target heard that a handle was taken away: {failure}");
    Failure::new(failure.der, text)
}

/// What this xstream knows of an open container.
pub(crate) async fn cont_prop(request: Request) -> Result<Reply, Failure> {
    let req: wire::ContPropReq = request.decode()?;
    let handle = Handle::new(&req.cont_handle)?;
    let cont = uuid(&handle.check().await?.cont)?;
    let props = known(&ContProps::of(handle.pool, cont)?).await?;
    Ok(Reply::message(&wire::ContPropRep {
        props: Some((*props).clone()),
    }))
}
