//! Claims the cores that the engine is about to use, so that two engines do not poll on the same one unknowingly.

use std::path::PathBuf;

use engine_config::Config;
use spdk_env::core_lock::{self, CoreLockError, CoreLocks};

use crate::error::BootError;

/// Claims `cpus`: for this engine alone, or shared if it shares cores anyway; `None` if the configuration says so.
pub(crate) fn claim(config: &Config, cpus: &[usize]) -> Result<Option<CoreLocks>, BootError> {
    if !config.engine.lock_cores {
        return Ok(None);
    }
    let directory = directory();
    let locks = if config.engine.oversubscribe {
        CoreLocks::shared(&directory, cpus)
    } else {
        CoreLocks::exclusive(&directory, cpus)
    };
    let locks = locks.map_err(|error| match error {
        CoreLockError::Taken(_) => BootError::cannot_use(format!(
            "another engine has the cores: {error}\n  cure: give this engine other ones (engine.cpus, engine.first_core), or share \
             them: engine.oversubscribe = true, or claim none: engine.lock_cores = false"
        )),
        CoreLockError::File { .. } => BootError::cannot_use(format!(
            "cores cannot be claimed: {error}\n  cure: make the file usable for this user, or set engine.lock_cores = false"
        )),
    })?;
    for taken in locks.taken() {
        tracing::warn!("{taken} alone: sharing it costs both engines");
    }
    Ok(Some(locks))
}

/// Engines with a run directory of their own (tests, containers) meet there, all others of the machine in one place.
fn directory() -> PathBuf {
    match std::env::var_os("KEEL_RUN_DIR") {
        Some(directory) => {
            // If it cannot be made, the lock says so.
            let _ = std::fs::create_dir_all(&directory);
            directory.into()
        }
        None => core_lock::directory(),
    }
}
