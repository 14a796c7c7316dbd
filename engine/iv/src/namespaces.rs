//! Namespaces come and go, their members and leaders change.

use daos_errno::Der;

use crate::iv::Iv;
use crate::options::Nanos;
use crate::space::{Asker, Space};
use crate::{Group, NsId, Rank, Tree};

impl Iv {
    /// One more user of a namespace; the first makes it, without members and leader.
    ///
    /// # Errors
    /// `INVAL`: the tree's ratio. `SHUTDOWN`: it is being stopped.
    pub fn connect(&mut self, ns: NsId, tree: Tree) -> Result<(), Der> {
        let tree = tree.checked()?;
        let space = self
            .spaces
            .entry(ns)
            .or_insert_with(|| Space::new(ns, tree));
        if space.stopping {
            return Err(Der::SHUTDOWN);
        }
        space.users += 1;
        Ok(())
    }

    /// Refuses new operations and messages of a namespace: SHUTDOWN. Those under way go on.
    pub fn stop(&mut self, ns: NsId) {
        if let Some(space) = self.spaces.get_mut(&ns) {
            space.stopping = true;
        }
    }

    /// One user less; with the last one goes the namespace, and what is under way ends with SHUTDOWN.
    ///
    /// # Errors
    /// `NONEXIST`: no such namespace.
    pub fn disconnect(&mut self, ns: NsId) -> Result<(), Der> {
        let space = self.spaces.get_mut(&ns).ok_or(Der::NONEXIST)?;
        space.users -= 1;
        if space.users > 0 {
            return Ok(());
        }
        for key in space.entries.keys() {
            if let Some(class) = self.classes.get_mut(&key.class()) {
                class.forget(key);
            }
        }
        self.spaces.remove(&ns);
        self.all_changed(ns);
        let own = self
            .operations
            .iter()
            .filter(|(_, operation)| operation.ns == ns);
        for op in own.map(|(op, _)| *op).collect::<Vec<_>>() {
            self.fail(op, Der::SHUTDOWN, false);
        }
        Ok(())
    }

    /// Membership has a new group; ignored unless it is newer than the one known.
    pub fn set_group(&mut self, now: Nanos, ns: NsId, group: Group) {
        let me = self.me;
        let Some(space) = self
            .spaces
            .get_mut(&ns)
            .filter(|space| group.version() > space.group.version())
        else {
            return;
        };
        // Whoever may have been left out for a while has missed changes that others were told of.
        let throughout = space.group.contains(me) && group.contains(me);
        let doubts = !throughout || group.version() != space.group.version() + 1;
        if doubts {
            space.doubt();
        }
        space.group = group;
        space.find_place(me);
        if doubts {
            self.all_changed(ns);
        }
        self.turn_over(now, ns, Der::GRPVER);
    }

    /// Membership has a new leader; ignored unless its term is greater than the one known, or that one's leader was taken back.
    pub fn set_leader(&mut self, now: Nanos, ns: NsId, leader: Rank, term: u64) {
        let me = self.me;
        let newer = |space: &&mut Space| {
            term > space.term || (term == space.term && space.leader.is_none())
        };
        let Some(space) = self.spaces.get_mut(&ns).filter(newer) else {
            return;
        };
        let doubts = space.is_root(me) || leader == me;
        let anew = term > space.term;
        space.lead(leader, term);
        self.led_anew(now, ns, doubts);
        if anew && let Some(space) = self.spaces.get_mut(&ns) {
            space.window.clear();
        }
    }

    /// Nobody may lead until membership says who: this rank's lease is over, or the leader's is. The same leader may come back in the
    /// same term, if it has lost nothing.
    pub fn unset_leader(&mut self, now: Nanos, ns: NsId) {
        if let Some(space) = self.spaces.get_mut(&ns)
            && space.leader.is_some()
        {
            let was_root = space.is_root(self.me);
            space.leader = None;
            self.led_anew(now, ns, was_root);
        }
    }

    /// A former root may have been the last to hear of its successor; a new one knows only what a member knew.
    fn led_anew(&mut self, now: Nanos, ns: NsId, doubts: bool) {
        let me = self.me;
        if let Some(space) = self.spaces.get_mut(&ns) {
            if doubts {
                space.doubt();
            }
            space.find_place(me);
        }
        if doubts {
            self.all_changed(ns);
        }
        self.turn_over(now, ns, Der::NOTLEADER);
    }

    /// What is under way in an old tree starts again in the new one, or is left to who asked.
    fn turn_over(&mut self, now: Nanos, ns: NsId, why: Der) {
        self.restart_spreads(now, ns, why);
        let Some(space) = self.spaces.get_mut(&ns) else {
            return;
        };
        let passing = std::mem::take(&mut space.passing);
        for passing in passing.into_values() {
            if let Asker::Own(op) = passing.asker {
                self.refused(now, op, why);
            }
        }
        self.restart_misses(now, ns);
    }
}
