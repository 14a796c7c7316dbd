//! The watchdog in the daemon: its limits from the configuration, systemd, and what a fatal stall does.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use engine_config::Config;
use engine_telemetry::log::LogControl;
use engine_watchdog::{Options, Report, View, Watchdog, dump};
use engine_xstream::Xstreams;
use spdk_reactor::ReactorHandle;

use crate::state::{Engine, Running};

/// Starts it; `view` shows what it sees.
pub(crate) fn start(
    engine: &Arc<Engine>,
    xstreams: &Xstreams,
    reactors: &[ReactorHandle],
) -> std::io::Result<Watchdog> {
    let limits = &engine.config.watchdog;
    let systemd = systemd_patience();
    if let Some(patience) = systemd {
        tracing::info!(
            patience_ms = patience.as_millis() as u64,
            "systemd's watchdog is fed while every xstream makes progress"
        );
    }
    let is_fatal = limits.stall_is_fatal;
    let own = engine.clone();
    let options = Options {
        unit_runtime_max: Duration::from_millis(limits.ult_runtime_max_ms.into()),
        stall_max: Duration::from_secs(limits.xstream_stall_max_s.into()),
        systemd,
        feed: Box::new(|| crate::stop::notify_systemd(&[sd_notify::NotifyState::Watchdog])),
        on_report: Box::new(move |report| {
            report.log();
            if is_fatal && matches!(report, Report::Stalled { .. }) {
                end(&own);
            }
        }),
    };
    Watchdog::start(xstreams, reactors, options)
}

/// What systemd asked for with `WatchdogSec=`, if it meant this process (sd_watchdog_enabled(3)).
fn systemd_patience() -> Option<Duration> {
    let var = |name| std::env::var(name).ok();
    let own = std::process::id();
    patience(var("WATCHDOG_USEC"), var("WATCHDOG_PID"), own)
}

fn patience(micros: Option<String>, pid: Option<String>, own: u32) -> Option<Duration> {
    let micros = micros?.parse().ok().filter(|&micros| micros > 0)?;
    // Without a process it means whoever reads it.
    let is_meant = pid.is_none_or(|pid| pid.parse() == Ok(own));
    is_meant.then(|| Duration::from_micros(micros))
}

/// Ends the engine so that a core file shows why.
fn end(engine: &Engine) -> ! {
    tracing::error!("an xstream is stalled and stall_is_fatal is set: aborting for a core file");
    dump(engine, true);
    flush(&engine.log);
    std::process::abort()
}

fn flush(log: &LogControl) {
    log.flush(Duration::from_secs(1));
}

/// Writes what everything does to a file, for SIGUSR1 and SIGUSR2. Main thread, or the watchdog's.
pub(crate) fn dump(engine: &Engine, with_backtraces: bool) {
    let Some(running) = engine.running.get() else {
        tracing::warn!("no dump: the xstreams are not up yet");
        return;
    };
    let Running {
        xstreams,
        reactors,
        view,
        ..
    } = running;
    let view: &View = view;
    let text = dump::text(xstreams, reactors, view, with_backtraces);
    let directory = directory(&engine.config);
    match dump::write(&directory, &text) {
        Ok(path) => tracing::info!(path = %path.display(), "dump written"),
        Err(error) => {
            tracing::error!(directory = %directory.display(), %error, "cannot write a dump there; its text follows\n{text}");
        }
    }
}

/// Beside the log, or in the storage directory.
fn directory(config: &Config) -> PathBuf {
    let log = config.telemetry.log_file.as_deref().and_then(Path::parent);
    match log {
        Some(folder) if folder.as_os_str().is_empty() => PathBuf::from("."),
        Some(folder) => folder.to_owned(),
        None => config.engine.storage_dir.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::patience;
    use std::time::Duration;

    #[test]
    fn systemd_means_this_process_or_another_one() {
        let some = |text: &str| Some(text.to_owned());
        let half = Some(Duration::from_millis(500));
        assert_eq!(patience(some("500000"), some("7"), 7), half);
        assert_eq!(patience(some("500000"), None, 7), half);
        assert_eq!(patience(some("500000"), some("8"), 7), None);
        assert_eq!(patience(some("500000"), some("me"), 7), None);
        assert_eq!(patience(some("0"), None, 7), None);
        assert_eq!(patience(some("soon"), None, 7), None);
        assert_eq!(patience(None, some("7"), 7), None);
    }
}
