//! Pools: DAOS's requests, answered by the object module.
//!
//! One in-process RPC to obj per method. obj makes a pool on every target or on none, and undoes what it has begun.

use crate::acl;
use crate::engine::status;
use crate::proto::ctl::{SmdPoolReq, SmdPoolResp, smd_pool_resp};
use crate::proto::mgmt::{
    PoolCreateReq, PoolCreateResp, PoolDestroyReq, PoolDestroyResp, PoolProperty, PoolQueryReq,
    PoolQueryResp, PoolRebuildStatus, PoolServiceState, StorageMediaType, StorageUsageStats,
    pool_property, pool_rebuild_status,
};
use module_sdk::prost::Message;
use module_sdk::{Der, DmaBuf, Tag, rpc_call};
use obj_proto::{MODULE_ID, Op, PROTOCOL_VERSION, wire};
use uuid::Uuid;

/// DAOS_PROP_PO_LABEL.
pub(crate) const PROP_LABEL: u32 = 1;

/// Asks obj on the system xstream; its sentence to an error goes to the log, for DAOS's answers carry numbers only.
pub(crate) async fn obj<A: Message + Default>(op: Op, request: &impl Message) -> Result<A, Der> {
    let opcode = MODULE_ID << 24 | PROTOCOL_VERSION << 16 | op as u32;
    match rpc_call(
        Tag::System,
        opcode,
        &request.encode_to_vec(),
        DmaBuf::empty(),
    )
    .await
    {
        Ok(answer) => answer.decode(),
        Err(error) => {
            let said = wire::Error::decode(&*error.body)
                .unwrap_or_default()
                .message;
            module_sdk::warn!("{} failed: {}: {said}", op.name(), error.der);
            Err(error.der)
        }
    }
}

pub(crate) fn parsed(uuid: &str) -> Result<Uuid, Der> {
    Uuid::try_parse(uuid).map_err(|_| Der::INVAL)
}

/// `POOL_CREATE`.
pub(crate) async fn create(request: PoolCreateReq) -> PoolCreateResp {
    let made = async {
        let wanted = wanted(&request)?;
        let rank = own_rank(&request.ranks).await?;
        let made: wire::PoolCreateRep = obj(Op::PoolCreate, &wanted).await?;
        Ok::<_, Der>((rank, made.pool.unwrap_or_default().size))
    };
    match made.await {
        Ok((rank, size)) => PoolCreateResp {
            status: 0,
            svc_ldr: rank,
            svc_reps: vec![rank],
            tgt_ranks: vec![rank],
            tier_bytes: vec![size],
            ..PoolCreateResp::default()
        },
        Err(der) => PoolCreateResp {
            status: der.neg(),
            ..PoolCreateResp::default()
        },
    }
}

/// The engine's rank; an error when ranks are named that it is not.
async fn own_rank(ranks: &[u32]) -> Result<u32, Der> {
    let rank = status().await?.rank;
    if ranks.iter().any(|r| *r != rank) {
        module_sdk::warn!("ranks {ranks:?}: a pool lives on one rank so far, here on {rank}");
        return Err(Der::OOG);
    }
    Ok(rank)
}

/// DAOS's request as obj's.
fn wanted(request: &PoolCreateReq) -> Result<wire::PoolCreateReq, Der> {
    let uuid = parsed(&request.uuid)?;
    let size = match request.total_bytes {
        0 => request
            .tier_bytes
            .iter()
            .try_fold(0u64, |sum, tier| sum.checked_add(*tier))
            .ok_or(Der::INVAL)?,
        bytes => bytes,
    };
    if size == 0 || !request.acl.iter().all(|entry| acl::is_valid(entry)) {
        return Err(Der::INVAL);
    }
    let label = match request.properties.iter().find(|p| p.number == PROP_LABEL) {
        Some(PoolProperty {
            value: Some(pool_property::Value::Strval(label)),
            ..
        }) => label.clone(),
        Some(_) => return Err(Der::INVAL),
        None => format!("pool-{uuid}"), // a bare uuid is no label: references would be ambiguous
    };
    obj_proto::check_label(&label).map_err(|_| Der::INVAL)?;
    Ok(wire::PoolCreateReq {
        uuid: uuid.as_bytes().to_vec(),
        label,
        size,
    })
}

