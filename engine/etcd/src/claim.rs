//! An engine's rank: it belongs to the engine for ever, in etcd by its uuid, and in its own directory.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use std::{fs, io};

use engine_membership::SourceError;
use tokio::runtime::Runtime;

use crate::board::{Board, RANKS};
use crate::client::{Client, ClientError};
use crate::fence::replace;
use crate::keys::Keys;
use crate::options::Options;
use crate::txn;

/// For an engine without a rank to get one from etcd.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(500);

/// The rank of the engine with this uuid. Blocks, the first time for as long as etcd needs to answer, a minute at most; later the rank stands in its file.
pub(crate) fn rank(
    options: &Options,
    runtime: &Runtime,
    uuid: &str,
    asked: Option<u32>,
) -> Result<u32, SourceError> {
    let path = options.rank();
    let own = read(&path).map_err(|error| {
        let path = path.display();
        SourceError(format!(
            "{path}: {error}. cure: restore it, or remove it: etcd knows the rank too"
        ))
    })?;
    let Some(rank) = own else {
        let rank = wait(options, runtime, uuid, asked)?;
        let written = replace(&path, &rank.to_string());
        written.map_err(|error| SourceError(format!("{}: {error}", path.display())))?;
        return Ok(rank);
    };
    agrees(rank, asked)
}

fn agrees(rank: u32, asked: Option<u32>) -> Result<u32, SourceError> {
    match asked.filter(|asked| *asked != rank) {
        None => Ok(rank),
        Some(asked) => Err(SourceError(format!(
            "this engine is rank {rank} in etcd, and `engine.rank` is {asked}. cure: set it to {rank}, or leave it out"
        ))),
    }
}

fn read(path: &Path) -> io::Result<Option<u32>> {
    match fs::read_to_string(path) {
        Ok(text) => text.trim().parse().map(Some).map_err(io::Error::other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn wait(
    options: &Options,
    runtime: &Runtime,
    uuid: &str,
    asked: Option<u32>,
) -> Result<u32, SourceError> {
    let begun = Instant::now();
    let mut said = String::new();
    loop {
        let error = match runtime.block_on(claim(options, uuid, asked)) {
            Ok(claimed) => return claimed,
            Err(error) => error.to_string(),
        };
        if begun.elapsed() >= PATIENCE {
            return Err(SourceError(format!(
                "etcd gives this engine no rank: {error}. cure: start etcd, or correct `group.etcd`"
            )));
        }
        if error != said {
            tracing::warn!(
                error,
                "this engine waits for its rank from etcd, for {PATIENCE:?} at most"
            );
            said = error;
        }
        thread::sleep(PAUSE);
    }
}

/// The rank that it has, the one that is asked for, or the lowest that is free.
async fn claim(
    options: &Options,
    uuid: &str,
    asked: Option<u32>,
) -> Result<Result<u32, SourceError>, ClientError> {
    let client = Client::connect(options, 0).await?;
    let keys = Keys::new(&options.prefix);
    loop {
        let listed = client.list(keys.all()).await?;
        let mut board = Board::new(keys.clone());
        board.load(&listed.kvs);
        if let Some(rank) = board.rank_of(uuid) {
            return Ok(agrees(rank, asked));
        }
        let Some(rank) = asked
            .or_else(|| board.free_rank())
            .filter(|rank| *rank < RANKS)
        else {
            return Ok(Err(SourceError(format!(
                "with etcd ranks are below {RANKS}. cure: give this engine another `engine.rank`, or delete keys under {}/ranks of engines that are gone for ever",
                options.prefix
            ))));
        };
        if let Some(owner) = board.ranks.get(&rank) {
            return Ok(Err(SourceError(format!(
                "rank {rank} belongs to engine {owner} in etcd. cure: give this engine another `engine.rank`, or leave it out; if that engine is gone for ever, delete the key {}",
                String::from_utf8_lossy(&keys.rank(rank))
            ))));
        }
        let create = txn::create((keys.rank(rank), uuid.as_bytes().to_vec()), None);
        if client.transact(create).await?.succeeded {
            return Ok(Ok(rank));
        }
        // Another engine was faster: look again. Each turn has an answer's time, and one engine less without a rank.
    }
}
