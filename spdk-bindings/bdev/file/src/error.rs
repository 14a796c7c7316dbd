//! Why a file cannot be a device: what, where, why, and the cure.

use std::io;
use std::path::PathBuf;

use spdk_env::UringError;

/// Why [`crate::FileBdev::open`] failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Nothing there, and no size to create it with.
    #[error("`{path}` does not exist: create it, or give a size to have it created", path = .path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The directory that should hold it is missing.
    #[error("`{path}` cannot be created: its directory does not exist", path = .path.display())]
    NoDirectory {
        /// The file.
        path: PathBuf,
    },
    /// A directory, socket, pipe or character device.
    #[error("`{path}` is {what}, not a file or block device", path = .path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
        /// With its article.
        what: &'static str,
    },
    /// Permissions.
    #[error("`{path}` cannot be opened for {access}: permission denied (change its owner or mode, or run as its owner)", path = .path.display())]
    Denied {
        /// The file.
        path: PathBuf,
        /// `reading` or `reading and writing`.
        access: &'static str,
    },
    /// A file system mounted read-only.
    #[error("`{path}` is on a read-only file system: remount it, or open the device read-only", path = .path.display())]
    ReadOnlyFileSystem {
        /// The file.
        path: PathBuf,
    },
    /// Not even one block.
    #[error("`{path}` is too small: {size} bytes, and one block has {block_size}", path = .path.display())]
    TooSmall {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        size: u64,
        /// Bytes of a block.
        block_size: u32,
    },
    /// A part of a block at the end.
    #[error("`{path}` has {size} bytes, which is not a multiple of the block size {block_size}: make it {down} or {up} bytes", path = .path.display(), down = .size / u64::from(*.block_size) * u64::from(*.block_size), up = (.size / u64::from(*.block_size) + 1) * u64::from(*.block_size))]
    Unaligned {
        /// The file, or the size asked for.
        path: PathBuf,
        /// Its bytes.
        size: u64,
        /// Bytes of a block.
        block_size: u32,
    },
    /// A block size that no device has, or that this one cannot do.
    #[error("`{path}`: block size {block_size} is impossible: {why}", path = .path.display())]
    BlockSize {
        /// The file.
        path: PathBuf,
        /// Asked for.
        block_size: u32,
        /// Why.
        why: String,
    },
    /// There is a file, of another size than the one asked for.
    #[error("`{path}` exists with {size} bytes and {wanted} were asked for: a file with contents is never resized; leave the size out to use it as it is", path = .path.display())]
    SizeDiffers {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        size: u64,
        /// Asked for.
        wanted: u64,
    },
    /// Another engine has it.
    #[error("`{path}` is in use by {holder}: a device belongs to one engine at a time", path = .path.display())]
    Locked {
        /// The file.
        path: PathBuf,
        /// Who.
        holder: crate::lock::Holder,
    },
    /// A block device that is mounted or claimed.
    #[error("block device `{path}` is in use ({by}): unmount or release it first", path = .path.display())]
    Busy {
        /// The device.
        path: PathBuf,
        /// Where it is mounted, as far as that can be seen.
        by: String,
    },
    /// io_uring was demanded and is not there.
    #[error("`{path}`: {source}; choose engine `auto` or `threads`", path = .path.display())]
    NoUring {
        /// The file.
        path: PathBuf,
        /// Why.
        source: UringError,
    },
    /// Anything else that the system said.
    #[error("`{path}`: {step} failed: {source}", path = .path.display())]
    System {
        /// The file.
        path: PathBuf,
        /// What was being done.
        step: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}
