//! Engines in processes of their own: wires cut under load, peers that stand still or die, old and new versions side by side.
#![allow(missing_docs, reason = "a test")]

mod harness;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use daos_errno::Der;
use engine_rpc::{
    Again, BulkClass, BulkPools, Membership, Opcode, RankCall, Ranks, TcpTransport, Transport,
    negotiate, register,
};
use harness::Engine;
use harness::child::{Process, Role, become_an_engine, group, note, noted, spoken};
use harness::proxy::Proxy;
use rpc_wire::{Client, ClientError};
use rustix::process::Signal;

const LIMIT: Duration = Duration::from_secs(50);
const MODULE: u8 = 9;
/// Callers on each xstream.
const CALLERS: u64 = 8;
/// Calls of each.
const CALLS: u64 = 60;

/// In the processes that the other tests start, their engine.
#[test]
fn the_other_process() {
    become_an_engine();
}

/// Rank 0 here and rank 1 in another process, which is reached at `at`.
fn with(other: &mut Process, at: SocketAddr) -> (Engine, Membership) {
    let membership = Membership::new(0, 1);
    let own = membership.clone();
    let here = Engine::start_with(2, |options| options.group = own);
    register(&here.registry, &membership, drop).unwrap();
    let addresses = [here.addr(), at];
    membership.set(group(1, &addresses));
    other.tell(1, &addresses);
    (here, membership)
}

fn once(opcode: Opcode, body: Vec<u8>) -> RankCall {
    RankCall {
        tag: 1,
        again: Again::Once,
        ..RankCall::new(opcode, body, LIMIT)
    }
}

/// An engine that has just been told its group hears of it later than this one: until then it knows no member.
async fn known(rank: u32) {
    while Ranks::current()
        .unwrap()
        .call(rank, once(spoken(1), Vec::new()))
        .await
        .is_ok_and(|reply| reply.status == Der::GRPVER.neg())
    {}
}

/// Loads every xstream of `here` with numbered calls of rank 1, each its own number; all must be answered. `done` counts them.
fn load(here: &Engine, done: &Arc<AtomicU64>) {
    std::thread::scope(|scope| {
        for nr in 0..3 * CALLERS {
            let done = Arc::clone(done);
            scope.spawn(move || {
                here.run(nr as u32 % 3, move || async move {
                    for call in 0..CALLS {
                        let body = (nr * CALLS + call).to_le_bytes().to_vec();
                        let sent = once(note(1), body.clone());
                        let reply = Ranks::current().unwrap().call(1, sent).await.unwrap();
                        assert_eq!((reply.status, reply.body), (0, body));
                        done.fetch_add(1, Ordering::SeqCst);
                    }
                });
            });
        }
    });
}

/// Waits for so many more answers, or for all.
fn answers(done: &AtomicU64, more: u64) -> bool {
    let all = 3 * CALLERS * CALLS;
    let wanted = done.load(Ordering::SeqCst) + more;
    while done.load(Ordering::SeqCst) < wanted.min(all) {
        std::thread::sleep(Duration::from_millis(1));
    }
    wanted < all
}

/// What the other side has noted: different numbers, and how often the most frequent one.
fn count(here: &Engine) -> (u64, u64) {
    let body = here.run(0, || async {
        let reply = Ranks::current()
            .unwrap()
            .call(1, once(noted(1), Vec::new()))
            .await
            .unwrap();
        assert_eq!(reply.status, 0);
        reply.body
    });
    let number = |at: usize| u64::from_le_bytes(body[at..at + 8].try_into().unwrap());
    (number(0), number(8))
}

