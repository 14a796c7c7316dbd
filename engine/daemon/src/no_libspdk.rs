//! An engine without C SPDK: what `libspdk.rs` has, as far as nothing of it can exist.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use engine_config::{Config, Provider};
use spdk_bdev::Registry;

use crate::device_book::Ask;
use crate::devices::Lent;
use crate::error::BootError;

/// What this engine can run on.
pub(crate) const PROVIDERS: &[Provider] = &[Provider::Native];

pub(crate) struct Libspdk(Infallible);

impl Libspdk {
    /// The configuration was checked against [`PROVIDERS`].
    pub(crate) fn start(_config: &Config, _cpus: &[usize]) -> Result<Option<Libspdk>, BootError> {
        Ok(None)
    }

    pub(crate) fn register_memory(&mut self) -> Result<(), BootError> {
        match self.0 {}
    }

    pub(crate) fn threads(&self) -> Arc<dyn spdk_thread::Provider> {
        match self.0 {}
    }

    pub(crate) fn open(
        &self,
        _name: &str,
        _bdev: &str,
        _book: &Sender<Ask>,
    ) -> Result<Lent, BootError> {
        match self.0 {}
    }

    pub(crate) fn stop(self, _registry: &Registry) {
        match self.0 {}
    }

    pub(crate) fn leave(self) {
        match self.0 {}
    }
}
