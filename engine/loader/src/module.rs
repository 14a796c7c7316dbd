//! A module that passed the handshake.

use std::path::{Path, PathBuf};

use module_abi::dss_module;

/// What the descriptor says, copied into owned values once, so that nothing else reads raw strings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleInfo {
    /// `sm_name`.
    pub name: String,
    /// `sm_mod_id`, 0..64.
    pub id: i32,
    /// `sm_ver`: major << 24 | minor << 16 | patch << 8.
    pub version: u32,
    /// `sm_needs`.
    pub needs: Vec<String>,
    /// `sm_provides`, without the module's own name.
    pub provides: Vec<String>,
    /// `sm_about`, or empty.
    pub about: String,
    /// Module ids in `sm_drpc_handlers`.
    pub drpc_ids: Vec<i32>,
    /// Versions in `sm_proto`.
    pub proto_versions: Vec<u32>,
}

impl ModuleInfo {
    /// The version as people write it.
    pub fn version_text(&self) -> String {
        let [major, minor, patch, _] = self.version.to_be_bytes();
        format!("{major}.{minor}.{patch}")
    }
}

/// A library that is open, whose descriptor was found sound. Lives as long as the process (invariant L1).
#[derive(Clone)]
pub struct LoadedModule {
    pub(crate) info: ModuleInfo,
    pub(crate) path: PathBuf,
    pub(crate) descriptor: &'static dss_module,
}

impl LoadedModule {
    /// The module's name.
    pub fn name(&self) -> &str {
        &self.info.name
    }

    /// What the descriptor says.
    pub fn info(&self) -> &ModuleInfo {
        &self.info
    }

    /// The file it came from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The descriptor itself, for the host: its function pointers obey the header's tags.
    pub fn descriptor(&self) -> &'static dss_module {
        self.descriptor
    }
}

impl std::fmt::Debug for LoadedModule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadedModule")
            .field("info", &self.info)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}
