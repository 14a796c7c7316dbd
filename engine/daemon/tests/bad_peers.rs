//! Peers that send nonsense, and a disk that is full: the others are served as if nothing was.

#![allow(missing_docs, reason = "a test")]

mod harness;

use std::io::{Cursor, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use drpc_wire::packet_socket::{address, socket};
use drpc_wire::{Call, Chunker, Framing, Message, Status, modules};
use harness::{Config, Kind, bytes, eventually};
use obj_client::{Container, GetOptions, PutOptions};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rustix::net::{SendFlags, SocketFlags};

const SEED: u64 = 0x6b65_656c;
const PEERS: usize = 60;

fn put(cont: &Container, name: &str, data: &[u8]) -> Result<(), obj_client::ObjError> {
    cont.put(name, &mut Cursor::new(data), PutOptions::default())
        .map(drop)
}

fn get(cont: &Container, name: &str) -> Vec<u8> {
    let mut data = Vec::new();
    cont.get(name, &mut data, GetOptions::default()).unwrap();
    data
}

fn packets_of(call: &Call) -> Vec<Vec<u8>> {
    let mut chunker = Chunker::new(call.encode_to_vec(), Framing::Chunked).unwrap();
    let mut packets = Vec::new();
    while let Some(packet) = chunker.packet() {
        packets.push([packet.header(), packet.data].concat());
        chunker.advance();
    }
    packets
}

/// What one bad peer sends: pure noise, or a call that was well before one of six things happened to it.
fn bad_packets(rng: &mut SmallRng) -> Vec<Vec<u8>> {
    let noise = |rng: &mut SmallRng| {
        let len = rng.random_range(1..2000);
        bytes(rng.random(), len)
    };
    let call = Call {
        module: modules::TEST,
        method: 1,
        sequence: 1,
        body: bytes(rng.random(), rng.random_range(0..300_000)),
    };
    let mut packets = packets_of(&call);
    let last = packets.len() - 1;
    match rng.random_range(0..7) {
        0 => packets = (0..rng.random_range(1..20)).map(|_| noise(rng)).collect(),
        1 => packets.truncate(last),
        2 => packets.swap(0, last),
        3 => packets.insert(0, packets[0].clone()),
        4 => {
            let len = rng.random_range(1..packets[0].len());
            packets[0].truncate(len);
        }
        5 => {
            // In the header or in the message: sizes, counts, tags.
            for _ in 0..4 {
                let at = rng.random_range(0..packets[0].len().min(40));
                packets[0][at] ^= rng.random_range(1..=255u8);
            }
        }
        _ => packets[0].extend(bytes(rng.random(), 4000)),
    }
    packets
}

fn connected(path: &Path) -> OwnedFd {
    let fd = socket(SocketFlags::empty()).unwrap();
    rustix::net::connect(&fd, &address(path).unwrap()).unwrap();
    fd
}

#[test]
fn nonsense_on_the_drpc_socket_does_not_disturb_a_good_client() {
    let config = Config::new(1, Kind::Malloc);
    let engine = config.start();
    let mut good = engine.drpc();
    let mut rng = SmallRng::seed_from_u64(SEED);
    for nr in 0..PEERS {
        let bad = connected(&config.socket);
        for packet in bad_packets(&mut rng) {
            // The engine may have hung up, or not have taken the packet before: both are its right.
            if rustix::net::send(&bad, &packet, SendFlags::NOSIGNAL | SendFlags::DONTWAIT).is_err()
            {
                break;
            }
        }
        let body = bytes(nr as u64, rng.random_range(0..200_000));
        let answer = good.call(modules::TEST, 1, &body).unwrap();
        assert_eq!(answer.status(), Status::Success);
        assert!(answer.body == body, "seed {SEED:#x}, peer {nr}");
    }
    assert_eq!(engine.status().state, "ready");
    assert_eq!(engine.terminate().code, Some(0));
}

/// Sends it, hears what the engine has to say, and goes.
fn bad_tcp_peer(address: &str, data: &[u8], rng: &mut SmallRng) {
    let mut bad = TcpStream::connect(address).unwrap();
    bad.set_read_timeout(Some(Duration::from_millis(10)))
        .unwrap();
    bad.set_write_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let mut rest = data;
    while !rest.is_empty() {
        let (part, after) = rest.split_at(rng.random_range(1..=rest.len()));
        if bad.write_all(part).is_err() {
            return;
        }
        rest = after;
    }
    let _ = bad.read(&mut [0; 4096]);
}

/// What a good client says, recorded: the greeting and a request.
fn recorded() -> Vec<u8> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let client = std::thread::spawn(move || obj_client::Engine::connect(&address).is_err());
    let (mut peer, _) = listener.accept().unwrap();
    let mut heard = vec![0; 4096];
    let len = peer.read(&mut heard).unwrap();
    drop(peer);
    assert!(client.join().unwrap(), "nobody answered it");
    heard.truncate(len);
    assert!(!heard.is_empty());
    heard
}

