//! Tasks: order, waking, joining, aborting, bounds, and the primitives between them.
use spdk_thread::sync::{LocalReceiver, Notify, Semaphore, channel, oneshot, remote_oneshot};
use spdk_thread::testing::Trace;
use spdk_thread::{
    Elapsed, JoinError, SpawnError, TaskState, ThreadOptions, current, sleep, timeout, yield_now,
};
use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use crate::setup;

#[test]
fn ready_tasks_run_once_per_turn_in_order() {
    let mut lockstep = setup::lockstep();
    let thread = lockstep.thread("a");
    let trace = Trace::new();
    for name in ["a", "b"] {
        let (log, own) = (trace.clone(), thread.clone());
        let task = async move {
            for round in 0..2 {
                log.log(format!("{name}{round}"));
                if round == 0 {
                    let log = log.clone();
                    let child = async move { log.log(format!("child of {name}")) };
                    own.spawn("child", child).expect("room").detach();
                }
                yield_now().await;
            }
        };
        thread.spawn(name, task).expect("room").detach();
    }
    for _ in 0..3 {
        lockstep.step();
        trace.log("--");
    }
    let expected = [
        "a0",
        "b0",
        "--",
        "child of a",
        "a1",
        "child of b",
        "b1",
        "--",
        "--",
    ];
    assert_eq!(trace.take(), expected);
    assert_eq!(thread.tasks(), []);
}

#[test]
fn joining_gives_the_output_whether_it_waits_or_not() {
    let mut lockstep = setup::lockstep();
    let thread = lockstep.thread("a");
    let own = thread.clone();
    let sum = lockstep.block_on(&thread, async move {
        let early = own.spawn("early", async { 1 }).expect("room");
        let late = own
            .spawn("late", async {
                sleep(1000).await;
                10
            })
            .expect("room");
        yield_now().await;
        assert!(early.is_finished() && !late.is_finished());
        early.await.expect("no panic") + late.await.expect("no panic")
    });
    assert_eq!(sum, Ok(11));
    assert_eq!(lockstep.now(), 1000);
}

#[test]
fn dropping_the_handle_detaches_and_drops_the_output() {
    let mut lockstep = setup::lockstep();
    let thread = lockstep.thread("a");
    let alive = Rc::new(());
    let (running, done) = (alive.clone(), alive.clone());
    let detached = thread
        .spawn("running", async move {
            yield_now().await;
            running
        })
        .expect("room");
    let finished = thread.spawn("done", async move { done }).expect("room");
    lockstep.step();
    assert_eq!(
        thread
            .tasks()
            .iter()
            .map(|task| (task.name, task.state))
            .collect::<Vec<_>>(),
        [("running", TaskState::Ready), ("done", TaskState::Done),]
    );
    detached.detach();
    drop(finished);
    lockstep.settle();
    assert_eq!(Rc::strong_count(&alive), 1);
    assert_eq!(thread.tasks(), []);
}

#[test]
fn aborting_drops_the_future_in_the_next_turn_without_polling_it() {
    struct Guard(Trace, &'static str);
    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.log(format!("{} dropped", self.1));
        }
    }
    let mut lockstep = setup::lockstep();
    let thread = lockstep.thread("a");
    let trace = Trace::new();
    let guarded = |name: &'static str| {
        let guard = Guard(trace.clone(), name);
        thread
            .spawn(name, async move {
                guard.0.log(format!("{} runs", guard.1));
                pending::<()>().await;
            })
            .expect("room")
    };
    let waiting = guarded("waiting");
    lockstep.step();
    let ready = guarded("ready");
    ready.abort();
    waiting.abort();
    waiting.abort();
    trace.log("aborted");
    lockstep.step();
    assert_eq!(
        trace.take(),
        [
            "waiting runs",
            "aborted",
            "ready dropped",
            "waiting dropped"
        ]
    );
    assert_eq!(
        lockstep.block_on(&thread, waiting).expect("joins"),
        Err(JoinError::Aborted)
    );
    let done = thread.spawn("done", async { 5 }).expect("room");
    lockstep.step();
    done.abort();
    assert_eq!(lockstep.block_on(&thread, done).expect("joins"), Ok(5));
    drop(ready);
}

#[test]
fn a_task_can_abort_itself() {
    let mut lockstep = setup::lockstep();
    let thread = lockstep.thread("a");
    let slot = Rc::new(RefCell::new(None::<spdk_thread::JoinHandle<()>>));
    let own = slot.clone();
    let reached = Rc::new(Cell::new(0));
    let count = reached.clone();
    let task = async move {
        own.borrow().as_ref().expect("stored").abort();
        count.set(1);
        yield_now().await;
        count.set(2);
    };
    *slot.borrow_mut() = Some(thread.spawn("itself", task).expect("room"));
    lockstep.settle();
    assert_eq!(reached.get(), 1);
    assert!(slot.borrow().as_ref().expect("stored").is_finished());
}

