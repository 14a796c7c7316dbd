//! The object module: pools, containers and byte objects on the targets.
//!
//! Pools and containers exist on every target; the system xstream changes them, one change at a time, target 0 last when
//! they come and first when they go, so that target 0 is the truth after a crash and the others follow it at the next
//! start. An object's head record lives on the target that its name hashes to, its pieces on that target and those
//! after it (`obj_proto::Placement`); what happens on one target is `obj_store`'s.
//!
//! | file | concept |
//! |---|---|
//! | `classify` | requests by class, for the scheduler |
//! | `device` | this target's share of its device, as the store wants it |
//! | `target` | what one xstream knows: its store, uploads, readers' pins, metrics |
//! | `keep` | a store over evictions, removals and returns of its device |
//! | `start` | setup and cleanup: opening, formatting, making the targets agree |
//! | `pools` | pools and containers, on the system xstream |
//! | `connections` | who is connected to pools |
//! | `handles` | open containers, and what their handles allow |
//! | `props` | labels that change |
//! | `truth` | what all of these say to targets: incast variables |
//! | `objects` | put, get, list on a target |
//! | `uploads` | objects of several pieces, across targets |
//! | `reclaim` | dropping what was replaced, removed or never finished |
//! | `failure` | errors as replies |
//!
//! Neighbours: `module_sdk` below, `obj_client` on the other end, `mgmt` calls the pool operations inside the engine.
//! Thread rule: handlers stay on the xstream that they were sent to; work for another target is a task there.

mod classify;
mod connections;
mod device;
mod failure;
mod handles;
mod keep;
mod objects;
mod pools;
mod props;
mod reclaim;
mod start;
mod target;
mod truth;
mod uploads;

use obj_proto::Op;
use target::STATE;

module_sdk::module! {
    name: obj,
    id: obj_proto::MODULE_ID as i32,
    about: "pools, containers and byte objects, durable and checksummed",
    tls: STATE,
    init: truth::register,
    setup: start::setup,
    cleanup: start::cleanup,
    rpc: {
        1 => {
            Op::PoolCreate.index() => pools::pool_create,
            Op::PoolDestroy.index() => pools::pool_destroy,
            Op::PoolList.index() => pools::pool_list,
            Op::PoolQuery.index() => pools::pool_query,
            Op::TargetList.index() => pools::target_list,
            Op::ContCreate.index() => pools::cont_create,
            Op::ContDestroy.index() => pools::cont_destroy,
            Op::ContList.index() => pools::cont_list,
            Op::ContQuery.index() => pools::cont_query,
            Op::Put.index() => objects::put,
            Op::PutBegin.index() => uploads::begin,
            Op::PutPiece.index() => uploads::piece,
            Op::PutCommit.index() => uploads::commit,
            Op::PutAbort.index() => uploads::abort,
            Op::PutRenew.index() => uploads::renew,
            Op::Get.index() => objects::get,
            Op::GetPiece.index() => objects::get_piece,
            Op::GetRenew.index() => objects::get_renew,
            Op::GetClose.index() => objects::get_close,
            Op::Stat.index() => objects::stat,
            Op::Remove.index() => objects::remove,
            Op::List.index() => objects::list,
            Op::ContOpen.index() => handles::cont_open,
            Op::ContClose.index() => handles::cont_close,
            Op::PoolEvict.index() => connections::pool_evict,
            Op::PoolConnect.index() => connections::pool_connect,
            Op::PoolDisconnect.index() => connections::pool_disconnect,
            Op::PoolSetProp.index() => props::pool_set_prop,
            Op::ContSetProp.index() => props::cont_set_prop,
            Op::PoolMap.index() => connections::pool_map,
            Op::ContProp.index() => handles::cont_prop,
        },
    },
    classify: classify::classify,
}

const _: () = assert!(obj_proto::PROTOCOL_VERSION == 1, "as declared above");
const _: () = assert!(
    obj_proto::CSUM_CHUNK == obj_store::CSUM_CHUNK,
    "checksums travel unchanged"
);
const _: () = assert!(
    obj_proto::PIECE_SIZE == obj_store::PIECE_MAX,
    "a piece is what a store takes"
);
