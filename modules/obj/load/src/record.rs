//! What is known about one name.

use crate::{Tally, bytes};

/// Seed and length of an object's bytes; `None`: there is no such object.
pub(crate) type Content = Option<(u64, usize)>;

pub(crate) struct Slot {
    pub(crate) name: String,
    acknowledged: Content,
    /// What a request under way, without an answer or failed would have made of it.
    unanswered: Option<Content>,
    failed: bool,
}

impl Slot {
    pub(crate) fn new(name: String) -> Slot {
        Slot {
            name,
            acknowledged: None,
            unanswered: None,
            failed: false,
        }
    }

    pub(crate) fn exists(&self) -> bool {
        self.acknowledged.is_some()
    }

    /// It was removed, and that acknowledged.
    pub(crate) fn forget(&mut self) {
        self.acknowledged = None;
    }

    pub(crate) fn asked(&mut self, new: Content) {
        self.unanswered = Some(new);
    }

    pub(crate) fn answered(&mut self) {
        if let Some(new) = self.unanswered.take() {
            self.acknowledged = new;
        }
    }

    /// The request was answered with an error: what it made of the object is open until it is looked at.
    pub(crate) fn failed(&mut self) {
        self.failed = true;
    }

    pub(crate) fn is_open(&self) -> bool {
        self.unanswered.is_some()
    }

    pub(crate) fn compare(&mut self, found: Option<&[u8]>, tally: &mut Tally) {
        let is = |wanted: Content| found == wanted.map(|(seed, len)| bytes(seed, len)).as_deref();
        if let Some(new) = self.unanswered.take() {
            match std::mem::take(&mut self.failed) {
                true => tally.failed += 1,
                false => tally.unanswered += 1,
            }
            if is(new) {
                self.acknowledged = new;
                tally.took_effect += 1;
            }
        }
        assert!(
            is(self.acknowledged),
            "`{}` has {:?} bytes that are neither what was acknowledged ({:?}) nor what was asked for last",
            self.name,
            found.map(<[u8]>::len),
            self.acknowledged,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot() -> Slot {
        let mut slot = Slot::new("x".into());
        slot.asked(Some((1, 10)));
        slot.answered();
        slot
    }

    #[test]
    fn the_acknowledged_must_be_there() {
        let mut tally = Tally::default();
        slot().compare(Some(&bytes(1, 10)), &mut tally);
        assert_eq!(tally, Tally::default());
        for other in [None, Some(bytes(1, 9)), Some(bytes(2, 10))] {
            let mut tally = tally;
            let compared =
                std::panic::catch_unwind(move || slot().compare(other.as_deref(), &mut tally));
            assert!(compared.is_err());
        }
    }

    #[test]
    fn the_unanswered_is_old_or_new() {
        let mut tally = Tally::default();
        let mut old = slot();
        old.asked(None);
        old.compare(Some(&bytes(1, 10)), &mut tally);
        assert!(old.exists());
        let mut new = slot();
        new.asked(None);
        new.compare(None, &mut tally);
        assert!(!new.exists());
        assert_eq!((tally.unanswered, tally.took_effect), (2, 1));
    }
}
