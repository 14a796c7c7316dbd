//! Setup and cleanup of all modules, on the system xstream.
//!
//! Invariants: H2 and H3 of `guard.rs`.
#![allow(unsafe_code, reason = "calls through a descriptor")]

use crate::guard::{Place, place};
use crate::handles::Object;
use crate::host::Host;
use crate::modules::{ModuleEntry, ModuleState};
use daos_errno::Der;
use engine_xstream::Xstream;
use module_abi::{DSS_PENDING, dss_done};
use spdk_thread::sync::oneshot;
use std::time::Duration;

type Phase = unsafe extern "C" fn(done: *mut dss_done) -> i32;

/// A module whose setup failed; those set up before it have been cleaned up again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("module {module}: setup failed: {der}")]
pub struct SetupError {
    /// Which.
    pub module: String,
    /// Why; `DER_TIMEDOUT` when it missed its deadline.
    pub der: Der,
}

/// A module whose cleanup failed; the others were cleaned up all the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("module {module}: cleanup failed: {der}")]
pub struct CleanupFailure {
    /// Which.
    pub module: String,
    /// Why.
    pub der: Der,
}

impl Host {
    /// Sets all modules up, in the order of registration. On a failure the ones before are cleaned up in reverse order,
    /// so that it can be called again. System xstream.
    ///
    /// # Errors
    /// [`SetupError`] names the module.
    pub async fn setup_all(&self, xstream: &Xstream) -> Result<(), SetupError> {
        if let Some(set) = xstream.set() {
            let _ = self.0.xstreams.set(set.clone()); // the same at every call
        }
        let modules = self.0.modules().clone();
        for (nr, &module) in modules.iter().enumerate() {
            if module.state() == ModuleState::Serving {
                continue;
            }
            module.set_state(ModuleState::SettingUp);
            let result = self.run("setup", module, module.descriptor.sm_setup).await;
            if let Err(der) = result {
                let error = SetupError {
                    module: module.name.clone(),
                    der,
                };
                module.fail(error.to_string());
                tracing::error!(module = module.name, %der, "module setup failed");
                self.cleanup(&modules[..nr], ModuleState::Registered).await;
                return Err(error);
            }
            module.set_state(ModuleState::Serving);
            tracing::debug!(module = module.name, "module is set up");
        }
        Ok(())
    }

    /// Cleans up all modules that serve, in reverse order. System xstream. A failure is logged and told, the rest goes on.
    pub async fn cleanup_all(&self, _xstream: &Xstream) -> Vec<CleanupFailure> {
        let modules = self.0.modules().clone();
        self.cleanup(&modules, ModuleState::Cleaned).await
    }

    async fn cleanup(
        &self,
        modules: &[&'static ModuleEntry],
        after: ModuleState,
    ) -> Vec<CleanupFailure> {
        let mut failures = Vec::new();
        for &module in modules
            .iter()
            .rev()
            .filter(|module| module.state() == ModuleState::Serving)
        {
            module.set_state(ModuleState::CleaningUp);
            let result = self
                .run("cleanup", module, module.descriptor.sm_cleanup)
                .await;
            crate::calls::iv::end_namespaces(module).await;
            module.set_state(after);
            if let Err(der) = result {
                tracing::error!(module = module.name, %der, "module cleanup failed");
                failures.push(CleanupFailure {
                    module: module.name.clone(),
                    der,
                });
            }
        }
        failures
    }

    /// One call, and its result if it comes later.
    async fn run(
        &self,
        what: &'static str,
        module: &'static ModuleEntry,
        phase: Option<Phase>,
    ) -> Result<(), Der> {
        let Some(phase) = phase else { return Ok(()) };
        let here = place(what, Some(module), Place::System)?;
        let (sender, receiver) = oneshot::channel();
        let handle: *mut dss_done = here
            .handles
            .insert(module, Object::Done(sender))
            .map_err(|_| Der::NOMEM)?;
        // SAFETY: H2: on the system xstream, in the state that its tag asks for.
        let rc = unsafe { phase(handle) };
        let rc = if rc == DSS_PENDING {
            self.later(what, module, receiver).await
        } else {
            rc
        };
        // Answered at once, or too late: the handle ends here.
        let _ = here
            .handles
            .take(handle, |object| matches!(object, Object::Done(_)));
        Der::check(rc)
    }

    async fn later(
        &self,
        what: &'static str,
        module: &ModuleEntry,
        receiver: oneshot::Receiver<i32>,
    ) -> i32 {
        let deadline: Duration = self.0.deadline;
        let nanos = u64::try_from(deadline.as_nanos()).unwrap_or(u64::MAX);
        match spdk_thread::timeout(nanos, receiver).await {
            Ok(Ok(rc)) => rc,
            Ok(Err(_)) => Der::CANCELED.neg(),
            Err(_) => {
                tracing::error!(
                    module = module.name,
                    "{what} has not ended within {deadline:?}"
                );
                Der::TIMEDOUT.neg()
            }
        }
    }
}
