//! One packet in, one packet out, on a `SOCK_SEQPACKET` socket. Used by the client here and by the server.

use std::io::IoSlice;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType,
};

use crate::chunker::Packet;
use crate::header::MAX_PACKET;

/// Longest path a Unix socket can have (`sun_path` less its terminator). DAOS cuts longer ones silently; here they are refused.
pub const MAX_SOCKET_PATH: usize = 107;

/// An unconnected dRPC socket: `AF_UNIX`, `SOCK_SEQPACKET`, protocol 0, closed on exec.
pub fn socket(flags: SocketFlags) -> Result<OwnedFd, Errno> {
    rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | flags,
        None,
    )
}

/// The address of a socket file; `ENAMETOOLONG` past [`MAX_SOCKET_PATH`] bytes.
pub fn address(path: &Path) -> Result<SocketAddrUnix, Errno> {
    if path.as_os_str().len() > MAX_SOCKET_PATH {
        return Err(Errno::NAMETOOLONG);
    }
    SocketAddrUnix::new(path)
}

/// Receives one packet into `buffer` (at least [`MAX_PACKET`] bytes): its real length, which is more than the buffer for
/// a packet that did not fit. 0: the peer closed. `flags` may say not to wait.
pub fn receive(fd: impl AsFd, buffer: &mut [u8], flags: RecvFlags) -> Result<usize, Errno> {
    debug_assert!(buffer.len() >= MAX_PACKET);
    loop {
        match rustix::net::recv(&fd, &mut *buffer, flags | RecvFlags::TRUNC) {
            Ok((_, len)) => return Ok(len),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Sends one packet whole or not at all. A peer that is gone is `EPIPE`, never a signal. A short write (impossible on this
/// kind of socket) would be `EMSGSIZE`.
pub fn send(fd: impl AsFd, packet: &Packet<'_>, flags: SendFlags) -> Result<(), Errno> {
    let pieces = [IoSlice::new(packet.header()), IoSlice::new(packet.data)];
    loop {
        let sent = rustix::net::sendmsg(
            &fd,
            &pieces,
            &mut SendAncillaryBuffer::default(),
            flags | SendFlags::NOSIGNAL,
        );
        match sent {
            Ok(sent) if sent == packet.wire_len() => return Ok(()),
            Ok(_) => return Err(Errno::MSGSIZE),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}
