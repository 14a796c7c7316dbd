//! What can be wrong with a module: one variant, one message, one cure each.

use std::path::PathBuf;

use daos_errno::Der;
use module_abi::{
    DSS_ABI_LEVEL, DSS_MAX_DRPC_MODULE, DSS_MAX_MODULE, DSS_MAX_PROTO_VERSIONS, DSS_MODNAME_MAX_LEN,
};

/// Why a module was refused. The message says what and where, [`LoadError::cure`] what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// Longer than the ABI's limit.
    #[error("module name `{name}` has {len} bytes; at most {DSS_MODNAME_MAX_LEN} are allowed")]
    NameTooLong {
        /// As configured.
        name: String,
        /// Its length in bytes.
        len: usize,
    },
    /// A name becomes part of a file name and of a symbol.
    #[error("module name `{name}` is not made of a-z, 0-9 and `_`")]
    NameInvalid {
        /// As configured.
        name: String,
    },
    /// Listed twice in the configuration.
    #[error("module `{name}` is listed twice")]
    Twice {
        /// As configured.
        name: String,
    },
    /// No such file on the search path.
    #[error("module `{name}`: no file lib{name}.so in {searched}{}", hint.as_ref().map(|h| format!(" (did you mean `{h}`?)")).unwrap_or_default())]
    NotFound {
        /// As configured.
        name: String,
        /// The folders looked into, comma separated.
        searched: String,
        /// A module of a similar name that is there.
        hint: Option<String>,
    },
    /// The file is there but this process cannot read it.
    #[error("module `{name}`: cannot read {}: {why}", path.display())]
    NotReadable {
        /// As configured.
        name: String,
        /// The file.
        path: PathBuf,
        /// The system's word.
        why: String,
    },
    /// A file anyone may change is code anyone may run as the engine.
    #[error("module `{name}`: {} may be written by {who} (mode {mode:04o})", path.display())]
    Writable {
        /// As configured.
        name: String,
        /// The file.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
        /// `its group`, `others`.
        who: &'static str,
    },
    /// Not a shared library at all.
    #[error("module `{name}`: {} is not an ELF file (it starts with {starts})", path.display())]
    NotElf {
        /// As configured.
        name: String,
        /// The file.
        path: PathBuf,
        /// Its first four bytes in hexadecimal.
        starts: String,
    },
    /// The dynamic loader refused it.
    #[error("module `{name}`: the dynamic loader refuses {}: {why}", path.display())]
    Open {
        /// As configured.
        name: String,
        /// The file.
        path: PathBuf,
        /// dlerror's text.
        why: String,
    },
    /// The descriptor's symbol is missing.
    #[error("module `{name}`: {} exports no symbol `{name}_module`", path.display())]
    NoSymbol {
        /// As configured.
        name: String,
        /// The file.
        path: PathBuf,
    },
    /// The symbol is not a module descriptor.
    #[error("module `{name}`: `{name}_module` is no module descriptor (magic {found:#010x})")]
    NotADescriptor {
        /// As configured.
        name: String,
        /// What stands where the magic should.
        found: u32,
    },
    /// Built against another version of the header.
    #[error(
        "module `{name}`: built for another module ABI ({what}: module {found}, engine {expected})"
    )]
    OtherAbi {
        /// As configured.
        name: String,
        /// Which of size, fingerprint, level differs.
        what: &'static str,
        /// The module's value.
        found: String,
        /// The engine's value.
        expected: String,
    },
    /// The descriptor names another module.
    #[error("module `{name}`: its descriptor says it is `{found}`")]
    OtherName {
        /// As configured.
        name: String,
        /// `sm_name`.
        found: String,
    },
    /// A field of the descriptor breaks the header's rules.
    #[error("module `{name}`: {what}")]
    BadDescriptor {
        /// As configured.
        name: String,
        /// Field and rule.
        what: String,
    },
    /// Two modules want one id.
    #[error("module `{name}`: module id {id} already belongs to `{owner}`")]
    DuplicateId {
        /// As configured.
        name: String,
        /// `sm_mod_id`.
        id: i32,
        /// The earlier module.
        owner: String,
    },
    /// Two modules want to serve one dRPC module.
    #[error("module `{name}`: dRPC module id {id} is already served by `{owner}`")]
    DuplicateDrpcId {
        /// As configured.
        name: String,
        /// The dRPC module id.
        id: i32,
        /// The earlier module.
        owner: String,
    },
    /// Two modules provide one capability.
    #[error("module `{name}`: capability `{capability}` is already provided by `{owner}`")]
    DuplicateCapability {
        /// As configured.
        name: String,
        /// What both provide.
        capability: String,
        /// The earlier module.
        owner: String,
    },
    /// A need that no loaded module provides.
    #[error("module `{name}` needs `{need}`, which no loaded module provides{}", hint.as_ref().map(|h| format!(" (did you mean `{h}`?)")).unwrap_or_default())]
    UnknownNeed {
        /// As configured.
        name: String,
        /// The missing capability.
        need: String,
        /// A capability of a similar name.
        hint: Option<String>,
    },
    /// Modules that wait for each other.
    #[error("modules need each other in a circle: {}", circle.join(" -> "))]
    NeedCycle {
        /// The circle, first name repeated at the end.
        circle: Vec<String>,
    },
    /// `sm_init` returned an error.
    #[error("module `{name}`: init failed: {der}")]
    InitFailed {
        /// As configured.
        name: String,
        /// What it returned.
        der: Der,
    },
    /// The engine's registries refused what the module brings.
    #[error("module `{name}`: registration failed: {why}")]
    RegisterFailed {
        /// As configured.
        name: String,
        /// The registry's word.
        why: String,
    },
}

