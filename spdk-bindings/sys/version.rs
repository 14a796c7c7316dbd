/// The major version that the shim is written for.
const MAJOR: u32 = 26;

/// Whether SPDK's `spdk/version.h` is of a version that the shim is written for; else what it is.
pub(crate) fn check(text: &str) -> Result<(), String> {
    let number = |name: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with("#define") && line.contains(name));
        line.and_then(|line| line.split_whitespace().nth(2)?.parse::<u32>().ok())
    };
    let (major, minor) = (number("SPDK_VERSION_MAJOR"), number("SPDK_VERSION_MINOR"));
    match major.zip(minor) {
        Some((MAJOR, _)) => Ok(()),
        Some((major, minor)) => Err(format!(
            "is of SPDK {major}.{minor:02}, and {MAJOR}.x is needed"
        )),
        None => Err("does not say which version it is".to_owned()),
    }
}
