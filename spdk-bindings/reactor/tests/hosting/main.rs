//! Reactors on real OS threads, with threads that nobody carries. The libspdk provider runs the same file over C SPDK.
#![allow(missing_docs, reason = "a test")]

mod reactors;

mod setup {
    use spdk_reactor::Depth;
    use spdk_thread::ThreadOptions;

    /// Where a reactor that has nothing to do ends up.
    pub(crate) const REST: Depth = Depth::Sleep;

    pub(crate) fn thread_options() -> ThreadOptions {
        ThreadOptions::default()
    }
}
