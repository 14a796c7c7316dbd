//! One connection's life: join, watch, keep the lease, publish when this engine leads.

use std::sync::Arc;
use std::time::Duration;

use engine_membership::{Announcement, Desk};
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::board::{Board, Publication};
use crate::client::{Client, ClientError};
use crate::fence::{Fence, Page};
use crate::keys::{Card, Keys, Seen};
use crate::options::Options;
use crate::post::Post;
use crate::proto::event::EventType;
use crate::proto::{Event, TxnResponse, WatchResponse};
use crate::txn;

/// The pause after a session that had settled.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between two attempts to reach etcd; less for short leases.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// For etcd to hear that this engine leaves.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why a session ended.
pub(crate) enum End {
    /// etcd does not answer, or has cut us off.
    Lost(String),
    /// What it says is not for us to act on.
    Refused(String),
    /// What was watched is compacted away, the lease is over, or somebody was faster: begin anew.
    Anew,
}

impl From<ClientError> for End {
    fn from(error: ClientError) -> End {
        End::Lost(error.to_string())
    }
}

/// This engine's dealings with etcd.
pub(crate) struct Member {
    options: Options,
    keys: Keys,
    me: Announcement,
    rank: u32,
    desk: Arc<dyn Desk>,
    post: Arc<Post>,
    fence: Fence,
    board: Board,
    client: Option<Client>,
    /// The endpoint that is tried first.
    endpoint: usize,
    /// The lease that it has; the last one that it asked for, though nobody may have heard the answer to what it did with it.
    lease: Option<i64>,
    granted: Option<i64>,
    /// Whether it was a member before: then it comes back in another life.
    joined: bool,
}

impl Member {
    pub(crate) fn new(
        options: Options,
        (me, rank): (Announcement, u32),
        desk: Arc<dyn Desk>,
        fence: Fence,
    ) -> Member {
        let keys = Keys::new(&options.prefix);
        Member {
            board: Board::new(keys.clone()),
            options,
            keys,
            post: Arc::new(Post::new(Arc::clone(&desk), me.incarnation)),
            me,
            rank,
            desk,
            fence,
            client: None,
            endpoint: 0,
            lease: None,
            granted: None,
            joined: false,
        }
    }

    /// Until the engine stops; then leaves, so that nobody has to wait for the end of the lease.
    pub(crate) async fn run(mut self, mut stop: Receiver<bool>) {
        let post = Arc::clone(&self.post);
        tokio::select! {
            // An error: whoever could stop it is gone.
            _ = stop.wait_for(|stop| *stop) => {}
            () = post.step_down_in_time() => {}
            () = self.serve() => {}
        }
        self.post.rely(None);
        let (Some(client), Some(lease)) = (self.client, self.lease) else {
            return;
        };
        let heard = timeout(FAREWELL, client.revoke(lease)).await;
        if !matches!(heard, Ok(Ok(()))) {
            tracing::warn!("etcd was not told that this engine leaves: its lease has to end");
        }
    }

    /// One session after the other. Never returns.
    async fn serve(&mut self) {
        let longest = LONGEST_PAUSE.min(self.options.lease / 4);
        let mut pause = SHORTEST_PAUSE;
        loop {
            match self.live(&mut pause).await {
                End::Anew => {}
                End::Refused(why) => self.post.deaf(why),
                End::Lost(why) => {
                    self.endpoint += 1;
                    self.post.deaf(format!(
                        "etcd is not reached: {why}; the group's last map is kept. cure: start etcd, or correct `group.etcd`"
                    ));
                }
            }
            // Engines that lost etcd at one moment do not come back at one moment.
            let spread = pause * (self.rank % 16) / 16;
            sleep(pause + spread).await;
            pause = (pause * 2).min(longest);
        }
    }

