//! `keel pool create|list|query|evict|rename|destroy`.

use obj_client::{PoolInfo, PoolStatus};
use serde_json::{Value, json};

use crate::cli::{Cli, Pool};
use crate::error::CliError;
use crate::output::{bytes, show, table};
use crate::store::{date, engine, failed, pool};

pub(crate) fn run(cli: &Cli, command: &Pool) -> Result<(), CliError> {
    match command {
        Pool::Create { label, size } => {
            let pool = engine(cli)?.create_pool(label, *size).map_err(failed)?;
            show(cli.output, &pool_json(pool.info()), |_| {
                format!(
                    "pool {} ({}) of {}",
                    pool.info().label,
                    pool.info().uuid,
                    bytes(pool.info().size)
                )
            })
        }
        Pool::List => {
            let pools = engine(cli)?.pools().map_err(failed)?;
            show(
                cli.output,
                &pools.iter().map(pool_json).collect::<Vec<_>>(),
                |_| pools_text(&pools),
            )
        }
        Pool::Query { pool: wanted } => {
            let status = pool(cli, wanted)?.status().map_err(failed)?;
            show(cli.output, &status_json(&status), |_| status_text(&status))
        }
        Pool::Evict { pool } => {
            let found = engine(cli)?.pool(pool).map_err(failed)?;
            let count = found.evict().map_err(failed)?;
            show(cli.output, &json!({ "evicted": count }), |_| {
                format!("{count} connections of pool {pool} are taken away")
            })
        }
        Pool::Rename { pool, label } => {
            let found = engine(cli)?.pool(pool).map_err(failed)?;
            found.rename(label).map_err(failed)?;
            show(cli.output, &json!({ "label": label }), |_| {
                format!("pool {pool} is {label} now")
            })
        }
        Pool::Destroy { pool, force } => {
            engine(cli)?.destroy_pool(pool, *force).map_err(failed)?;
            show(cli.output, &json!({ "destroyed": pool }), |_| {
                format!("pool {pool} is gone")
            })
        }
    }
}

fn pool_json(pool: &PoolInfo) -> Value {
    json!({ "uuid": pool.uuid, "label": pool.label, "size": pool.size, "used": pool.used, "created_ns": pool.created, "targets": pool.targets })
}

fn pools_text(pools: &[PoolInfo]) -> String {
    let row = |p: &PoolInfo| {
        vec![
            p.label.clone(),
            bytes(p.size),
            bytes(p.used),
            p.targets.to_string(),
            date(p.created),
            p.uuid.to_string(),
        ]
    };
    table(
        &["LABEL", "SIZE", "USED", "TARGETS", "CREATED", "UUID"],
        &pools.iter().map(row).collect::<Vec<_>>(),
    )
}

fn status_json(status: &PoolStatus) -> Value {
    let targets = status.targets.iter().map(|t| {
        json!({ "target": t.target, "quota": t.quota, "used": t.used, "device_total": t.device_total, "device_free": t.device_free, "failure": t.failure })
    });
    json!({ "pool": pool_json(&status.pool), "containers": status.containers, "connections": status.connections, "map_version": status.map_version, "targets": targets.collect::<Vec<_>>() })
}

fn status_text(status: &PoolStatus) -> String {
    let row = |t: &obj_client::TargetStatus| {
        let state = t.failure.clone().unwrap_or_else(|| "up".to_owned());
        vec![
            t.target.to_string(),
            bytes(t.quota),
            bytes(t.used),
            bytes(t.device_total),
            bytes(t.device_free),
            state,
        ]
    };
    let head = pools_text(std::slice::from_ref(&status.pool));
    let rows: Vec<_> = status.targets.iter().map(row).collect();
    format!(
        "{head}containers: {}, connections: {}, map version: {}\n\n{}",
        status.containers,
        status.connections,
        status.map_version,
        table(
            &["TARGET", "QUOTA", "USED", "DEVICE", "FREE", "STATE"],
            &rows
        )
    )
}
