//! Uploads: objects of several pieces, spread over targets, that become visible at once.
//!
//! The head target keeps a durable intent from [`Store::begin`] to [`Store::commit_upload`] or [`Store::abort_upload`]. Each
//! target takes pieces of a version only while it is open there ([`Store::open_version`]), which no restart survives: an
//! intent found at open becomes a reclaim. A reclaim stands until its version is dropped on every target.

use uuid::Uuid;

use crate::device::BlockDev;
use crate::error::StoreError;
use crate::get::ObjectInfo;
use crate::put::{Payload, check_name, retire};
use crate::record::{self, Head, Op};
use crate::store::Store;

/// Most versions that take pieces at the same time on one target.
const OPEN_MAX: usize = 4096;

/// A version whose pieces are to be dropped on every target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reclaim {
    /// Container of the object.
    pub cont: Uuid,
    /// The version.
    pub version: u64,
}

impl<D: BlockDev> Store<D> {
    /// Head target: begins an upload; its version when the intent is durable. The object stays as it is.
    ///
    /// # Errors
    /// No container, no space for the record, read-only.
    pub async fn begin(&self, cont: &Uuid, name: &str, now: u64) -> Result<u64, StoreError> {
        check_name(name)?;
        let reserved = self.0.reserve(cont, 0, record::intent_cost(name))?;
        let version = self.0.new_version();
        let cont_id = reserved.cont;
        let op = Op::IntentPut {
            cont: cont_id,
            version,
            name: name.into(),
            began: now,
        };
        self.0.log.commit(vec![op]).await?;
        self.0.cont_id(cont)?;
        Ok(version)
    }

    /// Head target: is this upload open?
    ///
    /// # Errors
    /// [`StoreError::Stale`] if not; no container.
    pub fn check_upload(&self, cont: &Uuid, name: &str, version: u64) -> Result<(), StoreError> {
        let id = self.0.cont_id(cont)?;
        let index = self.0.index.borrow();
        let intent = index.conts.get(&id).and_then(|c| c.intents.get(&version));
        match intent {
            Some(intent) if &*intent.name == name => Ok(()),
            _ => Err(StoreError::Stale {
                name: name.to_owned(),
                version,
            }),
        }
    }

    /// Head target: makes the upload the object. The old version becomes a reclaim (or is dropped, if it is only here).
    ///
    /// # Errors
    /// [`StoreError::Stale`] if the upload is not open; read-only. The old object stays then.
    pub async fn commit_upload(
        &self,
        cont: &Uuid,
        name: &str,
        version: u64,
        (size, pieces): (u64, u32),
        now: u64,
    ) -> Result<ObjectInfo, StoreError> {
        let id = self.0.cont_id(cont)?;
        let _key = self.0.keys.lock(id, name).await;
        self.check_upload(cont, name, version)?;
        let head = Head {
            version,
            size,
            modified: now,
            pieces,
        };
        let mut ops = vec![
            Op::HeadPut {
                cont: id,
                name: name.into(),
                head,
            },
            Op::IntentDel { cont: id, version },
        ];
        let old = self
            .0
            .index
            .borrow()
            .conts
            .get(&id)
            .and_then(|c| c.heads.get(name))
            .copied();
        ops.extend(old.map(|old| retire(id, &old)));
        self.0.log.commit(ops).await?;
        self.0.cont_id(cont)?;
        Ok(ObjectInfo {
            name: name.to_owned(),
            size,
            version,
            modified: now,
            pieces,
        })
    }

    /// Head target: ends an upload without effect; its pieces become a reclaim.
    ///
    /// # Errors
    /// [`StoreError::Stale`] if the upload is not open; read-only.
    pub async fn abort_upload(
        &self,
        cont: &Uuid,
        name: &str,
        version: u64,
    ) -> Result<(), StoreError> {
        let id = self.0.cont_id(cont)?;
        let _key = self.0.keys.lock(id, name).await;
        self.check_upload(cont, name, version)?;
        self.0
            .log
            .commit(vec![Op::ReclaimPut { cont: id, version }])
            .await
    }