#[test]
fn the_bound_on_tasks_holds_and_slots_are_reused() {
    let mut lockstep = setup::lockstep();
    let thread = lockstep.thread_with(
        "a",
        ThreadOptions {
            max_tasks: 2,
            ..Default::default()
        },
    );
    for round in 0..10u32 {
        let (first, second) = (
            thread.spawn("1", async move { round }),
            thread.spawn("2", async {}),
        );
        assert_eq!(
            thread.spawn("3", async {}).err(),
            Some(SpawnError::TooMany(2))
        );
        lockstep.step();
        drop(second);
        let mut first = pin!(first.expect("room"));
        let mut context = std::task::Context::from_waker(Waker::noop());
        assert_eq!(first.as_mut().poll(&mut context), Poll::Ready(Ok(round)));
    }
    assert_eq!(thread.stats().spawned, 20);
    // Slots that keep memory for the types above serve others as well.
    assert_eq!(lockstep.block_on(&thread, async { 7 }), Ok(7));
}

#[test]
fn without_room_for_kept_memory_tasks_run_and_free_theirs() {
    let mut lockstep = setup::lockstep();
    let options = ThreadOptions {
        max_tasks: 4,
        task_pool_bytes: 0,
        ..Default::default()
    };
    let thread = lockstep.thread_with("a", options);
    let held = Rc::new(());
    for _ in 0..10 {
        let tasks: Vec<_> = (0..2)
            .map(|_| {
                let inside = held.clone();
                thread.spawn("holds", async move { inside }).expect("room")
            })
            .collect();
        assert_eq!(Rc::strong_count(&held), 3);
        for task in tasks {
            assert_eq!(lockstep.block_on(&thread, task), Ok(Ok(held.clone())));
        }
        assert_eq!(Rc::strong_count(&held), 1);
    }
}

#[test]
fn a_million_tasks_queue_run_in_order_and_the_next_one_is_refused() {
    const MANY: u32 = 1_000_000;
    let mut lockstep = setup::lockstep();
    let thread = lockstep.thread_with(
        "a",
        ThreadOptions {
            max_tasks: MANY,
            ..Default::default()
        },
    );
    let next = Rc::new(Cell::new(0));
    for number in 0..MANY {
        let next = next.clone();
        let task = async move {
            assert_eq!(next.get(), number);
            next.set(number + 1);
        };
        thread.spawn("many", task).expect("room").detach();
    }
    assert_eq!(
        thread.spawn("one more", async {}).err(),
        Some(SpawnError::TooMany(MANY))
    );
    assert_eq!(next.get(), 0, "none runs before its turn");
    lockstep.settle();
    assert_eq!((next.get(), thread.stats().panics), (MANY, 0));
    drop(thread.spawn("room again", async {}).expect("room"));
    lockstep.settle();
}

