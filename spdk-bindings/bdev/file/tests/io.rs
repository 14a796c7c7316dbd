//! Reading and writing, on io_uring and on threads, through O_DIRECT and through the page cache.

#![allow(
    missing_docs,
    clippy::print_stdout,
    reason = "tests; one of them talks to its parent"
)]

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use bdev_file::{Engine, FileBdev, FileOptions};
use spdk_bdev::testing::{Oracle, drive, verify};
use spdk_bdev::{Channel, Descriptor, Mode, Op, Registry, Request};
use spdk_env::{Clock, DmaBuf, DmaPool};
use spdk_reactor::{ReactorOptions, ReactorSet};
use spdk_thread::{Thread, ThreadOptions};

const ENGINES: [Engine; 2] = [Engine::Auto, Engine::Threads];

fn open_at(
    path: &Path,
    engine: Engine,
    block_size: u32,
    blocks: u64,
) -> (FileBdevFacts, Descriptor) {
    let create_size = Some(u64::from(block_size) * blocks);
    let options = FileOptions {
        block_size,
        create_size,
        engine,
        queue_depth: 64,
        ..FileOptions::default()
    };
    let bdev = FileBdev::open("disk", path, &options).unwrap();
    let facts = FileBdevFacts {
        direct: bdev.is_direct(),
    };
    let registry = Registry::new();
    registry.register(Arc::new(bdev)).unwrap();
    (
        facts,
        registry.open("disk", Mode::ReadWrite, "test").unwrap(),
    )
}

struct FileBdevFacts {
    direct: bool,
}

fn thread() -> Thread {
    Thread::new("t", ThreadOptions::default())
}

fn channel(path: &Path, engine: Engine, block_size: u32, blocks: u64) -> (Thread, Channel) {
    let thread = thread();
    let channel = open_at(path, engine, block_size, blocks)
        .1
        .get_channel(&thread)
        .unwrap();
    (thread, channel)
}

fn filled(bytes: usize, byte: u8) -> DmaBuf {
    let mut buf = DmaBuf::alloc(bytes).unwrap();
    buf.as_mut_slice().fill(byte);
    buf
}

/// The oracle, and then what a plain reader of the file sees.
fn against_the_oracle(dir: &Path) {
    for engine in ENGINES {
        for (seed, block_size) in [(1, 512), (2, 4096), (3, 16384)] {
            let path = dir.join(format!("{engine:?}{block_size}"));
            let (thread, channel) = channel(&path, engine, block_size, 96);
            let model = drive(&thread, async move {
                let mut oracle = Oracle::new(&channel, seed).await;
                oracle.run(600).await;
                oracle.verify().await;
                channel.flush().await.unwrap();
                oracle.model().to_vec()
            });
            assert!(fs::read(&path).unwrap() == model);
            let (thread, channel) = self::channel(&path, engine, block_size, 96);
            drive(&thread, async move { verify(&channel, &model).await });
        }
    }
}

#[test]
fn every_engine_and_block_size_keeps_what_is_written() {
    let dir = tempfile::tempdir().unwrap();
    against_the_oracle(dir.path());
}

#[test]
fn so_does_memory_behind_the_page_cache() {
    // A tmpfs, where Linux usually has one.
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else {
        return;
    };
    against_the_oracle(dir.path());
}

#[test]
fn pool_buffers_go_the_registered_way() {
    let dir = tempfile::tempdir().unwrap();
    let (thread, channel) = channel(&dir.path().join("disk"), Engine::Auto, 4096, 64);
    let pools = [
        DmaPool::new(8192, 4).unwrap(),
        DmaPool::new(4096, 4).unwrap(),
    ];
    drive(&thread, async move {
        for lba in 0..64 {
            let mut buf = pools[lba as usize % 2].get().unwrap();
            buf.as_mut_slice().fill(lba as u8);
            channel.write(lba, 1, buf, lba % 3 == 0).await.0.unwrap();
        }
        for lba in 0..64 {
            let (result, buf) = channel.read(lba, 1, pools[0].get().unwrap()).await;
            result.unwrap();
            assert_eq!(buf.as_slice()[..4096], [lba as u8; 4096]);
        }
    });
}

