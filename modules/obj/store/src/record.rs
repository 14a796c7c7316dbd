//! Log records: absolute changes of the index.
//!
//! Each operation says what an entry is from now on, never how it differs from before. Applying a sequence of them again
//! on a state that already contains some of their effects gives the same final state; that is what allows a checkpoint
//! to be written while changes go on (see `checkpoint`).

use std::cell::Cell;
use std::rc::Rc;

use uuid::Uuid;

use crate::codec::{Malformed, Put, Reader};
use crate::extent::Extent;

/// Most extents of one piece. A piece that finds only smaller crumbs than this allows is out of space.
pub(crate) const EXTENTS_MAX: usize = 64;

/// The head record of an object: which version is the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) version: u64,
    pub(crate) size: u64,
    pub(crate) modified: u64,
    /// More than one: pieces are on several targets and need a reclaim there when the version goes.
    pub(crate) pieces: u32,
}

/// Where a piece lies on this target, and its checksums.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) len: u32,
    pub(crate) extents: Box<[Extent]>,
    pub(crate) csums: Box<[u32]>,
    /// Units used of its pool, which count this piece from the moment its extents are reserved. Not in the record: set
    /// when the replay is done.
    pub(crate) pool_used: Option<Rc<Cell<u64>>>,
}

impl Piece {
    pub(crate) fn units(&self) -> u64 {
        self.extents.iter().map(|e| u64::from(e.units)).sum()
    }

    /// Its units no longer count against its pool.
    pub(crate) fn uncount(&self) {
        if let Some(used) = &self.pool_used {
            used.set(used.get() - self.units());
        }
    }
}

/// One change. `cont` is the container's number on this target, never used twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Op {
    PoolPut {
        uuid: Uuid,
        label: Box<str>,
        quota: u64,
        created: u64,
    },
    /// With all its containers.
    PoolDel {
        uuid: Uuid,
    },
    ContPut {
        cont: u32,
        uuid: Uuid,
        pool: Uuid,
        label: Box<str>,
        created: u64,
    },
    /// With all its objects.
    ContDel {
        cont: u32,
    },
    HeadPut {
        cont: u32,
        name: Box<str>,
        head: Head,
    },
    HeadDel {
        cont: u32,
        name: Box<str>,
    },
    PiecePut {
        cont: u32,
        version: u64,
        piece: u32,
        data: Rc<Piece>,
    },
    /// All pieces of a version that this target holds.
    VersionDrop {
        cont: u32,
        version: u64,
    },
    IntentPut {
        cont: u32,
        version: u64,
        name: Box<str>,
        began: u64,
    },
    /// Committed.
    IntentDel {
        cont: u32,
        version: u64,
    },
    /// The version's pieces, on any target, are to go. Ends an intent as well.
    ReclaimPut {
        cont: u32,
        version: u64,
    },
    /// They are gone everywhere. Ends an intent as well.
    ReclaimDel {
        cont: u32,
        version: u64,
    },
    /// Numbers below these were given out.
    Counters {
        next_version: u64,
        next_cont: u32,
    },
}

