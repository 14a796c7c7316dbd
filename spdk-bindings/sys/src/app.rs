//! SPDK's app thread: an OS thread of its own that starts everything, looks after subsystems and open devices, and ends everything.
#![allow(unsafe_code, reason = "starts and stops subsystems")]
//! - **A1** the argument of a step is a `Cell` on this OS thread's stack, and the function that gave it waits for the answer.

use core::cell::Cell;
use core::ffi::{c_int, c_void};
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};

use crate::env::{self, Env, Options};
use crate::error::{StartError, errno, text};
use crate::thread::{Address, Thread};
use crate::{ffi, log};

/// Something to do on the app thread.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// Between turns that found nothing: what happens here is the control path, and the shortest period of SPDK's own timed pollers here (a
/// controller's admin queue) is 10 ms.
const REST: Duration = Duration::from_millis(1);
/// Jobs that may wait.
const JOBS: usize = 1024;

pub(crate) struct App {
    address: Address<Job>,
    thread: std::thread::Thread,
    /// It waits for messages, not for an unpark.
    interrupt_mode: bool,
}

impl App {
    /// Makes it look for orders now.
    pub(crate) fn wake(&self) {
        if self.interrupt_mode {
            // With 1,024 in it already it is awake.
            let _ = self.address.send(Box::new(|| ()));
        } else {
            self.thread.unpark();
        }
    }

    /// Runs `job` on the app thread soon. It comes back when the thread is gone or 1,024 jobs wait.
    pub(crate) fn send(&self, job: Job) -> Result<(), Job> {
        let sent = self.address.send(job);
        self.thread.unpark();
        sent.map_err(|error| match error {
            crate::SendError::Full(job) | crate::SendError::Gone(job) => job,
        })
    }
}

/// What takes several turns of the app thread, and therefore runs between them.
pub(crate) enum Order {
    /// Run the methods of a JSON configuration.
    Load(String, Sender<Result<(), StartError>>),
    /// Stop all subsystems and end.
    Stop,
}

pub(crate) struct Started {
    pub(crate) app: App,
    pub(crate) env: Arc<Env>,
    pub(crate) running: JoinHandle<()>,
    pub(crate) orders: Sender<Order>,
}

/// Starts SPDK on a new OS thread, and waits.
pub(crate) fn start(options: &Options) -> Result<Started, StartError> {
    let (tell, told) = channel();
    let (orders, ordered) = channel();
    let options = options.clone();
    let running = std::thread::Builder::new()
        .name("spdk_app".to_owned())
        .spawn(move || {
            let (env, thread) = match bring_up(&options) {
                Ok(up) => up,
                Err(error) => {
                    let _ = tell.send(Err(error));
                    return;
                }
            };
            let app = App {
                address: thread.address(),
                thread: std::thread::current(),
                interrupt_mode: options.interrupt_mode,
            };
            let _ = tell.send(Ok((app, env)));
            serve(&thread, &ordered);
            take_down(&thread);
        })
        .map_err(StartError::Threads)?;
    match told.recv() {
        Ok(Ok((app, env))) => Ok(Started {
            app,
            env,
            running,
            orders,
        }),
        Ok(Err(error)) => {
            let _ = running.join();
            Err(error)
        }
        Err(_) => Err(StartError::Threads(std::io::Error::other(
            "its OS thread died",
        ))),
    }
}

fn bring_up(options: &Options) -> Result<(Arc<Env>, Thread<Job>), StartError> {
    let env = Arc::new(Env::start(options)?);
    // The first of all: SPDK takes it for its app thread.
    let (_, seed) = Thread::create_in(&env, None, "app", JOBS)?;
    let thread = seed.start();
    let json = options.json.as_bytes();
    let answer = step(&thread, |arg| {
        // SAFETY: the app thread is current; the JSON is copied; A1.
        unsafe { ffi::ks_subsystems_start(json.as_ptr().cast(), json.len(), stepped, arg) }
    });
    let answer = answer.and_then(|()| listen(&thread, options.rpc_socket.as_deref()));
    if let Err(error) = answer {
        take_down(&thread);
        return Err(error);
    }
    Ok((env, thread))
}

