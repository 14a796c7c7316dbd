//! ULTs with a handle: sleep, wake, abort, periodic, join from anywhere; and what collectives take.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use daos_errno::Der;
use engine_tls::KeyRegistry;
use spdk_thread::ThreadOptions;

use super::stepped::stop;
use crate::testing::Stepped;
use crate::{
    ExecError, ServeError, Slept, SpawnError, TargetSet, Ult, UltRequest, XsType, XstreamId,
    Xstreams, current,
};

const SYSTEM: XstreamId = XstreamId(0);
const MS: u64 = 1_000_000;

fn stepped(targets: u32, helpers: u32) -> Stepped {
    Stepped::new(targets, helpers, &KeyRegistry::new()).unwrap()
}

/// A ULT on main 0 that sleeps `ns` and tells how it ended and whether it must stop.
fn sleeper(stepped: &Stepped, ns: u64) -> Ult<(Slept, bool)> {
    let main = stepped.xstreams().main(0).unwrap();
    main.create("sleeper", move |_, request| async move {
        let slept = request.sleep(ns).await;
        (slept, request.yield_or_stop().await)
    })
    .unwrap()
}

fn join<T: Send + 'static>(stepped: &mut Stepped, ult: Ult<T>) -> Result<T, ExecError> {
    stepped.block_on(SYSTEM, ult).unwrap()
}

#[test]
fn a_sleep_ends_by_time_by_a_wake_up_and_by_an_abort() {
    let mut stepped = stepped(1, 0);
    let ult = sleeper(&stepped, 5 * MS);
    assert_eq!(join(&mut stepped, ult), Ok((Slept::TimeUp, false)));
    let ult = sleeper(&stepped, u64::MAX);
    stepped.lockstep.settle();
    ult.wake().unwrap();
    assert_eq!(join(&mut stepped, ult), Ok((Slept::Woken, false)));
    let ult = sleeper(&stepped, u64::MAX);
    stepped.lockstep.settle();
    ult.abort().unwrap();
    assert_eq!(join(&mut stepped, ult), Ok((Slept::Woken, true)));
}

#[test]
fn sleeping_for_nothing_only_yields() {
    let mut stepped = stepped(1, 0);
    let ult = sleeper(&stepped, 0);
    assert_eq!(join(&mut stepped, ult), Ok((Slept::Yielded, false)));
    // Aborted before it ran: an abort is never too early.
    let ult = sleeper(&stepped, u64::MAX);
    ult.abort().unwrap();
    assert_eq!(join(&mut stepped, ult), Ok((Slept::Yielded, true)));
}

#[test]
fn a_wake_up_of_one_who_does_not_sleep_is_forgotten() {
    let mut stepped = stepped(1, 0);
    let main = stepped.xstreams().main(0).unwrap();
    let ult = main.create("busy", |_, request| async move {
        for _ in 0..5 {
            assert!(!request.yield_or_stop().await);
        }
        request.sleep(3 * MS).await
    });
    let ult = ult.unwrap();
    ult.wake().unwrap();
    stepped.lockstep.step();
    ult.wake().unwrap();
    assert_eq!(join(&mut stepped, ult), Ok(Slept::TimeUp));
}

#[test]
fn a_running_ult_sees_an_abort_at_its_next_yield_and_a_finished_one_does_not_care() {
    let mut stepped = stepped(1, 0);
    let main = stepped.xstreams().main(0).unwrap();
    let ult = main.create("loops", |_, request| async move {
        let mut rounds = 0;
        while !request.yield_or_stop().await {
            rounds += 1;
        }
        rounds
    });
    let ult = ult.unwrap();
    for _ in 0..10 {
        stepped.lockstep.step();
    }
    let address = ult.address().clone();
    ult.abort().unwrap();
    assert!(join(&mut stepped, ult).unwrap() >= 8);
    address.abort().unwrap();
    address.wake().unwrap();
    stepped.lockstep.settle();
    let left = stepped.block_on(XstreamId(1), async {
        current().unwrap().inner.requests.borrow().len()
    });
    assert_eq!(left, Ok(0), "a finished ULT leaves nothing behind");
}

