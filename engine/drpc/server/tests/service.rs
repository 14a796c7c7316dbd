//! An installed server on a real system xstream, with real clients (DAOS `src/engine/tests/drpc_comm_tests.c` and more).

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use drpc_wire::{Call, Client, Framing, MAX_BODY, Response, Status};
use engine_drpc::{
    DrpcServer, DrpcService, DrpcSocket, Handler, Options, Registry, Reply, install,
};
use engine_tls::KeyRegistry;
use engine_xstream::{Core, Layout, LayoutOptions, Role, StartOptions, XstreamSet};
use spdk_reactor::{ReactorOptions, ReactorSet};

const LONG: Duration = Duration::from_secs(60);

/// An engine of one target, with a dRPC server, on one core.
struct Engine {
    xstreams: Option<XstreamSet>,
    service: Option<DrpcService>,
    registry: Registry,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Engine {
    fn start() -> Engine {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let path = dir.path().join("engine.sock");
        let topology = spdk_env::cpu::Topology::discover().expect("sysfs");
        let options = LayoutOptions {
            targets: 1,
            helpers: 0,
            oversubscribe: true,
            ..LayoutOptions::default()
        };
        let cores = Core::of(&topology);
        let layout = Layout::compute(&options, &cores[..1]).expect("one core is enough");
        let reactors = ReactorSet::start(&ReactorOptions {
            cpus: layout.cpus(),
            idle_latency_us: 50,
            pin: false,
            ..ReactorOptions::default()
        });
        let xstreams = XstreamSet::start(
            layout,
            reactors.expect("reactors start"),
            &KeyRegistry::new(),
            &StartOptions::default(),
        );
        let xstreams = xstreams.expect("xstreams start");
        let registry = Registry::new();
        let echo = |call: Call, reply: Reply| reply.success(call.body);
        registry.register(0, Arc::new(echo)).expect("free");
        let socket = DrpcSocket::bind(&path, 0o600).expect("binds");
        let table = registry.clone();
        let system = xstreams.xstreams().system();
        let service = system.call_blocking("drpc install", LONG, move |xstream| {
            let server = DrpcServer::new(socket, table, Options::default());
            install(server, xstream)
        });
        Engine {
            service: Some(service.expect("installs")),
            xstreams: Some(xstreams),
            registry,
            path,
            _dir: dir,
        }
    }

    fn client(&self) -> Client {
        Client::connect(&self.path).expect("connects")
    }

    fn register(&self, id: i32, handler: impl Handler + 'static) {
        self.registry.register(id, Arc::new(handler)).expect("free");
    }

    fn stop_service(&mut self, wait: Duration) -> Result<(), engine_drpc::Unanswered> {
        self.service.take().expect("is there").shutdown(wait)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        drop(self.service.take());
        if let Some(xstreams) = self.xstreams.take() {
            let stopped = xstreams.shutdown(LONG, |_| ());
            assert!(stopped.is_ok() || std::thread::panicking(), "{stopped:?}");
        }
    }
}

#[track_caller]
fn assert_echo(client: &mut Client, body: &[u8]) {
    let response = client.call(0, 1, body).expect("is answered");
    assert_eq!(response.status(), Status::Success);
    assert!(response.body == body, "the body comes back unchanged");
}

#[test]
fn greeting_then_64_kib_then_128_kib_in_both_directions() {
    let engine = Engine::start();
    let mut client = engine.client();
    assert_echo(&mut client, b"Hello, dRPC");
    let pattern = |len: usize| (0..len).map(|i| (i % 251) as u8).collect::<Vec<_>>();
    assert_echo(&mut client, &pattern(64 << 10));
    assert_echo(&mut client, &pattern(128 << 10));
    assert_echo(&mut client, &[]);
}

#[test]
fn a_body_of_64_mib_and_not_one_byte_more() {
    let engine = Engine::start();
    let mut client = engine.client();
    assert_echo(&mut client, &vec![0x5a; MAX_BODY]);
    let over = client.call(0, 1, &vec![0; MAX_BODY + 65]);
    assert_eq!(over.map_err(|e| e.der()), Err(daos_errno::Der::OVERFLOW));
    assert_echo(&mut client, b"nothing was sent, the connection is fine");
}

#[test]
fn one_connection_per_call_and_a_sleeping_reactor_wakes_each_time() {
    let engine = Engine::start();
    for round in 0..50u8 {
        assert_echo(&mut engine.client(), &[round]);
    }
    // The last reply is counted after it was sent.
    let service = engine.service.as_ref().expect("is there");
    while service.stats().replies < 50 {
        std::thread::yield_now();
    }
    assert_eq!(service.stats().accepted, 50);
}

#[test]
fn each_call_runs_on_the_system_xstream() {
    let engine = Engine::start();
    engine.register(7, |_: Call, reply: Reply| {
        let xstream = engine_xstream::current().expect("on an xstream");
        assert_eq!(xstream.role(), Role::System);
        reply.success(xstream.name().as_bytes().to_vec());
    });
    let response = engine.client().call(7, 1, b"").expect("is answered");
    assert_eq!(response.body, b"keel_sys_0");
}

#[test]
fn a_slow_call_holds_up_nobody_and_its_reply_comes_from_another_thread() {
    let engine = Engine::start();
    let (sender, kept) = mpsc::channel();
    engine.register(5, move |_: Call, reply: Reply| {
        sender.send(reply).expect("the test waits");
    });
    let mut client = engine.client();
    let slow = client.send(5, 1, b"").expect("sends");
    let quick = client.send(0, 1, b"quick").expect("sends");
    let first = client.receive().expect("is answered");
    assert_eq!(
        (first.sequence, first.body.as_slice()),
        (quick, &b"quick"[..])
    );
    assert_echo(&mut engine.client(), b"others too");
    let reply = kept.recv_timeout(LONG).expect("was kept");
    reply.success(b"slow".to_vec());
    let second = client.receive().expect("is answered");
    assert_eq!(
        (second.sequence, second.body.as_slice()),
        (slow, &b"slow"[..])
    );
}

#[test]
fn half_sent_messages_and_unread_replies_hold_up_nobody() {
    let engine = Engine::start();
    let mut unread = engine.client();
    for _ in 0..20 {
        unread.send(0, 1, &vec![1; 300_000]).expect("sends");
    }
    let address = drpc_wire::packet_socket::address(&engine.path).expect("short");
    let half = drpc_wire::packet_socket::socket(rustix::net::SocketFlags::empty());
    let half = half.expect("a socket");
    rustix::net::connect(&half, &address).expect("connects");
    let header = drpc_wire::ChunkHeader {
        total_data_size: 4,
        chunk_data_size: 1,
        chunk_idx: 0,
        total_chunks: 2,
    };
    let packet = [&header.encode()[..], b"x"].concat();
    rustix::net::send(&half, &packet, rustix::net::SendFlags::empty()).expect("sends");
    for round in 0..20u8 {
        assert_echo(&mut engine.client(), &[round]);
    }
    for _ in 0..20 {
        let response = unread.receive().expect("all are still there");
        assert_eq!(response.body.len(), 300_000);
    }
}

#[test]
fn many_clients_at_once_each_get_their_own_answers() {
    let engine = Engine::start();
    std::thread::scope(|scope| {
        for id in 0..8u8 {
            let mut client = engine.client();
            scope.spawn(move || {
                for round in 0..100u8 {
                    assert_echo(&mut client, &[id, round]);
                }
            });
        }
    });
}

#[test]
fn a_panicking_handler_answers_failure_and_the_server_serves_on() {
    let engine = Engine::start();
    engine.register(6, |_: Call, _: Reply| panic!("broken handler"));
    let mut client = engine.client();
    let response = client.call(6, 1, b"").expect("is answered");
    assert_eq!(response.status(), Status::Failure);
    assert_echo(&mut client, b"still here");
}

#[test]
fn a_client_of_the_older_framing_is_answered_in_kind() {
    let engine = Engine::start();
    let options = drpc_wire::ClientOptions {
        framing: Framing::Bare,
        ..drpc_wire::ClientOptions::default()
    };
    let mut client = Client::connect_with(&engine.path, options).expect("connects");
    assert_echo(&mut client, b"one packet, no header");
    assert_echo(&mut client, &vec![2; 100_000]);
}

#[test]
fn shutdown_lets_running_calls_answer_and_removes_the_socket() {
    let mut engine = Engine::start();
    let (sender, kept) = mpsc::channel();
    let answered = Arc::new(AtomicBool::new(false));
    engine.register(5, move |_: Call, reply: Reply| {
        sender.send(reply).expect("the test waits");
    });
    let mut client = engine.client();
    client.send(5, 1, b"").expect("sends");
    let reply = kept.recv_timeout(LONG).expect("was kept");
    let flag = Arc::clone(&answered);
    let path = engine.path.clone();
    let helper = std::thread::spawn(move || {
        // The file goes when the server has stopped taking calls.
        while path.exists() {
            std::thread::yield_now();
        }
        flag.store(true, Ordering::Release);
        reply.success(b"last words".to_vec());
    });
    assert_eq!(engine.stop_service(LONG), Ok(()));
    assert!(answered.load(Ordering::Acquire));
    helper.join().expect("no panic");
    let response: Response = client.receive().expect("is answered");
    assert_eq!(response.body, b"last words");
    assert!(Client::connect(&engine.path).is_err());
}

#[test]
fn shutdown_says_how_many_calls_are_not_answered() {
    let mut engine = Engine::start();
    let (sender, kept) = mpsc::channel();
    engine.register(5, move |_: Call, reply: Reply| {
        sender.send(reply).expect("the test waits");
    });
    let mut client = engine.client();
    client.send(5, 1, b"").expect("sends");
    let reply = kept.recv_timeout(LONG).expect("was kept");
    let unanswered = engine.stop_service(Duration::from_millis(20));
    assert_eq!(unanswered.map_err(|u| u.calls), Err(1));
    assert!(client.receive().is_err());
    reply.success(b"too late".to_vec());
}
