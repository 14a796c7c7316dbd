//! Properties of pools and containers: their labels, which may change.

use module_sdk::{Reply, Request};
use obj_proto::{check_label, wire};

use crate::failure::Failure;
use crate::pools::{View, on_system};
use crate::target::{changes, on_target};
use crate::truth;

pub(crate) async fn pool_set_prop(request: Request) -> Result<Reply, Failure> {
    on_system(&request)?;
    let req: wire::PoolSetPropReq = request.decode()?;
    check_label(&req.label)?;
    let changes = changes();
    let _turn = changes.acquire().await;
    let view = View::take().await;
    let meta = view.truth()?;
    let pool = meta.pool_by(&req.pool)?.uuid;
    if let Ok(other) = meta.pool_by(&req.label)
        && other.uuid != pool
    {
        return Err(Failure::exists("pool", &other.label, other.uuid));
    }
    // Target 0 first: it is the truth, and a target that misses this follows when it comes back.
    for index in 0..module_sdk::targets() {
        let label = req.label.clone();
        let made = on_target(index, "obj_pool_relabel", move |target| async move {
            Ok(target.store()?.relabel_pool(&pool, &label).await?)
        });
        follows(index, made.await)?;
    }
    truth::pool_relabelled(pool, &req.label).await?;
    Ok(Reply::ok())
}

pub(crate) async fn cont_set_prop(request: Request) -> Result<Reply, Failure> {
    on_system(&request)?;
    let req: wire::ContSetPropReq = request.decode()?;
    check_label(&req.label)?;
    let changes = changes();
    let _turn = changes.acquire().await;
    let view = View::take().await;
    let meta = view.truth()?;
    let pool = meta.pool_by(&req.pool)?.uuid;
    let cont = meta.cont_by(&pool, &req.cont)?.uuid;
    if let Ok(other) = meta.cont_by(&pool, &req.label)
        && other.uuid != cont
    {
        return Err(Failure::exists("container", &other.label, other.uuid));
    }
    for index in 0..module_sdk::targets() {
        let label = req.label.clone();
        let made = on_target(index, "obj_cont_relabel", move |target| async move {
            Ok(target.store()?.relabel_container(&cont, &label).await?)
        });
        follows(index, made.await)?;
    }
    truth::cont_relabelled(pool, cont, &req.label).await?;
    Ok(Reply::ok())
}

fn follows(index: u32, made: Result<(), Failure>) -> Result<(), Failure> {
    match made {
        Err(failure) if index == 0 => Err(failure),
        Err(failure) => {
            module_sdk::warn!("a label stays what it was for now: {}", failure.message);
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}
