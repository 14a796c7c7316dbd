//! One thread's way through the faults to the device underneath.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use spdk_bdev::{BdevChannel, BdevError, CompletionSink, Geometry, Op, Request};
use spdk_env::DmaBuf;

use crate::cache::Runs;
use crate::control::Shared;
use crate::rule::{Effect, Verdict};

type Outcome = Result<(), BdevError>;

pub(crate) struct FaultChannel {
    name: Arc<str>,
    inner: Box<dyn BdevChannel>,
    shared: Arc<Shared>,
    geometry: Geometry,
    /// Not started, oldest first.
    waiting: Vec<Waiting>,
    /// At the device underneath.
    running: HashMap<u32, Running>,
    /// Finished, to be told at the next poll.
    ready: Vec<(u32, Outcome)>,
    /// Empty between polls.
    collected: Vec<(u32, Outcome)>,
}

struct Waiting {
    tag: u32,
    verdict: Verdict,
    /// When the delay is over; counted from the first poll that sees it.
    due: Option<u64>,
    cuts: u64,
}

struct Running {
    cuts: u64,
    what: What,
}

enum What {
    /// Passed on as it is.
    Whole,
    /// A write cut short; what it was.
    Torn { blocks: u32, acknowledge: bool },
    /// A read, to be completed from the cache.
    Patched,
    /// The cache on its way down.
    Destage(Destage),
}

struct Destage {
    /// What was asked, a flush or a durable write.
    original: Request,
    runs: Runs,
    /// Retires every write up to this one, or only this one.
    last: u64,
    only: bool,
    flushed: bool,
}

impl FaultChannel {
    pub(crate) fn new(
        name: Arc<str>,
        inner: Box<dyn BdevChannel>,
        shared: Arc<Shared>,
        geometry: Geometry,
    ) -> FaultChannel {
        let (waiting, running, ready, collected) = Default::default();
        FaultChannel {
            name,
            inner,
            shared,
            geometry,
            waiting,
            running,
            ready,
            collected,
        }
    }

    fn error(&self, request: &Request, why: &str) -> BdevError {
        BdevError::io(&self.name, request, why, None)
    }

    fn bytes(&self, blocks: u32) -> usize {
        blocks as usize * self.geometry.block_size as usize
    }

    /// Starts an I/O whose delays are over; false when it must wait for another one.
    fn start(&mut self, tag: u32, request: &mut Request, end: Option<&Effect>) -> bool {
        match end {
            Some(Effect::Fail { why, errno }) => {
                self.ready.push((
                    tag,
                    Err(BdevError::io(&self.name, request, why.as_str(), *errno)),
                ));
                return true;
            }
            Some(Effect::Lose) => {
                self.ready.push((tag, Ok(())));
                return true;
            }
            Some(Effect::Tear {
                blocks,
                acknowledge,
            }) => {
                let what = What::Torn {
                    blocks: request.blocks,
                    acknowledge: *acknowledge,
                };
                request.blocks = (*blocks).min(request.blocks);
                return self.start_torn(tag, request, what);
            }
            _ => {}
        }
        if self.shared.lock().cache.is_some() {
            return self.start_cached(tag, request);
        }
        self.pass_on(tag, request, What::Whole);
        true
    }

    fn pass_on(&mut self, tag: u32, request: &mut Request, what: What) {
        let cuts = self.shared.lock().cuts;
        self.running.insert(tag, Running { cuts, what });
        self.inner.submit(tag, request);
    }

    fn start_torn(&mut self, tag: u32, request: &mut Request, what: What) -> bool {
        let bytes = self.bytes(request.blocks);
        let mut state = self.shared.lock();
        if let (Some(cache), Some(buf)) = (&mut state.cache, &request.buf) {
            cache.put(request.lba, &buf.as_slice()[..bytes]);
        }
        let cached = state.cache.is_some();
        drop(state);
        if cached || request.blocks == 0 {
            let outcome = self.mend(request, &what);
            self.ready.push((tag, outcome));
        } else {
            self.pass_on(tag, request, what);
        }
        true
    }

    /// Gives a torn request its length back, and says how it went.
    fn mend(&self, request: &mut Request, what: &What) -> Outcome {
        let What::Torn {
            blocks,
            acknowledge,
        } = *what
        else {
            return Ok(());
        };
        let arrived = std::mem::replace(&mut request.blocks, blocks);
        if acknowledge {
            return Ok(());
        }
        Err(self.error(
            request,
            &format!("torn: {arrived} of {blocks} blocks reached the device"),
        ))
    }

    /// With a volatile cache.
    fn start_cached(&mut self, tag: u32, request: &mut Request) -> bool {
        let max = self.geometry.max_io_blocks as usize;
        let bytes = self.bytes(request.blocks);
        let mut state = self.shared.lock();
        let destaging = state.destaging;
        let Some(cache) = &mut state.cache else {
            return true;
        };
        let (runs, last, only) = match request.op {
            Op::Read => {
                drop(state);
                self.pass_on(tag, request, What::Patched);
                return true;
            }
            Op::Flush if destaging => return false,
            Op::Flush => {
                let (runs, last) = cache.runs(max);
                (runs, last, false)
            }
            Op::Write | Op::WriteZeroes | Op::Unmap => {
                let durable = request.fua || !cache.has_room(bytes);
                if durable && destaging {
                    return false;
                }
                let write = match &request.buf {
                    Some(buf) if request.op == Op::Write => {
                        cache.put(request.lba, &buf.as_slice()[..bytes])
                    }
                    _ => cache.put(request.lba, &vec![0; bytes]),
                };
                if !durable {
                    self.ready.push((tag, Ok(())));
                    return true;
                }
                (cache.runs_of(write, max), write, true)
            }
        };
        state.destaging = true;
        let cuts = state.cuts;
        drop(state);
        let mut destage = Destage {
            original: request.detach(),
            runs,
            last,
            only,
            flushed: false,
        };
        // Last first: runs are taken from the end.
        destage.runs.reverse();
        self.step(tag, request, destage, cuts);
        true
    }

