//! Who is at the other end.

use std::os::fd::AsFd;

use rustix::io::Errno;

/// The process that connected, as the kernel saw it then (`SO_PEERCRED`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Process id.
    pub pid: i32,
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
}

impl Peer {
    pub(crate) fn of(socket: impl AsFd) -> Result<Peer, Errno> {
        let cred = rustix::net::sockopt::socket_peercred(socket)?;
        Ok(Peer {
            pid: cred.pid.as_raw_nonzero().get(),
            uid: cred.uid.as_raw(),
            gid: cred.gid.as_raw(),
        })
    }

    /// Root, the engine's own user, and whom the operator lists.
    pub(crate) fn is_allowed(&self, own_uid: u32, allow_uids: &[u32]) -> bool {
        self.uid == 0 || self.uid == own_uid || allow_uids.contains(&self.uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_the_own_user_and_listed_users_may_call() {
        let peer = |uid| Peer {
            pid: 1,
            uid,
            gid: 0,
        };
        assert!(peer(0).is_allowed(1000, &[]));
        assert!(peer(1000).is_allowed(1000, &[]));
        assert!(!peer(1001).is_allowed(1000, &[]));
        assert!(peer(1001).is_allowed(1000, &[7, 1001]));
        assert!(!peer(1002).is_allowed(1000, &[7, 1001]));
    }
}