#[test]
fn a_panic_reaches_who_joins_from_another_xstream() {
    let mut stepped = stepped(2, 0);
    let main = stepped.xstreams().main(1).unwrap();
    let ult = main.create("bad", |xstream, _| {
        let id = xstream.id().0;
        async move { if id == 2 { panic!("no") } else { 7 } }
    });
    let ult = ult.unwrap();
    let joined = stepped.block_on(XstreamId(1), ult).unwrap();
    let (name, xstream) = ("bad", XstreamId(2));
    assert_eq!(joined, Err(ExecError::Ended { name, xstream }));
}

#[test]
fn a_detached_ult_runs_on_and_a_handle_still_reaches_it() {
    let mut stepped = stepped(1, 0);
    let (done, seen) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let count = Arc::clone(&seen);
    let main = stepped.xstreams().main(0).unwrap();
    let ult = main.create("detached", move |_, request| async move {
        request.sleep(u64::MAX).await;
        count.fetch_add(1, Ordering::Relaxed);
    });
    let address = ult.unwrap().detach();
    stepped.lockstep.settle();
    assert_eq!(
        (done.load(Ordering::Relaxed), seen.load(Ordering::Relaxed)),
        (0, 0)
    );
    done.store(1, Ordering::Relaxed);
    address.wake().unwrap();
    stepped.lockstep.settle();
    assert_eq!(seen.load(Ordering::Relaxed), 1);
}

#[test]
fn the_unnamed_are_refused() {
    let mut stepped = stepped(1, 0);
    let main = stepped.xstreams().main(0).unwrap();
    let far = main.create("", |_, _| async {}).map(|_| ());
    assert_eq!(far, Err(SpawnError::Unnamed));
    assert_eq!(SpawnError::Unnamed.der(), Der::INVAL);
    assert!(
        UltRequest::attach("outside").is_none(),
        "no xstream, no request"
    );
    let near = stepped.block_on(SYSTEM, async {
        let here = current().unwrap();
        let made = here.create("", |_| async {}).map(|_| ()).err();
        (
            made,
            UltRequest::attach("").is_none(),
            UltRequest::attach("self").is_some(),
        )
    });
    assert_eq!(near.unwrap(), (Some(SpawnError::Unnamed), true, true));
}

#[test]
fn a_periodic_ult_keeps_its_beat_stays_quiet_and_ends_when_asked() {
    let mut stepped = stepped(1, 0);
    let times = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&times);
    let main = stepped.xstreams().main(0).unwrap();
    let make = move |xstream: &crate::Xstream| {
        let thread = xstream.thread().clone();
        move |_: &UltRequest| {
            let (log, now) = (Arc::clone(&log), thread.now());
            async move { log.lock().unwrap().push(now) }
        }
    };
    let ult = main.create_periodic("beat", 10 * MS, make).unwrap();
    stepped.lockstep.settle();
    let start = std::mem::take(&mut *times.lock().unwrap())[0];
    let thread = stepped.thread(XstreamId(1)).clone();
    let at = |ms: u64| {
        let turn = thread.poll(start + ms * MS);
        (turn.is_busy(), times.lock().unwrap().len())
    };
    assert_eq!(at(9), (false, 0));
    assert_eq!(at(13), (false, 1), "late, and not busy");
    assert_eq!(at(20), (false, 2), "the beat does not drift");
    assert_eq!(at(95), (false, 3), "missed beats are not made up for");
    assert_eq!(at(104), (false, 3), "a new beat from then on");
    assert_eq!(at(105), (false, 4));
    ult.abort().unwrap();
    assert_eq!(join(&mut stepped, ult), Ok(()));
    assert_eq!(times.lock().unwrap().len(), 4);
}

#[test]
fn a_stopping_xstream_creates_nothing_and_its_sleepers_only_yield() {
    let mut stepped = stepped(1, 1);
    let main = stepped.xstreams().main(0).unwrap();
    let ult = main.create("round", |_, request| async move {
        let mut ends = Vec::new();
        while !request.yield_or_stop().await {
            ends.push(request.sleep(MS).await);
        }
        (ends.len(), request.sleep(u64::MAX).await)
    });
    let ult = ult.unwrap();
    for _ in 0..10 {
        stepped.lockstep.advance(MS);
        stepped.lockstep.step();
    }
    stop(&stepped, 1);
    let shutdown = SpawnError::Shutdown(XstreamId(1));
    let main = stepped.xstreams().main(0).unwrap().clone();
    let refused = main.create("late", |_, _| async {}).map(|_| ());
    assert_eq!(refused, Err(shutdown.clone()));
    let refused = main.execute_then("late", |_| async {}, |()| ());
    assert_eq!(refused, Err(shutdown.clone()));
    assert_eq!(shutdown.der(), Der(2017));
    let (rounds, slept) = join(&mut stepped, ult).unwrap();
    assert!(rounds >= 2 && slept == Slept::Yielded, "{rounds}");
}

