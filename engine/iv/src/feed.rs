//! The xstreams below a rank: who has what, what they were told, whether they have taken it, and what waits for that.
//!
//! What confirms a change (a success down the tree or to its user) says that this rank has it, and its xstreams serve from caches of their own: so it waits
//! until they have taken all that they were told before. Questions, refusals and fetches do not wait.

use std::collections::{HashMap, VecDeque};

use daos_errno::Der;

use crate::cache::Item;
use crate::hash::QuickBuild;
use crate::iv::Output;
use crate::message::Body;
use crate::operation::{Done, Failure};
use crate::options::Nanos;
use crate::{Key, NsId};

/// Mailboxes of xstreams, by their number from 0. Messages to one of them keep their order.
pub trait Readers {
    /// How many.
    fn count(&self) -> usize;

    /// Tells one, which applies it to its [`crate::Cache`] and then has taken message `number`. False: its mailbox is full. One that has ended
    /// takes everything.
    fn send(&mut self, reader: usize, number: u64, item: &Item) -> bool;

    /// Whether it has taken message `number`. If not, [`Feed::confirmed`] is looked at again when it has.
    fn has_taken(&mut self, reader: usize, number: u64) -> bool;
}

/// What the rank's xstreams have and know. The owner of the [`crate::Iv`] passes its outputs through here.
pub struct Feed<R> {
    readers: R,
    states: Vec<State>,
    /// What may wait for a full mailbox. Beyond it a reader is told once to drop all that it has.
    backlog: usize,
    /// Which readers have a variable, as bits.
    holders: HashMap<(NsId, Key), Vec<u64>, QuickBuild>,
    /// Of the last message.
    number: u64,
    unconfirmed: VecDeque<(u64, Output)>,
}

#[derive(Default)]
struct State {
    /// Of its last message.
    told: u64,
    backlog: VecDeque<(u64, Item)>,
}

impl<R: Readers> Feed<R> {
    /// Of readers that have nothing yet.
    pub fn new(readers: R, backlog: usize) -> Feed<R> {
        let states = (0..readers.count()).map(|_| State::default()).collect();
        Feed {
            readers,
            states,
            backlog,
            holders: HashMap::default(),
            number: 0,
            unconfirmed: VecDeque::new(),
        }
    }

    /// The mailboxes.
    pub fn readers(&mut self) -> &mut R {
        &mut self.readers
    }

    /// A reader asked for a variable: it gets it, and what becomes of it.
    pub fn subscribe(&mut self, reader: usize, ns: NsId, key: Key, item: Item) {
        let words = self.states.len().div_ceil(64);
        let bits = self
            .holders
            .entry((ns, key))
            .or_insert_with(|| vec![0; words]);
        bits[reader / 64] |= 1 << (reader % 64);
        self.tell(reader, item);
    }

    /// Whether any xstream has it.
    pub fn is_held(&self, ns: NsId, key: &Key) -> bool {
        self.holders.contains_key(&(ns, *key))
    }

    /// Tells those that have the variable.
    pub fn changed(&mut self, ns: NsId, key: Key, item: &Item) {
        let Some(bits) = self.holders.get(&(ns, key)) else {
            return;
        };
        let bits = bits.clone();
        for reader in (0..self.states.len()).filter(|at| bits[at / 64] & 1 << (at % 64) != 0) {
            self.tell(reader, item.clone());
        }
    }

    /// Nothing of a namespace may be served.
    pub fn drop_space(&mut self, ns: NsId) {
        self.holders.retain(|(of, _), _| *of != ns);
        for reader in 0..self.states.len() {
            self.tell(reader, Item::DropSpace(ns));
        }
    }

    fn tell(&mut self, reader: usize, item: Item) {
        self.number += 1;
        let (number, state) = (self.number, &mut self.states[reader]);
        state.told = number;
        if state.backlog.is_empty() && self.readers.send(reader, number, &item) {
            return;
        }
        if state.backlog.len() >= self.backlog {
            state.backlog.clear();
            state.backlog.push_back((number, Item::DropAll));
        } else {
            state.backlog.push_back((number, item));
        }
    }

    /// Sends what did not fit into mailboxes.
    pub fn retry(&mut self) {
        for (reader, state) in self.states.iter_mut().enumerate() {
            while let Some((number, item)) = state.backlog.front() {
                if !self.readers.send(reader, *number, item) {
                    break;
                }
                state.backlog.pop_front();
            }
        }
    }

    /// Whether there is something to send or to look at again.
    pub fn is_behind(&self) -> bool {
        !self.unconfirmed.is_empty() || self.states.iter().any(|state| !state.backlog.is_empty())
    }

    /// An output of the machine: comes back if it may go out now; what confirms a change comes by way of [`Feed::confirmed`].
    pub fn pass(&mut self, output: Output) -> Option<Output> {
        let confirms = match &output {
            Output::Done(done) => done.change && done.result.is_ok(),
            Output::Send { message, .. } => matches!(
                message.body,
                Body::Synced { result: Ok(()), .. } | Body::Updated { result: Ok(_), .. }
            ),
            Output::Changed { .. } => false,
        };
        if confirms {
            self.unconfirmed.push_back((self.number, output));
            return None;
        }
        Some(output)
    }

