//! Scrubbing: reading what nobody asks for, to find damage before somebody does.

use std::ops::Bound::{Excluded, Unbounded};

use crate::device::BlockDev;
use crate::error::{DataDamage, StoreError};
use crate::store::Store;

/// How far a scrub has come. Begin with the default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScrubCursor {
    cont: u32,
    last: Option<(u64, u32)>,
}

/// One scrubbed piece.
#[derive(Debug)]
pub struct Scrubbed {
    /// Where to go on.
    pub next: ScrubCursor,
    /// Bytes that were read and verified.
    pub bytes: u64,
    /// [`StoreError::Csum`], or a device that could not read it.
    pub damage: Option<StoreError>,
}

impl<D: BlockDev> Store<D> {
    /// Verifies the next piece; `None` at the end.
    pub async fn scrub_one(&self, at: ScrubCursor) -> Option<Scrubbed> {
        let (key, piece, place) = {
            let index = self.0.index.borrow();
            let (id, c, key, piece) = index.conts.range(at.cont..).find_map(|(id, c)| {
                let last = at.last.filter(|_| *id == at.cont);
                let from = last.map_or(Unbounded, Excluded);
                let (key, piece) = c.pieces.range((from, Unbounded)).next()?;
                Some((*id, c, *key, piece.clone()))
            })?;
            ((id, key), piece, (c.pool, c.uuid))
        };
        let (cont, (version, number)) = key;
        let bytes = u64::from(piece.len);
        let whose = |chunk, unit| DataDamage {
            pool: place.0,
            cont: place.1,
            object: self.name_of(cont, version),
            version,
            piece: number,
            chunk,
            unit,
        };
        let range = (0, piece.len);
        let damage = self.0.read_piece(piece, range, whose).await.err();
        self.0.index.borrow_mut().sweep();
        Some(Scrubbed {
            next: ScrubCursor {
                cont,
                last: Some((version, number)),
            },
            bytes,
            damage,
        })
    }

    /// The object that has this version, if its head is here. Slow: only for reports of damage.
    fn name_of(&self, cont: u32, version: u64) -> String {
        let index = self.0.index.borrow();
        let heads = index.conts.get(&cont).into_iter().flat_map(|c| &c.heads);
        let mut of_version = heads.filter(|(_, head)| head.version == version);
        of_version.next().map_or_else(
            || "(named on another target)".into(),
            |(n, _)| n.to_string(),
        )
    }
}
