//! [`Bdev`]: an open block device of SPDK's.
#![allow(unsafe_code, reason = "opens and closes descriptors")]
//! - **B1** `Opened::raw` is open from `ks_bdev_open` until `Closing` has run on the app thread, which is where it was opened. `Opened` closes
//!   it when the last `Bdev` and `Channel` are gone.
//! - **B2** the argument of events is the `Sink` of the device; SPDK uses it on the app thread until the close there, and it is dropped
//!   there after the close.

use core::ffi::{CStr, c_int, c_void};
use core::fmt;
use core::ptr::{self, NonNull};
use std::ffi::CString;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::{OpenError, errno};
use crate::ffi;
use crate::spdk::Spdk;
use crate::thread::contained;

/// Something happened to an open device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It is to go: new I/O is refused ([`crate::Refused::Removed`]). SPDK waits for its channels and then its descriptor to be let go of.
    Removed,
    /// It has this many blocks now.
    Resized(u64),
}

/// Size, shape and abilities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Blocks, when it was opened.
    pub num_blocks: u64,
    /// Bytes per block.
    pub block_size: u32,
    /// I/O that stays within multiples of so many blocks is not split.
    pub optimal_io_blocks: u32,
    /// Bytes that buffers must be aligned to; at most a page.
    pub buf_align: u32,
    /// Its identity.
    pub uuid: [u8; 16],
    /// The module that drives it: `malloc`, `nvme`, ...
    pub module: String,
    /// Whether it takes writes.
    pub writes: bool,
    /// Whether it takes unmaps.
    pub unmaps: bool,
    /// Whether it takes flushes.
    pub flushes: bool,
    /// Whether it writes zeroes, by itself or with SPDK's help.
    pub writes_zeroes: bool,
    /// Whether completed writes may be lost on power failure until a flush.
    pub has_write_cache: bool,
    /// Whether it is on an NVMe controller, which takes admin commands ([`Bdev::ask_controller`]).
    pub takes_admin: bool,
    /// Its number on that controller; 0: it is no namespace.
    pub nsid: u32,
}

type OnEvent = Box<dyn Fn(Event) + Send + Sync>;

struct Sink {
    state: Arc<State>,
    on_event: OnEvent,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) removed: AtomicBool,
    num_blocks: AtomicU64,
}

pub(crate) struct Opened {
    raw: NonNull<ffi::Desc>,
    sink: NonNull<Sink>,
    pub(crate) state: Arc<State>,
    pub(crate) name: String,
    pub(crate) facts: Facts,
    spdk: Spdk,
}

// SAFETY: B1: the descriptor is used for channels only, by whoever has a thread of SPDK's; SPDK locks it. `sink` is only passed on.
unsafe impl Send for Opened {}
// SAFETY: as above.
unsafe impl Sync for Opened {}

impl Opened {
    pub(crate) fn raw(&self) -> NonNull<ffi::Desc> {
        self.raw
    }

    pub(crate) fn spdk(&self) -> &Spdk {
        &self.spdk
    }
}

/// What closes: moved to the app thread.
struct Closing(NonNull<ffi::Desc>, NonNull<Sink>);

// SAFETY: B1: made by the last owner of both, used once.
unsafe impl Send for Closing {}

impl Closing {
    fn run(self) {
        // SAFETY: B1, B2: on the app thread; no channel is left, since those hold `Opened`.
        unsafe {
            ffi::ks_bdev_close(self.0.as_ptr());
            drop(Box::from_raw(self.1.as_ptr()));
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let closing = Closing(self.raw, self.sink);
        if !self.spdk.on_app(Box::new(move || closing.run())) {
            // Better open for ever than closed on the wrong thread.
            tracing::error!(
                device = self.name,
                "SPDK's app thread does not answer: a device stays open"
            );
        }
    }
}

/// An open block device (`struct spdk_bdev_desc`). `Clone + Send + Sync`; the last clone and the last [`crate::Channel`] close it, on the app
/// thread.
#[derive(Clone)]
pub struct Bdev {
    opened: Arc<Opened>,
}

impl Bdev {
    /// Opens a device. `on_event` is called on the app thread and should only pass on what it hears. Waits for the app thread: not for
    /// reactors, and not from inside `on_event`.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(
        spdk: &Spdk,
        name: &str,
        write: bool,
        on_event: impl Fn(Event) + Send + Sync + 'static,
    ) -> Result<Bdev, OpenError> {
        let state = Arc::new(State {
            removed: AtomicBool::new(false),
            num_blocks: AtomicU64::new(0),
        });
        let sink = Box::new(Sink {
            state: Arc::clone(&state),
            on_event: Box::new(on_event),
        });
        let own = spdk.clone();
        let asked = name.to_owned();
        spdk.call(move || open(own, asked, write, state, sink))
            .unwrap_or(Err(OpenError::Stopping))
    }

    /// The names of all devices there are.
    #[must_use]
    pub fn names(spdk: &Spdk) -> Vec<String> {
        spdk.call(names).unwrap_or_default()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.opened.name
    }