#[test]
fn calls_are_carried_out_once_while_wires_break_and_the_peer_stands_still() {
    let mut other = Process::start(&Role::new(1, &[1]));
    let wire = Proxy::to(other.addr);
    let (here, _) = with(&mut other, wire.addr);
    here.run(0, || known(1));
    let done = Arc::new(AtomicU64::new(0));
    let cuts = std::thread::scope(|scope| {
        let (cut, done) = (&wire, &done);
        let (other, loaded) = (&other, Arc::clone(done));
        let here = &here;
        scope.spawn(move || load(here, &loaded));
        let mut cuts = 0;
        while answers(done, 100) {
            // Every third time it does not even notice before it goes on.
            let stands_still = cuts % 3 == 2;
            if stands_still {
                other.signal(Signal::STOP);
            }
            cut.cut(false);
            if stands_still {
                other.signal(Signal::CONT);
            }
            cuts += 1;
        }
        cuts
    });
    assert!(cuts >= 6, "{cuts}");
    assert!(
        wire.carried() > 3 + cuts,
        "it was connected again and again"
    );
    assert_eq!(count(&here), (3 * CALLERS * CALLS, 1));
}

#[test]
fn a_peer_that_dies_under_load_is_called_on_in_its_next_life() {
    let role = Role::new(1, &[1]);
    let mut other = Process::start(&role);
    let at = other.addr;
    let (here, _) = with(&mut other, at);
    here.run(0, || known(1));
    let addresses = [here.addr(), at];
    let done = Arc::new(AtomicU64::new(0));
    let (before, _next_life) = std::thread::scope(|scope| {
        let (here, loaded) = (&here, Arc::clone(&done));
        scope.spawn(move || load(here, &loaded));
        answers(&done, 300);
        other.signal(Signal::KILL);
        drop(other);
        let before = done.load(Ordering::SeqCst);
        let next_life = Process::start(&Role {
            life: 2,
            listen: at,
            group: addresses.to_vec(),
            ..role
        });
        (before, next_life)
    });
    let (different, most) = count(&here);
    assert_eq!(most, 1, "each once in this life");
    // Each caller may have had an answer of the first life on its way when they were counted.
    let left = 3 * CALLERS * (CALLS - 1) - before;
    assert!(different >= left, "{different} of {left}");
}

#[test]
fn a_peer_that_stands_still_costs_its_callers_their_time_and_no_more() {
    let mut other = Process::start(&Role::new(1, &[1]));
    let at = other.addr;
    let (here, _) = with(&mut other, at);
    here.run(0, || known(1));
    other.signal(Signal::STOP);
    // Its kernel takes what is sent: nobody hears that it does not run.
    here.run(0, || async {
        let brief = || RankCall {
            limit: Duration::from_millis(50),
            ..RankCall::new(spoken(1), Vec::new(), LIMIT)
        };
        for _ in 0..8 {
            let silence = Ranks::current().unwrap().call(1, brief()).await;
            assert_eq!(silence.map(|reply| reply.status), Err(Der::TIMEDOUT));
        }
    });
    // Others are served meanwhile, and it is there again as soon as it runs.
    here.client(1).call(harness::ECHO, b"well", None).unwrap();
    other.signal(Signal::CONT);
    let answer = here.run(0, || async {
        let long = once(spoken(1), Vec::new());
        Ranks::current().unwrap().call(1, long).await.unwrap().body
    });
    assert_eq!(answer, [1]);
}

fn memory() -> BulkPools {
    let class = BulkClass {
        buffer_len: 4096,
        count: 1,
    };
    BulkPools::new(&[class]).unwrap()
}

/// What an engine that knows these versions speaks with the one at `addr`, and which version answers there.
fn engine_speaks(here: &Engine, addr: SocketAddr, known: &'static [u8]) -> Result<u8, Der> {
    here.run(1, move || async move {
        let tcp = TcpTransport::connect(addr, 1, LIMIT, 8, memory(), None)
            .await
            .unwrap();
        let version = negotiate(&tcp, 1, MODULE, known).await?;
        let answer = tcp.call(1, spoken(version), Vec::new(), None).await?;
        assert_eq!((answer.status, &answer.body[..]), (0, &[version][..]));
        Ok(version)
    })
}