impl LoadError {
    /// What an operator or the module's author can do about it.
    pub fn cure(&self) -> String {
        use LoadError::*;
        match self {
            NameTooLong { .. } | NameInvalid { .. } => {
                "rename the module: its file, symbol, sm_name and the entry in modules.load".into()
            }
            Twice { name } => format!("remove one `{name}` from modules.load"),
            NotFound { .. } => {
                "build or install the module, or point modules.path at its folder".into()
            }
            NotReadable { path, .. } => format!(
                "give the engine's user read access: chmod a+r {}",
                path.display()
            ),
            Writable { path, .. } => format!("chmod go-w {}", path.display()),
            NotElf { .. } | Open { .. } => {
                "rebuild the module as a shared library for this machine".into()
            }
            NoSymbol { name, .. } => {
                format!("export `struct dss_module {name}_module` (not static, visibility default)")
            }
            NotADescriptor { .. } | OtherAbi { .. } => format!(
                "rebuild the module with this engine's engine_module.h (ABI level {DSS_ABI_LEVEL})"
            ),
            OtherName { found, .. } => {
                format!("name the file lib{found}.so, or set sm_name to match it")
            }
            BadDescriptor { .. } => {
                "correct the descriptor; engine_module.h states the rule at the field".into()
            }
            DuplicateId { .. } => format!("give the module an unused id below {DSS_MAX_MODULE}"),
            DuplicateDrpcId { .. } => {
                format!("give the handler an unused dRPC module id below {DSS_MAX_DRPC_MODULE}")
            }
            DuplicateCapability { .. } => "load only one of the two".into(),
            UnknownNeed { need, .. } => {
                format!("add a module that provides `{need}` to modules.load")
            }
            NeedCycle { .. } => "remove one of the needs (sm_needs)".into(),
            InitFailed { .. } => "see the module's own log lines just above".into(),
            RegisterFailed { .. } => format!(
                "at most {DSS_MAX_PROTO_VERSIONS} protocol versions, unique ids; see the header"
            ),
        }
    }
}

/// Everything wrong with a list of modules, found in one pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadErrors(pub Vec<LoadError>);

impl std::fmt::Display for LoadErrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{error}\n  cure: {}", error.cure())?;
        }
        Ok(())
    }
}

impl std::error::Error for LoadErrors {}
