//! Chores: rounds, credits, priority, ends.

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use daos_errno::Der;
use engine_tls::KeyRegistry;

use super::stepped::stop;
use crate::testing::Stepped;
use crate::{
    CHORE_CREDITS, CHORE_CREDITS_MIN, Chore, ChoreError, ChorePermit, ChoreStats, ChoreStep,
    XsType, Xstream, XstreamId, XstreamRef, XstreamSet,
};

type Log = Arc<Mutex<Vec<String>>>;

const HELPER: XstreamId = XstreamId(2);

/// One target with one helper.
fn stepped() -> (Stepped, XstreamRef) {
    let stepped = Stepped::new(1, 1, &KeyRegistry::new()).unwrap();
    let helper = stepped.xstreams().get(HELPER).unwrap().clone();
    (stepped, helper)
}

fn reserve(helper: &XstreamRef, credits: u32) -> ChorePermit {
    helper.reserve_chore(credits, false).unwrap()
}

/// So many steps, each of which is noted with its xstream.
fn noting(log: &Log, what: &'static str, steps: u32) -> Box<dyn Chore> {
    let (log, mut done) = (Arc::clone(log), 0);
    Box::new(move |xstream: &Xstream| {
        done += 1;
        log.lock()
            .unwrap()
            .push(format!("{what}{done}@{}", xstream.id()));
        if done < steps {
            ChoreStep::Yield
        } else {
            ChoreStep::Done
        }
    })
}

fn taken(log: &Log) -> String {
    std::mem::take(&mut *log.lock().unwrap()).join(" ")
}

fn stats(stepped: &mut Stepped) -> ChoreStats {
    let helper = stepped.xstreams().get(HELPER).unwrap().clone();
    let stats = async move { helper.call("stats", Xstream::stats).await.unwrap() };
    stepped
        .block_on(XstreamId(0), stats)
        .unwrap()
        .chores
        .unwrap()
}

#[test]
fn new_chores_come_before_those_that_go_on_and_none_starves() {
    let (mut stepped, helper) = stepped();
    let log = Log::default();
    for (what, steps) in [("a", 3), ("b", 1)] {
        reserve(&helper, 1)
            .submit("note", noting(&log, what, steps))
            .unwrap();
    }
    stepped.lockstep.step(); // the messages, then the first round's first step
    reserve(&helper, 1)
        .submit("note", noting(&log, "c", 2))
        .unwrap();
    stepped.lockstep.settle();
    assert_eq!(taken(&log), "a1@2 b1@2 c1@2 a2@2 c2@2 a3@2");
    let expected = ChoreStats {
        queued: 0,
        done: 3,
        steps: 6,
        credits: CHORE_CREDITS.into(),
    };
    assert_eq!(stats(&mut stepped), expected);
}

#[test]
fn ults_of_the_helper_come_round_between_two_steps() {
    let (mut stepped, helper) = stepped();
    let log = Log::default();
    let ult = Arc::clone(&log);
    helper
        .spawn("ult", move |_| async move {
            for _ in 0..2 {
                ult.lock().unwrap().push("ult".to_owned());
                spdk_thread::yield_now().await;
            }
        })
        .unwrap();
    for what in ["a", "b"] {
        reserve(&helper, 1)
            .submit("note", noting(&log, what, 1))
            .unwrap();
    }
    stepped.lockstep.settle();
    assert_eq!(taken(&log), "a1@2 ult b1@2 ult");
}

#[test]
fn short_of_credits_it_says_what_is_left_and_priority_overdraws_within_bounds() {
    let (mut stepped, helper) = stepped();
    let most = reserve(&helper, CHORE_CREDITS - 10);
    let again = |available| {
        Some(ChoreError::Again {
            xstream: HELPER,
            available,
        })
    };
    let refused = helper.reserve_chore(11, false).err();
    assert_eq!(refused, again(10));
    assert_eq!(refused.unwrap().der(), Der::AGAIN);
    let urgent = helper.reserve_chore(30, true).unwrap();
    assert_eq!(stats(&mut stepped).credits, -20);
    assert_eq!(helper.reserve_chore(1, false).err(), again(0));
    assert_eq!(
        helper.reserve_chore(CHORE_CREDITS, true).err(),
        again(CHORE_CREDITS - 20)
    );
    drop((most, urgent));
    assert_eq!(stats(&mut stepped).credits, i64::from(CHORE_CREDITS));
    // Nothing for nothing: without credits there would be no bound.
    let free = helper.reserve_chore(0, false).unwrap();
    assert_eq!(stats(&mut stepped).credits, i64::from(CHORE_CREDITS) - 1);
    drop(free);
}

