//! The smallest module.
