//! DAOS's behaviour (its checklist of TLS), and where it asserts, crashes or leaks: what happens here instead.

use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;
use crate::{RawKey, Tags};

type Log = Arc<Mutex<Vec<String>>>;

const SYSTEM: XsInfo = XsInfo {
    tags: Tags(0xfd),
    xs_id: 0,
    tgt_id: -1,
};
const MAIN: XsInfo = XsInfo {
    tags: Tags(0xff),
    xs_id: 1,
    tgt_id: 0,
};
const HELPER: XsInfo = XsInfo {
    tags: Tags(0x08),
    xs_id: 2,
    tgt_id: 0,
};

fn fake_pointer(number: usize) -> NonNull<c_void> {
    NonNull::new(ptr::without_provenance_mut(number)).unwrap()
}

/// A raw key that logs and whose value is `number`; 0 fails.
fn raw(log: &Log, name: &str, tags: Tags, number: usize) -> RawKey {
    let (made, ended) = (Arc::clone(log), Arc::clone(log));
    let (init_name, fini_name) = (name.to_owned(), name.to_owned());
    RawKey {
        name: name.to_owned(),
        tags,
        init: Arc::new(move |info| {
            made.lock()
                .unwrap()
                .push(format!("+{init_name}@{}", info.xs_id));
            (number != 0).then(|| fake_pointer(number))
        }),
        fini: Arc::new(move |info, value| {
            assert_eq!(value.as_ptr().addr(), number);
            ended
                .lock()
                .unwrap()
                .push(format!("-{fini_name}@{}", info.xs_id));
        }),
    }
}

fn taken(log: &Log) -> Vec<String> {
    std::mem::take(&mut *log.lock().unwrap())
}

#[test]
fn keys_take_the_first_free_slot_and_give_it_back() {
    let (registry, log) = (KeyRegistry::new(), Log::default());
    let a = registry.register(raw(&log, "a", Tags::SERVER, 1)).unwrap();
    let b = registry.register(raw(&log, "b", Tags::SERVER, 2)).unwrap();
    assert_eq!((a.slot(), b.slot()), (0, 1));
    registry.unregister(a).unwrap();
    assert_eq!(
        registry.unregister(a),
        Err(TlsError::NotRegistered { index: 0 })
    );
    let c = registry.register(raw(&log, "c", Tags::SERVER, 3)).unwrap();
    assert_eq!(c.slot(), 0);
    assert_eq!(
        registry
            .list()
            .iter()
            .map(|(_, name, _)| name.as_str())
            .collect::<Vec<_>>(),
        ["c", "b"]
    );
}

#[test]
fn a_full_table_is_an_error_where_daos_asserts() {
    let (registry, log) = (KeyRegistry::new(), Log::default());
    for n in 0..KEYS {
        registry
            .register(raw(&log, &format!("k{n}"), Tags::SERVER, n + 1))
            .unwrap();
    }
    let error = registry
        .register(raw(&log, "last", Tags::SERVER, 1))
        .unwrap_err();
    assert_eq!(
        error,
        TlsError::TableFull {
            name: "last".into()
        }
    );
    assert!(error.to_string().contains("\"last\"") && error.to_string().contains("64"));
}

#[test]
fn values_exist_where_tags_share_a_bit() {
    let (registry, log) = (KeyRegistry::new(), Log::default());
    let vos = registry
        .register(raw(&log, "vos", Tags::RDB | Tags::TGT, 1))
        .unwrap();
    let pool = registry
        .register(raw(&log, "pool", Tags::SERVER, 2))
        .unwrap();
    let values = |info| {
        let slots = Slots::build(&registry, info).unwrap();
        (slots.get(vos).addr(), slots.get(pool).addr())
    };
    assert_eq!(values(SYSTEM), (1, 2), "the system xstream has the RDB bit");
    assert_eq!(values(MAIN), (1, 2));
    assert_eq!(
        values(HELPER),
        (0, 2),
        "SERVER overlaps every role, RDB|TGT not OFF"
    );
    assert_eq!(
        values(XsInfo {
            tags: Tags(0xfd),
            xs_id: -1,
            tgt_id: -1
        }),
        (1, 2),
        "the main thread's own storage"
    );
}

