//! Modules in C with ULTs on stacks of their own, in a real engine.

#![allow(missing_docs, reason = "a test")]

mod harness;

use daos_errno::Der;
use drpc_wire::{Response, Status, keel, methods, modules};
use faulty_modules::compile;
use harness::{Config, Engine, eventually};
use rustix::process::Signal;

fn spawn(name: &str) -> Engine {
    spawn_beside(&[], name)
}

/// With a module of the tests and some that ship.
fn spawn_beside(others: &[&str], name: &str) -> Engine {
    let config = Config::with_modules(&[others, &[name]].concat());
    compile(name, config.path());
    let engine = config.spawn();
    engine.wait_log("ready after ");
    engine
}

fn text(answer: Response) -> String {
    assert_eq!(answer.status(), Status::Success, "{answer:?}");
    String::from_utf8(answer.body).unwrap()
}

#[test]
fn straight_line_c_does_block_io_and_rpc_in_the_middle() {
    let engine = spawn("straight_c");
    for said in ["kept in the middle", "and again"] {
        for over_rpc in [1, 3] {
            let answer = engine.drpc().call(103, over_rpc, said.as_bytes()).unwrap();
            assert_eq!(text(answer), said);
        }
    }
    let counted = engine.drpc().call(103, 2, b"").unwrap();
    assert_eq!(text(counted), "counted to three");
    let unknown = engine.drpc().call(103, 4, b"").unwrap();
    assert_eq!(unknown.status(), Status::UnknownMethod);
    let exited = engine.terminate();
    assert_eq!(exited.code, Some(0));
    assert!(
        !exited.log.contains("left behind by the module"),
        "{}",
        exited.log
    );
}

#[test]
fn every_convenience_of_the_header_does_what_it_says() {
    let engine = spawn("ults");
    for _ in 0..3 {
        let wrong = engine.drpc().call(107, 1, b"").unwrap();
        assert_eq!(text(wrong), "");
    }
    let exited = engine.terminate();
    assert_eq!(exited.code, Some(0));
    assert!(
        !exited.log.contains("left behind by the module"),
        "{}",
        exited.log
    );
}

#[test]
fn waiting_where_nothing_can_wait_is_refused_and_harms_nobody() {
    let engine = spawn("wrong_waits");
    let results = numbers(&engine.drpc().call(104, 1, b"").unwrap());
    let refused = Der::OP_NOT_PERMITTED.neg();
    let one_round = [1, refused, refused, refused, refused, refused];
    let mut expected = vec![refused];
    expected.extend([one_round; 2].concat());
    assert_eq!(results, expected, "{}", engine.log());
    assert!(engine.log().contains("called from the wrong place"));
    let exited = engine.terminate();
    assert_eq!(exited.code, Some(0), "{}", exited.log);
    let (log, misc) = (&exited.log, Der::MISC.neg()); // at the OS thread's end it is too late to look who calls
    let said = |which, der| {
        log.matches(&format!("wrong_waits: {which}: 1 {der}\n"))
            .count()
    };
    assert_eq!(
        said("end of the storage", refused),
        3,
        "each xstream\n{log}"
    );
    assert!(said("end of the OS thread", misc) > 0, "{log}");
    assert!(!log.contains("panic"), "{log}");
}

#[test]
fn a_ult_that_computes_for_long_holds_its_xstream_and_nothing_else() {
    let engine = spawn("never_yields");
    let answer = engine.drpc().call(105, 2, b"300").unwrap();
    assert_eq!(answer.status(), Status::Success);
    // The system xstream answers meanwhile.
    let answer = engine.drpc().call(105, 1, b"0").unwrap();
    assert_eq!(answer.status(), Status::Success);
    assert_eq!(engine.terminate().code, Some(0));
}

