//! The handle on an engine's incast variables.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use daos_errno::Der;
use engine_iv::{
    Cache, Change, Class, Failure, How, Key, NsId, Rank, Shortcut, Stamp, Value, Version,
};
use engine_rpc::{Membership, RegisterError, Registry};
use engine_tls::{KeyRegistry, Tags, TlsError, TypedKey};
use engine_xstream::{ExecError, SpawnError, Xstream, XstreamRef, Xstreams};
use spdk_thread::JoinHandle;

use crate::inspect::{Space, Trace};
use crate::look;
use crate::peers;
use crate::service::{Service, Start};

/// For the system xstream to hear of start and stop.
const CONTROL: Duration = Duration::from_secs(5);

/// Bounds beside those of the machine.
#[derive(Clone, Debug)]
pub struct Options {
    /// The machine's.
    pub machine: engine_iv::Options,
    /// Variables that one xstream keeps; further ones are fetched each time.
    pub max_cached: usize,
    /// Questions of other ranks that wait for their answers; one more hears that this rank is busy.
    pub max_questions: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            machine: engine_iv::Options::default(),
            max_cached: 65_536,
            max_questions: 8192,
        }
    }
}

/// Who shares a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The xstreams of this engine.
    Engine,
    /// All engines of the group; the one that membership names is the root. The same as `Engine` for an engine that is alone.
    Group,
}

/// A value of each xstream.
pub(crate) struct Local {
    pub(crate) cache: Cache,
    /// On the system xstream, while the service runs.
    service: RefCell<Option<Rc<Service>>>,
}

impl Local {
    pub(crate) fn service(&self) -> Option<Rc<Service>> {
        self.service.borrow().clone()
    }
}

/// What another rank says, or will.
enum Asked {
    Known(Result<Trace, Der>),
    Later(JoinHandle<Result<Trace, Der>>),
}

type Classes = Vec<(u32, Box<dyn Class + Send>)>;

/// The incast variables of one engine. A handle: clones are the same; any thread may have one, operations are for tasks of its xstreams.
#[derive(Clone)]
pub struct Incast {
    key: TypedKey<Local>,
    shared: Arc<Shared>,
}

