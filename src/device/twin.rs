//! The kernels for GPUs, compiled for the CPU: so tests see that they compute what they should, and that they are called as they are
//! declared. One thread runs each block, the blocks one after the other.

use super::kernel::{Arg, Grid};
use crate::{Error, Result};
use candle_core::{CpuStorage, Storage, Tensor};
use std::cell::Cell;
use std::ffi::{c_void, CString};
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};

thread_local!(static USED: Cell<bool> = const { Cell::new(false) });

/// Whether tensors of the CPU are given to the kernels for GPUs, on this thread.
pub fn used() -> bool {
    USED.get()
}

/// Runs `f` so; without a compiler it is not run.
pub fn with_kernels(f: impl FnOnce()) {
    if library().is_none() {
        assert!(std::env::var("SITTER_REQUIRE_HOSTS").is_err(), "g++ is needed");
        eprintln!("skipped: there is no g++");
        return;
    }
    USED.set(true);
    f();
    USED.set(false);
}

/// What the library is opened as; an address, that it may be shared.
fn library() -> Option<usize> {
    static LIBRARY: OnceLock<Option<usize>> = OnceLock::new();
    *LIBRARY.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let (source, library) = (folder.path().join("twin.cpp"), folder.path().join("twin.so"));
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let text = format!(
            "#include <math.h>\n#include <string.h>\n#include <stddef.h>\n#define __global__\n#define __device__\n\
             extern \"C\" {{ struct Place {{ unsigned x, y, z; }}; Place blockIdx, blockDim = {{1, 1, 1}}, gridDim, threadIdx; }}\n\
             inline unsigned __float_as_uint(float x) {{ unsigned bits; memcpy(&bits, &x, 4); return bits; }}\n\
             inline float __uint_as_float(unsigned bits) {{ float x; memcpy(&x, &bits, 4); return x; }}\n\
             #include \"{}/ops/fused.cu\"\n",
            root.display()
        );
        std::fs::write(&source, text).unwrap();
        let mut compiler = std::process::Command::new("g++");
        compiler.args(["-std=c++17", "-Wall", "-Wextra", "-Werror", "-O1", "-ffp-contract=off", "-shared", "-fPIC", "-o"]);
        let status = compiler.arg(&library).arg(&source).status().ok()?;
        assert!(status.success(), "the kernels do not compile");
        let path = CString::new(library.to_str().unwrap()).unwrap();
        // SAFETY: what is loaded was made above and does nothing when it is loaded.
        let opened = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        assert!(!opened.is_null());
        Some(opened as usize)
    })
}

fn symbol(name: &str) -> *mut c_void {
    let name = CString::new(name).unwrap();
    // SAFETY: the handle is that of an open library, the name ends with a NUL.
    unsafe { libc::dlsym(library().unwrap() as *mut c_void, name.as_ptr()) }
}

/// A function of any parameters, given its whole numbers and addresses, and its numbers of floating point, in order: the convention
/// of calls puts them apart, and what there is too much does no harm.
type Any =
    unsafe extern "C" fn(u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, f32, f32, f32, f32);

/// # Safety
/// As [`launch`](super::kernel::launch).
pub unsafe fn launch(name: &str, grid: Grid, args: &[Arg]) -> Result<()> {
    // One grid at a time: where a block is, is the library's.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let function = symbol(name);
    if function.is_null() {
        return Err(Error::internal(format!("there is no kernel {name}")));
    }
    // SAFETY: see `Any`; the kernels have no more parameters.
    let function: Any = unsafe { std::mem::transmute(function) };
    let (mut whole, mut floating) = ([0u64; 14], [0f32; 4]);
    let (mut n, mut m) = (0, 0);
    for arg in args {
        match arg {
            Arg::Number(x) => {
                floating[m] = *x;
                m += 1;
            }
            other => {
                whole[n] = match other {
                    Arg::Tensor(t) => t.map_or(0, address),
                    Arg::Size(size) => *size,
                    Arg::Count(count) => u64::from(*count),
                    Arg::Number(_) => unreachable!(),
                };
                n += 1;
            }
        }
    }
    let (place, size) = (symbol("blockIdx").cast::<[u32; 3]>(), symbol("gridDim").cast::<[u32; 3]>());
    let ([a, b, c, d, e, f, g, h, i, j, k, l, o, p], [x, y, z, w]) = (whole, floating);
    for column in 0..grid.blocks.1 as u32 {
        for row in 0..grid.blocks.0 as u32 {
            // SAFETY: the library's own variables, which no other thread uses now; the call is the caller's promise.
            unsafe {
                *size = [grid.blocks.0 as u32, grid.blocks.1 as u32, 1];
                *place = [row, column, 0];
                function(a, b, c, d, e, f, g, h, i, j, k, l, o, p, x, y, z, w);
            }
        }
    }
    Ok(())
}

fn address(t: &Tensor) -> u64 {
    let (storage, layout) = t.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else { panic!("not on the CPU") };
    let start = match storage {
        CpuStorage::F32(numbers) => numbers.as_ptr() as u64,
        CpuStorage::BF16(numbers) => numbers.as_ptr() as u64,
        CpuStorage::U32(numbers) => numbers.as_ptr() as u64,
        _ => panic!("a tensor of {:?}", t.dtype()),
    };
    start + (layout.start_offset() * t.dtype().size_in_bytes()) as u64
}
