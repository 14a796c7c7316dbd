//! The way up for values: what a rank cannot serve it asks its parent for, once for all who wait.

use daos_errno::Der;

use crate::iv::Iv;
use crate::message::{Body, Change, Copy, Stamp};
use crate::operation::OpId;
use crate::options::{Nanos, Shortcut};
use crate::space::Asker;
use crate::timers::Timer;
use crate::{Key, NsId, Rank, Version};

/// A fetch under way.
#[derive(Debug)]
pub(crate) struct Miss {
    waiters: Vec<Waiter>,
    pub(crate) token: u64,
    /// Whom it asked, when, and for which version at least.
    hop: Rank,
    sent_at: Nanos,
    asked: Version,
    attempts: u32,
    to_root: bool,
}

#[derive(Clone, Copy, Debug)]
struct Waiter {
    asker: Asker,
    at_least: Version,
    until: Nanos,
}

/// What this rank can say by itself.
enum Local {
    Copy(Copy),
    Ask,
    No(Der),
}

impl Iv {
    pub(crate) fn attempt_fetch(
        &mut self,
        now: Nanos,
        op: OpId,
        ns: NsId,
        key: Key,
        shortcut: Shortcut,
    ) {
        let until = self
            .operations
            .get(&op)
            .map_or(now, |operation| operation.deadline);
        let waiter = Waiter {
            asker: Asker::Own(op),
            at_least: Version::default(),
            until,
        };
        self.serve(now, ns, key, waiter, shortcut == Shortcut::ToRoot);
    }

    pub(crate) fn fetch_for_peer(
        &mut self,
        now: Nanos,
        asker: Asker,
        ns: NsId,
        key: Key,
        at_least: Version,
        budget: Nanos,
    ) {
        let until = now.saturating_add(budget);
        self.serve(
            now,
            ns,
            key,
            Waiter {
                asker,
                at_least,
                until,
            },
            false,
        );
    }

    fn serve(&mut self, now: Nanos, ns: NsId, key: Key, waiter: Waiter, to_root: bool) {
        match self.local(now, ns, &key, waiter.at_least) {
            Local::Copy(copy) => self.deliver(now, ns, waiter.asker, Ok(copy)),
            Local::No(der) => self.deliver(now, ns, waiter.asker, Err(der)),
            Local::Ask => {
                if let Err(der) = self.wait(now, ns, key, waiter, to_root) {
                    self.deliver(now, ns, waiter.asker, Err(der));
                }
            }
        }
    }

    fn local(&mut self, now: Nanos, ns: NsId, key: &Key, at_least: Version) -> Local {
        let me = self.me;
        let (Some(space), Some(class)) =
            (self.spaces.get_mut(&ns), self.classes.get_mut(&key.class()))
        else {
            return Local::No(Der::NONEXIST);
        };
        let root = space.is_root(me);
        let entry = space.entries.get(key);
        if let Some(entry) = entry
            && let Some(value) = &entry.value
            && entry.confirmed
            && entry.version >= at_least
            && (root || now < entry.fresh_until)
            && class.valid(key, entry.version)
        {
            return Local::Copy(Copy {
                version: entry.version,
                value: value.clone(),
                fresh_for: if root {
                    class.lease()
                } else {
                    entry.fresh_until - now
                },
            });
        }
        if space.leader.is_none() {
            return Local::No(Der::NOTLEADER);
        }
        if !root {
            return Local::Ask;
        }
        let kept = entry.and_then(|entry| entry.value.clone());
        let value = match class.fetch(&space.place(me), key, kept.as_ref()) {
            Ok(value) if value.len() > class.max_value() => return Local::No(Der::OVERFLOW),
            Ok(value) => value,
            Err(der) => return Local::No(der),
        };
        let (version, fresh_for) = (space.stamp(key), class.lease());
        if version < at_least {
            // Somebody has heard of a later leader.
            return Local::No(Der::NOTLEADER);
        }
        if let Err(der) = self.keep_version(ns, key, version, Some(value.clone()), Nanos::MAX) {
            return Local::No(der);
        }
        Local::Copy(Copy {
            version,
            value,
            fresh_for,
        })
    }

