//! The engine's state as text in a file: what an operator sends along with a question.

use crate::monitor::View;
use crate::report::{describe, owner};
use crate::unwind::backtrace_or_reason;
use engine_xstream::{XstreamUlts, Xstreams};
use spdk_reactor::{Depth, ReactorHandle};
use spdk_thread::{Period, TaskInfo, TaskState};
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long all xstreams together may take to answer; those that do not are shown as the watchdog sees them.
const PATIENCE: Duration = Duration::from_secs(1);
/// Dumps that are kept in a directory; the oldest goes when another one is written.
pub const KEPT: usize = 16;
const PREFIX: &str = "keel_dump_";

/// The state of a running engine. Asks the xstreams by message and waits at most a second, so it takes no xstream's time but that of a
/// list; `with_backtraces` also interrupts every reactor for a few microseconds. Control threads only.
#[must_use]
pub fn text(
    xstreams: &Xstreams,
    reactors: &[ReactorHandle],
    view: &View,
    with_backtraces: bool,
) -> String {
    let mut out = format!("keel-engine, process {}\n", std::process::id());
    let running = view.running();
    for xstream in xstreams.ults_blocking(PATIENCE) {
        let _ = writeln!(out, "\n{}", xstream.name);
        if let Some(seen) = running.iter().find(|seen| seen.xstream == xstream.name) {
            if let Some((unit, ms)) = seen.unit {
                let _ = writeln!(out, "  runs: {} since {ms} ms", describe(unit));
            }
            if seen.stalled {
                out.push_str("  STALLED\n");
            }
        }
        list(&mut out, &xstream);
    }
    for reactor in reactors {
        describe_reactor(&mut out, reactor, with_backtraces);
    }
    out
}

fn list(out: &mut String, xstream: &XstreamUlts) {
    let Some(found) = &xstream.found else {
        out.push_str("  no answer: something on it does not return\n");
        return;
    };
    let _ = writeln!(out, "  {} ULTs", found.ults.len());
    for ult in &found.ults {
        let (ult, stack) = (&ult.task, ult.stack);
        let (module, name) = owner(ult.name);
        let stack = stack.map_or_else(String::new, |stack| {
            let (deepest, size) = (stack.deepest >> 10, stack.size >> 10);
            format!(", stack {deepest} of {size} KiB")
        });
        let _ = writeln!(
            out,
            "    {name} of {module}: {}, age {} ms, {} polls{stack}, started at {}",
            state(ult),
            ult.age_ns / 1_000_000,
            ult.polls,
            ult.spawned_by
        );
    }
    let _ = writeln!(out, "  {} pollers", found.pollers.len());
    for poller in &found.pollers {
        let (module, name) = owner(poller.name);
        let period = match poller.period {
            Period::EveryTurn => "every turn".to_owned(),
            Period::Nanos(ns) => format!("every {} us", ns / 1000),
        };
        let paused = if poller.paused { ", paused" } else { "" };
        let _ = writeln!(
            out,
            "    {name} of {module}: {period}{paused}, {} calls, {} busy",
            poller.calls, poller.busy
        );
    }
}

/// State and wait site in words.
#[must_use]
pub fn state(ult: &TaskInfo) -> String {
    match ult.state {
        TaskState::Ready => "ready".to_owned(),
        TaskState::Running => "running".to_owned(),
        TaskState::Waiting if ult.waits_for.is_empty() => "waiting".to_owned(),
        TaskState::Waiting => format!("waiting: {}", ult.waits_for),
        TaskState::Done => "done".to_owned(),
    }
}

fn describe_reactor(out: &mut String, reactor: &ReactorHandle, with_backtrace: bool) {
    let stats = reactor.stats();
    let cpu = reactor
        .cpu()
        .map_or_else(|| "no CPU".to_owned(), |cpu| format!("CPU {cpu}"));
    let _ = write!(
        out,
        "\nreactor {} ({cpu}): {} turns, busy {} ms",
        reactor.name(),
        stats.turns,
        stats.busy_ns / 1_000_000
    );
    for depth in Depth::ALL {
        let rest = stats.at(depth);
        let _ = write!(
            out,
            ", {} {} times {} ms",
            depth.as_str(),
            rest.count,
            rest.ns / 1_000_000
        );
    }
    out.push('\n');
    if let Some(failure) = reactor.failure() {
        let _ = writeln!(out, "  its loop has panicked: {failure}");
    }
    if with_backtrace {
        for line in backtrace_or_reason(reactor.os_thread()) {
            let _ = writeln!(out, "  {line}");
        }
    }
}

/// Writes `text` to a new file `keel_dump_<pid>_<seconds>_<number>.txt` in `directory`, mode 0600, and removes the oldest dumps beyond
/// [`KEPT`].
///
/// # Errors
/// The file cannot be made or written.
pub fn write(directory: &Path, text: &str) -> io::Result<PathBuf> {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("{PREFIX}{}_{seconds}_{number:04}.txt", std::process::id());
    let path = directory.join(name);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    file.write_all(text.as_bytes())?;
    remove_oldest(directory, &path);
    Ok(path)
}

/// What cannot be removed stays: a dump that was written is worth more than one too many.
fn remove_oldest(directory: &Path, newest: &Path) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    let mut dumps: Vec<(SystemTime, PathBuf)> = entries
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with(PREFIX) && name.ends_with(".txt") && entry.path() != newest
        })
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    dumps.sort();
    let too_many = (dumps.len() + 1).saturating_sub(KEPT);
    for (_, path) in dumps.into_iter().take(too_many) {
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::{KEPT, write};

    #[test]
    fn each_dump_is_a_new_file_and_the_oldest_go() {
        let directory = tempfile::tempdir().expect("directory");
        let other = directory.path().join("keel_dump_of_mine.log");
        std::fs::write(&other, "kept").expect("file");
        let mut paths = Vec::new();
        for round in 0..KEPT + 5 {
            let path = write(directory.path(), &format!("dump {round}")).expect("dump");
            assert!(!paths.contains(&path), "{path:?}");
            assert_eq!(
                std::fs::read_to_string(&path).expect("file"),
                format!("dump {round}")
            );
            paths.push(path);
        }
        let left = std::fs::read_dir(directory.path()).expect("list").count();
        assert_eq!(left, KEPT + 1);
        assert!(other.exists() && paths.last().expect("one").exists());
    }
}
