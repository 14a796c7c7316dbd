//! What the store needs of a block device, and the device in units of 4 KiB.

use std::future::Future;

use crate::error::StoreError;

/// Bytes of the store's allocation and log unit. Device blocks must divide it.
pub const UNIT: usize = 4096;

/// A byte buffer that a device can read into and write from. The store uses its whole length.
pub trait Buf: 'static {
    /// All bytes of the buffer.
    fn as_slice(&self) -> &[u8];
    /// All bytes of the buffer.
    fn as_mut_slice(&mut self) -> &mut [u8];
}

impl Buf for Vec<u8> {
    fn as_slice(&self) -> &[u8] {
        self
    }
    fn as_mut_slice(&mut self) -> &mut [u8] {
        self
    }
}

/// Shape of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes of a logical block; the device never tears one.
    pub block_size: u32,
    /// Logical blocks of the device.
    pub num_blocks: u64,
    /// Most blocks of one request; 0: no limit.
    pub max_io_blocks: u32,
}

/// A failed device request: what the device said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DevError(pub String);

/// A block device as one xstream sees it. Buffers move into a request and come back with its completion; a future that
/// is dropped early detaches, it never frees a buffer under the device.
pub trait BlockDev: 'static {
    /// Buffers of this device (DMA memory, or `Vec<u8>` in tests).
    type Buf: Buf;

    /// Shape of the device. Constant.
    fn geometry(&self) -> Geometry;
    /// A buffer of at least `len` bytes (a multiple of the block size); its content is unspecified.
    ///
    /// # Errors
    /// No memory.
    fn alloc(&self, len: usize) -> Result<Self::Buf, DevError>;
    /// Reads `blocks` blocks into the start of `buf`.
    fn read(
        &self,
        lba: u64,
        blocks: u32,
        buf: Self::Buf,
    ) -> impl Future<Output = (Result<(), DevError>, Self::Buf)>;
    /// Writes `blocks` blocks from the start of `buf`; with `fua` they are durable when it completes.
    fn write(
        &self,
        lba: u64,
        blocks: u32,
        buf: Self::Buf,
        fua: bool,
    ) -> impl Future<Output = (Result<(), DevError>, Self::Buf)>;
    /// Makes every write that completed before the call durable.
    fn flush(&self) -> impl Future<Output = Result<(), DevError>>;
    /// Tells the device that the blocks hold nothing any more. A device that cannot may ignore it.
    fn unmap(&self, lba: u64, blocks: u64) -> impl Future<Output = Result<(), DevError>>;
}

/// Consecutive units on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    /// First unit, counted from the start of the device.
    pub(crate) unit: u64,
    pub(crate) units: u32,
}

/// A device counted in units of [`UNIT`] bytes.
pub(crate) struct Media<D: BlockDev> {
    dev: D,
    per_unit: u32,
    max_units: u32,
    units: u64,
}

impl<D: BlockDev> Media<D> {
    pub(crate) fn new(dev: D) -> Result<Self, StoreError> {
        let g = dev.geometry();
        let size = g.block_size as usize;
        if size == 0 || size > UNIT || !UNIT.is_multiple_of(size) {
            return Err(StoreError::BlockSize {
                found: g.block_size,
            });
        }
        let per_unit = (UNIT / size) as u32;
        let max_units = match g.max_io_blocks {
            0 => u32::MAX / per_unit,
            n => (n / per_unit).max(1),
        };
        let units = g.num_blocks / u64::from(per_unit);
        Ok(Self {
            dev,
            per_unit,
            max_units,
            units,
        })
    }

    /// Whole units of the device.
    pub(crate) fn units(&self) -> u64 {
        self.units
    }

    pub(crate) fn alloc(&self, units: u32) -> Result<D::Buf, StoreError> {
        self.dev
            .alloc(units as usize * UNIT)
            .map_err(|e| StoreError::NoMemory { why: e.0 })
    }

    /// Reads `runs` one after the other into `buf`. Without a copy when it is one run that the device takes whole.
    pub(crate) async fn read(&self, runs: &[Run], mut buf: D::Buf) -> Result<D::Buf, StoreError> {
        if let [run] = runs
            && run.units <= self.max_units
        {
            return self.read_run(*run, buf).await;
        }
        let mut at = 0;
        for run in self.split(runs) {
            let part = self.read_run(run, self.alloc(run.units)?).await?;
            let len = run.units as usize * UNIT;
            buf.as_mut_slice()[at..at + len].copy_from_slice(&part.as_slice()[..len]);
            at += len;
        }
        Ok(buf)
    }

    /// Writes `buf` to `runs` one after the other. Without a copy when it is one run that the device takes whole.
    pub(crate) async fn write(
        &self,
        runs: &[Run],
        buf: D::Buf,
        fua: bool,
    ) -> Result<D::Buf, StoreError> {
        if let [run] = runs
            && run.units <= self.max_units
        {
            return self.write_run(*run, buf, fua).await;
        }
        let mut at = 0;
        for run in self.split(runs) {
            let mut part = self.alloc(run.units)?;
            let len = run.units as usize * UNIT;
            part.as_mut_slice()[..len].copy_from_slice(&buf.as_slice()[at..at + len]);
            self.write_run(run, part, fua).await?;
            at += len;
        }
        Ok(buf)
    }

    pub(crate) async fn flush(&self) -> Result<(), StoreError> {
        let failed = |source| StoreError::Device {
            op: "flush",
            unit: 0,
            source,
        };
        self.dev.flush().await.map_err(failed)
    }

    pub(crate) async fn unmap(&self, unit: u64, units: u64) -> Result<(), StoreError> {
        let per = u64::from(self.per_unit);
        let failed = |source| StoreError::Device {
            op: "unmap",
            unit,
            source,
        };
        self.dev
            .unmap(unit * per, units * per)
            .await
            .map_err(failed)
    }

    fn split<'a>(&'a self, runs: &'a [Run]) -> impl Iterator<Item = Run> + 'a {
        let max = self.max_units;
        runs.iter().flat_map(move |run| {
            (0..run.units.div_ceil(max)).map(move |i| Run {
                unit: run.unit + u64::from(i) * u64::from(max),
                units: max.min(run.units - i * max),
            })
        })
    }

    async fn read_run(&self, run: Run, buf: D::Buf) -> Result<D::Buf, StoreError> {
        let per = self.per_unit;
        let (result, buf) = self
            .dev
            .read(run.unit * u64::from(per), run.units * per, buf)
            .await;
        let failed = |source| StoreError::Device {
            op: "read",
            unit: run.unit,
            source,
        };
        result.map_err(failed).map(|()| buf)
    }

    async fn write_run(&self, run: Run, buf: D::Buf, fua: bool) -> Result<D::Buf, StoreError> {
        let per = self.per_unit;
        let (result, buf) = self
            .dev
            .write(run.unit * u64::from(per), run.units * per, buf, fua)
            .await;
        let failed = |source| StoreError::Device {
            op: "write",
            unit: run.unit,
            source,
        };
        result.map_err(failed).map(|()| buf)
    }
}