#[test]
fn construction_ascends_and_destruction_descends() {
    let (registry, log) = (KeyRegistry::new(), Log::default());
    for (name, number) in [("a", 1), ("b", 2), ("c", 3)] {
        registry
            .register(raw(&log, name, Tags::SERVER, number))
            .unwrap();
    }
    let slots = Slots::build(&registry, MAIN).unwrap();
    assert_eq!(taken(&log), ["+a@1", "+b@1", "+c@1"]);
    assert_eq!(slots.destroy().unwrap(), []);
    assert_eq!(taken(&log), ["-c@1", "-b@1", "-a@1"]);
}

#[test]
fn a_failing_constructor_undoes_exactly_what_was_made_where_daos_leaks() {
    let (registry, log) = (KeyRegistry::new(), Log::default());
    registry.register(raw(&log, "a", Tags::SERVER, 1)).unwrap();
    registry
        .register(raw(&log, "tgt only", Tags::TGT, 9))
        .unwrap();
    registry.register(raw(&log, "b", Tags::SERVER, 2)).unwrap();
    registry
        .register(raw(&log, "bad", Tags::SERVER, 0))
        .unwrap();
    registry
        .register(raw(&log, "never", Tags::SERVER, 4))
        .unwrap();
    let error = Slots::build(&registry, HELPER).unwrap_err();
    assert_eq!(
        error,
        TlsError::NoValue {
            name: "bad".into(),
            xs_id: 2,
            tags: Tags::OFF
        }
    );
    assert_eq!(error.der(), daos_errno::Der::NOMEM);
    assert_eq!(taken(&log), ["+a@2", "+b@2", "+bad@2", "-b@2", "-a@2"]);
    assert!(current::current_storage().is_null() && current::current().is_none());
}

#[test]
fn a_panicking_constructor_is_an_error_and_undoes_too() {
    let (registry, log) = (KeyRegistry::new(), Log::default());
    registry.register(raw(&log, "a", Tags::SERVER, 1)).unwrap();
    registry
        .register_typed("bad", Tags::SERVER, |_| -> Option<u8> {
            panic!("no {}", "way")
        })
        .unwrap();
    let error = Slots::build(&registry, MAIN).unwrap_err();
    assert_eq!(
        error,
        TlsError::InitPanicked {
            name: "bad".into(),
            xs_id: 1,
            message: "no way".into()
        }
    );
    assert_eq!(taken(&log), ["+a@1", "-a@1"]);
}

#[test]
fn a_panicking_destructor_is_reported_and_the_others_run() {
    let (registry, log) = (KeyRegistry::new(), Log::default());
    registry.register(raw(&log, "a", Tags::SERVER, 1)).unwrap();
    let mut bad = raw(&log, "bad", Tags::SERVER, 2);
    bad.fini = Arc::new(|_, _| panic!("cannot end"));
    registry.register(bad).unwrap();
    registry.register(raw(&log, "c", Tags::SERVER, 3)).unwrap();
    let problems = Slots::build(&registry, MAIN).unwrap().destroy().unwrap();
    assert_eq!(
        problems,
        [TlsError::FiniPanicked {
            name: "bad".into(),
            xs_id: 1,
            message: "cannot end".into()
        }]
    );
    assert_eq!(taken(&log), ["+a@1", "+bad@1", "+c@1", "-c@1", "-a@1"]);
}

