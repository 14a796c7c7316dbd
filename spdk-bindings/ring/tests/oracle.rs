//! The same list of operations on a ring and on a `VecDeque`: they must agree after every one.
#![cfg(not(loom))]
#![allow(missing_docs, reason = "a test")]

use proptest::prelude::*;
use spdk_ring::mpsc::TrySendError;
use spdk_ring::{mpsc, spsc};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

#[derive(Debug, Clone)]
enum Operation {
    /// Send from one of three senders (the pair has one).
    Send(usize),
    Receive,
    Drain(usize),
    /// A batch whose consumer panics at this value.
    DrainPanicking(usize),
    Close,
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let operation = prop_oneof![
        8 => (0usize..3).prop_map(Operation::Send),
        3 => Just(Operation::Receive),
        3 => (0usize..6).prop_map(Operation::Drain),
        1 => (0usize..3).prop_map(Operation::DrainPanicking),
    ];
    // A list may end with a close, after which sends go on being refused.
    (proptest::collection::vec(operation, 1..120), any::<bool>()).prop_map(|(mut list, close)| {
        if close {
            list.push(Operation::Close);
            list.extend([
                Operation::Send(0),
                Operation::Receive,
                Operation::Send(1),
                Operation::Drain(100),
            ]);
        }
        list
    })
}

/// What the ring must do.
struct Oracle {
    queue: VecDeque<u64>,
    capacity: usize,
    closed: bool,
}

impl Oracle {
    fn send(&mut self, value: u64) -> Result<(), TrySendError<u64>> {
        if self.closed {
            return Err(TrySendError::Closed(value));
        }
        if self.queue.len() == self.capacity {
            return Err(TrySendError::Full(value));
        }
        self.queue.push_back(value);
        Ok(())
    }

    fn drain(&mut self, max: usize) -> Vec<u64> {
        let count = max.min(self.queue.len());
        self.queue.drain(..count).collect()
    }
}

/// A value that counts its living copies.
type Counted = (u64, Arc<()>);

fn plain<T>(result: Result<(), TrySendError<(u64, T)>>) -> Result<(), TrySendError<u64>> {
    result.map_err(|error| match error {
        TrySendError::Full((value, _)) => TrySendError::Full(value),
        TrySendError::Closed((value, _)) => TrySendError::Closed(value),
    })
}

fn panicking_at(place: usize, seen: &mut Vec<u64>) -> impl FnMut(Counted) + '_ {
    move |(value, _)| {
        seen.push(value);
        assert!(seen.len() <= place, "as asked for");
    }
}

/// The two rings have the same methods; so has this.
macro_rules! replay {
    ($operations:expr, $capacity:expr, $senders:expr, $receiver:expr, $close:expr) => {{
        let alive = Arc::new(());
        #[allow(
            unused_mut,
            reason = "the pair's sender takes `&mut self`, the mailbox's does not"
        )]
        let (mut senders, mut receiver) = ($senders, $receiver);
        let mut oracle = Oracle {
            queue: VecDeque::new(),
            capacity: receiver.capacity(),
            closed: false,
        };
        prop_assert_eq!(receiver.capacity(), $capacity.next_power_of_two());
        for (number, operation) in $operations.into_iter().enumerate() {
            match operation {
                Operation::Send(sender) => {
                    let sender = sender % senders.len();
                    let sent = senders[sender].try_send((number as u64, alive.clone()));
                    prop_assert_eq!(plain(sent), oracle.send(number as u64));
                }
                Operation::Receive => {
                    prop_assert_eq!(
                        receiver.try_recv().map(|(value, _)| value),
                        oracle.queue.pop_front()
                    );
                }
                Operation::Drain(max) => {
                    let mut seen = Vec::new();
                    let count = receiver.drain(max, |(value, _)| seen.push(value));
                    prop_assert_eq!(count, seen.len());
                    prop_assert_eq!(seen, oracle.drain(max));
                }
                Operation::DrainPanicking(place) => {
                    let mut seen = Vec::new();
                    let max = usize::MAX;
                    let result = catch_unwind(AssertUnwindSafe(|| {
                        receiver.drain(max, panicking_at(place, &mut seen))
                    }));
                    prop_assert_eq!(result.is_err(), oracle.queue.len() > place);
                    prop_assert_eq!(seen, oracle.drain(place + 1));
                }
                Operation::Close => {
                    oracle.closed = $close(&mut receiver);
                }
            }
            prop_assert_eq!(receiver.len(), oracle.queue.len());
            prop_assert_eq!(receiver.is_empty(), oracle.queue.is_empty());
            prop_assert_eq!(
                Arc::strong_count(&alive),
                1 + oracle.queue.len(),
                "values alive"
            );
        }
        drop((senders, receiver));
        prop_assert_eq!(Arc::strong_count(&alive), 1, "values leaked");
    }};
}

fn quietly(f: impl FnOnce() -> Result<(), TestCaseError>) -> Result<(), TestCaseError> {
    // The panics that the lists ask for would fill the output.
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.payload().downcast_ref::<&str>() != Some(&"as asked for") {
                before(info);
            }
        }));
    });
    f()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mpsc_agrees_with_a_deque(operations in operations(), capacity in 1usize..9) {
        quietly(|| {
            let (sender, receiver) = mpsc::channel::<Counted>(capacity);
            let senders = vec![sender.clone(), sender.clone(), sender];
            replay!(operations, capacity, senders, receiver, |receiver: &mut mpsc::Receiver<Counted>| {
                receiver.close();
                true
            });
            Ok(())
        })?;
    }

    #[test]
    fn spsc_agrees_with_a_deque(operations in operations(), capacity in 1usize..9) {
        quietly(|| {
            let (sender, receiver) = spsc::channel::<Counted>(capacity);
            // A pair has no close of its own: its sides close it by going.
            replay!(operations, capacity, vec![sender], receiver, |_: &mut spsc::Receiver<Counted>| false);
            Ok(())
        })?;
    }
}

#[test]
fn several_real_threads_keep_each_senders_order() {
    const SENDERS: u64 = 3;
    const EACH: u64 = 20_000;
    let (sender, mut receiver) = mpsc::channel::<(u64, u64)>(64);
    std::thread::scope(|scope| {
        for id in 0..SENDERS {
            let sender = sender.clone();
            scope.spawn(move || {
                for number in 0..EACH {
                    while sender.try_send((id, number)).is_err() {
                        std::thread::yield_now();
                    }
                }
            });
        }
        let mut next = [0; SENDERS as usize];
        let mut left = SENDERS * EACH;
        while left > 0 {
            let count = receiver.drain(32, |(id, number)| {
                assert_eq!(number, next[id as usize], "sender {id}");
                next[id as usize] += 1;
            });
            left -= count as u64;
            if count == 0 {
                std::thread::yield_now();
            }
        }
    });
    assert!(receiver.try_recv().is_none());
}

#[test]
fn a_pair_closes_from_either_side() {
    let (mut sender, receiver) = spsc::channel(2);
    sender.try_send(1).expect("room");
    drop(receiver);
    assert!(sender.is_closed());
    sender
        .try_send(2)
        .expect("not noticed before the ring has filled");
    assert_eq!(sender.try_send(3), Err(TrySendError::Closed(3)));
    let (mut sender, mut receiver) = spsc::channel(2);
    sender.try_send(1).expect("room");
    drop(sender);
    assert!(receiver.is_closed());
    assert_eq!(
        (receiver.try_recv(), receiver.try_recv()),
        (Some(1), None),
        "what was sent stays"
    );
}
