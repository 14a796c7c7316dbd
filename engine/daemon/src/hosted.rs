//! Devices that somebody else has and lends: SPDK's. They come, go and change their size there.

use std::sync::Arc;

use bdev_nvme::DeviceHealth;
use spdk_bdev::Bdev;
use uuid::Uuid;

use crate::device_book::Shared;
use crate::device_return::REMOVED;
use crate::ras::DeviceEvent;

/// A device's other side.
pub(crate) trait Hosted: Send + Sync {
    /// Bytes that it has there now; `None` while it is not there.
    fn bytes(&self) -> Option<u64>;

    /// The SSD that it is a namespace of.
    fn ssd(&self) -> Option<&HostedSsd>;

    /// How the SSD under it is. Waits for it.
    fn health(&self) -> Option<DeviceHealth>;

    /// Opens it again after it was gone, as the device `uuid`; `None` while it is not there.
    fn reopen(&self, uuid: Uuid) -> Option<Result<Arc<dyn Bdev>, String>>;
}

/// What is known of the SSD under one beside its name.
pub(crate) struct HostedSsd {
    pub(crate) firmware: String,
    pub(crate) namespace: u32,
    pub(crate) write_cache: bool,
}

/// What is to be done about one.
enum Change {
    Went,
    Shrank(u64, u64),
    MayBeBack(Arc<dyn Hosted>),
}

impl Shared {
    /// Looks at what became of hosted devices.
    pub(crate) fn look_at_hosts(&self) {
        let mut changes = Vec::new();
        for device in &self.lock().devices {
            let Some(host) = &device.opened.hosted else {
                continue;
            };
            let plugged = &device.opened.plugged;
            let change = match (&device.gone, host.bytes()) {
                // What kept nothing would come back empty.
                (Some(why), _) if why == REMOVED && device.opened.is_kept => {
                    Change::MayBeBack(Arc::clone(host))
                }
                (Some(_), _) => continue,
                (None, None) => Change::Went,
                (None, Some(bytes)) if bytes < plugged.bytes => {
                    Change::Shrank(plugged.bytes, bytes)
                }
                (None, Some(_)) => continue,
            };
            changes.push((plugged.uuid, plugged.name.clone(), change));
        }
        for (uuid, name, change) in changes {
            match change {
                Change::Went => {
                    self.gone(uuid, REMOVED, false);
                    if let Err(error) = self.registry.withdraw(&name) {
                        tracing::error!(%error, "a device that was removed was not found");
                    }
                }
                Change::Shrank(from, to) => {
                    self.gone(uuid, &format!("it shrank from {from} to {to} bytes"), true);
                }
                Change::MayBeBack(host) => match host.reopen(uuid) {
                    Some(Ok(bdev)) => self.host_gives_back(uuid, &name, bdev),
                    Some(Err(why)) => tracing::warn!(device = name, "not taken back: {why}"),
                    None => {}
                },
            }
        }
    }

    fn host_gives_back(&self, uuid: Uuid, name: &str, bdev: Arc<dyn Bdev>) {
        if let Err(error) = self.registry.put_back(Arc::clone(&bdev)) {
            tracing::warn!(device = name, "not taken back: {error}");
            return;
        }
        let text = self.let_in(uuid, &*bdev, None, &format!("device {name} is there again"));
        self.ras
            .raise(DeviceEvent::Plugged, &uuid.to_string(), &text);
    }
}
