//! The order of a turn, compared event by event: messages, pollers, timed pollers, sleepers, tasks.
#![allow(missing_docs, reason = "a test")]

use spdk_thread::testing::{Lockstep, Trace};
use spdk_thread::{
    Period, PollResult, Poller, SendError, Thread, ThreadOptions, current, sleep, yield_now,
};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;

fn logging(thread: &Thread, trace: &Trace, name: &'static str, period: Period) -> Poller {
    let trace = trace.clone();
    thread.register_poller(name, period, move |now| {
        trace.log(format!("{name}@{now}"));
        PollResult::Busy
    })
}

/// Sends a message that appends to a list which messages can reach.
fn send_logging(thread: &Thread, text: &'static str) {
    thread_local!(static SENT: RefCell<Option<Trace>> = const { RefCell::new(None) });
    thread
        .handle()
        .send(move |_| SENT.with(|sent| sent.borrow_mut().get_or_insert_default().log(text)))
        .expect("room");
}

fn run(lockstep: &mut Lockstep, times: usize, ns: u64, trace: &Trace) -> Vec<String> {
    for _ in 0..times {
        trace.log(format!("-- {}", lockstep.now()));
        lockstep.step();
        lockstep.advance(ns);
    }
    trace.take()
}

#[test]
fn a_turn_is_messages_then_pollers_then_timed_pollers_then_tasks() {
    let mut lockstep = Lockstep::new();
    let thread = lockstep.thread("a");
    let trace = Trace::new();
    let _second = logging(&thread, &trace, "slow", Period::Nanos(20));
    let _first = logging(&thread, &trace, "fast", Period::Nanos(10));
    let _a = logging(&thread, &trace, "every a", Period::EveryTurn);
    let _b = logging(&thread, &trace, "every b", Period::Nanos(0));
    let log = trace.clone();
    let task = async move {
        log.log("task starts");
        sleep(20).await;
        log.log("task slept");
        yield_now().await;
        log.log("task yielded");
    };
    thread.spawn("task", task).expect("room").detach();
    let events = run(&mut lockstep, 4, 10, &trace);
    let expected = [
        "-- 0",
        "every a@0",
        "every b@0",
        "task starts",
        "-- 10",
        "every a@10",
        "every b@10",
        "fast@10",
        "-- 20",
        "every a@20",
        "every b@20",
        "slow@20",
        "fast@20",
        "task slept",
        "-- 30",
        "every a@30",
        "every b@30",
        "fast@30",
        "task yielded",
    ];
    assert_eq!(events, expected);
}

#[test]
fn messages_run_first_in_order_and_in_batches() {
    let mut lockstep = Lockstep::new();
    let thread = lockstep.thread_with(
        "a",
        ThreadOptions {
            message_batch: 2,
            mailbox: 4,
            ..Default::default()
        },
    );
    thread_local!(static SEEN: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) });
    let handle = thread.handle();
    for number in 0..4 {
        handle
            .send(move |thread| {
                assert_eq!(current().map(|current| current.id()), Some(thread.id()));
                SEEN.with(|seen| seen.borrow_mut().push(number));
            })
            .expect("room");
    }
    assert_eq!(handle.send(|_| {}), Err(SendError::Full));
    let _poller = thread.register_poller("mark", Period::EveryTurn, |_| {
        SEEN.with(|seen| seen.borrow_mut().push(99));
        PollResult::Idle
    });
    assert_eq!(thread.poll(0).messages, 2);
    assert!(thread.has_ready_work() && !thread.settle());
    lockstep.settle();
    assert_eq!(SEEN.take(), [0, 1, 99, 2, 3, 99]);
    assert!(current().is_none());
    assert!(!thread.has_ready_work() && thread.settle());
}

