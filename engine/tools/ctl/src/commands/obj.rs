//! `keel obj put|get|ls|rm|stat`.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use obj_client::{Container, GetOptions, ObjectInfo, Progress, PutOptions};
use serde_json::{Value, json};

use crate::cli::{Cli, Obj, ObjectPath};
use crate::error::CliError;
use crate::output::{bytes, show, table};
use crate::progress::{advance, bar};
use crate::store::{container, date, failed};

pub(crate) fn run(cli: &Cli, command: &Obj) -> Result<(), CliError> {
    match command {
        Obj::Put { at, file } => put(cli, at, file),
        Obj::Get { at, file } => get(cli, at, file),
        Obj::Ls { pool, cont, prefix } => list(cli, &container(cli, (pool, cont), true)?, prefix),
        Obj::Rm { at } => {
            open(cli, at, false)?.remove(&at.name).map_err(failed)?;
            show(cli.output, &json!({ "removed": at.name }), |_| {
                String::new()
            })
        }
        Obj::Stat { at } => {
            let info = open(cli, at, true)?.stat(&at.name).map_err(failed)?;
            show(cli.output, &info_json(&info), |_| {
                format!(
                    "{}\n  size {} ({} bytes)\n  version {}\n  modified {}",
                    info.name,
                    bytes(info.size),
                    info.size,
                    info.version,
                    date(info.modified)
                )
            })
        }
    }
}

fn open(cli: &Cli, at: &ObjectPath, read_only: bool) -> Result<Container, CliError> {
    container(cli, (&at.pool, &at.cont), read_only)
}

fn info_json(info: &ObjectInfo) -> Value {
    json!({ "name": info.name, "size": info.size, "version": info.version, "modified_ns": info.modified })
}

fn is_dash(file: &Path) -> bool {
    file == Path::new("-")
}

fn put(cli: &Cli, at: &ObjectPath, file: &Path) -> Result<(), CliError> {
    let started = Instant::now();
    let (mut source, size): (Box<dyn Read>, Option<u64>) = if is_dash(file) {
        (Box::new(io::stdin().lock()), None)
    } else {
        let steady = SteadyFile::open(file).map_err(|e| CliError::file(file, &e))?;
        let size = steady.size;
        (Box::new(steady), Some(size))
    };
    let cont = open(cli, at, false)?;
    let bar = bar(cli, "put");
    let mut progress = |progress: Progress| advance(&bar, progress);
    let result = cont.put(
        &at.name,
        &mut source,
        PutOptions {
            size,
            progress: Some(&mut progress),
        },
    );
    bar.finish_and_clear();
    let info = result.map_err(failed)?;
    show(cli.output, &info_json(&info), |_| {
        transferred(&info, started)
    })
}

fn transferred(info: &ObjectInfo, started: Instant) -> String {
    let seconds = started.elapsed().as_secs_f64();
    format!(
        "{}: {} in {seconds:.2} s ({}/s)",
        info.name,
        bytes(info.size),
        bytes((info.size as f64 / seconds.max(1e-6)) as u64)
    )
}

/// A file that fails to read its end when it changed since it was opened, so that a put of it is not committed.
struct SteadyFile {
    file: File,
    size: u64,
    modified: std::time::SystemTime,
}

impl SteadyFile {
    fn open(path: &Path) -> io::Result<SteadyFile> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::Error::new(
                io::ErrorKind::IsADirectory,
                "is a directory: an object holds one file",
            ));
        }
        Ok(SteadyFile {
            size: metadata.len(),
            modified: metadata.modified()?,
            file,
        })
    }
}

impl Read for SteadyFile {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buf)?;
        if count == 0 && !buf.is_empty() {
            let metadata = self.file.metadata()?;
            if metadata.len() != self.size || metadata.modified()? != self.modified {
                return Err(io::Error::other(
                    "it changed while it was read; nothing was stored, put it again",
                ));
            }
        }
        Ok(count)
    }
}

fn get(cli: &Cli, at: &ObjectPath, file: &Path) -> Result<(), CliError> {
    let started = Instant::now();
    let cont = open(cli, at, true)?;
    let bar = bar(cli, "get");
    let mut progress = |progress: Progress| advance(&bar, progress);
    let options = GetOptions {
        progress: Some(&mut progress),
        ..GetOptions::default()
    };
    if is_dash(file) {
        let result = cont.get(&at.name, &mut io::stdout().lock(), options);
        bar.finish_and_clear();
        // The object itself is the output.
        return result.map(|_| ()).map_err(failed);
    }
    let mut aside = Aside::create(file).map_err(|e| CliError::file(file, &e))?;
    let result = cont.get(&at.name, &mut aside.writer, options);
    bar.finish_and_clear();
    let info = result.map_err(failed)?;
    aside.keep(file).map_err(|e| CliError::file(file, &e))?;
    show(cli.output, &info_json(&info), |_| {
        transferred(&info, started)
    })
}

/// A file that is being written beside its destination; dropped before [`Aside::keep`], it is removed.
struct Aside {
    writer: BufWriter<File>,
    path: Option<PathBuf>,
}

impl Aside {
    fn create(destination: &Path) -> io::Result<Aside> {
        if destination.is_dir() {
            return Err(io::Error::new(
                io::ErrorKind::IsADirectory,
                "is a directory: name a file in it",
            ));
        }
        let mut name = destination.file_name().unwrap_or_default().to_owned();
        name.push(format!(".keel-{}", std::process::id()));
        let path = destination.with_file_name(name);
        Ok(Aside {
            writer: BufWriter::with_capacity(1 << 20, File::create(&path)?),
            path: Some(path),
        })
    }

    fn keep(mut self, destination: &Path) -> io::Result<()> {
        self.writer.flush()?;
        if let Some(path) = &self.path {
            std::fs::rename(path, destination)?;
        }
        self.path = None;
        Ok(())
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // Half a file is of no use; a failure to remove it changes nothing.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn list(cli: &Cli, cont: &Container, prefix: &str) -> Result<(), CliError> {
    let objects = cont
        .list(prefix)
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    show(
        cli.output,
        &objects.iter().map(info_json).collect::<Vec<_>>(),
        |_| {
            let row = |o: &ObjectInfo| vec![bytes(o.size), date(o.modified), o.name.clone()];
            table(
                &["SIZE", "MODIFIED", "NAME"],
                &objects.iter().map(row).collect::<Vec<_>>(),
            )
        },
    )
}
