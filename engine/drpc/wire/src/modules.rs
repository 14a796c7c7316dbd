//! dRPC module ids (DAOS `src/include/daos/drpc_modules.h`) and Keel's own.

/// Test module: method 1 answers with the call's body.
pub const TEST: i32 = 0;
/// Credentials, served by the agent.
pub const SEC_AGENT: i32 = 1;
/// Management, served by the engine (and, for client libraries, by the agent).
pub const MGMT: i32 = 2;
/// What an engine asks the control server.
pub const SRV: i32 = 3;
/// Credential checks, served by the control server.
pub const SEC: i32 = 4;
/// Keel's own methods; outside the ids that DAOS uses or is likely to use.
pub const KEEL: i32 = 100;

/// Ids run from 0 to one below this.
pub const LIMIT: i32 = 128;

/// The name of a module id, for logs and tools.
pub const fn name(id: i32) -> Option<&'static str> {
    Some(match id {
        TEST => "test",
        SEC_AGENT => "sec_agent",
        MGMT => "mgmt",
        SRV => "srv",
        SEC => "sec",
        KEEL => "keel",
        _ => return None,
    })
}
