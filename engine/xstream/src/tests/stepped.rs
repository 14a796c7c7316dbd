//! ULTs, waiting across xstreams, collectives: every run the same.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use daos_errno::Der;
use engine_tls::{KeyRegistry, Tags, TypedKey};
use spdk_thread::{TaskState, ThreadOptions};

use crate::testing::Stepped;
use crate::{ExecError, ServeError, SpawnError, TargetSet, XsType, XstreamId, current};

const SYSTEM: XstreamId = XstreamId(0);

fn stepped(targets: u32, helpers: u32) -> Stepped {
    Stepped::new(targets, helpers, &KeyRegistry::new()).unwrap()
}

fn here() -> u32 {
    current().unwrap().id().0
}

pub(super) fn stop(stepped: &Stepped, id: u32) {
    let xstream = stepped.xstreams().get(XstreamId(id)).unwrap();
    xstream.shared.stopping.store(true, Ordering::Release);
}

#[test]
fn each_xstream_of_one_os_thread_has_its_own_storage() {
    let registry = KeyRegistry::new();
    let key: TypedKey<RefCell<u32>> = registry
        .register_typed("count", Tags::SERVER, |info| {
            Some(RefCell::new(info.xs_id as u32 * 100))
        })
        .unwrap();
    let mut stepped = Stepped::new(2, 2, &registry).unwrap();
    for id in 0..5 {
        let seen = stepped.block_on(XstreamId(id), async move {
            for _ in 0..3 {
                let xstream = current().unwrap();
                *key.get(xstream.tls()).unwrap().borrow_mut() += 1;
                assert_eq!(
                    engine_tls::current_info().unwrap().xs_id,
                    xstream.id().0 as i32
                );
                assert_eq!(engine_tls::current_storage(), xstream.tls().as_ptr());
                drop(xstream);
                spdk_thread::yield_now().await;
            }
            *key.get(current().unwrap().tls()).unwrap().borrow()
        });
        assert_eq!(seen.unwrap(), id * 100 + 3);
    }
    assert!(
        current().is_none() && engine_tls::current_storage().is_null(),
        "nothing leaks out of the turns"
    );
}

#[test]
fn work_goes_to_another_xstream_and_its_result_comes_back() {
    let mut stepped = stepped(2, 0);
    let all = stepped.xstreams().clone();
    let result = stepped.block_on(XstreamId(2), async move {
        let system = all.system().execute("ask", |xstream| {
            let at = xstream.id().0;
            async move { (at, here()) }
        });
        let main = all.main(0).unwrap().execute("ask", |_| async { here() });
        let message = all.main(1).unwrap().call("note", |xstream| xstream.id().0);
        (system.await, main.await, message.await, here())
    });
    assert_eq!(result.unwrap(), (Ok((0, 0)), Ok(1), Ok(2), 2));
}

#[test]
fn a_panic_over_there_is_an_error_here() {
    let mut stepped = stepped(1, 0);
    let main = stepped.xstreams().main(0).unwrap().clone();
    let result = stepped.block_on(SYSTEM, async move {
        let ult = main
            .execute("bad", |_| async {
                if here() == 1 { panic!("no") } else { 7 }
            })
            .await;
        let message = main
            .call(
                "worse",
                |xstream| if xstream.id().0 == 1 { panic!("no") } else { 7 },
            )
            .await;
        (ult, message, main.call("still there", |_| 8).await)
    });
    let ended = |name| {
        Err(ExecError::Ended {
            name,
            xstream: XstreamId(1),
        })
    };
    assert_eq!(result.unwrap(), (ended("bad"), ended("worse"), Ok(8)));
}

#[test]
fn a_dropped_wait_lets_the_work_run_on() {
    let mut stepped = stepped(1, 0);
    let main = stepped.xstreams().main(0).unwrap().clone();
    let done = Arc::new(Mutex::new(false));
    let flag = Arc::clone(&done);
    let run = stepped.block_on(SYSTEM, async move {
        drop(main.execute("work", move |_| async move {
            spdk_thread::yield_now().await;
            *flag.lock().unwrap() = true;
        }));
    });
    run.unwrap();
    stepped.lockstep.settle();
    assert!(*done.lock().unwrap());
}

#[test]
fn blocking_is_refused_on_an_xstream() {
    let mut stepped = stepped(1, 0);
    let system = stepped.xstreams().system().clone();
    let wait = Duration::from_secs(1);
    let refused = stepped.block_on(SYSTEM, async move {
        (
            system.execute_blocking("a", wait, |_| async {}),
            system.call_blocking("b", wait, |_| ()),
        )
    });
    let would = |name| Err(ExecError::WouldBlock { name });
    assert_eq!(refused.unwrap(), (would("a"), would("b")));
}

