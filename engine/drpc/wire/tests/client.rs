//! The blocking client against a peer that answers as told: scenarios of DAOS `src/common/tests/drpc_tests.c`,
//! `src/control/drpc/drpc_client_test.go` and `src/engine/tests/drpc_client_tests.c`.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use daos_errno::Der;
use drpc_wire::control::{ControlServer, NO_RANK};
use drpc_wire::packet_socket::{address, receive, send, socket};
use drpc_wire::shared::ras_event::{ExtendedInfo, PoolSvcEventInfo};
use drpc_wire::{
    Assembler, Call, Chunker, Client, ClientError, ClientOptions, Framing, MAX_CHUNK_DATA,
    MAX_MESSAGE, MAX_PACKET, Message, Progress, Response, Status, methods, mgmt, modules, shared,
    srv,
};
use rustix::net::{RecvFlags, SendFlags, SocketFlags};

/// One accepted connection, on the peer's thread.
struct Accepted {
    fd: OwnedFd,
    assembler: Assembler,
    buffer: Vec<u8>,
}

impl Accepted {
    /// The next call; `None` when the client has closed.
    fn call(&mut self) -> Option<Call> {
        loop {
            let len = receive(&self.fd, &mut self.buffer, RecvFlags::empty()).ok()?;
            if len == 0 {
                return None;
            }
            let progress = self.assembler.push(&self.buffer[..len]);
            if let Progress::Message(bytes) = progress.expect("well framed") {
                return Some(Call::decode(bytes.as_ref()).expect("is a call"));
            }
        }
    }

    fn bytes(&self, message: Vec<u8>) {
        let framing = self.assembler.framing().unwrap_or_default();
        let mut chunker = Chunker::new(message, framing).expect("fits");
        while let Some(packet) = chunker.packet() {
            if send(&self.fd, &packet, SendFlags::empty()).is_err() {
                return;
            }
            chunker.advance();
        }
    }

    fn answer(&self, sequence: i64, status: Status, body: &[u8]) {
        let body = body.to_vec();
        let status = status.into();
        let response = Response {
            sequence,
            status,
            body,
        };
        self.bytes(response.encode_to_vec());
    }
}

/// A peer that serves connections one after the other.
struct Server<T> {
    path: PathBuf,
    thread: JoinHandle<T>,
    _dir: tempfile::TempDir,
}

impl<T: Send + 'static> Server<T> {
    /// Accepts once and runs `serve`.
    fn once(serve: impl FnOnce(&mut Accepted) -> T + Send + 'static) -> Server<T> {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let path = dir.path().join("server.sock");
        let listener = socket(SocketFlags::empty()).expect("a socket");
        rustix::net::bind(&listener, &address(&path).expect("short")).expect("binds");
        rustix::net::listen(&listener, 8).expect("listens");
        let thread = std::thread::spawn(move || {
            let fd = rustix::net::accept(&listener).expect("accepts");
            serve(&mut Accepted {
                fd,
                assembler: Assembler::new(MAX_MESSAGE),
                buffer: vec![0; MAX_PACKET],
            })
        });
        Server {
            path,
            thread,
            _dir: dir,
        }
    }

    fn connect(&self) -> Client {
        Client::connect(&self.path).expect("connects")
    }

    fn join(self) -> T {
        self.thread.join().expect("the peer does not panic")
    }
}

/// Answers every call with what `answer` makes of it.
fn answering(answer: impl Fn(&Accepted, Call) + Send + 'static) -> Server<()> {
    Server::once(move |peer| {
        while let Some(call) = peer.call() {
            answer(peer, call);
        }
    })
}

#[test]
fn connect_to_no_file_is_nonexist_and_says_what_to_check() {
    let error = Client::connect("/nonexistent/engine.sock").expect_err("must fail");
    assert_eq!(error.der(), Der::NONEXIST);
    assert!(error.to_string().contains("/nonexistent/engine.sock"));
    assert!(error.to_string().contains("is the engine running"));
}

#[test]
fn connect_to_a_stale_socket_and_to_a_long_path() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let path = dir.path().join("stale.sock");
    let dead = socket(SocketFlags::empty()).expect("a socket");
    rustix::net::bind(&dead, &address(&path).expect("short")).expect("binds");
    drop(dead);
    let error = Client::connect(&path).expect_err("must fail");
    assert_eq!(error.der(), Der::MISC);
    assert!(error.to_string().contains("its engine is gone"));
    let error = Client::connect("x".repeat(108)).expect_err("must fail");
    assert!(error.to_string().contains("107"));
}

