//! NVIDIA's libraries, as a build with CUDA calls them. No GPU is needed: another library takes their place.

use crate::{at, run, scratch, tool};
use std::process::Command;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[test]
fn a_library_is_loaded_at_its_first_call_and_its_absence_is_an_error_code() {
    let Some(gcc) = tool("gcc") else { return };
    let folder = scratch("cuda_shim");
    let (shim, sources) = (at("src/device/shim"), at("tests/hosts/c/shim"));
    std::fs::create_dir(folder.join("lib64")).unwrap();
    run(Command::new(&gcc)
        .args(["-shared", "-fPIC", "-O2", "-o"])
        .arg(folder.join("lib64/libfake.so.7"))
        .arg(sources.join("library.c")));
    let symbols = format!("-DSYMBOLS=\"{}\"", sources.join("symbols.h").display());
    run(Command::new(&gcc)
        .args(["-Wall", "-Wextra", "-Werror", "-O2", "-g", "-fPIE", "-pthread", "-o"])
        .arg(folder.join("caller"))
        .args(["-DLIBRARY=fake", "-DSONAME=\"libfake.so.7\"", "-DMISSING=34", &symbols])
        .args([sources.join("caller.c"), shim.join("shim.c"), shim.join("trampolines.S")])
        .arg("-ldl"));
    let output = run(Command::new(folder.join("caller")).arg(&folder));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "as promised\n");
}
