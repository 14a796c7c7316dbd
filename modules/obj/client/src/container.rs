//! A container: names of objects, and what is known about them.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::sync::Arc;

use obj_proto::{ObjectName, Op, Placement, main_tag, wire};

use crate::engine::{Connection, Engine, SYSTEM};
use crate::{ContainerInfo, ContainerProperties, GetOptions, ObjError, ObjectInfo, PutOptions};

/// A container of a pool.
#[derive(Debug, Clone)]
pub struct Container {
    pub(crate) engine: Engine,
    info: ContainerInfo,
    targets: u32,
    /// Of an open one.
    handle: Option<Arc<Handle>>,
}

/// A handle that is out; closed when the last container that was opened with it goes.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) bytes: Vec<u8>,
    /// It goes after the handle.
    pub(crate) connection: Arc<Connection>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        let req = wire::ContCloseReq {
            handle: std::mem::take(&mut self.bytes),
        };
        // What cannot be closed ends with the engine, or is evicted.
        let mut links = self.connection.engine.links();
        let _ = links.call::<wire::Empty>(SYSTEM, Op::ContClose, &req, &[], false);
    }
}

impl Container {
    pub(crate) fn new(
        engine: Engine,
        info: ContainerInfo,
        targets: u32,
        handle: Option<Handle>,
    ) -> Self {
        Self {
            engine,
            info,
            targets,
            handle: handle.map(Arc::new),
        }
    }

    /// The container as it was when this handle was made.
    pub fn info(&self) -> &ContainerInfo {
        &self.info
    }

    /// Stores what the source gives, replacing what has the name. Durable when it returns.
    ///
    /// # Errors
    /// [`ObjError`]; the old object stays then. The one exception is a connection that breaks while the last request is
    /// under way: then the new object may be there, whole.
    pub fn put(
        &self,
        name: &str,
        source: &mut impl Read,
        options: PutOptions<'_>,
    ) -> Result<ObjectInfo, ObjError> {
        let name = ObjectName::new(name)?;
        crate::put::put(self, name.as_str(), source, options)
    }

    /// Writes an object, or a range of it, to the destination. Every byte is verified against the checksum that the
    /// writer computed.
    ///
    /// # Errors
    /// [`ObjError`]; the destination may have got the beginning then.
    pub fn get(
        &self,
        name: &str,
        destination: &mut impl Write,
        options: GetOptions<'_>,
    ) -> Result<ObjectInfo, ObjError> {
        let name = ObjectName::new(name)?;
        crate::get::get(self, name.as_str(), destination, options)
    }

    /// What is known about an object.
    ///
    /// # Errors
    /// No such object.
    pub fn stat(&self, name: &str) -> Result<ObjectInfo, ObjError> {
        ObjectName::new(name)?;
        let req = wire::StatReq {
            cont: self.id(),
            name: name.to_owned(),
        };
        let tag = main_tag(self.place(name).head());
        let rep = self
            .engine
            .links()
            .call::<wire::StatRep>(tag, Op::Stat, &req, &[], true)?;
        Ok(rep.message.object.unwrap_or_default().into())
    }

    /// Removes an object.
    ///
    /// # Errors
    /// No such object.
    pub fn remove(&self, name: &str) -> Result<(), ObjError> {
        ObjectName::new(name)?;
        let req = wire::RemoveReq {
            cont: self.id(),
            name: name.to_owned(),
        };
        let tag = main_tag(self.place(name).head());
        self.engine
            .links()
            .call::<wire::Empty>(tag, Op::Remove, &req, &[], false)
            .map(drop)
    }

    /// Objects whose names begin with `prefix` (empty: all), in byte order of the names. Objects that are put or removed
    /// meanwhile may be seen or not.
    pub fn list(&self, prefix: &str) -> Listing<'_> {
        let page = |target| Pages {
            target,
            ready: VecDeque::new(),
            after: String::new(),
            more: true,
        };
        let pages = (0..self.targets).map(page).collect();
        Listing {
            cont: self,
            prefix: prefix.to_owned(),
            pages,
            failed: false,
        }
    }

    /// What a target knows of it: its label may have changed since it was opened.
    ///
    /// # Errors
    /// It is not [open](crate::Pool::open), or was taken away.
    pub fn properties(&self, target: u32) -> Result<ContainerProperties, ObjError> {
        let req = wire::ContPropReq {
            cont_handle: self.id(),
        };
        let mut links = self.engine.links();
        let rep =
            links.call::<wire::ContPropRep>(main_tag(target), Op::ContProp, &req, &[], true)?;
        let props = rep.message.props.unwrap_or_default();
        Ok(ContainerProperties {
            label: props.label,
            created: props.created,
        })
    }

    pub(crate) fn id(&self) -> Vec<u8> {
        match &self.handle {
            Some(handle) => handle.bytes.clone(),
            None => self.info.uuid.as_bytes().to_vec(),
        }
    }

    pub(crate) fn place(&self, name: &str) -> Placement {
        Placement::new(&self.info.uuid, name, self.targets)
    }
}

/// Iterator over the objects of a container: the targets' pages, merged.
#[derive(Debug)]
pub struct Listing<'a> {
    cont: &'a Container,
    prefix: String,
    pages: Vec<Pages>,
    failed: bool,
}

/// One target's part of a listing.
#[derive(Debug)]
struct Pages {
    target: u32,
    ready: VecDeque<wire::ObjectInfo>,
    after: String,
    more: bool,
}

impl Pages {
    fn fill(&mut self, cont: &Container, prefix: &str) -> Result<(), ObjError> {
        while self.ready.is_empty() && self.more {
            let req = wire::ListReq {
                cont: cont.id(),
                after: self.after.clone(),
                limit: 0,
                prefix: prefix.to_owned(),
            };
            let tag = main_tag(self.target);
            let mut links = cont.engine.links();
            let rep = links
                .call::<wire::ListRep>(tag, Op::List, &req, &[], true)?
                .message;
            self.more = rep.more;
            self.ready = rep.objects.into();
            match self.ready.back() {
                Some(last) => self.after.clone_from(&last.name),
                None => self.more = false,
            }
        }
        Ok(())
    }
}

impl Iterator for Listing<'_> {
    type Item = Result<ObjectInfo, ObjError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        for pages in &mut self.pages {
            if let Err(error) = pages.fill(self.cont, &self.prefix) {
                self.failed = true;
                return Some(Err(error));
            }
        }
        let with_any = self.pages.iter_mut().filter(|p| !p.ready.is_empty());
        let first = with_any.min_by(|a, b| a.ready[0].name.cmp(&b.ready[0].name))?;
        first.ready.pop_front().map(|object| Ok(object.into()))
    }
}
