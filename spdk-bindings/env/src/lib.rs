//! The machine: cores, clock, DMA memory, wake-ups, kernel I/O. The only crate that maps memory or touches a device.
