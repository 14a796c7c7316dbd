//! Execution streams: roles, placement, ULTs, start-up and shutdown.
