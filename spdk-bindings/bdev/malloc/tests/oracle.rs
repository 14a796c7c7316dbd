//! The malloc device against a byte vector, alone and from two OS threads.

#![allow(missing_docs, reason = "tests")]

use std::sync::Arc;

use bdev_malloc::MallocBdev;
use proptest::prelude::*;
use spdk_bdev::testing::{Oracle, drive, verify};
use spdk_bdev::{Mode, Registry};
use spdk_env::DmaBuf;
use spdk_thread::testing::Lockstep;
use spdk_thread::{Thread, ThreadOptions};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn it_keeps_what_is_written(seed: u64, shift in 9u32..14, blocks in 1u64..80) {
        let registry = Registry::new();
        registry.register(Arc::new(MallocBdev::new("mem", 1 << shift, blocks).unwrap())).unwrap();
        let descriptor = registry.open("mem", Mode::ReadWrite, "test").unwrap();
        let mut lockstep = Lockstep::new();
        let thread = lockstep.thread("t");
        let channel = descriptor.get_channel(&thread).unwrap();
        let run = async move {
            let mut oracle = Oracle::new(&channel, seed).await;
            oracle.run(200).await;
            oracle.verify().await;
        };
        lockstep.block_on(&thread, run).unwrap();
    }
}

#[test]
fn two_threads_see_each_others_blocks() {
    let registry = Registry::new();
    registry
        .register(Arc::new(MallocBdev::new("mem", 512, 2000).unwrap()))
        .unwrap();
    let descriptor = registry.open("mem", Mode::ReadWrite, "test").unwrap();
    std::thread::scope(|scope| {
        for id in 0..2u64 {
            let descriptor = descriptor.clone();
            scope.spawn(move || {
                let thread = Thread::new("t", ThreadOptions::default());
                let channel = descriptor.get_channel(&thread).unwrap();
                // Each writes its own half; even and odd blocks, so that they are neighbours everywhere.
                drive(&thread, async move {
                    for lba in (id..2000).step_by(2) {
                        let mut buf = DmaBuf::alloc(512).unwrap();
                        buf.as_mut_slice().fill(lba as u8);
                        channel.write(lba, 1, buf, false).await.0.unwrap();
                    }
                });
            });
        }
    });
    let model: Vec<u8> = (0..2000u32).flat_map(|lba| [lba as u8; 512]).collect();
    let thread = Thread::new("t", ThreadOptions::default());
    let channel = descriptor.get_channel(&thread).unwrap();
    drive(&thread, async move { verify(&channel, &model).await });
}

#[test]
fn too_big_is_an_error() {
    assert!(MallocBdev::new("huge", 4096, u64::MAX / 2).is_err());
    assert!(MallocBdev::new("huge", 4096, 1 << 36).is_err());
}
