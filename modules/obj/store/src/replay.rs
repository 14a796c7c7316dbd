//! Reading the log at open: which half is the log, what it says, and whether anything is missing.
//!
//! Group commits are strictly serial: frame n + 1 is written only when n is durable. A valid frame after an invalid one
//! is therefore never a power cut: something that was acknowledged is damaged, and the store refuses to open.

use crate::codec::Reader;
use crate::device::{BlockDev, Buf, Media, Run, UNIT};
use crate::error::StoreError;
use crate::frame::{self, FRAME_MAX, FrameHeader, Kind};
use crate::index::Index;
use crate::record::Op;
use crate::superblock::Superblock;

/// Units read at once; more than the largest frame.
const WINDOW: u64 = 256;
const _: () = assert!(WINDOW as usize * UNIT >= 4 * FRAME_MAX);

/// Where the log goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tail {
    pub(crate) half: u8,
    pub(crate) generation: u64,
    /// Number of the next frame.
    pub(crate) seq: u64,
    /// Unit in the half of the next frame.
    pub(crate) next: u64,
    /// Highest generation that either half was ever given.
    pub(crate) newest: u64,
}

/// What one pass over a half found.
struct Scan {
    /// Generation of the half's first frame, if that is valid.
    generation: Option<u64>,
    /// The chain of frames reached an end frame: the checkpoint is whole.
    complete: bool,
    /// Where the chain broke off.
    seq: u64,
    next: u64,
}

/// A half of the log, read through a window.
struct HalfReader<'a, D: BlockDev> {
    media: &'a Media<D>,
    sb: &'a Superblock,
    half: u8,
    first: u64,
    window: Vec<u8>,
}

impl<'a, D: BlockDev> HalfReader<'a, D> {
    fn new(media: &'a Media<D>, sb: &'a Superblock, half: u8) -> Self {
        Self {
            media,
            sb,
            half,
            first: 0,
            window: Vec::new(),
        }
    }

    /// The bytes from `unit` of the half on: a largest frame's worth unless the half ends before.
    async fn at(&mut self, unit: u64) -> Result<&[u8], StoreError> {
        let need = (FRAME_MAX / UNIT) as u64;
        let last = (unit + need).min(self.sb.half_units);
        let have = self.first + (self.window.len() / UNIT) as u64;
        if unit < self.first || last > have {
            let units = WINDOW.min(self.sb.half_units - unit) as u32;
            let run = Run {
                unit: self.sb.half_start(self.half) + unit,
                units,
            };
            let buf = self.media.read(&[run], self.media.alloc(units)?).await?;
            self.window.clear();
            self.window
                .extend_from_slice(&buf.as_slice()[..units as usize * UNIT]);
            self.first = unit;
        }
        Ok(&self.window[(unit - self.first) as usize * UNIT..])
    }

    async fn frame(&mut self, unit: u64) -> Result<Option<(FrameHeader, &[u8])>, StoreError> {
        if unit >= self.sb.half_units {
            return Ok(None);
        }
        let seed = self.sb.seed();
        Ok(frame::decode(seed, self.at(unit).await?))
    }

    /// The first unit from `from` on, below `to`, that starts a valid frame which `wanted` accepts.
    async fn search(
        &mut self,
        from: u64,
        to: u64,
        wanted: impl Fn(&FrameHeader) -> bool,
    ) -> Result<Option<u64>, StoreError> {
        for unit in from..to.min(self.sb.half_units) {
            let bytes = self.at(unit).await?;
            let candidate = frame::peek(&bytes[..UNIT]).is_some_and(|h| wanted(&h));
            if candidate && self.frame(unit).await?.is_some() {
                return Ok(Some(unit));
            }
        }
        Ok(None)
    }

    /// Follows the chain of frames from the start of the half, giving each to `visit`.
    async fn scan(
        &mut self,
        mut visit: impl FnMut(FrameHeader, &[u8], u64) -> Result<(), StoreError>,
    ) -> Result<Scan, StoreError> {
        let mut scan = Scan {
            generation: None,
            complete: false,
            seq: 0,
            next: 0,
        };
        while let Some((header, records)) = self.frame(scan.next).await? {
            let generation = *scan.generation.get_or_insert(header.generation);
            // Frames of an interrupted earlier attempt at the same checkpoint may follow the end: they are not the log.
            let fits = (header.kind == Kind::Records) == scan.complete;
            if header.generation != generation || header.seq != scan.seq || !fits {
                break;
            }
            visit(header, records, scan.next)?;
            scan.complete |= header.kind == Kind::End;
            scan.seq += 1;
            scan.next += u64::from(header.units());
        }
        Ok(scan)
    }
}

