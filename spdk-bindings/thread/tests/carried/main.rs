//! What a thread does whoever carries it; here nobody does. The libspdk provider runs the same files over C SPDK.
#![allow(missing_docs, reason = "a test")]

mod exit;
mod tasks;

mod setup {
    use spdk_thread::testing::Lockstep;

    pub(crate) fn lockstep() -> Lockstep {
        Lockstep::new()
    }
}
