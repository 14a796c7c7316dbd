//! Start and shutdown on real reactors.

use std::rc::Rc;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use engine_tls::{KeyRegistry, Tags, XsInfo};
use spdk_reactor::{ReactorOptions, ReactorSet};
use spdk_thread::{Period, PollResult, Poller};

use crate::testing::provider;
use crate::{
    Core, Layout, LayoutOptions, Phase, SpawnError, StartError, StartOptions, Xstream, XstreamId,
    XstreamSet,
};

const LONG: Duration = Duration::from_secs(60);

type Log = Arc<Mutex<Vec<String>>>;

/// Logs when it is made and when it ends, and on which OS thread.
struct Value(Log, String, std::thread::ThreadId);

impl Drop for Value {
    fn drop(&mut self) {
        let same = std::thread::current().id() == self.2;
        self.0.lock().unwrap().push(format!(
            "-{}{}",
            self.1,
            if same { "" } else { " on another thread" }
        ));
    }
}

fn logging(registry: &KeyRegistry, log: &Log, name: &'static str, fails_on: Option<i32>) {
    let log = Arc::clone(log);
    let init = move |info: &XsInfo| {
        assert!(
            spdk_thread::current().is_some(),
            "constructors may use the thread"
        );
        let what = format!("{name}@{}", info.xs_id);
        log.lock().unwrap().push(format!("+{what}"));
        (fails_on != Some(info.xs_id))
            .then(|| Value(Arc::clone(&log), what, std::thread::current().id()))
    };
    registry.register_typed(name, Tags::SERVER, init).unwrap();
}

fn layout(targets: u32, helpers: u32) -> Layout {
    let options = LayoutOptions {
        targets,
        helpers,
        oversubscribe: true,
        ..LayoutOptions::default()
    };
    let cores = [0, 1].map(|cpu| Core::alone(cpu, 0));
    Layout::compute(&options, &cores).unwrap()
}

fn start_options() -> StartOptions {
    StartOptions {
        provider: provider(),
        ..StartOptions::default()
    }
}

fn try_start(layout: Layout, registry: &KeyRegistry) -> Result<XstreamSet, StartError> {
    // Not bound: the machine that runs the tests may have one CPU, or lend us others than 0 and 1.
    let options = ReactorOptions {
        cpus: layout.cpus(),
        pin: false,
        ..ReactorOptions::default()
    };
    XstreamSet::start(
        layout,
        ReactorSet::start(&options).unwrap(),
        registry,
        &start_options(),
    )
}

pub(super) fn start(targets: u32, helpers: u32) -> XstreamSet {
    try_start(layout(targets, helpers), &KeyRegistry::new()).unwrap()
}

#[test]
fn five_xstreams_on_two_cores_start_in_order_work_and_end_in_reverse() {
    let (registry, log) = (KeyRegistry::new(), Log::default());
    logging(&registry, &log, "a", None);
    logging(&registry, &log, "b", None);
    let set = try_start(layout(2, 2), &registry).unwrap();
    // Ids: 0 system, 1 main, 2 helper, 3 main, 4 helper. Order: system, mains, helpers.
    let made = [
        "+a@0", "+b@0", "+a@1", "+b@1", "+a@3", "+b@3", "+a@2", "+b@2", "+a@4", "+b@4",
    ];
    assert_eq!(std::mem::take(&mut *log.lock().unwrap()), made);
    for (at, xstream) in set.all().iter().enumerate() {
        let seen = xstream.execute_blocking("who", LONG, |xstream| {
            let all = xstream.set().cloned();
            let name = xstream.name().to_owned();
            async move {
                let all = all.expect("past the barrier everybody knows everybody");
                let other = all.system().call("hello", |xstream| xstream.id()).await;
                (name, other)
            }
        });
        assert_eq!(
            seen.unwrap(),
            (xstream.name().to_owned(), Ok(XstreamId(0))),
            "xstream {at}"
        );
    }
    set.shutdown(LONG, |_| ()).unwrap();
    let ended = [
        "-b@4", "-a@4", "-b@2", "-a@2", "-b@3", "-a@3", "-b@1", "-a@1", "-b@0", "-a@0",
    ];
    assert_eq!(
        *log.lock().unwrap(),
        ended,
        "in reverse, each on its own thread"
    );
}

