//! The dRPC server: listener, sessions, progress poller, dispatch to handlers.
