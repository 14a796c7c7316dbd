//! Variables whose values have a type.

use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;
use std::time::Duration;

use daos_errno::Der;
use engine_iv::{Failure, How, Key, NsId, Version};

use crate::incast::Incast;

/// A value that travels as bytes.
pub trait IvValue: Sized + 'static {
    /// Reads it; `None`: these bytes are none.
    fn read(bytes: &[u8]) -> Option<Self>;

    /// Its bytes.
    fn write(&self) -> Vec<u8>;
}

impl IvValue for Vec<u8> {
    fn read(bytes: &[u8]) -> Option<Vec<u8>> {
        Some(bytes.to_vec())
    }

    fn write(&self) -> Vec<u8> {
        self.clone()
    }
}

impl IvValue for String {
    fn read(bytes: &[u8]) -> Option<String> {
        String::from_utf8(bytes.to_vec()).ok()
    }

    fn write(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }
}

impl IvValue for u64 {
    fn read(bytes: &[u8]) -> Option<u64> {
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }

    fn write(&self) -> Vec<u8> {
        self.to_le_bytes().to_vec()
    }
}

/// One variable of type `T`. Any thread may have it; what it does is for tasks of the engine's xstreams.
pub struct Var<T> {
    incast: Incast,
    ns: NsId,
    key: Key,
    value: PhantomData<fn() -> T>,
}

impl<T: IvValue> Var<T> {
    /// The variable `key` of a namespace.
    pub fn new(incast: &Incast, ns: NsId, key: Key) -> Var<T> {
        Var {
            incast: incast.clone(),
            ns,
            key,
            value: PhantomData,
        }
    }

    /// What this xstream has and may serve: no other xstream is asked, and the bytes are read once for each new value.
    #[inline]
    pub fn get(&self) -> Option<Rc<T>> {
        self.incast.typed(self.ns, &self.key, T::read)
    }

    /// The value, fetched if this xstream does not have it.
    ///
    /// # Errors
    /// As [`Incast::fetch`]; PROTO: its bytes are no `T`.
    pub async fn fetch(&self, budget: Duration) -> Result<Rc<T>, Failure> {
        if let Some(value) = self.get() {
            return Ok(value);
        }
        let (_, bytes) = self.incast.fetch(self.ns, self.key, budget).await?;
        let wrong = Failure {
            der: Der::PROTO,
            attempts: 1,
            asked: None,
            expired: false,
        };
        T::read(&bytes).map(Rc::new).ok_or(wrong)
    }

    /// Updates it.
    ///
    /// # Errors
    /// As [`Incast::update`].
    pub async fn update(&self, value: &T, how: How, budget: Duration) -> Result<Version, Failure> {
        let bytes = value.write().into();
        let stamp = self.incast.update(self.ns, self.key, bytes, how, budget);
        Ok(stamp.await?.version)
    }

    /// Invalidates it.
    ///
    /// # Errors
    /// As [`Incast::invalidate`].
    pub async fn invalidate(&self, how: How, budget: Duration) -> Result<Version, Failure> {
        let stamp = self.incast.invalidate(self.ns, self.key, how, budget);
        Ok(stamp.await?.version)
    }
}

impl<T> Clone for Var<T> {
    fn clone(&self) -> Var<T> {
        Var {
            incast: self.incast.clone(),
            ..*self
        }
    }
}

impl<T> fmt::Debug for Var<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Var({:032x}, {:?})", self.ns, self.key)
    }
}
