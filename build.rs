//! Linker arguments of the shared library, and what the library says about its own build.

use std::env;

/// Major version of the C ABI; tests/abi.rs compares it with the header's.
const ABI_MAJOR: u32 = 1;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // A release says what it was built from; a build in a working tree cannot know.
    println!("cargo:rerun-if-env-changed=SITTER_COMMIT");
    let variable = |name: &str| env::var(name).unwrap_or_default();
    let commit = env::var("SITTER_COMMIT").unwrap_or("unknown".into());
    println!("cargo:rustc-env=SITTER_COMMIT={commit}");
    println!("cargo:rustc-env=SITTER_TARGET={}", variable("TARGET"));
    println!("cargo:rustc-env=SITTER_PROFILE={}", variable("PROFILE"));
    let rustc = std::process::Command::new(env::var("RUSTC").unwrap_or("rustc".into())).arg("--version").output();
    let rustc = rustc.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_string()).unwrap_or_default();
    println!("cargo:rustc-env=SITTER_RUSTC={rustc}");
    match variable("CARGO_CFG_TARGET_OS").as_str() {
        "linux" => {
            // The major version alone: every 1.x library serves programs linked with any other.
            println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libsitter.so.{ABI_MAJOR}");
            // After dlclose the pool's threads and thread-locals still need the code.
            println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
        }
        "macos" => {
            println!("cargo:rustc-cdylib-link-arg=-Wl,-install_name,@rpath/libsitter.{ABI_MAJOR}.dylib");
        }
        _ => {}
    }
}
