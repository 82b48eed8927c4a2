//! How the server is linked.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Names and lines for profiles and backtraces are four fifths of the binary: compressed they are a third of that.
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        println!("cargo:rustc-link-arg-bins=-Wl,--compress-debug-sections=zlib");
    }
}
