//! The codes, their names and one sentence each.

/// A DAOS error number: the positive constant. Open: a code unknown here is kept and shown as a number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Der(pub i32);

macro_rules! codes {
    ($($number:literal $name:ident $text:literal;)*) => {
        impl Der {
            $(#[doc = $text] pub const $name: Der = Der($number);)*

            /// Every code DAOS defines, in ascending order.
            pub const ALL: &'static [Der] = &[$(Der::$name),*];

            /// The name without its `DER_` prefix, or `None` for a number DAOS does not define.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some(stringify!($name)),)*
                    _ => None,
                }
            }

            /// What the code means, in a few words.
            pub const fn text(self) -> &'static str {
                match self.0 {
                    $($number => $text,)*
                    _ => "unknown error number",
                }
            }
        }
    };
}

codes! {
    1001 NO_PERM "operation not permitted";
    1002 NO_HDL "invalid handle";
    1003 INVAL "invalid parameters";
    1004 EXIST "entity already exists";
    1005 NONEXIST "the specified entity does not exist";
    1006 UNREACH "unreachable node";
    1007 NOSPACE "no space left on storage target";
    1008 ALREADY "operation already performed";
    1009 NOMEM "out of memory";
    1010 NOSYS "function not implemented";
    1011 TIMEDOUT "timed out";
    1012 BUSY "device or resource busy";
    1013 AGAIN "try again";
    1014 PROTO "incompatible protocol";
    1015 UNINIT "not initialized";
    1016 TRUNC "buffer too short";
    1017 OVERFLOW "data too long for the defined type or buffer";
    1018 CANCELED "operation canceled";
    1019 OOG "out of group or member list";
    1020 HG "transport layer error";
    1021 UNREG "RPC or protocol version not registered";
    1022 ADDRSTR_GEN "failed to generate an address string";
    1023 PMIX "process management layer error";
    1024 IVCB_FORWARD "incast variable: cannot handle locally, forward";
    1025 MISC "miscellaneous error";
    1026 BADPATH "bad path name";
    1027 NOTDIR "not a directory";
    1028 CORPC_INCOMPLETE "collective RPC failed";
    1029 NO_RAS_RANK "no rank is subscribed to RAS";
    1030 NOTATTACH "service group not attached";
    1031 MISMATCH "version mismatch";
    1032 EXCLUDED "rank has been excluded";
    1033 NOREPLY "user-provided RPC handler did not send a reply";
    1034 DOS "denial of service";
    1035 BAD_TARGET "incorrect target for the RPC";
    1036 GRPVER "group version mismatch";
    1037 HLC_SYNC "hybrid logical clock synchronization error";
    1038 NO_SHMEM "no shared memory available";
    1039 ADD_METRIC_FAILED "failed to add a metric";
    1040 DURATION_MISMATCH "start/end mark of a duration metric does not pair";
    1041 OP_NOT_PERMITTED "operation not permitted on the metric";
    1042 EXCEEDS_PATH_LEN "path exceeds the maximum length";
    1043 METRIC_NOT_FOUND "metric not found";
    1044 SHMEM_PERMS "invalid user or group permissions of shared memory";
    1045 HG_FATAL "fatal transport error";
    1046 QUOTA_LIMIT "quota limit reached";
    2001 IO "generic I/O error";
    2002 FREE_MEM "memory free error";
    2003 ENOENT "entry not found";
    2004 NOTYPE "unknown object type";
    2005 NOSCHEMA "unknown object schema";
    2006 NOLOCAL "object is not local";
    2007 STALE "stale pool map version";
    2008 NOTLEADER "not service leader";
    2009 TGT_CREATE "target create error";
    2010 EP_RO "epoch is read-only";
    2011 EP_OLD "epoch is too old, all data have been recycled";
    2012 KEY2BIG "key is too large";
    2013 REC2BIG "record is too large";
    2014 IO_INVAL "I/O buffers do not match the object extents";
    2015 EQ_BUSY "event queue is busy";
    2016 DOMAIN "domain of the handle does not match";
    2017 SHUTDOWN "service should shut down";
    2018 INPROGRESS "operation now in progress";
    2019 NOTAPPLICABLE "not applicable";
    2020 NOTREPLICA "not a service replica";
    2021 CSUM "checksum error";
    2022 DF_INVAL "unrecognized durable format";
    2023 DF_INCOMPT "incompatible durable format version";
    2024 REC_SIZE "record size error";
    2025 TX_RESTART "transaction should restart";
    2026 DATA_LOSS "data lost or not recoverable";
    2027 OP_CANCELED "operation canceled (non-crt)";
    2028 TX_BUSY "transaction is not committed, not sure whether committable or not";
    2029 AGENT_INCOMPAT "agent is incompatible with the client library";
    2030 NEED_TX "to be handled by a distributed transaction";
    2031 RF "failures exceed the redundancy factor";
    2032 FETCH_AGAIN "re-fetch again";
    2033 TX_UNCERTAIN "transaction is in an uncertain state";
    2034 AGENT_COMM "communicating with the agent failed";
    2035 ID_MISMATCH "ID mismatch";
    2036 TGT_RETRY "retry with another target";
    2037 NOTSUPPORTED "operation not supported";
    2038 CONTROL_INCOMPAT "control plane components are incompatible";
    2039 NO_SERVICE "no service available";
    2040 TX_ID_REUSED "the transaction ID may be reused";
    2041 UPDATE_AGAIN "re-update again";
    2042 NVME_IO "NVMe I/O error";
    2043 NO_CERT "unable to access one or more certificates";
    2044 BAD_CERT "invalid x509 certificate";
    2045 VOS_PARTIAL_UPDATE "a same-epoch partial overwrite is not allowed";
    2046 CHKPT_BUSY "page is temporarily read-only due to a checkpoint";
    2047 DIV_BY_ZERO "division by zero";
    2048 OVERLOAD_RETRY "the target is overloaded, retry later";
    2049 NOT_RESUME "cannot resume the former instance";
    2050 CONT_NONEXIST "container does not exist";
    2051 CONT_DESTROYING "container is being destroyed";
    2052 IGNORE "to be ignored by the caller";
    501000 UNKNOWN "unknown error";
}

