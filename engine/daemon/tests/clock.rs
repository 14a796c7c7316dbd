//! The time of day jumps, forwards and back, and nothing that is timed notices.
//!
//! The engine runs with a library before libc whose `clock_gettime` adds to the time of day what a file says: the machine's own
//! clock stays as it is.

#![allow(missing_docs, reason = "a test")]

mod harness;

use std::fs::File;
use std::io::Cursor;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use drpc_wire::{Message, keel, methods, modules};
use harness::{Cluster, Config, Engine, EtcdServer, Kind, bytes, eventually, skipped};
use obj_client::{Container, Pool, PutOptions};
use obj_proto::{Op, PIECE_SIZE, csums, main_tag, wire};

const SHIM: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile const int64_t *ahead; /* seconds */

__attribute__((constructor)) static void map(void)
{
	int fd = open(getenv("KEEL_TEST_CLOCK"), O_RDONLY);
	ahead = mmap(0, sizeof *ahead, PROT_READ, MAP_SHARED, fd, 0);
	if (ahead == MAP_FAILED)
		abort();
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
	int rc = syscall(SYS_clock_gettime, clock, now);
	if (rc == 0 && ahead && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
		now->tv_sec += *ahead;
	return rc;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
	struct timespec exact;
	(void)zone;
	clock_gettime(CLOCK_REALTIME, &exact);
	now->tv_sec = exact.tv_sec;
	now->tv_usec = exact.tv_nsec / 1000;
	return 0;
}

time_t time(time_t *out)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	if (out)
		*out = now.tv_sec;
	return now.tv_sec;
}
"#;

const YEAR: i64 = 365 * 86_400;
const NS: u64 = 1_000_000_000;

fn build(dir: &Path) -> String {
    let (source, library) = (dir.join("clock.c"), dir.join("clock.so"));
    std::fs::write(&source, SHIM).unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(&source);
    assert!(cc.status().unwrap().success());
    library.display().to_string()
}

/// An upload whose lease was given before the clock jumped.
struct Upload {
    rpc: rpc_wire::Client,
    cont: Vec<u8>,
    version: u64,
    pieces: u32,
}

impl Upload {
    fn begin(engine: &Engine, cont: &Container) -> Upload {
        let rpc = rpc_wire::Client::connect(engine.rpc_address().as_str(), main_tag(0)).unwrap();
        let cont = cont.info().uuid.as_bytes().to_vec();
        let mut upload = Upload {
            rpc,
            cont,
            version: 0,
            pieces: 0,
        };
        let begin = wire::PutBeginReq {
            cont: upload.cont.clone(),
            name: "long".to_owned(),
        };
        let reply = upload.call(Op::PutBegin, &begin, None);
        upload.version = wire::PutBeginRep::decode(reply.as_slice()).unwrap().version;
        upload
    }

    fn call(&mut self, op: Op, body: &impl Message, bulk: Option<&[u8]>) -> Vec<u8> {
        let reply = self
            .rpc
            .call(op.opcode(), &body.encode_to_vec(), bulk)
            .unwrap();
        let said = wire::Error::decode(reply.body.as_slice()).unwrap_or_default();
        assert_eq!(reply.status, 0, "{op:?}: {}", said.message);
        reply.body
    }

    /// The next piece: refused if the lease had ended.
    fn piece(&mut self) {
        let data = bytes(self.pieces.into(), PIECE_SIZE);
        let piece = wire::PutPieceReq {
            cont: self.cont.clone(),
            name: "long".to_owned(),
            version: self.version,
            piece: self.pieces,
            csums: csums(&data),
        };
        self.call(Op::PutPiece, &piece, Some(&data));
        self.pieces += 1;
    }

    fn commit(mut self) {
        let commit = wire::PutCommitReq {
            cont: self.cont.clone(),
            name: "long".to_owned(),
            version: self.version,
            size: u64::from(self.pieces) * PIECE_SIZE as u64,
        };
        self.call(Op::PutCommit, &commit, None);
    }
}

fn put(cont: &Container, name: &str) -> u64 {
    let mut data = Cursor::new(bytes(7, 100_000));
    cont.put(name, &mut data, PutOptions::default())
        .unwrap()
        .modified
}

