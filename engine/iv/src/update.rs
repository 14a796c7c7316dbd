//! The way up for changes: from rank to rank to the root, which lets them take effect, once each.

use daos_errno::Der;

use crate::iv::{Iv, Output};
use crate::message::{Body, Change, RequestId, Stamp};
use crate::operation::OpId;
use crate::options::{How, Nanos, Shortcut, Sync};
use crate::space::Asker;
use crate::spread::{News, Up};
use crate::timers::Timer;
use crate::window::Seen;
use crate::{Key, NsId, Rank, Version};

/// A lazy change is told to children that do not answer for this many times `hop_ns`.
const LAZY_HOPS: u64 = 16;

/// A change on its way up.
#[derive(Clone, Debug)]
pub(crate) struct Rise {
    pub(crate) key: Key,
    pub(crate) change: Change,
    pub(crate) how: How,
    pub(crate) request: RequestId,
    pub(crate) budget: Nanos,
}

/// A change that went up from here and whose answer has not come down.
#[derive(Debug)]
pub(crate) struct Passing {
    pub(crate) asker: Asker,
    key: Key,
    hop: Rank,
}

impl Iv {
    pub(crate) fn attempt_change(&mut self, now: Nanos, op: OpId, ns: NsId, rise: Rise) {
        let attempts = self
            .operations
            .get(&op)
            .map_or(0, |operation| operation.attempts);
        let again = Timer::Again(op, attempts);
        self.at(now + (self.options.hop_ns << attempts.min(4)), again);
        self.raise(now, Asker::Own(op), ns, rise);
    }

    pub(crate) fn raise(&mut self, now: Nanos, asker: Asker, ns: NsId, rise: Rise) {
        let root = self
            .spaces
            .get(&ns)
            .is_some_and(|space| space.is_root(self.me));
        let result = if root {
            self.apply(now, asker, ns, rise)
        } else {
            self.pass_on(now, asker, ns, rise)
        };
        if let Err(der) = result {
            self.reply(now, ns, asker, Err(der));
        }
    }

    fn pass_on(&mut self, now: Nanos, asker: Asker, ns: NsId, rise: Rise) -> Result<(), Der> {
        let (me, token) = (self.me, self.number());
        let space = self.spaces.get_mut(&ns).ok_or(Der::NONEXIST)?;
        let class = self
            .classes
            .get_mut(&rise.key.class())
            .ok_or(Der::NONEXIST)?;
        let hop = space.upwards(rise.how.shortcut == Shortcut::ToRoot)?;
        if space.passing.len() >= self.options.max_passing {
            return Err(Der::BUSY);
        }
        let place = space.place(me);
        let change = class.update(&place, &rise.key, rise.change, rise.request)?;
        if change.len() > class.max_value() {
            return Err(Der::OVERFLOW);
        }
        let key = rise.key;
        space.passing.insert(token, Passing { asker, key, hop });
        if let Asker::Own(op) = asker
            && let Some(operation) = self.operations.get_mut(&op)
        {
            operation.asked = Some(hop);
        }
        let over = now.saturating_add(rise.budget);
        self.at(over, Timer::Passing(ns, token));
        let body = Body::Update {
            token,
            key,
            change,
            how: rise.how,
            request: rise.request,
            budget: rise.budget,
        };
        self.send(hop, ns, body);
        Ok(())
    }

    pub(crate) fn passing_is_over(&mut self, ns: NsId, token: u64) {
        if let Some(space) = self.spaces.get_mut(&ns) {
            space.passing.remove(&token);
        }
    }

