//! Per-xstream storage: keys, slots, order of construction and destruction.
//!
//! A [`KeyRegistry`] holds up to [`KEYS`] keys. A key has [`Tags`], a constructor and a destructor; when an xstream
//! starts, [`Slots::build`] makes one value for every key that shares a tag with the xstream, in ascending slot order,
//! and [`Slots::destroy`] ends them in descending order on the same OS thread. A failure undoes exactly what was made.
//!
//! Two kinds of key share the slots:
//! - [`TypedKey<T>`], for engine code: `key.get(slots)` is one indexed load and a type check;
//! - raw keys ([`RawKey`]), for modules behind the C ABI: an opaque pointer, stored and handed on, never followed here.
//!
//! The storage has the C layout of DAOS's `struct dss_thread_local_storage` ([`Storage`]) at an address that does not
//! change while it lives. [`enter`] makes it the calling OS thread's current one, so that `dss_tls_get()` is one
//! thread-local load; several xstreams can share an OS thread.
//!
//! Neighbours: `engine_loader` and `engine_host` register modules' keys, `engine_xstream` builds and destroys. Source:
//! DAOS `src/common/tls.c`, `src/engine/tls.c`.
//!
//! Thread rule: registry from any thread; [`Slots`] is `!Send` and belongs to the OS thread that built it.
//!
//! Modules: `tags` · `registry` keys · `slots` values of one xstream · `storage` the C layout · `current` the entered one.

mod current;
mod error;
mod registry;
mod slots;
mod storage;
mod tags;

pub use current::{Entered, current, current_info, current_storage, enter, switch};
pub use error::TlsError;
pub use registry::{KeyIndex, KeyRegistry, RawKey, TypedKey};
pub use slots::Slots;
pub use storage::{KEYS, Storage};
pub use tags::{Tags, XsInfo};