#[test]
fn credits_are_held_until_the_chore_has_ended() {
    let (mut stepped, helper) = stepped();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let credits = Arc::clone(&seen);
    let look = move |xstream: &Xstream| {
        let mut credits = credits.lock().unwrap();
        credits.push(xstream.stats().chores.unwrap().credits);
        if credits.len() < 2 {
            ChoreStep::Yield
        } else {
            ChoreStep::Done
        }
    };
    reserve(&helper, 100)
        .submit("look", Box::new(look))
        .unwrap();
    stepped.lockstep.settle();
    let total = i64::from(CHORE_CREDITS);
    assert_eq!(*seen.lock().unwrap(), [total - 100; 2]);
    assert_eq!(stats(&mut stepped).credits, total);
}

#[test]
fn a_chore_gives_its_box_back_and_a_panic_ends_only_its_own() {
    struct Reused(mpsc::Sender<Box<Reused>>);
    impl Chore for Reused {
        fn step(&mut self, _: &Xstream) -> ChoreStep {
            ChoreStep::Done
        }
        fn done(self: Box<Self>) {
            let pool = self.0.clone();
            pool.send(self).unwrap();
        }
    }
    let (mut stepped, helper) = stepped();
    let (pool, returned) = mpsc::channel();
    let chore = Box::new(Reused(pool));
    let at: *const Reused = &*chore;
    let bad = |_: &Xstream| -> ChoreStep { panic!("no") };
    reserve(&helper, 1).submit("bad", Box::new(bad)).unwrap();
    reserve(&helper, 1).submit("good", chore).unwrap();
    stepped.lockstep.settle();
    let back = returned.try_recv().unwrap();
    assert!(std::ptr::eq(&*back, at), "the same box");
    assert_eq!(stats(&mut stepped).credits, i64::from(CHORE_CREDITS));
    drop(back);
}

#[test]
fn a_stopping_helper_takes_none_and_ends_those_it_has() {
    let (mut stepped, helper) = stepped();
    let log = Log::default();
    let before = reserve(&helper, 1);
    reserve(&helper, 1)
        .submit("note", noting(&log, "a", 3))
        .unwrap();
    stop(&stepped, HELPER.0);
    let refused = helper.reserve_chore(1, true).unwrap_err();
    assert_eq!(
        (refused.clone(), refused.der()),
        (ChoreError::Canceled(HELPER), Der::CANCELED)
    );
    before.submit("note", noting(&log, "b", 1)).unwrap(); // accepted before
    stepped.lockstep.settle();
    assert_eq!(taken(&log), "a1@2 b1@2 a2@2 a3@2");
}

#[test]
fn without_helpers_each_chore_is_a_ult_on_the_neighbour() {
    let mut stepped = Stepped::new(2, 0, &KeyRegistry::new()).unwrap();
    let log = Log::default();
    let all = stepped.xstreams().clone();
    let permit = all
        .reserve_chore(XsType::Iofw, 0, 1_000_000, false)
        .unwrap();
    permit.submit("note", noting(&log, "a", 2)).unwrap();
    stepped.lockstep.step();
    assert_eq!(stepped.thread(XstreamId(2)).tasks()[0].name, "note");
    stepped.lockstep.settle();
    assert_eq!(taken(&log), "a1@2 a2@2");
    stop(&stepped, 2);
    let refused = all.reserve_chore(XsType::Iofw, 0, 1, false).unwrap_err();
    assert_eq!(refused.der(), Der::CANCELED);
    let missing = all.reserve_chore(XsType::Iofw, 9, 1, false).unwrap_err();
    assert_eq!(missing.der(), Der::INVAL);
}

#[test]
fn too_few_credits_of_a_helper_mean_the_default() {
    for (wanted, given) in [
        (CHORE_CREDITS_MIN - 1, CHORE_CREDITS),
        (CHORE_CREDITS_MIN, CHORE_CREDITS_MIN),
    ] {
        let credits = crate::chores::Credits::new(wanted);
        assert_eq!(credits.take(given + 1, false), Err(given));
        assert_eq!(credits.take(given, false), Ok(()));
    }
}

#[test]
fn a_shutdown_waits_for_chores_and_says_so() {
    let set: XstreamSet = super::running::start(1, 1);
    let helper = set.get(HELPER).unwrap().clone();
    let told = Arc::new(Mutex::new(false));
    let (go_on, steps) = (Arc::clone(&told), Arc::new(Mutex::new(0u64)));
    let count = Arc::clone(&steps);
    let chore = move |_: &Xstream| {
        *count.lock().unwrap() += 1;
        if *go_on.lock().unwrap() {
            ChoreStep::Done
        } else {
            ChoreStep::Yield
        }
    };
    reserve(&helper, 1).submit("long", Box::new(chore)).unwrap();
    let mut lines = Vec::new();
    let down = set.shutdown(Duration::from_secs(60), |held| {
        lines.extend_from_slice(held);
        *told.lock().unwrap() = true;
    });
    assert_eq!(down, Ok(()));
    assert_eq!(lines, ["keel_off_2: 1 chore(s)"]);
    assert!(*steps.lock().unwrap() > 1);
}