#[test]
fn a_failing_storage_stops_the_start_and_undoes_it_where_daos_reports_success() {
    let (registry, log) = (KeyRegistry::new(), Log::default());
    logging(&registry, &log, "good", None);
    logging(&registry, &log, "bad", Some(2));
    let error = try_start(layout(3, 0), &registry).unwrap_err();
    assert_eq!(
        (error.xstream, error.phase, error.left.len()),
        (XstreamId(2), Phase::Tls, 0)
    );
    assert_eq!(error.der(), daos_errno::Der::NOMEM);
    let text = error.to_string();
    assert!(
        text.contains("keel_io_1") && text.contains("phase tls") && text.contains("\"bad\""),
        "{text}"
    );
    let expected = [
        "+good@0", "+bad@0", "+good@1", "+bad@1", "+good@2", "+bad@2", "-good@2", "-bad@1",
        "-good@1", "-bad@0", "-good@0",
    ];
    assert_eq!(*log.lock().unwrap(), expected, "target 2 was never begun");
    assert!(
        registry.unregister(registry.list()[0].0).is_ok(),
        "no xstream holds a value"
    );
}

#[test]
fn a_missing_reactor_is_named() {
    let layout = layout(1, 0);
    let options = ReactorOptions {
        cpus: vec![0],
        pin: false,
        ..ReactorOptions::default()
    };
    let reactors = ReactorSet::start(&options).unwrap();
    let error =
        XstreamSet::start(layout, reactors, &KeyRegistry::new(), &start_options()).unwrap_err();
    assert_eq!((error.xstream, error.phase), (XstreamId(1), Phase::Thread));
    assert!(
        error.to_string().contains("no reactor runs on CPU 1"),
        "{error}"
    );
}

#[test]
fn a_periodic_ult_ends_when_it_sees_the_flag() {
    let set = start(2, 0);
    let (sender, receiver) = mpsc::channel();
    set.create_all("periodic", false, move |xstream: &Xstream| {
        let xstream = xstream.xref();
        async move {
            while !xstream.is_shutting_down() {
                spdk_thread::sleep(10_000).await;
            }
            sender.send(xstream.id().0).unwrap();
        }
    })
    .unwrap();
    assert!(!set.is_shutting_down());
    set.begin_shutdown(LONG).unwrap();
    assert!(set.is_shutting_down() && set.all().iter().all(crate::XstreamRef::is_shutting_down));
    // ULTs can still be created: modules clean up with them.
    assert_eq!(
        set.system()
            .execute_blocking("cleanup", LONG, |_| async { 5 }),
        Ok(5)
    );
    let main = set.main(0).unwrap().clone();
    set.shutdown(LONG, |_| ()).unwrap();
    let mut ended: Vec<u32> = receiver.iter().collect();
    ended.sort_unstable();
    assert_eq!(ended, [0, 1, 2]);
    assert_eq!(
        main.spawn("late", |_| async {}),
        Err(SpawnError::Shutdown(XstreamId(1)))
    );
}

#[test]
fn shutdown_wakes_who_sleeps_with_a_request() {
    let set = start(1, 0);
    let main = set.main(0).unwrap();
    let (up, is_up) = mpsc::channel();
    let slept = main.create("sleeper", |_, request| async move {
        up.send(()).unwrap();
        let slept = request.sleep(u64::MAX).await;
        (slept, request.yield_or_stop().await)
    });
    is_up.recv().unwrap();
    main.call_blocking("it sleeps by now", LONG, |_| ())
        .unwrap();
    let (sender, receiver) = mpsc::channel();
    let joins = slept.unwrap();
    let joiner = |_: &Xstream| async move { sender.send(joins.await.unwrap()).unwrap() };
    set.system().spawn("joins", joiner).unwrap();
    set.shutdown(LONG, |_| ()).unwrap();
    assert_eq!(receiver.recv().unwrap(), (crate::Slept::Woken, true));
}

#[test]
fn shutdown_says_each_second_which_ult_holds_it_and_goes_on_when_it_ends() {
    let set = start(1, 0);
    let (release, released) = spdk_ring::oneshot::channel::<()>();
    set.main(0)
        .unwrap()
        .spawn("stubborn", |_| async move {
            let _ = released.await;
        })
        .unwrap();
    let (mut release, mut told) = (Some(release), Vec::new());
    let done = set.shutdown(LONG, |lines| {
        told.extend(lines.to_vec());
        drop(release.take());
    });
    done.unwrap();
    assert!(
        told[0].starts_with("keel_io_0: ULT stubborn (age "),
        "{told:?}"
    );
}

