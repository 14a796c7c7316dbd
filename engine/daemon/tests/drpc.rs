//! The control channel of a real engine: DAOS's methods and Keel's, and a control server that drives the start.

#![allow(missing_docs, reason = "a test")]

mod harness;

use std::os::fd::OwnedFd;
use std::path::Path;

use daos_errno::Der;
use drpc_wire::packet_socket::{address, receive, send, socket};
use drpc_wire::{
    Assembler, Call, Chunker, Framing, MAX_MESSAGE, MAX_PACKET, Message, Progress, Response,
    Status, ctl, keel, methods, mgmt, modules, srv,
};
use harness::{Config, Engine, Kind, PATIENCE, bytes};
use rustix::net::{RecvFlags, SendFlags, SocketFlags};

const UUID: &str = "c0ffee00-1234-4321-8888-0123456789ab";
const NOBODY: &str = "00000000-0000-4000-8000-000000000000";

#[test]
fn the_test_module_answers_with_the_body_whatever_its_size() {
    let engine = Config::new(1, Kind::Malloc).start();
    let mut client = engine.drpc();
    for len in [0, 1, 64 << 10, (128 << 10) + 1, 16 << 20] {
        let body = bytes(len as u64, len);
        let answer = client.call(modules::TEST, 1, &body).unwrap();
        assert_eq!(answer.status(), Status::Success);
        assert!(answer.body == body, "{len} bytes came back changed");
    }
    let answer = client.call(modules::TEST, 2, b"body").unwrap();
    assert_eq!(
        (answer.status(), answer.body.len()),
        (Status::UnknownMethod, 0)
    );
    for module in [5, 77, 127, 128, -1, i32::MAX] {
        let answer = client.call(module, 1, b"").unwrap();
        assert_eq!(answer.status(), Status::UnknownModule, "module {module}");
    }
    assert_eq!(engine.terminate().code, Some(0));
}

/// A method of module 2 whose answer is a status.
fn told(engine: &Engine, method: i32, body: &impl Message) -> i32 {
    engine
        .ask::<mgmt::DaosResp>(modules::MGMT, method, body)
        .status
}

#[test]
fn rank_and_setup_of_an_engine_that_set_itself_up() {
    let engine = Config::new(1, Kind::Malloc).start();
    let rank = |rank| mgmt::SetRankReq {
        rank,
        ..mgmt::SetRankReq::default()
    };
    assert_eq!(engine.status().rank, 0);
    assert_eq!(
        told(&engine, methods::PING_RANK, &mgmt::PingRankReq { rank: 0 }),
        0
    );
    assert_eq!(told(&engine, methods::SET_RANK, &rank(0)), 0);
    assert_eq!(
        told(&engine, methods::SET_RANK, &rank(9)),
        Der::ALREADY.neg()
    );
    assert_eq!(
        told(&engine, methods::SET_RANK, &rank(u32::MAX)),
        Der::INVAL.neg()
    );
    assert_eq!(
        told(&engine, methods::SET_UP, &()),
        0,
        "once more does no harm"
    );
    assert_eq!(
        told(
            &engine,
            methods::PREP_SHUTDOWN,
            &mgmt::PrepShutdownReq { rank: 0 }
        ),
        0
    );
    assert_eq!(engine.status().state, "ready");
    assert_eq!(engine.terminate().code, Some(0));
}

#[test]
fn bodies_that_are_no_message_are_told_apart_from_wrong_values() {
    let engine = Config::new(1, Kind::Malloc).start();
    let mut client = engine.drpc();
    // Field 1 announces ten bytes and has one.
    let broken = [0x0a, 10, b'x'];
    for method in [methods::POOL_CREATE, methods::POOL_QUERY, methods::SET_RANK] {
        let answer = client.call(modules::MGMT, method, &broken).unwrap();
        assert_eq!(answer.status(), Status::FailedUnmarshalPayload, "{method}");
    }
    let answer = client.call(modules::MGMT, 203, b"").unwrap();
    assert_eq!(answer.status(), Status::UnknownMethod);
    let answer = client.call(modules::KEEL, 99, b"").unwrap();
    assert_eq!(answer.status(), Status::UnknownMethod);
    assert_eq!(engine.terminate().code, Some(0));
}

