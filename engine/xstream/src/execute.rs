//! Work on another xstream, waited for: DAOS's `dss_ult_execute` and `dss_offload_exec`, as a future.

use std::future::Future;
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll};
use std::time::Duration;

use spdk_ring::oneshot;

use crate::{ExecError, SpawnError, Xstream, XstreamId, XstreamRef, current};

/// The result of work on another xstream: a future for tasks of any xstream. The work was sent when this was made;
/// dropping it lets the work run on and drops its result.
#[must_use = "await it, or use spawn for work whose result nobody needs"]
pub struct Remote<T> {
    state: State<T>,
    name: &'static str,
    xstream: XstreamId,
}

enum State<T> {
    Refused(Option<SpawnError>),
    Sent(oneshot::Receiver<T>),
}

impl<T: Send + 'static> Remote<T> {
    pub(crate) fn refused(name: &'static str, xstream: XstreamId, error: SpawnError) -> Remote<T> {
        Remote {
            state: State::Refused(Some(error)),
            name,
            xstream,
        }
    }
}

impl<T: Send + 'static> Future for Remote<T> {
    type Output = Result<T, ExecError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let ended = ExecError::Ended {
            name: self.name,
            xstream: self.xstream,
        };
        match &mut self.state {
            State::Refused(error) => Poll::Ready(Err(error.take().map_or(ended, ExecError::Spawn))),
            State::Sent(receiver) => Pin::new(receiver).poll(cx).map_err(|oneshot::Closed| ended),
        }
    }
}

impl XstreamRef {
    /// Runs a ULT on the xstream and gives its result to whoever awaits. `f` runs there and makes the future. Errors
    /// come out of the future.
    pub fn execute<T, F, Fut>(&self, name: &'static str, f: F) -> Remote<T>
    where
        T: Send + 'static,
        F: FnOnce(&Xstream) -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
    {
        self.try_execute(name, f)
            .unwrap_or_else(|error| Remote::refused(name, self.id(), error))
    }

    /// The same for whoever wants to know at once that it was refused.
    pub(crate) fn try_execute<T, F, Fut>(
        &self,
        name: &'static str,
        f: F,
    ) -> Result<Remote<T>, SpawnError>
    where
        T: Send + 'static,
        F: FnOnce(&Xstream) -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        self.spawn(name, move |xstream| {
            let work = f(xstream);
            async move { drop(sender.send(work.await)) }
        })?;
        Ok(Remote {
            state: State::Sent(receiver),
            name,
            xstream: self.id(),
        })
    }

    /// Runs a ULT on the xstream and, after it, `done` with its result, in the same ULT over there; does not wait. DAOS:
    /// `dss_ult_execute` with a call-back.
    ///
    /// # Errors
    /// As [`XstreamRef::spawn`]; `done` is not called then, and not when the ULT panics.
    pub fn execute_then<T, F, Fut>(
        &self,
        name: &'static str,
        f: F,
        done: impl FnOnce(T) + Send + 'static,
    ) -> Result<(), SpawnError>
    where
        T: 'static,
        F: FnOnce(&Xstream) -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
    {
        self.spawn(name, move |xstream| {
            let work = f(xstream);
            async move { done(work.await) }
        })
    }

    /// The same from a control thread (the main thread, the metrics port, tests), which it blocks.
    ///
    /// # Errors
    /// As [`ExecError`]; on an xstream it refuses.
    pub fn execute_blocking<T, F, Fut>(
        &self,
        name: &'static str,
        wait: Duration,
        f: F,
    ) -> Result<T, ExecError>
    where
        T: Send + 'static,
        F: FnOnce(&Xstream) -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
    {
        if current().is_some() {
            return Err(ExecError::WouldBlock { name });
        }
        let (sender, receiver) = mpsc::sync_channel(1);
        self.spawn(name, move |xstream| {
            let work = f(xstream);
            async move { drop(sender.try_send(work.await)) }
        })?;
        receiver.recv_timeout(wait).map_err(|error| match error {
            mpsc::RecvTimeoutError::Timeout => ExecError::TimedOut {
                name,
                xstream: self.id(),
            },
            mpsc::RecvTimeoutError::Disconnected => ExecError::Ended {
                name,
                xstream: self.id(),
            },
        })
    }
}

impl XstreamRef {
    /// Runs `f` once, to its end, as a message: no ULT, so it works at the ULT limit and while the engine stops.
    /// DAOS: a tasklet.
    pub fn call<T, F>(&self, name: &'static str, f: F) -> Remote<T>
    where
        T: Send + 'static,
        F: FnOnce(&Xstream) -> T + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        match self.send(move |xstream| drop(sender.send(f(xstream)))) {
            Ok(()) => Remote {
                state: State::Sent(receiver),
                name,
                xstream: self.id(),
            },
            Err(error) => Remote::refused(name, self.id(), self.refused(error)),
        }
    }

    /// The same from a control thread, which it blocks.
    ///
    /// # Errors
    /// As [`ExecError`]; on an xstream it refuses.
    pub fn call_blocking<T, F>(
        &self,
        name: &'static str,
        wait: Duration,
        f: F,
    ) -> Result<T, ExecError>
    where
        T: Send + 'static,
        F: FnOnce(&Xstream) -> T + Send + 'static,
    {
        if current().is_some() {
            return Err(ExecError::WouldBlock { name });
        }
        let answer = self.call_later(f)?;
        answer.recv_timeout(wait).map_err(|error| match error {
            mpsc::RecvTimeoutError::Timeout => ExecError::TimedOut {
                name,
                xstream: self.id(),
            },
            mpsc::RecvTimeoutError::Disconnected => ExecError::Ended {
                name,
                xstream: self.id(),
            },
        })
    }

    /// Sends `f`; its result comes out of the channel.
    pub(crate) fn call_later<T, F>(&self, f: F) -> Result<mpsc::Receiver<T>, SpawnError>
    where
        T: Send + 'static,
        F: FnOnce(&Xstream) -> T + Send + 'static,
    {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.send(move |xstream| drop(sender.try_send(f(xstream))))
            .map_err(|error| self.refused(error))?;
        Ok(receiver)
    }
}
