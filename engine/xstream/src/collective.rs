//! Work on many xstreams at once (DAOS `src/engine/ult.c`: `dss_thread_collective`, `dss_task_collective`,
//! `dss_ult_create_all`).

use std::future::Future;

use daos_errno::Der;

use crate::{Remote, SpawnError, TargetSet, Xstream, XstreamId, Xstreams};

impl Xstreams {
    /// Runs `work` on the main xstream of every target in `targets` (`None`: all), each in a ULT, at the same time, and waits.
    ///
    /// `reduce` is called for every target in order: with the result, or with `None` where the target was left out.
    /// The answer is the first error in target order. A ULT that cannot be created is that target's error and does
    /// not keep the others from running.
    ///
    /// # Errors
    /// The first non-zero result: `work`'s own, or the code of [`crate::ExecError`]. `DER_CANCELED` without targets.
    pub async fn collective<T, F, Fut>(
        &self,
        name: &'static str,
        targets: Option<&TargetSet>,
        work: F,
        reduce: impl FnMut(u32, Option<Result<T, Der>>),
    ) -> Result<(), Der>
    where
        T: Send + 'static,
        F: FnOnce(&Xstream) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Result<T, Der>> + 'static,
    {
        let work = move |xstream: &Xstream, ()| work(xstream);
        self.collective_with(name, targets, |_| Ok(()), work, reduce)
            .await
    }

    /// The same with an argument for each target. `argument` is called here, in target order, for the targets in
    /// `targets`; where it fails, its error is that target's result (DAOS: `co_reduce_arg_alloc`).
    ///
    /// # Errors
    /// As [`Xstreams::collective`].
    pub async fn collective_with<A, T, F, Fut>(
        &self,
        name: &'static str,
        targets: Option<&TargetSet>,
        argument: impl FnMut(u32) -> Result<A, Der>,
        work: F,
        reduce: impl FnMut(u32, Option<Result<T, Der>>),
    ) -> Result<(), Der>
    where
        A: Send + 'static,
        T: Send + 'static,
        F: FnOnce(&Xstream, A) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Result<T, Der>> + 'static,
    {
        let running = self.start(targets, argument, |main, argument| {
            let work = work.clone();
            main.execute(name, move |xstream| work(xstream, argument))
        })?;
        reduced(running, reduce).await
    }

    /// The same as tasklets: `work` runs to its end in a message, without a ULT, so it works at the ULT limit. Once the
    /// engine stops it is refused like a ULT.
    ///
    /// # Errors
    /// As [`Xstreams::collective`].
    pub async fn task_collective<A, T, F>(
        &self,
        name: &'static str,
        targets: Option<&TargetSet>,
        argument: impl FnMut(u32) -> Result<A, Der>,
        work: F,
        reduce: impl FnMut(u32, Option<Result<T, Der>>),
    ) -> Result<(), Der>
    where
        A: Send + 'static,
        T: Send + 'static,
        F: FnOnce(&Xstream, A) -> Result<T, Der> + Clone + Send + 'static,
    {
        let running = self.start(targets, argument, |main, argument| {
            let work = work.clone();
            match main.check_running() {
                Ok(()) => main.call(name, move |xstream| work(xstream, argument)),
                Err(error) => Remote::refused(name, main.id(), error),
            }
        })?;
        reduced(running, reduce).await
    }

    /// Starts work on the wanted targets, by target; `None`: left out.
    fn start<A, T>(
        &self,
        targets: Option<&TargetSet>,
        mut argument: impl FnMut(u32) -> Result<A, Der>,
        mut start: impl FnMut(&crate::XstreamRef, A) -> Remote<Result<T, Der>>,
    ) -> Result<Vec<Option<Started<T>>>, Der> {
        if self.targets() == 0 {
            return Err(Der::CANCELED);
        }
        let wanted = |target: u32| targets.is_none_or(|set| set.contains(target));
        let one = |target: u32| {
            let main = self.main(target).filter(|_| wanted(target))?;
            Some(argument(target).map(|argument| start(main, argument)))
        };
        Ok((0..self.targets()).map(one).collect())
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

/// A target's part that runs, or why there was no argument for it.
type Started<T> = Result<Remote<Result<T, Der>>, Der>;

/// Waits for all, in target order.
async fn reduced<T: Send + 'static>(
    running: Vec<Option<Started<T>>>,
    mut reduce: impl FnMut(u32, Option<Result<T, Der>>),
) -> Result<(), Der> {
    let mut first_error = Ok(());
    for (target, started) in (0..).zip(running) {
        let result = match started {
            Some(Ok(remote)) => Some(remote.await.map_err(|error| error.der()).flatten()),
            Some(Err(error)) => Some(Err(error)),
            None => None,
        };
        if let (Ok(()), Some(Err(error))) = (first_error, &result) {
            first_error = Err(*error);
        }
        reduce(target, result);
    }
    first_error
}
