//! Every interleaving of small programs over a thread that rests, by loom: messages, wake-ups of tasks, descriptors and exit,
//! against the same turn, the same last look and the same doorbell that reactors use. Only what the kernel does is a model:
//! the eventfd is a condition variable, a watched descriptor a flag.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p spdk_thread --test loom` (in a target directory of its own).
#![cfg(loom)]
#![allow(missing_docs, reason = "a test")]

use loom::sync::{Condvar, Mutex};
use loom::thread;
use spdk_ring::Doorbell;
use spdk_thread::sync::remote_oneshot;
use spdk_thread::{Interest, Thread, ThreadOptions, Wake};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

fn model(preemptions: usize, f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(f);
}

/// What epoll would see.
#[derive(Default)]
struct Kernel {
    doorbell: bool,
    /// The descriptor is readable.
    readable: bool,
    /// The descriptor is registered with epoll.
    watched: bool,
}

struct Sleeper {
    door: Doorbell,
    kernel: Mutex<Kernel>,
    event: Condvar,
}

impl Wake for Sleeper {
    fn wake(&self) {
        self.door.notify(|| {
            self.kernel.lock().unwrap().doorbell = true;
            self.event.notify_one();
        });
    }
}

impl Sleeper {
    fn new() -> Arc<Sleeper> {
        Arc::new(Sleeper {
            door: Doorbell::new(),
            kernel: Mutex::new(Kernel::default()),
            event: Condvar::new(),
        })
    }

    /// The descriptor becomes readable.
    fn make_readable(&self) {
        self.kernel.lock().unwrap().readable = true;
        self.event.notify_one();
    }

    /// `epoll_wait` without a bound; loom reports a deadlock if nothing ever ends it. Whether the descriptor did.
    fn sleep(&self) -> bool {
        let mut kernel = self.kernel.lock().unwrap();
        loop {
            let readable = kernel.readable && kernel.watched;
            if std::mem::take(&mut kernel.doorbell) || readable {
                return readable;
            }
            kernel = self.event.wait(kernel).unwrap();
        }
    }

    fn thread(self: &Arc<Self>) -> Thread {
        let options = ThreadOptions {
            mailbox: 2,
            max_tasks: 4,
            wake: Some(self.clone()),
            ..ThreadOptions::default()
        };
        Thread::new("modelled", options)
    }

    /// A reactor's loop that goes to sleep whenever nothing is to be done.
    fn run(&self, thread: &Thread, is_done: impl Fn() -> bool) {
        let mut watch = 0;
        while !is_done() {
            let busy = thread.poll(1).is_busy();
            thread.drain_fd_changes(|change| {
                watch = change.id;
                self.kernel.lock().unwrap().watched = !change.closed && change.interest.readable;
            });
            if is_done() {
                return;
            }
            if busy {
                continue;
            }
            if thread.has_ready_work() {
                thread::yield_now();
                continue;
            }
            match self.door.rest(|| thread.settle(), || self.sleep()) {
                Some(true) => {
                    let readable = Interest {
                        readable: true,
                        writable: false,
                    };
                    thread.fd_ready(watch, readable);
                }
                Some(false) => {}
                // Somebody is between the two steps of bringing work: only the last look sees the first one.
                None => thread::yield_now(),
            }
        }
    }
}

/// The bug: a message or the wake-up of a task that comes while the reactor decides to sleep is not seen, and nobody rings.
#[test]
fn a_message_and_a_wake_up_find_a_thread_that_goes_to_sleep() {
    model(2, || {
        let sleeper = Sleeper::new();
        let thread = sleeper.thread();
        let handle = thread.handle();
        let (sender, receiver) = remote_oneshot::channel::<u32>();
        let woken = Rc::new(Cell::new(false));
        let flag = woken.clone();
        let task = thread
            .spawn("waits", async move {
                assert_eq!(receiver.await, Ok(7));
                flag.set(true);
            })
            .expect("room");
        let told = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let tells = told.clone();
        let teller = thread::spawn(move || {
            let sent =
                handle.send(move |_| tells.store(true, std::sync::atomic::Ordering::Relaxed));
            sent.expect("room");
        });
        let waker = thread::spawn(move || sender.send(7).expect("awaited"));
        sleeper.run(&thread, || {
            woken.get() && told.load(std::sync::atomic::Ordering::Relaxed)
        });
        teller.join().unwrap();
        waker.join().unwrap();
        drop(task);
    });
}

/// The bug: a thread that is asked to exit while it goes to sleep never exits; or a message that was accepted is lost at the exit.
#[test]
fn exit_finds_a_thread_that_goes_to_sleep_and_loses_no_message() {
    model(2, || {
        let sleeper = Sleeper::new();
        let thread = sleeper.thread();
        let (asks, sends) = (thread.handle(), thread.handle());
        let asker = thread::spawn(move || asks.send(Thread::request_exit).expect("room"));
        let ran = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let runs = ran.clone();
        let other = thread::spawn(move || {
            sends
                .send(move |_| runs.store(true, std::sync::atomic::Ordering::Relaxed))
                .is_ok()
        });
        sleeper.run(&thread, || thread.is_exited());
        asker.join().unwrap();
        let accepted = other.join().unwrap();
        assert_eq!(accepted, ran.load(std::sync::atomic::Ordering::Relaxed));
    });
}

/// The bug: a descriptor that becomes readable while its watch is being registered is not seen; or a doorbell that rings beside it
/// swallows it.
#[test]
fn a_descriptor_and_a_message_find_a_thread_that_goes_to_sleep() {
    model(2, || {
        let sleeper = Sleeper::new();
        let thread = sleeper.thread();
        let handle = thread.handle();
        let token = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC);
        let fd = Rc::new(token.expect("a descriptor"));
        let here = thread.clone();
        let seen = Rc::new(Cell::new(false));
        let flag = seen.clone();
        let task = thread
            .spawn("reads", async move {
                let interest = Interest {
                    readable: true,
                    writable: false,
                };
                let watch = here.watch_fd(fd, interest);
                watch.readable().await;
                flag.set(true);
            })
            .expect("room");
        let kernel = sleeper.clone();
        let driver = thread::spawn(move || kernel.make_readable());
        let told = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let tells = told.clone();
        let teller = thread::spawn(move || {
            let sent =
                handle.send(move |_| tells.store(true, std::sync::atomic::Ordering::Relaxed));
            sent.expect("room");
        });
        sleeper.run(&thread, || {
            seen.get() && told.load(std::sync::atomic::Ordering::Relaxed)
        });
        driver.join().unwrap();
        teller.join().unwrap();
        drop(task);
    });
}