#[test]
fn connect_ok_has_sequence_0_and_each_call_counts_up() {
    let server = answering(|peer, call| peer.answer(call.sequence, Status::Success, &call.body));
    let mut client = server.connect();
    assert_eq!(client.sequence(), 0);
    for sequence in 1..4 {
        let response = client.call(2, 225, b"body").expect("is answered");
        assert_eq!((response.sequence, client.sequence()), (sequence, sequence));
        assert_eq!(response.body, b"body");
    }
    drop(client);
    server.join();
}

#[test]
fn call_carries_module_method_sequence_and_body() {
    let server = Server::once(|peer| {
        let call = peer.call().expect("a call");
        peer.answer(call.sequence, Status::Success, b"");
        call
    });
    let response = server.connect().call(2, 202, &[1, 2, 3]);
    assert_eq!(response.map(|r| r.status()), Ok(Status::Success));
    let call = server.join();
    assert_eq!((call.module, call.method, call.sequence), (2, 202, 1));
    assert_eq!(call.body, [1, 2, 3]);
}

#[test]
fn call_without_sync_is_submitted_and_reads_nothing() {
    let server = Server::once(|peer| peer.call().map(|call| call.sequence));
    let response = server.connect().submit(3, 304, b"").expect("is sent");
    assert_eq!(
        (response.sequence, response.status()),
        (1, Status::Submitted)
    );
    assert_eq!(server.join(), Some(1));
}

#[test]
fn bodies_of_many_chunks_travel_both_ways() {
    let server = answering(|peer, call| peer.answer(call.sequence, Status::Success, &call.body));
    let mut client = server.connect();
    for len in [0, MAX_CHUNK_DATA, 2 * MAX_CHUNK_DATA, 5_000_000] {
        let body = vec![0xc3; len];
        assert!(client.call(0, 1, &body).expect("is answered").body == body);
    }
}

#[test]
fn the_older_framing_travels_both_ways() {
    let server = answering(|peer, call| peer.answer(call.sequence, Status::Success, &call.body));
    let options = ClientOptions {
        framing: Framing::Bare,
        ..ClientOptions::default()
    };
    let mut client = Client::connect_with(&server.path, options).expect("connects");
    let response = client.call(0, 1, &[5; 100_000]).expect("is answered");
    assert_eq!(response.body, [5; 100_000]);
    let over = client.call(0, 1, &[5; MAX_PACKET]);
    assert!(matches!(over, Err(ClientError::Frame(_))));
    assert!(client.is_connected(), "nothing was sent");
}

#[test]
fn bad_response_bytes_are_proto_and_end_the_connection() {
    let server = answering(|peer, _| peer.bytes(vec![0xff; 5]));
    let mut client = server.connect();
    let error = client.call(0, 1, b"").expect_err("must fail");
    assert_eq!(error.der(), Der::PROTO);
    assert!(!client.is_connected());
    assert_eq!(client.call(0, 1, b""), Err(ClientError::NotConnected));
}

#[test]
fn a_peer_that_closes_instead_of_answering() {
    let server = Server::once(|peer| drop(peer.call()));
    let mut client = server.connect();
    assert_eq!(client.call(0, 1, b""), Err(ClientError::Closed));
    server.join();
}

#[test]
fn a_refusal_in_the_middle_of_a_long_request_is_heard() {
    let server = Server::once(|peer| {
        let first = receive(&peer.fd, &mut peer.buffer, RecvFlags::empty());
        assert!(first.is_ok());
        peer.bytes(Response::unreadable_call().encode_to_vec());
    });
    let response = server.connect().call(0, 1, &vec![0; 20_000_000]);
    assert_eq!(response, Ok(Response::unreadable_call()));
    server.join();
}

