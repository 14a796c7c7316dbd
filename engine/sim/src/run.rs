//! A scenario from start to end, and what must hold when all is well again.

use std::collections::BTreeMap;

use daos_errno::Der;
use engine_iv::{Key, Nanos, Rank, Shortcut, Sync, Value};

use crate::check::Violation;
use crate::cluster::{Cluster, Counts, NS, Network, Pending};
use crate::scenario::{MS, Scenario, Step, Work};
use crate::xstreams::Local;

/// What a run was like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Operations that succeeded.
    pub succeeded: u64,
    /// Operations that failed.
    pub failed: u64,
    /// Messages.
    pub counts: Counts,
    /// Virtual time that went by.
    pub virtual_ns: Nanos,
}

/// Runs a scenario under all checkers.
///
/// # Errors
/// The first rule that was broken.
pub fn run(scenario: &Scenario, trace: bool) -> Result<Report, Violation> {
    let mut cluster = Cluster::new(
        scenario.seed,
        scenario.ranks,
        (scenario.tree, scenario.local),
        scenario.network,
        scenario.lease,
    );
    cluster.trace = trace;
    cluster.keys = [1, 2]
        .into_iter()
        .flat_map(|class| (0..3).map(move |number| key(class, number)))
        .collect();
    scenario
        .slow
        .iter()
        .for_each(|rank| cluster.slow_down(*rank));
    let result = play(&mut cluster, scenario);
    result.map_err(|what| Violation {
        seed: scenario.seed,
        at: cluster.now,
        what,
    })
}

fn key(class: u32, number: u8) -> Key {
    Key::new(class, &[number]).unwrap_or_else(|_| unreachable!("one byte fits"))
}

fn play(cluster: &mut Cluster, scenario: &Scenario) -> Result<Report, String> {
    let mut written = 0_u64;
    for (when, step) in &scenario.steps {
        cluster.run_until(*when)?;
        match step {
            Step::Do {
                rank,
                key: (class, number),
                work,
                budget,
            } => {
                written += 1;
                let reader = some_xstream(cluster, *rank);
                work_on(
                    cluster,
                    (*rank, reader),
                    key(*class, *number),
                    *work,
                    *budget,
                    written,
                )?;
            }
            Step::Crash(rank) => cluster.crash(*rank),
            Step::Restart(rank) => cluster.restart(*rank),
            Step::Split { away, one_way } => {
                cluster.away = away.iter().copied().collect();
                cluster.one_way = *one_way;
                cluster.settle_later();
            }
            Step::Heal => heal(cluster),
            Step::Elect => {
                let members = cluster.membership.group.members();
                let leader = members[(*when % members.len() as u64) as usize];
                cluster.elect(leader);
            }
            Step::Lie(rank) => cluster.lie(*rank),
            Step::Weather(network) => cluster.network = *network,
        }
    }
    finish(cluster, scenario)
}

fn some_xstream(cluster: &mut Cluster, rank: Rank) -> Option<usize> {
    let count = cluster.nodes[rank as usize].xstreams.count() as u64;
    let chosen = cluster.rng.below(count + 1).checked_sub(1)?;
    usize::try_from(chosen).ok()
}

fn heal(cluster: &mut Cluster) {
    cluster.away.clear();
    cluster.one_way = false;
    cluster.settle_later();
}

/// Work of an xstream, or `None`: of the one that has the machine.
fn work_on(
    cluster: &mut Cluster,
    (rank, reader): (Rank, Option<usize>),
    key: Key,
    work: Work,
    budget: Nanos,
    nth: u64,
) -> Result<(), String> {
    let eager = |sync| sync == Sync::Eager;
    let floor = cluster
        .is_current(rank)
        .then(|| cluster.checker.everywhere(&key));
    if let (Some(reader), Work::Fetch(_)) = (reader, work)
        && cluster.found_below(rank, reader, &key, floor)?
    {
        return Ok(());
    }
    let pending = Pending {
        key,
        reader,
        deadline: cluster.now + budget,
        eager: match work {
            Work::Fetch(_) => false,
            Work::Update(how, _) | Work::Invalidate(how) => eager(how.sync),
        },
        fetch: matches!(work, Work::Fetch(_)),
        at_least: floor.filter(|_| matches!(work, Work::Fetch(_))),
    };
    cluster.begin(rank, pending, |iv, now| match work {
        Work::Fetch(shortcut) => iv.fetch(now, NS, key, shortcut, budget),
        Work::Update(how, len) => {
            // No value is written twice.
            let mut bytes = vec![0; len.max(8)];
            bytes[..8].copy_from_slice(&nth.to_le_bytes());
            iv.update(now, NS, key, bytes.into(), how, budget)
        }
        Work::Invalidate(how) => iv.invalidate(now, NS, key, how, budget),
    });
    cluster.drain(rank)
}

