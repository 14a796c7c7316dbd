//! From an address to a descriptor that can be trusted.
//!
//! Invariants:
//! * H1 - the four fields that never move lie within the first 20 bytes of whatever the symbol names. They are read
//!   one by one, by value, before anything else. A symbol that is smaller than that is not detectable by anyone; the
//!   magic makes an accidental match improbable.
//! * H2 - once magic, level, size and fingerprint match, the symbol is a `struct dss_module` of exactly our layout (no
//!   level's descriptor differs from the latest one's, see `ABI_LEVELS`), and the header's rules hold for its pointers: NULL or valid for ever (L1), strings end with NUL, lists end with NULL.
#![allow(unsafe_code, reason = "a C descriptor is read through raw pointers")]

use std::ffi::{CStr, c_char};
use std::path::PathBuf;
use std::ptr;

use module_abi::*;

use crate::error::LoadError;
use crate::library::Opened;
use crate::module::{LoadedModule, ModuleInfo};

/// Lists in a descriptor end at NULL; one that does not within this many entries is refused.
const LIST_MAX: usize = 64;

/// Checks what the library exports under `name`.
pub(crate) fn handshake(
    library: Opened,
    name: &str,
    path: PathBuf,
) -> Result<LoadedModule, LoadError> {
    let Some(address) = library.descriptor(name) else {
        return Err(LoadError::NoSymbol {
            name: name.to_owned(),
            path,
        });
    };
    check_abi(address, name)?;
    // SAFETY: H2, which check_abi has just established, and L1 for the lifetime.
    let descriptor: &'static dss_module = unsafe { &*address };
    let info = read_info(descriptor, name)?;
    check_fields(descriptor, &info, name)?;
    Ok(LoadedModule {
        info,
        path,
        descriptor,
    })
}

fn check_abi(address: *const dss_module, name: &str) -> Result<(), LoadError> {
    let name = name.to_owned();
    if address.is_null() || !address.is_aligned() {
        return Err(LoadError::NotADescriptor { name, found: 0 });
    }
    // SAFETY: H1, for these four reads.
    let (magic, size, fingerprint, level) = unsafe {
        (
            ptr::addr_of!((*address).sm_magic).read(),
            ptr::addr_of!((*address).sm_size).read(),
            ptr::addr_of!((*address).sm_fingerprint).read(),
            ptr::addr_of!((*address).sm_level).read(),
        )
    };
    let other = |what, found, expected| {
        Err(LoadError::OtherAbi {
            name: name.clone(),
            what,
            found,
            expected,
        })
    };
    if magic != DSS_ABI_MAGIC {
        return Err(LoadError::NotADescriptor { name, found: magic });
    }
    let Some(known) = ABI_LEVELS.iter().find(|known| known.level == level) else {
        return other("level", level.to_string(), format!("1 to {DSS_ABI_LEVEL}"));
    };
    if size as usize != known.module_size {
        return other(
            "size of struct dss_module",
            size.to_string(),
            known.module_size.to_string(),
        );
    }
    if fingerprint != known.fingerprint {
        return other(
            "fingerprint",
            format!("{fingerprint:#018x}"),
            format!("{:#018x}", known.fingerprint),
        );
    }
    Ok(())
}

fn read_info(descriptor: &'static dss_module, name: &str) -> Result<ModuleInfo, LoadError> {
    let bad = |what: String| LoadError::BadDescriptor {
        name: name.to_owned(),
        what,
    };
    let found = text(descriptor.sm_name).map_err(|why| bad(format!("sm_name {why}")))?;
    if found.len() > DSS_MODNAME_MAX_LEN as usize {
        return Err(LoadError::NameTooLong {
            len: found.len(),
            name: found,
        });
    }
    if found != name {
        return Err(LoadError::OtherName {
            name: name.to_owned(),
            found,
        });
    }
    let about = match descriptor.sm_about.is_null() {
        true => String::new(),
        false => text(descriptor.sm_about).map_err(|why| bad(format!("sm_about {why}")))?,
    };
    let count = descriptor.sm_proto_count as usize;
    if count > DSS_MAX_PROTO_VERSIONS as usize {
        return Err(bad(format!(
            "sm_proto_count is {count}; at most {DSS_MAX_PROTO_VERSIONS} versions are possible"
        )));
    }
    Ok(ModuleInfo {
        id: descriptor.sm_mod_id,
        version: descriptor.sm_ver,
        needs: texts(descriptor.sm_needs).map_err(|why| bad(format!("sm_needs {why}")))?,
        provides: texts(descriptor.sm_provides).map_err(|why| bad(format!("sm_provides {why}")))?,
        about,
        drpc_ids: drpc_ids(descriptor.sm_drpc_handlers).map_err(bad)?,
        proto_versions: proto_versions(&descriptor.sm_proto[..count]).map_err(bad)?,
        name: found,
    })
}

