//! TLS between real engines and clients, and every peer that does not fit.
#![allow(missing_docs, reason = "a test")]

mod harness;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, SystemTime};

use daos_errno::Der;
use engine_cert::{Authority, Pair, Request, Validity, write_pair};
use engine_rpc::{
    BulkClass, BulkPools, ConnectError, Group, Member, Membership, RankCall, Ranks, Security,
    TcpTransport, Transport,
};
use harness::taking::TAKE;
use harness::{ECHO, Engine, frame, hello, pattern, raw, read_frame};
use rpc_tls::{Files, Identity, TlsError};
use rpc_wire::{Client, ClientError, ClientOptions, HelloRequest, Opcode, PROTOCOL};
use spdk_env::DmaBuf;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(20);
const DAY: Duration = Duration::from_secs(86_400);

/// An authority, and the directory in which it and what it issues are.
struct Pki {
    authority: Authority,
    directory: TempDir,
}

impl Pki {
    fn new() -> Pki {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::create("test", Validity::days(2)).unwrap();
        authority.save(directory.path()).unwrap();
        Pki {
            authority,
            directory,
        }
    }

    fn files(&self, name: &str, engine: bool, address: &str, validity: Validity) -> Files {
        let asked = Request {
            name: name.to_owned(),
            addresses: vec![address.to_owned()],
            engine,
            validity,
        };
        let pair = Pair::of(self.directory.path(), name);
        write_pair(&pair, &self.authority.issue(&asked).unwrap(), true).unwrap();
        Files {
            ca: self.directory.path().join("ca.pem"),
            certificate: pair.certificate,
            key: pair.key,
        }
    }

    fn issue(&self, name: &str, engine: bool) -> Identity {
        let files = self.files(name, engine, "127.0.0.1", Validity::days(1));
        Identity::load(files).unwrap()
    }

    /// TLS everywhere, though all is on one machine.
    fn security(&self, name: &str) -> Security {
        strict(self.issue(name, true))
    }
}

fn strict(identity: Identity) -> Security {
    Security {
        identity,
        required: true,
        within_machine: true,
    }
}

fn engine(security: Security) -> Engine {
    Engine::start_with(1, |options| options.tls = Some(security))
}

fn client(engine: &Engine, identity: Identity) -> Result<Client, ClientError> {
    let options = ClientOptions {
        tls: Some(identity),
        ..ClientOptions::default()
    };
    Client::connect_with(engine.addr(), 1, options)
}

fn memory() -> BulkPools {
    let classes = [BulkClass {
        buffer_len: 4 << 20,
        count: 2,
    }];
    BulkPools::new(&classes).unwrap()
}

/// The outcome of one engine's connection to another.
fn connect(from: &Engine, to: &Engine, security: Option<Security>) -> Result<(), ConnectError> {
    let addr = to.addr();
    from.run(0, move || async move {
        let made = TcpTransport::connect(addr, 1, LIMIT, 8, memory(), security.as_ref()).await;
        match made {
            Ok(transport) => {
                let answer = transport.call(1, ECHO, b"hello".to_vec(), None).await;
                assert_eq!(answer.unwrap().body, b"hello");
                Ok(())
            }
            Err(error) => Err(error),
        }
    })
}

#[test]
fn engines_and_clients_speak_with_any_amount_of_data() {
    let pki = Pki::new();
    let (here, there) = (engine(pki.security("a")), engine(pki.security("b")));
    let (addr, security) = (there.addr(), pki.security("a"));
    here.run(1, move || async move {
        let memory = memory();
        let tcp = TcpTransport::connect(addr, 1, LIMIT, 64, memory, Some(&security))
            .await
            .unwrap();
        for (body, bulk) in [
            (0, 0),
            (64, 0),
            (1, 16_384),
            (16_383, 16_385),
            (1 << 20, 4 << 20),
        ] {
            let data = pattern(bulk, 3);
            let mut buffer = DmaBuf::alloc(bulk.max(1)).unwrap();
            buffer.as_mut_slice()[..bulk].copy_from_slice(&data);
            let sent = (bulk > 0).then_some((buffer, bulk));
            let reply = tcp.call(1, ECHO, pattern(body, 1), sent).await.unwrap();
            assert!(reply.body == pattern(body, 1) && reply.bulk_bytes() == data);
        }
    });
    let mut client = client(&there, pki.issue("alice", false)).unwrap();
    let data = pattern(4 << 20, 9);
    for _ in 0..3 {
        let ids: Vec<u64> = (0..4)
            .map(|_| client.send(ECHO, b"x", Some(&data)).unwrap())
            .collect();
        for _ in ids {
            assert!(client.recv().unwrap().1.bulk.as_deref() == Some(&data[..]));
        }
    }
    let crc = crc32c::crc32c(&data).to_le_bytes();
    let taken = client.call_offering(TAKE, b"", &data).unwrap();
    assert_eq!((taken.status, &taken.body[..]), (0, &crc[..]));
    for i in 0..1000u32 {
        client.send(ECHO, &i.to_le_bytes(), None).unwrap();
    }
    let mut sum = 0;
    while client.outstanding() > 0 {
        let (_, reply) = client.recv().unwrap();
        sum += u32::from_le_bytes(reply.body.try_into().unwrap());
    }
    assert_eq!(sum, 999 * 1000 / 2);
}

