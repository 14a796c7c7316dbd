//! Making a ring with the cheapest flags that the kernel offers.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::IoUring;

use crate::dma::MAX_REGISTERED;

/// How the kernel hands completions over to the submitting thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskRun {
    /// Completions are finished at this thread's next system call, without interrupting it (kernel 5.19: `COOP_TASKRUN`).
    /// Not `DEFER_TASKRUN`: there, completions wait until this thread enters the ring, and the ring's descriptor does not
    /// become readable meanwhile.
    Cooperative,
    /// Completions interrupt this thread (older kernels).
    Interrupting,
}

/// Why there is no ring.
#[derive(Debug, thiserror::Error)]
pub enum UringError {
    /// The kernel has no io_uring, or an administrator or a seccomp filter forbids it.
    #[error(
        "io_uring is not available here ({source}): kernel without it, kernel.io_uring_disabled, or a seccomp filter of the container"
    )]
    Unavailable {
        /// `ENOSYS`, `EPERM` or `EACCES`.
        source: io::Error,
    },
    /// It exists, but a ring of this depth could not be made.
    #[error("cannot set up an io_uring of depth {depth} (step: {step}): {source}")]
    Setup {
        /// Operations in flight asked for.
        depth: u32,
        /// What was being done.
        step: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The ring exists and the kernel refuses work.
    #[error("io_uring_enter failed: {source}")]
    Enter {
        /// The kernel's answer.
        source: io::Error,
    },
}

pub(super) struct Made {
    pub(super) ring: IoUring,
    pub(super) task_run: TaskRun,
    pub(super) fixed_buffers: bool,
}

/// Builds the ring, registers `files` and an empty table for the pools' memory.
pub(super) fn make(depth: u32, files: &[BorrowedFd<'_>]) -> Result<Made, UringError> {
    let (ring, task_run) = build(depth)?;
    let fds: Vec<i32> = files.iter().map(AsRawFd::as_raw_fd).collect();
    if !fds.is_empty() {
        let registered = ring.submitter().register_files(&fds);
        registered.map_err(|source| UringError::Setup {
            depth,
            step: "register files",
            source,
        })?;
    }
    // Without the table (kernels before 5.19, or RLIMIT_MEMLOCK) reads and writes name their memory by address.
    let fixed_buffers = ring
        .submitter()
        .register_buffers_sparse(MAX_REGISTERED as u32)
        .is_ok();
    Ok(Made {
        ring,
        task_run,
        fixed_buffers,
    })
}

fn build(depth: u32) -> Result<(IoUring, TaskRun), UringError> {
    for task_run in [TaskRun::Cooperative, TaskRun::Interrupting] {
        let mut builder = IoUring::builder();
        builder.dontfork().setup_clamp();
        match task_run {
            TaskRun::Cooperative => builder.setup_coop_taskrun().setup_taskrun_flag(),
            TaskRun::Interrupting => &mut builder,
        };
        match builder.build(depth) {
            Ok(ring) => return Ok((ring, task_run)),
            Err(source)
                if source.raw_os_error() == Some(libc::EINVAL)
                    && task_run != TaskRun::Interrupting => {}
            Err(source)
                if matches!(
                    source.raw_os_error(),
                    Some(libc::ENOSYS | libc::EPERM | libc::EACCES)
                ) =>
            {
                return Err(UringError::Unavailable { source });
            }
            Err(source) => {
                return Err(UringError::Setup {
                    depth,
                    step: "io_uring_setup",
                    source,
                });
            }
        }
    }
    // The last round of the loop returns in every arm.
    Err(UringError::Setup {
        depth,
        step: "io_uring_setup",
        source: io::Error::from(io::ErrorKind::Unsupported),
    })
}
