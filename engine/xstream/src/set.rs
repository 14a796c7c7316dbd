//! All xstreams of an engine: who is who, and who does what.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::{
    ExecError, Layout, Remote, Role, ServeError, SpawnError, XsType, Xstream, XstreamId,
    XstreamRef, current,
};

struct Shared {
    layout: Layout,
    by_id: Vec<XstreamRef>,
    offload: Vec<XstreamId>,
    /// Spreads work over equal helpers.
    turn: AtomicU32,
    pub(crate) shutting_down: AtomicBool,
}

/// The xstreams, by id, role, target and tag. Clones share one table; any thread.
#[derive(Clone)]
pub struct Xstreams {
    shared: Arc<Shared>,
}

impl Xstreams {
    /// `by_id`: in id order, one for each of the layout's.
    pub(crate) fn new(layout: Layout, by_id: Vec<XstreamRef>) -> Xstreams {
        let offload = by_id
            .iter()
            .filter(|xs| xs.role() == Role::Offload)
            .map(XstreamRef::id)
            .collect();
        let (turn, shutting_down) = (AtomicU32::new(0), AtomicBool::new(false));
        Xstreams {
            shared: Arc::new(Shared {
                layout,
                by_id,
                offload,
                turn,
                shutting_down,
            }),
        }
    }

    /// The table that they were started from.
    pub fn layout(&self) -> &Layout {
        &self.shared.layout
    }

    /// How many targets there are.
    pub fn targets(&self) -> u32 {
        self.shared.layout.targets()
    }

    /// All, by id.
    pub fn all(&self) -> &[XstreamRef] {
        &self.shared.by_id
    }

    /// One by its id.
    pub fn get(&self, id: XstreamId) -> Option<&XstreamRef> {
        self.shared.by_id.get(id.0 as usize)
    }

    /// The system xstream.
    pub fn system(&self) -> &XstreamRef {
        &self.shared.by_id[0]
    }

    /// The main xstream of a target.
    pub fn main(&self, target: u32) -> Option<&XstreamRef> {
        self.get(self.shared.layout.main_of(target)?)
    }

    /// The offload xstreams, counted from 0.
    pub fn offload(&self, index: usize) -> Option<&XstreamRef> {
        self.get(*self.shared.offload.get(index)?)
    }

    /// The xstream behind an RPC tag: 0 system, 1 + t the main of target t.
    pub fn by_tag(&self, tag: u32) -> Option<&XstreamRef> {
        self.get(self.shared.layout.by_tag(tag)?)
    }

    /// The xstream that does this kind of work for that target.
    ///
    /// # Errors
    /// As [`Layout::serves`].
    pub fn serves(&self, kind: XsType, target: Option<u32>) -> Result<&XstreamRef, ServeError> {
        let turn = self.shared.turn.fetch_add(1, Ordering::Relaxed);
        let caller = current().map(|xstream| xstream.id());
        let id = self.shared.layout.serves(kind, target, caller, turn)?;
        self.get(id).ok_or(ServeError::NoCaller)
    }

    /// Creates a ULT where that kind of work is done. DAOS: `dss_ult_create`.
    ///
    /// # Errors
    /// As [`XstreamRef::spawn`], and [`ServeError`].
    pub fn spawn_on<F, Fut>(
        &self,
        kind: XsType,
        target: Option<u32>,
        name: &'static str,
        f: F,
    ) -> Result<(), SpawnError>
    where
        F: FnOnce(&Xstream) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        self.serves(kind, target)?.spawn(name, f)
    }

    /// Runs work where that kind is done and waits for its result. DAOS: `dss_ult_execute`.
    pub fn execute_on<T, F, Fut>(
        &self,
        kind: XsType,
        target: Option<u32>,
        name: &'static str,
        f: F,
    ) -> Remote<T>
    where
        T: Send + 'static,
        F: FnOnce(&Xstream) -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
    {
        match self.serves(kind, target) {
            Ok(xstream) => xstream.execute(name, f),
            Err(error) => Remote::refused(name, XstreamId(u32::MAX), error.into()),
        }
    }

    /// Runs work on the helper of the calling main xstream and waits for its result. DAOS: `dss_offload_exec`, which
    /// asserts where this is an error: only a main xstream has work to offload.
    ///
    /// # Errors
    /// [`ServeError::NoCaller`] from anything but a main xstream; as [`ExecError`].
    pub async fn offload_exec<T, F, Fut>(&self, name: &'static str, f: F) -> Result<T, ExecError>
    where
        T: Send + 'static,
        F: FnOnce(&Xstream) -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
    {
        let caller = current().filter(|xstream| xstream.role() == Role::Main);
        let target = caller
            .and_then(|xstream| xstream.target())
            .ok_or(SpawnError::from(ServeError::NoCaller))?;
        self.execute_on(XsType::Offload, Some(target), name, f)
            .await
    }

    /// Whether the engine shuts down (DAOS: `dss_srv_shutting_down()`). Each xstream also knows it for itself.
    pub fn is_shutting_down(&self) -> bool {
        self.shared.shutting_down.load(Ordering::Acquire)
    }

    /// Says so to everybody; [`XstreamRef::is_shutting_down`] follows on each xstream in its next turn.
    pub(crate) fn mark_shutting_down(&self) {
        self.shared.shutting_down.store(true, Ordering::Release);
    }
}

impl fmt::Debug for Xstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all()).finish()
    }
}
