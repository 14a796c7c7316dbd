//! Huge pages for DMA: taken when there are enough, refused with the cure when there are not.

#![allow(missing_docs, reason = "a test")]

mod harness;

use std::io::Cursor;

use harness::{Config, Kind, eventually};
use obj_client::PutOptions;

/// Files for modules' buffers and bulk transfers: 176 and some 30 MiB.
const PAGES: u64 = 110;

fn free(size: &str) -> u64 {
    let file = format!("/sys/kernel/mm/hugepages/hugepages-{size}/free_hugepages");
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

#[test]
fn an_engine_that_insists_takes_huge_pages_or_says_how_to_make_them() {
    let mut config = Config::new(2, Kind::Malloc);
    config.engine_keys = "hugepages = \"2MiB\"".to_owned();
    if free("2048kB") < PAGES {
        // Without root there is no more to be had: what is said is the point.
        return config.fails().expect(73, "huge pages of 2 MiB");
    }
    let before = free("2048kB");
    let engine = config.start();
    engine.wait_log("huge pages of 2 MiB set aside for DMA");
    assert!(free("2048kB") < before);
    let pool = engine.connect().create_pool("tank", 64 << 20).unwrap();
    let cont = pool.create_container("cont").unwrap();
    let put = |nr: u8| {
        cont.put(
            &format!("{nr}"),
            &mut Cursor::new(vec![nr; 300_000]),
            PutOptions::default(),
        )
    };
    (0..8).for_each(|nr| put(nr).map(drop).unwrap());
    let ended = engine.terminate();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    eventually("the pages to be free again", || {
        (free("2048kB") >= before).then_some(())
    });
}

#[test]
fn pages_that_only_a_reboot_makes_are_asked_for_in_words() {
    if free("1048576kB") > 0 {
        return;
    }
    let mut config = Config::new(1, Kind::Malloc);
    config.engine_keys = "hugepages = \"1GiB\"".to_owned();
    config.fails().expect(73, "huge pages of 1 GiB");
}
