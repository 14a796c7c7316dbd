//! An engine in a process of its own: this test binary once more, told by its environment what to be.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

use engine_rpc::{Group, HandlerEntry, Member, Membership, Opcode, Registry, Request, register};
use rustix::process::{Pid, Signal, kill_process};

use super::Engine;

const MODULE: u8 = 9;
const VARIABLE: &str = "KEEL_TEST_CHILD";
/// How the test is called that becomes the engine.
const ENTRY: &str = "the_other_process";

/// What version of the protocol answers, one byte.
pub const fn spoken(version: u8) -> Opcode {
    Opcode::new(MODULE, version, 0)
}

/// Notes the body, a number, and answers it a moment later.
pub const fn note(version: u8) -> Opcode {
    Opcode::new(MODULE, version, 1)
}

/// How many different numbers were noted, and how often the one that was noted most: two numbers of 64 bits.
pub const fn noted(version: u8) -> Opcode {
    Opcode::new(MODULE, version, 2)
}

/// What a child is.
#[derive(Clone, Debug)]
pub struct Role {
    pub rank: u32,
    pub life: u64,
    pub listen: SocketAddr,
    /// Versions of the protocol that it serves.
    pub versions: &'static [u8],
    /// The group that it knows from its start, in version 1; empty: it is told later.
    pub group: Vec<SocketAddr>,
}

impl Role {
    pub fn new(rank: u32, versions: &'static [u8]) -> Role {
        Role {
            rank,
            life: 1,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            versions,
            group: Vec::new(),
        }
    }

    fn encode(&self) -> String {
        let versions: Vec<String> = self.versions.iter().map(u8::to_string).collect();
        let versions = versions.join(",");
        let group = listed(&self.group);
        format!(
            "{} {} {} {versions} {group}",
            self.rank, self.life, self.listen
        )
    }
}

/// A running child. Dropped, it is killed.
pub struct Process {
    child: Child,
    orders: ChildStdin,
    pub addr: SocketAddr,
}

impl Process {
    pub fn start(role: &Role) -> Process {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", ENTRY, "--nocapture"])
            .env(VARIABLE, role.encode())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let addr = said
            .find_map(|line| Some(line.unwrap().split_once("listens at ")?.1.to_owned()))
            .expect("the child says where it listens");
        // Whatever else it says goes on, or it would wait for a reader.
        std::thread::spawn(move || said.for_each(drop));
        Process {
            orders: child.stdin.take().unwrap(),
            child,
            addr: addr.parse().unwrap(),
        }
    }

    /// Tells it the group.
    pub fn tell(&mut self, version: u32, addresses: &[SocketAddr]) {
        writeln!(self.orders, "{version} {}", listed(addresses)).unwrap();
    }

    /// What stops it has stopped it when this returns.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap();
        while signal == Signal::STOP && !self.is_stopped() {
            std::thread::yield_now();
        }
    }

    /// The state behind the name in brackets (proc_pid_stat(5)).
    fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('T'))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn listed(addresses: &[SocketAddr]) -> String {
    let words: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
    words.join(",")
}

fn addresses(list: &str) -> Vec<SocketAddr> {
    let words = list.split(',').filter(|word| !word.is_empty());
    words.map(|word| word.parse().unwrap()).collect()
}

/// A group of these addresses, by rank.
pub fn group(version: u32, addresses: &[SocketAddr]) -> Group {
    let members = (0..).zip(addresses).map(|(rank, address)| Member {
        rank,
        address: *address,
        incarnation: 0,
    });
    Group::new(version, members)
}

#[derive(Default)]
struct Notes(Mutex<HashMap<u64, u64>>);

impl Notes {
    fn add(&self, body: &[u8]) {
        let number = u64::from_le_bytes(body.try_into().unwrap());
        *self.0.lock().unwrap().entry(number).or_default() += 1;
    }

    fn count(&self) -> Vec<u8> {
        let notes = self.0.lock().unwrap();
        let most = notes.values().copied().max().unwrap_or(0);
        [notes.len() as u64, most]
            .iter()
            .flat_map(|n| n.to_le_bytes())
            .collect()
    }
}

fn protocol(version: u8, notes: &Arc<Notes>) -> Vec<HandlerEntry> {
    let spoken = move |request: Request| request.reply(0, &[version], None);
    let (adds, counts) = (Arc::clone(notes), Arc::clone(notes));
    let note = move |request: Request| {
        adds.add(request.body());
        // The answer comes later than the note: a wire that is cut in between leaves it carried out and unanswered.
        request.serve_in_ult("note", |request| async move {
            spdk_thread::sleep(200_000).await;
            let body = request.body().to_vec();
            request.reply(0, &body, None);
        });
    };
    let noted = move |request: Request| request.reply(0, &counts.count(), None);
    vec![
        HandlerEntry::new(0, "spoken", Arc::new(spoken)),
        HandlerEntry::new(1, "note", Arc::new(note)),
        HandlerEntry::new(2, "noted", Arc::new(noted)),
    ]
}

/// The body of the test [`ENTRY`]: in a child, the engine, until its parent is gone; else nothing.
pub fn become_an_engine() {
    let Ok(role) = std::env::var(VARIABLE) else {
        return;
    };
    let words: Vec<&str> = role.split(' ').collect();
    let [rank, life, listen, versions, known] = words[..] else {
        panic!("a role: {role}");
    };
    let membership = Membership::new(rank.parse().unwrap(), life.parse().unwrap());
    let known = addresses(known);
    if !known.is_empty() {
        membership.set(group(1, &known));
    }
    let own = membership.clone();
    let change = |options: &mut engine_rpc::Options| options.group = own;
    let handlers = |registry: &Registry| {
        register(registry, &membership, drop).unwrap();
        let notes = Arc::default();
        for version in versions.split(',') {
            let version = version.parse().unwrap();
            let entries = protocol(version, &notes);
            registry
                .register_protocol(MODULE, version, entries)
                .unwrap();
        }
    };
    let engine = Engine::start_serving(2, listen.parse().unwrap(), handlers, change);
    // After a line break: the test's runner has begun a line of its own.
    let mut out = std::io::stdout();
    writeln!(out, "\nlistens at {}", engine.addr()).unwrap();
    out.flush().unwrap();
    for order in std::io::stdin().lines() {
        let order = order.unwrap();
        let (version, list) = order.split_once(' ').unwrap();
        membership.set(group(version.parse().unwrap(), &addresses(list)));
    }
}
