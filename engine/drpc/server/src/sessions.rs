//! All sessions, and which of them may be read under the bounds.

use std::collections::VecDeque;

use crate::options::Options;
use crate::session::Session;

/// What running calls hold.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Running {
    /// Calls handed to handlers and not answered.
    pub(crate) calls: usize,
    /// Bytes of their bodies.
    pub(crate) bytes: usize,
}

/// The list, newest first (DAOS inserts at the head).
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    list: VecDeque<Session>,
    next_id: u64,
    next_order: u64,
}

impl Sessions {
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Session> {
        self.list.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Session> {
        self.list.iter_mut()
    }

    pub(crate) fn get(&mut self, id: u64) -> Option<&mut Session> {
        self.list.iter_mut().find(|session| session.id == id)
    }

    /// A number for a new session; never used twice, so a late reply cannot reach another peer.
    pub(crate) fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// A number for a message that may begin now.
    pub(crate) fn new_order(&mut self) -> u64 {
        self.next_order += 1;
        self.next_order
    }

    pub(crate) fn insert(&mut self, session: Session) {
        self.list.push_front(session);
    }

    pub(crate) fn remove(&mut self, id: u64) -> Option<Session> {
        let at = self.list.iter().position(|session| session.id == id)?;
        self.list.remove(at)
    }

    pub(crate) fn clear(&mut self) {
        self.list.clear();
    }

    /// Bytes held for peers, without the calls that run.
    pub(crate) fn held_bytes(&self) -> usize {
        self.list.iter().map(Session::held_bytes).sum()
    }

    /// Decides anew who is read. Over `max_bytes` only the session in the middle of a message longest goes on, so that some
    /// message can always end.
    pub(crate) fn update_gates(&mut self, running: Running, options: &Options, now: u64) {
        let calls_full = running.calls >= options.max_in_flight;
        let bytes_full = running.bytes + self.held_bytes() >= options.max_bytes;
        let oldest = self
            .list
            .iter()
            .filter_map(|s| s.begun.map(|begun| (begun.order, s.id)))
            .min()
            .map(|(_, id)| id);
        for session in &mut self.list {
            let read = !calls_full
                && session.open_calls < options.max_in_flight_per_session
                && (!bytes_full || oldest == Some(session.id));
            session.set_read(read, now);
        }
    }

    /// When the next session is to be closed if nothing moves before.
    pub(crate) fn next_deadline(&self, options: &Options) -> Option<u64> {
        let stall = nanos(options.stall_timeout_ms);
        let stalled = self
            .list
            .iter()
            .filter_map(|s| s.stall_deadline(stall))
            .min();
        let idle = self.idle_deadline(options).map(|(at, _)| at);
        match (stalled, idle) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Takes out one session whose time has come: stalled, or idle while the list is full.
    pub(crate) fn expired(&mut self, options: &Options, now: u64) -> Option<(Session, Expiry)> {
        let stall = nanos(options.stall_timeout_ms);
        let stalled = self
            .list
            .iter()
            .find(|s| s.stall_deadline(stall).is_some_and(|at| at <= now))
            .map(|s| (s.id, Expiry::Stalled));
        let found = stalled.or_else(|| {
            let (at, id) = self.idle_deadline(options)?;
            (at <= now).then_some((id, Expiry::Idle))
        });
        let (id, why) = found?;
        self.remove(id).map(|session| (session, why))
    }

    /// While the list is full: when the longest idle session may be closed, and which it is.
    fn idle_deadline(&self, options: &Options) -> Option<(u64, u64)> {
        if self.list.len() < options.max_sessions {
            return None;
        }
        let idle = self.list.iter().filter(|s| s.is_idle());
        let (since, id) = idle.map(|s| (s.last_active, s.id)).min()?;
        Some((since.saturating_add(nanos(options.idle_timeout_ms)), id))
    }
}

/// Why a session's time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// In the middle of a message, or replies unread, for too long.
    Stalled,
    /// Nothing to do for long, and others wait for its place.
    Idle,
}

fn nanos(ms: u64) -> u64 {
    ms.saturating_mul(1_000_000)
}