#[test]
fn at_the_deadline_the_error_names_what_holds() {
    let set = start(1, 0);
    let (_never, waiting) = spdk_ring::oneshot::channel::<()>();
    set.system()
        .spawn("stubborn", |_| async move {
            let _ = waiting.await;
        })
        .unwrap();
    let held = set
        .shutdown(Duration::from_millis(100), |_| ())
        .unwrap_err();
    assert_eq!(held.holders.len(), 1, "{held}");
    assert!(
        held.to_string().contains("keel_sys_0: ULT stubborn"),
        "{held}"
    );
}

thread_local! {
    static KEPT: std::cell::RefCell<Vec<(Poller, Option<Xstream>)>> = const { std::cell::RefCell::new(Vec::new()) };
}

#[test]
fn pollers_and_handles_that_stay_are_named_too() {
    let set = start(1, 0);
    let main = set.main(0).unwrap().clone();
    let keep = |xstream: &Xstream| {
        let poller = xstream
            .thread()
            .register_poller("forgotten", Period::EveryTurn, |_| PollResult::Idle);
        KEPT.with_borrow_mut(|kept| kept.push((poller, Some(xstream.clone()))));
    };
    main.call_blocking("keep", LONG, keep).unwrap();
    let mut told = Vec::new();
    let handle = main.handle().clone();
    set.shutdown(LONG, |lines| {
        told.push(lines.join("|"));
        // First the handle goes, then the poller.
        let all = told.len() > 1;
        let _ = handle.send(move |_| {
            KEPT.with_borrow_mut(|kept| {
                if all {
                    kept.clear()
                } else {
                    kept.iter_mut().for_each(|(_, xs)| *xs = None)
                }
            });
        });
    })
    .unwrap();
    assert!(
        told[0].contains("keel_io_0: 1 handle(s) on the xstream"),
        "{told:?}"
    );
    assert!(
        told[1].contains("keel_io_0: poller forgotten") && !told[1].contains("handle"),
        "{told:?}"
    );
}

#[test]
fn an_xstream_that_does_not_return_is_named() {
    let set = start(1, 0);
    let (release, stuck) = mpsc::channel::<()>();
    set.main(0)
        .unwrap()
        .send(move |_| {
            let _ = stuck.recv();
        })
        .unwrap();
    let (mut release, mut told) = (Some(release), Vec::new());
    set.shutdown(LONG, |lines| {
        told.extend(lines.to_vec());
        drop(release.take());
    })
    .unwrap();
    assert!(
        told.iter()
            .any(|line| line.starts_with("keel_io_0: does not answer")),
        "{told:?}"
    );
}

#[test]
fn values_that_hold_pollers_end_before_the_thread() {
    let registry = KeyRegistry::new();
    let init = |_: &XsInfo| {
        let thread = spdk_thread::current()?;
        Some(Rc::new(thread.register_poller(
            "module's",
            Period::Nanos(1_000_000),
            |_| PollResult::Idle,
        )))
    };
    registry.register_typed("poller", Tags::TGT, init).unwrap();
    try_start(layout(2, 1), &registry)
        .unwrap()
        .shutdown(LONG, |_| ())
        .unwrap();
}

#[test]
fn the_numbers_reach_the_metrics() {
    let set = start(1, 0);
    set.main(0)
        .unwrap()
        .execute_blocking("work", LONG, |_| async {})
        .unwrap();
    let value = |text: &str, name: &str| -> Option<u64> {
        text.lines().find_map(|line| {
            line.strip_prefix(&format!("{name}{{xstream=\"keel_io_0\"}} "))?
                .parse()
                .ok()
        })
    };
    let text = engine_telemetry::render();
    assert!(
        value(&text, "keel_xstream_turns_total").unwrap() > 0,
        "{text}"
    );
    assert!(
        value(&text, "keel_xstream_ults_started_total").is_some(),
        "{text}"
    );
    assert!(
        text.contains("keel_reactor_turns_total{cpu=\"0\"} "),
        "{text}"
    );
    let all = set.xstreams().clone();
    let inside = set
        .system()
        .execute_blocking("render", LONG, move |_| async move {
            all.refresh_metrics().await;
            engine_telemetry::render() // must not wait for itself
        });
    assert!(value(&inside.unwrap(), "keel_xstream_messages_total").unwrap() > 0);
    set.shutdown(LONG, |_| ()).unwrap();
}
