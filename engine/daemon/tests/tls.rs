//! Engines with certificates: they meet, strangers do not, and a renewal needs no restart.

#![allow(missing_docs, reason = "a test")]

mod harness;

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use drpc_wire::{keel, methods, modules};
use engine_cert::{Authority, Pair, Request, Validity, write_pair};
use harness::{Config, Engine, Kind, eventually};
use rpc_tls::{Files, Identity};
use tempfile::TempDir;

const DAY: Duration = Duration::from_secs(86_400);

struct Pki {
    authority: Authority,
    dir: TempDir,
}

impl Pki {
    fn new(name: &str) -> Pki {
        let dir = TempDir::with_prefix("keel-pki-").unwrap();
        let authority = Authority::create(name, Validity::days(100)).unwrap();
        authority.save(dir.path()).unwrap();
        Pki { authority, dir }
    }

    fn issue(&self, name: &str, address: SocketAddr, engine: bool, days: u32) -> Files {
        let validity = Validity {
            to: SystemTime::now() + days * DAY + DAY / 2,
            ..Validity::days(1)
        };
        self.issue_for(name, address, engine, validity)
    }

    fn issue_for(
        &self,
        name: &str,
        address: SocketAddr,
        engine: bool,
        validity: Validity,
    ) -> Files {
        let asked = Request {
            name: name.to_owned(),
            addresses: vec![address.ip().to_string()],
            engine,
            validity,
        };
        let pair = Pair::of(self.dir.path(), name);
        write_pair(&pair, &self.authority.issue(&asked).unwrap(), true).unwrap();
        Files {
            ca: self.dir.path().join("ca.pem"),
            certificate: pair.certificate,
            key: pair.key,
        }
    }
}

fn section(files: &Files) -> String {
    format!(
        "[tls]\nca = {:?}\ncertificate = {:?}\nkey = {:?}\nwithin_machine = true\n",
        files.ca, files.certificate, files.key
    )
}

/// Addresses of the loopback network that no other test uses.
fn addresses<const N: usize>(net: u8) -> [SocketAddr; N] {
    let pid = std::process::id();
    std::array::from_fn(|rank| {
        let host = [127, (pid >> 8) as u8 | 0x80, pid as u8, net + rank as u8];
        SocketAddr::from((host, 10_010))
    })
}

fn group(addresses: &[SocketAddr]) -> String {
    let mut text = "[group]\nversion = 1\nheartbeat_ms = 50\nsilent_ms = 500\n".to_owned();
    for (rank, address) in addresses.iter().enumerate() {
        text += &format!("\n[[group.member]]\nrank = {rank}\naddress = \"{address}\"\n");
    }
    text
}

fn states(engine: &Engine) -> Vec<String> {
    let status: keel::GroupStatus = engine.ask(modules::KEEL, methods::GROUP_STATUS, &());
    status
        .members
        .into_iter()
        .map(|member| member.state)
        .collect()
}

fn tls(engine: &Engine) -> String {
    let status: keel::EngineStatus = engine.ask(modules::KEEL, methods::ENGINE_STATUS, &());
    status.tls
}

