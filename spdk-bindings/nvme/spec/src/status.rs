//! Status of a completion (Base 3.3.3.2.1): type, code and flags.

use core::fmt;

/// The 15 status bits of a completion, without the phase tag: code in bits 7:0, type in 10:8, retry delay in 12:11, more in
/// 13, do not retry in 14.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Status(pub u16);

const DNR: u16 = 1 << 14;

impl Status {
    /// A status of a type and code, without flags.
    #[must_use]
    pub const fn new(kind: u8, code: u8) -> Status {
        Status((kind as u16 & 7) << 8 | code as u16)
    }

    /// Status code type: 0 generic, 1 command specific, 2 media and data integrity, 3 path, 7 vendor.
    #[inline]
    #[must_use]
    pub const fn kind(self) -> u8 {
        (self.0 >> 8) as u8 & 7
    }

    /// Status code.
    #[inline]
    #[must_use]
    pub const fn code(self) -> u8 {
        self.0 as u8
    }

    /// Type and code alone.
    #[inline]
    #[must_use]
    pub const fn without_flags(self) -> Status {
        Status(self.0 & 0x7ff)
    }

    /// True when the command succeeded.
    #[inline]
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.0 & 0x7ff == 0
    }

    /// DNR: the same command will fail again.
    #[inline]
    #[must_use]
    pub const fn do_not_retry(self) -> bool {
        self.0 & DNR != 0
    }

    /// The same with DNR set.
    #[must_use]
    pub const fn with_dnr(self) -> Status {
        Status(self.0 | DNR)
    }

    /// True for errors of the medium: what health counts as data loss.
    #[must_use]
    pub const fn is_media_error(self) -> bool {
        self.kind() == 2
    }

    /// What the specification calls it, where it is one of those a driver meets.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match (self.kind(), self.code()) {
            (0, 0x00) => "success",
            (0, 0x01) => "invalid command opcode",
            (0, 0x02) => "invalid field in command",
            (0, 0x03) => "command id conflict",
            (0, 0x04) => "data transfer error",
            (0, 0x05) => "aborted due to power loss",
            (0, 0x06) => "internal error",
            (0, 0x07) => "command abort requested",
            (0, 0x08) => "aborted due to queue deletion",
            (0, 0x09 | 0x0a) => "aborted with its fused command",
            (0, 0x0b) => "invalid namespace or format",
            (0, 0x0c) => "command sequence error",
            (0, 0x13) => "PRP offset invalid",
            (0, 0x1c) => "sanitize failed",
            (0, 0x1d) => "sanitize in progress",
            (0, 0x20) => "namespace is write protected",
            (0, 0x21) => "command interrupted",
            (0, 0x22) => "transient transport error",
            (0, 0x80) => "LBA out of range",
            (0, 0x81) => "capacity exceeded",
            (0, 0x82) => "namespace not ready",
            (0, 0x83) => "reservation conflict",
            (0, 0x84) => "format in progress",
            (1, 0x00) => "completion queue invalid",
            (1, 0x01) => "invalid queue identifier",
            (1, 0x02) => "invalid queue size",
            (1, 0x03) => "abort command limit exceeded",
            (1, 0x05) => "asynchronous event request limit exceeded",
            (1, 0x08) => "invalid interrupt vector",
            (1, 0x09) => "invalid log page",
            (1, 0x0c) => "invalid queue deletion",
            (1, 0x0d) => "feature identifier not saveable",
            (1, 0x80) => "conflicting attributes",
            (1, 0x82) => "attempted write to read only range",
            (2, 0x80) => "write fault",
            (2, 0x81) => "unrecovered read error",
            (2, 0x82) => "guard check error",
            (2, 0x83) => "application tag check error",
            (2, 0x84) => "reference tag check error",
            (2, 0x85) => "compare failure",
            (2, 0x86) => "access denied",
            (2, 0x87) => "deallocated or unwritten block",
            (3, _) => "path error",
            (7, _) => "vendor specific error",
            _ => "unknown status",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} (type {}, code {:#04x}{})",
            self.name(),
            self.kind(),
            self.code(),
            if self.do_not_retry() {
                ", do not retry"
            } else {
                ""
            }
        )
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The command succeeded.
pub const SUCCESS: Status = Status::new(0, 0);
/// No such opcode.
pub const INVALID_OPCODE: Status = Status::new(0, 0x01);
/// A field has a value that it may not have.
pub const INVALID_FIELD: Status = Status::new(0, 0x02);
/// The command's id is in use.
pub const ID_CONFLICT: Status = Status::new(0, 0x03);
/// Data could not be moved.
pub const DATA_TRANSFER_ERROR: Status = Status::new(0, 0x04);
/// The controller failed inside.
pub const INTERNAL_ERROR: Status = Status::new(0, 0x06);
/// Aborted because the host asked for it.
pub const ABORTED: Status = Status::new(0, 0x07);
/// Aborted because its queue was deleted.
pub const ABORTED_SQ_DELETED: Status = Status::new(0, 0x08);
/// No such namespace.
pub const INVALID_NAMESPACE: Status = Status::new(0, 0x0b);
/// Interrupted; retry.
pub const INTERRUPTED: Status = Status::new(0, 0x21);
/// The transport had a passing fault; retry.
pub const TRANSIENT_TRANSPORT: Status = Status::new(0, 0x22);
/// Beyond the end of the namespace.
pub const LBA_OUT_OF_RANGE: Status = Status::new(0, 0x80);
/// The namespace is not ready; retry.
pub const NAMESPACE_NOT_READY: Status = Status::new(0, 0x82);
/// The namespace is being formatted; retry.
pub const FORMAT_IN_PROGRESS: Status = Status::new(0, 0x84);
/// No such completion queue.
pub const INVALID_CQ: Status = Status::new(1, 0x00);
/// The queue id is wrong or in use.
pub const INVALID_QUEUE_ID: Status = Status::new(1, 0x01);
/// The queue size is wrong.
pub const INVALID_QUEUE_SIZE: Status = Status::new(1, 0x02);
/// Too many aborts at once.
pub const ABORT_LIMIT: Status = Status::new(1, 0x03);
/// Too many asynchronous event requests at once.
pub const ASYNC_EVENT_LIMIT: Status = Status::new(1, 0x05);
/// No such log page.
pub const INVALID_LOG_PAGE: Status = Status::new(1, 0x09);
/// The completion queue still has submission queues.
pub const INVALID_QUEUE_DELETION: Status = Status::new(1, 0x0c);
/// The medium did not take a write.
pub const WRITE_FAULT: Status = Status::new(2, 0x80);
/// The medium lost the data.
pub const UNRECOVERED_READ: Status = Status::new(2, 0x81);
/// The data differ.
pub const COMPARE_FAILURE: Status = Status::new(2, 0x85);