#[test]
fn pools_as_daos_asks_for_them() {
    let engine = Config::new(2, Kind::Malloc).start();
    let create = mgmt::PoolCreateReq {
        uuid: UUID.to_owned(),
        tier_bytes: vec![32 << 20, 32 << 20],
        ..mgmt::PoolCreateReq::default()
    };
    let (module, query) = (modules::MGMT, |id: &str| mgmt::PoolQueryReq {
        id: id.to_owned(),
        query_mask: 3,
        ..mgmt::PoolQueryReq::default()
    });
    let made: mgmt::PoolCreateResp = engine.ask(module, methods::POOL_CREATE, &create);
    assert_eq!(
        (made.status, made.tgt_ranks, made.tier_bytes),
        (0, vec![0], vec![64 << 20])
    );
    let again: mgmt::PoolCreateResp = engine.ask(module, methods::POOL_CREATE, &create);
    assert_eq!(again.status, Der::EXIST.neg());
    let malformed = mgmt::PoolCreateReq {
        uuid: "not one".to_owned(),
        ..create
    };
    let refused: mgmt::PoolCreateResp = engine.ask(module, methods::POOL_CREATE, &malformed);
    assert_eq!(refused.status, -1003);

    let found: mgmt::PoolQueryResp = engine.ask(module, methods::POOL_QUERY, &query(UUID));
    assert_eq!(
        (found.status, found.uuid.as_str(), found.total_targets),
        (0, UUID, 2)
    );
    assert_eq!(
        (found.query_mask, found.state),
        (3, mgmt::PoolServiceState::Ready as i32)
    );
    assert_eq!(
        (found.tier_stats[0].total, found.tier_stats[0].free),
        (64 << 20, 64 << 20)
    );
    for (id, status) in [("not one", -1003), (NOBODY, Der::NONEXIST.neg())] {
        let answer: mgmt::PoolQueryResp = engine.ask(module, methods::POOL_QUERY, &query(id));
        assert_eq!(answer.status, status, "{id}");
    }
    let list: ctl::SmdPoolResp = engine.ask(module, methods::SMD_LIST_POOLS, &ctl::SmdPoolReq {});
    assert_eq!((list.status, list.pools.len()), (0, 1));
    assert_eq!(
        (list.pools[0].uuid.as_str(), &list.pools[0].tgt_ids[..]),
        (UUID, &[0, 1][..])
    );

    let destroy = |id: &str| mgmt::PoolDestroyReq {
        id: id.to_owned(),
        ..mgmt::PoolDestroyReq::default()
    };
    for (id, status) in [("not one", -1003), (UUID, 0), (UUID, Der::NONEXIST.neg())] {
        let answer: mgmt::PoolDestroyResp = engine.ask(module, methods::POOL_DESTROY, &destroy(id));
        assert_eq!(answer.status, status, "{id}");
    }
    assert_eq!(engine.terminate().code, Some(0));
}

#[test]
fn devices_as_daos_lists_them() {
    let engine = Config::new(2, Kind::Malloc).start();
    let module = modules::MGMT;
    let list: ctl::SmdDevResp = engine.ask(module, methods::SMD_LIST_DEVS, &ctl::SmdDevReq {});
    assert_eq!((list.status, list.devices.len()), (0, 2));
    for (target, device) in (0..).zip(&list.devices) {
        assert_eq!(device.tgt_ids, [target]);
        assert_eq!((device.total_bytes, device.rank), (64 << 20, 0));
        assert!(
            device.avail_bytes > 32 << 20 && device.avail_bytes < device.total_bytes,
            "{device:?}"
        );
    }
    let health = |uuid: &str| -> ctl::BioHealthResp {
        let request = ctl::BioHealthReq {
            dev_uuid: uuid.to_owned(),
            ..ctl::BioHealthReq::default()
        };
        engine.ask(module, methods::BIO_HEALTH_QUERY, &request)
    };
    let second = &list.devices[1];
    let answer = health(&second.uuid);
    assert_eq!((answer.status, &answer.dev_uuid), (0, &second.uuid));
    assert_eq!((answer.total_bytes, answer.bio_write_errs), (64 << 20, 0));
    assert_eq!(answer.avail_bytes, second.avail_bytes);
    assert_eq!(health("").dev_uuid, list.devices[0].uuid);
    assert_eq!(health(NOBODY).status, Der::NONEXIST.neg());
    assert_eq!(health("not one").status, -1003);
    assert_eq!(engine.terminate().code, Some(0));
}

