//! Two sides of a connection in memory, and every way in which one of them does not believe the other.
#![allow(missing_docs, reason = "a test")]

use std::fs;
use std::io::IoSlice;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use engine_cert::{Authority, Issued, Pair, Request, Validity, write_pair};
use rpc_tls::{Files, Identity, Plain, Stream, TlsError};
use tempfile::TempDir;

fn request(name: &str, addresses: &[&str], engine: bool) -> Request {
    Request {
        name: name.to_owned(),
        addresses: addresses.iter().map(|a| (*a).to_owned()).collect(),
        engine,
        validity: Validity::days(1),
    }
}

fn place(directory: &Path, name: &str, authority: &Authority, issued: &Issued) -> Files {
    let pair = Pair::of(directory, name);
    write_pair(&pair, issued, true).unwrap();
    let ca = directory.join("ca.pem");
    if !ca.exists() {
        authority.save(directory).unwrap();
    }
    Files {
        ca,
        certificate: pair.certificate,
        key: pair.key,
    }
}

/// An identity of its own directory, which trusts `authority`.
fn identity(authority: &Authority, issued: &Issued) -> (TempDir, Identity) {
    let directory = tempfile::tempdir().unwrap();
    let files = place(directory.path(), "it", authority, issued);
    (directory, Identity::load(files).unwrap())
}

fn simple(authority: &Authority, engine: bool) -> (TempDir, Identity) {
    let asked = request("it", &["127.0.0.1", "storage-1"], engine);
    identity(authority, &authority.issue(&asked).unwrap())
}

fn authority() -> Authority {
    Authority::create("test", Validity::days(2)).unwrap()
}

/// Moves what `from` has to say, at most `most` bytes.
fn carry(from: &mut Stream, to: &mut Stream, most: usize) -> usize {
    let count = from.unsent().len().min(most).min(to.space().len());
    to.space()[..count].copy_from_slice(&from.unsent()[..count]);
    to.received(count);
    from.sent(count);
    count
}

/// Both sides' results of the handshake, each with what it heard last.
fn shake(client: &mut Stream, server: &mut Stream) -> (Result<(), TlsError>, Result<(), TlsError>) {
    let (mut at_client, mut at_server) = (Ok(()), Ok(()));
    for _ in 0..100 {
        let moved = carry(client, server, 7000);
        at_server = server.advance();
        let back = carry(server, client, 7000);
        at_client = client.advance();
        if moved + back == 0 && client.unsent().is_empty() && server.unsent().is_empty() {
            break;
        }
    }
    (at_client, at_server)
}

fn pair(client: &Identity, server: &Identity, name: &str) -> (Stream, Stream) {
    (
        Stream::client(client, name).unwrap(),
        Stream::server(server).unwrap(),
    )
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + (i >> 8) + seed) as u8).collect()
}

/// Sends `data` in pieces of `piece` bytes, the network in parts of `part`, the reader's spaces in `space`.
fn send(
    from: &mut Stream,
    to: &mut Stream,
    data: &[u8],
    (piece, part, space): (usize, usize, usize),
) {
    let (mut written, mut got) = (0, Vec::new());
    while got.len() < data.len() {
        let rest: Vec<IoSlice<'_>> = data[written..]
            .chunks(piece)
            .take(9)
            .map(IoSlice::new)
            .collect();
        written += from.write(&rest).unwrap();
        carry(from, to, part);
        loop {
            let (mut first, mut second) = (vec![0; space], vec![0; space / 2 + 1]);
            match to.read([&mut first, &mut second]).unwrap() {
                Plain::Bytes(count) => {
                    first.extend_from_slice(&second);
                    got.extend_from_slice(&first[..count]);
                }
                Plain::Nothing => break,
                Plain::End => panic!("nobody ended it"),
            }
        }
    }
    assert!(got == data, "{piece}, {part}, {space}");
}

#[test]
fn what_goes_in_comes_out_however_it_is_cut() {
    let authority = authority();
    let ((_a, client), (_b, server)) = (simple(&authority, false), simple(&authority, true));
    let (mut c, mut s) = pair(&client, &server, "127.0.0.1");
    assert!(c.is_handshaking() && s.peer().is_none());
    assert_eq!(shake(&mut c, &mut s), (Ok(()), Ok(())));
    assert!(!c.is_handshaking() && !s.is_handshaking());
    let (seen, shown) = (s.peer().unwrap(), c.peer().unwrap());
    assert_eq!((seen.may_serve, shown.may_serve), (false, true));
    assert_eq!(shown.addresses, ["127.0.0.1", "storage-1"]);
    for (seed, cut) in [
        (64, 50_000, 100),
        (1 << 20, 70_000, 40_000),
        (1000, 1, 77),
        (20_000, 3_333, 16_384),
    ]
    .into_iter()
    .enumerate()
    {
        let long = if cut.1 == 1 { 4_000 } else { 400_000 };
        send(&mut c, &mut s, &pattern(long, seed), cut);
        send(&mut s, &mut c, &pattern(long, seed + 1), cut);
    }
}

