//! Compiles `proto/*.proto` in-process (protox instead of an installed protoc).

const FILES: [&str; 6] = [
    "drpc.proto",
    "mgmt.proto",
    "ctl.proto",
    "srv.proto",
    "shared.proto",
    "keel.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = protox::compile(FILES, ["proto"])?;
    prost_build::Config::new().compile_fds(files)?;
    println!("cargo:rerun-if-changed=proto");
    Ok(())
}