    /// At the root: takes effect, unless it has already.
    fn apply(&mut self, now: Nanos, asker: Asker, ns: NsId, rise: Rise) -> Result<(), Der> {
        let (key, sync) = (rise.key, rise.how.sync);
        let space = self.spaces.get_mut(&ns).ok_or(Der::NONEXIST)?;
        match space.window.look(rise.request)? {
            None => {}
            Some(Seen::Spreading(spread)) => {
                self.join_spread(ns, spread, asker);
                return Ok(());
            }
            Some(Seen::Applied(version, Ok(()))) => {
                let stamp = self.stamp_of(ns, &key, version, sync);
                self.reply(now, ns, asker, Ok(stamp));
                return Ok(());
            }
            // Not everyone took it: tell all what is now, which is this change or a newer one.
            Some(Seen::Applied(version, Err(_))) => {
                let entry = space.entries.get(&key).ok_or(Der::NONEXIST)?;
                let news = News {
                    key,
                    version: entry.version.max(version),
                    change: entry.value.clone().map_or(Change::Invalidate, Change::Set),
                    wait: true,
                };
                let up = Up::origin(rise.request, version, asker);
                return self.spread(now, ns, news, (up, None), rise.budget);
            }
        }
        if space.spreads.len() >= self.options.max_passing {
            return Err(Der::BUSY);
        }
        let (request, budget) = (rise.request, rise.budget);
        let (version, change) = self.take_effect(ns, rise)?;
        let news = |wait| News {
            key,
            version,
            change: change.clone(),
            wait,
        };
        if sync == Sync::Eager {
            let up = Up::origin(request, version, asker);
            return self.spread(now, ns, news(true), (up, None), budget);
        }
        if let Some(space) = self.spaces.get_mut(&ns) {
            space.window.note(request, Seen::Applied(version, Ok(())));
        }
        if sync == Sync::Lazy {
            let longest = self.options.hop_ns.saturating_mul(LAZY_HOPS);
            self.spread(now, ns, news(false), (Up::Nobody, None), longest)?;
        }
        let stamp = self.stamp_of(ns, &key, version, sync);
        self.reply(now, ns, asker, Ok(stamp));
        Ok(())
    }

    fn take_effect(&mut self, ns: NsId, rise: Rise) -> Result<(Version, Change), Der> {
        let (me, key) = (self.me, rise.key);
        self.entry(ns, &key)?;
        let space = self.spaces.get_mut(&ns).ok_or(Der::NONEXIST)?;
        let class = self.classes.get_mut(&key.class()).ok_or(Der::NONEXIST)?;
        let change = class.update(&space.place(me), &key, rise.change, rise.request)?;
        if change.len() > class.max_value() {
            return Err(Der::OVERFLOW);
        }
        let value = match &change {
            Change::Set(value) => Some(value.clone()),
            Change::Invalidate => None,
        };
        let version = space.stamp(&key);
        self.keep_version(ns, &key, version, value, Nanos::MAX)?;
        Ok((version, change))
    }

    fn stamp_of(&self, ns: NsId, key: &Key, version: Version, sync: Sync) -> Stamp {
        let entry = self
            .spaces
            .get(&ns)
            .and_then(|space| space.entries.get(key));
        let value = entry.filter(|entry| entry.version == version && sync == Sync::Bidirectional);
        Stamp {
            version,
            value: value.and_then(|entry| entry.value.clone()),
        }
    }

    pub(crate) fn updated(
        &mut self,
        now: Nanos,
        from: Rank,
        ns: NsId,
        token: u64,
        result: Result<Stamp, Der>,
    ) {
        let Some(space) = self.spaces.get_mut(&ns) else {
            return;
        };
        if space
            .passing
            .get(&token)
            .is_none_or(|passing| passing.hop != from)
        {
            return;
        }
        let Some(passing) = space.passing.remove(&token) else {
            return;
        };
        let key = passing.key;
        let result = match result {
            Ok(stamp) if stamp.version.term > space.term => Err(Der::GRPVER),
            Ok(stamp) => self.learn(now, ns, &key, &stamp).map(|()| stamp),
            Err(der) => Err(der),
        };
        self.reply(now, ns, passing.asker, result);
    }

    /// What a stamp on its way down tells this rank: the value, or that its own is old.
    fn learn(&mut self, now: Nanos, ns: NsId, key: &Key, stamp: &Stamp) -> Result<(), Der> {
        let Some(value) = &stamp.value else {
            if self.entry(ns, key)?.outdate(stamp.version) {
                self.out.push_back(Output::Changed {
                    ns,
                    key: Some(*key),
                });
            }
            return Ok(());
        };
        let me = self.me;
        let space = self.spaces.get(&ns).ok_or(Der::NONEXIST)?;
        let class = self.classes.get_mut(&key.class()).ok_or(Der::NONEXIST)?;
        if value.len() > class.max_value() {
            return Err(Der::OVERFLOW);
        }
        let heard = space
            .entries
            .get(key)
            .map(|entry| entry.version)
            .unwrap_or_default();
        if stamp.version < heard {
            return Ok(());
        }
        let change = Change::Set(value.clone());
        class.refresh(&space.place(me), key, &change, stamp.version)?;
        let fresh_until = now.saturating_add(class.lease());
        self.keep_version(ns, key, stamp.version, Some(value.clone()), fresh_until)
    }
}
