//! The watchdog over xstreams on real reactors.
#![allow(missing_docs, reason = "a test")]

use engine_tls::KeyRegistry;
use engine_watchdog::{Options, Report, Watchdog};
use engine_xstream::{Core, Layout, LayoutOptions, StartOptions, XstreamSet};
use spdk_reactor::{ReactorOptions, ReactorSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// One system xstream and two mains on one CPU, in three threads of one reactor; or on as many as there are.
fn xstreams() -> XstreamSet {
    let cpu = spdk_env::cpu::allowed().expect("affinity")[0];
    let core = Core::alone(cpu, 0);
    let wanted = LayoutOptions {
        targets: 2,
        helpers: 0,
        oversubscribe: true,
        ..LayoutOptions::default()
    };
    let layout = Layout::compute(&wanted, &[core]).expect("a layout");
    let reactors = ReactorSet::start(&ReactorOptions {
        cpus: layout.cpus(),
        idle_latency_us: 20,
        pin: true,
        name_prefix: "watched".to_owned(),
    })
    .expect("reactors");
    XstreamSet::start(
        layout,
        reactors,
        &KeyRegistry::default(),
        &StartOptions::default(),
    )
    .expect("xstreams")
}

fn watch(
    set: &XstreamSet,
    unit_ms: u64,
    stall_ms: u64,
    systemd: Option<Duration>,
    feeds: &Arc<AtomicU64>,
) -> (Watchdog, mpsc::Receiver<Report>) {
    let (sender, reports) = mpsc::channel();
    let feeds = feeds.clone();
    let options = Options {
        unit_runtime_max: Duration::from_millis(unit_ms),
        stall_max: Duration::from_millis(stall_ms),
        systemd,
        feed: Box::new(move || {
            feeds.fetch_add(1, Ordering::SeqCst);
        }),
        on_report: Box::new(move |report| {
            let _ = sender.send(report.clone());
        }),
    };
    let watchdog = Watchdog::start(set.xstreams(), set.reactors().reactors(), options);
    (watchdog.expect("an OS thread"), reports)
}

#[inline(never)]
fn spins_until(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        std::hint::spin_loop();
    }
}

#[test]
fn a_ult_that_does_not_return_is_named_with_where_it_is_while_it_runs() {
    let set = xstreams();
    let feeds = Arc::default();
    let (watchdog, reports) = watch(&set, 8, 0, None, &feeds);
    let stop = Arc::new(AtomicBool::new(false));
    let own = stop.clone();
    set.main(1)
        .expect("a main")
        .spawn("obj:scrub", move |_| async move { spins_until(&own) })
        .expect("a ULT");
    let report = reports.recv_timeout(PATIENCE).expect("a report");
    let view = watchdog.view().running();
    stop.store(true, Ordering::Relaxed);
    let Report::LongUnit {
        xstream,
        unit,
        ran_ms,
        limit_ms,
        backtrace,
    } = report
    else {
        panic!("{report:?}");
    };
    assert_eq!(
        (xstream.as_str(), unit.name, limit_ms),
        ("keel_io_1", "obj:scrub", 8)
    );
    assert!(ran_ms >= 8, "{ran_ms}");
    if cfg!(target_arch = "x86_64") {
        assert!(
            backtrace.iter().any(|line| line.contains("spins_until")),
            "{backtrace:#?}"
        );
    }
    let seen = view.iter().find(|seen| seen.xstream == "keel_io_1");
    assert_eq!(
        seen.and_then(|seen| seen.unit).map(|(unit, _)| unit.name),
        Some("obj:scrub"),
        "the view answers while it is stuck"
    );
    drop(watchdog);
    set.shutdown(PATIENCE, |_| ()).expect("shutdown");
}

#[test]
fn a_stalled_xstream_is_reported_starves_systemd_and_recovers() {
    let set = xstreams();
    let feeds: Arc<AtomicU64> = Arc::default();
    let (watchdog, reports) = watch(&set, 0, 400, Some(Duration::from_millis(40)), &feeds);
    // All of them sleep; they are fed all the same, because they are asked.
    while feeds.load(Ordering::SeqCst) < 5 {
        std::thread::yield_now();
    }
    assert!(reports.try_recv().is_err(), "sleeping is no stall");
    let stop = Arc::new(AtomicBool::new(false));
    let own = stop.clone();
    set.system()
        .send(move |_| spins_until(&own))
        .expect("a message");
    // They share a core, so all three are found.
    let mut stalled: Vec<String> = Vec::new();
    let mut fed = None;
    while stalled.len() < 3 {
        match reports.recv_timeout(PATIENCE).expect("a report") {
            Report::Stalled {
                xstream, running, ..
            } => {
                if xstream == "keel_sys_0" {
                    assert_eq!(running.map(|(unit, _)| unit.name), Some("message"));
                }
                // Ten times systemd's patience has passed: no more after this.
                let before = *fed.get_or_insert_with(|| feeds.load(Ordering::SeqCst));
                assert_eq!(before, feeds.load(Ordering::SeqCst));
                stalled.push(xstream);
            }
            other => panic!("{other}"),
        }
    }
    stop.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        let report = reports.recv_timeout(PATIENCE).expect("a report");
        assert!(matches!(report, Report::Recovered { .. }), "{report}");
    }
    while feeds.load(Ordering::SeqCst) == fed.unwrap_or(0) {
        std::thread::yield_now();
    }
    drop(watchdog);
    set.shutdown(PATIENCE, |_| ()).expect("shutdown");
}
