//! What a thread does whoever carries it; here nobody does. The libspdk provider runs the same files over C SPDK.
#![allow(missing_docs, reason = "a test")]

mod exit;
mod tasks;
mod turns;

mod setup {
    use spdk_thread::testing::Lockstep;

    /// Pollers are called in the order in which they were registered.
    pub(crate) const KEEPS_ORDER: bool = true;

    pub(crate) fn lockstep() -> Lockstep {
        Lockstep::new()
    }
}