#[test]
fn two_threads_have_a_channel_each() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let (_, descriptor) = open_at(&path, engine, 4096, 200);
        std::thread::scope(|scope| {
            for id in 0..2u64 {
                let descriptor = descriptor.clone();
                scope.spawn(move || {
                    let thread = thread();
                    let channel = descriptor.get_channel(&thread).unwrap();
                    drive(&thread, async move {
                        for lba in (id..200).step_by(2) {
                            channel
                                .write(lba, 1, filled(4096, lba as u8), false)
                                .await
                                .0
                                .unwrap();
                        }
                        channel.flush().await.unwrap();
                    });
                });
            }
        });
        let expected: Vec<u8> = (0..200u32).flat_map(|lba| [lba as u8; 4096]).collect();
        assert!(fs::read(&path).unwrap() == expected);
    }
}

#[test]
fn a_dropped_future_never_frees_what_the_kernel_still_writes() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let (thread, channel) = channel(&path, engine, 4096, 1024);
        let pool = DmaPool::new(4 << 20, 1).unwrap();
        let (reading, buf) = (channel.clone(), pool.get().unwrap());
        let task = thread
            .spawn(
                "read",
                async move { drop(reading.read(0, 1024, buf).await) },
            )
            .unwrap();
        let clock = Clock::tsc();
        // Submitted in one turn, given to the kernel in the next.
        thread.poll(clock.now());
        assert_eq!(channel.in_flight(), 1);
        task.abort();
        drop(task);
        assert_eq!(pool.available(), 0, "the operation owns it");
        while channel.in_flight() > 0 {
            thread.poll(clock.now());
        }
        assert_eq!(pool.available(), 1, "and gives it back when it is done");
    }
}

#[test]
fn a_channel_dropped_in_the_middle_finishes_its_writes() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let (thread, channel) = channel(&path, engine, 4096, 256);
        let queue = channel.queue(32).unwrap();
        let pool = DmaPool::new(32768, 32).unwrap();
        for number in 0..32 {
            let mut buf = pool.get().unwrap();
            buf.as_mut_slice().fill(7);
            queue.submit(Request::write(number * 8, 8, buf)).unwrap();
        }
        drop((queue, channel));
        assert_eq!(pool.available(), 0);
        thread.request_exit();
        let clock = Clock::tsc();
        while !thread.is_exited() {
            thread.poll(clock.now());
        }
        assert_eq!(pool.available(), 32);
        assert!(fs::read(&path).unwrap().iter().all(|byte| *byte == 7));
    }
}

#[test]
fn a_thread_dropped_with_io_in_flight_leaks_nothing_to_the_kernel() {
    let dir = tempfile::tempdir().unwrap();
    let (thread, channel) = channel(&dir.path().join("disk"), Engine::Auto, 4096, 256);
    let queue = channel.queue(8).unwrap();
    for number in 0..8 {
        queue
            .submit(Request::read(number, 16, filled(65536, 1)))
            .unwrap();
    }
    thread.poll(Clock::tsc().now());
    drop((queue, channel, thread));
}

#[test]
fn a_file_that_shrinks_under_us_is_an_error_that_says_so() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let (thread, channel) = channel(&path, engine, 4096, 16);
        fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(32768)
            .unwrap();
        let text = drive(&thread, async move {
            channel.read(0, 8, filled(32768, 1)).await.0.unwrap();
            channel
                .read(7, 2, filled(8192, 1))
                .await
                .0
                .unwrap_err()
                .to_string()
        });
        let shown = path.display();
        assert_eq!(
            text,
            format!(
                "read of 2 blocks at lba 7 on `disk` failed: `{shown}` ends before this block: it was truncated while open"
            )
        );
    }
}

#[test]
fn a_full_disk_is_a_write_error_that_names_the_file() {
    // A small file system of our own; only root can have one.
    let dir = tempfile::tempdir().unwrap();
    let mount = |args: &[&str]| {
        std::process::Command::new(args[0])
            .args(&args[1..])
            .arg(dir.path())
            .status()
    };
    let mounted = mount(&["mount", "-t", "tmpfs", "-o", "size=1m", "none"]);
    if !mounted.is_ok_and(|status| status.success()) {
        return;
    }
    for engine in ENGINES {
        let path = dir.path().join("disk");
        let (thread, channel) = channel(&path, engine, 4096, 1024);
        let (text, errno) = drive(&thread, async move {
            let mut lba = 0;
            loop {
                if let Err(error) = channel.write(lba, 16, filled(65536, 1), false).await.0 {
                    // What is there can still be read.
                    channel.read(0, 16, filled(65536, 0)).await.0.unwrap();
                    return (error.to_string(), error.errno());
                }
                lba += 16;
            }
        });
        assert!(
            text.contains(&format!(
                "on `disk` failed: `{}`: No space left on device",
                path.display()
            )),
            "{text}"
        );
        assert!(
            text.ends_with("; the file system under it is full: free space there"),
            "{text}"
        );
        assert_eq!(errno, Some(28));
        fs::remove_file(&path).unwrap();
    }
    assert!(mount(&["umount", "-l"]).unwrap().success());
}

