//! Writing: pieces of data, and whole small objects.

use std::rc::Rc;

use uuid::Uuid;

use crate::device::{BlockDev, Buf, Run, UNIT};
use crate::error::StoreError;
use crate::extent::Extent;
use crate::get::ObjectInfo;
use crate::record::{self, EXTENTS_MAX, Head, Op, Piece};
use crate::store::{Inner, Reserved, Store};

/// Bytes that one checksum covers.
pub const CSUM_CHUNK: usize = 32 << 10;
/// Most bytes of one piece.
pub const PIECE_MAX: usize = 1 << 20;
/// Longest object name, bytes.
const NAME_MAX: usize = 4096;

/// Data to store: `len` bytes at the start of `buf`, with the CRC-32C of each [`CSUM_CHUNK`] of them. The buffer has room
/// for whole units of 4 KiB.
pub struct Payload<B> {
    /// Holds the data.
    pub buf: B,
    /// How much of it is data.
    pub len: usize,
    /// Checksums as the writer computed them.
    pub csums: Vec<u32>,
}

impl<B: Buf> Payload<B> {
    fn units(&self) -> u32 {
        self.len.div_ceil(UNIT) as u32
    }

    /// Checks size and checksums, and zeroes what follows the data in its last unit.
    fn check(&mut self) -> Result<(), StoreError> {
        let room = self.buf.as_slice().len();
        let padded = self.units() as usize * UNIT;
        if self.len > PIECE_MAX || padded > room {
            let len = self.len;
            let what =
                format!("{len} bytes in a buffer of {room}: a piece has at most {PIECE_MAX}");
            return Err(StoreError::Invalid { what });
        }
        let data = &self.buf.as_slice()[..self.len];
        let chunks = data.chunks(CSUM_CHUNK);
        if chunks.len() != self.csums.len() {
            let (found, needed) = (self.csums.len(), chunks.len());
            let what = format!("{found} checksums came with the data, it takes {needed}");
            return Err(StoreError::Invalid { what });
        }
        for (chunk, (bytes, csum)) in chunks.zip(&self.csums).enumerate() {
            if crc32c::crc32c(bytes) != *csum {
                return Err(StoreError::CsumOnWrite { chunk });
            }
        }
        self.buf.as_mut_slice()[self.len..padded].fill(0);
        Ok(())
    }
}

/// Refuses names that cannot be.
pub(crate) fn check_name(name: &str) -> Result<(), StoreError> {
    match name.len() {
        0 => Err(StoreError::Invalid {
            what: "the object name is empty".into(),
        }),
        n if n > NAME_MAX => {
            let what = format!("the object name has {n} bytes: at most {NAME_MAX} are allowed");
            Err(StoreError::Invalid { what })
        }
        _ => Ok(()),
    }
}

/// Device runs of extents of the data region.
pub(crate) fn runs_of(data_start: u64, extents: &[Extent]) -> Vec<Run> {
    extents
        .iter()
        .map(|e| Run {
            unit: data_start + e.start,
            units: e.units,
        })
        .collect()
}

/// The change that takes the old version of an object away: its pieces are here, or on several targets.
pub(crate) fn retire(cont: u32, old: &Head) -> Op {
    if old.pieces > 1 {
        Op::ReclaimPut {
            cont,
            version: old.version,
        }
    } else {
        Op::VersionDrop {
            cont,
            version: old.version,
        }
    }
}

impl<D: BlockDev> Inner<D> {
    /// Writes a payload to reserved extents and makes it durable. `names`: bytes of other records that come with it.
    pub(crate) async fn write_piece(
        &self,
        cont: &Uuid,
        mut payload: Payload<D::Buf>,
        names: u64,
    ) -> Result<(Reserved, Rc<Piece>), StoreError> {
        payload.check()?;
        let meta = record::piece_len(EXTENTS_MAX.min(4), payload.csums.len()) + names;
        let reserved = self.reserve(cont, payload.units(), meta)?;
        let Payload { buf, len, csums } = payload;
        if len > 0 {
            let runs = runs_of(self.sb.data_start(), &reserved.extents);
            let written = match self.media.write(&runs, buf, false).await {
                Ok(_) => self
                    .flusher
                    .flush(&self.media)
                    .await
                    .inspect_err(|e| self.log.fail(e)),
                Err(error) => Err(error),
            };
            if let Err(error) = written {
                self.unreserve(&reserved.extents, &reserved.pool_used);
                return Err(error);
            }
        }
        let piece = Piece {
            len: len as u32,
            extents: reserved.extents.clone().into(),
            csums: csums.into(),
            pool_used: Some(reserved.pool_used.clone()),
        };
        Ok((reserved, Rc::new(piece)))
    }
}

impl<D: BlockDev> Store<D> {
    /// Stores an object of at most one piece, replacing what has its name. Durable and visible when it returns; `now` is
    /// kept as the time of modification (ns since 1970).
    ///
    /// # Errors
    /// No container, no space, bad checksums, the device fails, or the store is read-only. The old object stays then.
    pub async fn put(
        &self,
        cont: &Uuid,
        name: &str,
        payload: Payload<D::Buf>,
        now: u64,
    ) -> Result<ObjectInfo, StoreError> {
        check_name(name)?;
        let inner = &self.0;
        let size = payload.len as u64;
        let (reserved, piece) = inner
            .write_piece(cont, payload, record::head_len(name))
            .await?;
        let id = reserved.cont;
        let _key = inner.keys.lock(id, name).await;
        let version = inner.new_version();
        let head = Head {
            version,
            size,
            modified: now,
            pieces: u32::from(size > 0),
        };
        let mut ops = vec![Op::HeadPut {
            cont: id,
            name: name.into(),
            head,
        }];
        if size > 0 {
            ops.push(Op::PiecePut {
                cont: id,
                version,
                piece: 0,
                data: piece,
            });
        }
        let old = inner
            .index
            .borrow()
            .conts
            .get(&id)
            .and_then(|c| c.heads.get(name))
            .copied();
        ops.extend(old.map(|old| retire(id, &old)));
        let ticket = inner.log.enqueue(ops).inspect_err(|_| {
            inner.unreserve(&reserved.extents, &reserved.pool_used);
        })?;
        ticket.await?;
        // Destroyed in the meantime: applying the record has given the blocks back.
        inner.cont_id(cont)?;
        Ok(ObjectInfo {
            name: name.to_owned(),
            size,
            version,
            modified: now,
            pieces: head.pieces,
        })
    }
}
