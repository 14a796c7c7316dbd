//! A target's share of its block device.

use crate::dss_buf;
use std::ffi::{c_char, c_void};

/// This target's share of its device, open on this xstream. Opaque.
#[repr(C)]
pub struct dss_bdev {
    _opaque: [u8; 0],
}

/// What the share is.
#[repr(C)]
#[derive(Debug, Clone)]
pub struct dss_bdev_info {
    /// Blocks of the share; block 0 is the share's first.
    pub num_blocks: u64,
    /// Bytes of a block.
    pub block_size: u32,
    /// Blocks of one I/O at most.
    pub max_io_blocks: u32,
    /// 1: only a flush or FUA makes a write durable.
    pub volatile_write_cache: u32,
    /// 0.
    pub reserved: u32,
    /// The device's own id.
    pub device_uuid: [u8; 16],
    /// The engine that owns the share; stores stamp it into what they format.
    pub engine_uuid: [u8; 16],
    /// NUL-terminated.
    pub device_name: [c_char; 64],
}

/// Called once per accepted I/O, on the xstream that submitted it. The buffer comes back.
pub type dss_bdev_done_t = Option<unsafe extern "C" fn(arg: *mut c_void, rc: i32, buf: dss_buf)>;

/// One I/O.
#[repr(C)]
#[derive(Debug)]
pub struct dss_bdev_io {
    /// `DSS_BDEV_READ` ...
    pub op: u32,
    /// `DSS_BDEV_FUA`.
    pub flags: u32,
    /// First block of the share.
    pub lba: u64,
    /// Number of blocks.
    pub blocks: u32,
    /// 0.
    pub reserved: u32,
    /// Moves to the engine when the submission is accepted; empty where the op has no data.
    pub buf: dss_buf,
    /// Completion.
    pub done: dss_bdev_done_t,
    /// Its argument.
    pub arg: *mut c_void,
}
