//! What a block device is: registry, descriptor, per-thread channel, I/O, errors.
