//! Dropping what was replaced, removed or never finished.
//!
//! One task per target, for the versions whose head was here. A version goes from every target before it is forgotten
//! here; a target that is down keeps it waiting. Readers' pins hold it back, and the scheduler lets it take its turns: more of
//! them when its pool runs out of space.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use module_sdk::{ReqClass, SchedReq, now_ns, sleep};
use obj_store::{Reclaim, Store};
use uuid::Uuid;

use crate::device::Device;
use crate::failure::Failure;
use crate::keep::first;
use crate::target::{Slot, Target, on_all};

/// How often leases are looked at while there are any.
const LEASE_CHECK: Duration = Duration::from_secs(1);
/// Pause after a version that could not be dropped everywhere.
const RETRY: Duration = Duration::from_secs(5);

/// Runs until the module is cleaned up.
pub(crate) async fn run(target: Rc<Target>) {
    loop {
        // Made before looking, so that nothing is missed between looking and waiting.
        let notified = target.work.notified();
        let slot = target.slot.borrow().clone();
        let store = match slot {
            Slot::Open(store) => store,
            Slot::Closed => return,
            // Its device may come back.
            Slot::Waiting | Slot::Failed(_) => {
                notified.await;
                continue;
            }
        };
        let leases = expire(&target, &store).await;
        let stuck = drop_all(&target, &store).await;
        target.measure(&store);
        drop(store);
        let wait = match (stuck, leases) {
            (Err(_), _) => Some(RETRY),
            (Ok(true), _) => continue,
            (Ok(false), true) => Some(LEASE_CHECK),
            (Ok(false), false) => None,
        };
        match wait {
            Some(pause) => first(pin!(notified), pin!(sleep(pause))).await,
            None => notified.await,
        }
    }
}

/// Aborts uploads and ends pins whose lease has run out; `true` when some are left.
async fn expire(target: &Target, store: &Store<Device>) -> bool {
    let now = now_ns();
    let over: Vec<(Uuid, String, u64)> = {
        let leases = target.leases.borrow();
        leases
            .iter()
            .filter(|(_, end)| **end <= now)
            .map(|(key, _)| key.clone())
            .collect()
    };
    for key in over {
        let (cont, name, version) = &key;
        module_sdk::info!("upload of '{name}' was not finished in time and is aborted");
        if let Err(error) = store.abort_upload(cont, name, *version).await {
            module_sdk::debug!("upload of '{name}': {error}");
        }
        target.leases.borrow_mut().remove(&key);
    }
    target.expire_pins(now) || !target.leases.borrow().is_empty()
}

/// Drops versions that nobody reads; `true` when something was done.
async fn drop_all(target: &Target, store: &Store<Device>) -> Result<bool, Failure> {
    let waiting = store
        .reclaims(4096)
        .into_iter()
        .filter(|r| !target.pinned(r.version));
    let mut done = false;
    // While there is something to free in a pool, its place in the scheduler says so.
    let mut places: HashMap<Uuid, SchedReq> = HashMap::new();
    for reclaim in waiting {
        let pool = store.pool_of(&reclaim.cont).unwrap_or_default();
        let place = match places.entry(pool) {
            Entry::Occupied(place) => place.into_mut(),
            Entry::Vacant(place) => place.insert(SchedReq::new(ReqClass::Gc, pool.into_bytes())?),
        };
        place.turn().await;
        if let Err(failure) = drop_everywhere(store, reclaim).await {
            module_sdk::debug!("version {:#x} waits: {}", reclaim.version, failure.message);
            return Err(failure);
        }
        target.metrics.reclaimed.add(1);
        done = true;
    }
    Ok(done)
}

async fn drop_everywhere(store: &Store<Device>, reclaim: Reclaim) -> Result<(), Failure> {
    let Reclaim { cont, version } = reclaim;
    let dropped = on_all("obj_drop", move |target| async move {
        let store = target.store()?;
        store.drop_version(&cont, version).await?;
        target.measure(&store);
        Ok(())
    });
    for result in dropped.await {
        result?;
    }
    Ok(store.reclaim_done(reclaim).await?)
}
