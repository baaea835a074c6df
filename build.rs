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
            name_for_the_loader(&format!("libsitter.so.{ABI_MAJOR}"), "libsitter.so");
        }
        "macos" => {
            println!("cargo:rustc-cdylib-link-arg=-Wl,-install_name,@rpath/libsitter.{ABI_MAJOR}.dylib");
            name_for_the_loader(&format!("libsitter.{ABI_MAJOR}.dylib"), "libsitter.dylib");
        }
        _ => {}
    }
    #[cfg(feature = "cuda")]
    cuda::main();
}

/// Beside the library that cargo makes, a link by the name under which a program linked with it looks for it. What it leads to
/// comes later. Where it cannot be made, the library is used as before: with a link of one's own, or installed.
fn name_for_the_loader(name: &str, library: &str) {
    #[cfg(unix)]
    if let Some(out) = env::var_os("OUT_DIR") {
        // PROFILE/build/sitter-HASH/out
        if let Some(profile) = std::path::Path::new(&out).ancestors().nth(3) {
            let _ = std::os::unix::fs::symlink(library, profile.join(name));
        }
    }
    #[cfg(not(unix))]
    let _ = (name, library);
}

/// Keeps NVIDIA's libraries out of what the loader needs to start us, see docs/cuda.md. candle asks the linker for -lcuda,
/// -lcublas and so on; the archives made here are what it finds, because Cargo puts a package's own folder before others.
#[cfg(feature = "cuda")]
mod cuda {
    use std::env;
    use std::path::{Path, PathBuf};

    /// Name for the linker, name for the loader, what functions return if it is missing: for each library the code that says
    /// "not there" or "not initialized".
    const LIBRARIES: [(&str, &str, i32); 6] = [
        ("cuda", "libcuda.so.1", 34),
        ("cublas", "libcublas.so.13", 1),
        ("cublasLt", "libcublasLt.so.13", 1),
        ("curand", "libcurand.so.10", 203),
        ("nvrtc", "libnvrtc.so.13", 7),
        ("cudnn", "libcudnn.so.9", 1),
    ];

    pub fn main() {
        let folder = PathBuf::from(env::var_os("OUT_DIR").unwrap());
        compile_kernels(&folder);
        const SHIM: &str = "src/device/shim";
        println!("cargo:rerun-if-changed={SHIM}");
        println!("cargo::rustc-check-cfg=cfg(cuda_shims)");
        // The trampolines are written for one machine; elsewhere the toolkit's own libraries are linked.
        if env::var("CARGO_CFG_TARGET_OS").unwrap() != "linux" || env::var("CARGO_CFG_TARGET_ARCH").unwrap() != "x86_64"
        {
            return;
        }
        println!("cargo:rustc-cfg=cuda_shims");
        for (name, file, missing) in LIBRARIES {
            cc::Build::new()
                .files([format!("{SHIM}/shim.c"), format!("{SHIM}/trampolines.S")])
                .define("LIBRARY", name)
                .define("SONAME", &*format!("\"{file}\""))
                .define("MISSING", &*missing.to_string())
                .define("SYMBOLS", &*format!("\"symbols/{name}.h\""))
                .warnings_into_errors(true)
                .cargo_metadata(false)
                .out_dir(folder.join(name))
                .compile(name);
            std::fs::rename(folder.join(name).join(format!("lib{name}.a")), folder.join(format!("lib{name}.a")))
                .unwrap();
        }
        link_runtime(&folder);
        println!("cargo:rustc-link-search=native={}", folder.display());
    }

    /// Kernels of our own, as PTX.
    fn compile_kernels(folder: &Path) {
        const SOURCE: &str = "src/ops/fused.cu";
        println!("cargo:rerun-if-changed={SOURCE}");
        let ptx = cudaforge::KernelBuilder::new().source_files([SOURCE]).args(["-std=c++17", "-O3"]).build_ptx();
        ptx.and_then(|ptx| ptx.write(folder.join("ptx.rs"))).unwrap_or_else(|e| panic!("{SOURCE}: {e}"));
    }

    /// The CUDA runtime is linked whole: its static form asks for the driver when it is used.
    fn link_runtime(folder: &Path) {
        for variable in ["CUDA_HOME", "CUDA_PATH", "NVCC"] {
            println!("cargo:rerun-if-env-changed={variable}");
        }
        let variable = |name: &str| env::var_os(name).map(PathBuf::from);
        let beside = |program: PathBuf| Some(program.parent()?.parent()?.to_owned());
        let on_path = || env::split_paths(&env::var_os("PATH")?).map(|p| p.join("nvcc")).find(|p| p.is_file());
        // Where the kernels' build looks for nvcc, in its order.
        let toolkits = [
            variable("NVCC").and_then(beside),
            on_path().and_then(beside),
            variable("CUDA_HOME"),
            variable("CUDA_PATH"),
            Some("/usr/local/cuda".into()),
            Some("/opt/cuda".into()),
        ];
        let found = toolkits.into_iter().flatten().flat_map(|root| {
            ["lib64", "lib", "targets/x86_64-linux/lib"].map(|folder| root.join(folder).join("libcudart_static.a"))
        });
        match found.into_iter().find(|p| p.is_file()) {
            Some(archive) => {
                std::fs::copy(archive, folder.join("libcudart.a")).unwrap();
            }
            None => println!("cargo:warning=no libcudart_static.a beside nvcc: this can be checked, but not linked"),
        }
    }
}
