//! The dRPC methods of `modules/iv_demo`.

use drpc_wire::Status;

use super::Engine;

const DEMO: i32 = 110;
pub const WRITE: i32 = 1;
pub const READ: i32 = 2;
pub const FORGET: i32 = 3;
pub const LOOK: i32 = 4;

/// What an engine's module answers.
pub fn asked(engine: &Engine, method: i32, body: &str) -> (Status, String) {
    let response = engine.drpc().call(DEMO, method, body.as_bytes());
    let response = response.unwrap_or_else(|error| panic!("{error}\n{}", engine.log()));
    let text = String::from_utf8(response.body.clone()).unwrap();
    (response.status(), text)
}

/// The same, which must have gone well.
#[track_caller]
pub fn ok(engine: &Engine, method: i32, body: &str) -> String {
    let (status, text) = asked(engine, method, body);
    assert_eq!(status, Status::Success, "{body}\n{}", engine.log());
    text
}
