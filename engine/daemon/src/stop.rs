//! The way down: the reverse of boot.rs, each step with a deadline, saying each second what still holds it.

use std::process::ExitCode;
use std::time::Duration;

use engine_xstream::XstreamSet;

use crate::boot::Booted;
use crate::error::Exit;
use crate::events::Event;
use crate::state::State;
use crate::watch;

/// For xstreams to hear of it; a busy one answers within a turn.
const ANNOUNCE: Duration = Duration::from_secs(5);
/// For requests that are being worked on.
const DRAIN: Duration = Duration::from_secs(10);
/// For all modules' cleanups.
const CLEANUP: Duration = Duration::from_secs(60);
/// For tasks, pollers and channels to end.
const XSTREAMS: Duration = Duration::from_secs(30);

impl Booted {
    /// Tells systemd and waits for the reason to stop.
    pub(crate) fn wait(&self) {
        notify_systemd(&[sd_notify::NotifyState::Ready]);
        // The senders live as long as this: there is always a reason in the end.
        loop {
            match self.events.recv().unwrap_or(Event::Requested) {
                Event::Dump { with_backtraces } => watch::dump(&self.engine, with_backtraces),
                Event::Signal(name) => {
                    tracing::info!("{name}: stopping");
                    return;
                }
                Event::Requested => {
                    tracing::info!("shutdown requested: stopping");
                    return;
                }
            }
        }
    }

    /// Stops what runs. The exit code says whether all of it stopped.
    pub(crate) fn stop(&mut self) -> ExitCode {
        self.engine.set_state(State::Stopping);
        notify_systemd(&[sd_notify::NotifyState::Stopping]);
        self.announcement.take();
        // First of all: the others need not wait for our silence.
        if let Some(mut source) = self.source.take() {
            source.stop();
        }
        // From here on it is stopping that takes long, and that says itself what holds it.
        self.watchdog.take();
        let clean = self
            .xstreams
            .take()
            .is_none_or(|set| self.stop_xstreams(set));
        self.engine.devices.book.stop();
        // Queue pairs went with the xstreams. If one of those hangs, its I/O fails here: the SSD writes out what it holds all the same.
        self.engine.devices.book.shut_ssds_down();
        match self.libspdk.take() {
            Some(libspdk) if clean => libspdk.stop(&self.engine.devices.registry),
            Some(libspdk) => libspdk.leave(),
            None => {}
        }
        if clean {
            self.modules.fini(&self.host);
            tracing::info!("stopped");
        } else {
            // Something still runs in a module: its fini must not pull the floor away.
            tracing::error!(
                "not everything stopped in time: exiting all the same; acknowledged data is safe"
            );
        }
        self.log.flush(Duration::from_secs(1));
        if clean {
            ExitCode::SUCCESS
        } else {
            Exit::Software.into()
        }
    }

    fn stop_xstreams(&mut self, set: XstreamSet) -> bool {
        if let Err(held) = set.begin_shutdown(ANNOUNCE) {
            tracing::warn!(%held, "not every xstream heard of the shutdown");
        }
        if let Some(rpc) = &self.rpc {
            for (xstream, cut) in rpc.drain(DRAIN).into_iter().filter(|(_, cut)| *cut > 0) {
                tracing::warn!(
                    xstream,
                    connections = cut,
                    "connections cut at the deadline"
                );
            }
        }
        let host = self.host.clone();
        let cleanup = set
            .system()
            .execute_blocking("clean up", CLEANUP, |xstream| {
                let xstream = xstream.clone();
                async move { host.cleanup_all(&xstream).await }
            });
        if let Err(error) = cleanup {
            tracing::error!(%error, "modules were not cleaned up");
        }
        if let Err(error) = self.engine.incast.stop() {
            tracing::warn!(%error, "incast variables were not stopped");
        }
        if let Some(rpc) = self.rpc.take() {
            rpc.close();
        }
        if let Some(drpc) = self.drpc.take()
            && let Err(unanswered) = drpc.shutdown(ANNOUNCE)
        {
            tracing::warn!("{unanswered}");
        }
        self.metrics.take();
        let stopped = set.shutdown(XSTREAMS, |holders| {
            tracing::warn!("still held: {}", holders.join("; "))
        });
        if let Err(held) = &stopped {
            tracing::error!(%held, "xstreams did not stop");
        }
        stopped.is_ok()
    }
}

pub(crate) fn notify_systemd(states: &[sd_notify::NotifyState]) {
    // Without systemd there is nobody to tell, which is no error; with it, a failure costs a status line.
    if let Err(error) = sd_notify::notify(false, states) {
        tracing::debug!(%error, "systemd was not told");
    }
}
