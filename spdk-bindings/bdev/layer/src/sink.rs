//! Where devices put finished I/O.

use std::rc::Rc;

use crate::health::Tally;
use crate::queue::Ring;
use crate::{BdevError, Completion, DeviceIo};

/// Takes the finished I/Os of one [`crate::BdevChannel::poll`] and puts each into the ring of its queue.
pub struct CompletionSink<'a> {
    to: To<'a>,
    tally: Tally,
}

enum To<'a> {
    /// Straight to the queues of a channel.
    Rings(&'a [Option<Rc<Ring>>]),
    /// To a device that wraps another one.
    List(&'a mut Vec<(DeviceIo, Result<(), BdevError>)>),
}

impl<'a> CompletionSink<'a> {
    pub(crate) fn to_rings(rings: &'a [Option<Rc<Ring>>]) -> CompletionSink<'a> {
        CompletionSink {
            to: To::Rings(rings),
            tally: Tally::default(),
        }
    }

    /// A sink that collects, for a device that polls the channel of the device underneath it.
    #[must_use]
    pub fn collect(into: &'a mut Vec<(DeviceIo, Result<(), BdevError>)>) -> CompletionSink<'a> {
        CompletionSink {
            to: To::List(into),
            tally: Tally::default(),
        }
    }

    /// One I/O is finished: `io` as it was submitted, buffer included.
    #[inline]
    pub fn complete(&mut self, io: DeviceIo, result: Result<(), BdevError>) {
        match &mut self.to {
            To::Rings(rings) => {
                let request = io.request;
                self.tally.count(request.op, request.blocks, result.is_ok());
                let completion = Completion {
                    buf: request.buf,
                    user: request.user,
                    result,
                    op: request.op,
                };
                // A queue's place in the table stays taken until its last I/O is back.
                if let Some(Some(ring)) = rings.get(io.route as usize) {
                    ring.push(completion);
                } else {
                    debug_assert!(
                        false,
                        "a device completed an I/O of no queue: {completion:?}"
                    );
                }
            }
            To::List(list) => list.push((io, result)),
        }
    }

    pub(crate) fn into_tally(self) -> Tally {
        self.tally
    }
}
