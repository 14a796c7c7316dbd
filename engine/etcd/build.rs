//! Compiles `proto/etcd.proto` in-process (protox instead of an installed protoc).

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = protox::compile(["etcd.proto"], ["proto"])?;
    prost_build::Config::new().compile_fds(files)?;
    println!("cargo:rerun-if-changed=proto");
    Ok(())
}
