//! The same work on many targets, reduced to one result.

use crate::task::{RemoteJoin, Xs, spawn_on};
use crate::tls::targets;
use daos_errno::Der;
use std::future::Future;

/// Runs `work` on the main xstream of every target in `set` (`None`: all), at the same time, and waits.
///
/// `set`: a bit per target, least significant first; targets past its end are left out. `argument` is called here, in target order,
/// for the targets in the set; where it fails, its error is that target's result. `reduce` is called for every target in
/// order, with `None` for those that were left out. A task that cannot be created, and one that panics (`DER_MISC`), is that target's
/// result and keeps no other from running. DAOS: `dss_thread_collective_reduce`.
///
/// # Errors
/// The first error in target order; `DER_CANCELED` without targets.
pub async fn collective<A, T, F, Fut>(
    name: &str,
    set: Option<&[u8]>,
    mut argument: impl FnMut(u32) -> Result<A, Der>,
    work: F,
    mut reduce: impl FnMut(u32, Option<Result<T, Der>>),
) -> Result<(), Der>
where
    A: Send + 'static,
    T: Send + 'static,
    F: FnOnce(A) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<T, Der>> + 'static,
{
    let all = targets();
    if all == 0 {
        return Err(Der::CANCELED);
    }
    let running: Vec<_> = (0..all)
        .map(|target| {
            is_in(set, target).then(|| -> Result<RemoteJoin<Result<T, Der>>, Der> {
                let (argument, work) = (argument(target)?, work.clone());
                spawn_on(Xs::Target(target), name, move || work(argument))
            })
        })
        .collect();
    let mut first_error = Ok(());
    for (target, started) in (0..).zip(running) {
        let result = match started {
            None => None,
            Some(Err(der)) => Some(Err(der)),
            Some(Ok(join)) => Some(join.await.map_err(Der::from).flatten()),
        };
        if let (Ok(()), Some(Err(der))) = (first_error, &result) {
            first_error = Err(*der);
        }
        reduce(target, result);
    }
    first_error
}

fn is_in(set: Option<&[u8]>, target: u32) -> bool {
    set.is_none_or(|set| {
        let byte = set.get((target / 8) as usize);
        byte.is_some_and(|byte| byte & (1 << (target % 8)) != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::is_in;

    #[test]
    fn bits_stand_as_in_daos() {
        assert!(is_in(None, 200));
        let set = Some(&[0b101, 1][..]);
        let inside: Vec<_> = (0..20).filter(|target| is_in(set, *target)).collect();
        assert_eq!(inside, [0, 2, 8]);
        assert!(!is_in(Some(&[]), 0));
    }
}
