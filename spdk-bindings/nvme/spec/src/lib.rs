//! What the NVM Express specifications fix, as data: registers, commands, completions, identify and log structures.
//!
//! Section numbers are those of the NVM Express Base Specification 2.0c ("Base") and the NVM Command Set Specification
//! 1.0c ("NVM"). No behaviour: the driver and the emulated controller both read this, and neither reads the other.
//!
//! * [`register`]: offsets and bit fields of the controller's registers, doorbells.
//! * [`Command`], [`Completion`], [`Status`]: queue entries. [`opcode`] has the numbers.
//! * [`IdentifyController`], [`IdentifyNamespace`]: what a controller says about itself. [`NamespaceName`]: who a namespace is.
//! * [`log`], [`feature`]: log pages, features, asynchronous events.
//!
//! Everything is little-endian on the wire and in the machine's order in fields. Thread rule: plain values.
#![forbid(unsafe_code)]

mod bits;
mod bytes;
mod command;
mod completion;
pub mod feature;
mod identify;
pub mod log;
mod namespace_name;
pub mod opcode;
pub mod register;
pub mod status;

pub use command::{Command, DsmRange, SglDescriptor};
pub use completion::{COMPLETION_BYTES, Completion};
pub use identify::{
    IDENTIFY_BYTES, IdentifyController, IdentifyNamespace, LbaFormat, NamespaceIds, identify_cns,
    parse_namespace_list,
};
pub use namespace_name::NamespaceName;
pub use status::Status;

/// Bytes of a submission queue entry (Base 3.3.3.1), as its power of two in CC.IOSQES says.
pub const COMMAND_BYTES: usize = 64;

/// The most entries a queue can have: MQES is 16 bits and counts from 0 (Base 3.1.3.1).
pub const MAX_QUEUE_ENTRIES: u32 = 65_536;

/// The most entries an admin queue can have (AQA, Base 3.1.3.8).
pub const MAX_ADMIN_ENTRIES: u32 = 4096;

/// Namespace id that means all namespaces (Base 3.2.1.2).
pub const ALL_NAMESPACES: u32 = 0xffff_ffff;
