//! The block layer over memory. The libspdk provider runs the same file over C SPDK's devices.
#![allow(missing_docs, reason = "tests")]

mod layer;

mod setup {
    use std::sync::Arc;

    use bdev_malloc::MallocBdev;
    use spdk_bdev::Bdev;
    use spdk_thread::testing::Lockstep;

    /// I/Os that a channel takes.
    pub(crate) const CAPACITY: u32 = 65_536;
    pub(crate) const DRIVER: &str = "malloc";

    pub(crate) fn lockstep() -> Lockstep {
        Lockstep::new()
    }

    /// A device in memory; each call makes another one.
    pub(crate) fn device(name: &str, block_size: u32, blocks: u64) -> Arc<dyn Bdev> {
        Arc::new(MallocBdev::new(name, block_size, blocks).unwrap())
    }
}

#[test]
fn sizes_are_sane() {
    let odd = spdk_bdev::Registry::new()
        .register(setup::device("odd", 1000, 1))
        .unwrap_err();
    assert_eq!(
        odd.to_string(),
        "block device `odd` cannot be registered: block size 1000 is not a power of two of at least 512"
    );
}
