//! [`Monitor`]: when a device is faulty (DAOS `src/bio/bio_monitor.c`, `src/bio/bio_recovery.c`).

/// What makes a device faulty by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Criteria {
    /// Whether any error does; removal and stalls always do.
    pub enabled: bool,
    /// More read and write errors than this; 0 is no limit.
    pub max_io_errs: u64,
    /// More checksum errors than this; 0 is no limit.
    pub max_csum_errs: u64,
}

impl Default for Criteria {
    /// DAOS's: 10 I/O errors, checksum errors do not count.
    fn default() -> Criteria {
        Criteria {
            enabled: true,
            max_io_errs: 10,
            max_csum_errs: 0,
        }
    }
}

/// What was counted on a device since the engine started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sample {
    /// Reads that failed.
    pub read_errors: u64,
    /// Writes that failed.
    pub write_errors: u64,
    /// Blocks whose checksum was wrong.
    pub checksum_errors: u64,
    /// I/Os that did not complete in time and were not saved by abort and reset, and controllers given up.
    pub stalled: u64,
    /// The device is gone.
    pub gone: bool,
}

/// Why a device is faulty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Faulty {
    /// Too many I/O errors.
    #[error("{errors} reads and writes failed, more than {limit}")]
    IoErrors {
        /// Counted.
        errors: u64,
        /// Allowed.
        limit: u64,
    },
    /// Too many checksum errors.
    #[error("{errors} checksums were wrong, more than {limit}")]
    ChecksumErrors {
        /// Counted.
        errors: u64,
        /// Allowed.
        limit: u64,
    },
    /// I/O stalled.
    #[error("I/O stalled")]
    Stalled,
}

/// Between looks while all is well, and while something is not, in seconds.
const CALM: u64 = 60;
const ALERT: u64 = 3;

/// Watches one device. Errors that were counted before it was put back into use do not count again.
#[derive(Debug, Clone, Default)]
pub struct Monitor {
    criteria: Criteria,
    base: Sample,
    last: Sample,
}

impl Monitor {
    /// A monitor with these criteria.
    #[must_use]
    pub fn new(criteria: Criteria) -> Monitor {
        Monitor {
            criteria,
            ..Monitor::default()
        }
    }

    /// Looks at what was counted. A device that is gone is not faulty: it may come back with its data.
    pub fn look(&mut self, now: Sample) -> Option<Faulty> {
        self.last = now;
        if now.gone {
            return None;
        }
        let since = |now: u64, base: u64| now.saturating_sub(base);
        if since(now.stalled, self.base.stalled) > 0 {
            return Some(Faulty::Stalled);
        }
        let errors = since(now.read_errors, self.base.read_errors)
            .saturating_add(since(now.write_errors, self.base.write_errors));
        let Criteria {
            enabled,
            max_io_errs,
            max_csum_errs,
        } = self.criteria;
        if enabled && max_io_errs != 0 && errors > max_io_errs {
            return Some(Faulty::IoErrors {
                errors,
                limit: max_io_errs,
            });
        }
        let errors = since(now.checksum_errors, self.base.checksum_errors);
        if enabled && max_csum_errs != 0 && errors > max_csum_errs {
            return Some(Faulty::ChecksumErrors {
                errors,
                limit: max_csum_errs,
            });
        }
        None
    }

    /// The device was put back into use: counting starts anew.
    pub fn readmitted(&mut self) {
        self.base = self.last;
    }

    /// Seconds until the next look (DAOS: 60, and 3 while a device is not normal).
    #[must_use]
    pub fn period(all_normal: bool) -> u64 {
        if all_normal { CALM } else { ALERT }
    }
}