    /// Waits for the parent's answer, together with who waits already.
    fn wait(
        &mut self,
        now: Nanos,
        ns: NsId,
        key: Key,
        waiter: Waiter,
        to_root: bool,
    ) -> Result<(), Der> {
        let most = self.options.max_waiters;
        let space = self.spaces.get_mut(&ns).ok_or(Der::NONEXIST)?;
        if let Some(miss) = space.misses.get_mut(&key) {
            let same = |other: &Waiter| match (other.asker, waiter.asker) {
                (Asker::Peer { rank: one, .. }, Asker::Peer { rank: two, .. }) => one == two,
                (one, two) => one == two,
            };
            // A peer that asks again has given its earlier question up.
            miss.waiters.retain(|other| !same(other));
            if miss.waiters.len() >= most {
                return Err(Der::BUSY);
            }
            miss.waiters.push(waiter);
            return Ok(());
        }
        space.upwards(to_root)?;
        self.entry(ns, &key)?;
        let miss = Miss {
            waiters: vec![waiter],
            token: 0,
            hop: 0,
            sent_at: now,
            asked: Version::default(),
            attempts: 0,
            to_root,
        };
        if let Some(space) = self.spaces.get_mut(&ns) {
            space.misses.insert(key, miss);
        }
        self.ask(now, ns, &key);
        Ok(())
    }

    /// Asks upwards, for no older version than anybody here has heard of.
    fn ask(&mut self, now: Nanos, ns: NsId, key: &Key) {
        let token = self.number();
        let Some(space) = self.spaces.get_mut(&ns) else {
            return;
        };
        let Some(to_root) = space.misses.get(key).map(|miss| miss.to_root) else {
            return;
        };
        let hop = match space.upwards(to_root) {
            Ok(hop) => hop,
            Err(der) => return self.give_up(now, ns, key, der),
        };
        let heard = space
            .entries
            .get(key)
            .map(|entry| entry.version)
            .unwrap_or_default();
        let Some(miss) = space.misses.get_mut(key) else {
            return;
        };
        miss.asked = miss
            .waiters
            .iter()
            .fold(heard, |most, waiter| most.max(waiter.at_least));
        (miss.token, miss.hop, miss.sent_at) = (token, hop, now);
        miss.attempts += 1;
        let until = miss
            .waiters
            .iter()
            .map(|waiter| waiter.until)
            .max()
            .unwrap_or(now);
        let (at_least, patience) = (miss.asked, self.options.hop_ns << miss.attempts.min(5) >> 1);
        let own = miss.waiters.iter().filter_map(|waiter| match waiter.asker {
            Asker::Own(op) => Some(op),
            Asker::Peer { .. } => None,
        });
        for op in own {
            if let Some(operation) = self.operations.get_mut(&op) {
                operation.asked = Some(hop);
            }
        }
        self.at(now + patience, Timer::Miss(ns, *key, token));
        let body = Body::Fetch {
            token,
            key: *key,
            at_least,
            budget: until.saturating_sub(now),
        };
        self.send(hop, ns, body);
    }

    pub(crate) fn miss_is_silent(&mut self, now: Nanos, ns: NsId, key: Key, token: u64) {
        let Some(space) = self.spaces.get_mut(&ns) else {
            return;
        };
        let Some(miss) = space
            .misses
            .get_mut(&key)
            .filter(|miss| miss.token == token)
        else {
            return;
        };
        miss.waiters.retain(|waiter| waiter.until > now);
        if miss.waiters.is_empty() {
            space.misses.remove(&key);
            return;
        }
        self.ask(now, ns, &key);
    }

    pub(crate) fn restart_misses(&mut self, now: Nanos, ns: NsId) {
        let Some(space) = self.spaces.get(&ns) else {
            return;
        };
        for key in space.misses.keys().copied().collect::<Vec<_>>() {
            // Perhaps this rank is the root now.
            let miss = self
                .spaces
                .get_mut(&ns)
                .and_then(|space| space.misses.remove(&key));
            let Some(miss) = miss else { continue };
            for waiter in miss.waiters {
                self.serve(now, ns, key, waiter, miss.to_root);
            }
        }
    }

