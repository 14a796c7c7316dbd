//! Devices as DAOS's management lists them (`SMD`: per-server metadata of devices and pools).

use crate::engine::{ask, devices, status};
use crate::methods::{DEVICE_REPLACE, DEVICE_SET_FAULTY};
use crate::pools::obj;
use crate::proto::ctl::{
    BioHealthReq, BioHealthResp, DevManageResp, DevReplaceReq, NvmeController, NvmeDevState,
    SetFaultyReq, SmdDevReq, SmdDevResp, SmdDevice,
};
use crate::proto::keel::{Ack, Device, DeviceReplace, DeviceSetFaulty};
use module_sdk::Der;
use obj_proto::{Op, wire};
use std::time::{SystemTime, UNIX_EPOCH};
use uuid::Uuid;

/// Data, metadata and write-ahead log share each device.
const ALL_ROLES: u32 = 1 | 2 | 4;

/// `SMD_LIST_DEVS`.
pub(crate) async fn list(_: SmdDevReq) -> SmdDevResp {
    let asked = async { Ok::<_, Der>((status().await?.rank, devices().await?)) };
    match asked.await {
        Ok((rank, devices)) => {
            let space = space().await;
            let devices = devices
                .iter()
                .map(|device| smd_device(device, rank, &space))
                .collect();
            SmdDevResp { status: 0, devices }
        }
        Err(der) => SmdDevResp {
            status: der.neg(),
            devices: vec![],
        },
    }
}

/// `BIO_HEALTH_QUERY`: the first device when none is named.
pub(crate) async fn health(request: BioHealthReq) -> BioHealthResp {
    let wanted = match request.dev_uuid.as_str() {
        "" => None,
        text => match Uuid::try_parse(text) {
            Ok(uuid) => Some(uuid),
            Err(_) => return failed(Der::INVAL, request.dev_uuid),
        },
    };
    let devices = match devices().await {
        Ok(devices) => devices,
        Err(der) => return failed(der, request.dev_uuid),
    };
    let found = devices
        .iter()
        .find(|d| wanted.is_none_or(|uuid| Uuid::try_parse(&d.uuid) == Ok(uuid)));
    match found {
        Some(device) => healthy(device, &space().await),
        None => failed(Der::NONEXIST, request.dev_uuid),
    }
}

/// `DEV_SET_FAULTY`: evicts a device.
pub(crate) async fn set_faulty(request: SetFaultyReq) -> DevManageResp {
    let question = DeviceSetFaulty {
        uuid: request.uuid.clone(),
    };
    managed(ask(DEVICE_SET_FAULTY, &question).await, &request.uuid).await
}

/// `DEV_REPLACE`: the targets of an evicted device move to another one; twice the same puts it back into use.
pub(crate) async fn replace(request: DevReplaceReq) -> DevManageResp {
    let question = DeviceReplace {
        old_uuid: request.old_dev_uuid,
        new_uuid: request.new_dev_uuid.clone(),
    };
    managed(ask(DEVICE_REPLACE, &question).await, &request.new_dev_uuid).await
}

/// The answer to a change: the device as it is now.
async fn managed(changed: Result<Ack, Der>, uuid: &str) -> DevManageResp {
    let status = match changed {
        Ok(ack) => ack.status,
        Err(der) => der.neg(),
    };
    if status != 0 {
        return DevManageResp {
            status,
            device: None,
        };
    }
    let all = list(SmdDevReq {}).await;
    let same = |device: &SmdDevice| Uuid::try_parse(&device.uuid) == Uuid::try_parse(uuid);
    DevManageResp {
        status: all.status,
        device: all.devices.into_iter().find(same),
    }
}

/// Free space by target, from the object module. Devices are listed without it, too: also before its setup.
async fn space() -> Vec<wire::TargetSpace> {
    let answer = obj::<wire::TargetListRep>(Op::TargetList, &wire::TargetListReq {}).await;
    answer.map(|answer| answer.targets).unwrap_or_default()
}

fn failed(der: Der, dev_uuid: String) -> BioHealthResp {
    BioHealthResp {
        status: der.neg(),
        dev_uuid,
        ..BioHealthResp::default()
    }
}