    /// The next confirmation that all readers stand behind, or an operation whose time is up: it took effect, but not in every cache here.
    pub fn confirmed(&mut self, now: Nanos) -> Option<Output> {
        let number = self.unconfirmed.front()?.0;
        let taken = |(reader, state): (usize, &State)| {
            self.readers.has_taken(reader, number.min(state.told))
        };
        if self.states.iter().enumerate().all(taken) {
            return self.unconfirmed.pop_front().map(|(_, output)| output);
        }
        let late = |(_, output): &(u64, Output)| deadline(output).is_some_and(|end| end <= now);
        let at = self.unconfirmed.iter().position(late)?;
        match self.unconfirmed.remove(at)? {
            (_, Output::Done(done)) => {
                let failure = Failure {
                    der: Der::TIMEDOUT,
                    attempts: done.attempts,
                    asked: None,
                    expired: true,
                };
                let result = Err(failure);
                Some(Output::Done(Done { result, ..done }))
            }
            (_, output) => Some(output),
        }
    }

    /// When an operation's time is up that waits for readers.
    pub fn next_deadline(&self) -> Option<Nanos> {
        let ends = self.unconfirmed.iter();
        ends.filter_map(|(_, output)| deadline(output)).min()
    }

    /// The number of the last message, for who watches a reader.
    pub fn told(&self, reader: usize) -> u64 {
        self.states[reader].told
    }
}

fn deadline(output: &Output) -> Option<Nanos> {
    match output {
        Output::Done(done) => Some(done.deadline),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Stamp;
    use crate::{Value, Version};

    const NS: NsId = 7;

    /// Mailboxes of one message each.
    #[derive(Default)]
    struct Boxes {
        waiting: [Option<(u64, Item)>; 2],
        taken: [u64; 2],
    }

    impl Readers for Boxes {
        fn count(&self) -> usize {
            2
        }

        fn send(&mut self, reader: usize, number: u64, item: &Item) -> bool {
            let full = self.waiting[reader].is_some();
            if !full {
                self.waiting[reader] = Some((number, item.clone()));
            }
            !full
        }

        fn has_taken(&mut self, reader: usize, number: u64) -> bool {
            self.taken[reader] >= number
        }
    }

    fn key(number: u8) -> Key {
        Key::new(1, &[number]).unwrap()
    }

    fn keep(number: u8) -> Item {
        let version = Version {
            term: 1,
            sequence: number.into(),
        };
        let value: Value = vec![number].into();
        Item::Keep {
            ns: NS,
            key: key(1),
            version,
            value,
            fresh_until: u64::MAX,
        }
    }

    /// The reader takes its message; which value it kept, `None`: it dropped something.
    fn take(feed: &mut Feed<Boxes>, reader: usize) -> Option<u8> {
        let (number, item) = feed.readers.waiting[reader].take().expect("a message");
        feed.readers.taken[reader] = number;
        feed.retry();
        match item {
            Item::Keep { value, .. } => Some(value[0]),
            _ => None,
        }
    }

    fn done(change: bool) -> Output {
        let version = Version::default();
        let result = Ok(Stamp {
            version,
            value: None,
        });
        Output::Done(Done {
            op: 1,
            attempts: 1,
            change,
            deadline: 100,
            result,
        })
    }

    #[test]
    fn a_confirmation_waits_for_those_who_were_told_before_it() {
        let mut feed = Feed::new(Boxes::default(), 8);
        assert_eq!(feed.pass(done(true)), None);
        assert_eq!(
            feed.confirmed(0),
            Some(done(true)),
            "nobody was told anything"
        );
        feed.subscribe(0, NS, key(1), keep(1));
        assert!(feed.is_held(NS, &key(1)) && !feed.is_held(NS, &key(2)));
        feed.changed(NS, key(1), &keep(2));
        assert_eq!(feed.pass(done(true)), None);
        assert_eq!(
            feed.pass(done(false)),
            Some(done(false)),
            "a fetch does not wait"
        );
        assert_eq!(take(&mut feed, 0), Some(1));
        assert_eq!(feed.confirmed(0), None, "the second is still on its way");
        assert_eq!(take(&mut feed, 0), Some(2));
        assert!(feed.is_behind());
        // What it is told afterwards is no reason to wait.
        feed.changed(NS, key(1), &keep(3));
        assert_eq!(feed.confirmed(0), Some(done(true)));
        feed.drop_space(NS);
        assert!(!feed.is_held(NS, &key(1)));
        assert_eq!((take(&mut feed, 0), take(&mut feed, 0)), (Some(3), None));
        assert_eq!(take(&mut feed, 1), None, "all drop a namespace");
        assert!(!feed.is_behind());
    }

    #[test]
    fn a_change_does_not_wait_past_its_time_for_a_reader_that_takes_nothing() {
        let mut feed = Feed::new(Boxes::default(), 8);
        feed.subscribe(1, NS, key(1), keep(1));
        assert_eq!(
            (feed.pass(done(true)), feed.next_deadline()),
            (None, Some(100))
        );
        assert_eq!(feed.confirmed(99), None);
        let Some(Output::Done(late)) = feed.confirmed(100) else {
            panic!("it ends");
        };
        let failure = late.result.unwrap_err();
        assert_eq!((failure.der, failure.expired), (Der::TIMEDOUT, true));
        assert_eq!((feed.confirmed(100), feed.next_deadline()), (None, None));
    }

    #[test]
    fn a_reader_that_is_far_behind_drops_all() {
        let mut feed = Feed::new(Boxes::default(), 2);
        feed.subscribe(0, NS, key(1), keep(0));
        for number in 1..=3 {
            feed.changed(NS, key(1), &keep(number));
        }
        feed.changed(NS, key(1), &keep(4));
        assert_eq!(take(&mut feed, 0), Some(0));
        assert_eq!(
            take(&mut feed, 0),
            None,
            "one and two are lost, three with them"
        );
        assert_eq!(take(&mut feed, 0), Some(4));
        assert!(!feed.is_behind());
    }
}
