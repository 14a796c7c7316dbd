//! Keel's configuration file: keys, checks, errors with a caret.