fn check_fields(descriptor: &dss_module, info: &ModuleInfo, name: &str) -> Result<(), LoadError> {
    let bad = |what: String| {
        Err(LoadError::BadDescriptor {
            name: name.to_owned(),
            what,
        })
    };
    if !(0..DSS_MAX_MODULE as i32).contains(&info.id) {
        return bad(format!(
            "sm_mod_id is {}; ids are 0 to {}",
            info.id,
            DSS_MAX_MODULE - 1
        ));
    }
    if descriptor.sm_init.is_none() {
        return bad("sm_init is NULL; it is required".to_owned());
    }
    if descriptor.sm_fini.is_none() {
        return bad("sm_fini is NULL; it is required".to_owned());
    }
    if descriptor.sm_host.is_null() {
        return bad("sm_host is NULL; the engine has nowhere to store its table".to_owned());
    }
    if descriptor.sm_facs != 0 {
        return bad(format!(
            "sm_facs is {:#x}; no facility bit is defined at ABI level {DSS_ABI_LEVEL}",
            descriptor.sm_facs
        ));
    }
    // SAFETY: H2.
    if let Some(key) = unsafe { descriptor.sm_key.as_ref() } {
        if key.dmk_init.is_none() || key.dmk_fini.is_none() {
            return bad("sm_key has no dmk_init or no dmk_fini; both are required".to_owned());
        }
        if key.dmk_tags & DAOS_SERVER_TAG == 0 {
            return bad("sm_key's dmk_tags match no xstream".to_owned());
        }
    }
    Ok(())
}

fn drpc_ids(handlers: *const dss_drpc_handler) -> Result<Vec<i32>, String> {
    let mut ids = Vec::new();
    if handlers.is_null() {
        return Ok(ids);
    }
    for i in 0..LIST_MAX {
        // SAFETY: H2: the list goes on until its terminator, which has not been seen yet.
        let entry = unsafe { handlers.add(i).read() };
        if entry.handler.is_none() {
            return Ok(ids);
        }
        if !(0..DSS_MAX_DRPC_MODULE as i32).contains(&entry.module_id) {
            return Err(format!(
                "sm_drpc_handlers has module id {}; ids are 0 to {}",
                entry.module_id,
                DSS_MAX_DRPC_MODULE - 1
            ));
        }
        if ids.contains(&entry.module_id) {
            return Err(format!(
                "sm_drpc_handlers has module id {} twice",
                entry.module_id
            ));
        }
        ids.push(entry.module_id);
    }
    Err(format!(
        "sm_drpc_handlers does not end within {LIST_MAX} entries"
    ))
}

fn proto_versions(protocols: &[*const dss_rpc_proto]) -> Result<Vec<u32>, String> {
    let mut versions = Vec::new();
    for &protocol in protocols {
        // SAFETY: H2. NULL is DAOS's way to say "no protocol here".
        let Some(protocol) = (unsafe { protocol.as_ref() }) else {
            continue;
        };
        if !(1..=255).contains(&protocol.version) || versions.contains(&protocol.version) {
            return Err(format!(
                "sm_proto has version {}; versions are 1 to 255 and differ",
                protocol.version
            ));
        }
        if protocol.count > 0 && protocol.handlers.is_null() {
            return Err(format!(
                "sm_proto version {} has {} handlers at NULL",
                protocol.version, protocol.count
            ));
        }
        for i in 0..protocol.count as usize {
            // SAFETY: H2: `count` handlers lie there.
            let handler = unsafe { protocol.handlers.add(i).read() };
            if handler.handler.is_none() || handler.index > 0xffff {
                return Err(format!(
                    "sm_proto version {}: handler {i} is NULL or its index is over 65535",
                    protocol.version
                ));
            }
        }
        versions.push(protocol.version);
    }
    Ok(versions)
}

fn text(pointer: *const c_char) -> Result<String, &'static str> {
    if pointer.is_null() {
        return Err("is NULL");
    }
    // SAFETY: H2.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str().map(str::to_owned).map_err(|_| "is not UTF-8")
}

fn texts(list: *const *const c_char) -> Result<Vec<String>, &'static str> {
    let mut texts = Vec::new();
    if list.is_null() {
        return Ok(texts);
    }
    for i in 0..LIST_MAX {
        // SAFETY: H2: the list goes on until its terminator, which has not been seen yet.
        let entry = unsafe { list.add(i).read() };
        if entry.is_null() {
            return Ok(texts);
        }
        texts.push(text(entry)?);
    }
    Err("does not end within 64 entries")
}