    pub(crate) fn fetched(
        &mut self,
        now: Nanos,
        from: Rank,
        ns: NsId,
        token: u64,
        result: Result<Copy, Der>,
    ) {
        let Some(space) = self.spaces.get(&ns) else {
            return;
        };
        let found = space
            .misses
            .iter()
            .find(|(_, miss)| miss.token == token && miss.hop == from);
        let Some((key, asked, sent_at)) = found.map(|(key, miss)| (*key, miss.asked, miss.sent_at))
        else {
            return;
        };
        let kept = result.and_then(|copy| self.keep(ns, &key, asked, sent_at, copy));
        let copy = match kept {
            Ok(copy) => copy,
            Err(der) => return self.give_up(now, ns, &key, der),
        };
        let miss = self
            .spaces
            .get_mut(&ns)
            .and_then(|space| space.misses.remove(&key));
        let Some(miss) = miss else { return };
        let fresh_until = sent_at.saturating_add(copy.fresh_for);
        for waiter in miss.waiters {
            let newest = self
                .spaces
                .get(&ns)
                .and_then(|space| space.entries.get(&key));
            let is_newest = newest.is_some_and(|entry| entry.version == copy.version);
            if is_newest && copy.version >= waiter.at_least {
                let copy = Copy {
                    fresh_for: fresh_until.saturating_sub(now),
                    ..copy.clone()
                };
                self.deliver(now, ns, waiter.asker, Ok(copy));
            } else {
                // Overtaken by a newer version, or asked for later and for more.
                self.serve(now, ns, key, waiter, miss.to_root);
            }
        }
    }

    /// Checks what the parent says and keeps it.
    fn keep(
        &mut self,
        ns: NsId,
        key: &Key,
        asked: Version,
        sent_at: Nanos,
        copy: Copy,
    ) -> Result<Copy, Der> {
        let me = self.me;
        let space = self.spaces.get(&ns).ok_or(Der::NONEXIST)?;
        let class = self.classes.get_mut(&key.class()).ok_or(Der::NONEXIST)?;
        if copy.value.len() > class.max_value() {
            return Err(Der::OVERFLOW);
        }
        // A version of a leader that nobody told us of, or an older one than asked for: a lie, or a message of another time.
        if copy.version.term > space.term || copy.version < asked {
            return Err(Der::GRPVER);
        }
        let heard = space
            .entries
            .get(key)
            .map(|entry| entry.version)
            .unwrap_or_default();
        if copy.version < heard {
            return Ok(copy);
        }
        let change = Change::Set(copy.value.clone());
        class.refresh(&space.place(me), key, &change, copy.version)?;
        let fresh_for = copy.fresh_for.min(class.lease());
        let fresh_until = sent_at.saturating_add(fresh_for);
        self.keep_version(ns, key, copy.version, Some(copy.value.clone()), fresh_until)?;
        Ok(Copy { fresh_for, ..copy })
    }

    /// All who wait hear why there is nothing.
    fn give_up(&mut self, now: Nanos, ns: NsId, key: &Key, der: Der) {
        let miss = self
            .spaces
            .get_mut(&ns)
            .and_then(|space| space.misses.remove(key));
        for waiter in miss.into_iter().flat_map(|miss| miss.waiters) {
            self.deliver(now, ns, waiter.asker, Err(der));
        }
    }

    fn deliver(&mut self, now: Nanos, ns: NsId, asker: Asker, result: Result<Copy, Der>) {
        match (asker, result) {
            (Asker::Own(op), Ok(copy)) => {
                let value = Some(copy.value);
                let version = copy.version;
                self.succeed(op, Stamp { version, value });
            }
            (Asker::Own(op), Err(der)) => self.refused(now, op, der),
            (Asker::Peer { rank, token, group }, result) => {
                let space = self.spaces.get(&ns);
                let same = space.is_some_and(|space| space.group.version() == group);
                let result = if same { result } else { Err(Der::GRPVER) };
                self.send(rank, ns, Body::Fetched { token, result });
            }
        }
    }
}