fn damaged(sb: &Superblock, half: u8, unit: u64, why: &str) -> StoreError {
    StoreError::LogDamaged {
        half,
        unit: sb.half_start(half) + unit,
        why: why.to_owned(),
    }
}

/// Finds the log and applies it to an empty index.
pub(crate) async fn replay<D: BlockDev>(
    media: &Media<D>,
    sb: &Superblock,
) -> Result<(Index, Tail), StoreError> {
    let (tail, mut index) = (locate(media, sb).await?, Index::new());
    let scan = HalfReader::new(media, sb, tail.half)
        .scan(|header, records, unit| {
            let mut r = Reader(records);
            while !r.0.is_empty() {
                let malformed = |_| damaged(sb, tail.half, unit, "a record makes no sense");
                index.apply(Op::decode(&mut r).map_err(malformed)?);
            }
            debug_assert_eq!(header.generation, tail.generation);
            Ok(())
        })
        .await?;
    debug_assert_eq!((scan.seq, scan.next), (tail.seq, tail.next));
    index.finish_replay(sb.data_units()).map_err(|overlap| {
        let why = format!("two pieces claim data block {}", overlap.0.start);
        damaged(sb, tail.half, 0, &why)
    })?;
    Ok((index, tail))
}

/// The half with the newest whole checkpoint, if nothing newer or later was lost.
async fn locate<D: BlockDev>(media: &Media<D>, sb: &Superblock) -> Result<Tail, StoreError> {
    let mut scans = Vec::with_capacity(2);
    for half in 0..2 {
        scans.push(
            HalfReader::new(media, sb, half)
                .scan(|_, _, _| Ok(()))
                .await?,
        );
    }
    let whole = (0..2u8).filter(|h| scans[usize::from(*h)].complete);
    let newest = whole.max_by_key(|h| scans[usize::from(*h)].generation);
    for half in 0..2u8 {
        let scan = &scans[usize::from(half)];
        if !scan.complete {
            let active = newest
                .and_then(|h| scans[usize::from(h)].generation)
                .unwrap_or(0);
            lost_checkpoint(media, sb, half, scan, active).await?;
        }
    }
    let Some(half) = newest else {
        return Err(damaged(sb, 0, 0, "neither half has a whole checkpoint"));
    };
    let scan = &scans[usize::from(half)];
    let generation = scan.generation.unwrap_or(0);
    let later =
        |h: &FrameHeader| h.kind == Kind::Records && h.generation == generation && h.seq > scan.seq;
    let window = scan.next + WINDOW;
    let found = HalfReader::new(media, sb, half)
        .search(scan.next, window, later)
        .await?;
    if found.is_some() {
        return Err(damaged(
            sb,
            half,
            scan.next,
            "a record is unreadable and later ones are there",
        ));
    }
    let newest = scans
        .iter()
        .filter_map(|s| s.generation)
        .fold(generation, u64::max);
    Ok(Tail {
        half,
        generation,
        seq: scan.seq,
        next: scan.next,
        newest,
    })
}

/// A half without a whole checkpoint is an interrupted one, unless it went on after its end frame: then it was the log.
async fn lost_checkpoint<D: BlockDev>(
    media: &Media<D>,
    sb: &Superblock,
    half: u8,
    scan: &Scan,
    active: u64,
) -> Result<(), StoreError> {
    if scan.generation.is_some_and(|g| g <= active) {
        return Ok(());
    }
    let was_log =
        |h: &FrameHeader| h.generation > active && matches!(h.kind, Kind::End | Kind::Records);
    let mut reader = HalfReader::new(media, sb, half);
    match reader.search(scan.next, sb.half_units, was_log).await? {
        Some(_) => Err(damaged(sb, half, scan.next, "its checkpoint is unreadable")),
        None => Ok(()),
    }
}