#[test]
fn writes_between_reads_lose_nothing() {
    let authority = authority();
    let ((_a, client), (_b, server)) = (simple(&authority, false), simple(&authority, true));
    let (mut c, mut s) = pair(&client, &server, "storage-1");
    assert_eq!(shake(&mut c, &mut s), (Ok(()), Ok(())));
    let data = pattern(30_000, 5);
    assert_eq!(c.write(&[IoSlice::new(&data)]).unwrap(), data.len());
    while carry(&mut c, &mut s, usize::MAX) > 0 {}
    // The server looks at the records because it wants to write; what it finds waits for the read.
    assert_eq!(s.write(&[IoSlice::new(b"answer")]).unwrap(), 6);
    assert!(s.has_bytes());
    let mut got = vec![0; 40_000];
    let mut at = 0;
    while let Plain::Bytes(count) = s.read([&mut got[at..], &mut []]).unwrap() {
        at += count;
    }
    assert!(got[..at] == data);
    carry(&mut s, &mut c, usize::MAX);
    let mut heard = [0; 10];
    assert_eq!(c.read([&mut heard, &mut []]).unwrap(), Plain::Bytes(6));
    assert_eq!(&heard[..6], b"answer");
}

#[test]
fn full_is_full_until_something_is_sent() {
    let authority = authority();
    let ((_a, client), (_b, server)) = (simple(&authority, false), simple(&authority, true));
    let (mut c, mut s) = pair(&client, &server, "storage-1");
    assert_eq!(c.write(&[IoSlice::new(b"too early")]).unwrap(), 0);
    assert_eq!(shake(&mut c, &mut s), (Ok(()), Ok(())));
    let data = pattern(1 << 20, 1);
    let taken = c.write(&[IoSlice::new(&data)]).unwrap();
    assert!((32 << 10..128 << 10).contains(&taken), "{taken}");
    assert_eq!(c.write(&[IoSlice::new(&data)]).unwrap(), 0);
    let unsent = c.unsent().len();
    c.sent(unsent);
    assert!(c.write(&[IoSlice::new(&data)]).unwrap() > 0);
}

#[test]
fn strangers_are_not_believed() {
    let (ours, theirs) = (authority(), authority());
    let ((_a, client), (_b, server)) = (simple(&ours, false), simple(&theirs, true));
    let (mut c, mut s) = pair(&client, &server, "127.0.0.1");
    let (at_client, at_server) = shake(&mut c, &mut s);
    assert_eq!(at_client, Err(TlsError::UnknownAuthority));
    let told = at_server.unwrap_err().to_string();
    assert!(
        told.contains("our certificate is not issued by its authority"),
        "{told}"
    );

    // The client believes the engine, which does not believe the client.
    let foreign = theirs.issue(&request("it", &[], false)).unwrap();
    let (_c, client) = identity(&ours, &foreign);
    let (_d, server) = simple(&ours, true);
    let (mut c, mut s) = pair(&client, &server, "127.0.0.1");
    let (at_client, at_server) = shake(&mut c, &mut s);
    assert_eq!(at_server, Err(TlsError::UnknownAuthority));
    assert!(
        matches!(at_client, Err(TlsError::Refused(_))),
        "{at_client:?}"
    );
}

#[test]
fn expired_and_future_certificates_are_named_with_their_date() {
    let ours = authority();
    let (_a, client) = simple(&ours, false);
    let day = Duration::from_secs(86_400);
    let now = SystemTime::now();
    let mut asked = request("old", &["127.0.0.1"], true);
    asked.validity = Validity {
        from: now - 3 * day,
        to: now - day,
    };
    let (_b, server) = identity(&ours, &ours.issue(&asked).unwrap());
    let (mut c, mut s) = pair(&client, &server, "127.0.0.1");
    let (at_client, at_server) = shake(&mut c, &mut s);
    let ended = server.certificate().not_after;
    assert_eq!(at_client, Err(TlsError::Expired(Some(ended))));
    let text = at_client.unwrap_err().to_string();
    assert!(text.contains(&server.certificate().expires()), "{text}");
    assert!(at_server.unwrap_err().to_string().contains("has expired"));

    asked.validity = Validity {
        from: now + day / 2,
        to: now + day,
    };
    let (_c, server) = identity(&ours, &ours.issue(&asked).unwrap());
    let (mut c, mut s) = pair(&client, &server, "127.0.0.1");
    let begins = server.certificate().not_before;
    assert_eq!(shake(&mut c, &mut s).0, Err(TlsError::NotYet(Some(begins))));
}

#[test]
fn a_name_that_is_not_in_the_certificate_is_refused() {
    let ours = authority();
    let ((_a, client), (_b, server)) = (simple(&ours, false), simple(&ours, true));
    for name in ["127.0.0.2", "storage-2"] {
        let (mut c, mut s) = pair(&client, &server, name);
        let wanted = TlsError::Name {
            wanted: name.to_owned(),
            found: "127.0.0.1, storage-1".to_owned(),
        };
        let (at_client, _) = shake(&mut c, &mut s);
        let text = at_client.as_ref().unwrap_err().to_string();
        assert!(text.contains(&format!("--address {name}")), "{text}");
        // Names and addresses come in an order of the library's.
        match at_client.unwrap_err() {
            TlsError::Name { wanted: w, found } => {
                assert_eq!(w, name);
                assert!(found.contains("storage-1"), "{found}");
            }
            other => panic!("{other:?} instead of {wanted:?}"),
        }
    }
}

