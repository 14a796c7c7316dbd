//! What an urgent thread waits for on a core whose other threads are saturated: counted in units of work, not in time.
#![allow(missing_docs, reason = "a test")]

use spdk_reactor::{IdleGoal, Reactor};
use spdk_thread::{ThreadOptions, yield_now};
use std::cell::RefCell;
use std::rc::Rc;

thread_local! {
    /// Polls of ULTs so far, and the most that a message has waited for.
    static UNITS: RefCell<(u64, u64)> = const { RefCell::new((0, 0)) };
}

/// The most units that a message to the first thread waits for, on a core with four others that have 500 ULTs each.
fn longest_wait(urgent: bool) -> u64 {
    UNITS.set((0, 0));
    let reactor = Reactor::new("hand", IdleGoal::ALWAYS_POLL).expect("descriptors");
    let options = ThreadOptions {
        urgent,
        ..ThreadOptions::default()
    };
    let system = reactor.spawn_thread("system", options).handle();
    for name in ["a", "b", "c", "d"] {
        let thread = reactor.spawn_thread(name, ThreadOptions::default());
        let system = Rc::new(system.clone());
        for _ in 0..500 {
            let system = Rc::clone(&system);
            let work = async move {
                loop {
                    let sent = UNITS.with_borrow_mut(|units| {
                        units.0 += 1;
                        units.0
                    });
                    // From every place of a turn in the course of time.
                    if sent.is_multiple_of(7) {
                        let note = move |_: &_| {
                            UNITS.with_borrow_mut(|units| units.1 = units.1.max(units.0 - sent));
                        };
                        system.send(note).expect("room");
                    }
                    yield_now().await;
                }
            };
            thread.spawn("busy", work).expect("room").detach();
        }
    }
    for turn in 0..200 {
        reactor.poll_once(turn * 1_000);
    }
    UNITS.take().1
}

#[test]
fn an_urgent_thread_waits_for_one_batch_and_another_for_one_of_each() {
    let batch = ThreadOptions::default().task_batch as u64;
    assert!(longest_wait(true) < batch, "{} units", longest_wait(true));
    let other = longest_wait(false);
    assert!((3 * batch..4 * batch).contains(&other), "{other} units");
}
