//! Requests with a class wait for the scheduler of their main xstream; those without, and those elsewhere, do not.
#![allow(missing_docs, reason = "a test")]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use daos_errno::Der;
use engine_rpc::{HandlerEntry, Opcode, Options, Registry, Request, RpcHandler, RpcServer, call};
use engine_xstream::XstreamSet;
use engine_xstream::sched::{Attr, Class, PoolId, SchedStats};
use rpc_wire::{Client, ClientOptions};

mod sets;
use sets::xstreams;

const UPDATE: Opcode = Opcode::new(7, 1, 0);
const ANONYM: Opcode = Opcode::new(7, 1, 1);
const LIAR: Opcode = Opcode::new(7, 1, 2);
/// Weights in service at most, in updates.
const SERVED: usize = 256;

type Held = Arc<Mutex<Vec<Request>>>;

/// Keeps its requests; says that they are updates, and panics when asked about a liar's.
struct Hold(Held);

impl RpcHandler for Hold {
    fn handle(&self, request: Request) {
        self.0.lock().unwrap().push(request);
    }

    fn classify(&self, request: &Request) -> Option<Attr> {
        assert_ne!(request.opcode(), LIAR, "as asked");
        (request.opcode() == UPDATE).then(|| Attr::new(PoolId([1; 16]), Class::Update))
    }
}

struct Engine {
    set: Option<XstreamSet>,
    server: Option<RpcServer>,
    held: Held,
}

impl Engine {
    fn start() -> Engine {
        let (set, held) = (xstreams(), Held::default());
        let registry = Registry::new();
        let entry = |opcode: Opcode, name| {
            HandlerEntry::new(opcode.index(), name, Arc::new(Hold(Arc::clone(&held))))
        };
        let handlers = vec![
            entry(UPDATE, "update"),
            entry(ANONYM, "anonym"),
            entry(LIAR, "liar"),
        ];
        registry.register_protocol(7, 1, handlers).unwrap();
        let listen = Some("127.0.0.1:0".parse().unwrap());
        let server =
            RpcServer::start(set.xstreams(), registry, listen, Options::default()).unwrap();
        Engine {
            set: Some(set),
            server: Some(server),
            held,
        }
    }

    fn set(&self) -> &XstreamSet {
        self.set.as_ref().unwrap()
    }

    fn stats(&self) -> SchedStats {
        let main = self.set().main(0).unwrap();
        let ask = |xstream: &engine_xstream::Xstream| xstream.sched().unwrap().stats();
        main.call_blocking("stats", Duration::from_secs(20), ask)
            .unwrap()
    }

    /// Calls from the system xstream; their statuses when all are answered.
    fn call_many(&self, tag: u32, opcode: Opcode, count: usize) -> std::sync::mpsc::Receiver<i32> {
        let (sender, receiver) = std::sync::mpsc::channel();
        let caller = move |_: &engine_xstream::Xstream| async move {
            let calls: Vec<_> = (0..count)
                .map(|_| call(tag, opcode, vec![], None))
                .collect();
            for call in calls {
                let status = call.await.map_or_else(Der::neg, |reply| reply.status);
                let _ = sender.send(status);
            }
        };
        self.set().system().spawn("caller", caller).unwrap();
        receiver
    }

