//! What a turn does, compared event by event, as far as it does not depend on whose clock the timed pollers keep: those are in `turn.rs`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use spdk_thread::testing::Trace;
use spdk_thread::{Period, PollResult, Poller, Thread, ThreadOptions, yield_now};

use crate::setup::{KEEPS_ORDER, lockstep};

/// Sends a message that appends to a list which messages can reach.
fn send_logging(thread: &Thread, text: &'static str) {
    thread_local!(static SENT: RefCell<Option<Trace>> = const { RefCell::new(None) });
    thread
        .handle()
        .send(move |_| SENT.with(|sent| sent.borrow_mut().get_or_insert_default().log(text)))
        .expect("room");
}

/// Compares what came since the last call; where pollers are called in another order, as a set.
fn came(trace: &Trace, expected: &[&str]) {
    let mut events = trace.take();
    let mut expected = expected.to_vec();
    if !KEEPS_ORDER {
        events.sort_unstable();
        expected.sort_unstable();
    }
    assert_eq!(events, expected);
}

#[test]
fn a_cycle_is_frozen_and_pollers_come_round_after_each_batch_of_its_tasks() {
    let mut lockstep = lockstep();
    let thread = lockstep.thread_with(
        "a",
        ThreadOptions {
            task_batch: 2,
            ..Default::default()
        },
    );
    let trace = Trace::new();
    let _device = trace.poller(&thread, "device", Period::EveryTurn);
    for name in ["one", "two", "three", "four", "five"] {
        let log = trace.clone();
        let task = async move {
            log.log(name);
            yield_now().await;
            log.log(format!("{name} again"));
        };
        thread.spawn(name, task).expect("room").detach();
    }
    assert!(thread.is_between_cycles());
    let events = trace.turns(&mut lockstep, 3, 10);
    let expected = [
        "-- 0",
        "device@0",
        "one",
        "two",
        "-- 10",
        "device@10",
        "three",
        "four",
        "-- 20",
        "device@20",
        "five",
    ];
    assert_eq!(
        events, expected,
        "those that gave way wait for the next cycle"
    );
    assert!(thread.is_between_cycles());
    lockstep.step();
    assert!(!thread.is_between_cycles());
    assert_eq!(
        trace.take(),
        ["device@30", "one again", "two again"],
        "in order, none overtaken"
    );
    let stats = thread.cycle_stats();
    assert_eq!((stats.cycles, stats.tasks, stats.largest), (1, 5, 5));
    assert_eq!((stats.ns, stats.longest_ns), (30, 30));
}

#[test]
fn pollers_pause_resume_and_unregister_from_inside() {
    let mut lockstep = lockstep();
    let thread = lockstep.thread("a");
    let trace = Trace::new();
    let slot: Rc<RefCell<Vec<Option<Poller>>>> = Rc::default();
    // Pauses itself on its first call, resumes and unregisters the other on the third turn.
    let calls = Cell::new(0);
    let (log, others) = (trace.clone(), slot.clone());
    let itself = thread.register_poller("itself", Period::EveryTurn, move |_| {
        calls.set(calls.get() + 1);
        log.log(format!("itself {}", calls.get()));
        if calls.get() == 2
            && let Some(poller) = &others.borrow()[0]
        {
            poller.pause();
        }
        PollResult::Busy
    });
    let (log, others) = (trace.clone(), slot.clone());
    let suicide = thread.register_poller("once", Period::EveryTurn, move |_| {
        log.log("once");
        // Its own handle: the function is dropped after this call, not during it.
        let own = others.borrow_mut()[1].take();
        drop(own);
        log.log("once is still here");
        PollResult::Busy
    });
    slot.borrow_mut().extend([Some(itself), Some(suicide)]);
    let _last = trace.poller(&thread, "last", Period::EveryTurn);
    lockstep.step();
    came(
        &trace,
        &["itself 1", "once", "once is still here", "last@0"],
    );
    lockstep.step();
    lockstep.step();
    // Paused from inside.
    came(&trace, &["itself 2", "last@0", "last@0"]);
    slot.borrow()[0].as_ref().expect("kept").resume();
    slot.borrow()[0].as_ref().expect("kept").resume();
    lockstep.step();
    // At its old place, once.
    came(&trace, &["itself 3", "last@0"]);
    slot.borrow_mut().clear();
    lockstep.step();
    assert_eq!(trace.take(), ["last@0"]);
    assert_eq!(
        thread
            .pollers()
            .iter()
            .map(|poller| poller.name)
            .collect::<Vec<_>>(),
        ["last"]
    );
}

