//! The harness's end of the agent's channel: numbers calls, hands replies to those who wait.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use test_vm_agent::{Reply, Request};

/// Most bytes kept of each output of a program; a log file gets all of them.
const KEPT: usize = 32 << 20;

/// A connection to a running agent.
pub(crate) struct Agent {
    out: Mutex<UnixStream>,
    calls: Arc<Mutex<Calls>>,
    next: AtomicU32,
}

#[derive(Default)]
struct Calls {
    open: HashMap<u32, Arc<Call>>,
    /// The channel has ended, and with it the VM.
    gone: bool,
}

/// A call under way, as far as its replies have come.
#[derive(Default)]
pub(crate) struct Call {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) pid: Option<u32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    /// The last reply; `Err`: refused by the agent, or the VM is gone.
    pub(crate) end: Option<Result<Reply, String>>,
    log: Option<File>,
}

impl Agent {
    /// Waits until the guest is up. Gives the agent and the guest's kernel version.
    pub(crate) fn greet(mut stream: UnixStream, longest: Duration) -> Result<(Agent, String)> {
        stream.set_read_timeout(Some(longest))?;
        let hello = test_vm_agent::read::<Reply>(&mut stream);
        let kernel = match hello.context("the guest does not come up")? {
            Some((0, Reply::Hello { kernel }, _)) => kernel,
            Some(other) => bail!("the agent begins with {other:?}"),
            None => bail!("the guest ended before it was up"),
        };
        stream.set_read_timeout(None)?;
        let calls = Arc::new(Mutex::new(Calls::default()));
        let agent = Agent {
            out: Mutex::new(stream.try_clone()?),
            calls: calls.clone(),
            next: AtomicU32::new(1),
        };
        thread::spawn(move || listen(stream, &calls));
        Ok((agent, kernel))
    }

    /// Sends a request; what comes back is in the call. `log` gets the outputs of a program as they come.
    pub(crate) fn call(
        &self,
        request: &Request,
        data: &[u8],
        log: Option<File>,
    ) -> Result<(u32, Arc<Call>)> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let call = Arc::new(Call::default());
        call.lock().log = log;
        let mut calls = lock(&self.calls);
        if calls.gone {
            bail!("the VM is gone");
        }
        calls.open.insert(number, call.clone());
        drop(calls);
        self.send(number, request, data)?;
        Ok((number, call))
    }

    /// Sends a request that has no reply of its own.
    pub(crate) fn send(&self, number: u32, request: &Request, data: &[u8]) -> Result<()> {
        let mut out = lock(&self.out);
        test_vm_agent::write(&mut *out, number, request, data).context("the VM is gone")
    }
}

fn listen(mut stream: UnixStream, calls: &Mutex<Calls>) {
    while let Ok(Some((number, reply, data))) = test_vm_agent::read::<Reply>(&mut stream) {
        let call = lock(calls).open.get(&number).cloned();
        let Some(call) = call else { continue };
        let is_last = call.take(reply, data);
        if is_last {
            lock(calls).open.remove(&number);
        }
    }
    let mut calls = lock(calls);
    calls.gone = true;
    for (_, call) in calls.open.drain() {
        call.lock().end = Some(Err("the VM is gone".into()));
        call.changed.notify_all();
    }
}

impl Call {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Waits until `look` finds something, or the call has ended and `look` finds nothing, or the time is over: then `None`.
    pub(crate) fn wait<T>(
        &self,
        longest: Duration,
        mut look: impl FnMut(&mut State) -> Option<T>,
    ) -> Option<T> {
        let deadline = Instant::now() + longest;
        let mut state = self.lock();
        loop {
            if let Some(found) = look(&mut state) {
                return Some(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.end.is_some() || left.is_zero() {
                return None;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for the last reply.
    pub(crate) fn end(&self, what: &str, longest: Duration) -> Result<Reply> {
        match self.wait(longest, |state| state.end.clone()) {
            Some(Ok(reply)) => Ok(reply),
            Some(Err(why)) => bail!("{what}: {why}"),
            None => bail!("{what}: not within {longest:?}"),
        }
    }

    /// Whether this was the last reply.
    fn take(&self, reply: Reply, data: Vec<u8>) -> bool {
        let mut state = self.lock();
        match reply {
            Reply::Started { pid } => state.pid = Some(pid),
            Reply::Stdout | Reply::Stderr => {
                if let Some(log) = &mut state.log {
                    // A full disk must not hide what the test found.
                    let _ = log.write_all(&data);
                }
                let kept = match reply {
                    Reply::Stdout => &mut state.stdout,
                    _ => &mut state.stderr,
                };
                let room = KEPT.saturating_sub(kept.len()).min(data.len());
                kept.extend_from_slice(&data[..room]);
            }
            Reply::Failed { why } => state.end = Some(Err(why)),
            Reply::Data => {
                state.stdout = data;
                state.end = Some(Ok(Reply::Data));
            }
            end => state.end = Some(Ok(end)),
        }
        self.changed.notify_all();
        state.end.is_some()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