impl Op {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Op::PoolPut {
                uuid,
                label,
                quota,
                created,
            } => {
                put_pool(out, uuid, label, *quota, *created);
            }
            Op::PoolDel { uuid } => {
                out.put_u8(2);
                out.extend_from_slice(uuid.as_bytes());
            }
            Op::ContPut {
                cont,
                uuid,
                pool,
                label,
                created,
            } => {
                put_cont(out, *cont, uuid, pool, label, *created);
            }
            Op::ContDel { cont } => {
                out.put_u8(4);
                out.put_u32(*cont);
            }
            Op::HeadPut { cont, name, head } => put_head(out, *cont, name, head),
            Op::HeadDel { cont, name } => {
                out.put_u8(6);
                out.put_u32(*cont);
                out.put_string(name);
            }
            Op::PiecePut {
                cont,
                version,
                piece,
                data,
            } => {
                put_piece(out, *cont, *version, *piece, data);
            }
            Op::VersionDrop { cont, version } => put_version(out, 8, *cont, *version),
            Op::IntentPut {
                cont,
                version,
                name,
                began,
            } => {
                put_intent(out, *cont, *version, name, *began);
            }
            Op::IntentDel { cont, version } => put_version(out, 10, *cont, *version),
            Op::ReclaimPut { cont, version } => put_version(out, 11, *cont, *version),
            Op::ReclaimDel { cont, version } => put_version(out, 12, *cont, *version),
            Op::Counters {
                next_version,
                next_cont,
            } => {
                out.put_u8(13);
                out.put_u64(*next_version);
                out.put_u32(*next_cont);
            }
        }
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Op, Malformed> {
        let tag = r.u8()?;
        let uuid = |r: &mut Reader<'_>| r.array().map(Uuid::from_bytes);
        Ok(match tag {
            1 => {
                let uuid = uuid(r)?;
                Op::PoolPut {
                    uuid,
                    label: r.string()?,
                    quota: r.u64()?,
                    created: r.u64()?,
                }
            }
            2 => Op::PoolDel { uuid: uuid(r)? },
            3 => {
                let (cont, uuid, pool) = (r.u32()?, uuid(r)?, uuid(r)?);
                Op::ContPut {
                    cont,
                    uuid,
                    pool,
                    label: r.string()?,
                    created: r.u64()?,
                }
            }
            4 => Op::ContDel { cont: r.u32()? },
            5 => {
                let (cont, name) = (r.u32()?, r.string()?);
                let (version, size, modified) = (r.u64()?, r.u64()?, r.u64()?);
                Op::HeadPut {
                    cont,
                    name,
                    head: Head {
                        version,
                        size,
                        modified,
                        pieces: r.u32()?,
                    },
                }
            }
            6 => Op::HeadDel {
                cont: r.u32()?,
                name: r.string()?,
            },
            7 => get_piece(r)?,
            8 => Op::VersionDrop {
                cont: r.u32()?,
                version: r.u64()?,
            },
            9 => {
                let (cont, version) = (r.u32()?, r.u64()?);
                Op::IntentPut {
                    cont,
                    version,
                    name: r.string()?,
                    began: r.u64()?,
                }
            }
            10 => Op::IntentDel {
                cont: r.u32()?,
                version: r.u64()?,
            },
            11 => Op::ReclaimPut {
                cont: r.u32()?,
                version: r.u64()?,
            },
            12 => Op::ReclaimDel {
                cont: r.u32()?,
                version: r.u64()?,
            },
            13 => Op::Counters {
                next_version: r.u64()?,
                next_cont: r.u32()?,
            },
            _ => return Err(Malformed),
        })
    }
}

/// Bytes of a head record in the log.
pub(crate) fn head_len(name: &str) -> u64 {
    35 + name.len() as u64
}

/// Bytes of a piece record in the log.
pub(crate) fn piece_len(extents: usize, csums: usize) -> u64 {
    25 + 12 * extents as u64 + 4 * csums as u64
}

/// Bytes that an intent counts for: what it turns into when it commits, a head and the reclaim of an old version. More
/// than its own record, so that a commit never lacks room.
pub(crate) fn intent_cost(name: &str) -> u64 {
    head_len(name) + RECLAIM_LEN
}

/// Bytes of a reclaim record in the log.
pub(crate) const RECLAIM_LEN: u64 = 13;

/// Bytes of a pool record in the log.
pub(crate) fn pool_len(label: &str) -> u64 {
    35 + label.len() as u64
}

/// Bytes of a container record in the log.
pub(crate) fn cont_len(label: &str) -> u64 {
    47 + label.len() as u64
}

pub(crate) fn put_pool(out: &mut Vec<u8>, uuid: &Uuid, label: &str, quota: u64, created: u64) {
    out.put_u8(1);
    out.extend_from_slice(uuid.as_bytes());
    out.put_string(label);
    out.put_u64(quota);
    out.put_u64(created);
}

pub(crate) fn put_cont(
    out: &mut Vec<u8>,
    cont: u32,
    uuid: &Uuid,
    pool: &Uuid,
    label: &str,
    created: u64,
) {
    out.put_u8(3);
    out.put_u32(cont);
    out.extend_from_slice(uuid.as_bytes());
    out.extend_from_slice(pool.as_bytes());
    out.put_string(label);
    out.put_u64(created);
}

pub(crate) fn put_head(out: &mut Vec<u8>, cont: u32, name: &str, head: &Head) {
    out.put_u8(5);
    out.put_u32(cont);
    out.put_string(name);
    out.put_u64(head.version);
    out.put_u64(head.size);
    out.put_u64(head.modified);
    out.put_u32(head.pieces);
}

pub(crate) fn put_piece(out: &mut Vec<u8>, cont: u32, version: u64, piece: u32, data: &Piece) {
    out.put_u8(7);
    out.put_u32(cont);
    out.put_u64(version);
    out.put_u32(piece);
    out.put_u32(data.len);
    out.put_u16(data.extents.len() as u16);
    for extent in &data.extents {
        out.put_u64(extent.start);
        out.put_u32(extent.units);
    }
    out.put_u16(data.csums.len() as u16);
    for csum in &data.csums {
        out.put_u32(*csum);
    }
}

