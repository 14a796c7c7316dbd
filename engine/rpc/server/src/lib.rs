//! The data RPC: handler registry, dispatch by tag, TCP and loopback transports.
