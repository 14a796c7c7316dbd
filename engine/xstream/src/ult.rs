//! ULTs with a handle: created anywhere, joined, woken and aborted from anywhere (DAOS `dss_ult_create` with an
//! `ABT_thread`).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use spdk_thread::JoinHandle;

use crate::request::UltId;
use crate::{
    Beat, ExecError, Remote, ServeError, SpawnError, UltRequest, XsType, Xstream, XstreamRef,
    Xstreams, current,
};

/// A ULT seen from anywhere.
#[derive(Clone)]
pub struct UltRef {
    xstream: XstreamRef,
    id: UltId,
    name: &'static str,
}

impl UltRef {
    pub(crate) fn new(xstream: XstreamRef, id: UltId, name: &'static str) -> UltRef {
        UltRef { xstream, id, name }
    }

    /// Where it lives; it never moves.
    pub fn xstream(&self) -> &XstreamRef {
        &self.xstream
    }

    /// Whether the other names the same ULT.
    pub fn is(&self, other: &UltRef) -> bool {
        self.id == other.id
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Ends its sleep; nothing if it does not sleep or has ended. At once on its own xstream, by message elsewhere.
    ///
    /// # Errors
    /// [`SpawnError::Full`] at the mailbox's bound. Of an xstream that has ended there is nothing to wake: no error.
    pub fn wake(&self) -> Result<(), SpawnError> {
        self.tell(false)
    }

    /// Asks it to end, see [`UltRequest::abort`]; nothing if it has ended.
    ///
    /// # Errors
    /// As [`UltRef::wake`].
    pub fn abort(&self) -> Result<(), SpawnError> {
        self.tell(true)
    }

    fn tell(&self, abort: bool) -> Result<(), SpawnError> {
        let id = self.id;
        let say = move |xstream: &Xstream| {
            let control = xstream.inner.requests.borrow().get(&id).cloned();
            match control.and_then(|control| control.upgrade()) {
                Some(control) if abort => control.abort(),
                Some(control) => control.wake(),
                None => {}
            }
        };
        match current() {
            Some(here) if here.id() == self.xstream.id() => say(&here),
            _ => match self.xstream.send(say) {
                Err(spdk_thread::SendError::Full) => {
                    return Err(SpawnError::Full(self.xstream.id()));
                }
                Ok(()) | Err(spdk_thread::SendError::Exited) => {}
            },
        }
        Ok(())
    }
}

impl fmt::Debug for UltRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UltRef({} on {})", self.name, self.xstream.name())
    }
}

/// A ULT and, as a future, its result: awaiting it joins. Dropping it detaches the ULT, which runs on. `Send`: another
/// xstream than the creator's may join.
#[must_use = "await it to join the ULT, or say detach()"]
pub struct Ult<T> {
    address: UltRef,
    result: Remote<T>,
}

impl<T> Ult<T> {
    /// For waking and aborting it.
    pub fn address(&self) -> &UltRef {
        &self.address
    }

    /// As [`UltRef::wake`].
    ///
    /// # Errors
    /// As [`UltRef::wake`].
    pub fn wake(&self) -> Result<(), SpawnError> {
        self.address.wake()
    }

    /// As [`UltRef::abort`].
    ///
    /// # Errors
    /// As [`UltRef::abort`].
    pub fn abort(&self) -> Result<(), SpawnError> {
        self.address.abort()
    }

    /// Lets it run on by itself.
    pub fn detach(self) -> UltRef {
        self.address
    }
}

impl<T: Send + 'static> Future for Ult<T> {
    type Output = Result<T, ExecError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.result).poll(cx)
    }
}

impl XstreamRef {
    /// Creates a named ULT on the xstream. `f` runs there, gets the ULT's request, and makes the future.
    ///
    /// # Errors
    /// As [`XstreamRef::spawn`]; [`SpawnError::Unnamed`]. At the xstream's limit of ULTs the join tells.
    pub fn create<T, F, Fut>(&self, name: &'static str, f: F) -> Result<Ult<T>, SpawnError>
    where
        T: Send + 'static,
        F: FnOnce(&Xstream, UltRequest) -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
    {
        if name.is_empty() {
            return Err(SpawnError::Unnamed);
        }
        let id = UltId::next();
        let result = self.try_execute(name, move |xstream| {
            f(xstream, UltRequest::new(id, name, xstream))
        })?;
        let address = UltRef::new(self.clone(), id, name);
        Ok(Ult { address, result })
    }

    /// Creates a ULT that runs `work` every `period_ns` nanoseconds until it is aborted or its xstream stops; `make`
    /// runs over there and makes `work`. The beat does not drift; after missed beats (a long run, a stuck core)
    /// a new one begins. Such a ULT does not count as busy: it keeps no core from resting. DAOS: `dss_ult_periodic`.
    ///
    /// # Errors
    /// As [`XstreamRef::create`].
    pub fn create_periodic<M, W, Fut>(
        &self,
        name: &'static str,
        period_ns: u64,
        make: M,
    ) -> Result<Ult<()>, SpawnError>
    where
        M: FnOnce(&Xstream) -> W + Send + 'static,
        W: FnMut(&UltRequest) -> Fut + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        self.create(name, move |xstream, request| {
            let work = make(xstream);
            spdk_thread::quiet(every(period_ns, request, work))
        })
    }
}

impl Xstream {
    /// Creates a named ULT here, with its request, see [`XstreamRef::create`].
    ///
    /// # Errors
    /// As [`Xstream::spawn`]; [`SpawnError::Unnamed`].
    pub fn create<T: 'static, Fut: Future<Output = T> + 'static>(
        &self,
        name: &'static str,
        f: impl FnOnce(UltRequest) -> Fut,
    ) -> Result<(JoinHandle<T>, UltRequest), SpawnError> {
        if name.is_empty() {
            return Err(SpawnError::Unnamed);
        }
        let request = UltRequest::new(UltId::next(), name, self);
        let ult = self.spawn(name, f(request.clone()))?;
        Ok((ult, request))
    }

    /// Creates a detached ULT here, as code of a main xstream or of the system xstream does that must not wait
    /// (DAOS: `dss_main_exec`, which asserts where this is an error).
    ///
    /// # Errors
    /// As [`Xstream::spawn`]; [`ServeError::NoCaller`] on an offload xstream.
    pub fn main_exec(
        &self,
        name: &'static str,
        work: impl Future<Output = ()> + 'static,
    ) -> Result<(), SpawnError> {
        if self.role() == crate::Role::Offload {
            return Err(ServeError::NoCaller.into());
        }
        self.spawn(name, work).map(JoinHandle::detach)
    }
}

impl Xstreams {
    /// Creates a named ULT where that kind of work is done, see [`XstreamRef::create`]. DAOS: `dss_ult_create`.
    ///
    /// # Errors
    /// As [`XstreamRef::create`], and [`ServeError`].
    pub fn create_on<T, F, Fut>(
        &self,
        kind: XsType,
        target: Option<u32>,
        name: &'static str,
        f: F,
    ) -> Result<Ult<T>, SpawnError>
    where
        T: Send + 'static,
        F: FnOnce(&Xstream, UltRequest) -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
    {
        self.serves(kind, target)?.create(name, f)
    }
}

/// The loop of a periodic ULT.
async fn every<W, Fut>(period_ns: u64, request: UltRequest, mut work: W)
where
    W: FnMut(&UltRequest) -> Fut,
    Fut: Future<Output = ()>,
{
    let mut beat = Beat::new(period_ns);
    let mut goes_on = !request.must_stop();
    while goes_on {
        work(&request).await;
        goes_on = beat.wait(&request).await;
    }
}
