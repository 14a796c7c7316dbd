//! Messages to the engine's log, under the module's name.
//!
//! Invariants: E1 to E3 of `engine.rs`.
#![allow(unsafe_code, reason = "calls the engine's table")]

use crate::engine;
use std::fmt;

/// How much a message matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i32)]
pub enum Level {
    /// Something failed that an operator must know of.
    Error = module_abi::DSS_LOG_ERROR,
    /// Something is off, and the module copes.
    Warn = module_abi::DSS_LOG_WARN,
    /// Milestones.
    Info = module_abi::DSS_LOG_INFO,
    /// For whoever looks for a fault.
    Debug = module_abi::DSS_LOG_DEBUG,
    /// Each step.
    Trace = module_abi::DSS_LOG_TRACE,
}

/// True when the log mask lets the level through. Any thread.
pub fn enabled(level: Level) -> bool {
    match engine::try_host() {
        // SAFETY: E1, E2; the level is one of the header's.
        Some(host) => unsafe { (host.log_enabled)(engine::module(), level as i32) != 0 },
        None => level <= Level::Info,
    }
}

/// Writes one message. Any thread. To stderr where there is no engine.
#[allow(
    clippy::print_stderr,
    reason = "the only place to go in a unit test of a module"
)]
pub fn write(level: Level, message: fmt::Arguments<'_>) {
    let formatted;
    let text = match message.as_str() {
        Some(text) => text,
        None => {
            formatted = message.to_string();
            &formatted
        }
    };
    match engine::try_host() {
        // SAFETY: E1, E2; the text is borrowed for the call.
        Some(host) => unsafe {
            (host.log)(
                engine::module(),
                level as i32,
                text.as_ptr().cast(),
                text.len() as u64,
            )
        },
        None => eprintln!("{level:?} {text}"),
    }
}

/// Logs at a level when the mask lets it through; formats nothing otherwise.
#[doc(hidden)]
#[macro_export]
macro_rules! log_at {
    ($level:ident, $($message:tt)*) => {
        if $crate::rt::enabled($crate::Level::$level) {
            $crate::rt::write($crate::Level::$level, ::std::format_args!($($message)*));
        }
    };
}

/// Logs an error: something failed that an operator must know of.
#[macro_export]
macro_rules! error { ($($message:tt)*) => { $crate::log_at!(Error, $($message)*) }; }
/// Logs a warning: something is off, and the module copes.
#[macro_export]
macro_rules! warn { ($($message:tt)*) => { $crate::log_at!(Warn, $($message)*) }; }
/// Logs a milestone.
#[macro_export]
macro_rules! info { ($($message:tt)*) => { $crate::log_at!(Info, $($message)*) }; }
/// Logs for whoever looks for a fault.
#[macro_export]
macro_rules! debug { ($($message:tt)*) => { $crate::log_at!(Debug, $($message)*) }; }
/// Logs a step.
#[macro_export]
macro_rules! trace { ($($message:tt)*) => { $crate::log_at!(Trace, $($message)*) }; }
