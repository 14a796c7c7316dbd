//! The command line, as clap reads it. One enum per noun; `commands/` holds one file per noun.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

mod cert;
mod node;

pub(crate) use cert::{Cert, TlsFiles};
pub(crate) use node::{Node, Prepare, Which};

/// Looks after a Keel storage engine: its state, devices, pools, containers and objects.
#[derive(Parser)]
#[command(name = "keel", version, about, max_term_width = 120, arg_required_else_help = true, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    /// The engine's dRPC socket. Left out, the one engine that runs on this machine is found by itself.
    #[arg(long, global = true, value_name = "PATH", env = "KEEL_SOCKET")]
    pub(crate) socket: Option<PathBuf>,
    /// How to print the result.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
    /// How long to wait for an answer, in seconds.
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) timeout: u64,
    #[command(flatten)]
    pub(crate) tls: TlsFiles,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  keel engine status
  keel pool create tank --size 1GiB && keel cont create tank photos
  keel obj put tank photos holiday.tar ./holiday.tar
  keel obj get tank photos holiday.tar -
  keel metrics | grep rpc

Exit codes: 0 done; 1 failed; 2 wrong usage; 65 data damaged; 66 no such thing; 69 engine not reachable; 70 internal error;
73 already there; 74 I/O error; 75 busy, try again; 77 not permitted; 78 configuration wrong.";

/// How results are printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people: tables and sentences.
    Text,
    /// For programs: one JSON value.
    Json,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// The engine itself.
    #[command(subcommand)]
    Engine(Engine),
    /// Loaded modules: id, version, state, needs.
    Modules,
    /// Block devices and the targets on them.
    Devices(Devices),
    /// Every task (ULT) on every xstream: name, owner, age, state.
    Tasks {
        /// List the pollers, too.
        #[arg(long)]
        pollers: bool,
    },
    /// Requests and I/Os of devices that took longer than `telemetry.slow_us`, and which belong together.
    #[command(
        after_help = "Examples:\n  keel slow\n  keel slow --trace 000000100000002a   one request and what was done for it"
    )]
    Slow {
        /// Only what belongs to this request: the number at the end of a line of the log, of `keel slow` or `keel tasks`.
        #[arg(long, value_name = "HEX", value_parser = trace)]
        trace: Option<u64>,
    },
    /// All metrics, as Prometheus text.
    Metrics,
    /// The engine's log.
    #[command(subcommand)]
    Log(Log),
    /// The engines that form one system.
    #[command(subcommand)]
    Group(Group),
    /// Incast variables: what the engines of a group share.
    #[command(subcommand)]
    Iv(Iv),
    /// Storage pools.
    #[command(subcommand)]
    Pool(Pool),
    /// Containers of a pool.
    #[command(subcommand)]
    Cont(Cont),
    /// Objects of a container.
    #[command(subcommand)]
    Obj(Obj),
    /// Raw dRPC.
    #[command(subcommand)]
    Drpc(Drpc),
    /// This host: SSDs that engines drive themselves, huge pages, what is missing. Works without an engine.
    #[command(subcommand)]
    Node(Node),
    /// Configuration files. Works without an engine.
    #[command(subcommand)]
    Config(Config),
    /// A private certificate authority for engines and clients. Works without an engine.
    #[command(subcommand)]
    Cert(Cert),
    /// Measures parts of the engine in this process. Works without an engine.
    #[command(subcommand)]
    Bench(Bench),
}

fn trace(text: &str) -> Result<u64, String> {
    u64::from_str_radix(text, 16).map_err(|_| "expected up to 16 hexadecimal digits".to_owned())
}

