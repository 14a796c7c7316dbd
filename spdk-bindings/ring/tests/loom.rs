//! Every interleaving of small programs over the rings, by loom. Capacities are 1 and 2, so that every program wraps.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p spdk_ring --test loom --release` (a target directory of its own spares the
//! rebuilds). Each test says which bug it exists for.
#![cfg(loom)]
#![allow(missing_docs, reason = "a test")]

use loom::sync::atomic::{AtomicBool, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use spdk_ring::mpsc::TrySendError;
use spdk_ring::{Doorbell, mpsc, oneshot, spsc};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Wake, Waker};

/// A bounded search: two preemptions find what these programs can show, and three take minutes.
fn model(preemptions: usize, f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(f);
}

/// What a sender got in: the values that were accepted, in order.
fn send_all(sender: &mpsc::Sender<Arc<u32>>, values: impl IntoIterator<Item = u32>) -> Vec<u32> {
    let mut accepted = Vec::new();
    for value in values {
        if sender.try_send(Arc::new(value)).is_ok() {
            accepted.push(value);
        }
    }
    accepted
}

/// The received values of one sender (tens digit) are what it got in, in its order.
fn assert_fifo(received: &[u32], sender: u32, accepted: &[u32]) {
    let own: Vec<u32> = received
        .iter()
        .copied()
        .filter(|value| value / 10 == sender)
        .collect();
    assert_eq!(own, accepted, "of {received:?}");
}

/// The bug: a slot is written again before the receiver has moved the old value out (a `head` published too early, or
/// `head_seen` read without acquire), or read before it is written. With one slot every second send reuses it, and loom
/// reports the two accesses as a race. Leaked or doubly dropped values show up in loom's count of `Arc`s.
#[test]
fn mpsc_reuses_its_only_slot() {
    model(3, || {
        let (sender, mut receiver) = mpsc::channel(1);
        let other = thread::spawn(move || send_all(&sender, [10, 11, 12]));
        let mut received = Vec::new();
        for _ in 0..3 {
            received.extend(receiver.try_recv().map(|value| *value));
        }
        let accepted = other.join().unwrap();
        received.extend(std::iter::from_fn(|| receiver.try_recv()).map(|value| *value));
        assert_fifo(&received, 1, &accepted);
    });
}

/// The bug: two senders own the same position, or one that lost the race writes all the same; or the second trusts the
/// `head_seen` that the first one stored without having acquired what the receiver released. Positions pass the end of
/// the ring while both are sending, since one of its two slots is used up before.
#[test]
fn mpsc_two_senders_wrap() {
    model(2, || {
        let (sender, mut receiver) = mpsc::channel(2);
        sender.try_send(Arc::new(90)).unwrap();
        let senders: Vec<_> = [1, 2]
            .map(|id| {
                let sender = sender.clone();
                thread::spawn(move || send_all(&sender, [id * 10, id * 10 + 1]))
            })
            .into();
        let mut received = Vec::new();
        receiver.drain(2, |value| received.push(*value));
        receiver.drain(2, |value| received.push(*value));
        let accepted: Vec<_> = senders
            .into_iter()
            .map(|sender| sender.join().unwrap())
            .collect();
        receiver.drain(8, |value| received.push(*value));
        assert_fifo(&received, 1, &accepted[0]);
        assert_fifo(&received, 2, &accepted[1]);
        assert_eq!(received[0], 90);
    });
}

/// The bug: `Full` although there is room, because of a position that is older than the `head` it is compared with. At
/// most one value is ever in the ring of two, so no send may be refused.
#[test]
fn mpsc_full_is_never_said_too_early() {
    model(3, || {
        let (sender, mut receiver) = mpsc::channel(2);
        sender.try_send(1).unwrap();
        assert_eq!(receiver.try_recv(), Some(1));
        let other = {
            let sender = sender.clone();
            thread::spawn(move || sender.try_send(2))
        };
        assert_eq!(sender.try_send(3), Ok(()));
        assert_eq!(other.join().unwrap(), Ok(()));
        let mut received = vec![receiver.try_recv(), receiver.try_recv()];
        received.sort();
        assert_eq!(received, [Some(2), Some(3)]);
    });
}

