//! One target's store: log, index, extents, checksums, recovery.
