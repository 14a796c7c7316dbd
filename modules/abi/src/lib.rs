//! The module ABI: the C header and its Rust mirror.
