//! What poll said about a socket, in DAOS's order of precedence (`drpc_progress.c`).

use rustix::event::PollFlags;

/// What to do with a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Nothing.
    None,
    /// Read.
    Data,
    /// The other end is gone: close, whatever is left to read.
    Disconnected,
    /// Broken: close.
    Error,
}

impl Event {
    /// Hang-up before error before data.
    pub(crate) fn of(flags: PollFlags) -> Event {
        if flags.contains(PollFlags::HUP) {
            Event::Disconnected
        } else if flags.intersects(PollFlags::ERR | PollFlags::NVAL) {
            Event::Error
        } else if flags.intersects(PollFlags::IN | PollFlags::PRI) {
            Event::Data
        } else {
            Event::None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hang_up_wins_over_error_and_error_over_data() {
        let (hup, err, data) = (PollFlags::HUP, PollFlags::ERR, PollFlags::IN);
        assert_eq!(Event::of(hup | err | data), Event::Disconnected);
        assert_eq!(Event::of(hup | data), Event::Disconnected);
        assert_eq!(Event::of(err | data), Event::Error);
        assert_eq!(Event::of(data), Event::Data);
        assert_eq!(Event::of(PollFlags::PRI), Event::Data);
        assert_eq!(Event::of(PollFlags::OUT), Event::None);
        assert_eq!(Event::of(PollFlags::empty()), Event::None);
    }
}