#[test]
fn pollers_registered_inside_start_in_the_next_turn() {
    let mut lockstep = lockstep();
    let thread = lockstep.thread("a");
    let trace = Trace::new();
    let kept: Rc<RefCell<Vec<Poller>>> = Rc::default();
    let (log, keep, own) = (trace.clone(), kept.clone(), thread.clone());
    let _parent = thread.register_poller("parent", Period::EveryTurn, move |_| {
        log.log("parent");
        if keep.borrow().is_empty() {
            keep.borrow_mut()
                .push(log.poller(&own, "child", Period::EveryTurn));
        }
        PollResult::Busy
    });
    lockstep.step();
    came(&trace, &["parent"]);
    lockstep.step();
    came(&trace, &["parent", "child@0"]);
}

#[test]
fn panics_end_the_culprit_and_nothing_else() {
    let mut lockstep = lockstep();
    let thread = lockstep.thread("a");
    let trace = Trace::new();
    let _before = trace.poller(&thread, "before", Period::EveryTurn);
    let culprit = thread.register_poller("culprit", Period::EveryTurn, |_| panic!("a bad poller"));
    let timed = thread.register_poller("timed culprit", Period::Nanos(0), |_| panic!("another"));
    let _after = trace.poller(&thread, "after", Period::EveryTurn);
    thread
        .handle()
        .send(|_| panic!("a bad message"))
        .expect("room");
    send_logging(&thread, "next message");
    let task = thread
        .spawn("bad task", async { panic!("a bad task {}", 7) as () })
        .expect("room");
    let log = trace.clone();
    thread
        .spawn("good task", async move { log.log("good task") })
        .expect("room")
        .detach();
    assert_eq!(thread.poll(0).messages, 2);
    came(&trace, &["before@0", "after@0", "good task"]);
    assert!(!culprit.is_registered() && !timed.is_registered());
    assert_eq!((thread.stats().panics, thread.stats().turns), (4, 1));
    let mut task = std::pin::pin!(task);
    let std::task::Poll::Ready(Err(error)) = task
        .as_mut()
        .poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
    else {
        panic!("it has ended, with an error");
    };
    assert_eq!(error.to_string(), "the task panicked: a bad task 7");
}

#[test]
fn threads_take_turns_and_messages_cross() {
    let mut lockstep = lockstep();
    let (a, b) = (lockstep.thread("a"), lockstep.thread("b"));
    thread_local!(static LOG: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) });
    fn ball(here: &Thread, there: spdk_thread::ThreadHandle, left: u32) {
        LOG.with(|log| log.borrow_mut().push(format!("{} {left}", here.name())));
        if left > 0 {
            let back = here.handle();
            there
                .send(move |thread| ball(thread, back, left - 1))
                .expect("room");
        }
    }
    let to = b.handle();
    a.handle()
        .send(move |thread| ball(thread, to, 3))
        .expect("room");
    let steps = lockstep.settle();
    assert_eq!(LOG.take(), ["a 3", "b 2", "a 1", "b 0"]);
    assert_eq!(steps, 2, "b's turn comes after a's in each step");
}

#[test]
fn units_of_one_turn_differ_and_a_task_knows_where_it_was_started() {
    let mut lockstep = lockstep();
    let thread = lockstep.thread("watched");
    let handle = thread.handle();
    let sequences = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    for _ in 0..3 {
        let (handle, sequences) = (handle.clone(), sequences.clone());
        let task = thread.spawn("same", async move {
            let unit = handle.pulse().unit.expect("this");
            sequences.borrow_mut().push(unit.sequence);
        });
        task.expect("room").detach();
    }
    let line = line!() + 1;
    let task = thread.spawn("same", std::future::pending::<()>());
    let listed = thread.tasks();
    let last = listed.last().expect("listed");
    assert_eq!(
        (last.spawned_by.file(), last.spawned_by.line()),
        (file!(), line)
    );
    lockstep.step();
    let seen = sequences.borrow().clone();
    let mut distinct = seen.clone();
    distinct.dedup();
    assert_eq!((seen.len(), distinct.len()), (3, 3), "{seen:?}");
    drop(task);
}
