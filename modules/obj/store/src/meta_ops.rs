//! Pools and containers.

use uuid::Uuid;

use crate::device::BlockDev;
use crate::error::{NoSpace, StoreError};
use crate::index::{ContainerInfo, PoolInfo};
use crate::record::{self, Op};
use crate::store::{Inner, Store};
use crate::sync::yield_now;

/// Entries of a destroyed container that are freed in one go.
const BURY_BATCH: u32 = 512;

impl<D: BlockDev> Inner<D> {
    fn check_meta(&self, needed: u64) -> Result<(), StoreError> {
        let (used, limit) = (
            self.index.borrow().image_bytes + self.coming.get(),
            self.meta_limit(),
        );
        if used + needed > limit {
            return Err(NoSpace::Metadata { used, limit }.into());
        }
        Ok(())
    }

    /// Frees what destroyed containers held, a batch at a time.
    async fn bury_all(&self) {
        while self.index.borrow_mut().bury(BURY_BATCH) {
            yield_now().await;
        }
        self.index.borrow_mut().sweep();
    }
}

impl<D: BlockDev> Store<D> {
    /// Creates a pool that may hold `info.quota` bytes here; `info.used` is ignored. The same pool again (uuid, label and
    /// quota) is fine.
    ///
    /// # Errors
    /// Another pool has its uuid or label; more than the device has not promised yet; read-only.
    pub async fn create_pool(&self, info: &PoolInfo) -> Result<(), StoreError> {
        let inner = &self.0;
        let _meta = inner.meta.lock().await;
        {
            let index = inner.index.borrow();
            if let Some(old) = index.pool_info(&info.uuid) {
                let same = old.label == info.label && old.quota == info.quota;
                let what = format!("pool {} ({})", old.uuid, old.label);
                return if same {
                    Ok(())
                } else {
                    Err(StoreError::Exists { what })
                };
            }
            if index.pools.values().any(|p| *p.label == *info.label) {
                return Err(StoreError::Exists {
                    what: format!("a pool '{}'", info.label),
                });
            }
            let left = index.unpromised();
            if info.quota > left {
                return Err(NoSpace::Promised {
                    needed: info.quota,
                    left,
                }
                .into());
            }
        }
        inner.check_meta(record::pool_len(&info.label))?;
        let op = Op::PoolPut {
            uuid: info.uuid,
            label: info.label.as_str().into(),
            quota: info.quota,
            created: info.created,
        };
        inner.log.commit(vec![op]).await
    }

    /// Gives a pool another label. That no other pool has it is for the caller to see to, who may be exchanging two.
    ///
    /// # Errors
    /// No such pool; read-only.
    pub async fn relabel_pool(&self, uuid: &Uuid, label: &str) -> Result<(), StoreError> {
        let inner = &self.0;
        let _meta = inner.meta.lock().await;
        let known = inner.index.borrow().pool_info(uuid);
        let known = known.ok_or(StoreError::NoPool(*uuid))?;
        if known.label == label {
            return Ok(());
        }
        inner.check_meta(record::pool_len(label))?;
        let op = Op::PoolPut {
            uuid: *uuid,
            label: label.into(),
            quota: known.quota,
            created: known.created,
        };
        inner.log.commit(vec![op]).await
    }

    /// Destroys a pool with all its containers and frees their space.
    ///
    /// # Errors
    /// No such pool; read-only.
    pub async fn destroy_pool(&self, uuid: &Uuid) -> Result<(), StoreError> {
        let inner = &self.0;
        let _meta = inner.meta.lock().await;
        if !inner.index.borrow().pools.contains_key(uuid) {
            return Err(StoreError::NoPool(*uuid));
        }
        inner.log.commit(vec![Op::PoolDel { uuid: *uuid }]).await?;
        inner.bury_all().await;
        Ok(())
    }

