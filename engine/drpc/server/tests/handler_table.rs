//! The handler table: scenarios of DAOS `src/engine/tests/drpc_handler_tests.c`.
//!
//! A NULL handler and a NULL list do not exist in Rust: those scenarios are settled by the types.

mod peer;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use daos_errno::Der;
use drpc_wire::{Call, Response, Status};
use engine_drpc::{Handler, Registry, Reply};
use peer::Bench;

fn handler() -> Arc<dyn Handler> {
    Arc::new(|_: Call, reply: Reply| reply.fail(Status::Failure))
}

#[track_caller]
fn assert_is(registry: &Registry, id: i32, handler: &Arc<dyn Handler>) {
    let found = registry.get(id).expect("registered");
    assert!(Arc::ptr_eq(&found, handler));
}

#[test]
fn register_then_get_returns_it() {
    let registry = Registry::new();
    let good = handler();
    assert_eq!(registry.register(2, good.clone()), Ok(()));
    assert_is(&registry, 2, &good);
}

#[test]
fn register_twice_is_exist_and_keeps_the_first() {
    let registry = Registry::new();
    let first = handler();
    assert_eq!(registry.register(1, first.clone()), Ok(()));
    assert_eq!(registry.register(1, handler()), Err(Der::EXIST));
    assert_is(&registry, 1, &first);
}

#[test]
fn register_id_out_of_range_is_inval() {
    let registry = Registry::new();
    assert_eq!(registry.register(-1, handler()), Err(Der::INVAL));
    assert_eq!(registry.register(128, handler()), Err(Der::INVAL));
    assert_eq!(registry.register(i32::MAX, handler()), Err(Der::INVAL));
    assert_eq!(registry.register(i32::MIN, handler()), Err(Der::INVAL));
    assert_eq!(registry.register(127, handler()), Ok(()));
}

#[test]
fn get_of_an_unregistered_or_out_of_range_id_is_none() {
    let registry = Registry::new();
    for id in [0, 4, 127, 128, -1, i32::MIN, i32::MAX] {
        assert!(registry.get(id).is_none());
    }
}

#[test]
fn register_several_ids_and_get_each() {
    let registry = Registry::new();
    let handlers: Vec<_> = (0..5).map(|_| handler()).collect();
    for (id, handler) in (0..).zip(&handlers) {
        assert_eq!(registry.register(id, handler.clone()), Ok(()));
    }
    for (id, handler) in (0..).zip(&handlers) {
        assert_is(&registry, id, handler);
    }
    assert_eq!(registry.ids(), [0, 1, 2, 3, 4]);
}

#[test]
fn unregister_an_id_that_is_not_registered_keeps_the_others() {
    let registry = Registry::new();
    let kept = handler();
    registry.register(3, kept.clone()).expect("free");
    assert_eq!(registry.unregister(2), Ok(()));
    assert_is(&registry, 3, &kept);
}

#[test]
fn unregister_out_of_range_is_inval() {
    let registry = Registry::new();
    assert_eq!(registry.unregister(-1), Err(Der::INVAL));
    assert_eq!(registry.unregister(128), Err(Der::INVAL));
}

#[test]
fn unregister_takes_it_out_keeps_the_others_and_frees_the_id() {
    let registry = Registry::new();
    let kept = handler();
    registry.register(2, handler()).expect("free");
    registry.register(3, kept.clone()).expect("free");
    assert_eq!(registry.unregister(2), Ok(()));
    assert!(registry.get(2).is_none());
    assert_is(&registry, 3, &kept);
    assert_eq!(registry.register(2, handler()), Ok(()));
}

#[test]
fn register_all_empty_one_and_many() {
    let registry = Registry::new();
    assert_eq!(registry.register_all([]), Ok(()));
    assert!(registry.ids().is_empty());
    assert_eq!(registry.register_all([(4, handler())]), Ok(()));
    assert_eq!(
        registry.register_all([(0, handler()), (1, handler()), (100, handler())]),
        Ok(())
    );
    assert_eq!(registry.ids(), [0, 1, 4, 100]);
}

#[test]
fn register_all_with_a_duplicate_is_exist_and_registers_the_rest() {
    let registry = Registry::new();
    let first = handler();
    let list = [(1, first.clone()), (1, handler()), (2, handler())];
    assert_eq!(registry.register_all(list), Err(Der::EXIST));
    assert_is(&registry, 1, &first);
    assert_eq!(registry.ids(), [1, 2]);
}

