//! errno to DAOS error number, with DAOS's mapping (`daos_errno2der`).

use crate::Der;

/// Maps a positive errno. A negative argument is `UNKNOWN`; a number without a mapping of its own is `MISC`.
pub fn from_errno(errno: i32) -> Der {
    // Linux numbers: this project runs on nothing else, and a leaf crate should not need libc for a table.
    match errno {
        negative if negative < 0 => Der::UNKNOWN,
        1 | 13 => Der::NO_PERM,   // EPERM, EACCES
        12 => Der::NOMEM,         // ENOMEM
        28 | 122 => Der::NOSPACE, // ENOSPC, EDQUOT
        17 => Der::EXIST,         // EEXIST
        2 => Der::NONEXIST,       // ENOENT
        125 => Der::CANCELED,     // ECANCELED
        16 => Der::BUSY,          // EBUSY
        75 => Der::OVERFLOW,      // EOVERFLOW
        9 => Der::NO_HDL,         // EBADF
        38 => Der::NOSYS,         // ENOSYS
        110 => Der::TIMEDOUT,     // ETIMEDOUT
        11 => Der::AGAIN,         // EAGAIN, EWOULDBLOCK
        71 => Der::PROTO,         // EPROTO
        22 => Der::INVAL,         // EINVAL
        20 => Der::NOTDIR,        // ENOTDIR
        5 => Der::IO,             // EIO
        95 => Der::NOTSUPPORTED,  // ENOTSUP
        _ => Der::MISC,
    }
}

impl From<&std::io::Error> for Der {
    fn from(error: &std::io::Error) -> Der {
        error.raw_os_error().map_or(Der::MISC, from_errno)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_unmapped_and_negative() {
        assert_eq!(from_errno(13), Der::NO_PERM);
        assert_eq!(from_errno(111), Der::MISC); // ECONNREFUSED
        assert_eq!(from_errno(-1), Der::UNKNOWN);
        assert_eq!(
            Der::from(&std::io::Error::from_raw_os_error(2)),
            Der::NONEXIST
        );
    }
}