struct Shared {
    options: Options,
    system: OnceLock<XstreamRef>,
    names: Mutex<BTreeMap<u32, String>>,
    /// Registered before the start.
    early: Mutex<Classes>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Lists that are added to in one step: a panic elsewhere leaves them whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Incast {
    /// Gives every xstream that starts from now on a cache.
    ///
    /// # Errors
    /// When no key is left.
    pub fn register_keys(keys: &KeyRegistry, options: Options) -> Result<Incast, TlsError> {
        let most = options.max_cached;
        let key = keys.register_typed("iv", Tags::SERVER, move |_| {
            Some(Local {
                cache: Cache::new(most),
                service: RefCell::default(),
            })
        })?;
        Ok(Incast {
            key,
            shared: Arc::new(Shared {
                options,
                system: OnceLock::new(),
                names: Mutex::default(),
                early: Mutex::default(),
            }),
        })
    }

    /// Lets other ranks' questions be answered.
    ///
    /// # Errors
    /// When they are already.
    pub fn serve(&self, registry: &Registry) -> Result<(), RegisterError> {
        peers::register(registry, self.key)
    }

    /// Registers a class under its id; `name` is for operators. In each engine of a group, before the first operation on it.
    ///
    /// # Errors
    /// EXIST: the id is taken. BUSY, SHUTDOWN: the system xstream does not hear of it.
    pub fn register(&self, id: u32, name: &str, class: Box<dyn Class + Send>) -> Result<(), Der> {
        let mut names = locked(&self.shared.names);
        if names.contains_key(&id) {
            return Err(Der::EXIST);
        }
        let Some(system) = self.shared.system.get() else {
            locked(&self.shared.early).push((id, class));
            names.insert(id, name.to_owned());
            return Ok(());
        };
        let key = self.key;
        let sent = system.send(move |xstream| {
            if let Some(service) = key.get(xstream.tls()).and_then(Local::service) {
                service.register(id, class);
            }
        });
        sent.map_err(|error| match error {
            spdk_thread::SendError::Full => Der::BUSY,
            spdk_thread::SendError::Exited => Der::SHUTDOWN,
        })?;
        names.insert(id, name.to_owned());
        Ok(())
    }

    /// Takes a class back, so that its id is free again. Only while no service runs: before the start, or after the xstreams have ended.
    pub fn unregister(&self, id: u32) {
        locked(&self.shared.early).retain(|(early, _)| *early != id);
        locked(&self.shared.names).remove(&id);
    }

    /// The id of a class by its name or number.
    pub fn class_id(&self, name: &str) -> Option<u32> {
        let names = locked(&self.shared.names);
        let named = names.iter().find(|(_, known)| *known == name);
        named.map(|(id, _)| *id).or_else(|| name.parse().ok())
    }

    /// The name that a class was registered with.
    pub fn class_name(&self, id: u32) -> String {
        let names = locked(&self.shared.names);
        names.get(&id).cloned().unwrap_or_else(|| id.to_string())
    }

    /// Starts the service, as `me` in the life `incarnation`; in a group unless `membership` says that it is alone. Control thread
    /// only: it waits for the system xstream.
    ///
    /// # Errors
    /// When the system xstream refuses or does not answer.
    pub fn start(
        &self,
        xstreams: &Xstreams,
        me: (Rank, u64),
        membership: &Membership,
    ) -> Result<(), ExecError> {
        let (mine, all, membership) = (self.clone(), xstreams.clone(), membership.clone());
        let begin = move |xstream: &Xstream| mine.start_here(xstream, &all, me, &membership);
        let begun = xstreams
            .system()
            .call_blocking("start incast variables", CONTROL, begin)?;
        begun.map_err(ExecError::Spawn)
    }

    /// As [`Incast::start`], on the system xstream itself.
    ///
    /// # Errors
    /// When the xstream is at its end.
    pub fn start_here(
        &self,
        xstream: &Xstream,
        xstreams: &Xstreams,
        (me, incarnation): (Rank, u64),
        membership: &Membership,
    ) -> Result<(), SpawnError> {
        let system = xstreams.system().clone();
        let others = xstreams.all().iter().filter(|xs| xs.id() != system.id());
        let start = Start {
            key: self.key,
            me,
            incarnation,
            membership: membership.clone(),
            options: self.shared.options.clone(),
            system: system.clone(),
            others: others.cloned().collect(),
        };
        let service = Service::start(xstream, start, self.clone())?;
        for (id, class) in std::mem::take(&mut *locked(&self.shared.early)) {
            service.register(id, class);
        }
        if let Some(local) = self.key.get(xstream.tls()) {
            *local.service.borrow_mut() = Some(service);
        }
        // Set once: an engine starts this once.
        let _ = self.shared.system.set(system);
        Ok(())
    }

    /// Ends the service: what is under way fails with SHUTDOWN, and so does what comes. Control thread only.
    ///
    /// # Errors
    /// When the system xstream refuses or does not answer.
    pub fn stop(&self) -> Result<(), ExecError> {
        let (Some(system), key) = (self.shared.system.get(), self.key) else {
            return Ok(());
        };
        system.call_blocking("stop incast variables", CONTROL, move |xstream| {
            let local = key.get(xstream.tls());
            let service = local.and_then(|local| local.service.borrow_mut().take());
            if let Some(service) = service {
                service.stop();
            }
        })
    }

    /// The group is another one, or somebody else leads it: `leader` in this term, or nobody that is known. System xstream only.
    pub fn group_changed(&self, leader: Option<(Rank, u64)>) {
        if let Some(service) = self
            .here()
            .and_then(|here| self.key.get(here.tls())?.service())
        {
            service.group_changed(leader);
        }
    }

    /// One more user of a namespace; the first makes it.
    ///
    /// # Errors
    /// SHUTDOWN, or why the system xstream was not asked.
    pub async fn connect(&self, ns: NsId, scope: Scope) -> Result<(), Der> {
        self.on_system(move |service| service.connect(ns, scope))
            .await?
    }

    /// One user less; with the last one goes the namespace, and what is under way in it ends with SHUTDOWN.
    ///
    /// # Errors
    /// NONEXIST: no such namespace.
    pub async fn disconnect(&self, ns: NsId) -> Result<(), Der> {
        self.on_system(move |service| service.disconnect(ns))
            .await?
    }

    /// What this xstream may serve at once. On the system xstream it is what the rank may serve; elsewhere a variable is found by its canonical key only,
    /// since no hook runs there.
    #[inline]
    pub fn cached(&self, ns: NsId, key: &Key) -> Option<(Version, Rc<[u8]>)> {
        let here = engine_xstream::current()?;
        let local = self.key.get(here.tls())?;
        match local.service() {
            Some(service) => service.cached(ns, key),
            None => local.cache.get(here.thread().now(), ns, key),
        }
    }

    /// The same as a type, read from its bytes once.
    pub(crate) fn typed<T: 'static>(
        &self,
        ns: NsId,
        key: &Key,
        read: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Option<Rc<T>> {
        let here = engine_xstream::current()?;
        let local = self.key.get(here.tls())?;
        match local.service() {
            Some(service) => read(&service.cached(ns, key)?.1).map(Rc::new),
            None => local.cache.typed(here.thread().now(), ns, key, read),
        }
    }

    /// Fetches a variable, from this xstream's cache if it is there. What is fetched stays there, and is kept up to date.
    ///
    /// # Errors
    /// Why there is no value: NONEXIST for one that nobody has set, or for an unknown namespace or class.
    pub async fn fetch(
        &self,
        ns: NsId,
        key: Key,
        budget: Duration,
    ) -> Result<(Version, Rc<[u8]>), Failure> {
        if let Some(found) = self.cached(ns, &key) {
            return Ok(found);
        }
        let reader = self.here().map(|here| here.xref());
        let stamp = self.operation(move |service| {
            service.fetch(ns, key, Shortcut::None, nanos(budget), reader)
        });
        let stamp = stamp.await?;
        let value = stamp.value.ok_or(Der::NONEXIST)?;
        Ok((stamp.version, Rc::from(&*value)))
    }

    /// Updates a variable.
    ///
    /// # Errors
    /// As [`Incast::fetch`]. An eager update that fails may have reached some.
    pub async fn update(
        &self,
        ns: NsId,
        key: Key,
        value: Value,
        how: How,
        budget: Duration,
    ) -> Result<Stamp, Failure> {
        self.operation(move |service| {
            service.change(ns, key, Change::Set(value), how, nanos(budget))
        })
        .await
    }

    /// Invalidates a variable: whoever wants it next asks the root, and the root its class.
    ///
    /// # Errors
    /// As [`Incast::update`]; INVAL for a bidirectional one.
    pub async fn invalidate(
        &self,
        ns: NsId,
        key: Key,
        how: How,
        budget: Duration,
    ) -> Result<Stamp, Failure> {
        self.operation(move |service| {
            service.change(ns, key, Change::Invalidate, how, nanos(budget))
        })
        .await
    }

    /// What this rank knows, for operators: at most `most` variables of each namespace.
    ///
    /// # Errors
    /// Why the system xstream was not asked.
    pub async fn list(&self, most: usize) -> Result<Vec<Space>, Der> {
        let mine = self.clone();
        self.on_system(move |service| service.list(most, &mine))
            .await
    }

    /// A variable as each rank sees it that shares its namespace, in order of rank: at most `most`, those on this rank's way to the root first. A rank
    /// that does not answer within 2 s is TIMEDOUT or UNREACH. System xstream only.
    ///
    /// # Errors
    /// NONEXIST: this rank has no such namespace. SHUTDOWN; OP_NOT_PERMITTED on another xstream.
    pub async fn trace(
        &self,
        ns: NsId,
        key: Key,
        most: usize,
    ) -> Result<Vec<(Rank, Result<Trace, Der>)>, Der> {
        let here = self.here().ok_or(Der::OP_NOT_PERMITTED)?;
        let local = self.key.get(here.tls()).ok_or(Der::OP_NOT_PERMITTED)?;
        let service = local.service().ok_or(Der::SHUTDOWN)?;
        let mine = service.trace(ns, &key)?;
        let mut wanted = mine.path.clone();
        let others = service.sharers(ns);
        wanted.extend(others.iter().filter(|rank| !mine.path.contains(*rank)));
        wanted.truncate(most);
        wanted.sort_unstable();
        // All at once: those that are silent cost their patience once.
        let asked = wanted.into_iter().map(|rank| {
            if rank == service.me() {
                return (rank, Asked::Known(Ok(mine.clone())));
            }
            let Some(ranks) = service.peers.ranks().cloned() else {
                return (rank, Asked::Known(Err(Der::UNREACH)));
            };
            let ask = async move { look::ask(&ranks, rank, ns, &key).await };
            match service.thread().spawn("iv look", ask) {
                Ok(task) => (rank, Asked::Later(task)),
                Err(_) => (rank, Asked::Known(Err(Der::BUSY))),
            }
        });
        let mut seen = Vec::new();
        for (rank, asked) in asked.collect::<Vec<_>>() {
            let found = match asked {
                Asked::Known(found) => found,
                Asked::Later(task) => task.await.unwrap_or(Err(Der::SHUTDOWN)),
            };
            seen.push((rank, found));
        }
        Ok(seen)
    }

    async fn operation<F>(&self, start: F) -> Result<Stamp, Failure>
    where
        F: FnOnce(&Rc<Service>) -> spdk_ring::oneshot::Receiver<Result<Stamp, Failure>>
            + Send
            + 'static,
    {
        let answer = self.on_system(start).await?;
        answer.await.unwrap_or_else(|_| Err(Der::SHUTDOWN.into()))
    }

    async fn on_system<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Rc<Service>) -> T + Send + 'static,
    ) -> Result<T, Der> {
        let here = self.here();
        if let Some(service) = here.and_then(|here| self.key.get(here.tls())?.service()) {
            return Ok(work(&service));
        }
        let (system, key) = (self.shared.system.get().ok_or(Der::UNINIT)?, self.key);
        let called = system.call("iv", move |xstream| {
            let service = key.get(xstream.tls()).and_then(Local::service);
            service.map(|service| work(&service))
        });
        let done = called.await.map_err(|error| error.der())?;
        done.ok_or(Der::SHUTDOWN)
    }

    fn here(&self) -> Option<Xstream> {
        engine_xstream::current()
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl fmt::Debug for Incast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incast")
            .field("classes", &*locked(&self.shared.names))
            .finish_non_exhaustive()
    }
}
