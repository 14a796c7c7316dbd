//! States of a device: what is kept, and what is shown.

use serde::{Deserialize, Serialize};

/// What the table keeps (DAOS: `SMD_DEV_NORMAL`, `SMD_DEV_FAULTY`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kept {
    /// Its targets use it.
    Normal,
    /// Taken out of use, by an operator or by its health; only an operator puts it back.
    Faulty,
}

/// What operators see (DAOS: `NvmeDevState`), made of what is kept and what is plugged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// In use.
    Normal,
    /// Plugged, and no target was ever put on it.
    New,
    /// Kept as faulty and plugged: out of use.
    Evicted,
    /// Kept, and not there.
    Unplugged,
}

impl State {
    /// The state of a device.
    #[must_use]
    pub fn of(kept: Option<Kept>, plugged: bool) -> State {
        match (kept, plugged) {
            (_, false) => State::Unplugged,
            (None, true) => State::New,
            (Some(Kept::Normal), true) => State::Normal,
            (Some(Kept::Faulty), true) => State::Evicted,
        }
    }

    /// The word that commands print.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            State::Normal => "normal",
            State::New => "new",
            State::Evicted => "evicted",
            State::Unplugged => "unplugged",
        }
    }
}