#[test]
fn without_tls_nobody_gets_in_and_everybody_hears_why() {
    let pki = Pki::new();
    let (strict, plain) = (engine(pki.security("a")), Engine::start(1));
    let refused = Client::connect(strict.addr(), 1).map(drop).unwrap_err();
    let text = refused.to_string();
    assert!(
        matches!(
            refused,
            ClientError::Refused {
                der: Der::NO_PERM,
                ..
            }
        ),
        "{text}"
    );
    assert!(
        text.contains("it requires TLS") && text.contains("keel cert issue"),
        "{text}"
    );

    let refused = connect(&plain, &strict, None).unwrap_err();
    assert!(matches!(
        refused,
        ConnectError::Refused {
            der: Der::NO_PERM,
            ..
        }
    ));
    assert!(
        refused
            .to_string()
            .contains("give this engine a [tls] section"),
        "{refused}"
    );

    let refused = client(&plain, pki.issue("alice", false));
    let text = refused.as_ref().map(drop).unwrap_err().to_string();
    assert!(text.contains(&plain.addr().to_string()), "{text}");
    assert_eq!(refusal(refused), TlsError::Plaintext);
    let refused = connect(&strict, &plain, Some(pki.security("a")));
    assert_eq!(refusal(refused), TlsError::Plaintext);
    // Both serve on.
    client(&strict, pki.issue("alice", false)).unwrap();
    plain.client(1).call(ECHO, b"x", None).unwrap();
}

#[test]
fn within_the_machine_and_while_not_required_both_are_taken() {
    let pki = Pki::new();
    let change = |required, within_machine| Security {
        required,
        within_machine,
        ..pki.security("a")
    };
    let (exempt, lenient, plain) = (
        engine(change(true, false)),
        engine(change(false, true)),
        Engine::start(1),
    );
    for it in [&exempt, &lenient] {
        it.client(1).call(ECHO, b"x", None).unwrap();
        let mut safe = client(it, pki.issue("alice", false)).unwrap();
        safe.call(ECHO, b"x", None).unwrap();
    }
    // An engine that has no certificate yet is called without TLS; one that requires it never does that.
    connect(&lenient, &plain, Some(change(false, true))).unwrap();
    assert!(connect(&lenient, &plain, Some(change(true, true))).is_err());
    connect(&exempt, &plain, Some(change(true, false))).unwrap();
}

/// Why an engine and a client, or two engines, do not come together.
#[track_caller]
fn refusal(error: impl Into<NotMade>) -> TlsError {
    match error.into() {
        NotMade::Client(ClientError::Tls { error, .. })
        | NotMade::Engine(ConnectError::Tls { error, .. }) => error,
        other => panic!("not for TLS: {other:?}"),
    }
}

#[derive(Debug)]
enum NotMade {
    Client(ClientError),
    Engine(ConnectError),
}

impl From<Result<Client, ClientError>> for NotMade {
    fn from(result: Result<Client, ClientError>) -> NotMade {
        NotMade::Client(result.map(drop).unwrap_err())
    }
}

impl From<Result<(), ConnectError>> for NotMade {
    fn from(result: Result<(), ConnectError>) -> NotMade {
        NotMade::Engine(result.unwrap_err())
    }
}

#[test]
fn certificates_of_another_authority_are_refused_on_both_sides() {
    let (ours, theirs) = (Pki::new(), Pki::new());
    let served = engine(ours.security("a"));
    let why = refusal(client(&served, theirs.issue("eve", false)));
    assert_eq!(why, TlsError::UnknownAuthority);
    // She knows our authority, and ours does not know her.
    let mut files = theirs.files("eve", false, "127.0.0.1", Validity::days(1));
    files.ca = ours.directory.path().join("ca.pem");
    let why = refusal(client(&served, Identity::load(files).unwrap()));
    assert!(matches!(why, TlsError::Refused(_)), "{why}");
    assert!(
        why.to_string().contains("not issued by its authority"),
        "{why}"
    );
    client(&served, ours.issue("alice", false)).unwrap();
}

#[test]
fn expired_certificates_are_refused_on_both_sides() {
    let ours = Pki::new();
    let served = engine(ours.security("a"));
    let now = SystemTime::now();
    let over = Validity {
        from: now - 2 * DAY,
        to: now - DAY,
    };
    let old = Identity::load(ours.files("old", true, "127.0.0.1", over)).unwrap();
    let why = refusal(client(&served, old.clone()));
    assert!(why.to_string().contains("has expired"), "{why}");
    let expired = engine(strict(old));
    let why = refusal(connect(&served, &expired, Some(ours.security("a"))));
    assert!(matches!(why, TlsError::Expired(Some(_))), "{why}");
    client(&served, ours.issue("alice", false)).unwrap();
}