fn get_piece(r: &mut Reader<'_>) -> Result<Op, Malformed> {
    let (cont, version, piece, len) = (r.u32()?, r.u64()?, r.u32()?, r.u32()?);
    let count = r.u16()? as usize;
    if count > EXTENTS_MAX {
        return Err(Malformed);
    }
    let extents = (0..count)
        .map(|_| {
            Ok(Extent {
                start: r.u64()?,
                units: r.u32()?,
            })
        })
        .collect::<Result<Box<[_]>, Malformed>>()?;
    let count = r.u16()? as usize;
    let csums = (0..count)
        .map(|_| r.u32())
        .collect::<Result<Box<[_]>, Malformed>>()?;
    let piece_data = Piece {
        len,
        extents,
        csums,
        pool_used: None,
    };
    Ok(Op::PiecePut {
        cont,
        version,
        piece,
        data: Rc::new(piece_data),
    })
}

pub(crate) fn put_intent(out: &mut Vec<u8>, cont: u32, version: u64, name: &str, began: u64) {
    out.put_u8(9);
    out.put_u32(cont);
    out.put_u64(version);
    out.put_string(name);
    out.put_u64(began);
}

pub(crate) fn put_version(out: &mut Vec<u8>, tag: u8, cont: u32, version: u64) {
    out.put_u8(tag);
    out.put_u32(cont);
    out.put_u64(version);
}

/// Tag of a reclaim record, for the checkpoint.
pub(crate) const RECLAIM_TAG: u8 = 11;

#[cfg(test)]
mod tests {
    use super::*;

    fn examples() -> Vec<Op> {
        let uuid = Uuid::from_u128(0x1234);
        let extents = vec![
            Extent { start: 9, units: 4 },
            Extent {
                start: 99,
                units: 1,
            },
        ];
        let csums = vec![1, u32::MAX].into();
        let data = Piece {
            len: 17_000,
            extents: extents.into(),
            csums,
            pool_used: None,
        };
        let head = Head {
            version: 1 << 48 | 7,
            size: 5 << 20,
            modified: 77,
            pieces: 5,
        };
        vec![
            Op::PoolPut {
                uuid,
                label: "p".into(),
                quota: 1 << 30,
                created: 5,
            },
            Op::PoolDel { uuid },
            Op::ContPut {
                cont: 3,
                uuid,
                pool: uuid,
                label: "c-1".into(),
                created: 6,
            },
            Op::ContDel { cont: 3 },
            Op::HeadPut {
                cont: 3,
                name: "дом/ω".into(),
                head,
            },
            Op::HeadDel {
                cont: 3,
                name: "x".into(),
            },
            Op::PiecePut {
                cont: 3,
                version: 8,
                piece: 1,
                data: Rc::new(data),
            },
            Op::VersionDrop {
                cont: 3,
                version: 8,
            },
            Op::IntentPut {
                cont: 3,
                version: 8,
                name: "n".into(),
                began: 1,
            },
            Op::IntentDel {
                cont: 3,
                version: 8,
            },
            Op::ReclaimPut {
                cont: 3,
                version: 8,
            },
            Op::ReclaimDel {
                cont: 3,
                version: 8,
            },
            Op::Counters {
                next_version: 10,
                next_cont: 4,
            },
        ]
    }

    #[test]
    fn records_read_back() {
        let mut bytes = Vec::new();
        examples().iter().for_each(|op| op.encode(&mut bytes));
        let mut r = Reader(&bytes);
        for op in examples() {
            assert_eq!(Op::decode(&mut r), Ok(op));
        }
        assert!(r.0.is_empty());
    }

    #[test]
    fn a_cut_record_is_malformed() {
        for op in examples() {
            let mut bytes = Vec::new();
            op.encode(&mut bytes);
            for cut in 0..bytes.len() {
                assert_eq!(
                    Op::decode(&mut Reader(&bytes[..cut])),
                    Err(Malformed),
                    "{op:?}"
                );
            }
        }
        assert_eq!(Op::decode(&mut Reader(&[0xee; 64])), Err(Malformed));
    }

    #[test]
    fn lengths_are_what_encoding_gives() {
        let len = |op: &Op| {
            let mut bytes = Vec::new();
            op.encode(&mut bytes);
            bytes.len() as u64
        };
        for op in examples() {
            match &op {
                Op::PoolPut { label, .. } => assert_eq!(len(&op), pool_len(label)),
                Op::ContPut { label, .. } => assert_eq!(len(&op), cont_len(label)),
                Op::HeadPut { name, .. } => assert_eq!(len(&op), head_len(name)),
                Op::PiecePut { data, .. } => {
                    assert_eq!(len(&op), piece_len(data.extents.len(), data.csums.len()));
                }
                Op::IntentPut { name, .. } => assert!(len(&op) <= intent_cost(name)),
                Op::ReclaimPut { .. } => assert_eq!(len(&op), RECLAIM_LEN),
                _ => {}
            }
        }
    }
}