impl Der {
    /// The form in which functions return it and messages carry it.
    pub const fn neg(self) -> i32 {
        -self.0
    }

    /// Reads a return code or wire status: `Ok` for 0 and above, the error otherwise.
    pub const fn check(rc: i32) -> Result<(), Der> {
        if rc >= 0 {
            Ok(())
        } else {
            Err(Der(rc.wrapping_neg()))
        }
    }

    /// A result as a return code or wire status: 0, or the negative number.
    pub fn rc(result: Result<(), Der>) -> i32 {
        match result {
            Ok(()) => 0,
            Err(der) => der.neg(),
        }
    }
}

impl std::fmt::Display for Der {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name() {
            Some(name) => write!(f, "DER_{name}({}): {}", self.0, self.text()),
            None => write!(f, "DER({}): {}", self.0, self.text()),
        }
    }
}

impl std::fmt::Debug for Der {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name() {
            Some(name) => write!(f, "DER_{name}"),
            None => write!(f, "DER({})", self.0),
        }
    }
}

impl std::error::Error for Der {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_ranges_are_dense_and_ascending() {
        let numbers: Vec<i32> = Der::ALL.iter().map(|der| der.0).collect();
        let expected: Vec<i32> = (1001..=1046).chain(2001..=2052).chain([501_000]).collect();
        assert_eq!(numbers, expected);
    }

    #[test]
    fn a_code_survives_the_wire() {
        for &der in Der::ALL {
            assert_eq!(Der::check(der.neg()), Err(der));
        }
        assert_eq!(Der::check(0), Ok(()));
        assert_eq!(Der::check(i32::MIN), Err(Der(i32::MIN)));
    }

    #[test]
    fn unknown_numbers_are_shown_as_numbers() {
        assert_eq!(Der(7).to_string(), "DER(7): unknown error number");
        assert_eq!(
            Der::INVAL.to_string(),
            "DER_INVAL(1003): invalid parameters"
        );
    }
}