fn healthy(device: &Device, space: &[wire::TargetSpace]) -> BioHealthResp {
    let count = |name: &str| {
        let counter = device.counters.iter().find(|c| c.name == name);
        counter.map_or(0, |c| u32::try_from(c.value).unwrap_or(u32::MAX))
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let smart = device.health.unwrap_or_default();
    let warns = |bit: u32| smart.critical_warning & 1 << bit != 0;
    BioHealthResp {
        timestamp: match smart.read_at {
            0 => now.map_or(0, |since| since.as_secs()),
            read_at => read_at,
        },
        warn_temp_time: smart.warning_temp_minutes,
        crit_temp_time: smart.critical_temp_minutes,
        ctrl_busy_time: smart.busy_minutes,
        power_cycles: smart.power_cycles,
        power_on_hours: smart.power_on_hours,
        unsafe_shutdowns: smart.unsafe_shutdowns,
        media_errs: smart.media_errors,
        err_log_entries: smart.error_log_entries,
        temperature: smart.temperature,
        host_reads_raw: smart.host_reads,
        host_bytes_written: smart.bytes_written,
        percentage_used: smart.percentage_used,
        avail_spare_warn: warns(0),
        temp_warn: warns(1),
        read_only_warn: warns(3),
        volatile_mem_warn: warns(4),
        dev_uuid: device.uuid.clone(),
        total_bytes: total_bytes(device),
        avail_bytes: avail_bytes(device, space),
        cluster_size: u64::from(device.block_size),
        bio_read_errs: count("read_errors"),
        bio_write_errs: count("write_errors"),
        bio_unmap_errs: count("unmap_errors"),
        checksum_errs: count("checksum_errors"),
        dev_reliability_warn: device.state == "evicted" || warns(2),
        ..BioHealthResp::default()
    }
}

fn smd_device(device: &Device, rank: u32, space: &[wire::TargetSpace]) -> SmdDevice {
    let state = match device.state.as_str() {
        "normal" => NvmeDevState::Normal,
        "new" => NvmeDevState::New,
        "evicted" => NvmeDevState::Evicted,
        "unplugged" => NvmeDevState::Unplugged,
        _ => NvmeDevState::Unknown,
    };
    let (total_bytes, avail_bytes) = (total_bytes(device), avail_bytes(device, space));
    SmdDevice {
        uuid: device.uuid.clone(),
        tgt_ids: device
            .targets
            .iter()
            .filter_map(|t| i32::try_from(*t).ok())
            .collect(),
        total_bytes,
        avail_bytes,
        usable_bytes: avail_bytes,
        cluster_size: u64::from(device.block_size),
        rank,
        role_bits: ALL_ROLES,
        ctrlr: Some(NvmeController {
            model: if device.model.is_empty() {
                device.driver.clone()
            } else {
                device.model.clone()
            },
            serial: device.serial.clone(),
            fw_rev: device.firmware.clone(),
            pci_addr: device.path.clone(),
            dev_state: state.into(),
            ..NvmeController::default()
        }),
        ctrlr_namespace_id: device.namespace,
        ..SmdDevice::default()
    }
}

fn total_bytes(device: &Device) -> u64 {
    u64::from(device.block_size).saturating_mul(device.num_blocks)
}

/// Free space of the targets on the device.
fn avail_bytes(device: &Device, space: &[wire::TargetSpace]) -> u64 {
    space
        .iter()
        .filter(|t| device.targets.contains(&t.target))
        .map(|t| t.device_free)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::{healthy, smd_device, total_bytes};
    use crate::proto::keel::{Counter, Device, DeviceHealth};
    use obj_proto::wire::TargetSpace;

    fn sample() -> (Device, Vec<TargetSpace>) {
        let counters = vec![Counter {
            name: "read_errors".into(),
            value: 1 << 40,
        }];
        let device = Device {
            uuid: "u".into(),
            block_size: 4096,
            num_blocks: 10,
            targets: vec![0, 2],
            state: "evicted".into(),
            counters,
            health: Some(DeviceHealth {
                read_at: 7,
                critical_warning: 0b1010,
                temperature: 350,
                media_errors: 4,
                ..DeviceHealth::default()
            }),
            ..Device::default()
        };
        let target = |target, device_free| TargetSpace {
            target,
            device_free,
            ..TargetSpace::default()
        };
        (device, vec![target(0, 5), target(1, 70), target(2, 900)])
    }

    #[test]
    fn a_device_is_listed_with_its_targets_and_their_free_space() {
        let (device, space) = sample();
        let smd = smd_device(&device, 3, &space);
        assert_eq!(
            (smd.tgt_ids, smd.total_bytes, smd.avail_bytes, smd.rank),
            (vec![0, 2], 40960, 905, 3)
        );
        assert_eq!(smd.ctrlr.unwrap().dev_state, 3, "evicted is DAOS's EVICTED");
    }

    #[test]
    fn health_counts_saturate_in_daos_narrow_fields() {
        let (device, space) = sample();
        let health = healthy(&device, &space);
        assert_eq!((health.bio_read_errs, health.bio_write_errs), (u32::MAX, 0));
        assert!(health.dev_reliability_warn);
        assert_eq!(
            (health.timestamp, health.temperature, health.media_errs),
            (7, 350, 4)
        );
        assert_eq!(
            (
                health.avail_spare_warn,
                health.temp_warn,
                health.read_only_warn,
                health.volatile_mem_warn
            ),
            (false, true, true, false)
        );
        assert_eq!(health.total_bytes, total_bytes(&device));
    }
}
