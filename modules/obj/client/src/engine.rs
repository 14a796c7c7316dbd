//! An engine and its pools.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use obj_proto::{Op, check_label, main_tag, wire};
use rpc_tls::Identity;

use crate::container::Handle;
use crate::links::Links;
use crate::{Container, ContainerInfo, ObjError, PoolInfo, PoolMap, PoolStatus};

/// The system xstream's tag.
pub(crate) const SYSTEM: u32 = 0;

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
            connection: None,
        })
    }

    /// Destroys a pool, by uuid or label. With containers left in it, or somebody connected to it, only when forced.
    ///
    /// # Errors
    /// No such pool; it has containers; somebody is connected to it.
    pub fn destroy_pool(&self, pool: &str, force: bool) -> Result<(), ObjError> {
        let req = wire::PoolDestroyReq {
            pool: pool.to_owned(),
            force,
            evict: force,
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
            connection: None,
        })
    }

    /// Connects to a pool, by uuid or label: containers that are opened with it are its own, and read only if it is. The connection ends when the last
    /// of them and the pool are dropped, or is [evicted](Pool::evict).
    ///
    /// # Errors
    /// No such pool; too many are connected.
    pub fn connect_pool(&self, pool: &str, read_only: bool) -> Result<Pool, ObjError> {
        let (connection, info) = self.connection(pool, read_only)?;
        Ok(Pool {
            engine: self.clone(),
            info,
            connection: Some(connection),
        })
    }

    fn connection(
        &self,
        pool: &str,
        read_only: bool,
    ) -> Result<(Arc<Connection>, PoolInfo), ObjError> {
        let op = Op::PoolConnect;
        let req = wire::PoolConnectReq {
            pool: pool.to_owned(),
            read_only,
        };
        let mut links = self.links();
        let rep = links.call::<wire::PoolConnectRep>(SYSTEM, op, &req, &[], false)?;
        drop(links);
        let connection = Connection {
            engine: self.clone(),
            bytes: rep.message.handle,
        };
        let info = PoolInfo::from_wire(op.name(), rep.message.pool)?;
        Ok((Arc::new(connection), info))
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

/// Ends when the pool and the last container that was opened with it go.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) engine: Engine,
    pub(crate) bytes: Vec<u8>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        let req = wire::PoolDisconnectReq {
            handle: std::mem::take(&mut self.bytes),
        };
        // What cannot be ended ends with the engine, or is evicted.
        let mut links = self.engine.links();
        let _ = links.call::<wire::Empty>(SYSTEM, Op::PoolDisconnect, &req, &[], false);
    }
}

/// A pool of an engine.
#[derive(Debug, Clone)]
pub struct Pool {
    engine: Engine,
    info: PoolInfo,
    connection: Option<Arc<Connection>>,
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

    /// Opens a container, by uuid or label: the engine checks each request by its handle, until it is dropped or [evicted](Pool::evict), and the pool is
    /// not destroyed meanwhile unless by force. A container that is only [found](Pool::container) is not checked so. Of a pool that is not
    /// [connected](Engine::connect_pool) the container brings a connection of its own.
    ///
    /// # Errors
    /// No such container; the pool is connected to read only; too many are open.
    pub fn open(&self, cont: &str, read_only: bool) -> Result<Container, ObjError> {
        let connection = match &self.connection {
            Some(connection) => Arc::clone(connection),
            None => {
                self.engine
                    .connection(&self.info.uuid.to_string(), read_only)?
                    .0
            }
        };
        let op = Op::ContOpen;
        let req = wire::ContOpenReq {
            pool_handle: connection.bytes.clone(),
            cont: cont.to_owned(),
            read_only,
        };
        let mut links = self.engine.links();
        let rep = links.call::<wire::ContOpenRep>(SYSTEM, op, &req, &[], false)?;
        drop(links);
        let info = ContainerInfo::from_wire(op.name(), rep.message.cont)?;
        let bytes = rep.message.handle;
        let (engine, targets) = (self.engine.clone(), self.info.targets);
        let handle = Handle { bytes, connection };
        Ok(Container::new(engine, info, targets, Some(handle)))
    }

    /// Map and label, as one target knows them; only of a pool that is [connected](Engine::connect_pool).
    ///
    /// # Errors
    /// The connection was taken away.
    pub fn map(&self, target: u32) -> Result<PoolMap, ObjError> {
        let pool_handle = self.connection.as_ref().map(|c| c.bytes.clone());
        let req = wire::PoolMapReq {
            pool_handle: pool_handle.unwrap_or_default(),
        };
        let mut links = self.engine.links();
        let rep = links.call::<wire::PoolMapRep>(main_tag(target), Op::PoolMap, &req, &[], true)?;
        Ok(PoolMap::from_wire(rep.message))
    }

    /// Gives it another label.
    ///
    /// # Errors
    /// Another pool has it; it is none.
    pub fn rename(&self, label: &str) -> Result<(), ObjError> {
        check_label(label)?;
        let req = wire::PoolSetPropReq {
            pool: self.info.uuid.to_string(),
            label: label.to_owned(),
        };
        let mut links = self.engine.links();
        let op = Op::PoolSetProp;
        links
            .call::<wire::Empty>(SYSTEM, op, &req, &[], false)
            .map(drop)
    }

    /// Gives a container another label.
    ///
    /// # Errors
    /// Another one of the pool has it; it is none; no such container.
    pub fn rename_container(&self, cont: &str, label: &str) -> Result<(), ObjError> {
        check_label(label)?;
        let req = wire::ContSetPropReq {
            pool: self.info.uuid.to_string(),
            cont: cont.to_owned(),
            label: label.to_owned(),
        };
        let mut links = self.engine.links();
        let op = Op::ContSetProp;
        links
            .call::<wire::Empty>(SYSTEM, op, &req, &[], false)
            .map(drop)
    }

    /// Takes all connections away, and with them the handles of its containers; how many. Requests with them are refused from now on.
    ///
    /// # Errors
    /// The pool is gone; not every target heard of it.
    pub fn evict(&self) -> Result<u32, ObjError> {
        let req = wire::PoolEvictReq {
            pool: self.info.uuid.to_string(),
        };
        let mut links = self.engine.links();
        let rep = links.call::<wire::PoolEvictRep>(SYSTEM, Op::PoolEvict, &req, &[], false)?;
        Ok(rep.message.count)
    }

    fn handle(&self, info: ContainerInfo) -> Result<Container, ObjError> {
        let (engine, targets) = (self.engine.clone(), self.info.targets);
        Ok(Container::new(engine, info, targets, None))
    }
}
