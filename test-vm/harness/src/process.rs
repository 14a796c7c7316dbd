//! A program that runs in the guest.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use test_vm_agent::{Reply, Request};

use crate::agent::{Agent, Call};

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Exit code; `None`: ended by a signal.
    pub code: Option<i32>,
    /// Standard output, the first 32 MiB.
    pub stdout: String,
    /// Standard error, likewise.
    pub stderr: String,
}

/// A running program. Dropped, it runs on: the VM's end is its end.
pub struct Process {
    pub(crate) agent: Arc<Agent>,
    pub(crate) number: u32,
    pub(crate) call: Arc<Call>,
    /// As it was asked for.
    pub(crate) shown: String,
}

impl Process {
    /// Its process number in the guest.
    pub fn pid(&self, longest: Duration) -> Result<u32> {
        let pid = self.call.wait(longest, |state| state.pid);
        pid.with_context(|| format!("`{}` does not start", self.shown))
    }

    /// Waits until it has written this, on either output.
    pub fn wait_for(&self, text: &str, longest: Duration) -> Result<()> {
        let has = |bytes: &[u8]| {
            bytes
                .windows(text.len())
                .any(|window| window == text.as_bytes())
        };
        let found = self.call.wait(longest, |state| {
            (has(&state.stdout) || has(&state.stderr)).then_some(())
        });
        if found.is_some() {
            return Ok(());
        }
        let state = self.call.lock();
        let end = match &state.end {
            None => format!("has not within {longest:?}"),
            Some(end) => format!("ended ({end:?}) and has not"),
        };
        bail!(
            "`{}` should say {text:?} and {end}:\n{}",
            self.shown,
            tail(&state.stdout, &state.stderr)
        )
    }

    /// All that it has written so far: standard output, then standard error.
    pub fn written(&self) -> String {
        let state = self.call.lock();
        format!(
            "{}{}",
            String::from_utf8_lossy(&state.stdout),
            String::from_utf8_lossy(&state.stderr)
        )
    }

    /// Whether it has ended, or the VM has.
    pub fn has_ended(&self) -> bool {
        self.call.lock().end.is_some()
    }

    /// Sends a signal to it and its children.
    pub fn signal(&self, signal: i32) -> Result<()> {
        self.agent.send(self.number, &Request::Kill { signal }, &[])
    }

    /// Waits for its end.
    pub fn wait(&self, longest: Duration) -> Result<Output> {
        match self.call.end(&format!("`{}`", self.shown), longest) {
            Ok(Reply::Exited { code, .. }) => {
                let state = self.call.lock();
                Ok(Output {
                    code,
                    stdout: String::from_utf8_lossy(&state.stdout).into_owned(),
                    stderr: String::from_utf8_lossy(&state.stderr).into_owned(),
                })
            }
            Ok(other) => bail!("`{}` ended with {other:?}", self.shown),
            Err(error) => {
                let state = self.call.lock();
                Err(error.context(tail(&state.stdout, &state.stderr)))
            }
        }
    }
}

/// The last lines of both outputs.
fn tail(stdout: &[u8], stderr: &[u8]) -> String {
    const LINES: usize = 40;
    let last = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    };
    format!("{}\n{}", last(stdout), last(stderr))
        .trim()
        .to_owned()
}