#[test]
fn zeroes_and_holes_read_as_zeroes_and_holes_give_space_back() {
    use std::os::unix::fs::MetadataExt as _;
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let (facts, descriptor) = open_at(&path, engine, 4096, 256);
        let thread = thread();
        let channel = descriptor.get_channel(&thread).unwrap();
        let can_unmap = channel.geometry().supports.contains(Op::Unmap);
        drive(&thread, async move {
            channel
                .write(0, 256, filled(1 << 20, 5), true)
                .await
                .0
                .unwrap();
            channel.write_zeroes(8, 64).await.unwrap();
            if can_unmap {
                channel.unmap(128, 128).await.unwrap();
            }
            channel.flush().await.unwrap();
        });
        let seen = fs::read(&path).unwrap();
        assert_eq!(
            (
                seen[8 * 4096 - 1],
                seen[8 * 4096],
                seen[72 * 4096 - 1],
                seen[72 * 4096]
            ),
            (5, 0, 0, 5)
        );
        if can_unmap {
            assert_eq!(seen[128 * 4096], 0);
            assert!(
                fs::metadata(&path).unwrap().blocks() * 512 < 1 << 20,
                "direct: {}",
                facts.direct
            );
        }
    }
}

#[test]
fn outside_changes_are_seen() {
    // A reader of the raw file and the device agree without closing it: O_DIRECT and the page cache are kept coherent.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let (thread, channel) = channel(&path, Engine::Auto, 4096, 4);
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    file.write_all_at(&[3; 4096], 4096).unwrap();
    let buf = drive(&thread, async move {
        channel.read(1, 1, filled(4096, 0)).await.1
    });
    assert_eq!(buf.as_slice(), [3; 4096]);
}

/// Names the file for the child of the next test; unset in ordinary runs.
const CHILD: &str = "KEEL_BDEV_FILE_TEST_CHILD";

#[test]
fn child_that_writes_until_it_is_killed() {
    let Some(path) = std::env::var_os(CHILD) else {
        return;
    };
    let (thread, channel) = channel(Path::new(&path), Engine::Auto, 4096, 4096);
    let queue = channel.queue(32).unwrap();
    let clock = Clock::tsc();
    let mut lba = 0;
    println!("writing");
    loop {
        while queue
            .submit(Request::write(lba % 4096, 1, filled(4096, 1)).with_fua())
            .is_ok()
        {
            lba += 1;
        }
        thread.poll(clock.now());
        queue.reap(32, drop);
    }
}

#[test]
fn a_killed_engine_does_not_lock_its_successor_out() {
    use std::io::BufRead as _;
    use std::process::{Command, Stdio};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    for _ in 0..5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "child_that_writes_until_it_is_killed",
                "--exact",
                "--nocapture",
            ])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("writing")));
        child.kill().unwrap();
        child.wait().unwrap();
        let (thread, channel) = channel(&path, Engine::Auto, 4096, 4096);
        drive(&thread, async move {
            channel.read(0, 1, filled(4096, 0)).await.0.unwrap()
        });
    }
}

#[test]
fn a_sleeping_reactor_is_woken_by_its_io() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let (_, descriptor) = open_at(&dir.path().join("disk"), engine, 4096, 64);
        // An hour of idle goal: only the device's descriptor can end a sleep.
        let options = ReactorOptions {
            idle_latency_us: 3_600_000_000,
            pin: false,
            ..ReactorOptions::default()
        };
        let mut set = ReactorSet::start(&options).unwrap();
        let (done, finished) = std::sync::mpsc::channel();
        let init = move |thread: &Thread| {
            let channel = descriptor.get_channel(thread).unwrap();
            let io = async move {
                for lba in 0..64 {
                    channel
                        .write(lba, 1, filled(4096, 1), true)
                        .await
                        .0
                        .unwrap();
                    channel.read(lba, 1, filled(4096, 0)).await.0.unwrap();
                }
                done.send(()).unwrap();
            };
            thread.spawn("io", io).unwrap().detach();
        };
        set.reactors()[0]
            .spawn_thread("t", ThreadOptions::default(), init)
            .unwrap();
        finished.recv().unwrap();
        set.shutdown(std::time::Duration::from_secs(60)).unwrap();
    }
}