    /// Any target: takes pieces of this version from now on.
    ///
    /// # Errors
    /// No container; [`StoreError::TooManyUploads`].
    pub fn open_version(&self, cont: &Uuid, version: u64) -> Result<(), StoreError> {
        let id = self.0.cont_id(cont)?;
        let mut open = self.0.open.borrow_mut();
        if open.len() >= OPEN_MAX {
            let index = self.0.index.borrow();
            open.retain(|(cont, _)| index.conts.contains_key(cont));
        }
        if open.len() >= OPEN_MAX {
            return Err(StoreError::TooManyUploads { open: open.len() });
        }
        open.insert((id, version));
        Ok(())
    }

    /// Any target: stores one piece of an open version; durable when it returns. The same piece again replaces it.
    ///
    /// # Errors
    /// [`StoreError::Stale`] if the version is not open here; as for [`Store::put`].
    pub async fn put_piece(
        &self,
        cont: &Uuid,
        name: &str,
        version: u64,
        piece: u32,
        payload: Payload<D::Buf>,
    ) -> Result<(), StoreError> {
        let inner = &self.0;
        let stale = || StoreError::Stale {
            name: name.to_owned(),
            version,
        };
        let is_open = |id| inner.open.borrow().contains(&(id, version));
        if !is_open(inner.cont_id(cont)?) {
            return Err(stale());
        }
        if payload.len == 0 {
            return Err(StoreError::Invalid {
                what: "a piece has at least one byte".into(),
            });
        }
        let (reserved, data) = inner.write_piece(cont, payload, 0).await?;
        let id = reserved.cont;
        // Sealed or dropped while the data was written: queued behind the drop, the record would outlive it.
        let queued = if is_open(id) {
            inner.log.enqueue(vec![Op::PiecePut {
                cont: id,
                version,
                piece,
                data,
            }])
        } else {
            Err(stale())
        };
        let give_back = |_: &StoreError| inner.unreserve(&reserved.extents, &reserved.pool_used);
        queued.inspect_err(give_back)?.await?;
        inner.cont_id(cont).map(drop)
    }

    /// Any target: takes no more pieces of this version; how many it has, and their bytes.
    ///
    /// # Errors
    /// No container.
    pub fn seal_version(&self, cont: &Uuid, version: u64) -> Result<(u32, u64), StoreError> {
        let id = self.0.cont_id(cont)?;
        self.0.open.borrow_mut().remove(&(id, version));
        let index = self.0.index.borrow();
        let Some(c) = index.conts.get(&id) else {
            return Ok((0, 0));
        };
        let pieces = c.pieces.range((version, 0)..=(version, u32::MAX));
        Ok(pieces.fold((0, 0), |(n, bytes), (_, p)| {
            (n + 1, bytes + u64::from(p.len))
        }))
    }

    /// Any target: drops the pieces of this version. Nothing to drop is fine, and so is a container that is gone.
    ///
    /// # Errors
    /// Read-only.
    pub async fn drop_version(&self, cont: &Uuid, version: u64) -> Result<(), StoreError> {
        let Ok(cont) = self.0.cont_id(cont) else {
            return Ok(());
        };
        self.0.open.borrow_mut().remove(&(cont, version));
        self.0
            .log
            .commit(vec![Op::VersionDrop { cont, version }])
            .await
    }

    /// Head target: versions whose pieces are to be dropped everywhere, at most `max`.
    pub fn reclaims(&self, max: usize) -> Vec<Reclaim> {
        let index = self.0.index.borrow();
        let of_cont = |c: &'_ crate::index::Container| {
            let cont = c.uuid;
            c.reclaims
                .keys()
                .map(move |v| Reclaim { cont, version: *v })
                .collect::<Vec<_>>()
        };
        let with_any = index.conts.values().filter(|c| !c.reclaims.is_empty());
        with_any.flat_map(of_cont).take(max).collect()
    }

    /// Head target: the version is dropped everywhere.
    ///
    /// # Errors
    /// Read-only.
    pub async fn reclaim_done(&self, reclaim: Reclaim) -> Result<(), StoreError> {
        let Ok(cont) = self.0.cont_id(&reclaim.cont) else {
            return Ok(());
        };
        self.0
            .log
            .commit(vec![Op::ReclaimDel {
                cont,
                version: reclaim.version,
            }])
            .await
    }
}
