//! What exists on the xstreams, for `keel tasks` and dumps.

use std::collections::HashMap;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use engine_ult::StackUse;
use spdk_thread::{PollerInfo, TaskInfo};

use crate::{Remote, Xstream, XstreamId, XstreamRef, Xstreams};

/// What exists on one xstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XstreamUlts {
    /// Which.
    pub xstream: XstreamId,
    /// Its name.
    pub name: String,
    /// ULTs and pollers; `None`: the xstream did not answer in time, something there does not return.
    pub found: Option<Listed>,
}

/// ULTs and pollers of an xstream that answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Name, age, state and what it waits for.
    pub ults: Vec<UltInfo>,
    /// Name, period, calls.
    pub pollers: Vec<PollerInfo>,
}

/// A ULT as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UltInfo {
    /// Name, age, state and what it waits for.
    pub task: TaskInfo,
    /// Of one that runs on a stack of its own and has begun.
    pub stack: Option<StackUse>,
}

fn list(here: &Xstream) -> Listed {
    let stacks: HashMap<u32, StackUse> = engine_ult::stacks(here.name()).into_iter().collect();
    let ult = |task: TaskInfo| UltInfo {
        stack: stacks.get(&task.id).copied(),
        task,
    };
    Listed {
        ults: here.thread().tasks().into_iter().map(ult).collect(),
        pollers: here.thread().pollers(),
    }
}

impl XstreamUlts {
    fn of(xstream: &XstreamRef, found: Option<Listed>) -> XstreamUlts {
        XstreamUlts {
            xstream: xstream.id(),
            name: xstream.name().to_owned(),
            found,
        }
    }
}

impl Xstreams {
    /// Every ULT and poller of the engine, by xstream. Waits at most `wait_ns` nanoseconds for all of them together.
    pub async fn ults(&self, wait_ns: u64) -> Vec<XstreamUlts> {
        let asked: Vec<Remote<Listed>> = self
            .all()
            .iter()
            .map(|xstream| xstream.call("list ULTs", list))
            .collect();
        let until = spdk_thread::current()
            .map_or(0, |thread| thread.now())
            .saturating_add(wait_ns);
        let mut all = Vec::with_capacity(asked.len());
        for (xstream, answer) in self.all().iter().zip(asked) {
            let left =
                until.saturating_sub(spdk_thread::current().map_or(until, |thread| thread.now()));
            let found = spdk_thread::timeout(left, answer)
                .await
                .ok()
                .and_then(Result::ok);
            all.push(XstreamUlts::of(xstream, found));
        }
        all
    }

    /// The same from a control thread.
    pub fn ults_blocking(&self, patience: Duration) -> Vec<XstreamUlts> {
        let until = Instant::now() + patience;
        let asked: Vec<Option<Receiver<Listed>>> = self
            .all()
            .iter()
            .map(|xstream| xstream.call_later(list).ok())
            .collect();
        let answer = |(xstream, asked): (&XstreamRef, Option<Receiver<Listed>>)| {
            let left = until.saturating_duration_since(Instant::now());
            let found = asked.and_then(|answer| answer.recv_timeout(left).ok());
            XstreamUlts::of(xstream, found)
        };
        self.all().iter().zip(asked).map(answer).collect()
    }
}
