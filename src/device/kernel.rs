//! Kernels of our own on a GPU: the PTX that build.rs made of src/ops/fused.cu, launched on tensors.

use crate::{Error, Result};
use candle_core::Tensor;

/// A parameter of a kernel.
#[cfg_attr(not(any(feature = "cuda", test)), allow(dead_code))]
#[derive(Clone, Copy)]
pub enum Arg<'a> {
    /// The address of its first number, or none.
    Tensor(Option<&'a Tensor>),
    /// `size_t`, `unsigned long long`
    Size(u64),
    /// `unsigned`
    Count(u32),
    /// `float`
    Number(f32),
}

/// Blocks along two axes, and threads of each.
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    pub blocks: (usize, usize),
    pub threads: u32,
}

impl Grid {
    /// A block for each row of `width` numbers.
    pub fn rows(rows: usize, width: usize) -> Self {
        Grid { blocks: (rows, 1), threads: (width.div_ceil(2).next_power_of_two() as u32).clamp(32, 512) }
    }

    /// For kernels in whose loop blocks share all numbers.
    pub fn each(numbers: usize) -> Self {
        Grid { blocks: (numbers.div_ceil(256).clamp(1, 1 << 20), 1), threads: 256 }
    }
}

/// Runs a kernel on the device of the first tensor, in the order of what is asked of that device. The tensors must lie one number
/// behind the other.
///
/// # Safety
/// The arguments are those that the kernel has, and it stays within the tensors on this grid. What it writes to is used by nobody
/// else.
pub unsafe fn launch(kernel: &str, grid: Grid, args: &[Arg]) -> Result<()> {
    let tensors = || args.iter().filter_map(|arg| if let Arg::Tensor(t) = arg { *t } else { None });
    if let Some(t) = tensors().find(|t| !t.is_contiguous()) {
        return Err(Error::internal(format!("{kernel}: a tensor with strides {:?}", t.stride())));
    }
    let first = tensors().next().ok_or_else(|| Error::internal(format!("{kernel}: no tensor")))?;
    if grid.blocks.0 == 0 || grid.blocks.1 == 0 {
        return Ok(());
    }
    #[cfg(test)]
    if first.device().is_cpu() {
        return super::twin::launch(kernel, grid, args);
    }
    #[cfg(feature = "cuda")]
    return on_gpu::launch(kernel, grid, args, first);
    #[cfg(not(feature = "cuda"))]
    Err(Error::internal(format!("{kernel} on {:?}", first.device())))
}

#[cfg(feature = "cuda")]
mod on_gpu {
    use super::{Arg, Grid};
    use crate::{Error, Result};
    use candle_core::cuda_backend::cudarc::driver::{DevicePtr, LaunchConfig, PushKernelArg};
    use candle_core::cuda_backend::{CudaStorageSlice, WrapErr};
    use candle_core::{Storage, Tensor};

    mod ptx {
        include!(concat!(env!("OUT_DIR"), "/ptx.rs"));
    }

    pub unsafe fn launch(kernel: &str, grid: Grid, args: &[Arg], first: &Tensor) -> Result<()> {
        let device = first.device().as_cuda_device()?;
        let function = device.get_or_load_custom_func(kernel, "sitter", ptx::FUSED)?;
        let address = |arg: &Arg| match arg {
            Arg::Tensor(Some(t)) => address(t),
            _ => Ok(0),
        };
        let addresses = args.iter().map(address).collect::<Result<Vec<u64>>>()?;
        let mut launch = function.builder();
        for (arg, address) in args.iter().zip(&addresses) {
            match arg {
                Arg::Tensor(_) => launch.arg(address),
                Arg::Size(n) => launch.arg(n),
                Arg::Count(n) => launch.arg(n),
                Arg::Number(x) => launch.arg(x),
            };
        }
        let blocks = (grid.blocks.0 as u32, grid.blocks.1 as u32, 1);
        let config = LaunchConfig { grid_dim: blocks, block_dim: (grid.threads, 1, 1), shared_mem_bytes: 0 };
        // SAFETY: the caller's.
        unsafe { launch.launch(config) }.w()?;
        Ok(())
    }

    /// Where a tensor's first number is. The memory stays while the tensor does, and is given back in the order of the stream.
    fn address(t: &Tensor) -> Result<u64> {
        let (storage, layout) = t.storage_and_layout();
        let Storage::Cuda(storage) = &*storage else {
            return Err(Error::internal("a kernel's tensors lie on different devices"));
        };
        let stream = storage.device.cuda_stream();
        let start = match &storage.slice {
            CudaStorageSlice::F32(slice) => slice.device_ptr(&stream).0,
            CudaStorageSlice::BF16(slice) => slice.device_ptr(&stream).0,
            CudaStorageSlice::U32(slice) => slice.device_ptr(&stream).0,
            _ => return Err(Error::internal(format!("a kernel's tensor of {:?}", t.dtype()))),
        };
        Ok(start + (layout.start_offset() * t.dtype().size_in_bytes()) as u64)
    }
}