#[test]
fn what_c_plus_plus_throws_ends_its_ult_and_nothing_else() {
    let engine = spawn("throws");
    let ended = Der::MISC.neg();
    for round in 1..=2 {
        let answer = engine.drpc().call(109, 1, b"").unwrap();
        assert_eq!(
            numbers(&answer),
            [ended, ended, ended, ended, ended, 4 * round]
        );
    }
    let exited = engine.terminate();
    assert_eq!(exited.code, Some(0));
    let said = "an exception of another language left the function of a ULT";
    assert_eq!(exited.log.matches(said).count(), 8, "{}", exited.log);
}

#[test]
fn a_ult_that_overflows_its_stack_is_named_before_it_harms_anything() {
    let engine = spawn("stack_overflow");
    let fits = engine.drpc().call(106, 2, b"").unwrap();
    assert_eq!(fits.status(), Status::Success);
    let answer = engine.drpc().call(106, 1, b"").unwrap();
    assert_eq!(answer.status(), Status::Submitted);
    let exited = engine.exited();
    assert_eq!(exited.code, None, "by a signal: {}", exited.log);
    let said = exited.log.lines().find(|line| line.starts_with("keel: "));
    let expected = "keel: ULT recurses_without_end of module stack_overflow on xstream keel_sys_0 overflowed its stack of 131072 bytes, \
                    of which 65536 are for the engine's own functions. Ask for a larger one where the ULT is created (stack_size of \
                    dss_ult_create() and struct dss_ult_attr, UltOptions::stack_size in Rust; 0 means 65536), or put less on it. The \
                    engine ends here, with a core file where the system writes one, because what the ULT held is unknown; what was \
                    acknowledged is on the devices.";
    assert_eq!(said, Some(expected), "{}", exited.log);
}

/// The dRPC module of `modules/faulty/c/waiters.c`.
const WAITERS: i32 = 108;

/// Its ULTs once each is where it waits.
fn waiting(engine: &Engine, how: &[u8]) -> Vec<keel::Task> {
    let begun = engine.drpc().call(WAITERS, 1, how).unwrap();
    assert_eq!(begun.status(), Status::Success);
    eventually("all wait", || {
        let list: keel::Tasks = engine.ask(modules::KEEL, methods::TASKS, &());
        let mut ults = list.tasks;
        ults.retain(|task| task.module == "waiters");
        ults.sort_by(|a, b| a.name.cmp(&b.name));
        let all = ults.len() == 9 && ults.iter().all(|ult| ult.state.starts_with("waiting: "));
        all.then_some(ults)
    })
}

