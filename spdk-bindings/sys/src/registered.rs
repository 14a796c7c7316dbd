//! [`Registered`]: memory of the process's own that SPDK's devices reach.
#![allow(unsafe_code, reason = "tells SPDK about memory")]
//! - **G1** the range consists of whole huge pages that stay mapped until the process ends: a `ReservedDma` is given out for such only.

use std::io;

use spdk_env::ReservedDma;

use crate::error::errno;
use crate::ffi;
use crate::spdk::Spdk;

/// Huge pages that the process set aside, registered with SPDK's drivers (SPDK: `spdk_mem_register`). Dropping it takes them back: after
/// the last I/O. `Send + Sync`.
#[derive(Debug)]
pub struct Registered {
    memory: ReservedDma,
    _spdk: Spdk,
}

impl Registered {
    /// Registers a range.
    ///
    /// # Errors
    /// The system's: SPDK has it already, or the IOMMU maps no more.
    pub fn new(spdk: &Spdk, memory: ReservedDma) -> io::Result<Registered> {
        // SAFETY: G1; SPDK is up, as `spdk` shows.
        let rc = unsafe { ffi::ks_mem_register(memory.as_ptr().as_ptr().cast(), memory.len()) };
        if rc != 0 {
            return Err(errno(rc));
        }
        Ok(Registered {
            memory,
            _spdk: spdk.clone(),
        })
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let Registered { memory, .. } = self;
        // SAFETY: G1; registered by `new`.
        let rc = unsafe { ffi::ks_mem_unregister(memory.as_ptr().as_ptr().cast(), memory.len()) };
        if rc != 0 {
            let why = errno(rc);
            tracing::error!(%why, "SPDK keeps memory that is not its own");
        }
    }
}
