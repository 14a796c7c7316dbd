//! Requests and I/Os of devices that took too long lately: what `keel slow` lists.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use drpc_wire::keel;
use engine_rpc::{SlowHook, SlowRequest};
use spdk_bdev::{SlowIo, SlowIos};

/// The newest ones are kept.
const KEPT: usize = 256;
/// Lines of the log in each second; requests are logged where they are noticed, under the same bound.
const LINES: u32 = 8;

/// A handle: clones are the same book. Written where something slow ends, which is rare: it locks.
#[derive(Clone, Default)]
pub(crate) struct SlowBook(Arc<Mutex<Book>>);

#[derive(Default)]
struct Book {
    kept: VecDeque<(Instant, keel::SlowRecord)>,
    forgotten: u64,
    gate: Gate,
}

impl SlowBook {
    /// What takes in slow requests.
    pub(crate) fn requests(&self) -> SlowHook {
        let book = self.clone();
        Arc::new(move |slow: &SlowRequest<'_>| book.note(Instant::now(), of_request(slow)))
    }

    /// What takes in and logs slow I/Os; `None` if none counts as slow.
    pub(crate) fn ios(&self, after: Duration) -> Option<SlowIos> {
        let book = self.clone();
        let tell = move |slow: &SlowIo<'_>| book.take_io(slow);
        (!after.is_zero()).then(|| SlowIos {
            after,
            tell: Arc::new(tell),
        })
    }

    fn take_io(&self, slow: &SlowIo<'_>) {
        let (now, record) = (Instant::now(), of_io(slow));
        let left_out = self.book().gate.pass(now);
        if let Some(left_out) = left_out {
            let outcome = if slow.failed { ", and failed" } else { "" };
            tracing::warn!(
                left_out,
                "slow I/O: {} on {} took {:?}{outcome}, trace {:016x}",
                record.what,
                slow.device,
                slow.took,
                slow.trace
            );
        }
        self.note(now, record);
    }

    fn note(&self, now: Instant, record: keel::SlowRecord) {
        let mut book = self.book();
        if book.kept.len() == KEPT {
            book.kept.pop_front();
            book.forgotten += 1;
        }
        book.kept.push_back((now, record));
    }

    /// All that are kept, oldest first.
    pub(crate) fn list(&self) -> keel::SlowList {
        let book = self.book();
        let record = |(at, record): &(Instant, keel::SlowRecord)| keel::SlowRecord {
            age_ms: at.elapsed().as_millis() as u64,
            ..record.clone()
        };
        keel::SlowList {
            records: book.kept.iter().map(record).collect(),
            forgotten: book.forgotten,
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn of_request(slow: &SlowRequest<'_>) -> keel::SlowRecord {
    keel::SlowRecord {
        kind: "request".to_owned(),
        what: slow.name.to_owned(),
        place: format!("tag {} from {}", slow.tag, slow.peer),
        took_us: slow.took.as_micros() as u64,
        status: slow.status,
        trace: slow.trace,
        age_ms: 0,
    }
}

fn of_io(slow: &SlowIo<'_>) -> keel::SlowRecord {
    let what = match slow.blocks {
        0 => slow.op.to_string(),
        1 => format!("{} of 1 block at {}", slow.op, slow.lba),
        blocks => format!("{} of {blocks} blocks at {}", slow.op, slow.lba),
    };
    keel::SlowRecord {
        kind: "io".to_owned(),
        what,
        place: format!("device {}", slow.device),
        took_us: slow.took.as_micros() as u64,
        status: if slow.failed {
            daos_errno::Der::IO.neg()
        } else {
            0
        },
        trace: slow.trace,
        age_ms: 0,
    }
}

/// So many lines a second, then a count of those left out.
#[derive(Default)]
struct Gate {
    since: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl Gate {
    fn pass(&mut self, now: Instant) -> Option<u64> {
        let new = self
            .since
            .is_none_or(|since| now.duration_since(since) >= Duration::from_secs(1));
        if new {
            (self.since, self.lines) = (Some(now), 0);
        }
        if self.lines >= LINES {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use spdk_bdev::Op;

    use super::*;

    fn io(lba: u64, trace: u64) -> SlowIo<'static> {
        SlowIo {
            device: "ssd0",
            op: Op::Write,
            lba,
            blocks: 8,
            took: Duration::from_millis(1500),
            trace,
            failed: lba == 0,
        }
    }

    #[test]
    fn the_newest_are_kept_and_the_others_counted() {
        let book = SlowBook::default();
        let ios = book.ios(Duration::from_secs(1)).unwrap();
        (0..300).for_each(|lba| (ios.tell)(&io(lba, 7)));
        let list = book.list();
        assert_eq!((list.records.len(), list.forgotten), (KEPT, 44));
        let first = &list.records[0];
        let shown = (first.what.as_str(), first.place.as_str(), first.took_us);
        assert_eq!(shown, ("write of 8 blocks at 44", "device ssd0", 1_500_000));
        assert_eq!(
            (first.kind.as_str(), first.trace, first.status),
            ("io", 7, 0)
        );
        assert!(book.ios(Duration::ZERO).is_none());
    }

    #[test]
    fn the_log_gets_a_few_a_second() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        let passed = (0..100).filter(|_| gate.pass(now).is_some()).count();
        assert_eq!(passed, LINES as usize);
        let later = now + Duration::from_secs(1);
        assert_eq!(gate.pass(later), Some(100 - u64::from(LINES)));
    }
}
