//! The smallest module: answers DAOS's dRPC test id (0) with what it was sent.
//!
//! dRPC module 0, method 1: SUCCESS with the call's body unchanged; any other method: UNKNOWN_METHOD. It counts its
//! calls in a per-xstream value and shows them as the metric `keel_hello_calls`. Everything runs on the system
//! xstream. Depends on nothing but `module_sdk`; a model for modules of your own.

use module_sdk::{Counter, DrpcCall, DrpcReply, DrpcStatus, ModuleInfo, PerXstream, Tags, TlsKey};
use std::cell::Cell;

module_sdk::module! {
    name: hello,
    id: 32,
    about: "answers dRPC module 0, method 1, with the body of the call",
    tls: CALLS,
    drpc: { 0 => hello },
}

const METHOD_HELLO: i32 = 1;

static CALLS: TlsKey<Calls> = TlsKey::new();

/// What this xstream has answered.
struct Calls {
    count: Cell<u64>,
    shown: Counter,
}

impl PerXstream for Calls {
    const TAGS: Tags = Tags::SYSTEM;

    fn new(_: &ModuleInfo) -> Option<Self> {
        let shown = Counter::register("calls", "calls answered", None);
        Some(Calls {
            count: Cell::new(0),
            shown,
        })
    }
}

async fn hello(call: DrpcCall) -> DrpcReply {
    if call.method() != METHOD_HELLO {
        return DrpcStatus::UnknownMethod.into();
    }
    CALLS.with(|calls| {
        calls.count.set(calls.count.get() + 1);
        calls.shown.add(1);
        module_sdk::debug!(
            "call {} answers {} bytes",
            calls.count.get(),
            call.body().len()
        );
    });
    DrpcReply::success(call.body().to_vec())
}
