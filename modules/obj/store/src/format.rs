//! Making a store on a device, and finding one.

use uuid::Uuid;

use crate::device::{BlockDev, Buf, Media, Run, UNIT};
use crate::error::StoreError;
use crate::frame::{self, FrameHeader, Kind};
use crate::superblock::{COPIES, Copy, FORMAT_VERSION, HEADER_UNITS, Superblock};

/// Fewest units of one log half.
const HALF_MIN: u64 = 32;
/// Most units of one log half (2 GiB).
const HALF_MAX: u64 = (2 << 30) / UNIT as u64;
/// Fewest units of the data region (1 MiB).
const DATA_MIN: u64 = 256;

/// How to format a device.
#[derive(Debug, Clone)]
pub struct FormatOptions {
    /// The engine that the device belongs to.
    pub engine: Uuid,
    /// A fresh random uuid for this format.
    pub store: Uuid,
    /// Which target of the engine.
    pub target: u32,
    /// How many targets the engine has.
    pub targets: u32,
    /// Bytes of one half of the metadata log (rounded up to 4 KiB); `None`: 1/32 of the device, 1 MiB to 2 GiB. It
    /// bounds the number of objects: about 200 bytes each, in three eighths of it.
    pub log_half_bytes: Option<u64>,
    /// Overwrite whatever the device holds.
    pub force: bool,
}

/// What the store on a device must be. A mismatch is refused.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// The engine that opens it; `None`: any.
    pub engine: Option<Uuid>,
    /// Which target of how many; `None`: any.
    pub target: Option<(u32, u32)>,
}