#[test]
fn kinds_of_work_run_where_they_belong() {
    let mut stepped = stepped(2, 4);
    let all = stepped.xstreams().clone();
    let places = stepped.block_on(XstreamId(4), async move {
        let mut places = Vec::new();
        for kind in [
            XsType::OnSelf,
            XsType::Sys,
            XsType::Vos,
            XsType::Iofw,
            XsType::Offload,
        ] {
            places.push(
                all.execute_on(kind, Some(1), "where", |_| async { here() })
                    .await
                    .unwrap(),
            );
        }
        places.push(
            all.offload_exec("helper", |_| async { here() })
                .await
                .unwrap(),
        );
        places
    });
    assert_eq!(places.unwrap(), [4, 0, 4, 5, 6, 6]);
}

#[test]
fn offloading_from_anything_but_a_main_is_an_error_where_daos_asserts() {
    let mut stepped = stepped(1, 1);
    for id in [0, 2] {
        let all = stepped.xstreams().clone();
        let result = stepped.block_on(XstreamId(id), async move {
            all.offload_exec("no", |_| async {}).await
        });
        assert_eq!(
            result.unwrap(),
            Err(SpawnError::from(ServeError::NoCaller).into())
        );
    }
    let missing = stepped
        .xstreams()
        .spawn_on(XsType::Vos, Some(9), "no", |_| async {});
    assert_eq!(missing.unwrap_err().der(), Der::INVAL);
}

#[test]
fn nothing_new_once_stopping_but_messages_pass() {
    let mut stepped = stepped(1, 0);
    stop(&stepped, 1);
    let main = stepped.xstreams().main(0).unwrap().clone();
    assert_eq!(
        main.spawn("late", |_| async {}),
        Err(SpawnError::Shutdown(XstreamId(1)))
    );
    assert_eq!(SpawnError::Shutdown(XstreamId(1)).der(), Der(2017));
    let asked = stepped.block_on(SYSTEM, async move {
        let local = main
            .call("try", |xstream| xstream.spawn("late", async {}).err())
            .await;
        (main.execute("late", |_| async {}).await, local)
    });
    let shutdown = SpawnError::Shutdown(XstreamId(1));
    assert_eq!(
        asked.unwrap(),
        (Err(shutdown.clone().into()), Ok(Some(shutdown)))
    );
}

#[test]
fn ults_and_messages_are_bounded() {
    let options = ThreadOptions {
        mailbox: 4,
        max_tasks: 3,
        ..ThreadOptions::default()
    };
    let mut stepped = Stepped::with_options(1, 0, &KeyRegistry::new(), &options).unwrap();
    let main = stepped.xstreams().main(0).unwrap().clone();
    let results: Vec<_> = (0..6)
        .map(|_| main.spawn("wait", |_| spdk_thread::sleep(1_000_000)))
        .collect();
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 4);
    assert_eq!(results[4], Err(SpawnError::Full(XstreamId(1))));
    assert_eq!(results[4].as_ref().unwrap_err().der(), Der::AGAIN);
    stepped.lockstep.step(); // three sleep; the fourth was dropped with a line in the log
    let at_limit = stepped.block_on(SYSTEM, async move {
        let ult = main.execute("too many", |_| async {}).await;
        let local = main
            .call("local", |xstream| xstream.spawn("too many", async {}).err())
            .await;
        (ult, local)
    });
    let (remote, local) = at_limit.unwrap();
    assert!(matches!(remote, Err(ExecError::Ended { .. })), "{remote:?}");
    assert_eq!(local.unwrap(), Some(SpawnError::TooMany(XstreamId(1), 3)));
    assert_eq!(SpawnError::TooMany(XstreamId(1), 3).der(), Der::NOMEM);
}

#[test]
fn create_all_goes_in_id_order_and_stops_at_the_first_failure() {
    let mut stepped = stepped(2, 2);
    let ran = Arc::new(Mutex::new(Vec::new()));
    let note = || {
        let ran = Arc::clone(&ran);
        move |_: &crate::Xstream| async move { ran.lock().unwrap().push(here()) }
    };
    stepped.xstreams().create_all("all", false, note()).unwrap();
    stepped.lockstep.settle();
    assert_eq!(std::mem::take(&mut *ran.lock().unwrap()), [0, 1, 2, 3, 4]);
    stepped
        .xstreams()
        .create_all("mains", true, note())
        .unwrap();
    stepped.lockstep.settle();
    assert_eq!(std::mem::take(&mut *ran.lock().unwrap()), [1, 3]);
    stop(&stepped, 3);
    let error = stepped
        .xstreams()
        .create_all("all", false, note())
        .unwrap_err();
    assert_eq!(error, (XstreamId(3), SpawnError::Shutdown(XstreamId(3))));
    stepped.lockstep.settle();
    assert_eq!(
        *ran.lock().unwrap(),
        [0, 1, 2],
        "those before it run, those after do not"
    );
}

