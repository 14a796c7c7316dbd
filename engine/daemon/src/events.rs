//! What the main thread waits for: signals and requests that end the engine, and those that ask for a dump.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// SIGUSR1: the state of everything as a file. SIGUSR2: with back-traces.
    Dump {
        /// Of every reactor.
        with_backtraces: bool,
    },
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
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGUSR1, SIGUSR2])?;
        let from_signals = sender.clone();
        thread::Builder::new()
            .name("keel_signals".to_owned())
            .spawn(move || {
                for signal in signals.forever() {
                    let event = match signal {
                        SIGUSR1 | SIGUSR2 => Event::Dump {
                            with_backtraces: signal == SIGUSR2,
                        },
                        SIGTERM => Event::Signal("SIGTERM"),
                        _ => Event::Signal("SIGINT"),
                    };
                    if from_signals.send(event).is_err() {
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