/// The bug: a send that was accepted while the receiver closed is neither received nor dropped, or a send is accepted
/// after the receiver has seen that it has everything. The exit of a thread rests on this.
#[test]
fn mpsc_close_loses_nothing() {
    model(3, || {
        let (sender, mut receiver) = mpsc::channel(2);
        let other = thread::spawn(move || {
            let first = sender.try_send(Arc::new(10));
            let second = sender.try_send(Arc::new(11));
            if matches!(first, Err(TrySendError::Closed(_))) {
                assert!(
                    matches!(second, Err(TrySendError::Closed(_))),
                    "closed is for good"
                );
            }
            [first, second].into_iter().filter(Result::is_ok).count()
        });
        receiver.close();
        let mut received = receiver.drain(2, drop);
        let complete = receiver.is_empty();
        let accepted = other.join().unwrap();
        if complete {
            assert_eq!(received, accepted, "nothing arrives after closed and empty");
        }
        received += receiver.drain(2, drop);
        assert_eq!(received, accepted);
    });
}

/// The bug: a value that is on its way when the receiver is dropped leaks, or is dropped twice (loom counts `Arc`s).
#[test]
fn mpsc_dropping_the_receiver_drops_the_values() {
    model(3, || {
        let (sender, receiver) = mpsc::channel(2);
        let other = thread::spawn(move || send_all(&sender, [10, 11]));
        drop(receiver);
        other.join().unwrap();
    });
}

/// The bug: the lost wake-up. The receiver arms its flag and looks once more; the sender sends and looks at the flag. If
/// `settle` were a plain load, both could miss each other, and the reactor would sleep on a full mailbox.
#[test]
fn mpsc_settle_and_the_flag_never_miss_each_other() {
    model(3, || {
        let (sender, receiver) = mpsc::channel(1);
        let asleep = Arc::new(AtomicBool::new(false));
        let flag = asleep.clone();
        let other = thread::spawn(move || {
            sender.try_send(7).unwrap();
            flag.load(Ordering::Acquire)
        });
        asleep.swap(true, Ordering::AcqRel);
        let sleeps = receiver.settle();
        let rang = other.join().unwrap();
        assert!(!sleeps || rang, "asleep, and nobody rings");
    });
}

/// The bug: as for the first, with the two sides' private copies of each other's position: a copy that is refreshed
/// without acquire, or a position that is published before the slot is written or read.
#[test]
fn spsc_wraps() {
    model(3, || {
        let (mut sender, mut receiver) = spsc::channel(2);
        let other = thread::spawn(move || {
            let mut accepted = Vec::new();
            for value in [10, 11, 12, 13] {
                if sender.try_send(Arc::new(value)).is_ok() {
                    accepted.push(value);
                }
            }
            accepted
        });
        let mut received = Vec::new();
        for _ in 0..3 {
            receiver.drain(2, |value| received.push(*value));
        }
        let accepted = other.join().unwrap();
        while let Some(value) = receiver.try_recv() {
            received.push(*value);
        }
        assert_eq!(received, accepted);
        assert!(receiver.is_closed());
    });
}

