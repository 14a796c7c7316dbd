//! What the harness on the host and the agent in the guest say to each other.
//!
//! One byte stream (a virtio serial port) carries frames both ways: a JSON header with the call's number, then raw bytes. The
//! agent begins with [`Reply::Hello`]. Calls run at the same time; each is answered under its number:
//!
//! | request | replies |
//! |---|---|
//! | [`Request::Run`] | `Started`, any number of `Stdout` and `Stderr` with data, `Exited` |
//! | [`Request::Kill`] of a running call | nothing; that call's `Exited` follows |
//! | [`Request::Put`] with data | `Done` |
//! | [`Request::Get`] | `Data` with data |
//!
//! or `Failed` with the reason. A frame carries at most [`MAX_DATA`] bytes: larger files move in parts, by offset.

mod frame;

use serde::{Deserialize, Serialize};

pub use frame::{MAX_DATA, read, write};

/// The name of the virtio serial port.
pub const PORT: &str = "keel.agent";

/// What the harness asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Run a program in a process group of its own, with empty standard input.
    Run(Run),
    /// Send a signal to the process group of the running call with this number.
    Kill {
        /// As `kill` numbers it.
        signal: i32,
    },
    /// Write the frame's data at an offset of a file, which is made with its folders if it is not there.
    Put {
        /// Absolute.
        path: String,
        /// Permissions of a file that is made.
        mode: u32,
        /// Bytes from the start; 0 also empties the file first.
        offset: u64,
    },
    /// Read up to [`MAX_DATA`] bytes from an offset; none at the file's end.
    Get {
        /// Absolute.
        path: String,
        /// Bytes from the start.
        offset: u64,
    },
}

/// A program to run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Added to the agent's environment.
    pub env: Vec<(String, String)>,
    /// User and group to run as; `None`: root.
    pub user: Option<u32>,
}

/// What the agent answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The guest is up; under call number 0, once.
    Hello {
        /// `uname -r`.
        kernel: String,
    },
    /// The program runs.
    Started {
        /// Its process, and process group.
        pid: u32,
    },
    /// Bytes from its standard output.
    Stdout,
    /// Bytes from its standard error.
    Stderr,
    /// It has ended, and nobody holds its outputs open any more.
    Exited {
        /// Exit code, or
        code: Option<i32>,
        /// the signal that ended it.
        signal: Option<i32>,
    },
    /// Bytes of a file.
    Data,
    /// The bytes are written.
    Done,
    /// It cannot be done.
    Failed {
        /// What and why.
        why: String,
    },
}
