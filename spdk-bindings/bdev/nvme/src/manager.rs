//! The thread that looks after one controller.

use core::time::Duration;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};

use nvme_spec::log::{ErrorLogEntry, FirmwareSlots, SmartLog, TelemetryHeader};
use spdk_env::{Clock, DeviceBacking};
use spdk_nvme::{Controller, ControllerState, Event, NvmeError};

/// Between looks at a controller that is up (SPDK: `nvme_adminq_poll_period_us`, 10 ms). What waits for one is an event, a time-out or the begin of a reset, never an
/// I/O; an engine at rest wakes so often for each SSD, and where processors are scarce each look delays I/O.
const CALM: Duration = Duration::from_millis(250);
/// While it is being reset or shut down.
const BUSY: Duration = Duration::from_micros(200);

/// What a controller says about itself. A page that it does not answer is left out: it does not make the others wrong.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Pages {
    pub(crate) smart: Option<SmartLog>,
    pub(crate) errors: Vec<ErrorLogEntry>,
    pub(crate) firmware: Option<FirmwareSlots>,
    pub(crate) telemetry: Option<TelemetryHeader>,
}

/// What others ask the thread.
pub(crate) enum Ask {
    Pages(Sender<Pages>),
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
            Ok(Ask::Pages(answer)) => drop(answer.send(pages(&mut controller, &clock))),
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

fn pages<B: DeviceBacking>(controller: &mut Controller<B>, clock: &Clock) -> Pages {
    let smart = controller.smart_log();
    let smart = drive(controller, clock, smart);
    if smart.is_none() {
        return Pages::default();
    }
    let (errors, firmware) = (controller.error_log(), controller.firmware_slots());
    let telemetry = controller.telemetry();
    Pages {
        smart,
        errors: drive(controller, clock, errors).unwrap_or_default(),
        firmware: drive(controller, clock, firmware),
        telemetry: drive(controller, clock, telemetry).flatten(),
    }
}

fn drive<B: DeviceBacking, T: 'static>(
    controller: &mut Controller<B>,
    clock: &Clock,
    question: impl Future<Output = Result<T, NvmeError>> + 'static,
) -> Option<T> {
    let answer = controller.drive(question, || {
        std::thread::sleep(BUSY);
        clock.now()
    });
    answer.ok()
}
