//! cargo xtask: run, test, check, bench.

fn main() {}
