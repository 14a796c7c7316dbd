//! Devices over time: eviction, replacement, and targets that never start on a device that is not theirs.

#![allow(missing_docs, reason = "a test")]

mod harness;

use std::fs;
use std::io::Cursor;

use daos_errno::Der;
use drpc_wire::{ctl, keel, methods, modules};
use harness::{Config, Engine, Kind, eventually, is_over_spdk};
use obj_client::{Container, ObjError, ObjectInfo, PutOptions};
use obj_proto::Placement;

fn devices(engine: &Engine) -> Vec<(String, String, Vec<u32>)> {
    let list: keel::Devices = engine.ask(modules::KEEL, methods::DEVICES, &());
    let row = |device: keel::Device| (device.name, device.state, device.targets);
    list.devices.into_iter().map(row).collect()
}

fn uuid(engine: &Engine, name: &str) -> String {
    let list: keel::Devices = engine.ask(modules::KEEL, methods::DEVICES, &());
    list.devices
        .into_iter()
        .find(|device| device.name == name)
        .unwrap()
        .uuid
}

fn set_faulty(engine: &Engine, uuid: &str) -> ctl::DevManageResp {
    let request = ctl::SetFaultyReq {
        uuid: uuid.to_owned(),
    };
    engine.ask(modules::MGMT, methods::DEV_SET_FAULTY, &request)
}

fn replace(engine: &Engine, old: &str, new: &str) -> ctl::DevManageResp {
    let request = ctl::DevReplaceReq {
        old_dev_uuid: old.to_owned(),
        new_dev_uuid: new.to_owned(),
    };
    engine.ask(modules::MGMT, methods::DEV_REPLACE, &request)
}

fn put(cont: &Container, name: &str) -> Result<ObjectInfo, ObjError> {
    let mut data = Cursor::new(vec![7; 100_000]);
    cont.put(name, &mut data, PutOptions::default())
}

const NOBODY: &str = "11111111-2222-3333-4444-555555555555";

#[test]
fn an_evicted_device_takes_no_io_until_it_is_put_back_also_over_a_restart() {
    let config = Config::new(2, Kind::File);
    let engine = config.start();
    let pool = engine.connect().create_pool("tank", 64 << 20).unwrap();
    let cont = pool.create_container("cont").unwrap();
    let put = |name: &str| put(&cont, name);
    (0..8).for_each(|nr| put(&format!("before {nr}")).map(drop).unwrap());

    let second = uuid(&engine, "d1");
    let answer = set_faulty(&engine, &second);
    assert_eq!(answer.status, 0);
    let device = answer.device.unwrap();
    assert_eq!(
        (device.uuid.as_str(), device.ctrlr.unwrap().dev_state),
        (second.as_str(), 3)
    );
    engine.wait_log("was evicted: set faulty by an operator");
    let failed = (0..16)
        .filter(|nr| put(&format!("after {nr}")).is_err())
        .count();
    assert!(failed > 0, "target 1 still takes objects");
    assert_eq!(
        set_faulty(&engine, &second).status,
        0,
        "once more changes nothing"
    );
    let normal = ("d0".to_owned(), "normal".to_owned(), vec![0]);
    assert_eq!(
        devices(&engine),
        [normal.clone(), ("d1".into(), "evicted".into(), vec![1])]
    );
    assert_eq!(engine.status().targets[1].state, "down");
    assert_eq!(engine.terminate().code, Some(0));

    let engine = config.start();
    engine.wait_log("target 1 is down: ");
    assert_eq!(
        devices(&engine),
        [normal.clone(), ("d1".into(), "evicted".into(), vec![1])]
    );
    assert_eq!(replace(&engine, &second, &second).status, 0);
    assert_eq!(
        devices(&engine),
        [normal, ("d1".into(), "normal".into(), vec![1])]
    );
    assert_eq!(engine.terminate().code, Some(0));

    let engine = config.start();
    let pool = engine.connect().pool("tank").unwrap();
    let cont = pool.container("cont").unwrap();
    for nr in 0..8 {
        let mut data = Vec::new();
        cont.get(
            &format!("before {nr}"),
            &mut data,
            obj_client::GetOptions::default(),
        )
        .unwrap();
        assert_eq!(data, [7; 100_000]);
    }
    assert_eq!(engine.terminate().code, Some(0));
}