    fn wait_for(&self, what: &str, is_so: impl Fn(&Engine) -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !is_so(self) {
            assert!(Instant::now() < end, "waited a minute for {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn held(&self) -> usize {
        self.held.lock().unwrap().len()
    }

    fn release(&self) {
        let all = std::mem::take(&mut *self.held.lock().unwrap());
        all.into_iter()
            .for_each(|request| request.reply(0, b"", None));
    }

    fn stop(mut self) {
        self.server.take().unwrap().close();
        self.held.lock().unwrap().clear();
        let set = self.set.take().unwrap();
        set.shutdown(Duration::from_secs(20), |_| {}).unwrap();
    }
}

#[test]
fn requests_with_a_class_wait_when_as_many_are_in_service_as_may_be() {
    let engine = Engine::start();
    let answers = engine.call_many(1, UPDATE, SERVED + 40);
    engine.wait_for("the queue", |engine| {
        engine.held() == SERVED && engine.stats().queued() == 40
    });
    // Anonymous requests, and those to an xstream that is no target's main, do not wait.
    let others = [
        engine.call_many(1, ANONYM, 1),
        engine.call_many(0, UPDATE, 1),
    ];
    engine.wait_for("them", |engine| engine.held() == SERVED + 2);
    engine.release();
    engine.wait_for("the others", |engine| engine.held() == 40);
    engine.release();
    for _ in 0..SERVED + 40 {
        assert_eq!(answers.recv_timeout(Duration::from_secs(20)), Ok(0));
    }
    for answer in others {
        assert_eq!(answer.recv_timeout(Duration::from_secs(20)), Ok(0));
    }
    engine.wait_for("the last ticket", |engine| engine.stats().in_service == 0);
    let stats = engine.stats();
    assert_eq!(stats.class(Class::Update).kicked, SERVED as u64 + 40);
    engine.stop();
}

#[test]
fn a_hook_that_panics_makes_the_request_anonymous_only() {
    let engine = Engine::start();
    let answer = engine.call_many(1, LIAR, 1);
    engine.wait_for("the request", |engine| engine.held() == 1);
    engine.release();
    assert_eq!(answer.recv_timeout(Duration::from_secs(20)), Ok(0));
    assert_eq!(engine.stats().queued(), 0);
    engine.stop();
}

#[test]
fn a_refusal_says_when_to_come_back_and_keeps_the_place() {
    let engine = Engine::start();
    let answers = engine.call_many(1, UPDATE, SERVED + 1);
    engine.wait_for("the queue", |engine| engine.stats().queued() == 1);
    let addr = engine.server.as_ref().unwrap().addr().unwrap();
    let hurried = ClientOptions {
        read_timeout: Duration::from_millis(200),
        ..ClientOptions::default()
    };
    let mut client = Client::connect_with(addr, 1, hurried).unwrap();
    let reply = client.call(UPDATE, b"", None).unwrap();
    assert_eq!(reply.status, Der::OVERLOAD_RETRY.neg());
    let retry = reply.retry.expect("an advice");
    assert_eq!(
        retry.enqueue_id,
        SERVED as u64 + 2,
        "the next id of that xstream"
    );
    assert!(retry.after >= Duration::from_millis(10));
    assert_eq!(engine.stats().class(Class::Update).rejected, 1);
    engine.release();
    engine.wait_for("the one in the queue", |engine| engine.held() == 1);
    let again = std::thread::spawn(move || {
        let mut patient = Client::connect(addr, 1).unwrap();
        patient.call_again(UPDATE, b"", None, retry.enqueue_id)
    });
    engine.wait_for("it to come back", |engine| engine.held() == 2);
    engine.release();
    let reply = again.join().unwrap().unwrap();
    assert_eq!((reply.status, reply.retry), (0, None));
    assert_eq!(engine.stats().class(Class::Update).resent, 1);
    drop(answers);
    engine.stop();
}

#[test]
fn a_service_that_closes_with_full_queues_answers_everybody() {
    let mut engine = Engine::start();
    let answers = engine.call_many(1, UPDATE, SERVED + 500);
    engine.wait_for("the queue", |engine| engine.stats().queued() == 500);
    engine.server.take().unwrap().close();
    for _ in 0..SERVED + 500 {
        let status = answers.recv_timeout(Duration::from_secs(20));
        assert_eq!(status, Ok(Der::SHUTDOWN.neg()), "answered, and not lost");
    }
    assert_eq!(engine.stats().queued(), 0);
    engine.held.lock().unwrap().clear();
    let set = engine.set.take().unwrap();
    set.shutdown(Duration::from_secs(20), |_| {}).unwrap();
}