    /// The next piece of a destage, or its end.
    fn step(&mut self, tag: u32, request: &mut Request, mut destage: Destage, cuts: u64) {
        let next = match destage.runs.pop() {
            Some((lba, data)) => match DmaBuf::alloc(data.len()) {
                Ok(mut buf) => {
                    buf.as_mut_slice().copy_from_slice(&data);
                    let blocks = (data.len() / self.geometry.block_size as usize) as u32;
                    Request {
                        fua: destage.only,
                        ..Request::write(lba, blocks, buf)
                    }
                }
                Err(why) => return self.end(tag, request, destage, Err(why.to_string())),
            },
            None if destage.only || destage.flushed => {
                return self.end(tag, request, destage, Ok(()));
            }
            None => {
                destage.flushed = true;
                Request::flush()
            }
        };
        *request = next;
        self.running.insert(
            tag,
            Running {
                cuts,
                what: What::Destage(destage),
            },
        );
        self.inner.submit(tag, request);
    }

    fn end(
        &mut self,
        tag: u32,
        request: &mut Request,
        destage: Destage,
        result: Result<(), String>,
    ) {
        let mut state = self.shared.lock();
        state.destaging = false;
        if let (Ok(()), Some(cache)) = (&result, &mut state.cache) {
            if destage.only {
                cache.retire_one(destage.last)
            } else {
                cache.retire(destage.last)
            }
        }
        drop(state);
        *request = destage.original;
        let outcome = result.map_err(|why| self.error(request, &why));
        self.ready.push((tag, outcome));
    }

    /// The device underneath has finished a piece.
    fn continue_with(&mut self, tag: u32, result: Outcome, done: &mut CompletionSink<'_>) {
        let Some(Running { cuts, what }) = self.running.remove(&tag) else {
            return;
        };
        let request = done.request(tag);
        let cut = self.shared.lock().cuts != cuts;
        match what {
            What::Destage(destage) if result.is_ok() && !cut => {
                self.step(tag, request, destage, cuts)
            }
            What::Destage(destage) => {
                let why = result
                    .err()
                    .map_or_else(|| "the power was cut".to_owned(), |error| error.to_string());
                self.end(tag, request, destage, Err(why));
            }
            What::Torn { .. } => {
                let outcome = self.mend(request, &what);
                self.ready.push((tag, result.and(outcome)));
            }
            What::Patched | What::Whole if cut => {
                let outcome = Err(self.error(request, "the power was cut"));
                self.ready.push((tag, outcome));
            }
            What::Patched => {
                let bytes = self.bytes(request.blocks);
                if let (Some(cache), Some(buf), Ok(())) =
                    (&self.shared.lock().cache, &mut request.buf, &result)
                {
                    cache.patch(request.lba, &mut buf.as_mut_slice()[..bytes]);
                }
                self.ready.push((tag, result));
            }
            What::Whole => self.ready.push((tag, result)),
        }
    }

    /// Starts what is due.
    fn start_due(&mut self, now: u64, done: &mut CompletionSink<'_>) {
        for mut waiting in std::mem::take(&mut self.waiting) {
            let state = self.shared.lock();
            let dead = !state.powered || state.cuts != waiting.cuts;
            let held = waiting
                .verdict
                .held_by
                .iter()
                .any(|rule| state.rules.holds(*rule));
            drop(state);
            let due = *waiting
                .due
                .get_or_insert(now.saturating_add(waiting.verdict.delay));
            let request = done.request(waiting.tag);
            if dead {
                let outcome = Err(self.error(request, "the power was cut"));
                self.ready.push((waiting.tag, outcome));
            } else if held
                || now < due
                || !self.start(waiting.tag, request, waiting.verdict.end.as_ref())
            {
                self.waiting.push(waiting);
            }
        }
    }
}

impl BdevChannel for FaultChannel {
    fn submit(&mut self, tag: u32, request: &mut Request) {
        let verdict = self.shared.judge(request);
        let cuts = self.shared.lock().cuts;
        self.waiting.push(Waiting {
            tag,
            verdict,
            due: None,
            cuts,
        });
    }

    fn poll(&mut self, now: u64, done: &mut CompletionSink<'_>) {
        self.start_due(now, done);
        let mut collected = std::mem::take(&mut self.collected);
        self.inner.poll(now, &mut done.nested(&mut collected));
        if !collected.is_empty() {
            done.progress();
        }
        for (tag, result) in collected.drain(..) {
            self.continue_with(tag, result, done);
        }
        self.collected = collected;
        for (tag, outcome) in self.ready.drain(..) {
            done.complete(tag, outcome);
        }
    }

    fn capacity(&self) -> u32 {
        self.inner.capacity()
    }

    fn wake_fd(&self) -> Option<Rc<OwnedFd>> {
        self.inner.wake_fd()
    }

    fn has_finished(&self) -> bool {
        self.inner.has_finished()
    }

    fn wakes_by_carrier(&self) -> bool {
        self.inner.wakes_by_carrier()
    }

    fn clear_wake(&mut self) {
        self.inner.clear_wake();
    }

    fn needs_poll(&self) -> bool {
        !self.waiting.is_empty() || !self.ready.is_empty() || self.inner.needs_poll()
    }
}
