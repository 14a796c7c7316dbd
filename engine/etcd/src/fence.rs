//! What was seen of etcd last. It is kept on the disk, so that an etcd that has gone back in time is known for it also after a restart of the
//! engine.
//!
//! An etcd of a smaller revision than was seen is not listened to: keys made there could be older than those that are gone, and terms would
//! go back. One whose revision is greater is listened to, but what it kept of the group may still be of the past: it is in *doubt* until
//! the leader has written a version that is greater than any that a member has seen.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::keys::Seen;

/// A document of the group, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) version: u32,
    pub(crate) term: u64,
    /// etcd's revision at which it was written.
    pub(crate) written: i64,
}

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    /// etcd's id of its cluster, for an operator who looks.
    cluster: u64,
    /// The greatest revision, when the version was seen first.
    revision: i64,
    /// The greatest version of the group, the revision at which it was written, and the greatest term.
    version: u32,
    written: i64,
    term: u64,
}

/// The file, and what is in it.
#[derive(Debug)]
pub(crate) struct Fence {
    path: PathBuf,
    kept: Kept,
    /// The greatest revision since the start.
    revision: i64,
}

/// What has to be on the disk before anybody acts on it.
#[derive(Debug)]
pub(crate) struct Page {
    path: PathBuf,
    kept: Kept,
}

impl Fence {
    /// Reads the file; without one nothing was seen yet.
    pub(crate) fn open(path: &Path) -> io::Result<Fence> {
        let kept: Kept = match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::other)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Kept::default(),
            Err(error) => return Err(error),
        };
        let revision = kept.revision;
        Ok(Fence {
            path: path.to_owned(),
            kept,
            revision,
        })
    }

    /// The greatest version and term that were seen.
    pub(crate) fn seen(&self) -> Seen {
        Seen {
            version: self.kept.version,
            term: self.kept.term,
        }
    }

    /// Whether an answer of this revision may follow what was seen. `Err` says why not, and what cures it.
    pub(crate) fn check(&self, revision: i64) -> Result<(), String> {
        if revision >= self.revision {
            return Ok(());
        }
        Err(format!(
            "etcd has gone back from revision {} to {revision}: it was restored from a backup, or another etcd answers there; the group's last map is kept, and nobody leads. \
             cure: give it a revision that is greater (etcdutl snapshot restore --bump-revision, or writes), or stop all engines of the system, remove {} of each, and start them",
            self.revision,
            self.path.display()
        ))
    }

    /// Whether a document, or that there is none, is of the past: why.
    pub(crate) fn doubts(&self, document: Option<Stamp>) -> Option<String> {
        let kept = &self.kept;
        let of_the_past = match document {
            None => kept.version > 0,
            Some(document) => {
                document.version < kept.version
                    || document.term < kept.term
                    || (document.version == kept.version && document.written != kept.written)
            }
        };
        let now = document.map_or(0, |document| document.version);
        of_the_past.then(|| {
            format!(
                "etcd holds version {now} of the group, and this engine has seen version {}: etcd was restored from a backup, or the key was changed; the last map is kept until the leader writes a greater version",
                kept.version
            )
        })
    }

    /// This was seen, and is in no doubt. What it returns must be written first.
    pub(crate) fn pass(&mut self, revision: i64, document: Option<Stamp>) -> Option<Page> {
        self.revision = self.revision.max(revision);
        let document = document?;
        let kept = &self.kept;
        if document.version <= kept.version && document.term <= kept.term {
            return None;
        }
        self.kept = Kept {
            cluster: kept.cluster,
            revision: self.revision,
            version: document.version,
            written: document.written,
            term: document.term,
        };
        Some(self.page())
    }

    /// This etcd answers, whose revision has not gone back.
    pub(crate) fn meet(&mut self, cluster: u64) -> Option<Page> {
        if cluster == self.kept.cluster {
            return None;
        }
        if self.kept.cluster != 0 {
            tracing::warn!(
                before = self.kept.cluster,
                cluster,
                "etcd has another cluster id than before; its revision has not gone back, so it is believed"
            );
        }
        self.kept.cluster = cluster;
        Some(self.page())
    }

    fn page(&self) -> Page {
        Page {
            path: self.path.clone(),
            kept: self.kept.clone(),
        }
    }
}

impl Page {
    /// Blocks for the disk.
    pub(crate) fn write(&self) -> io::Result<()> {
        let text = serde_json::to_string(&self.kept).map_err(io::Error::other)?;
        replace(&self.path, &text)
    }
}

/// Whole or not at all, and on the disk.
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let aside = path.with_extension("new");
    let mut file = File::create(&aside)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(version: u32, term: u64, written: i64) -> Option<Stamp> {
        Some(Stamp {
            version,
            term,
            written,
        })
    }

    fn pass(fence: &mut Fence, revision: i64, document: Option<Stamp>) -> bool {
        let page = fence.pass(revision, document);
        page.as_ref().is_some_and(|page| page.write().is_ok())
    }

    #[test]
    fn an_etcd_that_goes_back_is_told_from_one_that_goes_on_also_after_a_restart() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("engine.group");
        let mut fence = Fence::open(&path).unwrap();
        assert_eq!(fence.check(1), Ok(()));
        assert_eq!(fence.doubts(None), None, "the first");
        fence.meet(7).unwrap().write().unwrap();
        assert!(fence.meet(7).is_none());
        assert!(pass(&mut fence, 100, stamp(5, 60, 98)));
        assert!(!pass(&mut fence, 120, stamp(5, 60, 98)), "no news");
        let back = fence.check(110).unwrap_err();
        assert!(
            back.starts_with("etcd has gone back from revision 120 to 110: it was restored"),
            "{back}"
        );
        assert!(back.contains("cure: "), "{back}");

        let fence = Fence::open(&path).unwrap();
        assert_eq!((fence.seen().version, fence.seen().term), (5, 60));
        assert!(fence.check(99).is_err());
        assert_eq!(fence.check(100), Ok(()));
        fs::write(&path, "junk").unwrap();
        assert!(Fence::open(&path).is_err());
    }

    #[test]
    fn what_may_be_of_the_past_is_in_doubt() {
        let dir = tempfile::TempDir::new().unwrap();
        let mut fence = Fence::open(&dir.path().join("engine.group")).unwrap();
        assert!(pass(&mut fence, 100, stamp(5, 60, 98)));
        for (document, what) in [
            (None, "it was deleted"),
            (stamp(4, 60, 90), "an older version"),
            (
                stamp(5, 60, 97),
                "the same version, written at another time",
            ),
            (stamp(6, 59, 500), "an older term"),
        ] {
            let why = fence.doubts(document);
            assert!(
                why.is_some_and(|why| why.contains("seen version 5")),
                "{what}"
            );
        }
        assert_eq!(fence.doubts(stamp(5, 60, 98)), None);
        assert_eq!(fence.doubts(stamp(6, 60, 500)), None);
    }
}
