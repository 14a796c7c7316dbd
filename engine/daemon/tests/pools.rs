//! Pools and containers that somebody is connected to: what is known of them on each target, as incast variables.

#![allow(missing_docs, reason = "a test")]

mod harness;

use std::io::Cursor;

use daos_errno::Der;
use drpc_wire::{keel, methods, mgmt, modules};
use harness::{Config, Engine, Kind, bytes};
use obj_client::{Container, GetOptions, ObjError, PutOptions};

fn put(cont: &Container, name: &str, data: &[u8]) -> Result<(), ObjError> {
    cont.put(name, &mut Cursor::new(data), PutOptions::default())
        .map(drop)
}

fn get(cont: &Container, name: &str) -> Result<Vec<u8>, ObjError> {
    let mut data = Vec::new();
    cont.get(name, &mut data, GetOptions::default())?;
    Ok(data)
}

/// The variables of a pool, as `keel iv show` names them: class and how many; `None`: the namespace does not exist.
fn variables(engine: &Engine, pool: uuid::Uuid) -> Option<Vec<String>> {
    let asked = keel::IvListReq { most: 100 };
    let list: keel::IvList = engine.ask(modules::KEEL, methods::IV_LIST, &asked);
    let name = pool.to_string();
    let space = list.spaces.into_iter().find(|space| space.name == name)?;
    let mut classes: Vec<_> = space.entries.into_iter().map(|entry| entry.class).collect();
    classes.sort();
    classes.dedup();
    Some(classes)
}

#[test]
fn open_containers_are_checked_by_every_target_until_they_are_closed_or_evicted() {
    let engine = Config::new(2, Kind::Malloc).start();
    let client = engine.connect();
    let pool = client.create_pool("tank", 64 << 20).unwrap();
    pool.create_container("photos").unwrap();
    let (writer, reader) = (
        pool.open("photos", false).unwrap(),
        pool.open("photos", true).unwrap(),
    );
    // Small ones on both targets, and one of several pieces.
    let names: Vec<String> = (0..8).map(|nr| format!("object{nr}")).collect();
    let large = bytes(1, 3 << 20);
    for name in &names {
        put(&writer, name, name.as_bytes()).unwrap();
        assert_eq!(get(&reader, name).unwrap(), name.as_bytes());
    }
    put(&writer, "large", &large).unwrap();
    assert_eq!(get(&reader, "large").unwrap(), large);
    assert_eq!(reader.list("").count(), 9);
    let refused = put(&reader, &names[0], b"no").unwrap_err();
    assert_eq!(refused.der(), Der::NO_PERM, "{refused}");
    assert!(reader.remove(&names[0]).is_err());

    let busy = client.destroy_pool("tank", false).unwrap_err().to_string();
    assert!(busy.contains("containers"), "{busy}");
    let own = pool.info().uuid;
    assert_eq!(
        variables(&engine, own).expect("a namespace while somebody is connected"),
        ["cont_capa", "pool_conn", "pool_map"]
    );

    drop(reader);
    assert_eq!(pool.status().unwrap().connections, 1);
    assert_eq!(pool.evict().unwrap(), 1, "the reader's has ended");
    for name in &names {
        let gone = get(&writer, name).unwrap_err();
        assert_eq!(gone.der(), Der::NO_HDL, "{gone}");
    }
    assert_eq!(variables(&engine, own), None, "with the last connection");
    // Who names a container by its uuid is not checked.
    let plain = pool.container("photos").unwrap();
    assert_eq!(get(&plain, "large").unwrap(), large);
    let again = pool.open("photos", false).unwrap();
    assert_eq!(get(&again, &names[1]).unwrap(), names[1].as_bytes());
    client.destroy_pool("tank", true).unwrap();
    assert!(get(&again, &names[1]).is_err());
    engine.terminate().expect(0, "stopped");
}

