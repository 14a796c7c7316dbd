//! Setup and cleanup: opening, formatting, making the targets agree.

use std::collections::BTreeSet;
use std::rc::Rc;

use module_sdk::{Bdev, Der, error, info, spawn, warn};
use obj_store::{FormatOptions, OpenOptions, OpenReport, Store, StoreError};
use uuid::Uuid;

use crate::connections;
use crate::device::Device;
use crate::failure::Failure;
use crate::keep;
use crate::pools::{Meta, meta_of};
use crate::reclaim;
use crate::target::{Slot, Target, on_all, on_target};
use crate::truth::look_at_targets;

/// Opens every target's store. A damaged or failing one leaves its target down and the others serve; a device that is not
/// this engine's, or not the one of its place, fails the start.
pub(crate) async fn setup() -> Result<(), Der> {
    let targets = module_sdk::targets();
    let mut serving = 0;
    let mut refused = None;
    let opened = on_all("obj_open", move |target| async move {
        open(target, targets).await
    });
    for (index, result) in (0..).zip(opened.await) {
        match result {
            Ok(Opened::Serving(text)) => {
                info!("target {index}: {text}");
                serving += 1;
            }
            Ok(Opened::Down(failure)) => {
                error!("target {index} is down: {}", failure.message);
            }
            Err(failure) => {
                error!("{}", failure.message);
                refused = Some(failure.der);
            }
        }
    }
    if let Some(der) = refused {
        cleanup().await?;
        return Err(der);
    }
    if serving == 0 {
        error!("no target has a store that can be opened: there is nothing to serve");
        cleanup().await?;
        return Err(Der::NONEXIST);
    }
    agree().await;
    look_at_targets().await;
    Ok(())
}

pub(crate) enum Opened {
    Serving(String),
    Down(Failure),
}

/// Opens this target's store, and keeps it open from then on.
async fn open(target: Rc<Target>, targets: u32) -> Result<Opened, Failure> {
    if let Slot::Open(_) = &*target.slot.borrow() {
        return Ok(Opened::Serving("is open already".into()));
    }
    *target.slot.borrow_mut() = Slot::Waiting;
    let (device, opened) = match Bdev::open() {
        Ok(bdev) => {
            let device = Device(bdev);
            let opened = open_on(&target, targets, device.clone()).await?;
            (Some(device), opened)
        }
        Err(Der::IO) => {
            *target.slot.borrow_mut() = Slot::Failed(keep::gone());
            (None, Opened::Down(keep::gone()))
        }
        Err(der) => return Err(der.into()),
    };
    drop(spawn("obj_reclaim", reclaim::run(target.clone()))?);
    let keeper = spawn("obj_keep", keep::run(target.clone(), targets, device))?;
    *target.keeper.borrow_mut() = Some(keeper);
    Ok(opened)
}

/// Opens the store of a device, which is the target's from then on.
pub(crate) async fn open_on(
    target: &Target,
    targets: u32,
    device: Device,
) -> Result<Opened, Failure> {
    let text = device.0.info().device_name.clone();
    match open_store(device, target.index, targets).await {
        Ok((store, report, tasks)) => {
            for task in tasks {
                drop(spawn("obj_log", task)?);
            }
            if target.is_closed() {
                store.close().await;
                let text = "the target is stopping";
                return Ok(Opened::Down(Failure::new(Der::SHUTDOWN, text)));
            }
            target.measure(&store);
            *target.slot.borrow_mut() = Slot::Open(store);
            target.work.notify_all();
            Ok(Opened::Serving(describe(&text, &report)))
        }
        Err(error) => {
            let failure = Failure::from(error.clone());
            if !target.is_closed() {
                *target.slot.borrow_mut() = Slot::Failed(failure.clone());
            }
            if is_damage(&error) {
                Ok(Opened::Down(failure))
            } else {
                Err(failure)
            }
        }
    }
}

/// The device is broken, or overwritten by something that is no store: it is left alone and its target stays down. One of
/// another engine or another place is whole: serving without it would hide that the configuration is wrong.
fn is_damage(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Device { .. }
            | StoreError::SuperblockDamaged
            | StoreError::Foreign { .. }
            | StoreError::LogDamaged { .. }
            | StoreError::NoMemory { .. }
    )
}

type OpenStore = (Store<Device>, OpenReport, [obj_store::TaskFuture; 2]);

