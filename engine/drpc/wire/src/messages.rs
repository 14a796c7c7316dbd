//! Rust types of `proto/*.proto`, one module per protobuf package (the package names are DAOS's).

/// Call, Response, Status: the channel itself.
#[allow(
    missing_docs,
    reason = "generated; the fields are described in proto/drpc.proto"
)]
pub mod drpc {
    include!(concat!(env!("OUT_DIR"), "/drpc.rs"));

    impl Response {
        /// The answer to the call with `sequence`, without a body.
        pub fn with_status(sequence: i64, status: Status) -> Response {
            Response {
                sequence,
                status: status.into(),
                body: Vec::new(),
            }
        }

        /// What a peer is told whose call could not be read: sequence -1, `FAILED_UNMARSHAL_CALL`.
        pub fn unreadable_call() -> Response {
            Response::with_status(UNKNOWN_SEQUENCE, Status::FailedUnmarshalCall)
        }
    }

    /// Sequence of a response whose call could not be read (DAOS `drpc_response_create(NULL)`).
    pub const UNKNOWN_SEQUENCE: i64 = -1;

    impl Status {
        /// One clause for logs and tools (texts of DAOS `src/control/drpc/failure.go`).
        pub const fn text(self) -> &'static str {
            match self {
                Status::Success => "success",
                Status::Submitted => "submitted, no answer awaited",
                Status::Failure => "the method failed",
                Status::UnknownModule => "unrecognized module ID",
                Status::UnknownMethod => "unrecognized method ID",
                Status::FailedUnmarshalCall => "failed to unmarshal incoming call",
                Status::FailedUnmarshalPayload => "failed to unmarshal method-specific payload",
                Status::FailedMarshal => "failed to marshal response payload",
            }
        }
    }
}

/// Bodies of module 2, pools and ranks.
#[allow(
    missing_docs,
    reason = "generated; the fields are described in proto/mgmt.proto"
)]
pub mod mgmt {
    include!(concat!(env!("OUT_DIR"), "/mgmt.rs"));
}

/// Bodies of module 2, devices and logs.
#[allow(
    missing_docs,
    reason = "generated; the fields are described in proto/ctl.proto"
)]
pub mod ctl {
    include!(concat!(env!("OUT_DIR"), "/ctl.rs"));
}

/// Bodies of module 3, which the control server serves.
#[allow(
    missing_docs,
    reason = "generated; the fields are described in proto/srv.proto"
)]
pub mod srv {
    include!(concat!(env!("OUT_DIR"), "/srv.rs"));
}

/// Events for the control server.
#[allow(
    missing_docs,
    reason = "generated; the fields are described in proto/shared.proto"
)]
pub mod shared {
    include!(concat!(env!("OUT_DIR"), "/shared.rs"));
}

/// Bodies of module 100: Keel's own methods.
#[allow(
    missing_docs,
    reason = "generated; the fields are described in proto/keel.proto"
)]
pub mod keel {
    include!(concat!(env!("OUT_DIR"), "/keel.rs"));
}
