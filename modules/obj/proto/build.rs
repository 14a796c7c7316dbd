//! Compiles proto/obj.proto without needing protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/obj.proto");
    let descriptors = protox::compile(["proto/obj.proto"], ["proto"])?;
    prost_build::Config::new().compile_fds(descriptors)?;
    Ok(())
}
