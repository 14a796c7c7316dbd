//! Opening a file as a device: every check, in the order in which an operator would want to hear of it.

use core::sync::atomic::{AtomicBool, Ordering};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FallocateFlags, FileType, Mode, OFlags, SeekFrom, Stat, StatxFlags};
use rustix::io::Errno;
use spdk_bdev::{BdevError, Op, Request};

use crate::OpenError;
use crate::lock;

/// Who moves the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Engine {
    /// io_uring if the kernel lets us, else threads; which one is logged.
    #[default]
    Auto,
    /// io_uring or an error.
    IoUring,
    /// A bounded set of threads with blocking calls.
    Threads,
}

/// How to open a file.
#[derive(Debug, Clone)]
pub struct FileOptions {
    /// Bytes per block. A power of two from 512 to 64 KiB, and a multiple of what the device underneath can do.
    pub block_size: u32,
    /// If the file does not exist or is empty: create it with this many bytes (sparse). If it exists with contents, it
    /// must have this size.
    pub create_size: Option<u64>,
    /// Never write, not even by creating it.
    pub read_only: bool,
    /// Who moves the bytes.
    pub engine: Engine,
    /// I/Os that each channel holds.
    pub queue_depth: u32,
    /// For [`Engine::Threads`]: how many.
    pub io_threads: u32,
}

impl Default for FileOptions {
    fn default() -> FileOptions {
        FileOptions {
            block_size: 4096,
            create_size: None,
            read_only: false,
            engine: Engine::Auto,
            queue_depth: 1024,
            io_threads: 8,
        }
    }
}

/// An open, checked and locked file.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) fd: OwnedFd,
    pub(crate) path: PathBuf,
    pub(crate) stat: Stat,
    pub(crate) size: u64,
    pub(crate) block_size: u32,
    pub(crate) is_block_device: bool,
    /// False: through the page cache.
    pub(crate) direct: bool,
    pub(crate) can_punch: bool,
    /// The file system lacks `ZERO_RANGE`; learnt at the first attempt.
    pub(crate) no_zero_range: AtomicBool,
    /// A flush has failed. The kernel reports lost pages once and forgets them, so no later flush can be believed.
    flush_failed: AtomicBool,
}

impl OpenFile {
    /// The byte range of a request.
    pub(crate) fn range(&self, request: &Request) -> (u64, u64) {
        let block = u64::from(self.block_size);
        (request.lba * block, u64::from(request.blocks) * block)
    }

    /// The error of a request that the system refused with `errno`.
    #[cold]
    pub(crate) fn failed(&self, device: &str, request: &Request, errno: i32) -> BdevError {
        // A durable write reports what the kernel lost of earlier ones, too.
        if request.op == Op::Flush || (request.fua && errno == Errno::IO.raw_os_error()) {
            self.flush_failed.store(true, Ordering::Relaxed);
        }
        let cure = match Errno::from_raw_os_error(errno) {
            Errno::NOSPC => "; the file system under it is full: free space there",
            Errno::DQUOT => "; the quota under it is used up",
            Errno::IO => "; the disk under it reports a fault: see the kernel log",
            _ => "",
        };
        let why = format!(
            "`{}`: {}{cure}",
            self.path.display(),
            io::Error::from_raw_os_error(errno)
        );
        BdevError::io(device, request, why, Some(errno))
    }

    /// The error of a read or write that moved nothing.
    #[cold]
    pub(crate) fn stalled(&self, device: &str, request: &Request) -> BdevError {
        let why = format!(
            "`{}` ends before this block: it was truncated while open",
            self.path.display()
        );
        BdevError::io(device, request, why, None)
    }

    /// Refuses durable requests after a flush has failed.
    pub(crate) fn check_durable(&self, device: &str, request: &Request) -> Result<(), BdevError> {
        let durable = request.op == Op::Flush || request.fua;
        if !durable || !self.flush_failed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let why = format!(
            "an earlier flush of `{}` failed, and the kernel does not say what was lost: reopen the device and recover",
            self.path.display()
        );
        Err(BdevError::io(device, request, why, None))
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        // Rings let go of their registered files some time after they are closed; the lock must not wait for that.
        lock::release(&self.fd);
    }
}

