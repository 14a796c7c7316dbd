//! No input panics, and whatever is accepted reads back the same.

use engine_config::{ByteSize, Config, Document, Machine, explain, keys};
use proptest::prelude::*;

/// Lines that are nearly right, in any order and number: they reach further than random bytes.
fn near_miss() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        Just("[engine]".to_owned()),
        Just("[[device]]".to_owned()),
        Just("[rpc]".to_owned()),
        Just("[[engine]]".to_owned()),
        (key(), value()).prop_map(|(key, value)| format!("{key} = {value}")),
        "\\PC{0,20}",
    ];
    prop::collection::vec(line, 0..12).prop_map(|lines| lines.join("\n"))
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(keys()),
        prop::sample::select(keys()).prop_map(|key| key.rsplit('.').next().unwrap().to_owned()),
        "[a-z_.]{1,12}",
    ]
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        "[0-9]{1,30}",
        "\"\\PC{0,40}\"",
        Just("\"file\"".to_owned()),
        Just("\"64MiB\"".to_owned()),
        Just("[1, \"a\", { b = 2 }]".to_owned()),
        Just("{ a.b.c = 1.5 }".to_owned()),
        Just("1979-05-27".to_owned()),
        Just("\"\"\"\nmany\nlines\"\"\"".to_owned()),
        Just("true".to_owned()),
    ]
}

fn survives(text: &str, sets: &[String]) {
    let machine = Machine::described(4);
    match Document::parse("any.toml", text) {
        Err(errors) => assert!(!errors.to_string().is_empty()),
        Ok(mut document) => {
            sets.iter().for_each(|set| document.apply_set(set));
            match document.finish(Some(&machine)) {
                Err(errors) => {
                    assert!(errors.count() > 0);
                    assert!(errors.to_string().contains("error"));
                }
                Ok(config) => {
                    let again = Config::parse("again", &config.effective_toml()).unwrap();
                    assert_eq!(again, config);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn on_any_text(text in "\\PC{0,200}") {
        survives(&text, &[]);
    }

    #[test]
    fn on_any_bytes_that_are_text(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        survives(&String::from_utf8_lossy(&bytes), &[]);
    }

    #[test]
    fn on_near_misses(text in near_miss(), sets in prop::collection::vec((key(), value()), 0..3)) {
        let sets: Vec<String> = sets.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
        survives(&text, &sets);
    }

    #[test]
    fn on_any_set(set in "\\PC{0,60}", key in key()) {
        survives("", &[set.clone(), format!("{key}={set}"), format!("device.{set}=1")]);
    }

    #[test]
    fn on_any_key_to_explain(key in "\\PC{0,40}") {
        let _ = explain(&key);
    }

    #[test]
    fn sizes_read_back(bytes in any::<u64>(), text in "\\PC{0,12}") {
        prop_assert_eq!(ByteSize::parse(&ByteSize(bytes).to_string()), Ok(ByteSize(bytes)));
        let _ = ByteSize::parse(&text);
    }
}
