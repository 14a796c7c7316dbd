//! What is issued, and where it is put.
#![allow(missing_docs, reason = "a test")]

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use engine_cert::{Authority, CertError, Pair, Request, Validity, write_pair};

fn request(name: &str, addresses: &[&str]) -> Request {
    Request {
        name: name.to_owned(),
        addresses: addresses.iter().map(|a| (*a).to_owned()).collect(),
        engine: true,
        validity: Validity::days(1000),
    }
}

#[test]
fn an_authority_comes_back_from_its_files_and_issues() {
    let directory = tempfile::tempdir().unwrap();
    let made = Authority::create("keel", Validity::days(10)).unwrap();
    let pair = made.save(directory.path()).unwrap();
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&pair.certificate), mode(&pair.key)), (0o644, 0o600));

    let authority = Authority::load(directory.path()).unwrap();
    assert_eq!(authority.facts(), made.facts());
    let issued = authority
        .issue(&request("e0", &["10.0.0.1", "storage-1", "fd00::1"]))
        .unwrap();
    let facts = issued.facts().unwrap();
    assert_eq!(facts.addresses, ["10.0.0.1", "storage-1", "fd00::1"]);
    assert_eq!((facts.name.as_str(), facts.issuer.as_str()), ("e0", "keel"));
    assert!(facts.may_serve && !facts.is_authority);
    assert_eq!(
        facts.not_after,
        authority.facts().not_after,
        "not longer than the authority"
    );
    let client = Request {
        engine: false,
        ..request("alice", &[])
    };
    assert!(!authority.issue(&client).unwrap().facts().unwrap().may_serve);
}

#[test]
fn nothing_is_overwritten_unless_asked() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::create("keel", Validity::days(10)).unwrap();
    authority.save(directory.path()).unwrap();
    let again = authority.save(directory.path());
    assert!(
        matches!(&again, Err(CertError::Exists(path)) if path.ends_with("ca.pem")),
        "{:?}",
        again.err()
    );

    let pair = Pair::of(directory.path(), "e0");
    let first = authority.issue(&request("e0", &["a"])).unwrap();
    write_pair(&pair, &first, false).unwrap();
    let second = authority.issue(&request("e0", &["b"])).unwrap();
    assert!(matches!(
        write_pair(&pair, &second, false),
        Err(CertError::Exists(_))
    ));
    assert_eq!(std::fs::read_to_string(&pair.key).unwrap(), first.key);
    write_pair(&pair, &second, true).unwrap();
    assert_eq!(std::fs::read_to_string(&pair.key).unwrap(), second.key);
    assert_eq!(
        std::fs::read_dir(directory.path()).unwrap().count(),
        4,
        "nothing is left beside them"
    );
}

#[test]
fn what_cannot_stand_in_a_certificate_is_refused() {
    let authority = Authority::create("keel", Validity::days(10)).unwrap();
    for name in ["", "a/b", ".hidden", "line\nbreak", &"x".repeat(65)] {
        let refused = authority.issue(&request(name, &[])).map(drop);
        assert!(matches!(refused, Err(CertError::Name { .. })), "{name:?}");
    }
    for address in ["", "two words", "10.0.0.1/24", "häuser"] {
        let refused = authority.issue(&request("e0", &[address])).map(drop);
        assert!(matches!(refused, Err(CertError::Address(_))), "{address:?}");
    }
    let now = SystemTime::now();
    let over = Validity {
        from: now - Duration::from_secs(9_000),
        to: now - Duration::from_secs(60),
    };
    let old = Authority::create("old", over).unwrap();
    assert!(matches!(
        old.issue(&request("e0", &[])),
        Err(CertError::Expired { .. })
    ));
}
