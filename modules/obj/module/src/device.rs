//! This target's share of its device, as the store wants it.

use module_sdk::{Bdev, Der, DmaBuf};
use obj_store::{BlockDev, Buf, DevError, Geometry};

/// Most blocks of one unmap.
const UNMAP_MAX: u64 = 1 << 20;

/// A DMA buffer that the store sees with its whole capacity.
pub(crate) struct Dma(DmaBuf);

impl Dma {
    pub(crate) fn new(mut buf: DmaBuf) -> Dma {
        buf.set_len(buf.capacity());
        Dma(buf)
    }

    /// The buffer with `len` bytes in use.
    pub(crate) fn with_len(mut self, len: usize) -> DmaBuf {
        self.0.set_len(len);
        self.0
    }
}

impl Buf for Dma {
    fn as_slice(&self) -> &[u8] {
        &self.0
    }
    fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// The share, open on the target's xstream.
#[derive(Clone)]
pub(crate) struct Device(pub(crate) Bdev);

impl Device {
    fn said(&self, der: Der) -> DevError {
        DevError(format!("device '{}': {der}", self.0.info().device_name))
    }

    /// Without a volatile cache a completed write is durable already.
    fn volatile(&self) -> bool {
        self.0.info().volatile_write_cache
    }
}

impl BlockDev for Device {
    type Buf = Dma;

    fn geometry(&self) -> Geometry {
        let info = self.0.info();
        Geometry {
            block_size: info.block_size,
            num_blocks: info.num_blocks,
            max_io_blocks: info.max_io_blocks,
        }
    }

    fn alloc(&self, len: usize) -> Result<Dma, DevError> {
        DmaBuf::alloc(len)
            .map(Dma::new)
            .map_err(|der| self.said(der))
    }

    async fn read(&self, lba: u64, blocks: u32, buf: Dma) -> (Result<(), DevError>, Dma) {
        let (result, buf) = self.0.read(lba, blocks, buf.0).await;
        (result.map_err(|der| self.said(der)), Dma::new(buf))
    }

    async fn write(
        &self,
        lba: u64,
        blocks: u32,
        buf: Dma,
        fua: bool,
    ) -> (Result<(), DevError>, Dma) {
        let (result, buf) = self
            .0
            .write(lba, blocks, buf.0, fua && self.volatile())
            .await;
        (result.map_err(|der| self.said(der)), Dma::new(buf))
    }

    async fn flush(&self) -> Result<(), DevError> {
        if !self.volatile() {
            return Ok(());
        }
        self.0.flush().await.map_err(|der| self.said(der))
    }

    /// Advice only: a device that cannot is fine.
    async fn unmap(&self, lba: u64, blocks: u64) -> Result<(), DevError> {
        let end = lba + blocks;
        for at in (lba..end).step_by(UNMAP_MAX as usize) {
            let len = UNMAP_MAX.min(end - at) as u32;
            match self.0.unmap(at, len).await {
                Ok(()) => {}
                Err(Der::NOSYS | Der::NOTSUPPORTED | Der::INVAL) => return Ok(()),
                Err(der) => return Err(self.said(der)),
            }
        }
        Ok(())
    }
}
