//! Compiles the messages that mgmt speaks. They belong to the dRPC wire crate; a module shares files with the engine,
//! never code.

const PROTO: &str = "../../engine/drpc/wire/proto";
const FILES: [&str; 3] = ["mgmt.proto", "ctl.proto", "keel.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = protox::compile(FILES, [PROTO])?;
    prost_build::Config::new().compile_fds(files)?;
    println!("cargo:rerun-if-changed={PROTO}");
    Ok(())
}
