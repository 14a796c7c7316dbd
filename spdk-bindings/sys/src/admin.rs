//! Admin commands for the controller under a device.
#![allow(unsafe_code, reason = "gives a command to SPDK and reads its answer")]
//! - **N1** the argument of `done` is a leaked `Asked`, which SPDK gives back exactly once when it has taken the command, and not at all
//!   otherwise. It holds the descriptor until then.

use core::ffi::{c_int, c_void};
use core::slice;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use crate::bdev::{Bdev, Opened};
use crate::error::errno;
use crate::ffi;
use crate::thread::contained;

type Answer = io::Result<Vec<u8>>;

/// Who waits for an answer.
struct Asked {
    answer: Sender<Answer>,
    _opened: Arc<Opened>,
}

impl Bdev {
    /// Asks the NVMe controller under the device: `command` is a submission entry (64 bytes, little-endian words) that reads `length` bytes.
    /// Waits at most `patience`; not for reactors, and not from inside an event.
    ///
    /// # Errors
    /// `EIO` when the controller refuses, `ETIMEDOUT` when it does not answer; [`crate::Facts::takes_admin`] says whether there is one.
    pub fn ask_controller(
        &self,
        command: [u64; 8],
        length: usize,
        patience: Duration,
    ) -> io::Result<Vec<u8>> {
        let (answer, answered) = channel();
        let opened = Arc::clone(self.opened());
        let sent = self.opened().spdk().on_app(Box::new(move || {
            let refused = answer.clone();
            let asked = Asked {
                answer,
                _opened: Arc::clone(&opened),
            };
            if let Err(why) = begin(&opened, command.map(u64::to_le), length, asked) {
                // Whoever asked may have given up.
                let _ = refused.send(Err(why));
            }
        }));
        if !sent {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        answered
            .recv_timeout(patience)
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// On the app thread.
fn begin(opened: &Opened, command: [u64; 8], length: usize, asked: Asked) -> io::Result<()> {
    let arg = Box::into_raw(Box::new(asked));
    // SAFETY: the descriptor is open, and this is the thread that opened it (B1 of bdev.rs); the command is read during the call; N1.
    let rc = unsafe {
        ffi::ks_bdev_admin(
            opened.raw().as_ptr(),
            command.as_ptr().cast(),
            length,
            done,
            arg.cast(),
        )
    };
    if rc != 0 {
        // SAFETY: N1: not taken, so nobody else has it.
        drop(unsafe { Box::from_raw(arg) });
        return Err(errno(rc));
    }
    Ok(())
}

unsafe extern "C" fn done(status: c_int, data: *const c_void, length: usize, asked: *mut c_void) {
    // SAFETY: N1.
    let asked = unsafe { Box::from_raw(asked.cast::<Asked>()) };
    contained(|| {
        let answer = match status {
            // SAFETY: the shim says that `length` bytes are valid for the call.
            0 => Ok(unsafe { slice::from_raw_parts(data.cast::<u8>(), length) }.to_vec()),
            _ => Err(errno(status)),
        };
        let _ = asked.answer.send(answer);
        drop(asked);
    });
}
