//! One thread of load.

use std::io::Cursor;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use obj_client::{ObjError, PutOptions};
use rand::rngs::SmallRng;
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};

use crate::record::Slot;
use crate::{Options, bytes, container, is_end};

/// Puts, replaces and removes until the engine is gone, or it is told to stop, or no name is left whose last request is settled. Says
/// after each acknowledgement that it works. Gives their number.
pub(crate) fn work(
    address: &str,
    seed: u64,
    options: Options,
    slots: &mut [Slot],
    works: &mpsc::Sender<()>,
    stop: &AtomicBool,
) -> Result<u64, ObjError> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let cont = match container(address) {
        Ok(cont) => cont,
        Err(error) if is_end(&error) => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut acknowledged = 0;
    while !stop.load(Ordering::Relaxed) {
        let settled = slots.iter_mut().filter(|slot| !slot.is_open());
        let Some(slot) = settled.choose(&mut rng) else {
            return Ok(acknowledged);
        };
        let remove = slot.exists() && rng.random_ratio(1, 4);
        let new = (!remove).then(|| (rng.random(), size(&mut rng, options.largest)));
        slot.asked(new);
        let result = match new {
            None => cont.remove(&slot.name).map(drop),
            Some((seed, len)) => {
                let mut source = Cursor::new(bytes(seed, len));
                let put = cont.put(&slot.name, &mut source, PutOptions::default());
                put.map(drop)
            }
        };
        match result {
            Ok(()) => {
                slot.answered();
                acknowledged += 1;
                let _ = works.send(());
            }
            Err(error) if is_end(&error) => return Ok(acknowledged),
            Err(ObjError::Engine { .. }) if options.failures => slot.failed(),
            Err(error) => return Err(error),
        }
    }
    Ok(acknowledged)
}

/// Empty ones, small ones, those of one piece and those of several.
fn size(rng: &mut SmallRng, largest: usize) -> usize {
    let piece = 1 << 20;
    let size = match rng.random_range(0..10) {
        0 => 0,
        1..5 => rng.random_range(1..64 << 10),
        5..8 => rng.random_range(64 << 10..=piece),
        _ => rng.random_range(piece + 1..=largest.max(piece + 1)),
    };
    size.min(largest)
}
