//! The class: what a note's key means, and what the root makes of a new one. All of it runs on the system xstream.

use module_sdk::Der;
use module_sdk::iv::{IvChange, IvClass, IvKey, IvPlace, IvRequest};

/// A note, as it travels and stands in caches.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Note {
    /// What it says.
    #[prost(string, tag = "1")]
    pub(crate) text: String,
    /// How many the root had taken before it, from 1.
    #[prost(uint64, tag = "2")]
    pub(crate) number: u64,
}

#[derive(Default)]
pub(crate) struct Notes {
    /// Taken by this engine while it was the root.
    taken: u64,
}

impl Notes {
    pub(crate) const CLASS: u32 = 256;
}

impl IvClass for Notes {
    type Value = Note;
    const ID: u32 = Notes::CLASS;
    const NAME: &'static str = "note";
    /// More than travels inside a message: a long text goes as bulk data.
    const MAX_VALUE: u32 = 256 << 10;

    fn canonical(&self, key: &IvKey) -> IvKey {
        // Not longer than it was.
        IvKey::new(key.class(), &key.bytes().to_ascii_lowercase()).unwrap_or(*key)
    }

    fn update(
        &mut self,
        at: &IvPlace,
        _key: &IvKey,
        change: IvChange<Note>,
        _request: IvRequest,
    ) -> Result<IvChange<Note>, Der> {
        match change {
            // Wherever it passes: what cannot be need not travel.
            IvChange::Set(note) if note.text.is_empty() => Err(Der::INVAL),
            IvChange::Set(note) if at.root => {
                self.taken += 1;
                Ok(IvChange::Set(Note {
                    number: self.taken,
                    ..note
                }))
            }
            change => Ok(change),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(notes: &mut Notes, root: bool, text: &str) -> Result<IvChange<Note>, Der> {
        let at = IvPlace {
            ns: [0; 16],
            term: 1,
            root,
        };
        let request = IvRequest {
            rank: 1,
            incarnation: 1,
            number: 1,
        };
        let key = IvKey::new(Notes::CLASS, b"motto").unwrap();
        let note = Note {
            text: text.to_owned(),
            number: 0,
        };
        notes.update(&at, &key, IvChange::Set(note), request)
    }

    fn numbered(text: &str, number: u64) -> Result<IvChange<Note>, Der> {
        Ok(IvChange::Set(Note {
            text: text.to_owned(),
            number,
        }))
    }

    #[test]
    fn the_root_numbers_notes_and_nobody_passes_empty_ones_on() {
        let mut notes = Notes::default();
        assert_eq!(update(&mut notes, false, "onward"), numbered("onward", 0));
        assert_eq!(update(&mut notes, true, "onward"), numbered("onward", 1));
        assert_eq!(update(&mut notes, true, "upward"), numbered("upward", 2));
        assert_eq!(update(&mut notes, false, ""), Err(Der::INVAL));
    }

    #[test]
    fn case_does_not_matter() {
        let key = |name| IvKey::new(Notes::CLASS, name).unwrap();
        assert_eq!(Notes::default().canonical(&key(b"MoTTo")), key(b"motto"));
    }
}