#[test]
fn a_certificate_for_another_address_is_refused_by_engines_and_clients() {
    let ours = Pki::new();
    let served = engine(ours.security("a"));
    let away = Identity::load(ours.files("b", true, "10.9.8.7", Validity::days(1))).unwrap();
    let elsewhere = engine(strict(away));
    for why in [
        refusal(connect(&served, &elsewhere, Some(ours.security("a")))),
        refusal(client(&elsewhere, ours.issue("alice", false))),
    ] {
        assert!(matches!(why, TlsError::Name { .. }), "{why}");
        assert!(why.to_string().contains("10.9.8.7"), "{why}");
    }
    client(&served, ours.issue("alice", false)).unwrap();
}

#[test]
fn a_client_may_not_speak_as_an_engine() {
    let pki = Pki::new();
    let start = |identity: Identity, membership: Membership| {
        Engine::start_with(1, |options| {
            options.tls = Some(strict(identity));
            options.group = membership;
        })
    };
    let nobody = "127.0.0.1:9".parse().unwrap();
    let callee = Membership::new(0, 1);
    let served = start(pki.issue("a", true), callee.clone());
    let addr = served.addr();
    let group = move |membership: Membership| {
        let members = [(0, addr), (1, nobody)];
        let members = members.map(|(rank, address)| Member {
            rank,
            address,
            incarnation: 0,
        });
        membership.set(Group::new(1, members));
        membership
    };
    group(callee);
    let ask = |from: &Engine| {
        from.run(0, || async {
            let call = RankCall::new(ECHO, b"x".to_vec(), LIMIT);
            Ranks::current().unwrap().call(0, call).await
        })
    };
    let posing = start(pki.issue("eve", false), group(Membership::new(1, 1)));
    assert_eq!(ask(&posing).unwrap().status, Der::NO_PERM.neg());
    drop(posing);
    let real = start(pki.issue("b", true), group(Membership::new(1, 2)));
    assert_eq!(ask(&real).unwrap().body, b"x");
}

#[test]
fn handshakes_are_bounded_in_time_and_number() {
    let pki = Pki::new();
    let served = Engine::start_with(1, |options| {
        options.tls = Some(pki.security("a"));
        options.max_handshakes = 4;
        options.handshake_timeout = Duration::from_millis(300);
    });
    // Each begins a handshake and says no more.
    let mut silent: Vec<_> = (0..12).map(|_| raw(&served)).collect();
    for socket in &mut silent {
        socket.write_all(&[22, 3, 1, 2, 0, 1, 0]).unwrap();
    }
    for mut socket in silent {
        let mut rest = Vec::new();
        // It ends, with an alert or without; a reset is an end too.
        let _ = socket.read_to_end(&mut rest);
    }
    // Garbage after the first byte, and something that is neither.
    for noise in [&[22u8; 4000][..], b"GET / HTTP/1.1\r\n\r\n"] {
        let mut socket = raw(&served);
        socket.write_all(noise).unwrap();
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest);
    }
    client(&served, pki.issue("alice", false)).unwrap();
}

#[test]
fn an_engine_without_tls_tells_a_tls_peer_so_in_its_own_words() {
    let plain = Engine::start(1);
    let mut socket = raw(&plain);
    socket.write_all(&[22, 3, 1, 0, 5, 1, 0, 0, 1, 0]).unwrap();
    let (header, ..) = read_frame(&mut socket).unwrap();
    assert_eq!(
        (header.opcode(), header.status),
        (Opcode::HELLO, Der::PROTO.neg())
    );

    let pki = Pki::new();
    let strict = engine(pki.security("a"));
    let mut socket = raw(&strict);
    let body = HelloRequest {
        protocol: PROTOCOL,
        tag: 1,
    }
    .encode();
    socket
        .write_all(&frame(Opcode::HELLO, 1, 77, &body, b""))
        .unwrap();
    let (header, ..) = read_frame(&mut socket).unwrap();
    assert_eq!((header.request_id, header.status), (77, Der::NO_PERM.neg()));
    // Where it is not required, the same bytes are served.
    drop(hello(&plain, 1));
}

#[test]
fn an_engine_that_closes_in_the_middle_of_the_handshake_is_unreachable() {
    let pki = Pki::new();
    let here = engine(pki.security("a"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let rude = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut some = [0; 16];
        let _ = socket.read(&mut some);
    });
    let security = pki.security("a");
    let error = here.run(0, move || async move {
        let made = TcpTransport::connect(addr, 1, LIMIT, 8, memory(), Some(&security)).await;
        made.map(drop).unwrap_err()
    });
    rude.join().unwrap();
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
}

#[test]
fn a_renewed_certificate_is_shown_to_the_next_peer() {
    let pki = Pki::new();
    let soon = Validity {
        to: SystemTime::now() + DAY / 2,
        ..Validity::days(1)
    };
    let identity = Identity::load(pki.files("a", true, "127.0.0.2", soon)).unwrap();
    let served = engine(strict(identity.clone()));
    assert!(
        client(&served, pki.issue("alice", false)).is_err(),
        "it is for another address"
    );
    pki.files("a", true, "127.0.0.1", Validity::days(1));
    assert_eq!(identity.refresh(), Ok(true));
    client(&served, pki.issue("alice", false)).unwrap();
}