#[test]
fn nonsense_on_the_rpc_port_does_not_disturb_a_good_client() {
    let engine = Config::new(2, Kind::Malloc).start();
    let pool = engine.connect().create_pool("tank", 64 << 20).unwrap();
    let good = pool.create_container("cont").unwrap();
    let (address, greeting) = (engine.rpc_address(), recorded());
    let mut rng = SmallRng::seed_from_u64(SEED);
    for nr in 0..PEERS {
        let mut data = greeting.clone();
        match rng.random_range(0..5) {
            0 => data = bytes(rng.random(), rng.random_range(1..100_000)),
            1 => data.truncate(rng.random_range(1..greeting.len())),
            2 => {
                let at = rng.random_range(0..data.len());
                data[at] ^= rng.random_range(1..=255u8);
            }
            3 => data.extend(greeting.repeat(3)),
            _ => data.extend(bytes(rng.random(), rng.random_range(1..100_000))),
        }
        bad_tcp_peer(&address, &data, &mut rng);
        let body = bytes(nr as u64, rng.random_range(0..200_000));
        put(&good, "object", &body).unwrap();
        assert!(get(&good, "object") == body, "seed {SEED:#x}, peer {nr}");
    }
    assert_eq!(engine.status().state, "ready");
    assert_eq!(engine.terminate().code, Some(0));
}

/// A small file system of the test's own. Dropped, it goes.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`, and why, where the test may not mount.
    fn mount(at: PathBuf, size: &str) -> Result<SmallDisk, String> {
        std::fs::create_dir(&at).unwrap();
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "keel-test"])
            .arg(&at)
            .output()
            .map_err(|error| error.to_string())?;
        if output.status.success() {
            Ok(SmallDisk(at))
        } else {
            Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_fails_puts_with_a_reason_and_reads_go_on() {
    let mut config = Config::new(1, Kind::File);
    let disk = match SmallDisk::mount(config.path().join("disk"), "24m") {
        Ok(disk) => disk,
        Err(why) => {
            #[expect(clippy::print_stderr, reason = "what was not tested")]
            {
                eprintln!("skipped: no file system of its own ({why}); run it as root");
            }
            return;
        }
    };
    config.device_dir = Some(disk.0.clone());
    let engine = config.start();
    let pool = engine.connect().create_pool("tank", 48 << 20).unwrap();
    let cont = pool.create_container("cont").unwrap();
    let mut stored = Vec::new();
    let error = eventually("the disk is full", || {
        let name = format!("object {}", stored.len());
        match put(&cont, &name, &bytes(stored.len() as u64, 700_000)) {
            Ok(()) => {
                stored.push(name);
                None
            }
            Err(error) => Some(error.to_string()),
        }
    });
    assert!(stored.len() > 5, "{error}");
    assert!(
        error.contains("device") && error.contains("DER_"),
        "{error}"
    );
    for (seed, name) in (0..).zip(&stored) {
        assert!(get(&cont, name) == bytes(seed, 700_000), "{name}");
    }
    assert_eq!(engine.status().state, "ready");
    assert_eq!(engine.terminate().code, Some(0));
}