#[test]
fn a_device_that_is_put_back_serves_again_without_a_restart() {
    let config = Config::new(2, Kind::File);
    let engine = config.start();
    let pool = engine.connect().create_pool("tank", 64 << 20).unwrap();
    let cont = pool.create_container("cont").unwrap();
    let put = |name: &str| put(&cont, name);
    (0..8).for_each(|nr| put(&format!("object {nr}")).map(drop).unwrap());
    let second = uuid(&engine, "d1");
    // What each target knows of the others: the pool map, an incast variable.
    let known = engine.connect().connect_pool("tank", false).unwrap();
    let open = known.open("cont", false).unwrap();
    let down = |target| known.map(target).unwrap().targets[1].is_some();
    let head = |name: &String| Placement::new(&cont.info().uuid, name, 2).head() == 0;
    let large = (0..).map(|nr| format!("large {nr}")).find(head).unwrap();
    let put_large = || {
        let mut data = Cursor::new(vec![7; 3 << 20]);
        open.put(&large, &mut data, PutOptions::default())
    };
    put_large().unwrap();
    let mut version = known.map(0).unwrap().version;
    for round in 0..3 {
        assert_eq!(set_faulty(&engine, &second).status, 0);
        engine.wait_log("target 1 is down: its device was evicted or removed");
        eventually("target 0 knows it", || down(0).then_some(()));
        let refused = put_large().unwrap_err().to_string();
        assert!(refused.contains("needs all targets"), "{refused}");
        let failed = (0..16)
            .filter(|nr| put(&format!("round {round} {nr}")).is_err())
            .count();
        assert!(failed > 0, "target 1 still takes objects");
        assert_eq!(replace(&engine, &second, &second).status, 0);
        eventually("target 1 serves again", || {
            let back = (0..16).all(|nr| put(&format!("round {round} {nr}")).is_ok());
            back.then_some(())
        });
        eventually("all targets know it", || {
            (!down(0) && !down(1)).then_some(())
        });
        put_large().unwrap();
        let now = known.map(1).unwrap().version;
        assert!(now > version, "{now} > {version}");
        version = now;
        for nr in 0..8 {
            let mut data = Vec::new();
            let options = obj_client::GetOptions::default();
            cont.get(&format!("object {nr}"), &mut data, options)
                .unwrap();
            assert_eq!(data, [7; 100_000]);
        }
        assert_eq!(engine.status().targets[1].state, "up");
    }
    // Down at the start, and let in later.
    set_faulty(&engine, &second);
    assert_eq!(engine.terminate().code, Some(0));
    let engine = config.start();
    engine.wait_log("target 1 is down: ");
    assert_eq!(replace(&engine, &second, &second).status, 0);
    engine.wait_log("target 1 is back: ");
    assert_eq!(engine.terminate().code, Some(0));
}

#[test]
fn a_device_that_fails_too_often_is_evicted_by_itself() {
    let mut config = Config::new(2, Kind::File);
    config.more = "[health]\nmax_io_errors = 2\n".to_owned();
    let engine = config.start();
    let pool = engine.connect().create_pool("tank", 64 << 20).unwrap();
    let cont = pool.create_container("cont").unwrap();
    for nr in 0..16 {
        cont.put(
            &format!("object {nr}"),
            &mut Cursor::new(vec![7; 1 << 20]),
            PutOptions::default(),
        )
        .unwrap();
    }
    // Everything that target 1 wrote is gone: its reads end early.
    let file = fs::File::options()
        .write(true)
        .open(config.device(1))
        .unwrap();
    file.set_len(4096).unwrap();
    let get = |nr: u32| {
        cont.get(
            &format!("object {nr}"),
            &mut Vec::new(),
            obj_client::GetOptions::default(),
        )
    };
    let failed = (0..16).filter(|nr| get(*nr).is_err()).count();
    assert!(failed > 2, "only {failed} reads failed");
    let evicted = ("d1".to_owned(), "evicted".to_owned(), vec![1]);
    eventually("the device is evicted", || {
        devices(&engine).contains(&evicted).then_some(())
    });
    engine.wait_log("reads and writes failed, more than 2");
    let list: keel::Devices = engine.ask(modules::KEEL, methods::DEVICES, &());
    assert!(
        list.devices[1]
            .reason
            .ends_with("reads and writes failed, more than 2"),
        "{list:?}"
    );
    assert_eq!(list.devices[0].state, "normal");
    assert_eq!(engine.terminate().code, Some(0));
}