#[test]
fn no_answer_in_time_is_timedout_and_the_late_answer_is_skipped() {
    let server = Server::once(|peer| {
        let late = peer.call().expect("the first call");
        let next = peer.call().expect("the second call");
        peer.answer(late.sequence, Status::Success, b"late");
        peer.answer(next.sequence, Status::Success, b"next");
        peer.call()
    });
    let options = ClientOptions {
        timeout: Some(Duration::from_millis(30)),
        ..ClientOptions::default()
    };
    let mut client = Client::connect_with(&server.path, options).expect("connects");
    let error = client.call(0, 1, b"").expect_err("must fail");
    assert_eq!(error.der(), Der::TIMEDOUT);
    assert!(client.is_connected());
    // However long the peer takes to run: until the second answer is there.
    client.send(0, 1, b"").expect("sends");
    let mut answers = Vec::new();
    while answers.len() < 2 {
        match client.receive() {
            Ok(response) => answers.push(response.body),
            Err(error) => assert_eq!(error.der(), Der::TIMEDOUT),
        }
    }
    assert_eq!(answers, [b"late", b"next"]);
    drop(client);
    assert_eq!(server.join(), None);
}

#[test]
fn an_answer_to_an_earlier_call_is_not_taken_for_this_ones() {
    let server = Server::once(|peer| {
        let first = peer.call().expect("the first call");
        let second = peer.call().expect("the second call");
        peer.answer(first.sequence, Status::Success, b"first");
        peer.answer(second.sequence, Status::Success, b"second");
        peer.call()
    });
    let mut client = server.connect();
    client.send(0, 1, b"").expect("sends");
    let response = client.call(0, 1, b"").expect("is answered");
    assert_eq!(
        (response.sequence, response.body.as_slice()),
        (2, &b"second"[..])
    );
    drop(client);
    server.join();
}

#[test]
fn an_answer_to_a_call_that_was_never_made_is_mismatch() {
    let server = answering(|peer, call| peer.answer(call.sequence + 7, Status::Success, b""));
    let error = server.connect().call(0, 1, b"").expect_err("must fail");
    assert_eq!(error, ClientError::WrongSequence { sent: 1, got: 8 });
    assert_eq!(error.der(), Der::MISMATCH);
}

#[test]
fn call_typed_decodes_success_and_reports_refusals() {
    let server = answering(|peer, call| match call.method {
        methods::PING_RANK => {
            let body = mgmt::DaosResp { status: -1003 };
            peer.answer(call.sequence, Status::Success, &body.encode_to_vec());
        }
        _ => peer.answer(call.sequence, Status::UnknownMethod, b""),
    });
    let mut client = server.connect();
    let request = mgmt::PingRankReq { rank: 1 };
    let answer: mgmt::DaosResp = client
        .call_typed(modules::MGMT, methods::PING_RANK, &request)
        .expect("is answered");
    assert_eq!(answer.status, -1003);
    let refused = client.call_typed::<mgmt::DaosResp>(2, 9, &request);
    let error = refused.expect_err("must fail");
    assert_eq!(error, ClientError::Refused(Status::UnknownMethod));
    assert!(error.to_string().contains("unrecognized method ID"));
}

/// A control server that notes the call, answers it, and notes that the connection closed.
fn control_server(status: Status, body: Vec<u8>) -> Server<Call> {
    Server::once(move |peer| {
        let call = peer.call().expect("a call");
        peer.answer(call.sequence, status, &body);
        assert!(peer.call().is_none(), "one call per connection");
        call
    })
}

fn control<T>(server: &Server<T>) -> ControlServer {
    ControlServer::new(&server.path, Some(Duration::from_secs(60)))
}

#[test]
fn notify_ready_is_srv_301_with_its_fields_and_the_connection_closes() {
    let server = control_server(Status::Success, vec![]);
    let request = srv::NotifyReadyReq {
        uri: "tcp://10.0.0.1:31416".to_owned(),
        nctxs: 9,
        drpc_listener_sock: "/run/keel/daos_engine_1.sock".to_owned(),
        instance_idx: 1,
        ntgts: 8,
        ..srv::NotifyReadyReq::default()
    };
    assert_eq!(control(&server).notify_ready(&request), Ok(()));
    let call = server.join();
    assert_eq!((call.module, call.method), (3, 301));
    assert_eq!(
        srv::NotifyReadyReq::decode(call.body.as_slice()),
        Ok(request)
    );
}

#[test]
fn notify_ready_refused_is_io() {
    let server = control_server(Status::Failure, vec![]);
    let error = control(&server).notify_ready(&srv::NotifyReadyReq::default());
    assert_eq!(error.map_err(|e| e.der()), Err(Der::IO));
    server.join();
}

const POOL: &str = "11111111-2222-3333-4444-555555555555";

