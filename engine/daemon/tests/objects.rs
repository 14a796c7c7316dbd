//! Clients that ask for what cannot be, and many at once: each gets an answer of its own, the engine lives.

#![allow(missing_docs, reason = "a test")]

mod harness;

use std::io::{Cursor, Read};
use std::sync::atomic::{AtomicBool, Ordering};

use daos_errno::Der;
use drpc_wire::Message;
use harness::{Config, Engine, Kind, bytes, eventually};
use obj_client::{Container, GetOptions, ObjError, PutOptions};
use obj_proto::{Op, Placement, csums, main_tag, wire};

fn put(cont: &Container, name: &str, data: &[u8]) -> Result<(), ObjError> {
    cont.put(name, &mut Cursor::new(data), PutOptions::default())
        .map(drop)
}

fn get(cont: &Container, name: &str) -> Result<Vec<u8>, ObjError> {
    let mut data = Vec::new();
    cont.get(name, &mut data, GetOptions::default())?;
    Ok(data)
}

/// An engine in memory with two targets, and a container in a pool of this size.
fn engine(pool: u64) -> (Engine, Container) {
    let engine = Config::new(2, Kind::Malloc).start();
    let pool = engine.connect().create_pool("tank", pool).unwrap();
    let cont = pool.create_container("cont").unwrap();
    (engine, cont)
}

#[test]
fn a_source_that_changes_while_it_is_read_changes_nothing_that_is_stored() {
    let (engine, cont) = engine(64 << 20);
    let old = bytes(1, 3 << 20);
    put(&cont, "object", &old).unwrap();
    let free = || cont_used(&engine);
    let used = free();
    for (promised, len) in [(4 << 20, (4 << 20) - 1), (4 << 20, (4 << 20) + 1), (10, 0)] {
        let options = PutOptions {
            size: Some(promised),
            ..PutOptions::default()
        };
        let mut source = Cursor::new(bytes(2, len));
        let error = cont.put("object", &mut source, options).unwrap_err();
        assert!(matches!(error, ObjError::SourceChanged { .. }), "{error}");
    }
    // And one that breaks off with an error.
    let mut source = bytes(2, 2 << 20).chain_error();
    let error = cont.put("object", &mut source, PutOptions::default());
    assert!(matches!(error, Err(ObjError::Source { .. })), "{error:?}");
    assert!(get(&cont, "object").unwrap() == old);
    eventually("the pieces are gone", || (free() == used).then_some(()));
    assert_eq!(engine.terminate().code, Some(0));
}

fn cont_used(engine: &Engine) -> u64 {
    let pool = engine.connect().pool("tank").unwrap();
    pool.status().unwrap().pool.used
}

/// Bytes, then an error.
struct Broken(Cursor<Vec<u8>>);

trait ChainError {
    fn chain_error(self) -> Broken;
}

impl ChainError for Vec<u8> {
    fn chain_error(self) -> Broken {
        Broken(Cursor::new(self))
    }
}

impl Read for Broken {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        match self.0.read(buf)? {
            0 => Err(std::io::Error::other("the disk is gone")),
            len => Ok(len),
        }
    }
}

#[test]
fn a_full_pool_says_so_and_serves_again_when_something_is_removed() {
    let (engine, cont) = engine(16 << 20);
    let mut stored: u64 = 0;
    let error = eventually("the pool is full", || {
        let name = format!("object {stored}");
        let result = put(&cont, &name, &bytes(stored, 300_000));
        stored += u64::from(result.is_ok());
        result.err()
    });
    assert_eq!(error.der(), Der::NOSPACE, "{error}");
    assert!(
        stored > 20 && error.to_string().contains("remove objects"),
        "{error}"
    );
    for nr in 0..stored {
        assert!(get(&cont, &format!("object {nr}")).unwrap() == bytes(nr, 300_000));
    }
    for nr in 0..stored {
        cont.remove(&format!("object {nr}")).unwrap();
    }
    eventually("all is free", || (cont_used(&engine) == 0).then_some(()));
    put(&cont, "again", &bytes(0, 5 << 20)).unwrap();
    assert_eq!(engine.terminate().code, Some(0));
}

