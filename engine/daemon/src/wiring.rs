//! From the configuration to each crate's options: the only place that knows both.

use std::path::PathBuf;
use std::time::Duration;

use engine_config::{Config, LogFormat, Machine};
use engine_devices::Criteria;
use engine_loader::SearchPath;
use engine_rpc::{BulkClass, Membership, Security};
use engine_telemetry::log::{Format, LogOptions};
use spdk_bdev::Registry;
use spdk_reactor::ReactorOptions;

use crate::slow::SlowBook;

pub(crate) fn log(config: &Config) -> LogOptions {
    let format = match config.telemetry.log_format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    };
    LogOptions {
        format,
        mask: config.telemetry.log_mask.clone(),
        file: config.telemetry.log_file.clone(),
    }
}

pub(crate) fn reactors(config: &Config, cpus: Vec<usize>) -> ReactorOptions {
    ReactorOptions {
        cpus,
        idle_latency_us: config.engine.idle_latency_us.into(),
        pin: true,
        name_prefix: "keel_reactor".to_owned(),
    }
}

/// What counts as slow; zero: nothing does.
fn slow_after(config: &Config) -> Duration {
    Duration::from_micros(config.telemetry.slow_us.into())
}

/// Devices whose slow I/Os go into `slow`.
pub(crate) fn registry(config: &Config, slow: &SlowBook) -> Registry {
    match slow.ios(slow_after(config)) {
        Some(ios) => Registry::telling(ios),
        None => Registry::new(),
    }
}

pub(crate) fn criteria(config: &Config) -> Criteria {
    Criteria {
        enabled: config.health.auto_evict,
        max_io_errs: config.health.max_io_errors.into(),
        max_csum_errs: config.health.max_checksum_errors.into(),
    }
}

pub(crate) fn module_path(config: &Config) -> SearchPath {
    let exe = std::env::current_exe().unwrap_or_default();
    let own = Machine::module_dirs_of(exe.parent().unwrap_or(&PathBuf::new()));
    SearchPath::new(config.modules.path.iter().cloned().chain(own))
}

pub(crate) fn drpc(config: &Config) -> engine_drpc::Options {
    let drpc = &config.drpc;
    engine_drpc::Options {
        max_sessions: drpc.max_sessions as usize,
        max_in_flight: drpc.max_in_flight as usize,
        max_message: drpc.max_message.0 as usize,
        allow_uids: drpc.allow_uids.clone(),
        ..engine_drpc::Options::default()
    }
}

/// The largest bulk that a request may carry.
const LARGE: usize = 4 << 20;
/// Objects travel in pieces of this size.
const PIECE: usize = 1 << 20;
const SMALL: usize = 64 << 10;

/// Buffers for bulk transfers.
pub(crate) fn bulk(config: &Config) -> Vec<BulkClass> {
    // Half of the memory in buffers that hold any request, the rest in those that most requests need.
    let memory = config.rpc.bulk_memory.0 as usize;
    let class = |buffer_len: usize, part: usize| BulkClass {
        buffer_len,
        count: (memory / part / buffer_len).max(1),
    };
    vec![class(SMALL, 8), class(PIECE, 3), class(LARGE, 2)]
}

/// Where etcd is. What was seen of it is kept beside the engine's uuid.
pub(crate) fn etcd(config: &Config) -> engine_etcd::Options {
    let etcd = &config.group.etcd;
    let identity = etcd.certificate.clone().zip(etcd.key.clone());
    engine_etcd::Options {
        endpoints: etcd.endpoints.clone(),
        prefix: format!(
            "{}/{}",
            etcd.prefix.trim_end_matches('/'),
            config.engine.system
        ),
        lease: Duration::from_secs(etcd.lease_s.into()),
        tls: etcd.ca.clone().map(|ca| engine_etcd::Tls { ca, identity }),
        storage: config.engine.storage_dir.clone(),
    }
}

pub(crate) fn rpc(
    config: &Config,
    membership: &Membership,
    tls: Option<Security>,
    slow: &SlowBook,
) -> engine_rpc::Options {
    let rpc = &config.rpc;
    engine_rpc::Options {
        max_connections: rpc.max_connections as usize,
        max_in_flight_per_connection: rpc.max_in_flight as usize,
        group: membership.clone(),
        tls,
        bulk: bulk(config),
        slow_request: slow_after(config),
        on_slow: Some(slow.requests()),
        ..engine_rpc::Options::default()
    }
}
