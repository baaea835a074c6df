//! NVIDIA GPUs: what keeps one from being used, said so that it can be mended, and which there are.
//!
//! This code runs on machines without a GPU, a driver or a toolkit. Where the library was linked with the archives of
//! `shim/` (see docs/cuda.md), each of NVIDIA's libraries is loaded when it is first called.

use super::Description;
use crate::error::without_backtrace;
use crate::{Error, Result};
use candle_core::cuda_backend::cudarc::driver::sys::{CUmemPool_attribute, CUmemoryPool, CUresult};
use candle_core::cuda_backend::cudarc::driver::{result, CudaContext, DriverError};
use candle_core::cuda_backend::{kernels, WrapErr};
use candle_core::{CudaDevice, Device, Tensor};
use std::panic::{catch_unwind, AssertUnwindSafe};

/// Opens a GPU and computes something on it.
pub fn open(index: usize) -> Result<Device> {
    let count = count()?;
    if index >= count {
        let message =
            format!("there is no device cuda:{index}; the last is cuda:{}; use that, or use device cpu", count - 1);
        return Err(Error::Device { message });
    }
    let cannot = |reason: String| {
        let hardware = result::device::get(index as i32).and_then(result::device::get_name);
        let hardware = hardware.unwrap_or("unknown GPU".into());
        Error::Device { message: format!("cannot use device cuda:{index} ({hardware}): {reason}") }
    };
    // The crates below may panic on what they do not expect of a driver.
    match catch_unwind(AssertUnwindSafe(|| try_out(index))) {
        Ok(Ok(device)) => Ok(device),
        Ok(Err(e)) => Err(cannot(reason(e))),
        Err(_) => Err(cannot("the CUDA libraries failed".into())),
    }
}

/// A device that has run a kernel: a GPU or driver that is too old for them is found here, not in the middle of a training.
fn try_out(index: usize) -> candle_core::Result<Device> {
    // A stream of its own, not candle's default, which is another one in every thread: the threads of an engine take turns at
    // a model, and nothing would keep one from reading what another has not finished writing.
    let device = Device::new_cuda_with_stream(index)?;
    // SAFETY: events are there to order the work of several streams. All work of this device, and the freeing of its memory,
    // goes through its one stream, in order; no tensor is ever used with another device.
    unsafe { device.as_cuda_device()?.disable_event_tracking() };
    keep_pool(device.as_cuda_device()?.cuda_stream().context()).w()?;
    let sum = Tensor::new(&[1f32, 2.], &device)?.affine(2., 1.)?.to_vec1::<f32>()?;
    if sum != [3., 5.] {
        candle_core::bail!("it computes {sum:?} where 3 and 5 are right");
    }
    Ok(device)
}

/// The pool that memory of a GPU comes from and goes back to.
fn pool(context: &CudaContext) -> std::result::Result<CUmemoryPool, DriverError> {
    // SAFETY: the device is that of a context.
    unsafe { result::device::get_default_mem_pool(context.cu_device()) }
}

/// Has the pool keep what is given back to it: else it lets go of it whenever somebody waits for the GPU, which is after each code.
fn keep_pool(context: &CudaContext) -> std::result::Result<(), DriverError> {
    let mut all = u64::MAX;
    let threshold = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: the attribute is a number of 64 bits.
    unsafe { result::mem_pool::set_attribute(pool(context)?, threshold, std::ptr::from_mut(&mut all).cast()) }
}

/// Gives to others what the pool keeps and no tensor holds.
pub fn give_back(device: &CudaDevice) {
    let stream = device.cuda_stream();
    // What cannot be given back stays.
    let _ = stream.synchronize().and_then(|()| {
        // SAFETY: what is in use stays.
        unsafe { result::mem_pool::trim_to(pool(stream.context())?, 0) }
    });
}