/// Opens `path`.
pub(crate) fn open(path: &Path, options: &FileOptions) -> Result<OpenFile, OpenError> {
    let block_size = options.block_size;
    let impossible = |why: &str| OpenError::BlockSize {
        path: path.into(),
        block_size,
        why: why.into(),
    };
    if !block_size.is_power_of_two() || !(512..=65_536).contains(&block_size) {
        return Err(impossible("it must be a power of two from 512 to 65536"));
    }
    if let Some(size) = options.create_size {
        check_size(path, size, block_size)?;
    }
    let (fd, created) = open_or_create(path, options)?;
    let file = check(path, options, fd);
    if file.is_err() && created {
        // It is ours and holds nothing; leave no half-made file behind.
        let _ = fs::remove_file(path);
    }
    file
}

fn check(path: &Path, options: &FileOptions, fd: OwnedFd) -> Result<OpenFile, OpenError> {
    let system = |step| {
        move |errno: Errno| OpenError::System {
            path: path.into(),
            step,
            source: errno.into(),
        }
    };
    let stat = rustix::fs::fstat(&fd).map_err(system("fstat"))?;
    let is_block_device = FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice;
    match lock::take_patiently(&fd, !options.read_only) {
        Ok(()) => {}
        Err(Some(holder)) => {
            return Err(OpenError::Locked {
                path: path.into(),
                holder,
            });
        }
        Err(None) => {
            tracing::warn!(path = %path.display(), "no file locks here: nothing keeps a second engine away")
        }
    }
    let mut size = rustix::fs::seek(&fd, SeekFrom::End(0)).map_err(system("seek to the end"))?;
    if let Some(wanted) = options.create_size {
        if size == 0 && !is_block_device && !options.read_only {
            grow(path, &fd, wanted)?;
            size = wanted;
        } else if size != wanted {
            return Err(OpenError::SizeDiffers {
                path: path.into(),
                size,
                wanted,
            });
        }
    }
    check_size(path, size, options.block_size)?;
    if is_block_device {
        let logical = rustix::fs::ioctl_blksszget(&fd).map_err(system("BLKSSZGET"))?;
        if !options.block_size.is_multiple_of(logical) {
            let why = format!("the device's logical blocks have {logical} bytes");
            return Err(OpenError::BlockSize {
                path: path.into(),
                block_size: options.block_size,
                why,
            });
        }
    }
    let direct = settle_direct(path, &fd, options.block_size);
    let can_punch =
        !options.read_only && (is_block_device || punches(&fd, size, options.block_size));
    Ok(OpenFile {
        fd,
        path: path.to_owned(),
        stat,
        size,
        block_size: options.block_size,
        is_block_device,
        direct,
        can_punch,
        no_zero_range: AtomicBool::new(false),
        flush_failed: AtomicBool::new(false),
    })
}

fn check_size(path: &Path, size: u64, block_size: u32) -> Result<(), OpenError> {
    if size < u64::from(block_size) {
        return Err(OpenError::TooSmall {
            path: path.into(),
            size,
            block_size,
        });
    }
    if !size.is_multiple_of(u64::from(block_size)) {
        return Err(OpenError::Unaligned {
            path: path.into(),
            size,
            block_size,
        });
    }
    Ok(())
}

/// The descriptor, and whether the file was made by this call.
fn open_or_create(path: &Path, options: &FileOptions) -> Result<(OwnedFd, bool), OpenError> {
    let mut flags = OFlags::CLOEXEC
        | if options.read_only {
            OFlags::RDONLY
        } else {
            OFlags::RDWR
        };
    // A look before opening: to open a pipe waits, to open a tape rewinds it.
    match fs::metadata(path) {
        Ok(meta) => match file_type(&meta) {
            FileType::RegularFile => {}
            FileType::BlockDevice => flags |= OFlags::EXCL,
            other => {
                return Err(OpenError::NotAFile {
                    path: path.into(),
                    what: describe(other),
                });
            }
        },
        Err(missing) if missing.kind() == io::ErrorKind::NotFound && !options.read_only => {
            if options.create_size.is_none() {
                return Err(OpenError::Missing { path: path.into() });
            }
            let made = open_with(path, flags | OFlags::CREATE | OFlags::EXCL);
            return made.map(|fd| (fd, true)).map_err(|errno| match errno {
                Errno::NOENT => OpenError::NoDirectory { path: path.into() },
                errno => refused(path, errno, options),
            });
        }
        Err(source) => {
            return Err(refused(
                path,
                Errno::from_io_error(&source).unwrap_or(Errno::IO),
                options,
            ));
        }
    }
    open_with(path, flags)
        .map(|fd| (fd, false))
        .map_err(|errno| refused(path, errno, options))
}

