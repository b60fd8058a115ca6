//! Makes Rust of the messages in `proto`, and the description of them that gRPC reflection hands out. protox is a
//! compiler in Rust, so that no protoc has to be installed.

use std::error::Error;
use std::path::PathBuf;

use protox::prost::Message as _;

const ENTRY: &str = "envoy/service/ratelimit/v3/rls.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let messages = protox::compile([ENTRY], ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), messages.encode_to_vec())?;
    tonic_prost_build::configure().build_client(false).include_file("messages.rs").compile_fds(messages)?;
    Ok(())
}
