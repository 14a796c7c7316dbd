//! What ends the engine: signals and requests, both as events for the main thread.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Why the engine stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// SIGTERM or SIGINT.
    Signal(&'static str),
    /// `keel engine shutdown`.
    Requested,
}

/// The sending side, for the control channel.
#[derive(Clone, Debug)]
pub(crate) struct Events(Sender<Event>);

impl Events {
    /// Catches signals from now on.
    pub(crate) fn start() -> std::io::Result<(Events, Receiver<Event>)> {
        let (sender, receiver) = channel();
        let mut signals = Signals::new([SIGTERM, SIGINT])?;
        let from_signals = sender.clone();
        thread::Builder::new()
            .name("keel_signals".to_owned())
            .spawn(move || {
                for signal in signals.forever() {
                    let name = if signal == SIGTERM {
                        "SIGTERM"
                    } else {
                        "SIGINT"
                    };
                    if from_signals.send(Event::Signal(name)).is_err() {
                        return;
                    }
                }
            })?;
        Ok((Events(sender), receiver))
    }

    /// Asks the main thread to stop the engine.
    pub(crate) fn request_shutdown(&self) {
        // The receiver lives as long as the process.
        let _ = self.0.send(Event::Requested);
    }
}