#[test]
fn engines_of_one_authority_form_a_group_and_a_stranger_stays_outside() {
    let (ours, theirs) = (Pki::new("ours"), Pki::new("theirs"));
    let addresses = addresses::<3>(200);
    let mut engines: Vec<Engine> = Vec::new();
    let mut first: Option<Config> = None;
    for (rank, (&address, pki)) in addresses.iter().zip([&ours, &ours, &theirs]).enumerate() {
        let mut config = match &first {
            None => Config::new(1, Kind::Malloc),
            Some(first) => Config::beside(first, &format!("rank{rank}")),
        };
        config.listen = address;
        config.engine_keys = format!("rank = {rank}");
        let files = pki.issue(&format!("engine-{rank}"), address, true, 90);
        config.more = format!("{}\n{}", section(&files), group(&addresses));
        engines.push(config.start());
        first.get_or_insert(config);
    }
    for (rank, seen) in [
        (0, ["self", "alive", "unknown"]),
        (1, ["alive", "self", "unknown"]),
    ] {
        eventually("the two see each other", || {
            (states(&engines[rank]) == seen).then_some(())
        });
    }
    assert_eq!(states(&engines[2]), ["unknown", "unknown", "self"]);
    engines[0].wait_log("is not issued by our authority");
    let shown = tls(&engines[0]);
    assert!(
        shown.starts_with("required, engine \"engine-0\" (127."),
        "{shown}"
    );

    // Asked along the tree, the stranger is named and hides nobody.
    let asked = keel::GroupCheckReq { limit_ms: 20_000 };
    let check: keel::GroupCheck = engines[0].ask(modules::KEEL, methods::GROUP_CHECK, &asked);
    let said = check
        .members
        .iter()
        .map(|member| (member.answer.is_some(), member.failure.as_str()));
    let said: Vec<_> = said.collect();
    assert_eq!(said[..2], [(true, ""), (true, "")]);
    assert!(!said[2].0 && said[2].1.contains("NO_PERM"), "{said:?}");

    // A client with a certificate is served, one without hears why it is not.
    let files = ours.issue("alice", addresses[0], false, 1);
    let alice = Identity::load(files).unwrap();
    let address = addresses[0].to_string();
    let store = obj_client::Engine::connect_as(&address, Some(alice)).unwrap();
    assert_eq!(store.targets().unwrap(), 1);
    let refused = obj_client::Engine::connect(&address)
        .unwrap_err()
        .to_string();
    assert!(refused.contains("it requires TLS"), "{refused}");
    // And one whose certificate has run out, or is another authority's.
    let over = Validity {
        from: SystemTime::now() - 2 * DAY,
        to: SystemTime::now() - DAY,
    };
    let bob = ours.issue_for("bob", addresses[0], false, over);
    let mut eve = theirs.issue("eve", addresses[0], false, 1);
    eve.ca = ours.dir.path().join("ca.pem");
    for (files, says) in [(bob, "has expired"), (eve, "not issued by its authority")] {
        let identity = Identity::load(files).unwrap();
        let refused = obj_client::Engine::connect_as(&address, Some(identity));
        let refused = refused.map(drop).unwrap_err().to_string();
        assert!(refused.contains(says), "{refused}");
    }
}

#[test]
fn a_certificate_that_runs_out_is_reported_and_its_renewal_found() {
    let pki = Pki::new("ours");
    let [address] = addresses::<1>(210);
    let mut config = Config::new(1, Kind::Malloc);
    config.listen = address;
    config.more = section(&pki.issue("e0", address, true, 3));
    let engine = config.start();
    eventually("the warning", || {
        engine
            .log()
            .contains("expires in 3 days; renew it with")
            .then_some(())
    });
    pki.issue("e0", address, true, 60);
    eventually("the new certificate", || {
        engine.log().contains("from now on").then_some(())
    });
    let expires = engine_cert_expiry(&pki);
    assert!(
        tls(&engine).ends_with(&expires),
        "{} {expires}",
        tls(&engine)
    );
    engine.terminate().expect(0, "stopped");
}

fn engine_cert_expiry(pki: &Pki) -> String {
    let text = std::fs::read(pki.dir.path().join("e0.pem")).unwrap();
    let der = rpc_tls::pem::first_certificate(&text).unwrap();
    rpc_tls::Certificate::from_der(&der).unwrap().expires()
}

#[test]
fn an_engine_without_its_certificate_does_not_start() {
    let pki = Pki::new("ours");
    let [address] = addresses::<1>(220);
    let engine = pki.issue("e0", address, true, 3);
    let client = pki.issue("alice", address, false, 3);
    let lost = Files {
        key: pki.dir.path().join("lost.pem"),
        ..engine.clone()
    };
    let mixed = Files {
        key: client.key.clone(),
        ..engine
    };
    for (files, says) in [
        (lost, "lost.pem: No such file"),
        (mixed, "is not the key of"),
        (client, "may not serve"),
    ] {
        let mut config = Config::new(1, Kind::Malloc);
        config.listen = address;
        config.more = section(&files);
        config.fails().expect(78, says);
    }
}