#[derive(Subcommand)]
pub(crate) enum Engine {
    /// State, rank, targets and xstreams.
    Status,
    /// Succeeds when the engine serves; with --wait, as soon as it does.
    Ready {
        /// Wait up to --timeout for it.
        #[arg(long)]
        wait: bool,
    },
    /// Stops the engine in good order and waits until it is gone.
    Shutdown,
    /// Draws SSDs, cores and NUMA nodes with the xstreams on them, and says what is not as fast as it could be.
    #[command(
        after_help = "Examples:\n  keel engine topology                                  the running engine\n  keel engine topology --config /etc/keel/engine.toml   what this file would start here\n  keel engine topology --config dev.toml --set engine.cpus=2-5\n  keel engine topology -o json | jq '.warnings[].kind'"
    )]
    Topology {
        /// A configuration file; left out: the running engine.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Override a key of the file, as keel-engine does; may be given several times.
        #[arg(long = "set", value_name = "KEY=VALUE", requires = "config")]
        sets: Vec<String>,
    },
}

#[derive(Subcommand)]
pub(crate) enum Group {
    /// Members, leader, and who is there, as the asked engine sees it.
    Status,
    /// Tells the engine the members of its group, as a control plane does; it tells the others.
    ///
    /// For groups with `group.source = "control"`. All members are named, in a version greater than the last one (`keel group status`).
    Set {
        /// Version of the list of members
        #[arg(long)]
        version: u32,
        /// A member: its rank, and where its data channel listens
        #[arg(required = true, value_name = "RANK=ADDRESS:PORT", value_parser = member)]
        members: Vec<(u32, std::net::SocketAddr)>,
    },
    /// Asks every member itself, each through others along a tree, and waits for all answers. Fails if one is missing.
    Check,
}

fn member(text: &str) -> Result<(u32, std::net::SocketAddr), String> {
    let (rank, address) = text
        .split_once('=')
        .ok_or("expected RANK=ADDRESS:PORT, for instance 2=10.0.0.3:10010")?;
    let rank = rank.parse().map_err(|_| format!("`{rank}` is no rank"))?;
    let address = address
        .parse()
        .map_err(|_| format!("`{address}` is no address with a port"))?;
    Ok((rank, address))
}

#[derive(Subcommand)]
pub(crate) enum Iv {
    /// Namespaces at the asked engine: root, term, the way there, variables.
    List,
    /// Variables at the asked engine: version, whether they may be served and for how long.
    #[command(
        after_help = "Examples:\n  keel iv show keel                     what all engines of the system share\n  keel iv show -o json | jq '.spaces[].entries[] | select(.valid | not)'"
    )]
    Show {
        /// A namespace, as `keel iv list` names it; left out: all.
        name: Option<String>,
        /// Variables of each namespace at most.
        #[arg(long, default_value_t = 1000)]
        most: u32,
    },
    /// One variable as each engine sees it that shares it: version, age, the way to the root, retries, the last error.
    #[command(
        after_help = "Examples:\n  keel iv trace keel member 00000001      what rank 1 says of itself, on all ranks\n  keel iv trace keel 64 00000001 -o json"
    )]
    Trace {
        /// A namespace, as `keel iv list` names it.
        name: String,
        /// A class, by its name or number.
        class: String,
        /// The key in hexadecimal digits, as `keel iv show` prints it.
        key: String,
        /// Engines that are asked at most; those on the way to the root first.
        #[arg(long, default_value_t = 64)]
        most: u32,
    },
    /// Prints what changes at the asked engine, a line for each variable, until it is interrupted.
    Watch {
        /// Between two looks, in milliseconds.
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(10..=60_000))]
        interval_ms: u64,
        /// Ends after so many lines.
        #[arg(long, value_name = "LINES")]
        count: Option<u64>,
    },
}

#[derive(Args)]
pub(crate) struct Devices {
    #[command(subcommand)]
    pub(crate) command: Option<DevicesCommand>,
}

