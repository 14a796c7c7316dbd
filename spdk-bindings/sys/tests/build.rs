//! What the build script answers, without building: SPDK of other versions. Needs no SPDK.
#![allow(missing_docs, reason = "tests")]

#[path = "../version.rs"]
mod version;

fn header(major: u32, minor: u32) -> String {
    format!(
        "#ifndef SPDK_VERSION_H\n#define SPDK_VERSION_MAJOR\t{major}\n#define SPDK_VERSION_MINOR\t{minor}\n"
    )
}

#[test]
fn spdk_of_another_major_version_is_refused_by_number() {
    assert_eq!(version::check(&header(26, 9)), Ok(()));
    for (major, minor, said) in [
        (25, 1, "is of SPDK 25.01, and 26.x is needed"),
        (27, 5, "is of SPDK 27.05, and 26.x is needed"),
    ] {
        assert_eq!(version::check(&header(major, minor)), Err(said.to_owned()));
    }
    let other = version::check("#define OTHER 1\n").unwrap_err();
    assert_eq!(other, "does not say which version it is");
}