#[test]
fn register_all_returns_the_last_error() {
    let registry = Registry::new();
    let list = [
        (1, handler()),
        (1, handler()),
        (-1, handler()),
        (2, handler()),
    ];
    assert_eq!(registry.register_all(list), Err(Der::INVAL));
    assert_eq!(registry.ids(), [1, 2]);
}

#[test]
fn unregister_all_empty_one_and_many() {
    let registry = Registry::new();
    registry
        .register_all((0..5).map(|id| (id, handler())))
        .expect("free");
    assert_eq!(registry.unregister_all([]), Ok(()));
    assert_eq!(registry.ids(), [0, 1, 2, 3, 4]);
    assert_eq!(registry.unregister_all([2]), Ok(()));
    assert_eq!(registry.ids(), [0, 1, 3, 4]);
    assert_eq!(registry.unregister_all([0, 1, 3, 4, 99, -1]), Ok(()));
    assert!(registry.ids().is_empty());
}

#[test]
fn table_not_initialised_is_uninit() {
    let registry = Registry::new();
    registry.register(1, handler()).expect("free");
    registry.fini();
    assert_eq!(registry.register(2, handler()), Err(Der::UNINIT));
    assert_eq!(registry.register_all([]), Err(Der::UNINIT));
    assert_eq!(registry.register_all([(2, handler())]), Err(Der::UNINIT));
    assert_eq!(registry.unregister(1), Err(Der::UNINIT));
    assert_eq!(registry.unregister_all([1]), Err(Der::UNINIT));
    assert!(registry.get(1).is_none());
}

#[test]
fn process_message_calls_the_handler_once_with_the_call_and_sends_its_response() {
    let mut bench = Bench::new();
    let count = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&count);
    let handler = move |call: Call, reply: Reply| {
        seen.fetch_add(1, Ordering::Relaxed);
        assert_eq!((call.module, call.method, call.sequence), (2, 225, 77));
        assert_eq!(call.body, b"question");
        reply.send(Response {
            sequence: 12345,
            status: Status::Submitted.into(),
            body: b"answer".to_vec(),
        });
    };
    bench.registry.register(2, Arc::new(handler)).expect("free");
    let mut peer = bench.peer();
    peer.call(2, 225, 77, b"question");
    assert_eq!(bench.step(), Ok(()));
    peer.assert_answer(77, Status::Submitted, b"answer");
    assert_eq!(count.load(Ordering::Relaxed), 1);
}

#[test]
fn process_message_for_an_unregistered_module_calls_nobody_and_is_unknown_module() {
    let mut bench = Bench::new();
    let mut peer = bench.peer();
    for (sequence, module) in [(1, 3), (2, -1), (3, 128), (4, i32::MIN)] {
        peer.call(module, 1, sequence, b"x");
        assert_eq!(bench.step(), Ok(()));
        peer.assert_answer(sequence, Status::UnknownModule, b"");
    }
    assert_eq!(bench.kept.len(), 0);
}

#[test]
fn a_panicking_handler_answers_failure_and_harms_nothing_else() {
    let mut bench = Bench::new();
    let panics = |_: Call, _: Reply| panic!("this handler is broken");
    bench.registry.register(7, Arc::new(panics)).expect("free");
    let mut peer = bench.peer();
    let mut other = bench.peer();
    peer.call(7, 1, 1, b"");
    other.call(peer::ECHO, 1, 1, b"still here");
    bench.settle();
    peer.assert_answer(1, Status::Failure, b"");
    other.assert_answer(1, Status::Success, b"still here");
    peer.call(peer::ECHO, 1, 2, b"again");
    bench.settle();
    peer.assert_answer(2, Status::Success, b"again");
    assert_eq!(bench.server.stats().in_flight, 0);
}

#[test]
fn a_reply_dropped_unsent_answers_failure() {
    let mut bench = Bench::new();
    let forgets = |_: Call, reply: Reply| drop(reply);
    bench.registry.register(7, Arc::new(forgets)).expect("free");
    let mut peer = bench.peer();
    peer.call(7, 1, 9, b"");
    bench.settle();
    peer.assert_answer(9, Status::Failure, b"");
}

#[test]
fn a_reply_that_does_not_fit_is_failed_marshal() {
    let mut bench = Bench::new();
    let huge = |_: Call, reply: Reply| reply.success(vec![0; drpc_wire::MAX_MESSAGE + 1]);
    bench.registry.register(7, Arc::new(huge)).expect("free");
    let mut peer = bench.peer();
    peer.call(7, 1, 9, b"");
    bench.settle();
    peer.assert_answer(9, Status::FailedMarshal, b"");
}