#[test]
fn a_cycle_is_frozen_and_pollers_come_round_after_each_batch_of_its_tasks() {
    let mut lockstep = Lockstep::new();
    let thread = lockstep.thread_with(
        "a",
        ThreadOptions {
            task_batch: 2,
            ..Default::default()
        },
    );
    let trace = Trace::new();
    let _device = logging(&thread, &trace, "device", Period::EveryTurn);
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
    let events = run(&mut lockstep, 3, 10, &trace);
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
fn time_never_goes_back_and_early_timers_count_from_the_first_turn() {
    let thread = Thread::new("a", ThreadOptions::default());
    let trace = Trace::new();
    let _poller = logging(&thread, &trace, "p", Period::Nanos(100));
    thread.poll(5_000);
    assert_eq!(
        trace.take(),
        Vec::<String>::new(),
        "100 ns have not passed since it was registered"
    );
    thread.poll(5_100);
    thread.poll(4_000);
    assert_eq!(thread.now(), 5_100);
    assert_eq!(trace.take(), ["p@5100"]);
    assert_eq!(thread.next_deadline(), Some(5_200));
}

#[test]
fn a_late_timed_poller_is_called_once_and_keeps_its_beat() {
    let mut lockstep = Lockstep::new();
    let thread = lockstep.thread("a");
    let trace = Trace::new();
    lockstep.step();
    let _poller = logging(&thread, &trace, "p", Period::Nanos(10));
    for (advance, next) in [(12, 20), (9, 30), (37, 68)] {
        lockstep.advance(advance);
        lockstep.step();
        assert_eq!(thread.next_deadline(), Some(next));
    }
    assert_eq!(trace.take(), ["p@12", "p@21", "p@58"]);
}

#[test]
fn pollers_pause_resume_and_unregister_from_inside() {
    let mut lockstep = Lockstep::new();
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
    let _last = logging(&thread, &trace, "last", Period::EveryTurn);
    lockstep.step();
    assert_eq!(
        trace.take(),
        ["itself 1", "once", "once is still here", "last@0"]
    );
    lockstep.step();
    lockstep.step();
    assert_eq!(
        trace.take(),
        ["itself 2", "last@0", "last@0"],
        "paused from inside"
    );
    slot.borrow()[0].as_ref().expect("kept").resume();
    slot.borrow()[0].as_ref().expect("kept").resume();
    lockstep.step();
    assert_eq!(
        trace.take(),
        ["itself 3", "last@0"],
        "at its old place, once"
    );
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
fn timed_pollers_pause_resume_and_change_their_period_from_inside() {
    let mut lockstep = Lockstep::new();
    let thread = lockstep.thread("a");
    let trace = Trace::new();
    lockstep.step();
    let slot: Rc<RefCell<Option<Poller>>> = Rc::default();
    let (log, own) = (trace.clone(), slot.clone());
    let poller = thread.register_poller("p", Period::Nanos(10), move |now| {
        log.log(format!("p@{now}"));
        let own = own.borrow();
        let Some(poller) = own.as_ref() else {
            return PollResult::Idle;
        };
        match now {
            10 => poller.set_period(Period::Nanos(30)),
            40 => poller.set_period(Period::EveryTurn),
            50 => poller.set_period(Period::Nanos(20)),
            70 => poller.pause(),
            _ => {}
        }
        PollResult::Idle
    });
    *slot.borrow_mut() = Some(poller);
    for _ in 0..12 {
        lockstep.advance(10);
        lockstep.step();
    }
    assert_eq!(trace.take(), ["p@10", "p@40", "p@50", "p@70"]);
    assert_eq!(thread.next_deadline(), None);
    slot.borrow().as_ref().expect("kept").resume();
    assert_eq!(thread.next_deadline(), Some(140));
}

#[test]
fn pollers_registered_inside_start_in_the_next_turn() {
    let mut lockstep = Lockstep::new();
    let thread = lockstep.thread("a");
    let trace = Trace::new();
    let kept: Rc<RefCell<Vec<Poller>>> = Rc::default();
    let (log, keep, own) = (trace.clone(), kept.clone(), thread.clone());
    let _parent = thread.register_poller("parent", Period::EveryTurn, move |_| {
        log.log("parent");
        if keep.borrow().is_empty() {
            keep.borrow_mut()
                .push(logging(&own, &log, "child", Period::EveryTurn));
        }
        PollResult::Busy
    });
    lockstep.step();
    trace.log("--");
    lockstep.step();
    assert_eq!(trace.take(), ["parent", "--", "parent", "child@0"]);
}

#[test]
fn what_is_uncovered_decides_how_deep_the_reactor_sleeps() {
    let mut lockstep = Lockstep::new();
    let thread = lockstep.thread("a");
    assert!(!thread.needs_polling());
    let poller = thread.register_poller("p", Period::EveryTurn, |_| PollResult::Idle);
    assert!(thread.needs_polling());
    poller.set_interrupt_mode(true);
    assert!(!thread.needs_polling());
    poller.set_interrupt_mode(false);
    poller.pause();
    assert!(!thread.needs_polling());
    poller.resume();
    assert!(thread.needs_polling());
    poller.set_period(Period::Nanos(5));
    assert!(!thread.needs_polling());
    poller.set_period(Period::EveryTurn);
    drop(poller);
    assert!(!thread.needs_polling());
}

#[test]
fn panics_end_the_culprit_and_nothing_else() {
    let mut lockstep = Lockstep::new();
    let thread = lockstep.thread("a");
    let trace = Trace::new();
    let _before = logging(&thread, &trace, "before", Period::EveryTurn);
    let culprit = thread.register_poller("culprit", Period::EveryTurn, |_| panic!("a bad poller"));
    let timed = thread.register_poller("timed culprit", Period::Nanos(0), |_| panic!("another"));
    let _after = logging(&thread, &trace, "after", Period::EveryTurn);
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
    assert_eq!(trace.take(), ["before@0", "after@0", "good task"]);
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
    let mut lockstep = Lockstep::new();
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
