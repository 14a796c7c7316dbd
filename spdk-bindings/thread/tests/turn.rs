//! The order of a turn, compared event by event: messages, pollers, timed pollers, sleepers, tasks. Of our own threads only: where SPDK carries
//! them its clock runs timed pollers, its batch takes messages and its list says whose turn it is. What holds for both is in `carried/`.
#![allow(missing_docs, reason = "a test")]

use spdk_thread::testing::{Lockstep, Trace};
use spdk_thread::{
    Period, PollResult, Poller, SendError, Thread, ThreadOptions, current, sleep, yield_now,
};
use std::cell::RefCell;
use std::rc::Rc;

#[test]
fn a_turn_is_messages_then_pollers_then_timed_pollers_then_tasks() {
    let mut lockstep = Lockstep::new();
    let thread = lockstep.thread("a");
    let trace = Trace::new();
    let _second = trace.poller(&thread, "slow", Period::Nanos(20));
    let _first = trace.poller(&thread, "fast", Period::Nanos(10));
    let _a = trace.poller(&thread, "every a", Period::EveryTurn);
    let _b = trace.poller(&thread, "every b", Period::Nanos(0));
    let log = trace.clone();
    let task = async move {
        log.log("task starts");
        sleep(20).await;
        log.log("task slept");
        yield_now().await;
        log.log("task yielded");
    };
    thread.spawn("task", task).expect("room").detach();
    let events = trace.turns(&mut lockstep, 4, 10);
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
fn time_never_goes_back_and_early_timers_count_from_the_first_turn() {
    let thread = Thread::new("a", ThreadOptions::default());
    let trace = Trace::new();
    let _poller = trace.poller(&thread, "p", Period::Nanos(100));
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
    let _poller = trace.poller(&thread, "p", Period::Nanos(10));
    for (advance, next) in [(12, 20), (9, 30), (37, 68)] {
        lockstep.advance(advance);
        lockstep.step();
        assert_eq!(thread.next_deadline(), Some(next));
    }
    assert_eq!(trace.take(), ["p@12", "p@21", "p@58"]);
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
