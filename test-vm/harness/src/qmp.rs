//! QEMU's control channel: one JSON object a line (docs/interop/qmp-spec.txt of QEMU).

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

/// Longest wait for an answer. QEMU answers at once, but it may be starved of processors.
const PATIENCE: Duration = Duration::from_secs(60);
/// Events that are kept for [`Qmp::wait_event`]; the oldest go first.
const EVENTS: usize = 256;

/// A connection on which capabilities are negotiated.
pub struct Qmp {
    input: BufReader<UnixStream>,
    out: UnixStream,
    events: Vec<Value>,
}

impl Qmp {
    pub(crate) fn new(stream: UnixStream) -> Result<Qmp> {
        let mut qmp = Qmp {
            out: stream.try_clone()?,
            input: BufReader::new(stream),
            events: Vec::new(),
        };
        let greeting = qmp.line(Instant::now() + PATIENCE)?;
        ensure!(greeting.get("QMP").is_some(), "QEMU greets with {greeting}");
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs a command; a refusal is an error with QEMU's words.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let mut line = json!({ "execute": command, "arguments": arguments }).to_string();
        line.push('\n');
        self.out
            .write_all(line.as_bytes())
            .context("QEMU is gone")?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut message = self.line(deadline)?;
            if let Some(result) = message.get_mut("return") {
                return Ok(result.take());
            }
            if let Some(error) = message.get("error") {
                bail!(
                    "QMP {command}: {}",
                    error["desc"].as_str().unwrap_or("refused")
                );
            }
            self.keep(message);
        }
    }

    /// Waits for an event that came since the connection began and was not yet waited for.
    pub fn wait_event(&mut self, name: &str, longest: Duration) -> Result<Value> {
        let deadline = Instant::now() + longest;
        loop {
            if let Some(at) = self.events.iter().position(|event| event["event"] == name) {
                return Ok(self.events.remove(at));
            }
            let message = self
                .line(deadline)
                .with_context(|| format!("waiting for QEMU's {name}"))?;
            self.keep(message);
        }
    }

    fn keep(&mut self, message: Value) {
        if message.get("event").is_some() {
            if self.events.len() == EVENTS {
                self.events.remove(0);
            }
            self.events.push(message);
        }
    }

    fn line(&mut self, deadline: Instant) -> Result<Value> {
        let left = deadline.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "QEMU does not answer");
        self.out.set_read_timeout(Some(left))?;
        let mut line = String::new();
        let len = self
            .input
            .read_line(&mut line)
            .context("QEMU does not answer")?;
        ensure!(len > 0, "QEMU is gone");
        serde_json::from_str(&line).with_context(|| format!("QEMU says {line:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that says these lines, and the connection to it.
    fn peer(lines: &[&str]) -> (UnixStream, Result<Qmp>) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        for line in lines {
            theirs.write_all(format!("{line}\n").as_bytes()).unwrap();
        }
        (theirs, Qmp::new(ours))
    }

    #[test]
    fn events_between_answers_are_kept() {
        let (_theirs, qmp) = peer(&[
            r#"{"QMP": {}}"#,
            r#"{"return": {}}"#,
            r#"{"event": "STOP"}"#,
            r#"{"return": 7}"#,
            r#"{"error": {"class": "GenericError", "desc": "no such device"}}"#,
            r#"{"event": "DEVICE_DELETED", "data": {"device": "n0"}}"#,
        ]);
        let mut qmp = qmp.unwrap();
        assert_eq!(qmp.execute("x", json!({})).unwrap(), 7);
        let error = qmp
            .execute("device_del", json!({}))
            .unwrap_err()
            .to_string();
        assert_eq!(error, "QMP device_del: no such device");
        let event = qmp.wait_event("DEVICE_DELETED", PATIENCE).unwrap();
        assert_eq!(event["data"]["device"], "n0");
        qmp.wait_event("STOP", PATIENCE).unwrap();
    }

    #[test]
    fn an_end_is_an_error() {
        let (theirs, qmp) = peer(&[r#"{"QMP": {}}"#, r#"{"return": {}}"#]);
        drop(theirs);
        let error = qmp.unwrap().execute("x", json!({})).unwrap_err();
        assert_eq!(error.to_string(), "QEMU is gone");
    }
}