/// Looks at a device without changing it: `None` when it is empty (its superblock area is all zero).
///
/// # Errors
/// It holds something else, or a damaged, newer or cut-off store, or cannot be read.
pub async fn probe<D: BlockDev>(dev: D) -> Result<Option<Superblock>, StoreError> {
    let media = Media::new(dev)?;
    match find(&media).await {
        Ok((superblock, _)) => Ok(Some(superblock)),
        Err(StoreError::NotFormatted) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The superblock, and which copy needs to be written again.
pub(crate) async fn find<D: BlockDev>(
    media: &Media<D>,
) -> Result<(Superblock, Option<u64>), StoreError> {
    if media.units() < HEADER_UNITS {
        return Err(too_small(media));
    }
    let mut copies = [Copy::Zero, Copy::Zero];
    let mut failed = None;
    for (copy, unit) in copies.iter_mut().zip(COPIES) {
        match read_unit(media, unit).await {
            Ok(bytes) => *copy = Superblock::decode(&bytes),
            Err(error) => {
                *copy = Copy::Damaged;
                failed = Some(error);
            }
        }
    }
    let newer = copies.iter().find_map(|c| {
        if let Copy::Newer(v) = c {
            Some(*v)
        } else {
            None
        }
    });
    if let Some(found) = newer {
        return Err(StoreError::NewerFormat {
            found,
            supported: FORMAT_VERSION,
        });
    }
    let found = match copies {
        [Copy::Good(a), Copy::Good(b)] if a == b => (a, None),
        [Copy::Good(_), Copy::Good(_)] => return Err(StoreError::SuperblockDamaged),
        [Copy::Good(a), _] => (a, Some(COPIES[1])),
        [_, Copy::Good(b)] => (b, Some(COPIES[0])),
        _ if failed.is_some() => return Err(failed.unwrap_or(StoreError::SuperblockDamaged)),
        [Copy::Damaged, _] | [_, Copy::Damaged] => return Err(StoreError::SuperblockDamaged),
        [Copy::Zero, Copy::Zero] => return Err(empty_or_foreign(media).await),
        _ => {
            return Err(StoreError::Foreign {
                what: "its first blocks are not a superblock".into(),
            });
        }
    };
    if found.0.units > media.units() {
        let [found, expected] = [media.units(), found.0.units].map(|u| u * UNIT as u64);
        return Err(StoreError::Shrunk { found, expected });
    }
    Ok(found)
}

async fn empty_or_foreign<D: BlockDev>(media: &Media<D>) -> StoreError {
    let area = Run {
        unit: 0,
        units: HEADER_UNITS as u32,
    };
    let buf = match media.alloc(area.units) {
        Ok(buf) => media.read(&[area], buf).await,
        Err(error) => return error,
    };
    let zero = |buf: &D::Buf| {
        buf.as_slice()[..area.units as usize * UNIT]
            .iter()
            .all(|b| *b == 0)
    };
    match buf {
        Ok(buf) if zero(&buf) => StoreError::NotFormatted,
        Ok(_) => StoreError::Foreign {
            what: "there is data in its first MiB".into(),
        },
        Err(error) => error,
    }
}

async fn read_unit<D: BlockDev>(media: &Media<D>, unit: u64) -> Result<Vec<u8>, StoreError> {
    let buf = media
        .read(&[Run { unit, units: 1 }], media.alloc(1)?)
        .await?;
    Ok(buf.as_slice()[..UNIT].to_vec())
}

pub(crate) async fn write_unit<D: BlockDev>(
    media: &Media<D>,
    unit: u64,
    bytes: &[u8],
) -> Result<(), StoreError> {
    let mut buf = media.alloc(1)?;
    buf.as_mut_slice()[..UNIT].copy_from_slice(bytes);
    media
        .write(&[Run { unit, units: 1 }], buf, true)
        .await
        .map(drop)
}

fn too_small<D: BlockDev>(media: &Media<D>) -> StoreError {
    let needed = HEADER_UNITS + 2 * HALF_MIN + DATA_MIN;
    StoreError::TooSmall {
        found: media.units() * UNIT as u64,
        needed: needed * UNIT as u64,
    }
}

/// Formats a device. Interrupted at any point it leaves the device empty, or (when forced) as it was.
pub(crate) async fn format<D: BlockDev>(
    media: &Media<D>,
    options: &FormatOptions,
) -> Result<Superblock, StoreError> {
    let default = (media.units() / 32).clamp(256, HALF_MAX);
    let half_units = options.log_half_bytes.map_or(default, |bytes| {
        bytes.div_ceil(UNIT as u64).clamp(HALF_MIN, HALF_MAX)
    });
    let superblock = Superblock {
        store: options.store,
        engine: options.engine,
        target: options.target,
        targets: options.targets,
        units: media.units(),
        half_units,
    };
    if options.target >= options.targets {
        let what = format!(
            "target {} of {} does not exist",
            options.target, options.targets
        );
        return Err(StoreError::Invalid { what });
    }
    if media.units() < superblock.data_start() + DATA_MIN {
        return Err(too_small(media));
    }
    if !options.force {
        match find(media).await {
            Err(StoreError::NotFormatted) => {}
            Ok(_) => return Err(StoreError::NotEmpty),
            Err(error) => return Err(error),
        }
    }
    write_format(media, &superblock).await?;
    Ok(superblock)
}

/// The old superblock goes first, the new one comes last: in between the device counts as empty.
async fn write_format<D: BlockDev>(media: &Media<D>, sb: &Superblock) -> Result<(), StoreError> {
    let mut zero = media.alloc(HEADER_UNITS as u32)?;
    zero.as_mut_slice().fill(0);
    let area = Run {
        unit: 0,
        units: HEADER_UNITS as u32,
    };
    media.write(&[area], zero, false).await?;
    media.flush().await?;
    media.unmap(sb.data_start(), sb.data_units()).await?;
    // Half 0 begins with an empty checkpoint of generation 1, half 1 with the start of none.
    let frames = [(0, Kind::End, 1), (1, Kind::Image, 0)];
    for (half, kind, generation) in frames {
        let mut unit = vec![0; UNIT];
        let header = FrameHeader {
            kind,
            generation,
            seq: 0,
            len: 0,
        };
        frame::encode(sb.seed(), header, &[], &mut unit);
        write_unit(media, sb.half_start(half), &unit).await?;
    }
    media.flush().await?;
    for unit in COPIES.into_iter().rev() {
        write_unit(media, unit, &sb.encode()).await?;
        media.flush().await?;
    }
    Ok(())
}
