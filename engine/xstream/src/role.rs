//! Roles and ids of xstreams, and the kinds of work that callers ask an xstream for.

use std::fmt;

use engine_tls::Tags;

/// What an xstream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Metadata, dRPC, membership. One per engine, id 0.
    System,
    /// Serves one target: its RPCs, its share of the device.
    Main,
    /// Takes work from mains that would hold them up (DAOS: helper).
    Offload,
}

impl Role {
    /// The TLS tags of such an xstream, as in DAOS: keys that share a bit have a value there.
    pub const fn tags(self) -> Tags {
        match self {
            Role::System => Tags(Tags::SERVER.0 & !Tags::TGT.0),
            Role::Main => Tags::SERVER,
            Role::Offload => Tags::OFF,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::System => "system",
            Role::Main => "main",
            Role::Offload => "offload",
        })
    }
}

/// An xstream's number, from 0 (system), without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct XstreamId(pub u32);

impl fmt::Display for XstreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The kind of work, which decides the xstream that does it: DAOS's `enum dss_xs_type`, same numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum XsType {
    /// The xstream that asks.
    OnSelf = -1,
    /// The target's own: its main xstream.
    Vos = 0,
    /// Forwards I/O to other engines.
    Iofw = 1,
    /// Erasure code, checksums, compression.
    Offload = 2,
    /// Metadata.
    Sys = 3,
    /// Membership; the system xstream's work here.
    Swim = 4,
    /// dRPC; the system xstream's work here.
    Drpc = 5,
}

impl XsType {
    /// From the number in the C ABI.
    pub fn from_raw(raw: i32) -> Option<XsType> {
        let all = [
            XsType::OnSelf,
            XsType::Vos,
            XsType::Iofw,
            XsType::Offload,
            XsType::Sys,
            XsType::Swim,
            XsType::Drpc,
        ];
        all.into_iter().find(|kind| *kind as i32 == raw)
    }
}