#[test]
fn readers_of_an_object_that_is_replaced_see_one_version_whole() {
    let (engine, cont) = engine(64 << 20);
    let versions: Vec<_> = (0..4).map(|seed| bytes(seed, (2 << 20) + 5)).collect();
    put(&cont, "object", &versions[0]).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let pool = engine.connect().pool("tank").unwrap();
                let cont = pool.container("cont").unwrap();
                while !done.load(Ordering::Relaxed) {
                    let found = get(&cont, "object").unwrap();
                    assert!(versions.contains(&found), "a mixture of versions");
                }
            });
        }
        for nr in 0..12 {
            put(&cont, "object", &versions[nr % versions.len()]).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(engine.terminate().code, Some(0));
}

/// A request that no client of ours makes; the status and the sentence.
fn raw(engine: &Engine, tag: u32, op: Op, body: &impl Message, bulk: &[u8]) -> (i32, String) {
    let mut client = rpc_wire::Client::connect(engine.rpc_address().as_str(), tag).unwrap();
    let bulk = (!bulk.is_empty()).then_some(bulk);
    let reply = client
        .call(op.opcode(), &body.encode_to_vec(), bulk)
        .unwrap();
    let said = wire::Error::decode(reply.body.as_slice()).unwrap_or_default();
    (reply.status, said.message)
}

#[test]
fn requests_that_no_client_makes_are_refused_one_by_one() {
    let (engine, cont) = engine(64 << 20);
    let id = cont.info().uuid.as_bytes().to_vec();
    let data = bytes(1, 5000);
    let request = |name: &str| wire::PutReq {
        cont: id.clone(),
        name: name.to_owned(),
        csums: csums(&data),
    };
    let place = |cont: &uuid::Uuid| Placement::new(cont, "object", 2).head();
    let target = main_tag(place(&cont.info().uuid));
    for name in [String::new(), "n".repeat(4097)] {
        let (status, said) = raw(&engine, target, Op::Put, &request(&name), &data);
        assert_eq!(status, Der::INVAL.neg(), "{said}");
    }
    for (csums, wanted) in [(vec![1], Der::CSUM), (vec![1, 2], Der::INVAL)] {
        let damaged = wire::PutReq {
            csums,
            ..request("object")
        };
        let (status, said) = raw(&engine, target, Op::Put, &damaged, &data);
        assert_eq!(status, wanted.neg(), "{said}");
    }
    let nowhere = wire::PutReq {
        cont: vec![0; 16],
        ..request("object")
    };
    let its_target = main_tag(place(&uuid::Uuid::nil()));
    let (status, said) = raw(&engine, its_target, Op::Put, &nowhere, &data);
    assert!(
        status < 0 && said.contains("does not exist"),
        "{status} {said}"
    );
    let short = wire::PutReq {
        cont: vec![0; 3],
        ..request("object")
    };
    let (status, said) = raw(&engine, target, Op::Put, &short, &data);
    assert_eq!(status, Der::INVAL.neg(), "{said}");
    let other = main_tag(1 - place(&cont.info().uuid));
    let (status, said) = raw(&engine, other, Op::Put, &request("object"), &data);
    assert_eq!(status, Der::BAD_TARGET.neg(), "{said}");
    let (status, said) = raw(&engine, 0, Op::Put, &request("object"), &data);
    assert_eq!(status, Der::BAD_TARGET.neg(), "{said}");
    let (status, said) = raw(&engine, target, Op::PoolList, &wire::PoolListReq {}, b"");
    assert_eq!(status, Der::BAD_TARGET.neg(), "{said}");
    assert_eq!(cont.list("").count(), 0);
    put(&cont, "object", &data).unwrap();
    assert!(get(&cont, "object").unwrap() == data);
    assert_eq!(engine.terminate().code, Some(0));
}

#[test]
fn labels_are_taken_wrong_or_unknown() {
    let (engine, _cont) = engine(32 << 20);
    let client = engine.connect();
    let der = |result: Result<obj_client::Pool, ObjError>| result.unwrap_err().der();
    assert_eq!(der(client.create_pool("tank", 32 << 20)), Der::EXIST);
    assert_eq!(der(client.create_pool("", 32 << 20)), Der::INVAL);
    assert_eq!(der(client.create_pool("has space", 32 << 20)), Der::INVAL);
    assert_eq!(der(client.create_pool("small", 1)), Der::INVAL);
    assert_eq!(der(client.create_pool("large", 1 << 50)), Der::NOSPACE);
    assert_eq!(der(client.pool("nobody")), Der::NONEXIST);
    let error = client.destroy_pool("tank", false).unwrap_err();
    assert_eq!(error.der(), Der::BUSY, "{error}");
    client.destroy_pool("tank", true).unwrap();
    assert_eq!(client.pools().unwrap(), []);
    assert_eq!(engine.terminate().code, Some(0));
}
