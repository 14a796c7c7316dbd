//! The scheduler in a main xstream's cycle, stepped.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use engine_tls::KeyRegistry;
use spdk_thread::yield_now;

use crate::sched::{Admission, Attr, Class, Kick, PoolId, RequestSched, RequestSource, SchedReq};
use crate::testing::Stepped;
use crate::{Role, XstreamId};

const POOL: PoolId = PoolId([7; 16]);
const MAIN: XstreamId = XstreamId(1);

fn stepped() -> Stepped {
    Stepped::new(1, 0, &KeyRegistry::new()).expect("no keys")
}

/// Runs `f` on the main xstream.
fn on_main<T: 'static>(
    stepped: &mut Stepped,
    f: impl FnOnce(&Rc<RequestSched>) -> T + 'static,
) -> T {
    let run = async move {
        let xstream = crate::current().expect("an xstream");
        f(xstream.sched().expect("a main one"))
    };
    stepped.block_on(MAIN, run).expect("it ends")
}

/// No poller wants each turn. Of a thread that SPDK carries nobody can say so: what SPDK sends itself rings no doorbell.
fn is_at_rest(thread: &spdk_thread::Thread) -> bool {
    thread.carrier().is_some() || !thread.needs_polling()
}

#[test]
fn only_main_xstreams_have_a_scheduler() {
    let mut stepped = Stepped::new(1, 1, &KeyRegistry::new()).expect("no keys");
    for id in [0, 1, 2].map(XstreamId) {
        let has = async { crate::current().map(|xs| (xs.role(), xs.sched().is_some())) };
        let (role, has) = stepped
            .block_on(id, has)
            .expect("it ends")
            .expect("an xstream");
        assert_eq!(has, role == Role::Main);
    }
}

/// Notes what is kicked, and how far the cycle is then.
struct Notes {
    thread: spdk_thread::Thread,
    kicked: RefCell<Vec<(u32, bool)>>,
}

impl RequestSource for Notes {
    fn kick(&self, key: u32, _: &Kick) {
        let between = self.thread.is_between_cycles();
        self.kicked.borrow_mut().push((key, between));
    }
}

#[test]
fn requests_are_kicked_between_cycles_and_never_in_the_middle_of_one() {
    let mut stepped = stepped();
    let thread = stepped.thread(MAIN).clone();
    let notes = Rc::new(Notes {
        thread: thread.clone(),
        kicked: RefCell::default(),
    });
    let source = notes.clone();
    // A hundred ULTs make a cycle of several turns; the first of them submits.
    let submitted = Rc::new(Cell::new(0));
    for number in 0..100 {
        let (source, submitted) = (source.clone(), submitted.clone());
        let ult = async move {
            if number == 0 {
                let xstream = crate::current().expect("an xstream");
                let sched = xstream.sched().expect("a main one");
                let id = sched.add_source(source);
                for key in 0..10 {
                    let admission = sched.submit(id, key, &Attr::new(POOL, Class::Update));
                    assert!(matches!(admission, Admission::Queued(_)));
                    submitted.set(submitted.get() + 1);
                }
            }
        };
        thread.spawn("one of many", ult).expect("room").detach();
    }
    stepped.lockstep.step();
    assert_eq!((submitted.get(), thread.is_between_cycles()), (10, false));
    for _ in 0..2 {
        stepped.lockstep.step();
        assert!(notes.kicked.borrow().is_empty(), "the cycle is under way");
    }
    stepped.lockstep.settle();
    let expected: Vec<_> = (0..10).map(|key| (key, true)).collect();
    assert_eq!(notes.kicked.take(), expected);
    assert!(
        is_at_rest(&thread),
        "with nothing queued the poller is paused"
    );
}

#[test]
fn slices_take_turns_and_let_others_run_always() {
    let mut stepped = stepped();
    let order = Rc::new(RefCell::new(Vec::new()));
    let thread = stepped.thread(MAIN).clone();
    for (name, class) in [("gc", Class::Gc), ("migrate", Class::Migrate)] {
        let order = order.clone();
        let work = async move {
            let xstream = crate::current().expect("an xstream");
            let req = SchedReq::new(xstream.sched().expect("a main one"), POOL, class);
            drop(xstream);
            for _ in 0..3 {
                req.turn().await;
                order.borrow_mut().push(name);
            }
        };
        thread.spawn(name, work).expect("room").detach();
    }
    let others = Rc::new(Cell::new(0));
    let count = others.clone();
    let other = async move {
        for _ in 0..3 {
            count.set(count.get() + 1);
            yield_now().await;
        }
    };
    thread.spawn("other", other).expect("room").detach();
    stepped.lockstep.settle();
    assert_eq!(others.get(), 3);
    let mut order = order.take();
    order.sort_unstable();
    assert_eq!(order, ["gc", "gc", "gc", "migrate", "migrate", "migrate"]);
    let stats = on_main(&mut stepped, |sched| sched.stats());
    assert_eq!((stats.class(Class::Gc).kicked, stats.queued()), (3, 0));
    assert_eq!(stats.in_service, 0, "a slice is not in service");
}

#[test]
fn a_ult_that_ends_while_it_waits_for_its_turn_leaves_nothing_behind() {
    let mut stepped = stepped();
    let thread = stepped.thread(MAIN).clone();
    let work = async move {
        let xstream = crate::current().expect("an xstream");
        let req = SchedReq::new(xstream.sched().expect("a main one"), POOL, Class::Scrub);
        drop(xstream);
        req.turn().await;
        panic!("it was aborted before its turn came");
    };
    let ult = thread.spawn("scrub", work).expect("room");
    // The cycle in which it asks; its turn would come at the next one's beginning.
    stepped.lockstep.step();
    ult.abort();
    // The abort drops the future in the task phase, before which the poller has kicked it.
    stepped.lockstep.settle();
    let stats = on_main(&mut stepped, |sched| sched.stats());
    assert_eq!(stats.queued(), 0);
    assert!(is_at_rest(&thread));
}

#[test]
fn on_a_stopping_xstream_a_turn_is_a_yield_and_queued_requests_come_out() {
    let mut stepped = stepped();
    let turns = Rc::new(Cell::new(0));
    let count = turns.clone();
    on_main(&mut stepped, |sched| assert_eq!(sched.stop(), 0));
    let work = async move {
        let xstream = crate::current().expect("an xstream");
        let req = SchedReq::new(xstream.sched().expect("a main one"), POOL, Class::Gc);
        drop(xstream);
        for _ in 0..3 {
            req.turn().await;
            count.set(count.get() + 1);
        }
    };
    let thread = stepped.thread(MAIN).clone();
    thread.spawn("gc", work).expect("room").detach();
    stepped.lockstep.step();
    assert_eq!(turns.get(), 0, "it has given way");
    stepped.lockstep.settle();
    assert_eq!(turns.get(), 3);
    let source = Rc::new(Notes {
        thread,
        kicked: RefCell::default(),
    });
    let now = on_main(&mut stepped, move |sched| {
        let id = sched.add_source(source);
        sched.submit(id, 0, &Attr::new(POOL, Class::Update))
    });
    assert_eq!(now, Admission::RunNow);
}
