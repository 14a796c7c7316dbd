//! What others see of a thread while it works; with a timed poller, so of our own threads only (see `turn.rs`).

use spdk_thread::testing::{Lockstep, Trace};
use spdk_thread::{Period, PollResult, ThreadHandle, UnitKind, yield_now};

fn note(trace: &Trace, handle: &ThreadHandle) {
    let pulse = handle.pulse();
    let unit = pulse.unit.expect("something runs: this");
    trace.log(format!(
        "turn {}: {} {}",
        pulse.turns,
        unit.kind.as_str(),
        unit.name
    ));
}

#[test]
fn every_unit_says_what_it_is_while_it_runs_and_nothing_runs_between_turns() {
    let mut lockstep = Lockstep::new();
    let thread = lockstep.thread("watched");
    let (trace, handle) = (Trace::new(), thread.handle());
    let noting = |trace: &Trace| {
        let (trace, handle) = (trace.clone(), handle.clone());
        move || note(&trace, &handle)
    };
    let poll = noting(&trace);
    let every_turn = thread.register_poller("mod:every", Period::EveryTurn, move |_| {
        poll();
        PollResult::Idle
    });
    let poll = noting(&trace);
    let timed = thread.register_poller("timed", Period::Nanos(10), move |_| {
        poll();
        PollResult::Busy
    });
    let run = noting(&trace);
    let task = thread
        .spawn("mod:task", async move {
            run();
            yield_now().await;
            run();
        })
        .expect("room");
    lockstep.step();
    assert_eq!((handle.pulse().unit, handle.pulse().turns), (None, 1));
    lockstep.advance(10);
    lockstep.step();
    assert_eq!(
        trace.take(),
        [
            "turn 0: poller mod:every",
            "turn 0: ULT mod:task",
            "turn 1: poller mod:every",
            "turn 1: poller timed",
            "turn 1: ULT mod:task",
        ]
    );
    assert!(task.is_finished());
    drop((every_turn, timed));
    let (seen, sees) = std::sync::mpsc::channel();
    let own = handle.clone();
    handle
        .send(move |_| {
            seen.send(own.pulse().unit.map(|unit| unit.kind))
                .expect("kept")
        })
        .expect("room");
    lockstep.step();
    assert_eq!(sees.recv(), Ok(Some(UnitKind::Message)));
}
