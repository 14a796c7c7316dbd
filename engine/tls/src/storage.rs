//! The storage as C sees it.

use std::cell::Cell;
use std::ffi::c_void;
use std::ptr;

use crate::Tags;

/// Slots of one xstream: keys in one engine (DAOS has 10).
pub const KEYS: usize = 64;
const _: () = assert!(KEYS.is_power_of_two(), "slots are masked");

/// One xstream's values, with the layout of C's `struct dss_thread_local_storage`. Written by [`crate::Slots`] only.
#[repr(C)]
#[derive(Debug)]
pub struct Storage {
    tag: Cell<u32>,
    nr: Cell<u32>,
    values: [Cell<*mut c_void>; KEYS],
}

impl Storage {
    pub(crate) fn new(tags: Tags) -> Storage {
        Storage {
            tag: Cell::new(tags.0),
            nr: Cell::new(KEYS as u32),
            values: [const { Cell::new(ptr::null_mut()) }; KEYS],
        }
    }

    pub(crate) fn set(&self, slot: usize, value: *mut c_void) {
        self.values[slot].set(value);
    }

    #[inline]
    pub(crate) fn get(&self, slot: usize) -> *mut c_void {
        self.values.get(slot).map_or(ptr::null_mut(), Cell::get)
    }
}

#[cfg(test)]
mod tests {
    use std::mem::{align_of, offset_of, size_of};

    use super::*;

    #[test]
    fn the_layout_is_the_one_of_the_c_header() {
        assert_eq!(offset_of!(Storage, tag), 0);
        assert_eq!(offset_of!(Storage, nr), 4);
        assert_eq!(offset_of!(Storage, values), 8);
        assert_eq!(size_of::<Storage>(), 8 + KEYS * size_of::<*mut c_void>());
        assert_eq!(align_of::<Storage>(), align_of::<*mut c_void>());
    }
}
