//! The writer thread: whoever logs hands a finished line to a bounded queue and goes on. A slow disk or a stopped
//! terminal costs log lines, which are counted and reported, never the time of an xstream.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait at most; more are lost and counted.
pub const QUEUE_LINES: usize = 4096;
/// Bytes of one line at most; the rest is cut off.
const MAX_LINE: usize = 16 * 1024;
/// Bytes written in one go while lines keep coming.
const BATCH: usize = 64 * 1024;

/// The log has nowhere to go.
#[derive(Debug, thiserror::Error)]
pub enum WriterError {
    /// The file cannot be opened for appending.
    #[error(
        "log file {path}: {why}; check that its directory exists and that the engine's user may write there"
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: io::Error,
    },
    /// No thread.
    #[error("the log's writer thread did not start: {0}")]
    Thread(io::Error),
}

pub(crate) enum Output {
    Stderr,
    File(File),
}

impl Output {
    pub(crate) fn file(path: &Path) -> Result<Output, WriterError> {
        let open = OpenOptions::new().append(true).create(true).open(path);
        open.map(Output::File).map_err(|why| WriterError::Open {
            path: path.to_owned(),
            why,
        })
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Output::Stderr => io::stderr().write_all(bytes),
            Output::File(file) => file.write_all(bytes),
        }
    }
}

enum Item {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// The queue's sending side; what `tracing` writes into.
#[derive(Clone)]
pub(crate) struct LogQueue {
    sender: SyncSender<Item>,
    lost: Arc<AtomicU64>,
}

impl LogQueue {
    pub(crate) fn start(output: Output) -> Result<LogQueue, WriterError> {
        let (sender, receiver) = mpsc::sync_channel(QUEUE_LINES);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&lost);
        std::thread::Builder::new()
            .name("keel_log".to_owned())
            .spawn(move || {
                WriterThread {
                    output,
                    receiver,
                    lost: counted,
                    told: 0,
                }
                .run()
            })
            .map_err(WriterError::Thread)?;
        Ok(LogQueue { sender, lost })
    }

    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    pub(crate) fn flush(&self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        let (done, finished) = mpsc::sync_channel(1);
        let mut item = Item::Flush(done);
        // The queue may be full of lines: its thread is emptying it, or is stuck and the wait ends.
        while let Err(TrySendError::Full(back)) = self.sender.try_send(item) {
            if Instant::now() >= until {
                return false;
            }
            item = back;
            std::thread::yield_now();
        }
        finished
            .recv_timeout(until.saturating_duration_since(Instant::now()))
            .is_ok()
    }
}

impl Write for LogQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let kept = if line.len() > MAX_LINE {
            let mut kept = line[..MAX_LINE].to_vec();
            kept.extend_from_slice(b" [cut]\n");
            kept
        } else {
            line.to_vec()
        };
        if self.sender.try_send(Item::Line(kept)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogQueue {
    type Writer = LogQueue;

    fn make_writer(&'a self) -> LogQueue {
        self.clone()
    }
}

struct WriterThread {
    output: Output,
    receiver: Receiver<Item>,
    lost: Arc<AtomicU64>,
    told: u64,
}

impl WriterThread {
    /// Until the last sender is gone.
    fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        while let Ok(first) = self.receiver.recv() {
            let mut next = Some(first);
            while let Some(item) = next {
                match item {
                    Item::Line(line) => batch.extend_from_slice(&line),
                    Item::Flush(done) => {
                        self.write(&mut batch);
                        let _ = done.try_send(());
                    }
                }
                if batch.len() >= BATCH {
                    self.write(&mut batch);
                }
                next = self.receiver.try_recv().ok();
            }
            self.write(&mut batch);
        }
    }

    fn write(&mut self, batch: &mut Vec<u8>) {
        let lost = self.lost.load(Ordering::Relaxed);
        if lost > self.told {
            let line = format!(
                "[log] {} lines lost: they came faster than they could be written\n",
                lost - self.told
            );
            batch.extend_from_slice(line.as_bytes());
            self.told = lost;
        }
        if batch.is_empty() {
            return;
        }
        // A full disk: nobody is left to tell, and the engine must run on. The lines count as lost.
        if self.output.write_all(batch).is_err() {
            self.lost.fetch_add(
                batch.iter().filter(|byte| **byte == b'\n').count() as u64,
                Ordering::Relaxed,
            );
        }
        batch.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_secs(30);

    #[test]
    fn lines_past_the_queue_are_counted_and_reported() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        // No thread yet: the queue fills, as it does behind a stuck disk.
        let (sender, receiver) = mpsc::sync_channel(QUEUE_LINES);
        let lost = Arc::new(AtomicU64::new(0));
        let mut queue = LogQueue {
            sender,
            lost: Arc::clone(&lost),
        };
        for n in 0..QUEUE_LINES + 3 {
            queue.write_all(format!("{n}\n").as_bytes()).unwrap();
        }
        assert_eq!(queue.lost(), 3);
        assert!(!queue.flush(Duration::ZERO));
        let output = Output::file(&path).unwrap();
        let thread = std::thread::spawn(move || {
            WriterThread {
                output,
                receiver,
                lost,
                told: 0,
            }
            .run()
        });
        assert!(queue.flush(WAIT));
        drop(queue);
        thread.join().unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        assert!(
            text.starts_with("0\n1\n") && text.contains("[log] 3 lines lost"),
            "{}",
            &text[..200]
        );
        assert_eq!(text.lines().count(), QUEUE_LINES + 1);
    }

    #[test]
    fn an_endless_line_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut queue = LogQueue::start(Output::file(&path).unwrap()).unwrap();
        queue.write_all(&vec![b'x'; MAX_LINE * 2]).unwrap();
        assert!(queue.flush(WAIT));
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(text.len(), MAX_LINE + " [cut]\n".len());
        assert!(text.ends_with("[cut]\n"));
    }
}
