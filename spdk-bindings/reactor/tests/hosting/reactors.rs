//! Reactors on real OS threads: hosting, messages, sleeping and waking, shutdown.
use rustix::event::{EventfdFlags, eventfd};
use spdk_reactor::{IdleGoal, Reactor, ReactorOptions, ReactorSet, StartError};
use spdk_thread::sync::remote_oneshot;
use spdk_thread::{Interest, Period, PollResult, Thread, ThreadHandle, sleep};
use std::cell::RefCell;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use crate::setup;

const PATIENCE: Duration = Duration::from_secs(60);

fn cpus(count: usize) -> Vec<usize> {
    let allowed = spdk_env::cpu::allowed().expect("affinity");
    (0..count).map(|i| allowed[i % allowed.len()]).collect()
}

fn set(count: usize, idle_latency_us: u64) -> ReactorSet {
    let options = ReactorOptions {
        cpus: cpus(count),
        idle_latency_us,
        pin: true,
        name_prefix: "test".into(),
    };
    ReactorSet::start(&options).expect("reactors start")
}

fn host(set: &ReactorSet, reactor: usize, name: &str) -> ThreadHandle {
    set.reactors()[reactor]
        .spawn_thread(name, setup::thread_options(), |_| {})
        .expect("a reactor takes a thread")
}

/// Runs `f` on the thread and brings its answer back.
fn ask<R: Send + 'static>(
    thread: &ThreadHandle,
    f: impl FnOnce(&Thread) -> R + Send + 'static,
) -> R {
    let (reply, answer) = mpsc::channel();
    thread
        .send(move |thread| reply.send(f(thread)).expect("asker waits"))
        .expect("room in the mailbox");
    answer.recv_timeout(PATIENCE).expect("the thread answers")
}