fn listen(thread: &Thread<Job>, socket: Option<&str>) -> Result<(), StartError> {
    let Some(socket) = socket else {
        return Ok(());
    };
    let path = CString::new(socket)
        .map_err(|_| StartError::Option(format!("the socket {socket:?} has a zero byte in it")))?;
    log::begin();
    // SAFETY: the app thread is current; the path is copied.
    let rc = thread.with(|| unsafe { ffi::ks_rpc_open(path.as_ptr()) });
    let said = log::end();
    if rc == 0 {
        return Ok(());
    }
    let (socket, why) = (socket.to_owned(), errno(rc));
    Err(StartError::Rpc { socket, why, said })
}

/// Turns the thread until it is told to stop, or nobody is left to tell it.
fn serve(thread: &Thread<Job>, orders: &Receiver<Order>) {
    let interrupts = thread.interrupt_fd();
    loop {
        match orders.try_recv() {
            Ok(Order::Load(json, reply)) => {
                let loaded = step(thread, |arg| {
                    // SAFETY: as in `bring_up`.
                    unsafe { ffi::ks_config_load(json.as_ptr().cast(), json.len(), stepped, arg) }
                });
                // Whoever asked may have given up.
                let _ = reply.send(loaded);
            }
            Err(TryRecvError::Empty) => {
                if !thread.poll(0, |job| job()).busy {
                    rest(interrupts.as_ref());
                }
            }
            Ok(Order::Stop) | Err(TryRecvError::Disconnected) => return,
        }
    }
}

/// Until something is to be done, or for a while.
fn rest(interrupts: Option<&OwnedFd>) {
    let Some(fd) = interrupts else {
        return std::thread::park_timeout(REST);
    };
    // Interrupted by a signal: then there is one turn more.
    let _ = rustix::event::poll(&mut [PollFd::new(fd, PollFlags::IN)], None);
}

type Answer = Cell<Option<(c_int, c_int)>>;

unsafe extern "C" fn stepped(rc: c_int, step: c_int, answer: *mut c_void) {
    // SAFETY: A1.
    unsafe { &*answer.cast_const().cast::<Answer>() }.set(Some((rc, step)));
}

unsafe extern "C" fn ended(answer: *mut c_void) {
    // SAFETY: A1.
    unsafe { &*answer.cast_const().cast::<Answer>() }.set(Some((0, 0)));
}

/// Begins something and turns the thread until it is done.
fn step(thread: &Thread<Job>, begin: impl FnOnce(*mut c_void) -> c_int) -> Result<(), StartError> {
    let answer = Answer::new(None);
    log::begin();
    let rc = thread.with(|| begin((&raw const answer).cast_mut().cast()));
    if rc < 0 {
        answer.set(Some((rc, 3)));
    }
    let (rc, step) = loop {
        if let Some(answer) = answer.get() {
            break answer;
        }
        if !thread.poll(0, |job| job()).busy {
            std::thread::park_timeout(Duration::from_micros(100));
        }
    };
    let said = log::end();
    if rc == 0 {
        return Ok(());
    }
    let step = match step {
        1 => "JSON configuration (its form, or what has to come before the subsystems' start)",
        2 => {
            env::spoil();
            "start of its subsystems (is there enough memory?)"
        }
        _ => "JSON configuration",
    };
    let why = text(rc);
    Err(StartError::Config { step, why, said })
}

fn take_down(thread: &Thread<Job>) {
    let answer = Answer::new(None);
    // SAFETY: the app thread is current; A1.
    thread.with(|| unsafe {
        ffi::ks_rpc_close();
        ffi::ks_subsystems_stop(ended, (&raw const answer).cast_mut().cast());
    });
    while answer.get().is_none() {
        if !thread.poll(0, |job| job()).busy {
            std::thread::park_timeout(Duration::from_micros(100));
        }
    }
    // What SPDK has sent itself meanwhile.
    while thread.poll(0, |job| job()).busy {}
}
