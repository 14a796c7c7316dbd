//! One core's loop, hosting lightweight threads.