#[test]
fn a_message_reaches_a_sleeping_reactor() {
    let mut set = set(1, 10);
    let thread = host(&set, 0, "a");
    for round in 0..200u32 {
        assert_eq!(ask(&thread, move |_| round), round);
        if round % 50 == 0 {
            // Long enough that the reactor is asleep or about to be; the test holds either way.
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    assert!(set.reactors()[0].stats().at(setup::REST).count > 0);
    set.shutdown(PATIENCE).expect("nothing holds it");
    assert!(thread.is_exited());
    assert!(thread.send(|_| {}).is_err());
}

#[test]
fn reactors_ping_pong_with_every_idle_goal() {
    fn pong(here: ThreadHandle, there: ThreadHandle, left: u32, done: mpsc::Sender<()>) {
        if left == 0 {
            done.send(()).expect("the test waits");
            return;
        }
        let back = here.clone();
        let to = there.clone();
        to.send(move |_| pong(there, back, left - 1, done))
            .expect("room");
    }
    for goal in [0, 1, 50] {
        let mut set = set(2, goal);
        let (a, b) = (host(&set, 0, "a"), host(&set, 1, "b"));
        let (done, is_done) = mpsc::channel();
        pong(a, b, 500, done);
        is_done.recv_timeout(PATIENCE).expect("all rounds");
        set.shutdown(PATIENCE).expect("nothing holds it");
    }
}

#[test]
fn tasks_sleep_in_real_time_and_answer_from_another_reactor() {
    let mut set = set(2, 20);
    let (a, b) = (host(&set, 0, "a"), host(&set, 1, "b"));
    let (done, is_done) = mpsc::channel();
    ask(&a, move |thread| {
        let task = async move {
            let (reply, answer) = remote_oneshot::channel();
            b.send(move |thread| {
                let late = async move {
                    sleep(1_000_000).await;
                    reply.send(42).expect("the receiver waits");
                };
                thread.spawn("late answer", late).expect("room").detach();
            })
            .expect("room");
            done.send(answer.await).expect("the test waits");
        };
        thread.spawn("asks", task).expect("room").detach();
    });
    assert_eq!(is_done.recv_timeout(PATIENCE).expect("an answer"), Ok(42));
    set.shutdown(PATIENCE).expect("nothing holds it");
}

#[test]
fn a_watched_descriptor_wakes_a_sleeping_reactor() {
    let mut set = set(1, 10);
    let thread = host(&set, 0, "a");
    let fd = eventfd(0, EventfdFlags::NONBLOCK).expect("eventfd");
    let outside = fd.try_clone().expect("dup");
    let (seen, sees) = mpsc::channel();
    ask(&thread, move |thread| {
        let watch = thread.watch_fd(Rc::new(fd), Interest::READABLE);
        let task = async move {
            for _ in 0..3 {
                watch.readable().await;
                let mut count = [0; 8];
                rustix::io::read(watch.fd(), &mut count).expect("readable");
                seen.send(u64::from_ne_bytes(count))
                    .expect("the test waits");
            }
        };
        thread.spawn("reads", task).expect("room").detach();
    });
    for count in [1u64, 5, 9] {
        rustix::io::write(outside.as_fd(), &count.to_ne_bytes()).expect("room in the counter");
        assert_eq!(sees.recv_timeout(PATIENCE).expect("seen"), count);
    }
    set.shutdown(PATIENCE).expect("nothing holds it");
}

#[test]
fn shutdown_says_what_holds_and_succeeds_once_it_is_gone() {
    let mut set = set(1, 20);
    let thread = host(&set, 0, "keeper");
    thread_local!(static KEPT: RefCell<Option<spdk_thread::Poller>> = const { RefCell::new(None) });
    ask(&thread, |thread| {
        let poller =
            thread.register_poller("heartbeat", Period::Nanos(1_000_000), |_| PollResult::Idle);
        KEPT.with(|kept| *kept.borrow_mut() = Some(poller));
        thread
            .spawn("waits", std::future::pending::<()>())
            .expect("room")
            .detach();
    });
    let mut ticks = Vec::new();
    let held = set
        .shutdown_with(Duration::from_millis(1500), |holders| {
            ticks.push(holders.to_vec())
        })
        .expect_err("a poller and a task hold it");
    let [poller, task] = &held.holders[..] else {
        panic!("two holders: {:?}", held.holders)
    };
    assert_eq!(poller, "thread keeper: poller heartbeat");
    assert!(
        task.starts_with("thread keeper: task waits (age ")
            && task.ends_with("waits for a wake-up)"),
        "{task}"
    );
    assert!(!ticks.is_empty(), "a tick each second");
    drop(set);
}

#[test]
fn a_stuck_reactor_is_named_and_a_panicking_message_is_not_its_end() {
    let mut set = set(1, 20);
    let thread = host(&set, 0, "a");
    thread.send(|_| panic!("a bad message")).expect("room");
    assert_eq!(ask(&thread, |thread| thread.stats().panics), 1);
    let (release, released) = mpsc::channel::<()>();
    let (stuck, is_stuck) = mpsc::channel();
    let block = move |_: &Thread| {
        stuck.send(()).expect("the test waits");
        released.recv().expect("released");
    };
    thread.send(block).expect("room");
    is_stuck.recv_timeout(PATIENCE).expect("the message runs");
    assert_eq!(
        set.holders(),
        ["reactor test_0: no answer within 200 ms: a message, poller or task does not return"]
    );
    release.send(()).expect("the message waits");
    set.shutdown(PATIENCE).expect("nothing holds it");
}

#[test]
fn a_cpu_that_does_not_exist_stops_the_start() {
    let options = ReactorOptions {
        cpus: vec![cpus(1)[0], 99_999],
        idle_latency_us: 50,
        pin: true,
        name_prefix: "bad".into(),
    };
    let error = ReactorSet::start(&options).expect_err("no such CPU");
    assert!(matches!(error, StartError::Cpu { .. }), "{error}");
    assert!(
        error
            .to_string()
            .starts_with("reactor bad_1: cannot bind a thread to CPU 99999"),
        "{error}"
    );
    assert!(matches!(
        ReactorSet::start(&ReactorOptions {
            cpus: vec![],
            ..options
        }),
        Err(StartError::NoCpus)
    ));
}

#[test]
fn a_reactor_turned_by_hand_hosts_threads_in_order() {
    let reactor = Reactor::new("hand", IdleGoal::ALWAYS_POLL).expect("descriptors");
    let order = Rc::new(RefCell::new(Vec::new()));
    let mut pollers = Vec::new();
    for name in ["first", "second"] {
        let thread = reactor.spawn_thread(name, setup::thread_options());
        let order = order.clone();
        pollers.push(
            thread.register_poller("note", Period::EveryTurn, move |now| {
                order.borrow_mut().push((name, now));
                PollResult::Busy
            }),
        );
    }
    assert_eq!(reactor.poll_once(10).pollers_busy, 2);
    reactor.poll_once(20);
    assert_eq!(
        *order.borrow(),
        [("first", 10), ("second", 10), ("first", 20), ("second", 20)]
    );
}