#[test]
fn a_call_back_runs_in_the_new_ult_after_the_work() {
    let mut stepped = stepped(1, 0);
    let said = Arc::new(Mutex::new(Vec::new()));
    let (first, second) = (Arc::clone(&said), Arc::clone(&said));
    let main = stepped.xstreams().main(0).unwrap();
    let work = move |_: &crate::Xstream| async move {
        spdk_thread::yield_now().await;
        first
            .lock()
            .unwrap()
            .push(format!("work on {}", current().unwrap().id()));
        5
    };
    let done = move |rc: i32| {
        let here = current().unwrap().id();
        second.lock().unwrap().push(format!("done {rc} on {here}"));
    };
    main.execute_then("asynchronous", work, done).unwrap();
    assert!(said.lock().unwrap().is_empty(), "nobody waits");
    stepped.lockstep.settle();
    assert_eq!(*said.lock().unwrap(), ["work on 1", "done 5 on 1"]);
}

#[test]
fn a_main_or_the_system_xstream_executes_for_itself_and_an_offload_may_not() {
    let mut stepped = stepped(1, 1);
    let mut main_exec = |id| {
        stepped
            .block_on(XstreamId(id), async {
                current().unwrap().main_exec("own", async {})
            })
            .unwrap()
    };
    assert_eq!((main_exec(0), main_exec(1)), (Ok(()), Ok(())));
    assert_eq!(main_exec(2), Err(ServeError::NoCaller.into()));
}

#[test]
fn work_goes_to_an_offload_xstream_and_back() {
    let mut stepped = stepped(1, 1);
    let all = stepped.xstreams().clone();
    let ult = all.create_on(XsType::Offload, Some(0), "there", |here, _| {
        let set = here.set().cloned().unwrap();
        async move {
            let back = set.main(0).unwrap().create("back", |here, _| {
                let id = here.id().0;
                async move { id }
            });
            (current().unwrap().id().0, back.unwrap().await)
        }
    });
    let ult = ult.unwrap();
    assert_eq!(join(&mut stepped, ult), Ok((2, Ok(1))));
}

type Reduced = Vec<(u32, Option<Result<u32, Der>>)>;

/// Each target gets ten times its number and adds one; target 3 gets none, target 4 fails.
fn with_arguments(
    stepped: &mut Stepped,
    tasklets: bool,
    set: Option<TargetSet>,
) -> (Result<(), Der>, Vec<u32>, Reduced) {
    let all = stepped.xstreams().clone();
    let (asked, reduced) = (Rc::new(RefCell::new(vec![])), Rc::new(RefCell::new(vec![])));
    let (ask, into) = (Rc::clone(&asked), Rc::clone(&reduced));
    let result = stepped.block_on(SYSTEM, async move {
        let argument = |target| {
            ask.borrow_mut().push(target);
            if target == 3 {
                Err(Der::NOMEM)
            } else {
                Ok(target * 10)
            }
        };
        let add = |xstream: &crate::Xstream, given: u32| match xstream.target() {
            Some(4) => Err(Der::IO),
            target => Ok(given + target.map_or(0, |_| 1)),
        };
        let reduce = |target, result| into.borrow_mut().push((target, result));
        if tasklets {
            return all
                .task_collective("task", set.as_ref(), argument, add, reduce)
                .await;
        }
        let ult = move |xstream: &crate::Xstream, given| {
            let sum = add(xstream, given);
            async move {
                spdk_thread::yield_now().await;
                sum
            }
        };
        all.collective_with("ult", set.as_ref(), argument, ult, reduce)
            .await
    });
    (result.unwrap(), asked.take(), reduced.take())
}

