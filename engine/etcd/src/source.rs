//! etcd as a source: the thread that a runtime turns on.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use engine_membership::{Announcement, Desk, Source, SourceError};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use crate::claim;
use crate::client::Client;
use crate::fence::Fence;
use crate::options::Options;
use crate::session::Member;

/// Membership from etcd.
pub struct Etcd {
    options: Options,
    running: Option<(watch::Sender<bool>, JoinHandle<()>)>,
}

impl Etcd {
    /// Nothing is opened yet.
    pub fn new(options: Options) -> Etcd {
        Etcd {
            options,
            running: None,
        }
    }

    fn fence(&self) -> Result<Fence, SourceError> {
        let path = self.options.state();
        let unreadable = |error: io::Error| {
            SourceError(format!(
                "{}: {error}; it holds what was seen of etcd last. cure: restore it, or remove it if etcd was not restored from a backup since",
                path.display()
            ))
        };
        Fence::open(&path).map_err(unreadable)
    }
}

fn runtime() -> Result<Runtime, SourceError> {
    let mut builder = Builder::new_current_thread();
    let made = builder.enable_io().enable_time().build();
    made.map_err(|error| SourceError(format!("no runtime for etcd: {error}")))
}

impl Source for Etcd {
    fn name(&self) -> &'static str {
        "etcd"
    }

    /// Asks etcd the first time, for a minute at most; later the rank stands in its file.
    fn rank(&mut self, uuid: &str, asked: Option<u32>) -> Result<Option<u32>, SourceError> {
        // What no waiting cures is said at once.
        Client::endpoints(&self.options)
            .map_err(|error| SourceError(format!("{error}. cure: correct `group.etcd`")))?;
        self.fence()?;
        claim::rank(&self.options, &runtime()?, uuid, asked).map(Some)
    }

    fn start(&mut self, me: Announcement, desk: Arc<dyn Desk>) -> Result<(), SourceError> {
        let rank = me
            .rank
            .ok_or_else(|| SourceError("this engine has no rank".to_owned()))?;
        let (sender, stop) = watch::channel(false);
        let member = Member::new(self.options.clone(), (me, rank), desk, self.fence()?);
        let runtime = runtime()?;
        let thread = thread::Builder::new()
            .name("keel_etcd".to_owned())
            .spawn(move || runtime.block_on(member.run(stop)))
            .map_err(|error| SourceError(format!("no thread for etcd: {error}")))?;
        self.running = Some((sender, thread));
        Ok(())
    }

    /// Within the time that etcd has to hear of it: 2 s.
    fn stop(&mut self) {
        let Some((sender, thread)) = self.running.take() else {
            return;
        };
        // Gone: it has ended already.
        let _ = sender.send(true);
        if thread.join().is_err() {
            tracing::error!("the thread of etcd ended by a panic");
        }
    }
}