#[test]
fn a_key_after_the_start_has_no_value_there_and_harms_nothing_where_daos_asserts() {
    let (registry, log) = (KeyRegistry::new(), Log::default());
    registry.register(raw(&log, "a", Tags::SERVER, 1)).unwrap();
    let slots = Slots::build(&registry, MAIN).unwrap();
    let late = registry
        .register(raw(&log, "late", Tags::SERVER, 2))
        .unwrap();
    assert!(slots.get(late).is_null());
    assert_eq!(slots.destroy().unwrap(), []);
    assert_eq!(taken(&log), ["+a@1", "-a@1"]);
}

#[test]
fn a_key_in_use_cannot_be_unregistered_so_no_slot_changes_hands() {
    let registry = KeyRegistry::new();
    let key = registry
        .register_typed("text", Tags::SERVER, |_| Some("x".to_owned()))
        .unwrap();
    let (first, second) = (
        Slots::build(&registry, MAIN).unwrap(),
        Slots::build(&registry, HELPER).unwrap(),
    );
    assert_eq!(
        registry.unregister(key.index()),
        Err(TlsError::InUse {
            name: "text".into(),
            holders: 2
        })
    );
    assert_eq!(second.destroy().unwrap(), []);
    assert_eq!(
        registry.unregister(key.index()),
        Err(TlsError::InUse {
            name: "text".into(),
            holders: 1
        })
    );
    assert_eq!(first.destroy().unwrap(), []);
    registry.unregister(key.index()).unwrap();
    // The old key, used by mistake, reads nothing of its successor.
    registry
        .register_typed("number", Tags::SERVER, |_| Some(7_u64))
        .unwrap();
    let slots = Slots::build(&registry, MAIN).unwrap();
    assert_eq!(key.get(&slots), None);
}

#[test]
fn keys_without_tags_are_refused() {
    let (registry, log) = (KeyRegistry::new(), Log::default());
    assert_eq!(
        registry.register(raw(&log, "a", Tags(0), 1)),
        Err(TlsError::NoTags { name: "a".into() })
    );
}