    async fn live(&mut self, pause: &mut Duration) -> End {
        match self.session(pause).await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn session(&mut self, pause: &mut Duration) -> Result<std::convert::Infallible, End> {
        let client = Client::connect(&self.options, self.endpoint).await?;
        self.client = Some(client.clone());
        let revision = self.list(&client).await?;
        self.join(&client).await?;
        let mut watch = client.watch(self.keys.all(), revision + 1).await?;
        let mut renew = Instant::now() + self.options.patience();
        loop {
            self.settle(&client).await?;
            *pause = SHORTEST_PAUSE;
            tokio::select! {
                () = sleep_until(renew) => {
                    renew = Instant::now() + self.options.patience();
                    if !self.renewed(&client).await? {
                        return Err(self.lost());
                    }
                    self.post.repeat();
                }
                seen = watch.next() => self.see(seen?).await?,
            }
        }
    }

    /// What stands in etcd, if it is not of the past; its revision.
    async fn list(&mut self, client: &Client) -> Result<i64, End> {
        let listed = client.list(self.keys.all()).await?;
        let header = listed.header.unwrap_or_default();
        self.fence.check(header.revision).map_err(|why| {
            // Who leads by what nobody can know is no leader.
            self.post.rely(None);
            End::Refused(why)
        })?;
        self.board.load(&listed.kvs);
        let page = self.fence.meet(header.cluster_id);
        keep(page).await?;
        self.pass(header.revision).await?;
        Ok(header.revision)
    }

    /// The document, on the disk before anybody acts on it, unless it is in doubt.
    async fn pass(&mut self, revision: i64) -> Result<(), End> {
        let stamp = self.board.stamp();
        let certain = stamp.filter(|_| self.fence.doubts(stamp).is_none());
        keep(self.fence.pass(revision, certain)).await
    }

    /// The lease that the engine has, if it still holds; else a new one, and a key of its own under it.
    async fn join(&mut self, client: &Client) -> Result<(), End> {
        self.own_rank(client).await?;
        let stands = self.board.members.get(&self.rank).map(|mine| mine.lease);
        if self.lease.is_some() {
            return match stands == self.lease && self.renewed(client).await? {
                true => Ok(()),
                false => Err(self.lost()),
            };
        }
        self.end_earlier_life(client).await?;
        if self.joined {
            self.another_life().await?;
            // One life, however many attempts it takes.
            self.joined = false;
        }
        let begun = Instant::now();
        let id = client.grant(self.options.lease).await?;
        self.granted = Some(id);
        let value = self.card(Seen::default())?;
        let create = txn::create((self.keys.member(self.rank), value), Some(id));
        if !self.transact(client, create).await?.succeeded {
            return Err(End::Anew);
        }
        self.lease = Some(id);
        self.joined = true;
        self.post.lives(self.me.incarnation);
        self.post.rely(Some(begun + self.options.reliance()));
        tracing::info!(
            rank = self.rank,
            incarnation = self.me.incarnation,
            "this engine has joined the group in etcd"
        );
        Ok(())
    }

    /// A key that an earlier life of this engine has left goes with its lease.
    async fn end_earlier_life(&mut self, client: &Client) -> Result<(), End> {
        let Some(other) = self.board.members.get(&self.rank) else {
            return Ok(());
        };
        let (card, lease) = (&other.card, other.lease);
        let is_mine = card.uuid == self.me.uuid
            && (card.incarnation < self.me.incarnation || Some(lease) == self.granted);
        if !is_mine {
            return Err(End::Refused(format!(
                "rank {} is held by engine {} at {} in its life {}, and this is {} in life {}. cure: stop the one of the two that is a copy; if it does not run any more, its lease ends by itself",
                self.rank,
                card.uuid,
                card.address,
                card.incarnation,
                self.me.uuid,
                self.me.incarnation
            )));
        }
        client.revoke(lease).await?;
        self.board.members.remove(&self.rank);
        Ok(())
    }

    /// On the disk before anybody hears of it.
    async fn another_life(&mut self) -> Result<(), End> {
        let desk = Arc::clone(&self.desk);
        let life = blocking(move || desk.new_life()).await;
        self.me.incarnation =
            life.map_err(|error| End::Refused(format!("another life cannot begin: {error}")))?;
        Ok(())
    }

    fn card(&self, seen: Seen) -> Result<Vec<u8>, End> {
        let card = Card {
            uuid: self.me.uuid.clone(),
            address: self.me.address,
            incarnation: self.me.incarnation,
            seen,
        };
        serde_json::to_vec(&card).map_err(|error| End::Refused(error.to_string()))
    }

    /// The rank belongs to this engine: nobody else may have it, whoever comes first.
    async fn own_rank(&mut self, client: &Client) -> Result<(), End> {
        let key = self.keys.rank(self.rank);
        match self.board.ranks.get(&self.rank) {
            Some(owner) if *owner == self.me.uuid => Ok(()),
            Some(owner) => Err(End::Refused(format!(
                "rank {} belongs to engine {owner} in etcd, and this is engine {}. cure: give this engine another `engine.rank`, or delete the key {} if that engine is gone for ever",
                self.rank,
                self.me.uuid,
                String::from_utf8_lossy(&key)
            ))),
            None => {
                let create = txn::create((key, self.me.uuid.clone().into_bytes()), None);
                match self.transact(client, create).await?.succeeded {
                    true => Ok(()),
                    false => Err(End::Anew),
                }
            }
        }
    }

    /// Renews the lease; false: it is over.
    async fn renewed(&mut self, client: &Client) -> Result<bool, End> {
        let Some(lease) = self.lease else {
            return Ok(false);
        };
        // etcd counts from later on.
        let begun = Instant::now();
        let holds = client.renew(lease).await?;
        if holds {
            self.post.rely(Some(begun + self.options.reliance()));
        }
        Ok(holds)
    }

    /// The lease is over: others have put this engine out, and may have another leader.
    fn lost(&mut self) -> End {
        tracing::warn!(
            rank = self.rank,
            "this engine's lease in etcd is over: it was put out of the group, and comes back in another life"
        );
        self.lease = None;
        self.post.rely(None);
        End::Anew
    }

    async fn see(&mut self, seen: WatchResponse) -> Result<(), End> {
        if seen.canceled {
            if seen.compact_revision > 0 {
                tracing::info!(
                    revision = seen.compact_revision,
                    "what was to be watched in etcd is compacted away: listed anew"
                );
                return Err(End::Anew);
            }
            return Err(End::Lost(format!(
                "the watch ended: {}",
                seen.cancel_reason
            )));
        }
        seen.events.iter().for_each(|event| self.board.apply(event));
        self.pass(seen.header.unwrap_or_default().revision).await?;
        let mine = self.board.members.get(&self.rank).map(|mine| mine.lease);
        // Not yet seen is not gone: only a key that was there can be deleted.
        if mine != self.lease && seen.events.iter().any(|event| self.is_my_end(event)) {
            return Err(self.lost());
        }
        Ok(())
    }

    fn is_my_end(&self, event: &Event) -> bool {
        let mine = self.keys.member(self.rank);
        event.r#type() == EventType::Delete && event.kv.as_ref().is_some_and(|kv| kv.key == mine)
    }

    /// Does what this engine has to do for what stands there, and hands it in.
    async fn settle(&mut self, client: &Client) -> Result<(), End> {
        if self.fence.doubts(self.board.stamp()).is_some() {
            self.tell_what_was_seen(client).await?;
        }
        if self.board.is_of_the_past(self.rank) {
            tracing::warn!(
                rank = self.rank,
                "this engine would lead in a term that is over: it joins anew"
            );
            let lease = self.lease.take();
            self.post.rely(None);
            client.revoke(lease.unwrap_or_default()).await?;
            return Err(End::Anew);
        }
        self.publish(client).await?;
        let doubt = self.fence.doubts(self.board.stamp());
        let map = self.board.group().filter(|_| doubt.is_none());
        self.post.heard(
            map.and_then(|group| group.map().ok()),
            &doubt.unwrap_or_default(),
        );
        Ok(())
    }

    /// The leader has to write a version that is greater than what this engine has seen, and must not lead in an older term.
    async fn tell_what_was_seen(&mut self, client: &Client) -> Result<(), End> {
        let seen = self.fence.seen();
        let Some(mine) = self.board.members.get(&self.rank) else {
            return Ok(());
        };
        if Some(mine.lease) != self.lease || mine.card.seen == seen {
            return Ok(());
        }
        let (key, value) = (self.keys.member(self.rank), self.card(seen)?);
        let holds = vec![txn::created(key.clone(), mine.since)];
        let put = txn::put(holds, (key, value), self.lease);
        match self.transact(client, put).await?.succeeded {
            true => {
                self.board.tells(self.rank, seen);
                Ok(())
            }
            false => Err(End::Anew),
        }
    }

    /// Writes what the leader has to write, if that is this engine.
    async fn publish(&mut self, client: &Client) -> Result<(), End> {
        while let Some(publication) = self.board.publication(self.rank, self.fence.seen().version) {
            let written = self.write(client, &publication).await?;
            let Some(revision) = written else {
                // Something has changed that the watch will tell of.
                return Ok(());
            };
            self.board.published(publication, revision);
            self.pass(revision).await?;
        }
        Ok(())
    }

    async fn write(&self, client: &Client, publication: &Publication) -> Result<Option<i64>, End> {
        let value = serde_json::to_vec(&publication.document)
            .map_err(|error| End::Refused(error.to_string()))?;
        let group = self.keys.group();
        let holds = vec![
            txn::created(self.keys.member(self.rank), publication.since),
            txn::written(group.clone(), publication.replaces),
        ];
        let answer = self
            .transact(client, txn::put(holds, (group, value), None))
            .await?;
        let revision = answer.header.unwrap_or_default().revision;
        Ok(answer.succeeded.then_some(revision))
    }

    /// A connection mends itself: another etcd may answer than the one that was listed.
    async fn transact(
        &self,
        client: &Client,
        txn: crate::proto::TxnRequest,
    ) -> Result<TxnResponse, End> {
        let answer = client.transact(txn).await?;
        let revision = answer.header.unwrap_or_default().revision;
        self.fence.check(revision).map_err(End::Refused)?;
        Ok(answer)
    }
}

/// Runs what blocks beside the runtime, whose timers must not wait for a disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panicked| Err(std::io::Error::other(panicked)))
}

async fn keep(page: Option<Page>) -> Result<(), End> {
    let Some(page) = page else {
        return Ok(());
    };
    let written = blocking(move || page.write()).await;
    written.map_err(|error| {
        End::Refused(format!(
            "what was seen of etcd cannot be kept in engine.group of the storage directory: {error}. cure: make room, or repair the disk"
        ))
    })
}
