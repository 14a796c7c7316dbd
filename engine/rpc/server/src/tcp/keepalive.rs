//! Peers that are gone without a word: a machine that lost its power, a network that is cut.
//!
//! A connection with nothing under way is silent, and its end may never come. The kernel asks after it: idle for
//! [`IDLE`], then [`PROBES`] times every [`BETWEEN`]; and what was sent must be acknowledged within [`UNACKNOWLEDGED`]. Then the socket
//! fails, and the connection ends as any other.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt;

const IDLE: Duration = Duration::from_secs(30);
const BETWEEN: Duration = Duration::from_secs(10);
const PROBES: u32 = 3;
const UNACKNOWLEDGED: Duration = Duration::from_secs(60);

/// Sets this up on a connected socket.
pub(super) fn watch_over(socket: &OwnedFd) -> Result<(), Errno> {
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, IDLE)?;
    sockopt::set_tcp_keepintvl(socket, BETWEEN)?;
    sockopt::set_tcp_keepcnt(socket, PROBES)?;
    sockopt::set_tcp_user_timeout(socket, UNACKNOWLEDGED.as_millis() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn the_kernel_asks_after_a_silent_peer() {
        let listener: OwnedFd = TcpListener::bind("127.0.0.1:0").unwrap().into();
        watch_over(&listener).unwrap();
        assert_eq!(sockopt::socket_keepalive(&listener), Ok(true));
        assert_eq!(sockopt::tcp_keepidle(&listener), Ok(IDLE));
        assert_eq!(sockopt::tcp_keepcnt(&listener), Ok(PROBES));
        assert_eq!(sockopt::tcp_user_timeout(&listener), Ok(60_000));
    }
}
