//! What runs a call.

use daos_errno::Der;

/// One call with everything it needs. Dropping it unrun answers FAILURE.
pub type Job = Box<dyn FnOnce()>;

/// Starts calls. The server's poller starts each in a ULT of its own on the system xstream.
pub trait Spawner {
    /// Starts a job, or refuses it; then the call's session is closed.
    fn spawn(&mut self, job: Job) -> Result<(), Der>;
}

/// Runs each call where it is, before the next is read: for a server that is stepped by hand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inline;

impl Spawner for Inline {
    fn spawn(&mut self, job: Job) -> Result<(), Der> {
        job();
        Ok(())
    }
}
