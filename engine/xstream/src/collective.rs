//! Work on many xstreams at once (DAOS `src/engine/ult.c`: `dss_thread_collective`, `dss_ult_create_all`).

use std::future::Future;

use daos_errno::Der;

use crate::{Remote, SpawnError, TargetSet, Xstream, XstreamId, Xstreams};

impl Xstreams {
    /// Runs `work` on the main xstream of every target in `targets` (`None`: all), at the same time, and waits.
    ///
    /// `reduce` is called for every target in order: with the result, or with `None` where the target was left out.
    /// The answer is the first error in target order. A ULT that cannot be created is that target's error and does
    /// not keep the others from running.
    ///
    /// # Errors
    /// The first non-zero result: `work`'s own, or the code of [`crate::ExecError`].
    pub async fn collective<T, F, Fut>(
        &self,
        name: &'static str,
        targets: Option<&TargetSet>,
        work: F,
        mut reduce: impl FnMut(u32, Option<Result<T, Der>>),
    ) -> Result<(), Der>
    where
        T: Send + 'static,
        F: FnOnce(&Xstream) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Result<T, Der>> + 'static,
    {
        let wanted = |target: u32| targets.is_none_or(|set| set.contains(target));
        let running: Vec<Option<Remote<Result<T, Der>>>> = (0..self.targets())
            .map(|target| {
                let main = self.main(target).filter(|_| wanted(target))?;
                Some(main.execute(name, work.clone()))
            })
            .collect();
        let mut first_error = Ok(());
        for (target, remote) in (0..).zip(running) {
            let result = match remote {
                Some(remote) => Some(remote.await.map_err(|error| error.der()).flatten()),
                None => None,
            };
            if let (Ok(()), Some(Err(error))) = (first_error, &result) {
                first_error = Err(*error);
            }
            reduce(target, result);
        }
        first_error
    }

    /// Creates a ULT on every xstream (`mains_only`: on every main xstream) in id order, not waiting for any. Stops at
    /// the first that cannot be created; those before it run.
    ///
    /// # Errors
    /// Which xstream refused, and why.
    pub fn create_all<F, Fut>(
        &self,
        name: &'static str,
        mains_only: bool,
        f: F,
    ) -> Result<(), (XstreamId, SpawnError)>
    where
        F: FnOnce(&Xstream) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        for xstream in self.all() {
            if !mains_only || xstream.role() == crate::Role::Main {
                xstream
                    .spawn(name, f.clone())
                    .map_err(|error| (xstream.id(), error))?;
            }
        }
        Ok(())
    }
}