/// Opens the store of a device, which is made first if the device is empty.
async fn open_store(device: Device, target: u32, targets: u32) -> Result<OpenStore, StoreError> {
    let engine = Uuid::from_bytes(device.0.info().engine_uuid);
    let options = OpenOptions {
        engine: Some(engine),
        target: Some((target, targets)),
    };
    match Store::open(device.clone(), &options).await {
        Err(StoreError::NotFormatted) => {}
        result => return result,
    }
    let name = &device.0.info().device_name;
    info!("target {target}: device '{name}' is empty and is formatted");
    let format = FormatOptions {
        engine,
        store: Uuid::new_v4(),
        target,
        targets,
        log_half_bytes: None,
        force: false,
    };
    Store::format(device.clone(), &format).await?;
    Store::open(device, &options).await
}

fn describe(device: &str, report: &OpenReport) -> String {
    let (pools, conts, objects) = report.counts;
    let repaired = match report.repaired_copy {
        Some(copy) => format!("; superblock copy {copy} was damaged and is repaired"),
        None => String::new(),
    };
    let reclaims = report.reclaims;
    format!(
        "store on '{device}' is open: {pools} pools, {conts} containers, {objects} objects, {reclaims} versions to reclaim{repaired}"
    )
}

/// Makes the targets agree on pools and containers: target 0 is the truth. What it does not know was being created or
/// destroyed when the engine stopped; what another does not know was lost with that target's device.
pub(crate) async fn agree() {
    let mut metas = on_all("obj_meta", |target| async move { meta_of(&target) })
        .await
        .into_iter();
    let Some(Ok(truth)) = metas.next() else {
        warn!("target 0 is down: pools and containers can not be changed");
        return;
    };
    for (index, meta) in (1..).zip(metas) {
        let Ok(meta) = meta else { continue };
        let truth = truth.clone();
        let follow = on_target(index, "obj_agree", |t| async move {
            follow(t, truth, meta).await
        });
        if let Err(failure) = follow.await {
            error!(
                "pools and containers can not be made to agree: {}",
                failure.message
            );
        }
    }
}

async fn follow(target: Rc<Target>, truth: Meta, mine: Meta) -> Result<(), Failure> {
    let store = target.store()?;
    let index = target.index;
    let pools: BTreeSet<Uuid> = truth.pools.iter().map(|p| p.uuid).collect();
    let conts: BTreeSet<Uuid> = truth.conts.iter().map(|c| c.uuid).collect();
    for cont in mine.conts.iter().filter(|c| !conts.contains(&c.uuid)) {
        info!(
            "target {index}: container '{}' was not finished or is destroyed: dropped",
            cont.label
        );
        store.destroy_container(&cont.uuid).await?;
    }
    for pool in mine.pools.iter().filter(|p| !pools.contains(&p.uuid)) {
        info!(
            "target {index}: pool '{}' was not finished or is destroyed: dropped",
            pool.label
        );
        store.destroy_pool(&pool.uuid).await?;
    }
    for pool in truth
        .pools
        .iter()
        .filter(|p| !mine.pools.iter().any(|m| m.uuid == p.uuid))
    {
        warn!(
            "target {index}: pool '{}' is missing, its data here is lost: made again, empty",
            pool.label
        );
        store.create_pool(pool).await?;
    }
    for cont in truth
        .conts
        .iter()
        .filter(|c| !mine.conts.iter().any(|m| m.uuid == c.uuid))
    {
        store.create_container(cont).await?;
    }
    // Labels that changed while this target was down.
    for pool in &truth.pools {
        store.relabel_pool(&pool.uuid, &pool.label).await?;
    }
    for cont in &truth.conts {
        store.relabel_container(&cont.uuid, &cont.label).await?;
    }
    Ok(())
}

/// Ends every target's work and closes its store: what was queued is durable.
pub(crate) async fn cleanup() -> Result<(), Der> {
    connections::end().await;
    let closed = on_all("obj_close", |target| async move {
        let slot = target.slot.replace(Slot::Closed);
        target.work.notify_all();
        target.closing.notify_all();
        if let Slot::Open(store) = slot {
            store.close().await;
        }
        let keeper = target.keeper.borrow_mut().take();
        if let Some(keeper) = keeper {
            // A panic was reported where it happened.
            let _ = keeper.await;
        }
        Ok(())
    });
    for result in closed.await {
        if let Err(failure) = result {
            error!("{}", failure.message);
            return Err(failure.der);
        }
    }
    Ok(())
}
