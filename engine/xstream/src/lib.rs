//! Execution streams: roles, placement, ULTs, start-up and shutdown.

mod layout;
mod role;

pub use layout::{
    Core, HelperMode, Layout, LayoutError, LayoutOptions, MAX_TARGETS, Placement, SYS_XS_NR,
    ServeError, XstreamSpec,
};
pub use role::{Role, XsType, XstreamId};
