//! The way down: a stamped change goes to the children, and with `wait` the answer comes back when all below have it.

use daos_errno::Der;

use crate::iv::Iv;
use crate::message::{Body, Change, RequestId, Stamp};
use crate::options::{Nanos, is_transient};
use crate::space::Asker;
use crate::timers::Timer;
use crate::window::Seen;
use crate::{Key, NsId, Rank, Version};

/// Most who wait for the same change at the root: its attempts by different ways.
const MOST_REPLIES: usize = 8;

/// A stamped change.
#[derive(Clone, Debug)]
pub(crate) struct News {
    pub(crate) key: Key,
    pub(crate) version: Version,
    pub(crate) change: Change,
    /// Answer only when all below have it.
    pub(crate) wait: bool,
}

/// A change on its way down from here.
#[derive(Debug)]
pub(crate) struct Spread {
    news: News,
    /// Children that have not answered.
    remaining: Vec<Rank>,
    /// The first refusal that will not pass, and the last one that might have.
    failed: Option<Der>,
    last: Option<Der>,
    up: Up,
    until: Nanos,
    sent: u32,
}

/// Who hears of the end.
#[derive(Debug)]
pub(crate) enum Up {
    Nobody,
    Parent {
        rank: Rank,
        token: u64,
    },
    /// At the root: who asked for the change.
    Origin {
        request: RequestId,
        version: Version,
        replies: Vec<Asker>,
    },
}

impl Up {
    pub(crate) fn origin(request: RequestId, version: Version, asker: Asker) -> Up {
        Up::Origin {
            request,
            version,
            replies: vec![asker],
        }
    }
}

impl Iv {
    /// Starts at the root, or goes on below it; `failed`: this rank itself does not take it.
    pub(crate) fn spread(
        &mut self,
        now: Nanos,
        ns: NsId,
        news: News,
        (up, failed): (Up, Option<Der>),
        budget: Nanos,
    ) -> Result<(), Der> {
        let (me, token) = (self.me, self.number());
        let space = self.spaces.get_mut(&ns).ok_or(Der::NONEXIST)?;
        if space.spreads.len() >= self.options.max_passing {
            return Err(Der::BUSY);
        }
        if let Some(class) = self.classes.get_mut(&news.key.class()) {
            class.pre_sync(&space.place(me), &news.key, &news.change);
        }
        if space.children.is_empty() {
            match up {
                Up::Origin { .. } => {}
                Up::Nobody => return Ok(()),
                Up::Parent { rank, token } => {
                    self.finish(ns, (rank, token), failed.map_or(Ok(()), Err));
                    return Ok(());
                }
            }
        }
        if let Up::Origin { request, .. } = &up {
            space.window.note(*request, Seen::Spreading(token));
        }
        let spread = Spread {
            news,
            remaining: space.children.clone(),
            failed,
            last: None,
            up,
            // The rest is for the answer's way.
            until: now.saturating_add(budget - budget / 8),
            sent: 0,
        };
        if let Up::Parent { rank, token } = spread.up {
            space.begun.insert((rank, token));
        }
        space.spreads.insert(token, spread);
        self.tell_children(now, ns, token);
        Ok(())
    }

    /// The same change by another way, or again.
    pub(crate) fn join_spread(&mut self, ns: NsId, token: u64, asker: Asker) {
        let spread = self
            .spaces
            .get_mut(&ns)
            .and_then(|space| space.spreads.get_mut(&token));
        if let Some(Spread {
            up: Up::Origin { replies, .. },
            ..
        }) = spread
            && !replies.contains(&asker)
        {
            if replies.len() >= MOST_REPLIES {
                replies.remove(0);
            }
            replies.push(asker);
        }
    }

    /// Tells those that have not answered, and ends the spread if there are none.
    fn tell_children(&mut self, now: Nanos, ns: NsId, token: u64) {
        let spread = self
            .spaces
            .get_mut(&ns)
            .and_then(|space| space.spreads.get_mut(&token));
        let Some(spread) = spread else { return };
        if spread.remaining.is_empty() {
            return self.end_spread(now, ns, token);
        }
        spread.sent += 1;
        let patience = self.options.hop_ns << spread.sent.min(5) >> 1;
        let next = (now + patience).min(spread.until);
        let body = Body::Sync {
            token,
            key: spread.news.key,
            version: spread.news.version,
            change: spread.news.change.clone(),
            wait: spread.news.wait,
            budget: spread.until.saturating_sub(now),
        };
        let children = spread.remaining.clone();
        self.at(next, Timer::Spread(ns, token));
        for child in children {
            self.send(child, ns, body.clone());
        }
    }

    pub(crate) fn spread_is_silent(&mut self, now: Nanos, ns: NsId, token: u64) {
        let spread = self
            .spaces
            .get_mut(&ns)
            .and_then(|space| space.spreads.get_mut(&token));
        let Some(spread) = spread else { return };
        if now < spread.until {
            return self.tell_children(now, ns, token);
        }
        spread.failed = spread.failed.or(spread.last).or(Some(Der::TIMEDOUT));
        self.end_spread(now, ns, token);
    }

