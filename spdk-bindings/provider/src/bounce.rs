//! Buffers in between, for I/O whose own buffer lies where SPDK's drivers do not reach.

use spdk_bdev::{Op, Request};
use spdk_env::DmaBuf;
use spdk_env::DmaPool;

use crate::bdev::MAX_IO;

/// I/Os of one channel that are copied at a time; more wait.
const COUNT: usize = 4;

/// One channel's buffers, and whom they stand in for.
pub(crate) struct Bounce {
    pool: DmaPool,
    block_size: u32,
    /// By the I/O's tag.
    own: Vec<Option<DmaBuf>>,
}

impl Bounce {
    /// `None`: the machine has no memory for it, or none that was set aside.
    pub(crate) fn new(capacity: u32, block_size: u32) -> Option<Bounce> {
        let pool = DmaPool::new(MAX_IO as usize, COUNT).ok()?;
        let own = (0..capacity).map(|_| None).collect();
        pool.get()?.is_reserved().then_some(Bounce {
            pool,
            block_size,
            own,
        })
    }

    /// What SPDK is to get for an I/O's buffer: itself if it can be reached, or one that stands in. `Err`: all are in use.
    #[inline]
    pub(crate) fn give(
        &mut self,
        tag: u32,
        request: &Request,
        buf: DmaBuf,
    ) -> Result<DmaBuf, DmaBuf> {
        if buf.is_reserved() {
            return Ok(buf);
        }
        self.stand_in(tag, request, buf)
    }

    #[cold]
    fn stand_in(&mut self, tag: u32, request: &Request, buf: DmaBuf) -> Result<DmaBuf, DmaBuf> {
        let bytes = request.blocks as usize * self.block_size as usize;
        if bytes > buf.len() || bytes > MAX_IO as usize {
            // SPDK's wrapper refuses it.
            return Ok(buf);
        }
        let (Some(mut other), Some(slot)) = (self.pool.get(), self.own.get_mut(tag as usize))
        else {
            return Err(buf);
        };
        other.set_len(bytes);
        if request.op == Op::Write {
            other
                .as_mut_slice()
                .copy_from_slice(&buf.as_slice()[..bytes]);
        }
        *slot = Some(buf);
        Ok(other)
    }

    /// The I/O's own buffer for what came back from SPDK; `read`: with the bytes of it.
    #[inline]
    pub(crate) fn take_back(&mut self, tag: u32, read: bool, came: DmaBuf) -> DmaBuf {
        let Some(mut own) = self.own.get_mut(tag as usize).and_then(Option::take) else {
            return came;
        };
        if read {
            let len = came.len();
            own.as_mut_slice()[..len].copy_from_slice(came.as_slice());
        }
        own
    }
}

/// Whether the bytes of a finished request are in its buffer now.
pub(crate) fn has_read(request: &Request, errno: i32) -> bool {
    request.op == Op::Read && errno == 0
}
