//! The bound on series: a label whose values never end (object ids, peer ports) must not fill the memory.

use std::collections::{HashMap, HashSet};

use metrics::Key;

/// Series of all names together.
pub const MAX_SERIES: usize = 16_384;
/// Series (combinations of label values) of one name.
pub const MAX_SERIES_PER_NAME: usize = 1_024;
/// Labels of one series.
pub const MAX_LABELS: usize = 8;
/// Bytes of a name, a label or a label's value (DAOS: 256 for a metric's path).
pub const MAX_TEXT: usize = 256;

/// The series seen so far. At a bound a new series is refused; the caller hands out a handle that counts nothing.
#[derive(Default)]
pub(crate) struct SeriesTable {
    by_name: HashMap<String, HashSet<Key>>,
    total: usize,
}

impl SeriesTable {
    /// Whether this series exists or may begin to exist now.
    pub(crate) fn admit(&mut self, key: &Key) -> bool {
        if self
            .by_name
            .get(key.name())
            .is_some_and(|series| series.contains(key))
        {
            return true;
        }
        if self.total >= MAX_SERIES || !within_text_bounds(key) {
            return false;
        }
        let series = self.by_name.entry(key.name().to_owned()).or_default();
        if series.len() >= MAX_SERIES_PER_NAME {
            return false;
        }
        series.insert(key.to_retained());
        self.total += 1;
        true
    }
}

fn within_text_bounds(key: &Key) -> bool {
    let mut labels = 0;
    for label in key.labels() {
        labels += 1;
        if label.key().len() > MAX_TEXT || label.value().len() > MAX_TEXT {
            return false;
        }
    }
    labels <= MAX_LABELS && key.name().len() <= MAX_TEXT
}

#[cfg(test)]
mod tests {
    use metrics::Label;

    use super::*;

    fn key(name: &str, value: &str) -> Key {
        Key::from_parts(name.to_owned(), vec![Label::new("v", value.to_owned())])
    }

    #[test]
    fn one_name_cannot_grow_without_end_and_does_not_harm_others() {
        let mut table = SeriesTable::default();
        for value in 0..MAX_SERIES_PER_NAME {
            assert!(table.admit(&key("keel_a", &value.to_string())));
        }
        assert!(!table.admit(&key("keel_a", "one more")));
        assert!(table.admit(&key("keel_a", "0")), "a known series stays");
        assert!(table.admit(&key("keel_b", "0")));
    }

    #[test]
    fn all_names_together_are_bounded() {
        let mut table = SeriesTable::default();
        let admitted = (0..MAX_SERIES + 10)
            .filter(|n| table.admit(&Key::from_name(format!("keel_{n}"))))
            .count();
        assert_eq!(admitted, MAX_SERIES);
    }

    #[test]
    fn long_texts_and_many_labels_are_refused() {
        let mut table = SeriesTable::default();
        assert!(!table.admit(&key("keel_a", &"x".repeat(MAX_TEXT + 1))));
        assert!(table.admit(&key("keel_a", &"x".repeat(MAX_TEXT))));
        let many: Vec<Label> = (0..=MAX_LABELS)
            .map(|n| Label::new(format!("l{n}"), "v"))
            .collect();
        assert!(!table.admit(&Key::from_parts("keel_a", many)));
    }
}
