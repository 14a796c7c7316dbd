//! What can be opened and what cannot, each with its exact message.

#![allow(missing_docs, reason = "tests")]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bdev_file::{Engine, FileBdev, FileOptions, OpenError};
use spdk_bdev::{Bdev as _, Op};

fn options() -> FileOptions {
    FileOptions::default()
}

fn sized(dir: &Path, name: &str, bytes: u64) -> PathBuf {
    let path = dir.join(name);
    fs::File::create(&path).unwrap().set_len(bytes).unwrap();
    path
}

fn refusal(path: &Path, options: &FileOptions) -> String {
    let error = FileBdev::open("disk", path, options)
        .unwrap_err()
        .to_string();
    let shown = path.display().to_string();
    assert!(error.contains(&shown), "{error} does not name {shown}");
    error.replace(&shown, "PATH")
}

fn create(size: u64) -> FileOptions {
    FileOptions {
        create_size: Some(size),
        ..options()
    }
}

#[test]
fn each_bad_file_has_its_message() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    assert_eq!(
        refusal(&dir.join("none"), &options()),
        "`PATH` does not exist: create it, or give a size to have it created"
    );
    assert_eq!(
        refusal(&dir.join("no/dir"), &create(4096)),
        "`PATH` cannot be created: its directory does not exist"
    );
    assert_eq!(
        refusal(dir, &options()),
        "`PATH` is a directory, not a file or block device"
    );
    assert_eq!(
        refusal(Path::new("/dev/null"), &options()),
        "`PATH` is a character device, not a file or block device"
    );
    assert_eq!(
        refusal(&sized(dir, "empty", 0), &options()),
        "`PATH` is too small: 0 bytes, and one block has 4096"
    );
    assert_eq!(
        refusal(&sized(dir, "small", 4095), &options()),
        "`PATH` is too small: 4095 bytes, and one block has 4096"
    );
    assert_eq!(
        refusal(&sized(dir, "odd", 10_000), &options()),
        "`PATH` has 10000 bytes, which is not a multiple of the block size 4096: make it 8192 or 12288 bytes"
    );
    assert_eq!(
        refusal(
            &sized(dir, "block", 8192),
            &FileOptions {
                block_size: 1000,
                ..options()
            }
        ),
        "`PATH`: block size 1000 is impossible: it must be a power of two from 512 to 65536"
    );
    assert_eq!(
        refusal(&sized(dir, "other", 8192), &create(16384)),
        "`PATH` exists with 8192 bytes and 16384 were asked for: a file with contents is never resized; leave the size out to use it as it is"
    );
    assert_eq!(
        refusal(&dir.join("new"), &create(5000)),
        "`PATH` has 5000 bytes, which is not a multiple of the block size 4096: make it 4096 or 8192 bytes"
    );
    assert!(
        !dir.join("new").exists(),
        "nothing is created for a bad size"
    );
    let pipe = dir.join("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(
        refusal(&pipe, &options()),
        "`PATH` is a pipe, not a file or block device"
    );
}

#[test]
fn permissions_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = sized(dir.path(), "secret", 8192);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::File::open(&path).is_ok() {
        // Root may open anything: nothing is denied here.
        assert!(FileBdev::open("disk", &path, &options()).is_ok());
        return;
    }
    assert_eq!(
        refusal(&path, &options()),
        "`PATH` cannot be opened for reading and writing: permission denied (change its owner or mode, or run as its owner)"
    );
}

#[test]
fn a_file_is_created_only_when_asked_and_used_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.img");
    let bdev = FileBdev::open("disk", &path, &create(1 << 20)).unwrap();
    assert_eq!(
        (bdev.geometry().num_blocks, bdev.geometry().block_size),
        (256, 4096)
    );
    assert!(bdev.geometry().volatile_write_cache);
    assert_eq!(
        (bdev.name(), bdev.driver(), bdev.path()),
        ("disk", "file", path.as_path())
    );
    let uuid = bdev.uuid();
    drop(bdev);
    assert_eq!(fs::metadata(&path).unwrap().len(), 1 << 20);
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let again = FileBdev::open("disk", &path, &create(1 << 20)).unwrap();
    assert_eq!(again.uuid(), uuid);
    drop(again);
    // An empty file may be given its size; a foreign file keeps its contents.
    let empty = sized(dir.path(), "empty", 0);
    assert_eq!(
        FileBdev::open("disk", &empty, &create(8192))
            .unwrap()
            .geometry()
            .num_blocks,
        2
    );
    let foreign = dir.path().join("foreign");
    fs::File::create(&foreign)
        .unwrap()
        .write_all(&[0x42; 8192])
        .unwrap();
    for options in [
        options(),
        create(8192),
        FileOptions {
            engine: Engine::Threads,
            ..options()
        },
    ] {
        drop(FileBdev::open("disk", &foreign, &options).unwrap());
    }
    assert_eq!(fs::read(&foreign).unwrap(), [0x42; 8192]);
}

#[test]
fn a_second_opener_is_refused_and_told_who_is_first() {
    let dir = tempfile::tempdir().unwrap();
    let path = sized(dir.path(), "disk", 8192);
    let first = FileBdev::open("disk", &path, &options()).unwrap();
    let own = std::process::id();
    assert_eq!(
        refusal(&path, &options()),
        format!(
            "`PATH` is in use by this process (pid {own}): a device belongs to one engine at a time"
        )
    );
    let read_only = FileOptions {
        read_only: true,
        ..options()
    };
    assert!(matches!(
        FileBdev::open("disk", &path, &read_only),
        Err(OpenError::Locked { .. })
    ));
    drop(first);
    let readers = [(); 2].map(|()| FileBdev::open("disk", &path, &read_only).unwrap());
    assert!(!readers[0].geometry().supports.contains(Op::Write));
    drop(readers);
    // Another process: flock(1) locks the same way.
    let mut other = Command::new("flock")
        .arg(&path)
        .args(["sh", "-c", "echo locked; read line"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0; 6];
    std::io::Read::read_exact(other.stdout.as_mut().unwrap(), &mut ready).unwrap();
    let text = refusal(&path, &options());
    let (pid, name) = (other.id(), "flock");
    assert_eq!(
        text,
        format!(
            "`PATH` is in use by process {pid} ({name}): a device belongs to one engine at a time"
        )
    );
    drop(other.stdin.take());
    other.wait().unwrap();
    assert!(FileBdev::open("disk", &path, &options()).is_ok());
}

#[test]
fn the_engine_can_be_chosen() {
    let dir = tempfile::tempdir().unwrap();
    let path = sized(dir.path(), "disk", 8192);
    let threads = FileOptions {
        engine: Engine::Threads,
        io_threads: 2,
        ..options()
    };
    assert_eq!(
        FileBdev::open("disk", &path, &threads).unwrap().engine(),
        Engine::Threads
    );
    let automatic = FileBdev::open("disk", &path, &options()).unwrap();
    assert_ne!(automatic.engine(), Engine::Auto);
}
