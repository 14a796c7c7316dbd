//! Events that operators must hear of (DAOS: RAS): into the log, and to the control server where there is one.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use drpc_wire::control::{ControlServer, event};
use drpc_wire::shared::RasEvent;

use crate::state::NO_RANK;

/// For the control server to take an event.
const PATIENCE: Duration = Duration::from_secs(2);

/// Events of one kind.
pub(crate) trait Occasion {
    /// DAOS's number, its name, its severity.
    fn facts(self) -> (u32, &'static str, u32);
}

/// What happened to a device (DAOS `src/include/daos_srv/ras.h`), or to the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeviceEvent {
    SetFaulty,
    MediaError,
    Unplugged,
    Plugged,
    Replaced,
    /// DAOS has no such event: its control server looks after certificates. The number is far from those it uses.
    CertificateExpires,
}

impl Occasion for DeviceEvent {
    fn facts(self) -> (u32, &'static str, u32) {
        match self {
            DeviceEvent::SetFaulty => (20, "device_set_faulty", event::SEVERITY_ERROR),
            DeviceEvent::MediaError => (21, "device_media_error", event::SEVERITY_ERROR),
            DeviceEvent::Plugged => (23, "device_plugged", event::SEVERITY_NOTICE),
            DeviceEvent::Unplugged => (22, "device_unplugged", event::SEVERITY_WARNING),
            DeviceEvent::Replaced => (24, "device_replace", event::SEVERITY_NOTICE),
            DeviceEvent::CertificateExpires => {
                (9001, "engine_certificate_expires", event::SEVERITY_WARNING)
            }
        }
    }
}

/// What happened to the group. DAOS knows the first two; the others have no number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GroupEvent {
    RankAlive,
    RankDead,
    RankJoined,
    RankLeft,
    RankReborn,
    LeaderChanged,
    SourceLost,
    SourceBack,
}

impl Occasion for GroupEvent {
    fn facts(self) -> (u32, &'static str, u32) {
        match self {
            GroupEvent::RankAlive => (15, "swim_rank_alive", event::SEVERITY_NOTICE),
            GroupEvent::RankDead => (16, "swim_rank_dead", event::SEVERITY_WARNING),
            GroupEvent::RankJoined => (0, "group_rank_joined", event::SEVERITY_NOTICE),
            GroupEvent::RankLeft => (0, "group_rank_left", event::SEVERITY_NOTICE),
            GroupEvent::RankReborn => (0, "group_rank_reborn", event::SEVERITY_WARNING),
            GroupEvent::LeaderChanged => (0, "group_leader_changed", event::SEVERITY_NOTICE),
            GroupEvent::SourceLost => (0, "group_source_lost", event::SEVERITY_ERROR),
            GroupEvent::SourceBack => (0, "group_source_back", event::SEVERITY_NOTICE),
        }
    }
}

/// What an event is about, besides its kind.
#[derive(Debug, Default)]
struct About {
    device: String,
    /// Rank and incarnation; without one it is this engine's rank.
    rank: Option<(u32, u64)>,
    text: String,
}

/// Where events go.
pub(crate) struct Ras {
    control_server: Option<ControlServer>,
    rank: AtomicU32,
}

impl Ras {
    pub(crate) fn new(control_server: Option<PathBuf>) -> Ras {
        Ras {
            control_server: control_server.map(|socket| ControlServer::new(socket, Some(PATIENCE))),
            rank: AtomicU32::new(NO_RANK),
        }
    }

    /// The rank that events carry from now on.
    pub(crate) fn set_rank(&self, rank: u32) {
        self.rank.store(rank, Ordering::Relaxed);
    }

    /// Raises an event of a device. Waits for the control server's socket: not on an xstream.
    pub(crate) fn raise(&self, what: DeviceEvent, device: &str, text: &str) {
        let about = About {
            device: device.to_owned(),
            rank: None,
            text: text.to_owned(),
        };
        self.send(what, &about);
    }

    fn send(&self, what: impl Occasion, about: &About) {
        let (id, name, severity) = what.facts();
        let (text, device) = (about.text.as_str(), about.device.as_str());
        let (rank, incarnation) = match about.rank {
            Some((rank, incarnation)) => (rank, incarnation),
            None => (self.rank.load(Ordering::Relaxed), 0),
        };
        match (severity, device) {
            (event::SEVERITY_NOTICE, "") => tracing::info!(ras = name, rank, "{text}"),
            (event::SEVERITY_NOTICE, _) => tracing::info!(ras = name, device, "{text}"),
            (event::SEVERITY_WARNING, "") => tracing::warn!(ras = name, rank, "{text}"),
            (_, "") => tracing::error!(ras = name, rank, "{text}"),
            _ => tracing::error!(ras = name, device, "{text}"),
        }
        let Some(server) = &self.control_server else {
            return;
        };
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let report = RasEvent {
            id,
            msg: text.to_owned(),
            timestamp: iso8601(since),
            r#type: event::TYPE_INFO,
            severity,
            hostname: rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
            rank,
            incarnation,
            hw_id: device.to_owned(),
            proc_id: u64::from(std::process::id()),
            ..RasEvent::default()
        };
        if let Err(error) = server.raise_event(report) {
            tracing::warn!(%error, "the control server did not take the event");
        }
    }
}

/// Events that wait for the control server at most; at the bound one is logged only.
const WAITING: usize = 256;

/// Raises events of the group from an xstream: a thread of its own waits for the control server.
pub(crate) struct Herald {
    ras: Arc<Ras>,
    queue: SyncSender<(GroupEvent, About)>,
}

impl Herald {
    pub(crate) fn start(control_server: Option<PathBuf>) -> std::io::Result<Herald> {
        let ras = Arc::new(Ras::new(control_server));
        let (queue, events) = sync_channel::<(GroupEvent, About)>(WAITING);
        let own = Arc::clone(&ras);
        // It ends with the sending side.
        thread::Builder::new()
            .name("keel_herald".to_owned())
            .spawn(move || {
                events
                    .iter()
                    .for_each(|(what, about)| own.send(what, &about))
            })?;
        Ok(Herald { ras, queue })
    }

    /// The rank that events of this engine carry from now on.
    pub(crate) fn set_rank(&self, rank: u32) {
        self.ras.set_rank(rank);
    }

    /// Raises an event about a rank in a life of it.
    pub(crate) fn raise(&self, what: GroupEvent, rank: (u32, u64), text: String) {
        let about = About {
            device: String::new(),
            rank: Some(rank),
            text,
        };
        if let Err(error) = self.queue.try_send((what, about)) {
            let (TrySendError::Full((what, about)) | TrySendError::Disconnected((what, about))) =
                error;
            tracing::warn!(
                ras = what.facts().1,
                rank = rank.0,
                "{} (the control server is not told)",
                about.text
            );
        }
    }
}

/// `2026-11-25T18:30:00.123456+00:00`. Days to a date as in Howard Hinnant's `civil_from_days`.
fn iso8601(since: Duration) -> String {
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}+00:00",
        second / 3600,
        second / 60 % 60,
        second % 60,
        since.subsec_micros()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_daos_writes_it() {
        assert_eq!(iso8601(Duration::ZERO), "1970-01-01T00:00:00.000000+00:00");
        let leap_day = Duration::from_micros(1_709_210_096_000_789);
        assert_eq!(iso8601(leap_day), "2024-02-29T12:34:56.000789+00:00");
    }
}