type Reduction = Vec<(u32, Option<Result<u32, Der>>)>;
type Reduced = Rc<RefCell<Reduction>>;

fn collect(stepped: &mut Stepped, targets: Option<TargetSet>) -> (Result<(), Der>, Reduction) {
    let all = stepped.xstreams().clone();
    let reduced = Reduced::default();
    let into = Rc::clone(&reduced);
    let result = stepped.block_on(SYSTEM, async move {
        let work = |xstream: &crate::Xstream| {
            let target = xstream.target().unwrap();
            async move {
                // The later targets finish first.
                spdk_thread::sleep(1_000 * u64::from(9 - target)).await;
                match target {
                    2 => Err(Der::NOSPACE),
                    3 => Err(Der::IO),
                    4 => panic!("target 4"),
                    target => Ok(target * 10),
                }
            }
        };
        all.collective("coll", targets.as_ref(), work, |target, result| {
            into.borrow_mut().push((target, result))
        })
        .await
    });
    (result.unwrap(), reduced.take())
}

#[test]
fn a_collective_runs_on_the_targets_and_reduces_in_order() {
    let mut stepped = stepped(6, 1);
    let (result, reduced) = collect(&mut stepped, None);
    assert_eq!(
        result,
        Err(Der::NOSPACE),
        "the first in target order, not in time"
    );
    let expected = [
        Ok(0),
        Ok(10),
        Err(Der::NOSPACE),
        Err(Der::IO),
        Err(Der::MISC),
        Ok(50),
    ];
    assert_eq!(reduced, (0..).zip(expected.map(Some)).collect::<Vec<_>>());
    let some = TargetSet::all(6).without(2).without(4);
    let (result, reduced) = collect(&mut stepped, Some(some));
    assert_eq!(result, Err(Der::IO));
    assert_eq!(
        reduced[1..3],
        [(1, Some(Ok(10))), (2, None)],
        "left-out targets are reduced too"
    );
    assert_eq!(
        collect(&mut stepped, Some(TargetSet::from_bytes(&[0b11]))).0,
        Ok(())
    );
    let (result, reduced) = collect(&mut stepped, Some(TargetSet::from_bytes(&[])));
    assert_eq!(
        (result, reduced.len()),
        (Ok(()), 6),
        "targets past the bitmap are left out"
    );
}

#[test]
fn a_collective_survives_a_target_that_takes_no_ults() {
    let mut stepped = stepped(2, 0);
    stop(&stepped, 1);
    let (result, reduced) = collect(&mut stepped, None);
    assert_eq!(result, Err(Der::SHUTDOWN));
    assert_eq!(reduced, [(0, Some(Err(Der::SHUTDOWN))), (1, Some(Ok(10)))]);
}

#[test]
fn operators_see_every_ult_and_the_numbers() {
    let mut stepped = stepped(2, 0);
    let all = stepped.xstreams().clone();
    all.main(1)
        .unwrap()
        .spawn("scrub", |_| spdk_thread::sleep(5_000_000_000))
        .unwrap();
    stepped.lockstep.settle();
    stepped.lockstep.advance(2_000_000);
    let seen = stepped.block_on(SYSTEM, async move {
        (all.ults(1_000_000).await, all.stats().await)
    });
    let (ults, stats) = seen.unwrap();
    let names: Vec<&str> = ults.iter().map(|xstream| xstream.name.as_str()).collect();
    assert_eq!(names, ["keel_sys_0", "keel_io_0", "keel_io_1"]);
    let on_main = &ults[2].found.as_ref().unwrap().ults;
    assert_eq!(
        (
            on_main.len(),
            on_main[0].task.name,
            on_main[0].task.state,
            on_main[0].stack
        ),
        (1, "scrub", TaskState::Waiting, None)
    );
    assert!(
        on_main[0].task.age_ns >= 2_000_000 && !on_main[0].task.waits_for.is_empty(),
        "{on_main:?}"
    );
    let main = stats[2].1.unwrap();
    assert!(
        main.ults == 1
            && main.thread.spawned == 1
            && main.thread.turns > 0
            && main.thread.messages >= 2
    );
}
