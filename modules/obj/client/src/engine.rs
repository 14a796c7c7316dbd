//! An engine and its pools.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use obj_proto::{Op, check_label, wire};
use rpc_tls::Identity;

use crate::links::Links;
use crate::{Container, ContainerInfo, ObjError, PoolInfo, PoolStatus};

/// The system xstream's tag.
const SYSTEM: u32 = 0;

/// An engine, reached over its RPC address. Clones share its connections.
#[derive(Clone)]
pub struct Engine(Arc<Mutex<Links>>);

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Engine")
    }
}

impl Engine {
    /// Connects to `HOST:PORT`.
    ///
    /// # Errors
    /// Nobody answers there, or it does not speak our protocol.
    pub fn connect(addr: &str) -> Result<Engine, ObjError> {
        Engine::connect_as(addr, None)
    }

    /// The same over TLS, with a certificate.
    ///
    /// # Errors
    /// Likewise; and one side does not believe the other.
    pub fn connect_as(addr: &str, identity: Option<Identity>) -> Result<Engine, ObjError> {
        let mut links = Links::new(addr, identity);
        // Said now, and not by the first operation that fails.
        let speaks = [obj_proto::PROTOCOL_VERSION as u8];
        links
            .to(SYSTEM)?
            .negotiate(obj_proto::MODULE_ID as u8, &speaks)?;
        Ok(Engine(Arc::new(Mutex::new(links))))
    }

    /// Targets of the engine.
    ///
    /// # Errors
    /// The connection broke.
    pub fn targets(&self) -> Result<u32, ObjError> {
        Ok(self.links().to(SYSTEM)?.hello().targets)
    }

    /// Creates a pool of `size` bytes over all targets.
    ///
    /// # Errors
    /// The label is taken or not allowed, or the devices have less that is not promised to other pools.
    pub fn create_pool(&self, label: &str, size: u64) -> Result<Pool, ObjError> {
        check_label(label)?;
        let req = wire::PoolCreateReq {
            uuid: Vec::new(),
            label: label.to_owned(),
            size,
        };
        let op = Op::PoolCreate;
        let rep = self
            .links()
            .call::<wire::PoolCreateRep>(SYSTEM, op, &req, &[], false)?;
        let info = PoolInfo::from_wire(op.name(), rep.message.pool)?;
        Ok(Pool {
            engine: self.clone(),
            info,
        })
    }

    /// Destroys a pool, by uuid or label. With containers left in it only when forced.
    ///
    /// # Errors
    /// No such pool; it has containers.
    pub fn destroy_pool(&self, pool: &str, force: bool) -> Result<(), ObjError> {
        let req = wire::PoolDestroyReq {
            pool: pool.to_owned(),
            force,
        };
        let op = Op::PoolDestroy;
        self.links()
            .call::<wire::Empty>(SYSTEM, op, &req, &[], false)
            .map(drop)
    }

    /// All pools.
    ///
    /// # Errors
    /// The engine does not answer.
    pub fn pools(&self) -> Result<Vec<PoolInfo>, ObjError> {
        let op = Op::PoolList;
        let req = wire::PoolListReq {};
        let rep = self
            .links()
            .call::<wire::PoolListRep>(SYSTEM, op, &req, &[], true)?;
        let info = |p| PoolInfo::from_wire(op.name(), Some(p));
        rep.message.pools.into_iter().map(info).collect()
    }

    /// Finds a pool by uuid or label.
    ///
    /// # Errors
    /// No such pool.
    pub fn pool(&self, pool: &str) -> Result<Pool, ObjError> {
        let info = self.query(pool)?.pool;
        Ok(Pool {
            engine: self.clone(),
            info,
        })
    }

    fn query(&self, pool: &str) -> Result<PoolStatus, ObjError> {
        let op = Op::PoolQuery;
        let req = wire::PoolQueryReq {
            pool: pool.to_owned(),
        };
        let rep = self
            .links()
            .call::<wire::PoolQueryRep>(SYSTEM, op, &req, &[], true)?;
        PoolStatus::from_wire(op.name(), rep.message)
    }

    /// The connections. A panic of another user leaves at worst replies that nobody waits for, which are ignored.
    pub(crate) fn links(&self) -> MutexGuard<'_, Links> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A pool of an engine.
#[derive(Debug, Clone)]
pub struct Pool {
    engine: Engine,
    info: PoolInfo,
}

impl Pool {
    /// The pool as it was when this handle was made.
    pub fn info(&self) -> &PoolInfo {
        &self.info
    }

    /// Space now, target by target.
    ///
    /// # Errors
    /// The pool is gone.
    pub fn status(&self) -> Result<PoolStatus, ObjError> {
        self.engine.query(&self.info.uuid.to_string())
    }

    /// Creates a container.
    ///
    /// # Errors
    /// The label is taken or not allowed.
    pub fn create_container(&self, label: &str) -> Result<Container, ObjError> {
        check_label(label)?;
        let op = Op::ContCreate;
        let pool = self.info.uuid.to_string();
        let req = wire::ContCreateReq {
            pool,
            uuid: Vec::new(),
            label: label.to_owned(),
        };
        let mut links = self.engine.links();
        let rep = links.call::<wire::ContCreateRep>(SYSTEM, op, &req, &[], false)?;
        drop(links);
        self.handle(ContainerInfo::from_wire(op.name(), rep.message.cont)?)
    }

    /// Destroys a container with all its objects, by uuid or label.
    ///
    /// # Errors
    /// No such container.
    pub fn destroy_container(&self, cont: &str) -> Result<(), ObjError> {
        let (pool, cont) = (self.info.uuid.to_string(), cont.to_owned());
        let req = wire::ContDestroyReq { pool, cont };
        let op = Op::ContDestroy;
        self.engine
            .links()
            .call::<wire::Empty>(SYSTEM, op, &req, &[], false)
            .map(drop)
    }

    /// All containers.
    ///
    /// # Errors
    /// The pool is gone.
    pub fn containers(&self) -> Result<Vec<ContainerInfo>, ObjError> {
        let op = Op::ContList;
        let req = wire::ContListReq {
            pool: self.info.uuid.to_string(),
        };
        let rep = self
            .engine
            .links()
            .call::<wire::ContListRep>(SYSTEM, op, &req, &[], true)?;
        let info = |c| ContainerInfo::from_wire(op.name(), Some(c));
        rep.message.conts.into_iter().map(info).collect()
    }

    /// Finds a container by uuid or label.
    ///
    /// # Errors
    /// No such container.
    pub fn container(&self, cont: &str) -> Result<Container, ObjError> {
        let op = Op::ContQuery;
        let (pool, cont) = (self.info.uuid.to_string(), cont.to_owned());
        let req = wire::ContQueryReq { pool, cont };
        let mut links = self.engine.links();
        let rep = links.call::<wire::ContQueryRep>(SYSTEM, op, &req, &[], true)?;
        drop(links);
        self.handle(ContainerInfo::from_wire(op.name(), rep.message.cont)?)
    }

    fn handle(&self, info: ContainerInfo) -> Result<Container, ObjError> {
        Ok(Container::new(self.engine.clone(), info, self.info.targets))
    }
}