#[test]
fn log_masks_change_while_the_engine_runs() {
    let engine = Config::new(1, Kind::Malloc).start();
    let set = |masks: &str, reset_masks| -> ctl::SetLogMasksResp {
        let request = ctl::SetLogMasksReq {
            masks: masks.to_owned(),
            reset_masks,
            ..ctl::SetLogMasksReq::default()
        };
        engine.ask(modules::MGMT, methods::SET_LOG_MASKS, &request)
    };
    let mut client = engine.drpc();
    assert_eq!(set("DEBUG", false).status, 0);
    client.call(modules::TEST, 1, b"seen").unwrap();
    engine.wait_log("call 1 answers 4 bytes");
    assert_eq!(set("", true).status, 0);
    let refused = set("LOUD", false);
    assert_eq!(refused.status, Der::INVAL.neg());
    assert_eq!(refused.errors.len(), 1, "{refused:?}");
    assert_eq!(engine.terminate().code, Some(0));
}

/// Listens as a control server does.
fn listener(path: &Path) -> OwnedFd {
    let listener = socket(SocketFlags::empty()).expect("a socket");
    rustix::net::bind(&listener, &address(path).expect("short")).expect("binds");
    rustix::net::listen(&listener, 8).expect("listens");
    listener
}

/// Takes one call of a new connection and answers SUCCESS; the call.
fn serve_one(listener: &OwnedFd) -> Call {
    rustix::net::sockopt::set_socket_timeout(
        listener,
        rustix::net::sockopt::Timeout::Recv,
        Some(PATIENCE),
    )
    .expect("a time-out");
    let peer = rustix::net::accept(listener).expect("the engine connects");
    let (mut assembler, mut buffer) = (Assembler::new(MAX_MESSAGE), vec![0; MAX_PACKET]);
    let call = loop {
        let len = receive(&peer, &mut buffer, RecvFlags::empty()).expect("a packet");
        if let Progress::Message(message) = assembler.push(&buffer[..len]).expect("well framed") {
            break Call::decode(message.as_ref()).expect("a call");
        }
    };
    let answer = Response::with_status(call.sequence, Status::Success).encode_to_vec();
    let mut chunker = Chunker::new(answer, Framing::Chunked).expect("small");
    while let Some(packet) = chunker.packet() {
        send(&peer, &packet, SendFlags::empty()).expect("sent");
        chunker.advance();
    }
    call
}

#[test]
fn a_control_server_hears_of_the_engine_and_sets_it_up() {
    let mut config = Config::new(2, Kind::Malloc);
    let path = config.path().join("control.sock");
    let listener = listener(&path);
    config.control_server = Some(path);
    let mut engine = config.spawn();
    let call = serve_one(&listener);
    assert_eq!(
        (call.module, call.method),
        (modules::SRV, methods::NOTIFY_READY)
    );
    let ready = srv::NotifyReadyReq::decode(call.body.as_slice()).expect("its body");
    assert_eq!((ready.ntgts, ready.nctxs), (2, 3));
    assert_eq!(Path::new(&ready.drpc_listener_sock), config.socket);
    assert!(ready.uri.starts_with("tcp://127.0.0.1:"), "{}", ready.uri);
    assert_ne!(ready.incarnation, 0);

    engine.wait_state("awaiting setup");
    // Not open for business yet.
    assert!(engine.connect().create_pool("tank", 64 << 20).is_err());
    let rank = |rank| mgmt::SetRankReq {
        rank,
        ..mgmt::SetRankReq::default()
    };
    assert_eq!(told(&engine, methods::SET_RANK, &rank(7)), 0);
    assert_eq!(
        told(&engine, methods::SET_RANK, &rank(8)),
        Der::ALREADY.neg()
    );
    assert_eq!(told(&engine, methods::SET_UP, &()), 0);
    engine.wait_ready();
    assert_eq!(engine.status().rank, 7);
    engine.connect().create_pool("tank", 64 << 20).unwrap();
    let made: keel::ModulesList = engine.ask(modules::KEEL, methods::MODULES_LIST, &());
    assert_eq!(made.modules.len(), 3);
    assert_eq!(engine.terminate().code, Some(0));
}

#[test]
fn an_engine_whose_control_server_is_not_there_does_not_start() {
    let mut config = Config::new(1, Kind::Malloc);
    let path = config.path().join("control.sock");
    config.control_server = Some(path.clone());
    let said = format!("the control server at {} does not hear us", path.display());
    config.fails().expect(73, &said);
    assert!(!config.socket.exists(), "and leaves nothing behind");
}