    /// All pools, by uuid.
    pub fn pools(&self) -> Vec<PoolInfo> {
        let index = self.0.index.borrow();
        index
            .pools
            .keys()
            .filter_map(|uuid| index.pool_info(uuid))
            .collect()
    }

    /// One pool.
    ///
    /// # Errors
    /// No such pool.
    pub fn pool(&self, uuid: &Uuid) -> Result<PoolInfo, StoreError> {
        self.0
            .index
            .borrow()
            .pool_info(uuid)
            .ok_or(StoreError::NoPool(*uuid))
    }

    /// Creates a container. The same container again (uuid, pool and label) is fine.
    ///
    /// # Errors
    /// No such pool; another container has its uuid, or its label in the pool; read-only.
    pub async fn create_container(&self, info: &ContainerInfo) -> Result<(), StoreError> {
        let inner = &self.0;
        let _meta = inner.meta.lock().await;
        let cont = {
            let mut index = inner.index.borrow_mut();
            if !index.pools.contains_key(&info.pool) {
                return Err(StoreError::NoPool(info.pool));
            }
            let clash = index
                .conts
                .values()
                .find(|c| c.uuid == info.uuid || (c.pool == info.pool && *c.label == *info.label));
            if let Some(c) = clash {
                let same = (c.uuid, c.pool, &*c.label) == (info.uuid, info.pool, &info.label);
                let what = format!("container {} ({})", c.uuid, c.label);
                return if same {
                    Ok(())
                } else {
                    Err(StoreError::Exists { what })
                };
            }
            index.next_cont += 1;
            index.next_cont - 1
        };
        inner.check_meta(record::cont_len(&info.label))?;
        let op = Op::ContPut {
            cont,
            uuid: info.uuid,
            pool: info.pool,
            label: info.label.as_str().into(),
            created: info.created,
        };
        inner.log.commit(vec![op]).await
    }

    /// Gives a container another label. That no other of its pool has it is for the caller to see to.
    ///
    /// # Errors
    /// No such container; read-only.
    pub async fn relabel_container(&self, uuid: &Uuid, label: &str) -> Result<(), StoreError> {
        let inner = &self.0;
        let _meta = inner.meta.lock().await;
        let id = inner.cont_id(uuid)?;
        let op = {
            let index = inner.index.borrow();
            let cont = index.conts.get(&id).ok_or(StoreError::NoContainer(*uuid))?;
            if &*cont.label == label {
                return Ok(());
            }
            Op::ContPut {
                cont: id,
                uuid: *uuid,
                pool: cont.pool,
                label: label.into(),
                created: cont.created,
            }
        };
        inner.check_meta(record::cont_len(label))?;
        inner.log.commit(vec![op]).await
    }

    /// Destroys a container with all its objects and frees their space.
    ///
    /// # Errors
    /// No such container; read-only.
    pub async fn destroy_container(&self, uuid: &Uuid) -> Result<(), StoreError> {
        let inner = &self.0;
        let _meta = inner.meta.lock().await;
        let cont = inner.cont_id(uuid)?;
        inner.log.commit(vec![Op::ContDel { cont }]).await?;
        inner.bury_all().await;
        Ok(())
    }

    /// The pool of a container.
    pub fn pool_of(&self, cont: &Uuid) -> Option<Uuid> {
        let index = self.0.index.borrow();
        let id = index.cont_ids.get(cont)?;
        index.conts.get(id).map(|cont| cont.pool)
    }

    /// Containers of one pool, or of all, in order of their creation.
    pub fn containers(&self, pool: Option<&Uuid>) -> Vec<ContainerInfo> {
        let index = self.0.index.borrow();
        let wanted = index
            .conts
            .values()
            .filter(|c| pool.is_none_or(|p| c.pool == *p));
        wanted
            .map(|c| ContainerInfo {
                uuid: c.uuid,
                pool: c.pool,
                label: c.label.to_string(),
                created: c.created,
            })
            .collect()
    }
}
