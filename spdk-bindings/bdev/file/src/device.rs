//! [`FileBdev`].

use core::fmt;
use std::path::Path;
use std::sync::Arc;

use spdk_bdev::{Bdev, BdevChannel, BdevError, Geometry, Op, OpSet};
use spdk_env::{Uring, UringError};
use spdk_thread::Thread;
use uuid::Uuid;

use crate::OpenError;
use crate::identity;
use crate::io_threads::IoThreads;
use crate::open::{self, Engine, FileOptions, OpenFile};
use crate::thread_channel::ThreadChannel;
use crate::uring_channel::UringChannel;

/// Bytes of the largest read or write.
const MAX_IO: u32 = 16 << 20;

/// A file or kernel block device, open and locked until this is dropped.
pub struct FileBdev {
    name: Arc<str>,
    file: Arc<OpenFile>,
    geometry: Geometry,
    uuid: Uuid,
    queue_depth: u32,
    /// None: io_uring.
    threads: Option<Arc<IoThreads>>,
}

impl FileBdev {
    /// Opens `path` as the device `name`. Never changes the contents of an existing file.
    ///
    /// # Errors
    /// [`OpenError`], each with its cure.
    pub fn open(name: &str, path: &Path, options: &FileOptions) -> Result<FileBdev, OpenError> {
        let name: Arc<str> = name.into();
        let file = Arc::new(open::open(path, options)?);
        let threads = match choose(&name, path, options)? {
            Engine::Threads => {
                let started = IoThreads::start(
                    Arc::clone(&file),
                    Arc::clone(&name),
                    options.io_threads.clamp(1, 256),
                );
                let step = "starting I/O threads";
                Some(Arc::new(started.map_err(|source| OpenError::System {
                    path: path.into(),
                    step,
                    source,
                })?))
            }
            Engine::Auto | Engine::IoUring => None,
        };
        let geometry = geometry(&file, options);
        let uuid = if file.is_block_device {
            identity::of_block_device(&file.stat)
        } else {
            identity::of_file(&file.stat)
        };
        Ok(FileBdev {
            name,
            file,
            geometry,
            uuid,
            queue_depth: options.queue_depth.clamp(1, 16_384),
            threads,
        })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// False when I/O goes through the page cache.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.file.direct
    }

    /// Who moves the bytes: never [`Engine::Auto`].
    #[must_use]
    pub fn engine(&self) -> Engine {
        if self.threads.is_some() {
            Engine::Threads
        } else {
            Engine::IoUring
        }
    }
}

/// Decides between io_uring and threads by making a small ring.
fn choose(name: &str, path: &Path, options: &FileOptions) -> Result<Engine, OpenError> {
    if options.engine == Engine::Threads {
        return Ok(Engine::Threads);
    }
    match Uring::new(1, &[]) {
        Ok(ring) => {
            tracing::debug!(device = name, task_run = ?ring.task_run(), "io_uring");
            Ok(Engine::IoUring)
        }
        Err(why @ UringError::Unavailable { .. }) if options.engine == Engine::Auto => {
            tracing::warn!(device = name, %why, "falling back to {} I/O threads", options.io_threads);
            Ok(Engine::Threads)
        }
        Err(source) => Err(OpenError::NoUring {
            path: path.into(),
            source,
        }),
    }
}

fn geometry(file: &OpenFile, options: &FileOptions) -> Geometry {
    let block_size = options.block_size;
    let mut supports = if options.read_only {
        OpSet::READ_ONLY
    } else {
        OpSet::ALL
    };
    if !file.can_punch {
        supports = supports.without(Op::Unmap);
    }
    let preferred = u32::try_from(file.stat.st_blksize).unwrap_or(block_size);
    Geometry {
        optimal_io_blocks: (preferred / block_size).max(1),
        max_io_blocks: MAX_IO / block_size,
        volatile_write_cache: true,
        unmap_zeroes: !file.is_block_device,
        supports,
        ..Geometry::new(block_size, file.size / u64::from(block_size))
    }
}

impl Bdev for FileBdev {
    fn name(&self) -> &str {
        &self.name
    }

    /// See `identity`: the same for as long as the file, or the device, exists.
    fn uuid(&self) -> Uuid {
        self.uuid
    }

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn driver(&self) -> &'static str {
        "file"
    }

    fn create_channel(&self, thread: &Thread) -> Result<Box<dyn BdevChannel>, BdevError> {
        match &self.threads {
            Some(threads) => ThreadChannel::new(Arc::clone(threads), self.queue_depth)
                .map(|channel| Box::new(channel) as Box<dyn BdevChannel>)
                .map_err(|why| BdevError::channel(&self.name, why.to_string())),
            None => UringChannel::new(
                Arc::clone(&self.file),
                Arc::clone(&self.name),
                self.queue_depth,
                thread.sleeps(),
            )
            .map(|channel| Box::new(channel) as Box<dyn BdevChannel>)
            .map_err(|why| BdevError::channel(&self.name, why.to_string())),
        }
    }
}

impl fmt::Debug for FileBdev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileBdev")
            .field("name", &self.name)
            .field("path", &self.file.path)
            .field("bytes", &self.geometry.bytes())
            .field("direct", &self.file.direct)
            .field("engine", &self.engine())
            .finish_non_exhaustive()
    }
}
