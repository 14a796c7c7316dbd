//! A variable of one xstream's, with a type.
//!
//! Invariants: E1 and E3 of `engine.rs`.
#![allow(unsafe_code, reason = "reads the engine's cache")]

use super::call::{self, IvFailure, NsId};
use super::{IvHow, IvKey, IvVersion};
use crate::engine;
use daos_errno::Der;
use module_abi::{dss_iv_key, dss_iv_version};
use prost::Message;
use std::cell::RefCell;
use std::fmt;
use std::ptr::null_mut;
use std::rc::Rc;
use std::time::Duration;

/// One variable, as one xstream sees it: keep it in the xstream's storage, and its value is read from its bytes once for each version.
pub struct IvVar<T> {
    ns: NsId,
    key: IvKey,
    raw: dss_iv_key,
    last: RefCell<Option<(IvVersion, Rc<T>)>>,
}

impl<T: Message + Default + 'static> IvVar<T> {
    /// The variable of that name in a namespace.
    pub fn new(ns: NsId, key: IvKey) -> IvVar<T> {
        IvVar {
            ns,
            key,
            raw: key.raw(),
            last: RefCell::default(),
        }
    }

    /// Its name.
    pub fn key(&self) -> &IvKey {
        &self.key
    }

    /// What this xstream may serve at once; no other xstream is asked. `None`: [`IvVar::fetch`] it. After its first fetch here it is kept up to date.
    pub fn get(&self) -> Option<Rc<T>> {
        self.look().map(|(_, value)| value)
    }

    /// The same with its version.
    pub fn look(&self) -> Option<(IvVersion, Rc<T>)> {
        let (len, version) = self.cached(&mut [])?;
        if let Some((known, value)) = &*self.last.borrow()
            && *known == version
        {
            return Some((version, Rc::clone(value)));
        }
        // Nothing else of this xstream runs between the two looks.
        let mut bytes = vec![0; len];
        let (_, version) = self.cached(&mut bytes)?;
        let value = Rc::new(T::decode(&*bytes).ok()?);
        *self.last.borrow_mut() = Some((version, Rc::clone(&value)));
        Some((version, value))
    }

    fn cached(&self, into: &mut [u8]) -> Option<(usize, IvVersion)> {
        let mut version = dss_iv_version::default();
        let (buf, capacity) = match into {
            [] => (null_mut(), 0),
            into => (into.as_mut_ptr(), into.len() as u64),
        };
        let (ns, key) = (self.ns.as_ptr(), &raw const self.raw);
        // SAFETY: E1, E3; all is ours for the call.
        let len =
            unsafe { (engine::host().iv_cached)(ns, key, &raw mut version, buf.cast(), capacity) };
        Some((usize::try_from(len).ok()?, version.into()))
    }

    /// The value: this xstream's, or else fetched, for at most `timeout`. What is fetched is kept, and kept up to date.
    ///
    /// # Errors
    /// `DER_NONEXIST` for one that nobody has set and for an unknown namespace or class; `DER_PROTO`: its bytes are no `T`; what a hook answered; after the
    /// time-out whatever was wrong last.
    pub async fn fetch(&self, timeout: Duration) -> Result<Rc<T>, IvFailure> {
        if let Some(value) = self.get() {
            return Ok(value);
        }
        let (version, bytes) = call::fetch(self.ns, &self.key, timeout).await?;
        let value = Rc::new(T::decode(&*bytes).map_err(|_| Der::PROTO)?);
        *self.last.borrow_mut() = Some((version, Rc::clone(&value)));
        Ok(value)
    }

    /// Updates it.
    ///
    /// # Errors
    /// As [`IvVar::fetch`]; `DER_OVERFLOW` over the class's bound. An eager update that fails may have reached some.
    pub async fn update(&self, value: &T, how: IvHow) -> Result<IvVersion, IvFailure> {
        let bytes = value.encode_to_vec();
        let made = call::change(self.ns, &self.key, Some(&bytes), how).await?;
        Ok(made.0)
    }

    /// Invalidates it: whoever wants it next asks the root, and the root its class.
    ///
    /// # Errors
    /// As [`IvVar::update`]; `DER_INVAL` for a bidirectional one.
    pub async fn invalidate(&self, how: IvHow) -> Result<IvVersion, IvFailure> {
        let made = call::change(self.ns, &self.key, None, how).await?;
        Ok(made.0)
    }
}

impl<T> fmt::Debug for IvVar<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IvVar({:?})", self.key)
    }
}
