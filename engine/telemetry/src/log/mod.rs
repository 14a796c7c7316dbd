//! Logs: one subscriber for the process, a mask that changes at run time, a writer thread behind a bounded queue.
//!
//! Code logs with the `tracing` macros and knows nothing of this module; the daemon calls [`init`] once.

mod mask;
mod writer;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::{Dispatch, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry, reload};

pub use mask::MaskError;
use writer::{LogQueue, Output};
pub use writer::{QUEUE_LINES, WriterError};

/// How an event is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// One line for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Format, String> {
        match text {
            "text" => Ok(Format::Text),
            "json" => Ok(Format::Json),
            other => Err(format!(
                "log format {other:?} is unknown: use \"text\" or \"json\""
            )),
        }
    }
}

/// What [`init`] needs to know.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Text or JSON.
    pub format: Format,
    /// The first mask, in the syntax of [`LogControl::set_mask`].
    pub mask: String,
    /// Appended to, made if missing; `None`: standard error.
    pub file: Option<PathBuf>,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions {
            format: Format::Text,
            mask: "INFO".to_owned(),
            file: None,
        }
    }
}

/// Why logging did not begin.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The mask does not parse.
    #[error(transparent)]
    Mask(#[from] MaskError),
    /// The file or the writer thread.
    #[error(transparent)]
    Writer(#[from] WriterError),
    /// Somebody was first.
    #[error("logging is already set up in this process: call init once, from the daemon")]
    AlreadyInstalled,
}

/// The running log: its mask and its queue. Any thread.
#[derive(Clone)]
pub struct LogControl {
    filter: reload::Handle<Targets, Registry>,
    mask: Arc<Mutex<String>>,
    queue: LogQueue,
}

impl std::fmt::Debug for LogControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogControl")
            .field("mask", &self.mask())
            .finish_non_exhaustive()
    }
}

impl LogControl {
    /// Replaces the mask, as DAOS spells it: a level for everything, then `facility=level` pairs, separated by commas
    /// (`INFO`, `ERR,rpc=DEBUG`, `DEBUG,bdev=WARN,engine_rpc::listen=TRACE`). Case does not matter. A mask that does
    /// not parse changes nothing.
    pub fn set_mask(&self, mask: &str) -> Result<(), MaskError> {
        let targets = mask::parse(mask)?;
        let mut current = self.mask.lock().unwrap_or_else(PoisonError::into_inner);
        // Fails only when the subscriber is gone: then there is nothing left to filter.
        let _ = self.filter.reload(targets);
        mask.trim().clone_into(&mut current);
        drop(current);
        tracing::info!(mask, "log mask changed");
        Ok(())
    }

    /// The mask in force.
    pub fn mask(&self) -> String {
        self.mask
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits until everything logged before is written, at most `wait`. The daemon calls it before it exits.
    pub fn flush(&self, wait: Duration) -> bool {
        self.queue.flush(wait)
    }

    /// Lines lost because the queue of [`QUEUE_LINES`] was full; the log says so too.
    pub fn lost(&self) -> u64 {
        self.queue.lost()
    }
}

/// Sets up logging for the process. Once, early: what was logged before is gone.
pub fn init(options: &LogOptions) -> Result<LogControl, LogError> {
    let (dispatch, control) = build(options)?;
    tracing::dispatcher::set_global_default(dispatch).map_err(|_| LogError::AlreadyInstalled)?;
    Ok(control)
}

/// The subscriber without making it the process's: for tests and for tools that log for a while.
pub fn build(options: &LogOptions) -> Result<(Dispatch, LogControl), LogError> {
    let targets = mask::parse(&options.mask)?;
    let output = match &options.file {
        Some(path) => Output::file(path)?,
        None => Output::Stderr,
    };
    let colours = matches!(output, Output::Stderr) && std::io::stderr().is_terminal();
    let queue = LogQueue::start(output)?;
    let (filter, handle) = reload::Layer::new(targets);
    let subscriber = tracing_subscriber::registry().with(filter).with(lines(
        options.format,
        colours,
        queue.clone(),
    ));
    let mask = Arc::new(Mutex::new(options.mask.trim().to_owned()));
    Ok((
        Dispatch::new(subscriber),
        LogControl {
            filter: handle,
            mask,
            queue,
        },
    ))
}

fn lines<S>(format: Format, colours: bool, queue: LogQueue) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(queue)
        .with_ansi(colours)
        .with_thread_names(true);
    match format {
        Format::Text => layer.boxed(),
        Format::Json => layer.json().flatten_event(true).boxed(),
    }
}

#[cfg(test)]
mod tests;
