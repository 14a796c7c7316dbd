//! The thread that looks after one controller.

use core::time::Duration;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};

use nvme_spec::log::SmartLog;
use spdk_env::{Clock, DeviceBacking};
use spdk_nvme::{Controller, ControllerState, Event, NvmeError};

/// Between looks at a controller that is up (SPDK: `nvme_adminq_poll_period_us`).
const CALM: Duration = Duration::from_millis(10);
/// While it is being reset or shut down.
const BUSY: Duration = Duration::from_micros(200);

/// What others ask the thread.
pub(crate) enum Ask {
    Smart(Sender<Result<SmartLog, NvmeError>>),
    State(Sender<ControllerState>),
    Reset,
    /// Answered when the controller is shut down.
    ShutDown(Sender<()>),
}

/// Runs until it is told to shut down, or everybody who could is gone.
pub(crate) fn look_after<B: DeviceBacking>(
    mut controller: Controller<B>,
    asks: &Receiver<Ask>,
    mut tell: impl FnMut(Event),
) {
    let clock = Clock::tsc();
    let removal = controller.backing().removal_fd();
    let mut leaving: Option<Option<Sender<()>>> = None;
    loop {
        if removal.as_ref().is_some_and(spdk_env::take_eventfd) {
            tracing::warn!(
                device = controller.backing().address(),
                "the kernel wants the device back: letting go of it"
            );
            controller.give_up_device();
        }
        let state = controller.state();
        if over(&state) && leaving.is_some() {
            break;
        }
        let calm = (state == ControllerState::Ready && leaving.is_none()) || over(&state);
        match asks.recv_timeout(if calm { CALM } else { BUSY }) {
            // Nobody waits for an answer that cannot be sent.
            Ok(Ask::Smart(answer)) => drop(answer.send(smart(&mut controller, &clock))),
            Ok(Ask::State(answer)) => drop(answer.send(state)),
            Ok(Ask::Reset) => controller.request_reset(),
            Ok(Ask::ShutDown(answer)) => {
                controller.shut_down();
                leaving = Some(Some(answer));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                controller.shut_down();
                leaving.get_or_insert(None);
                std::thread::sleep(BUSY);
            }
        }
        controller.poll(clock.now());
        while let Some(event) = controller.take_event() {
            tell(event);
        }
    }
    drop(controller);
    if let Some(Some(answer)) = leaving {
        let _ = answer.send(());
    }
}

fn over(state: &ControllerState) -> bool {
    matches!(
        state,
        ControllerState::Failed(_) | ControllerState::ShutDown
    )
}

fn smart<B: DeviceBacking>(
    controller: &mut Controller<B>,
    clock: &Clock,
) -> Result<SmartLog, NvmeError> {
    let question = controller.smart_log();
    controller.drive(question, || {
        std::thread::sleep(BUSY);
        clock.now()
    })
}