/// `POOL_DESTROY`.
pub(crate) async fn destroy(request: PoolDestroyReq) -> PoolDestroyResp {
    let result = async {
        let pool = parsed(&request.id)?.to_string();
        let wanted = wire::PoolDestroyReq {
            pool,
            force: request.recursive,
            evict: request.force,
        };
        obj::<wire::Empty>(Op::PoolDestroy, &wanted).await
    };
    PoolDestroyResp {
        status: result.await.map_or_else(Der::neg, |_| 0),
    }
}

/// `POOL_QUERY`.
pub(crate) async fn query(request: PoolQueryReq) -> PoolQueryResp {
    let asked = async {
        let pool = parsed(&request.id)?.to_string();
        let rank = status().await?.rank;
        Ok::<_, Der>((
            rank,
            obj::<wire::PoolQueryRep>(Op::PoolQuery, &wire::PoolQueryReq { pool }).await?,
        ))
    };
    match asked.await {
        Ok((rank, reply)) => described(&reply, rank, request.query_mask),
        Err(der) => PoolQueryResp {
            status: der.neg(),
            uuid: request.id,
            ..PoolQueryResp::default()
        },
    }
}

fn described(reply: &wire::PoolQueryRep, rank: u32, query_mask: u64) -> PoolQueryResp {
    let pool = reply.pool.clone().unwrap_or_default();
    let active: Vec<_> = reply.targets.iter().filter(|t| t.status == 0).collect();
    let disabled = reply.targets.len() - active.len();
    let free: Vec<u64> = active
        .iter()
        .map(|t| t.quota.saturating_sub(t.used))
        .collect();
    let sum: u64 = free.iter().sum();
    let space = StorageUsageStats {
        total: active.iter().map(|t| t.quota).sum(),
        free: sum,
        min: free.iter().copied().min().unwrap_or(0),
        max: free.iter().copied().max().unwrap_or(0),
        mean: sum.checked_div(free.len() as u64).unwrap_or(0),
        media_type: StorageMediaType::Nvme.into(),
    };
    let state = if disabled == 0 {
        PoolServiceState::Ready
    } else {
        PoolServiceState::TargetsExcluded
    };
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    PoolQueryResp {
        uuid: uuid_text(&pool.uuid),
        label: pool.label,
        total_targets: count(reply.targets.len()),
        active_targets: count(active.len()),
        disabled_targets: count(disabled),
        rebuild: Some(no_rebuild()),
        tier_stats: vec![space],
        version: reply.map_version,
        leader: rank,
        enabled_ranks: rank.to_string(),
        total_engines: 1,
        pool_layout_ver: PROTOCOL_VERSION,
        upgrade_layout_ver: PROTOCOL_VERSION,
        state: state.into(),
        svc_ldr: rank,
        svc_reps: vec![rank],
        query_mask,
        ..PoolQueryResp::default()
    }
}

/// No rebuild runs. State 0 is DAOS's BUSY, so an empty message would say the opposite.
fn no_rebuild() -> PoolRebuildStatus {
    let idle = pool_rebuild_status::State::Idle.into();
    PoolRebuildStatus {
        state: idle,
        derived_state: idle,
        ..PoolRebuildStatus::default()
    }
}

