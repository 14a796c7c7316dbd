//! The safe Rust face of the module ABI.
