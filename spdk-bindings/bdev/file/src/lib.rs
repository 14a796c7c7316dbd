//! A file or kernel block device through io_uring.
