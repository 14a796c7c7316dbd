//! [`Outcome`]: what became of a run: the ways that the driver took, coarse enough to be counted.

use std::collections::BTreeSet;

use spdk_nvme::{ControllerState, Event, IoError, NvmeErrorKind};

/// The ways that the driver took.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    seen: BTreeSet<String>,
}

impl Outcome {
    pub(crate) fn saw(&mut self, what: impl Into<String>) {
        self.seen.insert(what.into());
    }

    pub(crate) fn saw_error(&mut self, during: &str, kind: &NvmeErrorKind) {
        let what = match kind {
            NvmeErrorKind::Gone => "gone".to_owned(),
            NvmeErrorKind::Unsupported(why) => format!("unsupported-{}", words(why)),
            NvmeErrorKind::NotReady { wanted, .. } => format!("rdy-never-{wanted}"),
            NvmeErrorKind::Fatal(_) => "fatal".to_owned(),
            NvmeErrorKind::Command { command, .. } => format!("refused-{}", words(command)),
            NvmeErrorKind::CommandTimeout { command, .. } => format!("late-{}", words(command)),
            NvmeErrorKind::Interrupted { command } => format!("cut-off-{}", words(command)),
            NvmeErrorKind::Backing(why) => format!("backing-{}", words(why)),
            _ => "other".to_owned(),
        };
        self.saw(format!("{during}-{what}"));
    }

    pub(crate) fn saw_io(&mut self, result: Result<(), IoError>) {
        self.saw(match result {
            Ok(()) => "io-done".to_owned(),
            Err(IoError::Status(status)) => format!("io-status-{}", status.kind()),
            Err(IoError::TimedOut) => "io-timed-out".to_owned(),
            Err(IoError::Removed) => "io-removed".to_owned(),
            Err(IoError::Failed) => "io-given-up".to_owned(),
            Err(_) => "io-shut-down".to_owned(),
        });
    }

    pub(crate) fn saw_event(&mut self, event: &Event) {
        match event {
            Event::ResetStarted(reason) => {
                self.saw(format!("reset-{}", words(&format!("{reason:?}"))))
            }
            Event::ResetDone => self.saw("reset-done"),
            Event::NamespaceAdded(_) => self.saw("namespace-added"),
            Event::NamespaceChanged(_) => self.saw("namespace-changed"),
            Event::NamespaceRemoved(_) => self.saw("namespace-removed"),
            Event::Health(..) => self.saw("event-health"),
            Event::DeviceError(_) => self.saw("event-error"),
            Event::Notice(_) => self.saw("event-notice"),
            // The end says so.
            Event::Removed | Event::Failed(_) | Event::ShutDown => {}
        }
    }

    pub(crate) fn saw_end(&mut self, state: &ControllerState) {
        match state {
            ControllerState::Failed(error) => self.saw_error("end", &error.kind),
            ControllerState::ShutDown => self.saw("end-in-order"),
            _ => self.saw("end-never"),
        }
    }

    /// The ways, by name: good for files' names.
    pub fn ways(&self) -> impl Iterator<Item = &str> {
        self.seen.iter().map(String::as_str)
    }

    /// Whether it went this way.
    #[must_use]
    pub fn has(&self, way: &str) -> bool {
        self.seen.contains(way)
    }
}

/// The first few words of a message without numbers.
fn words(text: &str) -> String {
    let letters = |c: char| !c.is_ascii_alphabetic();
    let words = text.split(letters).filter(|word| word.len() > 1);
    let words: Vec<String> = words.take(4).map(str::to_ascii_lowercase).collect();
    words.join("-")
}
