//! keel-engine: the daemon.

fn main() {}
