//! Control of an engine whose targets are saturated: it is answered, and before I/O that came earlier.

#![allow(missing_docs, reason = "a test")]

mod harness;

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use drpc_wire::{Message, keel, methods, modules};
use harness::{Config, Engine, Kind};
use obj_proto::{Op, Placement, csums, main_tag, wire};
use rpc_wire::Client;
use uuid::Uuid;

const TARGETS: u32 = 2;
/// Connections to each target.
const CONNECTIONS: u32 = 2;
/// Questions, one after the other.
const QUESTIONS: u32 = 100;

/// A put of 4 KiB whose object lives on this target.
fn request(cont: &Uuid, target: u32) -> (Vec<u8>, Vec<u8>) {
    let lives_here = |name: &String| Placement::new(cont, name, TARGETS).head() == target;
    let name = (0..).map(|nr| nr.to_string()).find(lives_here).unwrap();
    let data = harness::bytes(target.into(), 4096);
    let put = wire::PutReq {
        cont: cont.as_bytes().to_vec(),
        name,
        csums: csums(&data),
    };
    (put.encode_to_vec(), data)
}

/// What the clients did so far.
#[derive(Default)]
struct Progress {
    /// Answers received.
    answered: AtomicU64,
    over: AtomicBool,
}

/// Keeps a connection full of puts until it is over, then takes the answers that are left. All of them must be good.
fn client(engine: &Engine, cont: &Uuid, target: u32, progress: &Progress, full: &Barrier) -> usize {
    let (body, data) = request(cont, target);
    let mut client = Client::connect(engine.rpc_address().as_str(), main_tag(target)).unwrap();
    let depth = client.hello().max_in_flight as usize;
    let receive = |client: &mut Client| {
        let (_, reply) = client.recv().unwrap();
        assert_eq!(reply.status, 0, "{reply:?}");
        progress.answered.fetch_add(1, Ordering::SeqCst);
    };
    let send = |client: &mut Client| {
        client
            .send(Op::Put.opcode(), &body, Some(&data[..]))
            .unwrap();
    };
    (0..depth).for_each(|_| send(&mut client));
    full.wait();
    while !progress.over.load(Ordering::SeqCst) {
        receive(&mut client);
        send(&mut client);
    }
    while client.outstanding() > 0 {
        receive(&mut client);
    }
    depth
}

#[test]
fn status_is_answered_under_full_load_and_overtakes_io_that_came_before_it() {
    let mut config = Config::new(TARGETS, Kind::Malloc);
    config.size = 256 << 20;
    let engine = config.start();
    let pool = engine.connect().create_pool("tank", 128 << 20).unwrap();
    let cont = pool.create_container("cont").unwrap().info().uuid;
    let (progress, full) = (
        Progress::default(),
        Barrier::new(1 + (TARGETS * CONNECTIONS) as usize),
    );
    let (engine_, progress_, full_) = (&engine, &progress, &full);
    let (overtook, depths) = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..TARGETS * CONNECTIONS)
            .map(|nr| scope.spawn(move || client(engine_, &cont, nr % TARGETS, progress_, full_)))
            .collect();
        full.wait();
        let mut meanwhile = Vec::new();
        for _ in 0..QUESTIONS {
            let before = progress.answered.load(Ordering::SeqCst);
            let status: keel::EngineStatus = engine.ask(modules::KEEL, methods::ENGINE_STATUS, &());
            assert_eq!((status.state.as_str(), status.targets.len()), ("ready", 2));
            meanwhile.push(progress.answered.load(Ordering::SeqCst) - before);
        }
        progress.over.store(true, Ordering::SeqCst);
        let depths: Vec<usize> = clients.into_iter().map(|c| c.join().unwrap()).collect();
        (meanwhile, depths)
    });
    // A question that waited for what was queued at one target would see all of that answered first. When this thread gets no
    // time between the answer and the look at the counter, it says nothing; the best of many does.
    let queued = depths[0] as u64 * u64::from(CONNECTIONS);
    let best = *overtook.iter().min().unwrap();
    assert!(
        best < queued,
        "{best} answers of {queued} came first, at best: {overtook:?}"
    );
    assert!(
        progress.answered.load(Ordering::SeqCst) > queued,
        "there was load"
    );
    assert_eq!(engine.terminate().code, Some(0));
}