    /// News from `from`, who asked with `asked`.
    pub(crate) fn news_from_parent(
        &mut self,
        now: Nanos,
        (from, asked): (Rank, u64),
        ns: NsId,
        news: News,
        budget: Nanos,
    ) {
        let Some(space) = self.spaces.get(&ns) else {
            return;
        };
        if space.begun.contains(&(from, asked)) {
            return; // the answer comes when all below have it
        }
        if space.finished.contains((from, asked)) {
            return self.finish(ns, (from, asked), Ok(()));
        }
        // The leader's own term, by way of the parent: anything else is a lie.
        if space.parent != Some(from) || news.version.term != space.term {
            return self.finish(ns, (from, asked), Err(Der::INVAL));
        }
        let failed = self.take(now, ns, &news).err();
        let parent = Up::Parent {
            rank: from,
            token: asked,
        };
        let up = if news.wait { parent } else { Up::Nobody };
        let waits = news.wait;
        let begun = self.spread(now, ns, news, (up, failed), budget);
        match (begun, failed) {
            (Ok(()), _) if waits => {}
            (Err(der), _) | (Ok(()), Some(der)) => self.finish(ns, (from, asked), Err(der)),
            (Ok(()), None) => self.finish(ns, (from, asked), Ok(())),
        }
    }

    /// This rank's own part: its class and its cache.
    fn take(&mut self, now: Nanos, ns: NsId, news: &News) -> Result<(), Der> {
        let me = self.me;
        let space = self.spaces.get(&ns).ok_or(Der::NONEXIST)?;
        let class = self
            .classes
            .get_mut(&news.key.class())
            .ok_or(Der::NONEXIST)?;
        let heard = space
            .entries
            .get(&news.key)
            .map(|entry| entry.version)
            .unwrap_or_default();
        if news.version < heard {
            return Ok(());
        }
        class.refresh(&space.place(me), &news.key, &news.change, news.version)?;
        let fresh_until = now.saturating_add(class.lease());
        let value = match &news.change {
            Change::Set(value) => Some(value.clone()),
            Change::Invalidate => None,
        };
        self.keep_version(ns, &news.key, news.version, value, fresh_until)
    }

    pub(crate) fn synced(
        &mut self,
        now: Nanos,
        from: Rank,
        ns: NsId,
        token: u64,
        result: Result<(), Der>,
    ) {
        let spread = self
            .spaces
            .get_mut(&ns)
            .and_then(|space| space.spreads.get_mut(&token));
        let Some(spread) = spread else { return };
        let Some(at) = spread.remaining.iter().position(|child| *child == from) else {
            return;
        };
        match result {
            // It is told again when the patience with the others is over.
            Err(der) if is_transient(der) => {
                spread.last = Some(der);
                return;
            }
            Err(der) => spread.failed = spread.failed.or(Some(der)),
            Ok(()) => {}
        }
        spread.remaining.swap_remove(at);
        if spread.remaining.is_empty() {
            self.end_spread(now, ns, token);
        }
    }

    fn end_spread(&mut self, now: Nanos, ns: NsId, token: u64) {
        let spread = self
            .spaces
            .get_mut(&ns)
            .and_then(|space| space.spreads.remove(&token));
        let Some(spread) = spread else { return };
        let result = spread.failed.map_or(Ok(()), Err);
        match spread.up {
            Up::Nobody => {}
            Up::Parent { rank, token } => {
                if let Some(space) = self.spaces.get_mut(&ns) {
                    space.begun.remove(&(rank, token));
                }
                self.finish(ns, (rank, token), result);
            }
            Up::Origin {
                request,
                version,
                replies,
            } => {
                if let Some(space) = self.spaces.get_mut(&ns) {
                    space.window.note(request, Seen::Applied(version, result));
                }
                let value = None;
                for asker in replies {
                    let result = result.map(|()| Stamp {
                        version,
                        value: value.clone(),
                    });
                    self.reply(now, ns, asker, result);
                }
            }
        }
    }

    /// Answers a parent. A success is remembered; after a refusal the parent may try again.
    fn finish(&mut self, ns: NsId, (parent, token): (Rank, u64), result: Result<(), Der>) {
        if let Some(space) = self.spaces.get_mut(&ns)
            && result.is_ok()
        {
            space.finished.note((parent, token));
        }
        self.send(parent, ns, Body::Synced { token, result });
    }

    /// After a change of group or leader: the root begins anew in the new tree; below it the new parents will tell.
    pub(crate) fn restart_spreads(&mut self, now: Nanos, ns: NsId, why: Der) {
        let me = self.me;
        let Some(space) = self.spaces.get_mut(&ns) else {
            return;
        };
        space.finished.clear();
        space.begun.clear();
        let still_root = why == Der::GRPVER && space.is_root(me);
        let mut spreads: Vec<_> = space.spreads.drain().collect();
        spreads.sort_unstable_by_key(|(token, _)| *token);
        for (_, mut spread) in spreads {
            if still_root {
                // A new token: an answer for a branch of the old tree says nothing about one of the new tree.
                let token = self.number();
                if let Some(space) = self.spaces.get_mut(&ns) {
                    if let Up::Origin { request, .. } = &spread.up {
                        space.window.note(*request, Seen::Spreading(token));
                    }
                    // New members know nothing, and must not take for new what has been replaced since.
                    if let Some(entry) = space.entries.get(&spread.news.key)
                        && entry.version > spread.news.version
                    {
                        spread.news.version = entry.version;
                        spread.news.change =
                            entry.value.clone().map_or(Change::Invalidate, Change::Set);
                    }
                    spread.remaining.clone_from(&space.children);
                    space.spreads.insert(token, spread);
                }
                self.tell_children(now, ns, token);
            } else if let Up::Origin {
                request,
                version,
                replies,
            } = spread.up
            {
                // It took effect here. A leader that comes back in its term must not apply it twice.
                if let Some(space) = self.spaces.get_mut(&ns) {
                    space.window.note(request, Seen::Applied(version, Err(why)));
                }
                for asker in replies {
                    self.reply(now, ns, asker, Err(why));
                }
            }
        }
    }
}