#[test]
fn standard_wakers_work_from_other_os_threads_and_after_the_task_has_ended() {
    let mut lockstep = setup::lockstep();
    let thread = lockstep.thread("a");
    let kept: Rc<RefCell<Option<Waker>>> = Rc::default();
    // One type of tasks: the second one gets the first one's slot.
    let task = |polls: &Rc<Cell<u32>>, enough: u32| {
        let (keep, count) = (kept.clone(), polls.clone());
        poll_fn(move |cx| {
            keep.borrow_mut().get_or_insert_with(|| cx.waker().clone());
            count.set(count.get() + 1);
            if count.get() < enough {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        })
    };
    let polls = Rc::new(Cell::new(0));
    thread
        .spawn("woken", task(&polls, 3))
        .expect("room")
        .detach();
    lockstep.settle();
    for expected in [2, 3] {
        let waker = kept.borrow().clone().expect("polled");
        std::thread::spawn(move || waker.wake())
            .join()
            .expect("no panic");
        assert!(thread.has_ready_work() && !thread.settle());
        lockstep.settle();
        assert_eq!(polls.get(), expected);
    }
    // The slot's next task takes a late wake for a spurious one.
    let next = Rc::new(Cell::new(0));
    let handle = thread.spawn("next", task(&next, 9)).expect("room");
    lockstep.settle();
    kept.borrow().as_ref().expect("polled").wake_by_ref();
    lockstep.settle();
    assert_eq!(next.get(), 2);
    handle.abort();
    lockstep.settle();
}

#[test]
fn an_answer_comes_from_another_os_thread() {
    let mut lockstep = setup::lockstep();
    let thread = lockstep.thread("a");
    let (sender, receiver) = remote_oneshot::channel();
    let task = thread.spawn("asks", receiver).expect("room");
    lockstep.settle();
    std::thread::spawn(move || sender.send("hello"))
        .join()
        .expect("no panic")
        .expect("the receiver waits");
    lockstep.settle();
    assert!(task.is_finished());
    assert_eq!(
        lockstep
            .block_on(&thread, task)
            .expect("joins")
            .expect("no panic"),
        Ok("hello")
    );
}

/// Polls two futures with wakers of its own, as `select!` and `FuturesUnordered` do.
#[test]
fn primitives_keep_the_waker_of_a_combinator() {
    struct Inner(std::sync::atomic::AtomicU32, Waker);
    impl std::task::Wake for Inner {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            self.1.wake_by_ref();
        }
    }
    let mut lockstep = setup::lockstep();
    let thread = lockstep.thread("a");
    let (sender, mut receiver) = oneshot::channel::<u32>();
    let woken = Rc::new(Cell::new(0));
    let seen = woken.clone();
    let mut own: Option<std::sync::Arc<Inner>> = None;
    let task = poll_fn(move |cx| {
        let inner =
            own.get_or_insert_with(|| std::sync::Arc::new(Inner(0.into(), cx.waker().clone())));
        seen.set(inner.0.load(std::sync::atomic::Ordering::Relaxed));
        let waker = Waker::from(inner.clone());
        pin!(&mut receiver).poll(&mut std::task::Context::from_waker(&waker))
    });
    let task = thread.spawn("combinator", task).expect("room");
    lockstep.settle();
    sender.send(9).expect("waits");
    assert_eq!(lockstep.block_on(&thread, task).expect("joins"), Ok(Ok(9)));
    assert_eq!(woken.get(), 1, "woken through the combinator");
}

#[test]
fn sleeps_wake_by_deadline_and_are_withdrawn_when_dropped() {
    let mut lockstep = setup::lockstep();
    let thread = lockstep.thread("a");
    let trace = Trace::new();
    for ns in [30u64, 10, 20] {
        let log = trace.clone();
        thread
            .spawn("sleeper", async move {
                sleep(ns).await;
                log.log(ns.to_string())
            })
            .expect("room")
            .detach();
    }
    lockstep.run_for(25);
    assert_eq!(trace.take(), ["10", "20"]);
    assert_eq!(thread.next_deadline(), Some(30));
    lockstep.run_for(25);
    let result = lockstep.block_on(&thread, async {
        (
            timeout(100, pending::<()>()).await,
            timeout(100, async { 1 }).await,
        )
    });
    assert_eq!(result, Ok((Err(Elapsed { ns: 100 }), Ok(1))));
    assert_eq!(
        (lockstep.now(), thread.next_deadline()),
        (150, None),
        "the second timer is gone"
    );
}

#[test]
fn semaphores_serve_in_order_and_survive_those_who_leave() {
    let mut lockstep = setup::lockstep();
    let thread = lockstep.thread("a");
    let trace = Trace::new();
    let semaphore = Semaphore::new(2);
    let spawn = |name: &'static str, count: usize| {
        let (log, semaphore) = (trace.clone(), semaphore.clone());
        thread
            .spawn(name, async move {
                let permit = semaphore.acquire_many(count).await;
                log.log(if permit.is_ok() {
                    name.to_owned()
                } else {
                    format!("{name} refused")
                });
                pending::<()>().await;
                drop(permit);
            })
            .expect("room")
    };
    let one = spawn("one", 1);
    let many = spawn("many", 2);
    let few = spawn("few", 1);
    lockstep.settle();
    assert_eq!(trace.take(), ["one"], "few does not overtake many");
    assert!(semaphore.try_acquire().is_err());
    many.abort();
    lockstep.settle();
    assert_eq!(trace.take(), ["few"], "many left, few fits");
    one.abort();
    few.abort();
    lockstep.settle();
    assert_eq!(semaphore.available(), 2);
    let last = spawn("last", 3);
    lockstep.settle();
    semaphore.close();
    lockstep.settle();
    assert_eq!(trace.take(), ["last refused"]);
    last.abort();
    lockstep.settle();
}

