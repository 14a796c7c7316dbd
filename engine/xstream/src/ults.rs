//! The list of ULTs for `keel tasks`.

use spdk_thread::TaskInfo;

use crate::{Remote, XstreamId, Xstreams};

/// The ULTs of one xstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XstreamUlts {
    /// Which.
    pub xstream: XstreamId,
    /// Its name.
    pub name: String,
    /// Name, age, state and what it waits for; `None`: the xstream did not answer in time, something there does not
    /// return.
    pub ults: Option<Vec<TaskInfo>>,
}

impl Xstreams {
    /// Every ULT of the engine, by xstream. Waits at most `wait_ns` nanoseconds for all of them together.
    pub async fn ults(&self, wait_ns: u64) -> Vec<XstreamUlts> {
        let asked: Vec<Remote<Vec<TaskInfo>>> = self
            .all()
            .iter()
            .map(|xstream| xstream.call("list ULTs", |here| here.thread().tasks()))
            .collect();
        let until = spdk_thread::current()
            .map_or(0, |thread| thread.now())
            .saturating_add(wait_ns);
        let mut all = Vec::with_capacity(asked.len());
        for (xstream, answer) in self.all().iter().zip(asked) {
            let left =
                until.saturating_sub(spdk_thread::current().map_or(until, |thread| thread.now()));
            let ults = spdk_thread::timeout(left, answer)
                .await
                .ok()
                .and_then(Result::ok);
            all.push(XstreamUlts {
                xstream: xstream.id(),
                name: xstream.name().to_owned(),
                ults,
            });
        }
        all
    }
}
