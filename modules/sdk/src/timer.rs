//! Sleeping.
//!
//! Invariants: E1 to E3 of `engine.rs`, W1 and W2 of `waker.rs`. A timer is freed once, by the `Sleep` that armed it,
//! on the xstream that armed it: `Sleep` is not `Send`.
#![allow(unsafe_code, reason = "holds the engine's timers")]

use crate::engine;
use crate::waker::lend;
use module_abi::dss_timer;
use std::future::Future;
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Done no earlier than its deadline. Starts its timer at the first poll; at the engine's limit of timers it asks again
/// each turn instead.
#[derive(Debug)]
pub struct Sleep {
    deadline_ns: u64,
    armed: Option<(NonNull<dss_timer>, Waker)>,
}

/// Sleeps for a while.
pub fn sleep(duration: Duration) -> Sleep {
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    sleep_until(engine::now_ns().saturating_add(nanos))
}

/// Sleeps until [`now_ns`](crate::now_ns) has reached a time.
pub fn sleep_until(deadline_ns: u64) -> Sleep {
    Sleep {
        deadline_ns,
        armed: None,
    }
}

impl Sleep {
    fn disarm(&mut self) {
        if let Some((timer, _)) = self.armed.take() {
            // SAFETY: ours, freed once, on its xstream.
            unsafe { (engine::host().timer_free)(timer.as_ptr()) }
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if engine::now_ns() >= self.deadline_ns {
            self.disarm();
            return Poll::Ready(());
        }
        if self
            .armed
            .as_ref()
            .is_some_and(|(_, waker)| waker.will_wake(cx.waker()))
        {
            return Poll::Pending;
        }
        self.disarm();
        let lent = lend(cx.waker());
        // SAFETY: E1, E2; the waker is lent for the call (W2).
        let timer = unsafe {
            (engine::host().timer_arm)(engine::module(), self.deadline_ns, &raw const lent)
        };
        match NonNull::new(timer) {
            Some(timer) => self.armed = Some((timer, cx.waker().clone())),
            None => cx.waker().wake_by_ref(),
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.disarm();
    }
}