/// `SMD_LIST_POOLS`. Keel has no SPDK blobs, so that list stays empty.
pub(crate) async fn list(_: SmdPoolReq) -> SmdPoolResp {
    match obj::<wire::PoolListRep>(Op::PoolList, &wire::PoolListReq {}).await {
        Ok(reply) => {
            let pools = reply.pools.iter().map(|pool| smd_pool_resp::Pool {
                uuid: uuid_text(&pool.uuid),
                tgt_ids: (0..i32::try_from(pool.targets).unwrap_or(0)).collect(),
                blobs: vec![],
            });
            SmdPoolResp {
                status: 0,
                pools: pools.collect(),
            }
        }
        Err(der) => SmdPoolResp {
            status: der.neg(),
            pools: vec![],
        },
    }
}

pub(crate) fn uuid_text(bytes: &[u8]) -> String {
    Uuid::from_slice(bytes).unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::{PROP_LABEL, described, wanted};
    use crate::proto::mgmt::{PoolCreateReq, PoolProperty, PoolServiceState, pool_property::Value};
    use module_sdk::Der;
    use obj_proto::wire;

    const UUID: &str = "12345678-1234-1234-1234-123456789abc";

    fn request() -> PoolCreateReq {
        let label = PoolProperty {
            number: PROP_LABEL,
            value: Some(Value::Strval("tank".into())),
        };
        PoolCreateReq {
            uuid: UUID.into(),
            tier_bytes: vec![1 << 20, 3 << 20],
            properties: vec![label],
            ..Default::default()
        }
    }

    #[test]
    fn sizes_come_from_the_total_or_the_tiers() {
        let made = wanted(&request()).unwrap();
        assert_eq!(
            (made.label.as_str(), made.size, made.uuid.len()),
            ("tank", 4 << 20, 16)
        );
        assert_eq!(
            wanted(&PoolCreateReq {
                total_bytes: 7,
                ..request()
            })
            .unwrap()
            .size,
            7
        );
        let unlabelled = PoolCreateReq {
            properties: vec![],
            ..request()
        };
        assert_eq!(wanted(&unlabelled).unwrap().label, format!("pool-{UUID}"));
    }

    #[test]
    fn what_daos_refuses_is_invalid() {
        let number = PoolProperty {
            number: PROP_LABEL,
            value: Some(Value::Numval(1)),
        };
        let cases = [
            PoolCreateReq {
                uuid: "tank".into(),
                ..request()
            },
            PoolCreateReq {
                uuid: String::new(),
                ..request()
            },
            PoolCreateReq {
                tier_bytes: vec![],
                ..request()
            },
            PoolCreateReq {
                tier_bytes: vec![u64::MAX, 1],
                ..request()
            },
            PoolCreateReq {
                acl: vec!["nonsense".into()],
                ..request()
            },
            PoolCreateReq {
                properties: vec![number],
                ..request()
            },
        ];
        for case in cases {
            assert_eq!(wanted(&case), Err(Der::INVAL), "{case:?}");
        }
    }

    #[test]
    fn a_silent_target_degrades_the_pool_and_its_space_does_not_count() {
        let target = |quota, used, status| wire::TargetSpace {
            quota,
            used,
            status,
            ..Default::default()
        };
        let targets = vec![
            target(100, 40, 0),
            target(100, 0, -1011),
            target(100, 80, 0),
        ];
        let reply = wire::PoolQueryRep {
            pool: Some(wire::PoolInfo::default()),
            targets,
            containers: 0,
            map_version: 7,
            connections: 0,
        };
        let answer = described(&reply, 5, 3);
        assert_eq!(
            (
                answer.total_targets,
                answer.active_targets,
                answer.disabled_targets
            ),
            (3, 2, 1)
        );
        let space = &answer.tier_stats[0];
        assert_eq!(
            (space.total, space.free, space.min, space.max, space.mean),
            (200, 80, 20, 60, 40)
        );
        assert_eq!(
            (answer.state(), answer.leader, answer.query_mask),
            (PoolServiceState::TargetsExcluded, 5, 3)
        );
        assert_eq!(answer.version, 7, "of the pool map");
    }
}
