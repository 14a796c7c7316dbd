//! The Rust mirror against the C header: field by field, constant by constant, and the fingerprint of both.
#![allow(missing_docs, unreachable_pub, reason = "tests")]

mod compiler;
mod header;
mod mirror;

use compiler::Layout;
use header::Header;
use std::collections::BTreeMap;
use std::sync::LazyLock;

static HEADER: LazyLock<Header> = LazyLock::new(|| Header::read(module_abi::DSS_ABI_LEVEL));
static C: LazyLock<Layout> = LazyLock::new(|| compiler::measure(&HEADER));

#[test]
fn every_struct_of_the_header_is_mirrored_and_nothing_else() {
    let header: Vec<_> = HEADER.structs.iter().map(|s| s.name.clone()).collect();
    let mut rust: Vec<_> = mirror::structs()
        .into_iter()
        .map(|s| s.name.to_owned())
        .collect();
    let mut sorted = header.clone();
    sorted.sort();
    rust.sort();
    assert_eq!(
        sorted, rust,
        "left: the header's structs, right: the mirror's"
    );
}

#[test]
fn every_field_has_the_same_name_place_and_size() {
    for rust in mirror::structs() {
        let c = &C.structs[rust.name];
        assert_eq!(
            (c.size, c.align),
            (rust.size, rust.align),
            "size and alignment of struct {} (C, Rust)",
            rust.name
        );
        assert_eq!(
            c.fields, rust.fields,
            "fields of struct {} as (name, offset, size): left C, right Rust",
            rust.name
        );
    }
}

#[test]
fn every_constant_has_the_same_value() {
    let rust: BTreeMap<String, i128> = mirror::constants()
        .into_iter()
        .map(|(n, v)| (n.to_owned(), v))
        .collect();
    let missing: Vec<_> = HEADER
        .constants
        .iter()
        .filter(|n| !rust.contains_key(*n))
        .collect();
    assert!(
        missing.is_empty(),
        "in the header, not in the mirror: {missing:?}"
    );
    assert_eq!(C.constants, rust, "left C, right Rust");
}

#[test]
fn every_function_type_is_mirrored_as_a_nullable_pointer() {
    let mut header = HEADER
        .typedefs
        .iter()
        .map(|t| t.0.as_str())
        .collect::<Vec<_>>();
    header.sort_unstable();
    let rust = mirror::function_types();
    assert_eq!(header, rust.iter().map(|t| t.0).collect::<Vec<_>>());
    assert!(rust.iter().all(|t| t.1 == size_of::<usize>()));
}

#[test]
fn the_fingerprint_is_that_of_the_layout() {
    let computed = header::fingerprint(&HEADER, &C);
    let literal = module_abi::DSS_ABI_FINGERPRINT;
    assert_eq!(
        computed, literal,
        "the ABI changed: put {computed:#018x} into DSS_ABI_FINGERPRINT of include/engine_module.h and src/constants.rs \
         (and raise DSS_ABI_LEVEL when modules in the field need to tell)"
    );
}

#[test]
fn every_earlier_level_is_still_in_the_header_unchanged() {
    for known in module_abi::ABI_LEVELS {
        let header = Header::read(known.level);
        let layout = compiler::measure(&header);
        let computed = header::fingerprint(&header, &layout);
        assert_eq!(
            (computed, layout.structs["dss_module"].size),
            (known.fingerprint, known.module_size),
            "what a module of level {} uses has changed; a level only adds, behind `#if DSS_ABI_LEVEL >= n`",
            known.level
        );
        // Its table is the beginning of ours.
        let (theirs, ours) = (
            &layout.structs["dss_host"].fields,
            &C.structs["dss_host"].fields,
        );
        assert_eq!(theirs[..], ours[..theirs.len()], "level {}", known.level);
    }
    let levels = module_abi::ABI_LEVELS.map(|known| known.level);
    assert!(
        levels.iter().copied().eq(1..=module_abi::DSS_ABI_LEVEL),
        "{levels:?}"
    );
}

#[test]
fn opcodes_are_put_together_as_in_the_header() {
    assert_eq!(
        i128::from(module_abi::DSS_RPC_OPCODE(4, 1, 0x203)),
        C.opcode_sample
    );
}

#[test]
fn a_field_that_moved_changes_the_fingerprint() {
    let before = header::fingerprint(&HEADER, &C);
    let mut moved = C.clone();
    moved.structs.get_mut("dss_buf").unwrap().fields[1].1 += 8;
    assert_ne!(before, header::fingerprint(&HEADER, &moved));
}