/// The bug: a value that was sent while the receiver went leaks or is dropped twice (loom counts `Arc`s).
#[test]
fn spsc_dropping_the_receiver_drops_the_values() {
    model(3, || {
        let (mut sender, receiver) = spsc::channel(2);
        let other = thread::spawn(move || {
            for value in 0..3 {
                let _ = sender.try_send(Arc::new(value));
            }
        });
        drop(receiver);
        other.join().unwrap();
    });
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

fn flag() -> (std::sync::Arc<Flag>, Waker) {
    let flag = std::sync::Arc::new(Flag(AtomicBool::new(false)));
    (flag.clone(), Waker::from(flag))
}

/// The bug: the receiver goes to wait just as the value comes, and is never woken; or the sender reads a waker that the
/// receiver is replacing. The second poll brings another waker, so that all steps of the exchange are taken.
#[test]
fn oneshot_wakes_whoever_polled_last() {
    model(3, || {
        let (sender, mut receiver) = oneshot::channel();
        let other = thread::spawn(move || sender.send(Arc::new(5)).unwrap());
        let (first, first_waker) = flag();
        let (second, second_waker) = flag();
        let mut result = Pin::new(&mut receiver).poll(&mut Context::from_waker(&first_waker));
        let mut last = first;
        if result.is_pending() {
            result = Pin::new(&mut receiver).poll(&mut Context::from_waker(&second_waker));
            last = second;
        }
        other.join().unwrap();
        if result.is_pending() {
            assert!(
                last.0.load(Ordering::Acquire),
                "the last waker was not woken"
            );
            result = Pin::new(&mut receiver).poll(&mut Context::from_waker(&first_waker));
        }
        assert!(matches!(result, Poll::Ready(Ok(value)) if *value == 5));
    });
}

/// The bug: a sender that gives up leaves its receiver waiting.
#[test]
fn oneshot_wakes_when_the_sender_gives_up() {
    model(3, || {
        let (sender, mut receiver) = oneshot::channel::<u32>();
        let other = thread::spawn(move || drop(sender));
        let (flag, waker) = flag();
        let result = Pin::new(&mut receiver).poll(&mut Context::from_waker(&waker));
        other.join().unwrap();
        match result {
            Poll::Pending => assert!(flag.0.load(Ordering::Acquire), "not woken"),
            Poll::Ready(result) => assert_eq!(result, Err(oneshot::Closed)),
        }
        assert_eq!(receiver.try_recv(), Err(oneshot::Closed));
    });
}

/// The bug: value and receiver pass each other, and the value is dropped by both sides or by neither (loom counts `Arc`s).
#[test]
fn oneshot_value_and_receiver_pass_each_other() {
    model(3, || {
        let (sender, receiver) = oneshot::channel();
        let other = thread::spawn(move || drop(sender.send(Arc::new(5))));
        drop(receiver);
        other.join().unwrap();
    });
}

/// What wakes the sleeper: an eventfd, as epoll reports it edge-triggered.
struct Bell {
    door: Doorbell,
    rung: Mutex<bool>,
    signal: Condvar,
}

impl Bell {
    fn new() -> Bell {
        Bell {
            door: Doorbell::new(),
            rung: Mutex::new(false),
            signal: Condvar::new(),
        }
    }

    fn notify(&self) {
        self.door.notify(|| {
            *self.rung.lock().unwrap() = true;
            self.signal.notify_one();
        });
    }

    /// Sleeps until it is rung; loom reports a deadlock if that never comes.
    fn sleep(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.signal.wait(rung).unwrap();
        }
        *rung = false;
    }
}

/// The bug: the lost wake-up, in the code that reactors run. Two senders, one ring of capacity 1, a receiver that rests whenever
/// it finds nothing: if `Doorbell::rest` looked before it set its flag, or `notify` looked before the value was in place, the
/// receiver would sleep for ever.
#[test]
fn a_resting_receiver_gets_everything_that_is_sent() {
    model(2, || {
        let (sender, mut receiver) = mpsc::channel(2);
        let bell = Arc::new(Bell::new());
        let senders: Vec<_> = (0..2)
            .map(|value| {
                let (sender, bell) = (sender.clone(), bell.clone());
                thread::spawn(move || {
                    sender.try_send(value).unwrap();
                    bell.notify();
                })
            })
            .collect();
        let mut received = 0;
        while received < 2 {
            received += receiver.drain(2, drop);
            if received < 2 {
                bell.door.rest(|| receiver.settle(), || bell.sleep());
                if !receiver.is_empty() && !receiver.has_next() {
                    // A sender is between its two steps.
                    thread::yield_now();
                }
            }
        }
        assert!(!bell.door.is_resting());
        senders
            .into_iter()
            .for_each(|sender| sender.join().unwrap());
    });
}
