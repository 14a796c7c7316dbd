//! Modules in C with ULTs on stacks of their own, in a real engine.

#![allow(missing_docs, reason = "a test")]

mod harness;

use daos_errno::Der;
use drpc_wire::{Response, Status};
use faulty_modules::compile;
use harness::{Config, Engine};

fn spawn(name: &str) -> Engine {
    let config = Config::with_modules(&[name]);
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
fn straight_line_c_does_block_io_and_waits_in_the_middle() {
    let engine = spawn("straight_c");
    for said in ["kept in the middle", "and again"] {
        let answer = engine.drpc().call(103, 1, said.as_bytes()).unwrap();
        assert_eq!(text(answer), said);
    }
    let counted = engine.drpc().call(103, 2, b"").unwrap();
    assert_eq!(text(counted), "counted to three");
    let unknown = engine.drpc().call(103, 3, b"").unwrap();
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
    let answer = engine.drpc().call(104, 1, b"").unwrap();
    assert_eq!(answer.status(), Status::Success);
    let results: Vec<_> = answer
        .body
        .chunks_exact(4)
        .map(|four| i32::from_le_bytes(four.try_into().unwrap()))
        .collect();
    let refused = Der::OP_NOT_PERMITTED.neg();
    let one_round = [1, refused, refused, refused, refused, refused];
    let mut expected = vec![refused];
    expected.extend([one_round; 2].concat());
    assert_eq!(results, expected, "{}", engine.log());
    assert!(engine.log().contains("called from the wrong place"));
    assert_eq!(engine.terminate().code, Some(0));
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
fn a_ult_that_overflows_its_stack_is_named_before_it_harms_anything() {
    let engine = spawn("stack_overflow");
    let fits = engine.drpc().call(106, 2, b"").unwrap();
    assert_eq!(fits.status(), Status::Success);
    let answer = engine.drpc().call(106, 1, b"").unwrap();
    assert_eq!(answer.status(), Status::Submitted);
    let exited = engine.exited();
    assert_eq!(exited.code, None, "by a signal: {}", exited.log);
    let named = "keel: ULT stack_overflow:recurses_without_end overflowed its stack";
    assert!(exited.log.contains(named), "{}", exited.log);
}