#[test]
fn a_pools_namespace_counts_its_connections() {
    let engine = Config::new(2, Kind::Malloc).start();
    let client = engine.connect();
    let own = client.create_pool("tank", 64 << 20).unwrap().info().uuid;
    client
        .pool("tank")
        .unwrap()
        .create_container("photos")
        .unwrap();
    assert_eq!(variables(&engine, own), None);
    let first = client.connect_pool("tank", false).unwrap();
    let second = client.connect_pool("tank", true).unwrap();
    let refused = second.open("photos", false).unwrap_err();
    assert_eq!(refused.der(), Der::NO_PERM, "{refused}");
    let reader = second.open("photos", true).unwrap();
    put(&first.open("photos", false).unwrap(), "one", b"1").unwrap();
    drop(first);
    assert_eq!(get(&reader, "one").unwrap(), b"1", "another's connection");
    let busy = client.destroy_pool("tank", false).unwrap_err();
    assert_eq!(busy.der(), Der::BUSY, "{busy}");
    drop(second);
    assert!(
        variables(&engine, own).is_some(),
        "an open container keeps its connection"
    );
    drop(reader);
    assert_eq!(variables(&engine, own), None);
    assert_eq!(
        client.pool("tank").unwrap().status().unwrap().connections,
        0
    );
    // A container that is destroyed takes its handles along.
    let cont = client.pool("tank").unwrap().open("photos", false).unwrap();
    put(&cont, "two", b"2").unwrap();
    client
        .pool("tank")
        .unwrap()
        .destroy_container("photos")
        .unwrap();
    let gone = get(&cont, "two").unwrap_err();
    assert_eq!(gone.der(), Der::NO_HDL, "{gone}");
    drop(cont);
    client.destroy_pool("tank", false).unwrap();
    engine.terminate().expect(0, "stopped");
}

/// The status of giving a pool this label over dRPC.
fn label_pool(engine: &Engine, pool: uuid::Uuid, label: &str) -> i32 {
    let property = mgmt::PoolProperty {
        number: 1,
        value: Some(mgmt::pool_property::Value::Strval(label.to_owned())),
    };
    let request = mgmt::PoolSetPropReq {
        id: pool.to_string(),
        properties: vec![property],
        ..Default::default()
    };
    let answer: mgmt::PoolSetPropResp = engine.ask(modules::MGMT, methods::POOL_SET_PROP, &request);
    answer.status
}

#[test]
fn new_labels_reach_the_caches_of_targets_and_live_on() {
    let config = Config::new(2, Kind::File);
    let engine = config.start();
    let client = engine.connect();
    client.create_pool("other", 16 << 20).unwrap();
    let own = client.create_pool("tank", 64 << 20).unwrap().info().uuid;
    let pool = client.connect_pool("tank", false).unwrap();
    pool.create_container("photos").unwrap();
    pool.create_container("taken").unwrap();
    let cont = pool.open("photos", false).unwrap();
    put(&cont, "one", b"1").unwrap();
    for target in 0..2 {
        assert_eq!(pool.map(target).unwrap().label, "tank");
        assert_eq!(cont.properties(target).unwrap().label, "photos");
    }
    assert_eq!(label_pool(&engine, own, "other"), Der::EXIST.neg());
    assert_eq!(label_pool(&engine, own, "lake"), 0);
    let taken = pool.rename_container("photos", "taken").unwrap_err();
    assert_eq!(taken.der(), Der::EXIST, "{taken}");
    pool.rename_container("photos", "pictures").unwrap();
    for target in 0..2 {
        // Eager for containers; lazy for pools, as in DAOS: each target hears of it by and by.
        assert_eq!(cont.properties(target).unwrap().label, "pictures");
        harness::eventually("the pool's label", || {
            (pool.map(target).unwrap().label == "lake").then_some(())
        });
    }
    let asked = mgmt::PoolGetPropReq {
        id: own.to_string(),
        ..Default::default()
    };
    let got: mgmt::PoolGetPropResp = engine.ask(modules::MGMT, methods::POOL_GET_PROP, &asked);
    let label = mgmt::pool_property::Value::Strval("lake".to_owned());
    assert_eq!(got.properties[0].value, Some(label));
    assert_eq!(get(&cont, "one").unwrap(), b"1");
    let evict = |destroy| {
        let request = mgmt::PoolEvictReq {
            id: own.to_string(),
            destroy,
            ..Default::default()
        };
        let answer: mgmt::PoolEvictResp = engine.ask(modules::MGMT, methods::POOL_EVICT, &request);
        (answer.status, answer.count)
    };
    assert_eq!(evict(true), (Der::BUSY.neg(), 0), "somebody is connected");
    assert_eq!(evict(false), (0, 1));
    assert_eq!(get(&cont, "one").unwrap_err().der(), Der::NO_HDL);
    engine.kill();

    let engine = config.start();
    let pool = engine.connect().pool("lake").unwrap();
    assert_eq!(pool.info().uuid, own);
    assert_eq!(
        get(&pool.open("pictures", true).unwrap(), "one").unwrap(),
        b"1"
    );
    assert!(engine.connect().pool("tank").is_err());
    engine.terminate().expect(0, "stopped");
}
