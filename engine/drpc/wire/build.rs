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
    let mut config = prost_build::Config::new();
    // Keel's own messages are what `keel -o json` prints.
    config.type_attribute(".keel", "#[derive(serde::Serialize)]");
    config.compile_fds(files)?;
    println!("cargo:rerun-if-changed=proto");
    Ok(())
}
