//! The `module!` macro: descriptor and entry points.
//!
//! Invariant: what the macro writes into statics is immutable (invariant D of `module_abi`).
#![allow(unsafe_code, reason = "pointers in statics")]

use std::ffi::c_char;

/// A NULL-terminated list of C strings, for the descriptor.
#[repr(transparent)]
pub struct CStrings<const N: usize>(pub [*const c_char; N]);

// SAFETY: points to literals.
unsafe impl<const N: usize> Sync for CStrings<N> {}

/// `major << 24 | minor << 16 | patch << 8`, from the crate's version. Each part is taken modulo 256.
pub const fn version(major: &str, minor: &str, patch: &str) -> u32 {
    const fn number(text: &str) -> u32 {
        let (bytes, mut value, mut i) = (text.as_bytes(), 0u32, 0);
        while i < bytes.len() {
            value = (value * 10 + (bytes[i] - b'0') as u32) & 0xff;
            i += 1;
        }
        value
    }
    number(major) << 24 | number(minor) << 16 | number(patch) << 8
}

/// Declares the module of a `cdylib` crate: its descriptor, exported as `<name>_module`, and all entry points. Once per
/// crate. Keys in this order; those in brackets are optional:
///
/// | key | value |
/// |---|---|
/// | `name` | an identifier; the library is `lib<name>.so` |
/// | `id` | 0 .. 63, unique in the engine |
/// | `[about]` | one sentence, a literal |
/// | `[needs]`, `[provides]` | lists of literals: modules or capabilities that come first; capabilities beyond the name |
/// | `[tls]` | the path of a static [`TlsKey`](crate::TlsKey) |
/// | `[init]`, `[fini]` | `fn() -> Result<(), Der>`, on the main thread, without xstreams |
/// | `[setup]`, `[cleanup]` | `async fn() -> Result<(), Der>`, on the system xstream; setup may run again after a failure |
/// | `[rpc]` | versions, each with its handlers by index: `async fn(Request) -> impl Into<Reply>` |
/// | `[classify]` | `fn(&RpcHead<'_>) -> Option<ReqAttr>`: what a request is to its target's scheduler; `None`: served at once |
/// | `[drpc]` | dRPC module ids with their handler: `async fn(DrpcCall) -> impl Into<DrpcReply>` |
///
/// The version is the crate's.
///
/// ```
/// use module_sdk::{Der, DrpcCall, DrpcReply, Reply, Request};
///
/// module_sdk::module! {
///     name: echo,
///     id: 60,
///     about: "answers what it is told",
///     needs: ["hello"],
///     setup: setup,
///     rpc: { 1 => { 1 => echo } },
///     drpc: { 101 => echo_drpc },
/// }
///
/// async fn setup() -> Result<(), Der> {
///     module_sdk::info!("ready");
///     Ok(())
/// }
///
/// async fn echo(request: Request) -> Result<Reply, Der> {
///     if request.body().is_empty() {
///         return Err(Der::INVAL);
///     }
///     Ok(Reply::ok().with_body(request.body().to_vec()).with_bulk(request.take_bulk()))
/// }
///
/// async fn echo_drpc(call: DrpcCall) -> DrpcReply {
///     DrpcReply::success(call.body().to_vec())
/// }
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! module {
    (
        name: $name:ident,
        id: $id:expr,
        $(about: $about:literal,)?
        $(needs: [$($need:literal),* $(,)?],)?
        $(provides: [$($capability:literal),* $(,)?],)?
        $(tls: $tls:path,)?
        $(init: $init:path,)?
        $(fini: $fini:path,)?
        $(setup: $setup:path,)?
        $(cleanup: $cleanup:path,)?
        $(rpc: { $($version:literal => { $($index:expr => $rpc:path),+ $(,)? }),+ $(,)? },)?
        $(classify: $classify:path,)?
        $(drpc: { $($drpc_id:expr => $drpc:path),+ $(,)? },)?
    ) => {
        const _: () = {
            // Names of its own: the module's items may be called anything.
            use ::core::ptr::null as __module_null;
            use $crate::rt::abi as __module_abi;

            unsafe extern "C" fn __module_init() -> i32 {
                $crate::rt::init(&__MODULE_MODULE, || { $($init()?;)? ::core::result::Result::Ok(()) })
            }
            unsafe extern "C" fn __module_fini() -> i32 {
                $crate::rt::finish(|| { $($fini()?;)? ::core::result::Result::Ok(()) })
            }
            type __ModulePhase = ::core::option::Option<unsafe extern "C" fn(*mut __module_abi::dss_done) -> i32>;
            const __MODULE_SETUP: __ModulePhase = $crate::module!(@phase "setup" $($setup)?);
            const __MODULE_CLEANUP: __ModulePhase = $crate::module!(@phase "cleanup" $($cleanup)?);

            static __MODULE_PROTOCOLS: &[__module_abi::dss_rpc_proto] = &[$($({
                static __MODULE_HANDLERS: &[__module_abi::dss_rpc_handler] = &[$(__module_abi::dss_rpc_handler {
                    index: $index,
                    flags: 0,
                    name: ::core::concat!(::core::stringify!($rpc), "\0").as_ptr().cast(),
                    handler: {
                        unsafe extern "C" fn __module_handle(rpc: *mut __module_abi::dss_rpc) {
                            // SAFETY: the engine calls it.
                            unsafe { $crate::rt::rpc_enter(::core::stringify!($rpc), rpc, $rpc) }
                        }
                        ::core::option::Option::Some(__module_handle)
                    },
                }),+];
                __module_abi::dss_rpc_proto { version: $version, count: __MODULE_HANDLERS.len() as u32, handlers: __MODULE_HANDLERS.as_ptr() }
            }),+)?];
            static __MODULE_DRPC: &[__module_abi::dss_drpc_handler] = &[
                $($(__module_abi::dss_drpc_handler {
                    module_id: $drpc_id,
                    reserved: 0,
                    handler: {
                        unsafe extern "C" fn __module_handle(call: *mut __module_abi::dss_drpc) {
                            // SAFETY: the engine calls it.
                            unsafe { $crate::rt::drpc_enter(::core::stringify!($drpc), call, $drpc) }
                        }
                        ::core::option::Option::Some(__module_handle)
                    },
                },)+)?
                __module_abi::dss_drpc_handler { module_id: 0, reserved: 0, handler: ::core::option::Option::None },
            ];
            const fn __module_protocol(i: usize) -> *const __module_abi::dss_rpc_proto {
                if i < __MODULE_PROTOCOLS.len() { &raw const __MODULE_PROTOCOLS[i] } else { __module_null() }
            }
            static __MODULE_NEEDS: &$crate::rt::CStrings<{ [$($($need,)*)? ""].len() }> =
                &$crate::rt::CStrings([$($(::core::concat!($need, "\0").as_ptr().cast(),)*)? __module_null()]);
            static __MODULE_PROVIDES: &$crate::rt::CStrings<{ [$($($capability,)*)? ""].len() }> =
                &$crate::rt::CStrings([$($(::core::concat!($capability, "\0").as_ptr().cast(),)*)? __module_null()]);

            #[unsafe(export_name = ::core::concat!(::core::stringify!($name), "_module"))]
            static __MODULE_MODULE: __module_abi::dss_module = __module_abi::dss_module {
                sm_magic: __module_abi::DSS_ABI_MAGIC,
                sm_size: ::core::mem::size_of::<__module_abi::dss_module>() as u32,
                sm_fingerprint: __module_abi::DSS_ABI_FINGERPRINT,
                sm_level: __module_abi::DSS_ABI_LEVEL,
                sm_mod_id: $id,
                sm_ver: $crate::rt::version(
                    ::core::env!("CARGO_PKG_VERSION_MAJOR"),
                    ::core::env!("CARGO_PKG_VERSION_MINOR"),
                    ::core::env!("CARGO_PKG_VERSION_PATCH"),
                ),
                sm_reserved: 0,
                sm_name: ::core::concat!(::core::stringify!($name), "\0").as_ptr().cast(),
                sm_facs: 0,
                sm_host: $crate::rt::host_slot(),
                sm_key: $crate::module!(@or_null $($tls.descriptor())?),
                sm_init: ::core::option::Option::Some(__module_init),
                sm_fini: ::core::option::Option::Some(__module_fini),
                sm_setup: __MODULE_SETUP,
                sm_cleanup: __MODULE_CLEANUP,
                sm_proto_count: __MODULE_PROTOCOLS.len() as u32,
                sm_reserved2: 0,
                sm_proto: [__module_protocol(0), __module_protocol(1)],
                sm_drpc_handlers: __MODULE_DRPC.as_ptr(),
                sm_get_req_attr: $crate::module!(@classify $($classify)?),
                sm_needs: __MODULE_NEEDS.0.as_ptr(),
                sm_provides: __MODULE_PROVIDES.0.as_ptr(),
                sm_about: $crate::module!(@or_null $(::core::concat!($about, "\0").as_ptr().cast())?),
            };
        };
    };
    (@phase $what:literal) => { ::core::option::Option::None };
    (@phase $what:literal $f:path) => {{
        unsafe extern "C" fn __module_start(done: *mut __module_abi::dss_done) -> i32 {
            // SAFETY: the engine calls it.
            unsafe { $crate::rt::start($what, done, $f) }
        }
        ::core::option::Option::Some(__module_start)
    }};
    (@classify) => { ::core::option::Option::None };
    (@classify $f:path) => {{
        unsafe extern "C" fn __module_classify(rpc: *const __module_abi::dss_rpc_info, out: *mut __module_abi::dss_req_attr) -> i32 {
            // SAFETY: the engine calls it.
            unsafe { $crate::rt::classify(rpc, out, $f) }
        }
        ::core::option::Option::Some(__module_classify)
    }};
    (@or_null) => { __module_null() };
    (@or_null $pointer:expr) => { $pointer };
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_version_is_packed_as_in_daos() {
        assert_eq!(super::version("1", "22", "3"), 1 << 24 | 22 << 16 | 3 << 8);
    }
}
