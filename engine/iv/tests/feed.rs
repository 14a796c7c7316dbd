//! What xstreams are told, in order.

#![allow(missing_docs, reason = "a test")]

use engine_iv::{Feed, Item, NsId, Readers};

/// One xstream's mailbox.
#[derive(Default)]
struct Mailbox {
    is_full: bool,
    took: Vec<NsId>,
}

impl Readers for Mailbox {
    fn count(&self) -> usize {
        1
    }

    fn send(&mut self, _: usize, _: u64, item: &Item) -> bool {
        if let (false, Item::DropSpace(ns)) = (self.is_full, item) {
            self.took.push(*ns);
        }
        !self.is_full
    }

    fn has_taken(&mut self, _: usize, _: u64) -> bool {
        true
    }
}

#[test]
fn nothing_overtakes_what_waits_for_a_full_mailbox() {
    let mut feed = Feed::new(Mailbox::default(), 8);
    feed.drop_space(1);
    feed.readers().is_full = true;
    feed.drop_space(2);
    feed.readers().is_full = false;
    feed.drop_space(3);
    feed.retry();
    feed.drop_space(4);
    assert_eq!(feed.readers().took, [1, 2, 3, 4]);
    assert!(!feed.is_behind());
}