#[test]
fn what_daos_refuses_is_refused() {
    let config = Config::new(2, Kind::File);
    let engine = config.start();
    let (first, second) = (uuid(&engine, "d0"), uuid(&engine, "d1"));
    assert_eq!(set_faulty(&engine, NOBODY).status, Der::NONEXIST.neg());
    assert_eq!(set_faulty(&engine, "no uuid").status, Der::INVAL.neg());
    assert_eq!(
        replace(&engine, &first, &first).status,
        Der::INVAL.neg(),
        "it is not faulty"
    );
    set_faulty(&engine, &first);
    assert_eq!(
        replace(&engine, &first, &second).status,
        Der::INVAL.neg(),
        "the other has targets"
    );
    assert_eq!(replace(&engine, &first, NOBODY).status, Der::INVAL.neg());
    assert_eq!(replace(&engine, NOBODY, &first).status, Der::NONEXIST.neg());
    assert_eq!(engine.terminate().code, Some(0));
}

#[test]
fn devices_that_changed_places_are_noticed_before_anything_is_read() {
    let config = Config::new(2, Kind::File);
    let engine = config.start();
    assert_eq!(engine.terminate().code, Some(0));
    let aside = config.path().join("aside");
    fs::rename(config.device(0), &aside).unwrap();
    fs::rename(config.device(1), config.device(0)).unwrap();
    fs::rename(&aside, config.device(1)).unwrap();
    if is_over_spdk() {
        // SPDK's files are known by their names there: the label of the store notices, a step later.
        let engine = config.spawn();
        engine.wait_log("setup failed; correct the cause");
        engine.wait_log("the device is target 1 of 2, not 0 of 2");
        assert_eq!(engine.terminate().code, Some(0));
    } else {
        config
            .fails()
            .expect(73, "the data of target 0 is on device `d0`");
    }
    fs::rename(config.device(0), &aside).unwrap();
    fs::rename(config.device(1), config.device(0)).unwrap();
    fs::rename(&aside, config.device(1)).unwrap();
    let engine = config.start();
    assert_eq!(engine.terminate().code, Some(0));
}

#[test]
fn a_damaged_table_stops_the_start_and_says_what_to_do() {
    let config = Config::new(1, Kind::File);
    let engine = config.start();
    assert_eq!(engine.terminate().code, Some(0));
    let table = config.storage().join("devices.table");
    let mut text = fs::read(&table).unwrap();
    let last = text.len() - 10;
    text[last] ^= 1;
    fs::write(&table, text).unwrap();
    config
        .fails()
        .expect(73, "its checksum is wrong; restore it from a backup");
    fs::remove_file(&table).unwrap();
    let engine = config.start();
    eventually("the table is there again", || table.exists().then_some(()));
    assert_eq!(engine.terminate().code, Some(0));
}

#[test]
fn devices_that_keep_nothing_are_normal_and_cannot_be_evicted() {
    let engine = Config::new(2, Kind::Malloc).start();
    let state = devices(&engine)
        .into_iter()
        .map(|(_, state, _)| state)
        .collect::<Vec<_>>();
    assert_eq!(state, ["normal", "normal"]);
    assert_eq!(
        set_faulty(&engine, &uuid(&engine, "d0")).status,
        Der::NONEXIST.neg()
    );
    assert_eq!(engine.terminate().code, Some(0));
}