#[derive(Subcommand)]
pub(crate) enum DevicesCommand {
    /// Error and operation counters of each device.
    Health,
    /// Evicts a device: its targets get no storage until it is replaced. Stays so over restarts.
    SetFaulty {
        /// UUID of the device, as `keel devices` shows it.
        uuid: uuid::Uuid,
        /// The storage directory of an engine that does not run: changes its table of devices there.
        #[arg(long, value_name = "DIR")]
        storage_dir: Option<std::path::PathBuf>,
    },
    /// Puts the targets of an evicted device on another one; with one UUID, the device back into use.
    Replace {
        /// UUID of the evicted device.
        old: uuid::Uuid,
        /// UUID of the device that takes its place, if it is another one.
        new: Option<uuid::Uuid>,
    },
}

#[derive(Subcommand)]
pub(crate) enum Log {
    /// Changes what is logged, until the next change or restart.
    #[command(
        after_help = "Examples:\n  keel log set-mask DEBUG\n  keel log set-mask WARN,engine_rpc=TRACE\n  keel log set-mask ''      back to the configured mask"
    )]
    SetMask {
        /// A level (ERR, WARN, INFO, DEBUG, TRACE), then exceptions as PART=LEVEL, comma separated; empty: as configured.
        mask: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum Pool {
    /// Makes a pool over all targets.
    Create {
        /// Its name, unique in the engine.
        label: String,
        /// Its size over all targets, e.g. 10GiB.
        #[arg(long, value_name = "SIZE", value_parser = parse_size)]
        size: u64,
    },
    /// All pools.
    List,
    /// Space of one pool, target by target.
    Query {
        /// Name or uuid.
        pool: String,
    },
    /// Takes all connections of a pool away: requests with handles of theirs are refused from now on.
    Evict {
        /// Name or uuid.
        pool: String,
    },
    /// Gives a pool another name.
    Rename {
        /// Name or uuid.
        pool: String,
        /// Its new name, unique in the engine.
        label: String,
    },
    /// Removes a pool.
    Destroy {
        /// Name or uuid.
        pool: String,
        /// Also with containers and objects in it, and with somebody connected to it.
        #[arg(long)]
        force: bool,
    },
}

#[derive(Subcommand)]
pub(crate) enum Cont {
    /// Makes a container.
    Create {
        /// Name or uuid of the pool.
        pool: String,
        /// Its name, unique in the pool.
        label: String,
    },
    /// All containers of a pool.
    List {
        /// Name or uuid of the pool.
        pool: String,
    },
    /// Gives a container another name.
    Rename {
        /// Name or uuid of the pool.
        pool: String,
        /// Name or uuid of the container.
        cont: String,
        /// Its new name, unique in the pool.
        label: String,
    },
    /// Removes a container with all its objects.
    Destroy {
        /// Name or uuid of the pool.
        pool: String,
        /// Name or uuid of the container.
        cont: String,
    },
}

/// Where an object is.
#[derive(Args)]
pub(crate) struct ObjectPath {
    /// Name or uuid of the pool.
    pub(crate) pool: String,
    /// Name or uuid of the container.
    pub(crate) cont: String,
    /// Name of the object: any UTF-8 text up to 4 KiB.
    pub(crate) name: String,
}

#[derive(Subcommand)]
pub(crate) enum Obj {
    /// Stores a file as an object; an object of that name is replaced as a whole.
    Put {
        #[command(flatten)]
        at: ObjectPath,
        /// The file to read; `-` is the standard input.
        file: PathBuf,
    },
    /// Reads an object into a file.
    Get {
        #[command(flatten)]
        at: ObjectPath,
        /// The file to write; `-` is the standard output. Written beside it first and renamed when whole.
        file: PathBuf,
    },
    /// Names, sizes and dates of a container's objects.
    Ls {
        /// Name or uuid of the pool.
        pool: String,
        /// Name or uuid of the container.
        cont: String,
        /// Only names that begin so.
        #[arg(long, default_value = "")]
        prefix: String,
    },
    /// Removes an object.
    Rm {
        #[command(flatten)]
        at: ObjectPath,
    },
    /// Size, version and date of an object.
    Stat {
        #[command(flatten)]
        at: ObjectPath,
    },
}

#[derive(Subcommand)]
pub(crate) enum Drpc {
    /// Sends one call and prints the response.
    #[command(
        after_help = "Examples:\n  keel drpc call --module 0 --method 1 --body 68656c6c6f\n  keel drpc call --module 2 --method 225\n  keel drpc call --module 0 --method 1 --body @request.bin"
    )]
    Call {
        /// dRPC module id.
        #[arg(long, allow_negative_numbers = true)]
        module: i32,
        /// Method number in that module.
        #[arg(long, allow_negative_numbers = true)]
        method: i32,
        /// The request's bytes: hexadecimal digits, or @FILE. Left out: empty.
        #[arg(long, value_name = "HEX|@FILE", default_value = "")]
        body: String,
        /// Write the response's body to this file as it is, instead of printing it in hexadecimal.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

/// Which configuration.
#[derive(Args)]
pub(crate) struct ConfigFile {
    /// The file.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Override a key, as keel-engine does; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) sets: Vec<String>,
}

#[derive(Subcommand)]
pub(crate) enum Config {
    /// Reads a file as the engine would and reports everything wrong with it.
    Check {
        #[command(flatten)]
        file: ConfigFile,
    },
    /// JSON schema of the configuration file, for editors.
    Schema,
    /// What a key means: unit, range, default.
    Explain {
        /// e.g. engine.targets; left out: all keys.
        key: Option<String>,
    },
    /// The whole configuration with defaults filled in: of a file, or of the running engine.
    Show {
        /// With defaults filled in.
        #[arg(long, required = true)]
        effective: bool,
        /// A file; left out: the running engine's.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
pub(crate) enum Bench {
    /// Block devices, through the channel that modules use: random offsets, one completion per I/O.
    Bdev(BenchBdev),
    /// Messages from one core to another: throughput and ping-pong.
    Message(BenchMessage),
    /// Rest: how late messages find a reactor that sleeps, and its processor time without work.
    Idle(BenchIdle),
    /// ULTs, async and with stacks of their own: create + run + join, and yield.
    Ult(BenchPeer),
    /// Updates on a loaded target: their latency alone, beside a scrub and a gc that the scheduler throttles, and beside the
    /// same without it.
    Sched(BenchSched),
    /// Access to per-xstream storage.
    Tls(BenchSeconds),
    /// Incast variables: a cached read on a target, an eager update over the caches of an engine, updates among four ranks over TCP.
    Iv(BenchSeconds),
    /// The data RPC over TCP: a 64-byte call, and 1 MiB pieces of bulk data both ways.
    Rpc(BenchRpc),
    /// A 64-byte dRPC echo beside a bare SOCK_SEQPACKET ping-pong.
    Drpc(BenchSeconds),
    /// `keel engine status` on a running engine, while puts and gets keep its targets busy.
    Control(BenchControl),
    /// The NVMe driver over an emulated controller: its own time per I/O, without the device's.
    Nvme(BenchNvme),
}

#[derive(Args)]
pub(crate) struct BenchSeconds {
    /// How long each measurement runs.
    #[arg(long, default_value_t = 3.0, value_parser = parse_seconds)]
    pub(crate) seconds: f64,
}

#[derive(Args)]
pub(crate) struct BenchPeer {
    /// How long each measurement runs.
    #[arg(long, default_value_t = 3.0, value_parser = parse_seconds)]
    pub(crate) seconds: f64,

    /// A shell command that measures the same with another library (Argobots, SPDK) and prints lines `name number` with the names
    /// that are shown here, e.g. `yield_ns 50.1`. It runs in turns with ours; medians and ratios are shown.
    #[arg(long, value_name = "COMMAND")]
    pub(crate) peer: Option<String>,

    /// How often ours and the peer run.
    #[arg(long, default_value_t = 5, requires = "peer", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
}

#[derive(Args)]
pub(crate) struct BenchRpc {
    #[command(flatten)]
    pub(crate) peer: BenchPeer,

    /// Over TLS: a directory with ca.pem, bench.pem and bench-key.pem, as `keel cert init --ca-dir DIR && keel cert issue bench
    /// --ca-dir DIR` make them.
    #[arg(long, value_name = "DIR")]
    pub(crate) certificates: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct BenchMessage {
    #[command(flatten)]
    pub(crate) measured: BenchPeer,

    /// Between threads of C SPDK's.
    #[cfg(feature = "libspdk")]
    #[arg(long)]
    pub(crate) libspdk: bool,
}

#[derive(Args)]
pub(crate) struct BenchIdle {
    /// The latency goal in microseconds, as `engine.idle_latency_us`; 0 polls always.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pub(crate) idle_latency_us: u64,

    /// How long each measurement runs.
    #[arg(long, default_value_t = 3.0, value_parser = parse_seconds)]
    pub(crate) seconds: f64,
}

#[derive(Args)]
pub(crate) struct BenchNvme {
    /// Bytes of one I/O, a multiple of 512, up to 128 KiB.
    #[arg(long, default_value = "4KiB", value_parser = parse_size)]
    pub(crate) io_size: u64,
    /// I/Os in flight.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) queue_depth: u32,
    /// How long it runs.
    #[arg(long, default_value_t = 3.0, value_parser = parse_seconds)]
    pub(crate) seconds: f64,
}

#[derive(Args)]
pub(crate) struct BenchSched {
    /// Share of the target's time that updates take, percent.
    #[arg(long, default_value_t = 70, value_parser = clap::value_parser!(u32).range(1..=95))]
    pub(crate) load_percent: u32,

    /// How long each measurement runs.
    #[arg(long, default_value_t = 3.0, value_parser = parse_seconds)]
    pub(crate) seconds: f64,
}

#[derive(Args)]
pub(crate) struct BenchControl {
    /// Connections that put and get, each one after the other.
    #[arg(long, default_value_t = 8, value_parser = parse_connections)]
    pub(crate) connections: usize,

    /// Bytes of each object.
    #[arg(long, default_value = "4KiB", value_parser = parse_size)]
    pub(crate) object_size: u64,

    /// How long it runs; the first quarter without load.
    #[arg(long, default_value_t = 10.0, value_parser = parse_seconds)]
    pub(crate) seconds: f64,
}

#[derive(Args)]
pub(crate) struct BenchBdev {
    /// null, malloc, file:PATH (an existing file), or nvme:ADDRESS (a controller bound to vfio-pci); writes overwrite it. In a `keel` with C SPDK
    /// also its null and malloc: spdk:null through the block layer, spdk_sys:null through the wrapper alone.
    #[arg(long)]
    pub(crate) device: String,
    /// Bytes of one I/O, a multiple of the device's block size.
    #[arg(long, default_value = "4KiB", value_parser = parse_size)]
    pub(crate) io_size: u64,
    /// I/Os in flight per core.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) queue_depth: u32,
    /// read, write, randread, randwrite, randrw (70 % reads).
    #[arg(long, default_value = "randread")]
    pub(crate) workload: String,
    /// How long it runs.
    #[arg(long, default_value_t = 5.0, value_parser = parse_seconds)]
    pub(crate) seconds: f64,
    /// Cores to run on, e.g. 0 or 0,1.
    #[arg(long, default_value = "0", value_delimiter = ',')]
    pub(crate) cores: Vec<usize>,
    /// The latency goal in microseconds, as `engine.idle_latency_us`; 0 polls always.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pub(crate) idle_latency_us: u64,
}

fn parse_size(text: &str) -> Result<u64, String> {
    text.parse::<engine_config::ByteSize>()
        .map(|size| size.0)
        .map_err(|error| error.to_string())
}

fn parse_connections(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(connections @ 1..=256) => Ok(connections),
        _ => Err("expected a number of connections from 1 to 256".to_owned()),
    }
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.01..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected a number of seconds from 0.01 to 86400".to_owned()),
    }
}