#[test]
fn the_list_tells_who_waits_where_for_what_and_how_much_stack_it_took() {
    let engine = spawn_beside(&["mgmt", "obj"], "waiters");
    let ults = waiting(&engine, b"");
    let seen: Vec<_> = ults
        .iter()
        .map(|ult| (ult.name.as_str(), ult.state.as_str(), ult.stack_bytes >> 10))
        .collect();
    let expected = [
        ("holds", "waiting: eventual", 128),
        ("joins", "waiting: join", 320),
        ("sleeps", "waiting: sleep", 320),
        ("waits_a_while", "waiting: eventual", 320),
        ("waits_at_barrier", "waiting: barrier", 320),
        ("waits_for_condition", "waiting: condition", 320),
        ("waits_for_eventual", "waiting: eventual", 320),
        ("waits_for_mutex", "waiting: mutex", 320),
        ("went_deep", "waiting: eventual", 320),
    ];
    assert_eq!(seen, expected);
    for ult in &ults {
        assert_eq!(ult.xstream, "keel_io_0");
        assert!(ult.polls > 0 && !ult.started_at.is_empty(), "{ult:?}");
        let deepest = ult.stack_deepest_bytes >> 10;
        let plausible = if ult.name == "went_deep" {
            150..200
        } else {
            1..100
        };
        assert!(plausible.contains(&deepest), "{ult:?}");
    }
    let (first, age) = (&ults[0].name, ults[0].age_ms);
    eventually("they grow older", || {
        let list: keel::Tasks = engine.ask(modules::KEEL, methods::TASKS, &());
        let same = list.tasks.iter().find(|ult| ult.name == *first)?;
        (same.age_ms > age).then_some(())
    });
    the_dump_says_so_too(&engine);
    let ended = engine.drpc().call(WAITERS, 2, b"").unwrap();
    let woken_and_first_at_the_barrier = [1, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(numbers(&ended), woken_and_first_at_the_barrier);
    let list: keel::Tasks = engine.ask(modules::KEEL, methods::TASKS, &());
    assert!(list.tasks.iter().all(|ult| ult.module != "waiters"));
    assert_eq!(engine.terminate().code, Some(0));
}

#[test]
fn an_abort_reaches_whoever_waits_whatever_it_waits_for() {
    let engine = spawn_beside(&["mgmt", "obj"], "waiters");
    waiting(&engine, b"cancel");
    let ended = engine.drpc().call(WAITERS, 3, b"").unwrap();
    let (woken, canceled) = (1, Der::CANCELED.neg());
    let expected = [[woken].as_slice(), &[canceled; 7]].concat();
    assert_eq!(numbers(&ended), expected, "{}", engine.log());
    let exited = engine.terminate();
    assert_eq!(exited.code, Some(0));
    assert!(
        !exited.log.contains("left behind by the module"),
        "all were free to go\n{}",
        exited.log
    );
}

#[test]
fn an_engine_stops_with_ults_asleep_and_waiting() {
    let engine = spawn_beside(&["mgmt", "obj"], "waiters");
    waiting(&engine, b"cancel");
    let exited = engine.terminate();
    assert_eq!(exited.code, Some(0), "{}", exited.log);
}

#[test]
fn a_million_ults_at_once_are_refused_beyond_the_bounds_and_the_rest_runs() {
    let engine = spawn("floods");
    let flood = |method, refusal: Der| {
        let expected = refusal.neg().to_le_bytes();
        let answer = engine.drpc().call(110, method, &expected).unwrap();
        let [accepted, refused, other, ran] = numbers(&answer)[..] else {
            panic!("{answer:?}");
        };
        assert_eq!((accepted + refused, other), (1_000_000, 0));
        (accepted, ran)
    };
    let own = flood(1, Der::NOMEM);
    assert!(
        (16_000..=16_384).contains(&own.0),
        "{own:?}: the ULTs of an xstream"
    );
    assert_eq!(own.0, own.1, "all that were accepted");
    // The mailbox is full, or, if it is emptied meanwhile, the xstream is: then the log tells of those that were accepted.
    let (accepted, ran) = flood(2, Der::AGAIN);
    assert!(
        accepted >= 4096 && ran >= 4096 && ran <= accepted,
        "{accepted} {ran}"
    );
    assert_eq!(flood(1, Der::NOMEM), own, "all have gone");
    let exited = engine.terminate();
    assert_eq!(exited.code, Some(0));
    let dropped = exited.log.matches("ULT dropped").count();
    assert!(
        dropped < 1000 && (dropped > 0 || ran == accepted),
        "{}",
        exited.log
    );
}

/// The file that SIGUSR1 writes.
fn the_dump_says_so_too(engine: &Engine) {
    engine.signal(Signal::USR1);
    engine.wait_log("dump written");
    let log = engine.log();
    let path = log
        .split("path=")
        .nth(1)
        .and_then(|rest| rest.split_whitespace().next());
    let text = std::fs::read_to_string(path.expect("its path")).expect("the dump");
    let line = text
        .lines()
        .find(|line| line.contains("went_deep of waiters"));
    let line = line.expect("its line");
    let before_numbers = "    went_deep of waiters: waiting: eventual, age ";
    assert!(line.starts_with(before_numbers), "{line}");
    assert!(
        line.contains(", stack 1") && line.contains(" of 320 KiB, started at "),
        "{line}"
    );
}

fn numbers(answer: &Response) -> Vec<i32> {
    assert_eq!(answer.status(), Status::Success, "{answer:?}");
    let four = answer.body.chunks_exact(4);
    four.map(|four| i32::from_le_bytes(four.try_into().unwrap()))
        .collect()
}
