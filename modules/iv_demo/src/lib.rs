//! An incast variable, from end to end: notes that all engines of a group share. A model for modules of your own.
//!
//! A note has a name (up to 48 bytes, case does not matter) and a text. Whoever writes one asks the root, whose class numbers it and refuses
//! an empty one; all engines have it when the write returns. dRPC module 110, with plain text as bodies:
//!
//! | method | body | answer |
//! |---|---|---|
//! | 1 write | `name=text` | the version, as `term.number` |
//! | 2 read | `name` | `number: text`, fetched on target 0 if it is not in its cache |
//! | 3 forget | `name` | the version |
//! | 4 look | `name` | what each target has in its own cache, a line each: `text` or `-` |
//! | 5 try | `SYNC WITHIN name[=text]` | `term.number`, or `number: text`, or why it failed |
//!
//! What fails is answered FAILURE, with the reason in the log; 5 answers the reason. Its SYNC is how a change comes down (none, lazy, eager, bidirectional; with
//! `!` straight to the root on its way up), `fetch` or `forget` (eagerly); WITHIN is its deadline in milliseconds. Try it:
//! `keel drpc call --module 110 --method 1 --body $(printf motto=onward | xxd -p)`.
//!
//! Modules: this file; the class, `notes`; operations as they are asked for, `attempt`.

mod attempt;
mod notes;

use module_sdk::iv::{self, IvFailure, IvHow, IvKey, IvSync, IvVar, IvVersion, NsId};
use module_sdk::{Der, DrpcCall, DrpcReply, DrpcStatus, Xs, spawn_on};
use notes::{Note, Notes};
use std::time::Duration;

module_sdk::module! {
    name: iv_demo,
    id: 35,
    about: "notes that all engines of a group share: an example of incast variables",
    init: init,
    setup: setup,
    cleanup: cleanup,
    drpc: { 110 => call },
}

/// Every engine that loads this module shares it.
const NAMESPACE: NsId = *b"iv_demo notes   ";
/// For one operation, whatever happens to the root meanwhile.
const WITHIN: Duration = Duration::from_secs(10);

/// Classes are registered before anything runs, so that this engine can answer others from its first moment.
fn init() -> Result<(), Der> {
    iv::register_class(Notes::default())
}

async fn setup() -> Result<(), Der> {
    iv::create(NAMESPACE, true).await
}

async fn cleanup() -> Result<(), Der> {
    iv::destroy(NAMESPACE).await
}

async fn call(call: DrpcCall) -> Result<DrpcReply, DrpcStatus> {
    let body = std::str::from_utf8(call.body()).map_err(|_| DrpcStatus::FailedUnmarshalPayload)?;
    let answer = match call.method() {
        1 => write(body).await,
        2 => read(body).await,
        3 => forget(body).await,
        4 => look(body).await,
        5 => attempt::made(body).await,
        _ => return Err(DrpcStatus::UnknownMethod),
    };
    answer
        .map(|text| DrpcReply::success(text.into_bytes()))
        .map_err(|failure| {
            module_sdk::warn!("method {} of `{body}`: {failure}", call.method());
            DrpcStatus::Failure
        })
}

/// The variable of a note, for the xstream that asks.
fn note(name: &str) -> Result<IvVar<Note>, Der> {
    // Caches know the key that stands for all equal ones.
    let key = IvKey::new(Notes::CLASS, name.to_ascii_lowercase().as_bytes())?;
    Ok(IvVar::new(NAMESPACE, key))
}

fn text(version: IvVersion) -> String {
    format!("{}.{}", version.term, version.sequence)
}

async fn write(body: &str) -> Result<String, IvFailure> {
    let (name, written) = body.split_once('=').ok_or(Der::INVAL)?;
    let new = Note {
        text: written.to_owned(),
        number: 0, // the root's class gives one
    };
    let eager = IvHow::new(IvSync::Eager, WITHIN);
    Ok(text(note(name)?.update(&new, eager).await?))
}

async fn forget(name: &str) -> Result<String, IvFailure> {
    let eager = IvHow::new(IvSync::Eager, WITHIN);
    Ok(text(note(name)?.invalidate(eager).await?))
}

async fn read(name: &str) -> Result<String, IvFailure> {
    let name = name.to_owned();
    let reader = spawn_on(Xs::Target(0), "read", move || async move {
        let found = note(&name)?.fetch(WITHIN).await?;
        Ok::<_, IvFailure>(format!("{}: {}", found.number, found.text))
    })?;
    reader.await.map_err(Der::from)?
}

async fn look(name: &str) -> Result<String, IvFailure> {
    let mut lines = Vec::new();
    for target in 0..module_sdk::targets() {
        let name = name.to_owned();
        let reader = spawn_on(Xs::Target(target), "look", move || async move {
            // One look at this xstream's memory: nobody is asked.
            Ok::<_, Der>(note(&name)?.get().map(|found| found.text.clone()))
        })?;
        let found = reader.await.map_err(Der::from)??;
        lines.push(found.unwrap_or_else(|| "-".to_owned()));
    }
    Ok(lines.join("\n"))
}
