//! What the engine is told, and that it steps down in time: also while a question to etcd is under way, and while there is no connection.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use engine_membership::{Desk, Map, Report, Standing};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// The engine's desk, what lies on it, and how long this engine may lead.
pub(crate) struct Post {
    desk: Arc<dyn Desk>,
    report: Mutex<Report>,
    /// Until when the lease can be relied on.
    until: watch::Sender<Option<Instant>>,
}

impl Post {
    pub(crate) fn new(desk: Arc<dyn Desk>, incarnation: u64) -> Post {
        Post {
            desk,
            report: Mutex::new(Report {
                map: None,
                standing: Standing {
                    may_lead: false,
                    ..Standing::good()
                },
                incarnation,
            }),
            until: watch::Sender::new(None),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Report> {
        // Fields are replaced one by one, each as a whole.
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Report)) {
        let mut report = self.lock();
        let before = report.clone();
        change(&mut report);
        let holds = self
            .until
            .borrow()
            .is_some_and(|until| Instant::now() < until);
        report.standing.may_lead = holds;
        if *report != before {
            self.desk.report(report.clone());
        }
    }

    /// A lease holds until then; `None`: there is none.
    pub(crate) fn rely(&self, until: Option<Instant>) {
        self.until.send_replace(until);
        self.change(|_| {});
    }

    /// etcd is heard, and says this. `note`: what is wrong all the same.
    pub(crate) fn heard(&self, map: Option<Map>, note: &str) {
        self.change(|report| {
            if map.is_some() {
                report.map = map;
            }
            report.standing.connected = true;
            note.clone_into(&mut report.standing.note);
        });
    }

    /// Nothing that etcd says can be acted on, and why.
    pub(crate) fn deaf(&self, note: String) {
        self.change(|report| {
            report.standing.connected = false;
            report.standing.note = note;
        });
    }

    /// Says it once more: a desk may have found nobody to wake.
    pub(crate) fn repeat(&self) {
        self.desk.report(self.lock().clone());
    }

    /// Under this number it is a member from now on.
    pub(crate) fn lives(&self, incarnation: u64) {
        self.change(|report| report.incarnation = incarnation);
    }

    /// Reports the end of each lease that nobody has renewed. Never returns.
    pub(crate) async fn step_down_in_time(&self) {
        let mut until = self.until.subscribe();
        loop {
            let end = *until.borrow_and_update();
            // The sender lives as long as this does.
            let renewed = async {
                let _ = until.changed().await;
            };
            match end.filter(|_| self.lock().standing.may_lead) {
                None => renewed.await,
                Some(end) => {
                    let over = tokio::select! {
                        () = sleep_until(end) => true,
                        () = renewed => false,
                    };
                    if over {
                        self.change(|_| {});
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[derive(Default)]
    struct Pile(Mutex<Vec<Report>>);

    impl Desk for Pile {
        fn report(&self, report: Report) {
            self.0.lock().unwrap().push(report);
        }

        fn new_life(&self) -> std::io::Result<u64> {
            Ok(2)
        }
    }

    impl Pile {
        fn may_lead(&self) -> Vec<bool> {
            let reports = self.0.lock().unwrap();
            reports
                .iter()
                .map(|report| report.standing.may_lead)
                .collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_steps_down_when_its_lease_ends_and_not_before() {
        let pile = Arc::new(Pile::default());
        let post = Arc::new(Post::new(Arc::clone(&pile) as Arc<dyn Desk>, 1));
        let own = Arc::clone(&post);
        let task = tokio::spawn(async move { own.step_down_in_time().await });
        let lease = Duration::from_secs(9);
        post.rely(Some(Instant::now() + lease));
        assert_eq!(pile.may_lead(), [true]);
        tokio::time::sleep(lease - Duration::from_millis(10)).await;
        post.rely(Some(Instant::now() + lease));
        tokio::time::sleep(lease - Duration::from_millis(10)).await;
        assert_eq!(pile.may_lead(), [true], "it was renewed");
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(pile.may_lead(), [true, false], "nobody had to be asked");
        // Another lease, which is given up at once.
        post.rely(Some(Instant::now() + lease));
        post.rely(None);
        tokio::time::sleep(lease * 2).await;
        assert_eq!(pile.may_lead(), [true, false, true, false]);
        task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn news_is_reported_once_and_an_etcd_that_is_away_takes_no_map() {
        let pile = Arc::new(Pile::default());
        let post = Post::new(Arc::clone(&pile) as Arc<dyn Desk>, 1);
        let map = Map::new(3, Vec::new(), None).unwrap();
        post.heard(Some(map.clone()), "");
        post.heard(Some(map.clone()), "");
        post.deaf("gone".to_owned());
        post.deaf("gone".to_owned());
        post.lives(2);
        let reports = pile.0.lock().unwrap();
        let said = |report: &Report| (report.standing.connected, report.incarnation);
        let said: Vec<_> = reports.iter().map(said).collect();
        assert_eq!(said, [(true, 1), (false, 1), (false, 2)]);
        assert!(
            reports
                .iter()
                .all(|report| report.map.as_ref() == Some(&map))
        );
        assert_eq!(reports[1].standing.note, "gone");
    }
}
