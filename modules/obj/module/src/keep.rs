//! A target's store over the comings and goings of its device.
//!
//! A device that is evicted or removed takes the store down with it: which of the last records arrived is unknown. Once the device can be used
//! again, the store is opened as at a start: replayed, and made to agree with the others. One task per target does nothing else. Who
//! held the old store keeps a dead one: its I/O goes to a handle that takes none any more, so two stores never write to one device.

use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use module_sdk::{Bdev, Der, Xs, error, info, sleep, spawn_on};

use crate::device::Device;
use crate::failure::Failure;
use crate::start::{Opened, agree, open_on};
use crate::target::{Slot, Target, changes};
use crate::truth::look_at_targets;

/// Between attempts to open the device again, which costs a look at a flag.
const RETRY: Duration = Duration::from_secs(1);
/// Between looks whether the last I/O of the old store has ended.
const DRAIN: Duration = Duration::from_millis(10);

/// Why a target is down meanwhile.
pub(crate) fn gone() -> Failure {
    let text = "its device was evicted or removed: `keel devices` says why";
    Failure::new(Der::IO, text)
}

/// Runs until the module is cleaned up. `device`: the open share, if it could be opened.
pub(crate) async fn run(target: Rc<Target>, targets: u32, mut device: Option<Device>) {
    loop {
        if let Some(device) = device.take() {
            target.unless_closing(device.0.gone()).await;
            if target.is_closed() {
                return;
            }
            put_away(&target, device).await;
        }
        let again = loop {
            target.unless_closing(sleep(RETRY)).await;
            if target.is_closed() {
                return;
            }
            if let Ok(bdev) = Bdev::open() {
                break Device(bdev);
            }
        };
        open_again(&target, targets, again.clone()).await;
        device = Some(again);
    }
}

/// The device is gone: nothing of the store is left when this returns.
async fn put_away(target: &Target, device: Device) {
    error!("target {} is down: {}", target.index, gone().message);
    let before = target.slot.replace(Slot::Failed(gone()));
    if let Slot::Open(store) = before {
        store.close().await;
    }
    // Replay gives up what was being uploaded.
    target.leases.borrow_mut().clear();
    let told = spawn_on(Xs::System, "obj_map", || async {
        let changes = changes();
        let _turn = changes.acquire().await;
        look_at_targets().await;
    });
    if let Err(der) = told {
        error!("the pool map still counts target {}: {der}", target.index);
    }
    while device.0.in_flight() > 0 {
        sleep(DRAIN).await;
    }
}

async fn open_again(target: &Rc<Target>, targets: u32, device: Device) {
    let index = target.index;
    match open_on(target, targets, device).await {
        Ok(Opened::Serving(text)) => info!("target {index} is back: {text}"),
        Ok(Opened::Down(failure)) | Err(failure) => {
            error!("target {index} stays down: {}", failure.message);
            return;
        }
    }
    // Pools and containers that went meanwhile.
    let agreed = spawn_on(Xs::System, "obj_agree", || async {
        let changes = changes();
        let _turn = changes.acquire().await;
        agree().await;
        look_at_targets().await;
    });
    match agreed {
        Ok(agreed) => {
            if let Err(panic) = agreed.await {
                error!("pools and containers can not be made to agree: {panic}");
            }
        }
        Err(der) => error!("pools and containers can not be made to agree: {der}"),
    }
}

/// Returns with whichever is first.
pub(crate) async fn first(
    mut a: Pin<&mut impl Future<Output = ()>>,
    mut b: Pin<&mut impl Future<Output = ()>>,
) {
    std::future::poll_fn(|cx| {
        if a.as_mut().poll(cx).is_ready() || b.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        Poll::Pending
    })
    .await;
}
