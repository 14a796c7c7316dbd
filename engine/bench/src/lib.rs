//! One file per question; runs tiny in tests, for real by name.