#[test]
fn signals_are_kept_once_and_passed_on() {
    let mut lockstep = setup::lockstep();
    let thread = lockstep.thread("a");
    let notify = Rc::new(Notify::new());
    let trace = Trace::new();
    let spawn = |name: &'static str| {
        let (log, notify) = (trace.clone(), notify.clone());
        thread
            .spawn(name, async move {
                notify.notified().await;
                log.log(name)
            })
            .expect("room")
    };
    notify.notify_one();
    notify.notify_one();
    let (a, b, c) = (spawn("a"), spawn("b"), spawn("c"));
    lockstep.settle();
    assert_eq!(trace.take(), ["a"], "kept once");
    notify.notify_one();
    b.abort();
    lockstep.settle();
    assert_eq!(trace.take(), ["c"], "b left with the signal, c gets it");
    let (d, e) = (spawn("d"), spawn("e"));
    lockstep.settle();
    notify.notify_all();
    lockstep.settle();
    assert_eq!(trace.take(), ["d", "e"]);
    drop((a, b, c, d, e));
}

#[test]
fn a_bounded_queue_blocks_its_senders_in_order() {
    let mut lockstep = setup::lockstep();
    let thread = lockstep.thread("a");
    let (sender, mut receiver) = channel::<u32>(2);
    for value in 0..5 {
        let sender = sender.clone();
        thread
            .spawn("sends", async move {
                sender.send(value).await.expect("the receiver lives")
            })
            .expect("room")
            .detach();
    }
    drop(sender);
    lockstep.settle();
    assert_eq!(receiver.len(), 2);
    let all = lockstep.block_on(&thread, async move {
        let mut all = Vec::new();
        while let Some(value) = receiver.recv().await {
            all.push(value);
        }
        all
    });
    assert_eq!(all, Ok(vec![0, 1, 2, 3, 4]));
    let (sender, receiver): (_, LocalReceiver<u32>) = channel(1);
    sender.try_send(1).expect("room");
    let blocked = thread
        .spawn("blocked", async move { sender.send(2).await })
        .expect("room");
    lockstep.settle();
    drop(receiver);
    assert_eq!(
        lockstep.block_on(&thread, blocked).expect("joins"),
        Ok(Err(2))
    );
}

#[test]
fn a_drop_that_panics_is_contained() {
    struct Bad;
    impl Drop for Bad {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                panic!("a bad drop");
            }
        }
    }
    let mut lockstep = setup::lockstep();
    let thread = lockstep.thread("a");
    let bad = Bad;
    let task = thread
        .spawn("bad", async move {
            let _bad = bad;
            pending::<()>().await
        })
        .expect("room");
    lockstep.step();
    task.abort();
    lockstep.settle();
    let joined = lockstep.block_on(&thread, task).expect("joins");
    assert_eq!(joined, Err(JoinError::Panicked("a bad drop".into())));
    drop(thread.spawn("bad output", async { Bad }).expect("room"));
    let output = thread.spawn("bad output", async { Bad }).expect("room");
    lockstep.step();
    drop(output);
    let alive = lockstep.block_on(&thread, async { current().is_some() });
    assert_eq!(alive, Ok(true));
}

#[test]
fn tasks_say_what_they_wait_for() {
    let mut lockstep = setup::lockstep();
    let thread = lockstep.thread("a");
    let semaphore = Semaphore::new(0);
    let handles = [
        thread.spawn("sleeps", sleep(1_000)).expect("room"),
        thread
            .spawn("waits", async move {
                semaphore.acquire().await.map(drop).unwrap_or(())
            })
            .expect("room"),
        thread.spawn("hangs", pending()).expect("room"),
    ];
    lockstep.step();
    lockstep.advance(500);
    lockstep.step();
    let info: Vec<_> = thread
        .tasks()
        .iter()
        .map(|task| (task.name, task.waits_for, task.age_ns, task.polls))
        .collect();
    let expected = [
        ("sleeps", "sleep", 500, 1),
        ("waits", "a semaphore", 500, 1),
        ("hangs", "a wake-up", 500, 1),
    ];
    assert_eq!(info, expected);
    for handle in &handles {
        handle.abort();
    }
    lockstep.settle();
}

#[test]
fn a_quiet_task_runs_and_does_not_make_its_thread_busy() {
    let mut lockstep = setup::lockstep();
    let thread = lockstep.thread("t");
    let runs = Rc::new(Cell::new(0));
    let seen = Rc::clone(&runs);
    let beat = async move {
        loop {
            spdk_thread::sleep(10).await;
            seen.set(seen.get() + 1);
        }
    };
    let quiet = thread.spawn("beat", spdk_thread::quiet(beat)).unwrap();
    for now in [100, 200, 300] {
        let turn = thread.poll(now);
        assert_eq!(
            (turn.is_busy(), turn.tasks, turn.quiet_tasks),
            (false, 0, 1)
        );
    }
    assert_eq!((runs.get(), thread.stats().task_polls), (2, 3));
    thread.spawn("loud", async {}).unwrap().detach();
    let turn = thread.poll(400);
    assert_eq!((turn.is_busy(), turn.tasks, turn.quiet_tasks), (true, 1, 1));
    quiet.abort();
}