/// The same of a client.
fn client_speaks(addr: SocketAddr, known: &[u8]) -> Result<u8, String> {
    let mut client = Client::connect(addr, 1).unwrap();
    let version = client.negotiate(MODULE, known);
    let version = version.map_err(|error| error.to_string())?;
    let answer = client.call(spoken(version), b"", None).unwrap();
    assert_eq!((answer.status, &answer.body[..]), (0, &[version][..]));
    Ok(version)
}

type Spoken = Result<u8, Der>;

#[test]
fn old_and_new_speak_the_highest_version_that_both_know() {
    let old = Process::start(&Role::new(1, &[1, 2]));
    let new = Process::start(&Role::new(2, &[2, 3]));
    let here = Engine::start(1);
    let cases: [(&'static [u8], Spoken, Spoken); 5] = [
        (&[1], Ok(1), Err(Der::PROTO)),
        (&[1, 2], Ok(2), Ok(2)),
        (&[2, 3], Ok(2), Ok(3)),
        (&[3, 4], Err(Der::PROTO), Ok(3)),
        (&[4], Err(Der::PROTO), Err(Der::PROTO)),
    ];
    for (known, with_old, with_new) in cases {
        for (process, expected) in [(&old, with_old), (&new, with_new)] {
            assert_eq!(engine_speaks(&here, process.addr, known), expected);
            let client = client_speaks(process.addr, known);
            assert_eq!(client.as_ref().ok(), expected.as_ref().ok(), "{client:?}");
        }
    }
    // Who asks without having agreed first is told, and told both lists.
    let mut client = Client::connect(new.addr, 1).unwrap();
    let answer = client.call(spoken(1), b"", None).unwrap();
    assert_eq!(answer.status, Der::PROTO.neg());
    let said = client_speaks(new.addr, &[1]).unwrap_err();
    assert!(said.contains("[2, 3]") && said.contains("[1]"), "{said}");
    let nothing = client.negotiate(200, &[1]).unwrap_err();
    assert!(
        matches!(&nothing, ClientError::Versions { served, .. } if served.is_empty()),
        "{nothing}"
    );
}

#[test]
fn an_upgrade_under_load_changes_what_is_spoken_and_no_answer() {
    let role = Role::new(1, &[1, 2]);
    let old = Process::start(&role);
    let addr = old.addr;
    let answered = AtomicU64::new(0);
    let spoke: Vec<u8> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..4)
            .map(|_| {
                let answered = &answered;
                scope.spawn(move || {
                    let mut spoke = Vec::new();
                    // Until the new one answers. Each connection agrees anew.
                    while spoke.last() != Some(&3) {
                        let Ok(mut client) = Client::connect(addr, 1) else {
                            continue;
                        };
                        let Ok(version) = client.negotiate(MODULE, &[2, 3]) else {
                            continue;
                        };
                        spoke.push(version);
                        while let Ok(answer) = client.call(spoken(version), b"", None) {
                            assert_eq!((answer.status, &answer.body[..]), (0, &[version][..]));
                            answered.fetch_add(1, Ordering::SeqCst);
                            if version == 3 {
                                break;
                            }
                        }
                    }
                    spoke
                })
            })
            .collect();
        while answered.load(Ordering::SeqCst) < 1000 {
            std::thread::yield_now();
        }
        drop(old);
        let new = Process::start(&Role {
            life: 2,
            listen: addr,
            versions: &[2, 3],
            ..role
        });
        let spoke = callers
            .into_iter()
            .flat_map(|caller| caller.join().unwrap());
        let spoke = spoke.collect();
        drop(new);
        spoke
    });
    assert_eq!(spoke.iter().filter(|version| **version == 3).count(), 4);
    assert!(spoke.iter().all(|version| [2, 3].contains(version)));
    assert!(spoke.contains(&2));
}