#[test]
fn pool_svc_update_is_a_cluster_event_with_everything_as_given() {
    let answer = shared::ClusterEventResp::default().encode_to_vec();
    let server = control_server(Status::Success, answer);
    let sent = control(&server).pool_svc_update(
        "node7",
        3,
        "2026-01-01T00:00:00.000000Z",
        POOL,
        &[0, 3, 5],
        12,
    );
    assert_eq!(sent, Ok(()));
    let call = server.join();
    assert_eq!((call.module, call.method), (3, 304));
    let request = shared::ClusterEventReq::decode(call.body.as_slice()).expect("decodes");
    let event = request.event.expect("has an event");
    assert_eq!((event.hostname.as_str(), event.rank), ("node7", 3));
    assert_eq!(event.pool_uuid, POOL);
    assert_eq!(
        event.extended_info,
        Some(ExtendedInfo::PoolSvcInfo(PoolSvcEventInfo {
            svc_reps: vec![0, 3, 5],
            version: 12,
        }))
    );
}

#[test]
fn pool_svc_update_without_pool_or_replicas_is_inval_and_sends_nothing() {
    let nobody = ControlServer::new("/nonexistent/daos_server.sock", None);
    let zero = "00000000-0000-0000-0000-000000000000";
    for (pool, replicas) in [(POOL, &[][..]), ("", &[1][..]), (zero, &[1][..])] {
        let result = nobody.pool_svc_update("node", 0, "now", pool, replicas, 1);
        assert_eq!(result.map_err(|e| e.der()), Err(Der::INVAL));
    }
}

#[test]
fn cluster_event_with_every_field_and_with_only_the_mandatory_ones() {
    let everything = shared::RasEvent {
        id: 1,
        msg: "something happened".to_owned(),
        timestamp: "2026-01-01T00:00:00.000000+00:00".to_owned(),
        r#type: 2,
        severity: 3,
        hostname: "node".to_owned(),
        rank: 4,
        incarnation: 5,
        hw_id: "nvme0".to_owned(),
        proc_id: 6,
        thread_id: 7,
        job_id: "job".to_owned(),
        pool_uuid: POOL.to_owned(),
        cont_uuid: POOL.to_owned(),
        obj_id: "1.2".to_owned(),
        ctl_op: "exclude".to_owned(),
        extended_info: Some(ExtendedInfo::StrInfo("blob".to_owned())),
    };
    let mandatory = shared::RasEvent {
        msg: "short".to_owned(),
        hostname: "node".to_owned(),
        rank: NO_RANK,
        ..shared::RasEvent::default()
    };
    for event in [everything, mandatory] {
        let server = Server::once(|peer| peer.call());
        assert_eq!(control(&server).raise_event(event.clone()), Ok(()));
        let call = server.join().expect("a call");
        let request = shared::ClusterEventReq::decode(call.body.as_slice()).expect("decodes");
        assert_eq!(request.event, Some(event));
    }
}

#[test]
fn cluster_event_without_text_or_host_sends_nothing() {
    let nobody = ControlServer::new("/nonexistent/daos_server.sock", None);
    for (msg, hostname) in [("", "node"), ("text", "")] {
        let event = shared::RasEvent {
            msg: msg.to_owned(),
            hostname: hostname.to_owned(),
            ..shared::RasEvent::default()
        };
        assert!(matches!(
            nobody.raise_event(event),
            Err(ClientError::Invalid(_))
        ));
    }
}

#[test]
fn pool_service_of_an_unknown_pool_is_nonexist() {
    let body = srv::GetPoolSvcResp {
        status: Der::NONEXIST.neg(),
        svcreps: vec![],
    };
    let server = control_server(Status::Success, body.encode_to_vec());
    let error = control(&server).pool_service(POOL);
    assert_eq!(error, Err(ClientError::Method(Der::NONEXIST)));
    server.join();
}

#[test]
fn pool_by_label_returns_uuid_and_replicas() {
    let body = srv::PoolFindByLabelResp {
        status: 0,
        uuid: POOL.to_owned(),
        svcreps: vec![2],
    };
    let server = control_server(Status::Success, body.encode_to_vec());
    assert_eq!(control(&server).pool_by_label("tank"), Ok(body));
    assert_eq!(server.join().method, methods::POOL_FIND_BYLABEL);
}