/// Reclaiming looks at every lease before it frees what was removed: afterwards it has seen what the clock says now.
fn leases_are_looked_at(pool: &Pool, cont: &Container) {
    let used = || pool.status().unwrap().pool.used;
    let before = used();
    put(cont, "victim");
    assert!(used() > before);
    cont.remove("victim").unwrap();
    eventually("it is freed", || (used() == before).then_some(()));
}

/// A time of day for the engines of these configurations.
struct Clock(File);

impl Clock {
    fn of<'a>(configs: impl IntoIterator<Item = &'a mut Config>) -> Clock {
        let mut configs = configs.into_iter().peekable();
        let dir = configs.peek().expect("an engine").path().to_owned();
        let (shim, clock) = (build(&dir), dir.join("ahead"));
        std::fs::write(&clock, 0i64.to_ne_bytes()).unwrap();
        for config in configs {
            config.env = vec![
                ("LD_PRELOAD", shim.clone()),
                ("KEEL_TEST_CLOCK", clock.display().to_string()),
            ];
        }
        Clock(File::options().write(true).open(&clock).unwrap())
    }

    fn set(&self, years: i64) {
        self.0
            .write_all_at(&(years * YEAR).to_ne_bytes(), 0)
            .unwrap();
    }
}

#[test]
fn a_lease_in_etcd_outlives_jumps_of_the_time_of_day() {
    let etcd = match EtcdServer::start() {
        Ok(etcd) => etcd,
        Err(why) => return skipped(&why),
    };
    let mut cluster = Cluster::prepare(2, &["mgmt", "obj"]);
    for config in &mut cluster.configs {
        config.more = Cluster::in_etcd(&etcd);
    }
    let clock = Clock::of(&mut cluster.configs);
    cluster.engines[0] = Some(cluster.configs[0].start());
    let before = eventually("it leads", || {
        let status = cluster.status(0);
        (status.leader == Some(0)).then_some(status.term)
    });
    for years in [10, -10, 0] {
        clock.set(years);
        // A whole life of another engine: leases are renewed meanwhile.
        cluster.engines[1] = Some(cluster.configs[1].start());
        eventually("both are there", || {
            let status = cluster.status(1);
            (status.members.len() == 2 && status.leader == Some(0)).then_some(())
        });
        let engine = cluster.engines[1].take().unwrap();
        engine.terminate().expect(0, "stopped");
        let status = cluster.status(0);
        assert_eq!((status.leader, status.term), (Some(0), before));
        assert_eq!(status.incarnation, 1);
    }
    let log = cluster.engine(0).log();
    assert!(!log.contains("group_source_lost"), "{log}");
    assert_eq!(log.matches("leads the group").count(), 1, "{log}");
    cluster.stop();
}

#[test]
fn what_is_timed_does_not_notice_that_the_time_of_day_jumps() {
    let mut config = Config::new(1, Kind::Malloc);
    let clock = Clock::of([&mut config]);
    let engine = config.start();
    let pool = engine.connect().create_pool("tank", 32 << 20).unwrap();
    let cont = pool.create_container("cont").unwrap();
    let began = put(&cont, "before");
    let mut upload = Upload::begin(&engine, &cont);
    for years in [10, -10, 0] {
        clock.set(years);
        let modified = put(&cont, "stamp") as i64 - began as i64;
        let shown = modified / (YEAR * NS as i64 - NS as i64 * 86_400);
        assert_eq!(shown, years, "the engine's time of day has jumped");
        leases_are_looked_at(&pool, &cont);
        upload.piece();
        let status: keel::EngineStatus = engine.ask(modules::KEEL, methods::ENGINE_STATUS, &());
        assert!(status.uptime_ms < 3_600_000, "{} ms", status.uptime_ms);
        let tasks: keel::Tasks = engine.ask(modules::KEEL, methods::TASKS, &());
        let ages = tasks.tasks.iter().map(|task| task.age_ms);
        assert!(ages.max().is_some_and(|age| age < 3_600_000), "{tasks:?}");
    }
    upload.commit();
    assert_eq!(cont.stat("long").unwrap().size, 3 * PIECE_SIZE as u64);
    let exited = engine.terminate();
    assert_eq!(exited.code, Some(0));
    assert!(!exited.log.contains("no progress for"), "{}", exited.log);
}