/// A loop device over `backing`, taken away when dropped. Only root can have one.
struct Loop(String);

impl Loop {
    fn new(backing: &Path) -> Option<Loop> {
        let made = std::process::Command::new("losetup")
            .args(["-f", "--show"])
            .arg(backing)
            .output()
            .ok()?;
        let name = String::from_utf8(made.stdout).ok()?.trim().to_owned();
        (made.status.success() && !name.is_empty()).then_some(Loop(name))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = std::process::Command::new("losetup")
            .args(["-d", &self.0])
            .status();
    }
}

#[test]
fn a_kernel_block_device_works_and_a_mounted_one_is_refused() {
    use std::process::Command;
    let dir = tempfile::tempdir().unwrap();
    let backing = dir.path().join("backing");
    fs::File::create(&backing)
        .unwrap()
        .set_len(4 << 20)
        .unwrap();
    let Some(disk) = Loop::new(&backing) else {
        return;
    };
    let path = Path::new(&disk.0);
    for engine in ENGINES {
        let options = FileOptions {
            engine,
            ..FileOptions::default()
        };
        let registry = Registry::new();
        registry
            .register(Arc::new(FileBdev::open("disk", path, &options).unwrap()))
            .unwrap();
        let descriptor = registry.open("disk", Mode::ReadWrite, "test").unwrap();
        assert_eq!(descriptor.geometry().num_blocks, 1024);
        let thread = thread();
        let channel = descriptor.get_channel(&thread).unwrap();
        drive(&thread, async move {
            let mut oracle = Oracle::new(&channel, 5).await;
            oracle.run(300).await;
            oracle.verify().await;
            channel.unmap(0, 1024).await.unwrap();
        });
    }
    let odd = FileOptions {
        create_size: Some(8 << 20),
        ..FileOptions::default()
    };
    let resized = FileBdev::open("disk", path, &odd).unwrap_err().to_string();
    assert!(
        resized.contains("exists with 4194304 bytes and 8388608 were asked for"),
        "{resized}"
    );
    let mount = dir.path().join("mount");
    fs::create_dir(&mount).unwrap();
    let formatted = Command::new("mkfs.ext4").arg("-q").arg(path).status();
    if !formatted.is_ok_and(|status| status.success())
        || !Command::new("mount")
            .arg(path)
            .arg(&mount)
            .status()
            .unwrap()
            .success()
    {
        return;
    }
    let text = FileBdev::open("disk", path, &FileOptions::default())
        .unwrap_err()
        .to_string();
    assert!(
        Command::new("umount")
            .arg(&mount)
            .status()
            .unwrap()
            .success()
    );
    let (device, place) = (path.display(), mount.display());
    assert_eq!(
        text,
        format!(
            "block device `{device}` is in use (mounted at {place}): unmount or release it first"
        )
    );
}

#[test]
fn a_read_only_file_system_is_named() {
    use std::process::Command;
    let dir = tempfile::tempdir().unwrap();
    fs::File::create(dir.path().join("disk"))
        .unwrap()
        .set_len(8192)
        .unwrap();
    let bind = |args: &[&str]| Command::new("mount").args(args).arg(dir.path()).status();
    let shown = dir.path().display().to_string();
    // Only root can mount; a bind of the directory on itself, then read-only.
    if !bind(&["--bind", &shown]).is_ok_and(|status| status.success()) {
        return;
    }
    assert!(bind(&["-o", "remount,ro,bind"]).unwrap().success());
    let path = dir.path().join("disk");
    let text = FileBdev::open("disk", &path, &FileOptions::default())
        .unwrap_err()
        .to_string();
    let read_only = FileOptions {
        read_only: true,
        ..FileOptions::default()
    };
    let reader = FileBdev::open("disk", &path, &read_only).map(drop);
    assert!(
        Command::new("umount")
            .arg("-l")
            .arg(dir.path())
            .status()
            .unwrap()
            .success()
    );
    reader.unwrap();
    assert_eq!(
        text,
        format!(
            "`{}` is on a read-only file system: remount it, or open the device read-only",
            path.display()
        )
    );
}