    /// Size, shape and abilities.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.opened.facts
    }

    /// Its size now, in blocks.
    #[must_use]
    pub fn num_blocks(&self) -> u64 {
        self.opened.state.num_blocks.load(Ordering::Acquire)
    }

    /// Whether it is to go.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.opened.state.removed.load(Ordering::Acquire)
    }

    pub(crate) fn opened(&self) -> &Arc<Opened> {
        &self.opened
    }
}

impl fmt::Debug for Bdev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bdev({:?})", self.opened.name)
    }
}

unsafe extern "C" fn happened(event: c_int, num_blocks: u64, sink: *mut c_void) {
    // SAFETY: B2.
    let sink = unsafe { &*sink.cast_const().cast::<Sink>() };
    let event = if event == 0 {
        sink.state.removed.store(true, Ordering::Release);
        Event::Removed
    } else {
        sink.state.num_blocks.store(num_blocks, Ordering::Release);
        Event::Resized(num_blocks)
    };
    contained(|| (sink.on_event)(event));
}

/// On the app thread.
fn open(
    spdk: Spdk,
    name: String,
    write: bool,
    state: Arc<State>,
    sink: Box<Sink>,
) -> Result<Bdev, OpenError> {
    let Ok(c_name) = CString::new(name.as_str()) else {
        let known = names();
        return Err(OpenError::NotFound { name, known });
    };
    let sink = NonNull::from(Box::leak(sink));
    let mut raw = ptr::null_mut();
    // SAFETY: on the app thread; B2.
    let rc = unsafe {
        ffi::ks_bdev_open(
            c_name.as_ptr(),
            c_int::from(write),
            happened,
            sink.as_ptr().cast(),
            &raw mut raw,
        )
    };
    let Some(raw) = NonNull::new(raw).filter(|_| rc == 0) else {
        // SAFETY: leaked above, and SPDK has not kept it: it did not open.
        drop(unsafe { Box::from_raw(sink.as_ptr()) });
        let error = errno(rc);
        return Err(match error.raw_os_error() {
            Some(ENODEV) => OpenError::NotFound {
                name,
                known: names(),
            },
            Some(EPERM) => OpenError::Claimed { name },
            _ => OpenError::Other { name, why: error },
        });
    };
    match facts(raw) {
        Ok(facts) => {
            state.num_blocks.store(facts.num_blocks, Ordering::Release);
            let opened = Opened {
                raw,
                sink,
                state,
                name,
                facts,
                spdk,
            };
            Ok(Bdev {
                opened: Arc::new(opened),
            })
        }
        Err(why) => {
            Closing(raw, sink).run();
            Err(OpenError::Unusable { name, why })
        }
    }
}

const EPERM: i32 = 1;
const ENODEV: i32 = 19;

fn facts(raw: NonNull<ffi::Desc>) -> Result<Facts, String> {
    let mut found = ffi::BdevFacts {
        num_blocks: 0,
        block_size: 0,
        optimal_io_blocks: 0,
        md_size: 0,
        buf_align: 0,
        uuid: [0; 16],
        abilities: 0,
        nsid: 0,
        module: [0; 44],
    };
    // SAFETY: B1; the shim fills all of it.
    unsafe { ffi::ks_bdev_facts(raw.as_ptr(), &raw mut found) };
    if found.md_size != 0 {
        return Err(format!(
            "it has {} bytes of metadata in each block, which is not supported: format it without",
            found.md_size
        ));
    }
    if found.buf_align as usize > spdk_env::PAGE {
        return Err(format!(
            "it wants buffers aligned to {} bytes, more than a page",
            found.buf_align
        ));
    }
    let can = |bit: u32| found.abilities & bit != 0;
    if can(64) {
        return Err(
            "its SSD has a volatile write cache, and SPDK was told to answer flushes without sending them: \
             `enable_flush` of bdev_nvme_set_options must be true, or be left out"
                .to_owned(),
        );
    }
    let module = CStr::from_bytes_until_nul(&found.module)
        .map(|text| text.to_string_lossy().into_owned())
        .unwrap_or_default();
    Ok(Facts {
        num_blocks: found.num_blocks,
        block_size: found.block_size,
        optimal_io_blocks: found.optimal_io_blocks,
        buf_align: found.buf_align,
        uuid: found.uuid,
        module,
        writes: can(1),
        unmaps: can(2),
        flushes: can(4),
        writes_zeroes: can(8),
        has_write_cache: can(16),
        takes_admin: can(32),
        nsid: found.nsid,
    })
}

fn names() -> Vec<String> {
    let mut names = Vec::new();
    let mut name = [0_u8; 256];
    // SAFETY: on the app thread; the buffer has the announced length, and a zero in it afterwards.
    while unsafe { ffi::ks_bdev_name(names.len(), name.as_mut_ptr().cast(), name.len()) } == 0 {
        let text = CStr::from_bytes_until_nul(&name).unwrap_or_default();
        names.push(text.to_string_lossy().into_owned());
    }
    names
}