/// With `O_DIRECT`, or without where the file system refuses it.
fn open_with(path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let mode = Mode::RUSR | Mode::WUSR;
    match rustix::fs::open(path, flags | OFlags::DIRECT, mode) {
        // Some file systems create the file before they refuse O_DIRECT.
        Err(Errno::INVAL) => rustix::fs::open(path, flags, mode).or_else(|errno| match errno {
            Errno::EXIST => rustix::fs::open(path, flags - OFlags::EXCL, mode),
            errno => Err(errno),
        }),
        other => other,
    }
}

fn refused(path: &Path, errno: Errno, options: &FileOptions) -> OpenError {
    let path = path.to_owned();
    match errno {
        Errno::NOENT => OpenError::Missing { path },
        Errno::ISDIR => OpenError::NotAFile {
            path,
            what: "a directory",
        },
        Errno::ACCESS | Errno::PERM => {
            let access = if options.read_only {
                "reading"
            } else {
                "reading and writing"
            };
            OpenError::Denied { path, access }
        }
        Errno::ROFS => OpenError::ReadOnlyFileSystem { path },
        Errno::BUSY => {
            let by = lock::mounted_at(&path);
            OpenError::Busy { path, by }
        }
        errno => OpenError::System {
            path,
            step: "open",
            source: errno.into(),
        },
    }
}

fn file_type(meta: &fs::Metadata) -> FileType {
    use std::os::unix::fs::MetadataExt as _;
    FileType::from_raw_mode(meta.mode())
}

fn describe(kind: FileType) -> &'static str {
    match kind {
        FileType::Directory => "a directory",
        FileType::Socket => "a socket",
        FileType::Fifo => "a pipe",
        FileType::CharacterDevice => "a character device",
        _ => "something else",
    }
}

/// Gives an empty file its size, durably.
fn grow(path: &Path, fd: &OwnedFd, size: u64) -> Result<(), OpenError> {
    let system = |step| {
        move |errno: Errno| OpenError::System {
            path: path.into(),
            step,
            source: errno.into(),
        }
    };
    rustix::fs::ftruncate(fd, size).map_err(system("setting its size"))?;
    rustix::fs::fsync(fd).map_err(system("fsync"))?;
    if let Some(parent) = path.parent() {
        let parent = if parent.as_os_str().is_empty() {
            Path::new(".")
        } else {
            parent
        };
        let dir = rustix::fs::open(
            parent,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        );
        let synced = dir.and_then(rustix::fs::fsync);
        synced.map_err(system("fsync of its directory"))?;
    }
    tracing::info!(path = %path.display(), bytes = size, "created (sparse: blocks are taken as they are written)");
    Ok(())
}

/// Whether I/O goes straight to the disk. Where `O_DIRECT` was accepted but cannot do blocks of this size, it is taken off
/// again.
fn settle_direct(path: &Path, fd: &OwnedFd, block_size: u32) -> bool {
    let Ok(flags) = rustix::fs::fcntl_getfl(fd) else {
        return false;
    };
    let mut direct = flags.contains(OFlags::DIRECT);
    if direct
        && let Ok(info) = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)
        && StatxFlags::from_bits_retain(info.stx_mask).contains(StatxFlags::DIOALIGN)
    {
        let (memory, offset) = (info.stx_dio_mem_align, info.stx_dio_offset_align);
        direct =
            offset != 0 && block_size.is_multiple_of(offset) && memory <= spdk_env::PAGE as u32;
        if !direct && rustix::fs::fcntl_setfl(fd, flags - OFlags::DIRECT).is_err() {
            direct = true;
        }
    }
    if !direct {
        tracing::info!(
            path = %path.display(),
            "no O_DIRECT here: I/O goes through the page cache; completed writes are durable after a flush or with FUA"
        );
    }
    direct
}

/// Whether the file system can give blocks back. Asked past the end of the file, where there is nothing to lose.
fn punches(fd: impl AsFd, size: u64, block_size: u32) -> bool {
    let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(fd, mode, size, u64::from(block_size)).is_ok()
}