/// Everything heals, time passes, and then all agree.
fn finish(cluster: &mut Cluster, scenario: &Scenario) -> Result<Report, String> {
    cluster.network = Network::default();
    heal(cluster);
    for rank in 0..scenario.ranks {
        cluster.restart(rank);
    }
    // The longest operation, the longest lazy change, the settling of the group twice, and a lease.
    cluster.run_until(cluster.now + 25_000 * MS + scenario.lease)?;
    let open: usize = cluster.nodes.iter().map(|node| node.pending.len()).sum();
    if open > 0 {
        return Err(format!("{open} operations never ended"));
    }
    let mut report = Report::default();
    for (rank, done, _) in &cluster.ended {
        match &done.result {
            Ok(_) => report.succeeded += 1,
            // Nothing is there before the first update.
            Err(failure) if scenario.is_calm() && failure.der != Der::NONEXIST => {
                return Err(format!(
                    "nothing went wrong, and operation {} of rank {rank} failed: {failure}",
                    done.op
                ));
            }
            Err(_) => report.failed += 1,
        }
    }
    agree(cluster, scenario)?;
    report.counts = cluster.counts();
    report.virtual_ns = cluster.now;
    Ok(report)
}

/// Every cache equals the root's value, and so does what every rank fetches.
fn agree(cluster: &mut Cluster, scenario: &Scenario) -> Result<(), String> {
    let root = cluster.membership.leader;
    for key in cluster.keys.clone() {
        let truth = ask(cluster, &[root], key)?
            .remove(&root)
            .unwrap_or(Err(Der::TIMEDOUT));
        if key.class() == 1 && truth.as_ref().ok() != cluster.truth(&key).as_ref() {
            let stored = cluster.truth(&key).ok_or(Der::NONEXIST);
            return Err(format!(
                "all is well again, and the root serves {:?} where its store holds {:?}",
                short(&truth),
                short(&stored)
            ));
        }
        for rank in 0..scenario.ranks {
            let iv = cluster.nodes[rank as usize].iv.as_ref();
            let cached = iv
                .and_then(|iv| iv.cached(cluster.now, NS, &key))
                .filter(|cached| cached.valid);
            let differs = cached.is_some_and(|cached| cached.value != truth.as_ref().ok());
            let below = (0..cluster.nodes[rank as usize].xstreams.count()).any(|reader| {
                let xstreams = &cluster.nodes[rank as usize].xstreams;
                let served = xstreams.cached(reader, cluster.now, &key);
                served.is_some_and(|(_, value)| Some(&value) != truth.as_ref().ok())
            });
            if below {
                return Err(format!(
                    "all is well again, and an xstream of rank {rank} serves another value of {:?} than the root",
                    key.bytes()
                ));
            }
            if differs {
                return Err(format!(
                    "all is well again, and rank {rank} serves another value of {:?} than the root",
                    key.bytes()
                ));
            }
        }
        let ranks: Vec<Rank> = (0..scenario.ranks).collect();
        for (rank, found) in ask(cluster, &ranks, key)? {
            if found != truth {
                return Err(format!(
                    "all is well again, and rank {rank} finds {:?} where the root has {:?}",
                    short(&found),
                    short(&truth)
                ));
            }
        }
    }
    Ok(())
}

fn short(found: &Result<Value, Der>) -> Result<Vec<u8>, Der> {
    found
        .clone()
        .map(|value| value.iter().copied().take(8).collect())
}

/// What ranks find when they fetch.
fn ask(
    cluster: &mut Cluster,
    ranks: &[Rank],
    key: Key,
) -> Result<BTreeMap<Rank, Result<Value, Der>>, String> {
    let before = cluster.ended.len();
    for &rank in ranks {
        work_on(
            cluster,
            (rank, None),
            key,
            Work::Fetch(Shortcut::None),
            2_000 * MS,
            0,
        )?;
    }
    cluster.run_until(cluster.now + 2_000 * MS)?;
    let ended = cluster.ended[before..].iter();
    let found = ended.map(|(rank, done, _)| {
        let value = match &done.result {
            Ok(stamp) => stamp.value.clone().ok_or(Der::NONEXIST),
            Err(failure) => Err(failure.der),
        };
        (*rank, value)
    });
    Ok(found.collect())
}

/// One eager update after another over a calm cluster of any size.
///
/// # Errors
/// An update that failed, or did not reach everyone with one message each.
pub fn scale(ranks: u32, updates: u64) -> Result<Report, String> {
    let mut cluster = Cluster::new(
        0,
        ranks,
        (engine_iv::Tree::default(), Local::default()),
        Network::default(),
        60_000 * MS,
    );
    let key = key(1, 0);
    let mut report = Report::default();
    for nth in 0..updates {
        let before = cluster.counts();
        let how = engine_iv::How::from(Sync::Eager);
        work_on(
            &mut cluster,
            (0, None),
            key,
            Work::Update(how, 64),
            10_000 * MS,
            nth,
        )?;
        while cluster.ended.is_empty() {
            cluster.run_until(cluster.now + MS / 10)?;
        }
        for (_, done, _) in cluster.ended.drain(..) {
            done.result.map_err(|failure| failure.to_string())?;
            report.succeeded += 1;
        }
        let sent = cluster.counts().sync - before.sync;
        if sent != u64::from(ranks) - 1 {
            return Err(format!(
                "{sent} messages went down, {} were needed",
                ranks - 1
            ));
        }
    }
    report.counts = cluster.counts();
    report.virtual_ns = cluster.now;
    Ok(report)
}