#[test]
fn collectives_take_an_argument_for_each_target() {
    let mut stepped = stepped(6, 0);
    for tasklets in [false, true] {
        let (result, asked, reduced) = with_arguments(&mut stepped, tasklets, None);
        assert_eq!(result, Err(Der::NOMEM), "the first in target order");
        assert_eq!(asked, [0, 1, 2, 3, 4, 5]);
        let ok = |target| (target, Some(Ok(target * 10 + 1)));
        let failed = |target, der| (target, Some(Err(der)));
        let all = [
            ok(0),
            ok(1),
            ok(2),
            failed(3, Der::NOMEM),
            failed(4, Der::IO),
            ok(5),
        ];
        assert_eq!(reduced, all);
        let some = TargetSet::all(6).without(1).without(3);
        let (result, asked, reduced) = with_arguments(&mut stepped, tasklets, Some(some));
        assert_eq!((result, asked), (Err(Der::IO), vec![0, 2, 4, 5]));
        assert_eq!(
            (reduced[1], reduced[3], reduced[5]),
            ((1, None), (3, None), ok(5))
        );
        let none = with_arguments(&mut stepped, tasklets, Some(TargetSet::from_bytes(&[0])));
        let skipped: Reduced = (0..6).map(|target| (target, None)).collect();
        assert_eq!(
            none,
            (Ok(()), vec![], skipped),
            "an empty bitmap: all are reduced, none runs"
        );
    }
}

#[test]
fn a_collective_during_shutdown_fails_everywhere_and_says_so() {
    let mut stepped = stepped(2, 0);
    (0..3).for_each(|id| stop(&stepped, id));
    for tasklets in [false, true] {
        let all = stepped.xstreams().clone();
        let reduced = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&reduced);
        // The caller was there before the engine stopped.
        let waits = async move {
            let argument = |_| Ok(());
            let reduce = |target, result: Option<Result<(), Der>>| {
                into.lock().unwrap().push((target, result))
            };
            if tasklets {
                all.task_collective("late", None, argument, |_, ()| Ok(()), reduce)
                    .await
            } else {
                all.collective_with("late", None, argument, |_, ()| async { Ok(()) }, reduce)
                    .await
            }
        };
        assert_eq!(stepped.block_on(SYSTEM, waits), Ok(Err(Der::SHUTDOWN)));
        let shutdown = Some(Err(Der::SHUTDOWN));
        assert_eq!(*reduced.lock().unwrap(), [(0, shutdown), (1, shutdown)]);
    }
}

#[test]
fn tasklets_run_at_the_ult_limit_where_a_ult_is_that_targets_error() {
    let options = ThreadOptions {
        max_tasks: 2,
        ..ThreadOptions::default()
    };
    let mut stepped = Stepped::with_options(2, 0, &KeyRegistry::new(), &options).unwrap();
    let all = stepped.xstreams().clone();
    for _ in 0..2 {
        let fills = |_: &crate::Xstream| spdk_thread::sleep(u64::MAX);
        all.main(0).unwrap().spawn("fills it", fills).unwrap();
    }
    stepped.lockstep.settle();
    let set = all.clone();
    let tasks = stepped.block_on(SYSTEM, async move {
        set.task_collective("t", None, |_| Ok(()), |_, ()| Ok(()), |_, _| ())
            .await
    });
    assert_eq!(tasks, Ok(Ok(())));
    let seen = Rc::new(RefCell::new(Vec::new()));
    let into = Rc::clone(&seen);
    let ults = stepped.block_on(SYSTEM, async move {
        let work = |_: &crate::Xstream| async { Ok(1) };
        all.collective("u", None, work, |target, result| {
            into.borrow_mut().push((target, result))
        })
        .await
    });
    assert_eq!(ults, Ok(Err(Der::MISC)));
    assert_eq!(seen.take(), [(0, Some(Err(Der::MISC))), (1, Some(Ok(1)))]);
}

#[test]
fn without_targets_a_collective_is_cancelled() {
    let mut stepped = stepped(1, 0);
    let system = stepped.xstreams().system().clone();
    let none = Xstreams::new(crate::Layout::without_targets(), vec![system]);
    let result = stepped.block_on(SYSTEM, async move {
        none.task_collective("none", None, |_| Ok(()), |_, ()| Ok(()), |_, _| ())
            .await
    });
    assert_eq!(result, Ok(Err(Der::CANCELED)));
}
