//! SPDK's lightweight thread: messages, pollers, I/O channels, tasks.