#[test]
fn a_client_may_not_serve() {
    let ours = authority();
    let ((_a, client), (_b, server)) = (simple(&ours, false), simple(&ours, false));
    let (mut c, mut s) = pair(&client, &server, "127.0.0.1");
    assert_eq!(shake(&mut c, &mut s).0, Err(TlsError::Purpose));
}

#[test]
fn other_protocols_are_told_apart() {
    let ours = authority();
    let (_a, client) = simple(&ours, false);
    let mut c = Stream::client(&client, "127.0.0.1").unwrap();
    c.space()[..8].copy_from_slice(b"KRPC\x01\0\0\0");
    c.received(8);
    assert_eq!(c.advance(), Err(TlsError::Plaintext));
    assert_eq!(c.advance(), Err(TlsError::Plaintext), "it stays so");

    let mut s = Stream::server(&client).unwrap();
    s.space()[..18].copy_from_slice(b"GET / HTTP/1.1\r\n\r\n");
    s.received(18);
    assert!(matches!(s.advance(), Err(TlsError::Broken(_))));
}

#[test]
fn damaged_records_end_it() {
    let authority = authority();
    let ((_a, client), (_b, server)) = (simple(&authority, false), simple(&authority, true));
    let (mut c, mut s) = pair(&client, &server, "storage-1");
    assert_eq!(shake(&mut c, &mut s), (Ok(()), Ok(())));
    c.write(&[IoSlice::new(b"something")]).unwrap();
    let count = c.unsent().len();
    s.space()[..count].copy_from_slice(c.unsent());
    s.space()[count - 1] ^= 1;
    s.received(count);
    let mut nowhere = [0; 64];
    assert!(s.read([&mut nowhere, &mut []]).is_err());
    assert!(s.write(&[IoSlice::new(b"x")]).is_err());
}

#[test]
fn files_that_are_not_what_they_should_be() {
    let ours = authority();
    let directory = tempfile::tempdir().unwrap();
    let issued = ours.issue(&request("it", &[], true)).unwrap();
    let files = place(directory.path(), "it", &ours, &issued);
    let wrong = |change: &dyn Fn(&mut Files)| {
        let mut files = files.clone();
        change(&mut files);
        Identity::load(files).unwrap_err().to_string()
    };
    let missing = wrong(&|f| f.key = directory.path().join("none"));
    assert!(
        missing.starts_with("the key ") && missing.contains("No such file"),
        "{missing}"
    );
    let swapped = wrong(&|f| f.ca = f.certificate.clone());
    assert!(swapped.contains("is no authority's"), "{swapped}");
    let other = wrong(&|f| f.key = directory.path().join("ca-key.pem"));
    assert!(other.contains("is not the key of"), "{other}");
    let no_key = wrong(&|f| f.key = f.certificate.clone());
    assert!(no_key.contains("everybody on this machine"), "{no_key}");
    fs::set_permissions(&files.key, PermissionsExt::from_mode(0o644)).unwrap();
    let open = wrong(&|_| {});
    assert!(open.contains("(mode 644): chmod 600"), "{open}");
    fs::set_permissions(&files.key, PermissionsExt::from_mode(0o640)).unwrap();
    Identity::load(files.clone()).unwrap();
    fs::write(&files.certificate, "nothing").unwrap();
    let empty = wrong(&|_| {});
    assert!(empty.contains("has no certificate in it"), "{empty}");
}

#[test]
fn a_renewal_counts_once_it_is_whole() {
    let ours = authority();
    let directory = tempfile::tempdir().unwrap();
    let issue = |name: &str| ours.issue(&request(name, &["storage-1"], true)).unwrap();
    let files = place(directory.path(), "it", &ours, &issue("first"));
    let it = Identity::load(files.clone()).unwrap();
    assert_eq!(it.refresh(), Ok(false));

    let second = issue("second");
    fs::write(&files.key, &second.key).unwrap();
    let half = it.refresh().unwrap_err().to_string();
    assert!(half.contains("is not the key of"), "{half}");
    assert_eq!(it.certificate().name, "first");
    fs::write(&files.certificate, &second.certificate).unwrap();
    assert_eq!(it.refresh(), Ok(true));
    assert_eq!(
        (it.certificate().name.as_str(), it.refresh()),
        ("second", Ok(false))
    );

    let (_c, client) = simple(&ours, false);
    let (mut c, mut s) = pair(&client, &it, "storage-1");
    assert_eq!(shake(&mut c, &mut s), (Ok(()), Ok(())));
    assert_eq!(c.peer().unwrap().name, "second");
}
