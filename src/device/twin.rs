//! The kernels for GPUs, compiled for the CPU: so tests see that they compute what they should, and that they are called as they are
//! declared. Blocks run one after the other, each in one thread, or in as many as a GPU has for it, which take turns: see block.cpp.

use super::kernel::{Arg, Grid};
use crate::{Error, Result};
use candle_core::{CpuStorage, Storage, Tensor};
use std::cell::Cell;
use std::ffi::{c_void, CString};
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};

/// How blocks run.
#[derive(Clone, Copy, PartialEq)]
enum Blocks {
    /// In a thread.
    Alone,
    /// In the threads of the grid.
    Threads,
}

thread_local!(static USED: Cell<Option<Blocks>> = const { Cell::new(None) });

/// Whether tensors of the CPU are given to the kernels for GPUs, on this thread.
pub fn used() -> bool {
    USED.get().is_some()
}

/// Runs `f` so; without a compiler it is not run.
pub fn with_kernels(f: impl FnOnce()) {
    with(Blocks::Alone, f);
}

/// The same in as many threads a block as on a GPU, which takes far longer.
pub fn with_threads(f: impl FnOnce()) {
    with(Blocks::Threads, f);
}

/// In both ways.
pub fn with_each(f: impl Fn()) {
    with_kernels(&f);
    with_threads(&f);
}

fn with(blocks: Blocks, f: impl FnOnce()) {
    if library(blocks).is_none() {
        assert!(std::env::var("SITTER_REQUIRE_HOSTS").is_err(), "g++ is needed");
        eprintln!("skipped: there is no g++");
        return;
    }
    let before = USED.replace(Some(blocks));
    f();
    USED.set(before);
}

/// What the library is opened as; an address, that it may be shared.
fn library(blocks: Blocks) -> Option<usize> {
    static ALONE: OnceLock<Option<usize>> = OnceLock::new();
    static THREADS: OnceLock<Option<usize>> = OnceLock::new();
    let library = if blocks == Blocks::Alone { &ALONE } else { &THREADS };
    *library.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let (source, library) = (folder.path().join("twin.cpp"), folder.path().join("twin.so"));
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let threads = if blocks == Blocks::Threads { "#define __CUDACC__\n" } else { "" };
        let text =
            format!("{threads}#include \"{0}/device/block.cpp\"\n#include \"{0}/ops/fused.cu\"\n", root.display());
        std::fs::write(&source, text).unwrap();
        let mut compiler = std::process::Command::new("g++");
        compiler.args([
            "-std=c++17",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-Wno-unknown-pragmas",
            "-O1",
            "-ffp-contract=off",
            "-shared",
            "-fPIC",
            "-o",
        ]);
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
    let (name, library) = (CString::new(name).unwrap(), library(USED.get().unwrap()).unwrap());
    // SAFETY: the handle is that of an open library, the name ends with a NUL.
    unsafe { libc::dlsym(library as *mut c_void, name.as_ptr()) }
}

/// block.cpp's `run_block`: the kernel, its whole numbers and addresses, and its numbers of floating point, in order, and threads.
type Run = unsafe extern "C" fn(*mut c_void, *const u64, *const f32, u32);

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
    let (mut whole, mut floating) = ([0u64; 28], [0f32; 8]);
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
                    Arg::View(t) => address(t),
                    Arg::Size(size) => *size,
                    Arg::Count(count) => u64::from(*count),
                    Arg::Number(_) => unreachable!(),
                };
                n += 1;
            }
        }
    }
    let (place, size) = (symbol("blockIdx").cast::<[u32; 3]>(), symbol("gridDim").cast::<[u32; 3]>());
    // SAFETY: block.cpp declares the function so.
    let run: Run = unsafe { std::mem::transmute(symbol("run_block")) };
    for column in 0..grid.blocks.1 as u32 {
        for row in 0..grid.blocks.0 as u32 {
            // SAFETY: the library's own variables, which no other thread uses now; the kernels have no more parameters than are given,
            // and the call is the caller's promise.
            unsafe {
                *size = [grid.blocks.0 as u32, grid.blocks.1 as u32, 1];
                *place = [row, column, 0];
                run(function, whole.as_ptr(), floating.as_ptr(), grid.threads);
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

#[cfg(test)]
mod tests {
    use super::with_kernels;
    use crate::ops::plainly;
    use crate::personalize::Method;
    use crate::run::Run;
    use crate::sample::{self, Sample};
    use crate::verbs::{decodings, draw, drawing, open, own_side, picture, score, teach, trainings, LEARNING};

    fn codes(drawn: &[Sample]) -> Vec<Vec<u32>> {
        drawn.iter().map(|s| s.tokens.codes().to_vec()).collect()
    }

    #[test]
    fn models_draw_by_the_kernels_for_gpus_what_they_draw_by_those_of_the_cpu() {
        for (name, side) in LEARNING.into_iter().chain([("grouped", 8)]) {
            let own = open(name, "cpu", "f32");
            for &decoding in decodings(&own) {
                let options = sample::Options { decoding, ..drawing(&own, side) };
                let expected = codes(&draw(&own, &[], &options));
                with_kernels(|| {
                    let found = plainly(|| codes(&draw(&open(name, "cpu", "f32"), &[], &options)));
                    assert_eq!(found, expected, "{name} {decoding:?}");
                });
            }
        }
    }

    #[test]
    fn models_learn_by_the_kernels_for_gpus_what_they_learn_by_those_of_the_cpu() {
        for (name, side) in LEARNING {
            let own = open(name, "cpu", "f32");
            let side = own_side(&own, side);
            let tokens = own.encode(&picture(1, side), &Run::new()).unwrap();
            let chosen = [Method::TwoStage, Method::Arbooth];
            for options in trainings(&own, side).into_iter().filter(|o| o.is_low_rank() || chosen.contains(&o.method)) {
                let expected = teach(&own, &options, side, &mut Run::new()).unwrap();
                let right = score(&own, &[&expected], &tokens);
                with_kernels(|| {
                    plainly(|| {
                        let model = open(name, "cpu", "f32");
                        let found = teach(&model, &options, side, &mut Run::new()).unwrap();
                        let what = format!("{name} {:?}", options.method);
                        for (a, b) in expected.losses.iter().zip(&found.losses) {
                            assert!((a.loss / b.loss - 1.0).abs() < 1e-4, "{what}: {} and {}", a.loss, b.loss);
                        }
                        let off = score(&model, &[&found], &tokens) / right - 1.0;
                        assert!(off.abs() < 1e-4, "{what}: {off}");
                    })
                });
            }
        }
    }
}
