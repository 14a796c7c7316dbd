//! Two engines on two machines form a group.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use obj_load::Load;
use serde_json::Value;
use test_vm::Vm;

use super::ends;
use crate::engine::{Device, Engine, PATIENCE};
use crate::rig::Rig;

/// By rank.
const ADDRESSES: [&str; 2] = ["10.20.0.1", "10.20.0.2"];
const KEEL: &str = "keel --socket /run/keel/engine.sock";
const POOL: u64 = 256 << 20;

fn start(vm: &Vm, rank: usize) -> Result<Engine> {
    let ssd = Device::user(vm, "n0")?;
    Engine::start_member(vm, rank, &ADDRESSES, &[ssd])
}

fn ask(vm: &Vm, question: &str) -> Result<Value> {
    let text = vm.ok(&format!("{KEEL} -o json {question}"))?;
    serde_json::from_str(&text).with_context(|| text)
}

/// Asks until the answer is as wanted, and gives what was taken from it.
fn until<T>(vm: &Vm, question: &str, want: impl Fn(&Value) -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = ask(vm, question)?;
        if let Some(found) = want(&answer) {
            return Ok(found);
        }
        if Instant::now() > deadline {
            bail!("`{question}` goes on answering {answer:#}");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Waits until this machine's engine sees the members in these states, by rank.
fn see(vm: &Vm, states: [&str; 2]) -> Result<Value> {
    until(vm, "group status", |status| {
        let members = status["members"].as_array()?;
        let seen = members.iter().map(|member| member["state"].as_str());
        seen.eq(states.map(Some)).then(|| status.clone())
    })
    .with_context(|| format!("{states:?}"))
}

/// Term and sequence number of a variable.
type Version = (u64, u64);

/// Waits until this machine's engine has another version than this of what a rank says of itself.
fn said_by(vm: &Vm, rank: u64, besides: Option<Version>) -> Result<Version> {
    until(vm, "iv show keel", |list| {
        let entries = list["spaces"][0]["entries"].as_array()?;
        let versions = entries.iter().filter_map(|entry| {
            let key = u64::from_str_radix(entry["key"].as_str()?, 16).ok()?;
            let version = (entry["term"].as_u64()?, entry["sequence"].as_u64()?);
            (key == rank && entry["class"] == "member").then_some(version)
        });
        versions.filter(|version| Some(*version) != besides).max()
    })
    .with_context(|| format!("what rank {rank} says of itself"))
}

/// Waits until this machine's engine has this version of what a rank says of itself.
fn hears(vm: &Vm, rank: u64, version: Version) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while said_by(vm, rank, None)? != version {
        ensure!(
            Instant::now() < deadline,
            "rank {rank}'s {version:?} does not come"
        );
    }
    Ok(())
}

/// Both have the variables of both, by way of the lowest rank.
fn share(first: &Vm, second: &Vm) -> Result<()> {
    let list = ask(second, "iv list")?;
    let spaces = list["spaces"].as_array().map_or(&[][..], Vec::as_slice);
    let shared = spaces.iter().find(|space| space["name"] == "keel");
    let shared = shared.with_context(|| list.to_string())?;
    assert_eq!(
        (&shared["leader"], &shared["path"]),
        (&0.into(), &[1, 0][..].into())
    );
    for rank in 0..2 {
        hears(second, rank, said_by(first, rank, None)?)?;
    }
    Ok(())
}

/// A rank that comes back says so in a new version of its variable, which the other one's watch shows.
fn comes_back(first: &Vm, second: &Vm) -> Result<Engine> {
    let watch = first.start("watch", &format!("exec {KEEL} iv watch --interval-ms 200"))?;
    let before = said_by(first, 1, None)?;
    let follower = start(second, 1)?;
    see(first, ["self", "alive"])?;
    let (term, sequence) = said_by(first, 1, Some(before))?;
    hears(second, 1, (term, sequence))?;
    watch.wait_for(
        &format!("keel  member  00000001  {term}  {sequence}  "),
        PATIENCE,
    )?;
    watch.signal(2)?;
    Ok(follower)
}

/// Two engines on SSDs of their own, in two machines with a network between them: each sees the other, what one says the other one
/// hears, and when one machine loses its power the other one serves on; back on its disk, it is a member again with all its data.
pub(crate) fn two_engines(rig: &mut Rig) -> Result<()> {
    let (first, second) = (rig.boot_peer(1, None)?, rig.boot_peer(2, None)?);
    let (leader, follower) = (start(&first, 0)?, start(&second, 1)?);
    see(&first, ["self", "alive"])?;
    let status = see(&second, ["alive", "self"])?;
    // Calls across: each heartbeat is one.
    ensure!(
        status["members"][0]["took_us"].as_u64() > Some(0),
        "{status}"
    );
    share(&first, &second)?;

    // Both serve, each its own pool.
    let load = || Load::new(1, ends::options());
    let (mut on_first, mut on_second) = (load(), load());
    on_first.prepare(&first.rpc_address(), POOL)?;
    on_second.prepare(&second.rpc_address(), POOL)?;
    on_second.until_end(&second.rpc_address(), |_| follower.stop())?;
    see(&first, ["self", "silent"])?;

    let follower = comes_back(&first, &second)?;
    // The second machine loses its power under load.
    let address = second.rpc_address();
    let mut left = (Some(second), None);
    on_second.until_end(&address, |_| -> Result<()> {
        left.1 = left.0.take().map(Vm::cut_power).transpose()?;
        Ok(())
    })?;
    drop(follower);
    let status = see(&first, ["self", "silent"])?;
    ensure!(
        status["members"][1]["failure"]
            .as_str()
            .is_some_and(|why| !why.is_empty()),
        "{status}"
    );
    on_first.until_end(&first.rpc_address(), |progress| {
        progress.wait(20).context("beside a dead peer")?;
        leader.stop()
    })?;

    let second = rig.boot_peer(2, left.1)?;
    let (leader, follower) = (start(&first, 0)?, start(&second, 1)?);
    see(&first, ["self", "alive"])?;
    see(&second, ["alive", "self"])?;
    on_second.verify(&second.rpc_address())?;
    on_first.verify(&first.rpc_address())?;
    println!("{:?}, {:?}", on_first.tally, on_second.tally);
    for (vm, engine) in [(first, leader), (second, follower)] {
        engine.stop()?;
        vm.power_off()?;
    }
    Ok(())
}