#[test]
fn typed_values_are_each_xstreams_own_and_dropped_in_order() {
    struct Value(&'static AtomicUsize, i32);
    impl Drop for Value {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    static DROPPED: AtomicUsize = AtomicUsize::new(0);
    let registry = KeyRegistry::new();
    let key = registry
        .register_typed("v", Tags::TGT, |info| Some(Value(&DROPPED, info.tgt_id)))
        .unwrap();
    let one = Slots::build(&registry, MAIN).unwrap();
    let two = Slots::build(&registry, XsInfo { tgt_id: 5, ..MAIN }).unwrap();
    assert_eq!((key.get(&one).unwrap().1, key.get(&two).unwrap().1), (0, 5));
    assert!(key.get(&Slots::build(&registry, HELPER).unwrap()).is_none());
    assert!(
        one.get(key.index()).is_null(),
        "a typed value is not C's to see"
    );
    assert!(one.destroy().is_ok());
    assert_eq!(DROPPED.load(Ordering::Relaxed), 1);
    drop(two);
    assert_eq!(
        DROPPED.load(Ordering::Relaxed),
        2,
        "without destroy, the last handle ends the values"
    );
}

#[test]
fn constructors_and_destructors_see_the_lower_slots() {
    let registry = KeyRegistry::new();
    let low = registry
        .register_typed("low", Tags::SERVER, |_| Some(3_u32))
        .unwrap();
    let high = registry
        .register_typed("high", Tags::SERVER, move |_| {
            current::current().and_then(|slots| low.get(&slots).map(|v| v + 1))
        })
        .unwrap();
    let seen = Arc::new(AtomicUsize::new(0));
    let in_fini = Arc::clone(&seen);
    let own = registry.register(RawKey {
        name: "c".into(),
        tags: Tags::SERVER,
        init: Arc::new(|_| Some(fake_pointer(77))),
        fini: Arc::new(move |_, _| {
            assert!(!current::current_storage().is_null());
            in_fini.store(
                current::current_info().unwrap().xs_id as usize,
                Ordering::Relaxed,
            );
        }),
    });
    let slots = Slots::build(&registry, MAIN).unwrap();
    assert_eq!(high.get(&slots), Some(&4));
    assert_eq!(slots.get(own.unwrap()).addr(), 77);
    slots.destroy().unwrap();
    assert_eq!(seen.load(Ordering::Relaxed), 1);
    assert!(current::current_storage().is_null());
}

#[test]
fn storage_still_held_is_not_destroyed() {
    let (registry, log) = (KeyRegistry::new(), Log::default());
    registry.register(raw(&log, "a", Tags::SERVER, 1)).unwrap();
    let slots = Slots::build(&registry, MAIN).unwrap();
    let clone = slots.clone();
    let slots = slots.destroy().unwrap_err();
    assert_eq!(taken(&log), ["+a@1"]);
    drop(clone);
    assert!(slots.destroy().is_ok());
}

#[test]
fn entering_nests_and_restores() {
    let registry = KeyRegistry::new();
    let key = registry
        .register_typed("id", Tags::SERVER, |info| Some(info.xs_id))
        .unwrap();
    let id = || current::current().and_then(|slots| key.get(&slots).copied());
    let (system, main) = (
        Slots::build(&registry, SYSTEM).unwrap(),
        Slots::build(&registry, MAIN).unwrap(),
    );
    assert_eq!(id(), None);
    let outer = crate::enter(&system);
    assert_eq!(id(), Some(0));
    {
        let _inner = crate::enter(&main);
        assert_eq!((id(), current::current_storage()), (Some(1), main.as_ptr()));
    }
    assert_eq!(
        (id(), current::current_storage()),
        (Some(0), system.as_ptr())
    );
    drop(system);
    assert_eq!(id(), Some(0), "entered storage stays alive");
    drop(outer);
    assert_eq!((id(), current::current_info()), (None, None));
}

#[test]
fn threads_have_their_own_current() {
    let registry = KeyRegistry::new();
    let slots = Slots::build(&registry, MAIN).unwrap();
    let _entered = crate::enter(&slots);
    std::thread::spawn(|| assert!(current::current_storage().is_null()))
        .join()
        .unwrap();
}

#[test]
fn the_c_view_holds_values_at_a_stable_address() {
    let (registry, log) = (KeyRegistry::new(), Log::default());
    let key = registry.register(raw(&log, "a", Tags::SERVER, 41)).unwrap();
    let slots = Slots::build(&registry, MAIN).unwrap();
    let address = slots.as_ptr();
    let moved = Rc::new(slots.clone());
    assert_eq!(moved.as_ptr(), address);
    assert_eq!(moved.get(key).addr(), 41);
}

proptest! {
    /// Whatever the keys, their tags and the one that fails: what was made is what was ended, in reverse.
    #[test]
    fn made_is_ended_in_reverse(keys in prop::collection::vec((1u32..256, prop::bool::weighted(0.05)), 0..KEYS), tags in 1u32..256) {
        let (registry, log) = (KeyRegistry::new(), Log::default());
        for (n, (key_tags, fails)) in keys.iter().enumerate() {
            registry.register(raw(&log, &n.to_string(), Tags(*key_tags), if *fails { 0 } else { n + 1 })).unwrap();
        }
        let matching: Vec<usize> = (0..keys.len()).filter(|n| keys[*n].0 & tags != 0).collect();
        let first_failure = matching.iter().position(|n| keys[*n].1);
        let built = Slots::build(&registry, XsInfo { tags: Tags(tags), xs_id: 0, tgt_id: 0 });
        prop_assert_eq!(built.is_err(), first_failure.is_some());
        drop(built);
        let made = &matching[..first_failure.unwrap_or(matching.len())];
        let mut expected: Vec<String> = made.iter().map(|n| format!("+{n}@0")).collect();
        expected.extend(first_failure.map(|at| format!("+{}@0", matching[at])));
        expected.extend(made.iter().rev().map(|n| format!("-{n}@0")));
        prop_assert_eq!(taken(&log), expected);
    }
}
