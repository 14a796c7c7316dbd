//! The object module: pools, containers and byte objects on the targets.
