//! The table at the end: what was measured.

use std::fmt;
use std::time::Duration;

use anyhow::Result;

use super::engine::Engine;
use super::files::Files;

/// Lines of the table, and what went wrong.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<(String, String)>,
    wrong: Vec<String>,
}

impl Report {
    /// A start, as the caller and as the engine itself timed it.
    pub(crate) fn started(&mut self, engine: &Engine) -> Result<()> {
        let status = engine.keel_json(&["engine", "status"])?;
        let which = if self.rows.is_empty() {
            "start to ready"
        } else {
            "restart to ready, index rebuilt"
        };
        let own = status["start_to_ready_ms"].as_u64().unwrap_or(0);
        self.row(
            which,
            format!(
                "{} ms ({own} ms by the engine's own clock)",
                engine.start_time.as_millis()
            ),
        );
        if self.rows.len() == 1 {
            let count = |key: &str| status[key].as_array().map_or(0, Vec::len);
            self.row(
                "engine",
                format!(
                    "{} targets, {} xstreams, provider {}",
                    count("targets"),
                    count("xstreams"),
                    status["provider"].as_str().unwrap_or("?")
                ),
            );
        }
        Ok(())
    }

    pub(crate) fn stored(&mut self, files: &Files, spent: Duration) {
        self.row("stored, durable", rate(files, spent));
    }

    pub(crate) fn read(&mut self, files: &Files, spent: Duration, wrong: &[String]) {
        self.row("read back after a restart", rate(files, spent));
        let right = files.items.len() - wrong.len();
        self.row(
            "checksums equal",
            format!("{right} of {}", files.items.len()),
        );
        self.wrong = wrong.to_vec();
    }

    /// What the devices did in the second run.
    pub(crate) fn device_counters(&mut self, engine: &Engine) -> Result<()> {
        let devices = engine.keel_json(&["devices"])?;
        let sum = |counter: &str| -> u64 {
            let counters = devices["devices"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|device| device["counters"].as_array())
                .flatten();
            counters
                .filter(|c| c["name"] == counter)
                .filter_map(|c| c["value"].as_u64())
                .sum()
        };
        let errors: u64 = ["read_errors", "write_errors", "flush_errors"]
            .into_iter()
            .map(sum)
            .sum();
        self.row(
            "device reads since the restart",
            format!(
                "{} ({:.1} MiB), {errors} errors",
                sum("read_ops"),
                sum("read_bytes") as f64 / f64::from(1 << 20)
            ),
        );
        Ok(())
    }

    fn row(&mut self, what: &str, value: String) {
        self.rows.push((what.to_owned(), value));
    }
}

fn rate(files: &Files, spent: Duration) -> String {
    let mib = files.bytes as f64 / f64::from(1 << 20);
    let seconds = spent.as_secs_f64().max(1e-6);
    format!(
        "{} files, {mib:.1} MiB in {seconds:.1} s: {:.1} MiB/s",
        files.items.len(),
        mib / seconds
    )
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self
            .rows
            .iter()
            .map(|(what, _)| what.len())
            .max()
            .unwrap_or(0);
        for (what, value) in &self.rows {
            writeln!(f, "{what:width$}  {value}")?;
        }
        match self.wrong.as_slice() {
            [] => write!(f, "every byte matched"),
            wrong => write!(f, "WRONG:\n  {}", wrong.join("\n  ")),
        }
    }
}