/// Free memory of the device and what the pool keeps of it, and all memory.
fn free_and_total(context: &CudaContext) -> std::result::Result<(usize, usize), DriverError> {
    let (free, total) = context.mem_get_info()?;
    let pool = pool(context)?;
    let attribute = |which: CUmemPool_attribute| {
        let mut value = 0u64;
        // SAFETY: the attributes asked for are numbers of 64 bits.
        unsafe { result::mem_pool::get_attribute(pool, which, std::ptr::from_mut(&mut value).cast())? };
        Ok::<_, DriverError>(value)
    };
    let reserved = attribute(CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?;
    let used = attribute(CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?;
    Ok((free + reserved.saturating_sub(used) as usize, total))
}

/// What the driver said, and what would be right if it cannot use our kernels.
fn reason(error: candle_core::Error) -> String {
    let text = without_backtrace(error).to_string();
    match ["PTX", "NO_BINARY", "NO_KERNEL_IMAGE"].iter().any(|word| text.contains(word)) {
        true => format!("{text}; {}", needs()),
        false => text,
    }
}

/// What a machine must have, as the compiled kernels say of themselves.
fn needs() -> String {
    let ptx = kernels::AFFINE.ptx();
    let directive = |name: &str| ptx.lines().find_map(|l| l.strip_prefix(name)).unwrap_or("?").trim().to_owned();
    let (version, target) = (directive(".version"), directive(".target"));
    format!("this library needs a GPU of {target} or newer and a driver that knows PTX {version} (580 or newer for PTX 9.0)")
}

/// The GPUs that the driver finds.
pub fn devices() -> Vec<Description> {
    (0..count().unwrap_or(0)).filter_map(|index| describe(index).ok()).collect()
}

fn describe(index: usize) -> std::result::Result<Description, DriverError> {
    let context = CudaContext::new(index)?;
    let (free, total) = free_and_total(&context)?;
    Ok(Description {
        name: format!("cuda:{index}"),
        hardware: Some(context.name()?),
        memory_bytes: Some(total as u64),
        memory_free_bytes: Some(free as u64),
    })
}

/// Memory that the device could still give, beside what its opened models hold.
pub fn free_memory(device: &CudaDevice) -> Option<u64> {
    free_and_total(device.cuda_stream().context()).ok().map(|(free, _)| free as u64)
}

/// How many GPUs there are, one or more.
fn count() -> Result<usize> {
    libraries()?;
    let message = match result::init().and_then(|()| result::device::get_count()) {
        Ok(count) if count > 0 => return Ok(count as usize),
        Ok(_) | Err(DriverError(CUresult::CUDA_ERROR_NO_DEVICE)) => {
            "the NVIDIA driver finds no GPU (hidden by CUDA_VISIBLE_DEVICES, or not passed to the container?)"
                .to_owned()
        }
        Err(e) => format!("the NVIDIA driver does not start: {e}; see what nvidia-smi says"),
    };
    Err(Error::Device { message: format!("{message}; or use device cpu") })
}

/// Whether all of NVIDIA's libraries that this one calls are there.
#[cfg(cuda_shims)]
fn libraries() -> Result<()> {
    match shim::missing() {
        Some(message) => Err(Error::NotSupported { message }),
        None => Ok(()),
    }
}

/// They are: without them the loader had not started this program.
#[cfg(not(cuda_shims))]
fn libraries() -> Result<()> {
    Ok(())
}

#[cfg(cuda_shims)]
mod shim {
    use std::ffi::{c_char, CStr};

    /// Writes why a library cannot be loaded, or nothing if it can.
    type Problem = unsafe extern "C" fn(text: *mut c_char, capacity: usize);

    // In the archives that build.rs makes of shim/.
    extern "C" {
        fn sitter_shim_problem_cuda(text: *mut c_char, capacity: usize);
        fn sitter_shim_problem_cublas(text: *mut c_char, capacity: usize);
        fn sitter_shim_problem_cublasLt(text: *mut c_char, capacity: usize);
        fn sitter_shim_problem_curand(text: *mut c_char, capacity: usize);
        #[cfg(feature = "cudnn")]
        fn sitter_shim_problem_cudnn(text: *mut c_char, capacity: usize);
    }

    /// What it is, its check, where it comes from. libcublas needs libcublasLt, which therefore comes first.
    const LIBRARIES: &[(&str, Problem, &str)] = &[
        ("the NVIDIA driver", sitter_shim_problem_cuda, "install driver 580 or newer"),
        ("libcublasLt", sitter_shim_problem_cublasLt, TOOLKIT),
        ("libcublas", sitter_shim_problem_cublas, TOOLKIT),
        ("libcurand", sitter_shim_problem_curand, TOOLKIT),
        #[cfg(feature = "cudnn")]
        ("libcudnn", sitter_shim_problem_cudnn, "install cuDNN 9, or `pip install nvidia-cudnn-cu13`"),
    ];
    const TOOLKIT: &str = "install the CUDA 13 toolkit, or `pip install nvidia-cublas nvidia-curand`";

    /// What is missing and how to mend it.
    pub fn missing() -> Option<String> {
        LIBRARIES.iter().find_map(|(what, problem, remedy)| {
            let mut text = [0 as c_char; 512];
            // SAFETY: at most the given number of bytes is written, with a NUL at their end.
            let reason = unsafe {
                problem(text.as_mut_ptr(), text.len());
                CStr::from_ptr(text.as_ptr())
            };
            let reason = reason.to_string_lossy();
            (!reason.is_empty()).then(|| {
                let place = if what.starts_with("lib") { ", and put its folder on LD_LIBRARY_PATH" } else { "" };
                format!("CUDA needs {what}, which cannot be loaded ({reason}): {remedy}{place}; or use device cpu")
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Also where the driver or a library is missing: that is an answer, not a crash.
    #[test]
    fn a_gpu_is_listed_if_and_only_if_it_can_be_opened() {
        let listed = devices().len();
        assert!((0..listed).all(|index| open(index).is_ok()));
        let refused = open(listed).unwrap_err();
        assert!(matches!(refused, Error::NotSupported { .. } | Error::Device { .. }), "{refused}");
        assert!(refused.to_string().contains("or use device cpu"), "{refused}");
    }

    #[test]
    fn the_kernels_say_what_they_need() {
        let needs = needs();
        assert!(needs.contains("sm_") && needs.contains("PTX "), "{needs}");
    }
}
