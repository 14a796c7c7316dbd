//! The functions of `shim/`, by hand: they are ours, and so are the two structs.
#![allow(unsafe_code, reason = "declares the functions of the shim")]

use core::ffi::{c_char, c_int, c_void};

/// `struct spdk_thread`.
#[repr(C)]
pub(crate) struct Thread {
    _opaque: [u8; 0],
}

/// `struct spdk_poller`.
#[repr(C)]
pub(crate) struct Poller {
    _opaque: [u8; 0],
}

/// `struct ks_desc`.
#[repr(C)]
pub(crate) struct Desc {
    _opaque: [u8; 0],
}

/// `struct ks_channel`.
#[repr(C)]
pub(crate) struct Channel {
    _opaque: [u8; 0],
}

/// `struct ks_bdev_facts`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct BdevFacts {
    pub(crate) num_blocks: u64,
    pub(crate) block_size: u32,
    pub(crate) optimal_io_blocks: u32,
    pub(crate) md_size: u32,
    pub(crate) buf_align: u32,
    pub(crate) uuid: [u8; 16],
    pub(crate) abilities: u32,
    pub(crate) nsid: u32,
    pub(crate) module: [u8; 44],
}

/// `struct ks_done`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Done {
    pub(crate) tag: u32,
    pub(crate) status: i32,
}

pub(crate) type LogFn = unsafe extern "C" fn(c_int, *const c_char, *const c_char, usize);
pub(crate) type EventFn = unsafe extern "C" fn(c_int, u64, *mut c_void);
pub(crate) type AdminFn = unsafe extern "C" fn(c_int, *const c_void, usize, *mut c_void);
pub(crate) type StepFn = unsafe extern "C" fn(c_int, c_int, *mut c_void);

// A machine without SPDK checks types and lints here; there is nothing to link then.
unsafe extern "C" {
    pub(crate) fn ks_log_open(log: LogFn) -> c_int;
    pub(crate) fn ks_log_set_level(level: c_int);
    pub(crate) fn ks_version_of_headers() -> u32;
    pub(crate) fn ks_version_of_library() -> u32;
    pub(crate) fn ks_modules_load(missing: *mut c_char, length: usize) -> c_int;
    pub(crate) fn ks_env_init(
        name: *const c_char,
        core_mask: *const c_char,
        memory_mib: c_int,
        no_huge: c_int,
        pci: *const *const c_char,
        pci_count: usize,
        again: c_int,
    ) -> c_int;
    pub(crate) fn ks_env_fini();
    pub(crate) fn ks_ticks() -> u64;
    pub(crate) fn ks_ticks_hz() -> u64;
    pub(crate) fn ks_dma_alloc(size: usize, align: usize, numa: c_int) -> *mut c_void;
    pub(crate) fn ks_dma_free(memory: *mut c_void);
    pub(crate) fn ks_mem_register(start: *mut c_void, length: usize) -> c_int;
    pub(crate) fn ks_mem_unregister(start: *mut c_void, length: usize) -> c_int;

    pub(crate) fn ks_thread_lib_init(interrupt_mode: c_int) -> c_int;
    pub(crate) fn ks_thread_lib_fini();
    pub(crate) fn ks_thread_create(name: *const c_char) -> *mut Thread;
    pub(crate) fn ks_thread_enter(thread: *mut Thread) -> *mut Thread;
    pub(crate) fn ks_thread_poll(thread: *mut Thread, max_messages: u32) -> c_int;
    pub(crate) fn ks_thread_send(
        thread: *const Thread,
        f: unsafe extern "C" fn(*mut c_void),
        arg: *mut c_void,
    );
    pub(crate) fn ks_thread_next_expiration(thread: *mut Thread) -> u64;
    pub(crate) fn ks_thread_has_active_pollers(thread: *mut Thread) -> c_int;
    pub(crate) fn ks_thread_interrupt_fd(thread: *mut Thread) -> c_int;
    pub(crate) fn ks_thread_exit(thread: *mut Thread);
    pub(crate) fn ks_thread_is_exited(thread: *mut Thread) -> c_int;
    pub(crate) fn ks_thread_destroy(thread: *mut Thread);

    pub(crate) fn ks_poller_register(
        f: unsafe extern "C" fn(*mut c_void) -> c_int,
        arg: *mut c_void,
        period_us: u64,
        name: *const c_char,
    ) -> *mut Poller;
    pub(crate) fn ks_poller_unregister(poller: *mut Poller);
    pub(crate) fn ks_poller_pause(poller: *mut Poller);
    pub(crate) fn ks_poller_resume(poller: *mut Poller);

    pub(crate) fn ks_subsystems_start(
        json: *const c_char,
        length: usize,
        done: StepFn,
        arg: *mut c_void,
    ) -> c_int;
    pub(crate) fn ks_config_load(
        json: *const c_char,
        length: usize,
        done: StepFn,
        arg: *mut c_void,
    ) -> c_int;
    pub(crate) fn ks_subsystems_stop(done: unsafe extern "C" fn(*mut c_void), arg: *mut c_void);

    pub(crate) fn ks_rpc_open(socket: *const c_char) -> c_int;
    pub(crate) fn ks_rpc_close();

    pub(crate) fn ks_bdev_open(
        name: *const c_char,
        write: c_int,
        event: EventFn,
        arg: *mut c_void,
        out: *mut *mut Desc,
    ) -> c_int;
    pub(crate) fn ks_bdev_close(desc: *mut Desc);
    pub(crate) fn ks_bdev_facts(desc: *mut Desc, facts: *mut BdevFacts);
    pub(crate) fn ks_bdev_admin(
        desc: *mut Desc,
        command: *const c_void,
        length: usize,
        done: AdminFn,
        arg: *mut c_void,
    ) -> c_int;
    pub(crate) fn ks_bdev_name(n: usize, name: *mut c_char, length: usize) -> c_int;

    pub(crate) fn ks_channel_new(desc: *mut Desc, capacity: u32) -> *mut Channel;
    pub(crate) fn ks_channel_free(
        channel: *mut Channel,
        out: u32,
        orphaned: unsafe extern "C" fn(*mut c_void),
        orphan: *mut c_void,
    );
    pub(crate) fn ks_read(
        channel: *mut Channel,
        tag: u32,
        buf: *mut c_void,
        lba: u64,
        blocks: u64,
    ) -> c_int;
    pub(crate) fn ks_write(
        channel: *mut Channel,
        tag: u32,
        buf: *mut c_void,
        lba: u64,
        blocks: u64,
        fua: c_int,
    ) -> c_int;
    pub(crate) fn ks_submit(
        channel: *mut Channel,
        tag: u32,
        op: c_int,
        fua: c_int,
        lba: u64,
        blocks: u64,
    ) -> c_int;
    pub(crate) fn ks_channel_done(channel: *mut Channel, done: *mut *const Done) -> *mut u32;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_structs_are_as_the_shim_has_them() {
        assert_eq!((size_of::<BdevFacts>(), size_of::<Done>()), (96, 8));
    }
}
