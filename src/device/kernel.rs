//! Kernels of our own on a GPU: the PTX that build.rs made of src/ops/fused.cu, launched on tensors.

use crate::{Error, Result};
use candle_core::Tensor;

/// A parameter of a kernel.
#[cfg_attr(not(any(feature = "cuda", test)), allow(dead_code))]
#[derive(Clone, Copy)]
pub enum Arg<'a> {
    /// The address of its first number, or none. Its numbers must lie one behind the other.
    Tensor(Option<&'a Tensor>),
    /// The same of a tensor that lies as the kernel is told by other parameters.
    View(&'a Tensor),
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

/// Runs a kernel on the device of the first tensor, in the order of what is asked of that device.
///
/// # Safety
/// The arguments are those that the kernel has, and it stays within the tensors on this grid. What it writes to is used by nobody
/// else.
pub unsafe fn launch(kernel: &str, grid: Grid, args: &[Arg]) -> Result<()> {
    let tensors = || args.iter().filter_map(|arg| if let Arg::Tensor(t) = arg { *t } else { None });
    // What is written comes first, and never is a view.
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

/// `x W^T` of x [rows, in] and W [out, in], or, not `across`, `x W` of x [rows, out]; bf16 on a GPU, the result f32: the sums as they are,
/// where candle would round them. Added to `sum`, f32, if there is one, whose numbers are taken over.
pub fn product_f32(x: &Tensor, weight: &Tensor, across: bool, sum: Option<Tensor>) -> Result<Tensor> {
    if !(x.is_contiguous() && weight.is_contiguous() && sum.as_ref().is_none_or(Tensor::is_contiguous)) {
        return Err(Error::internal("factors that do not lie one number behind the other"));
    }
    #[cfg(feature = "cuda")]
    return on_gpu::product_f32(x, weight, across, sum);
    #[cfg(not(feature = "cuda"))]
    Err(Error::internal(format!("a product on {:?}, {across} {}", x.device(), sum.is_some())))
}

/// Adds `a^T b` to the first rows of `sum` [B, heads, S, d], f32 on a GPU, which nobody else holds; a is [B, heads, n, end], b
/// [B, heads, n, d], both f32 or bf16, b perhaps part of a longer one.
pub fn add_product(sum: &Tensor, a: &Tensor, b: &Tensor) -> Result<()> {
    let ([batch, heads, n, d], &[row, head, token, number]) = (b.dims(), b.stride()) else {
        return Err(Error::internal(format!("a product with {:?}", b.dims())));
    };
    // How far two matrices are apart, wherever there is more than one.
    let apart = if *heads == 1 { row } else { head };
    let even = *heads == 1 || *batch == 1 || row == heads * head;
    let lies = number == 1 && (token == *d || *n == 1) && even && apart >= n * d;
    if !(lies && a.is_contiguous() && sum.is_contiguous()) {
        let strides = [a.stride(), b.stride(), sum.stride()];
        return Err(Error::internal(format!("{:?} and {:?} with strides {strides:?}", a.dims(), b.dims())));
    }
    #[cfg(feature = "cuda")]
    return on_gpu::add_product(sum, a, (b, apart));
    #[cfg(not(feature = "cuda"))]
    Err(Error::internal(format!("a product on {:?}, {apart}", sum.device())))
}

#[cfg(feature = "cuda")]
pub(super) use on_gpu::address;

#[cfg(feature = "cuda")]
mod on_gpu {
    use super::{Arg, Grid};
    use crate::{Error, Result};
    use candle_core::cuda_backend::cudarc::cublas::{result, sys};
    use candle_core::cuda_backend::cudarc::driver::{DevicePtr, LaunchConfig, PushKernelArg};
    use candle_core::cuda_backend::{CudaStorageSlice, WrapErr};
    use candle_core::{DType, Storage, Tensor};

    mod ptx {
        include!(concat!(env!("OUT_DIR"), "/ptx.rs"));
    }

    pub unsafe fn launch(kernel: &str, grid: Grid, args: &[Arg], first: &Tensor) -> Result<()> {
        let device = first.device().as_cuda_device()?;
        let function = device.get_or_load_custom_func(kernel, "sitter", ptx::FUSED)?;
        let address = |arg: &Arg| match arg {
            Arg::Tensor(Some(t)) | Arg::View(t) => address(t),
            _ => Ok(0),
        };
        let addresses = args.iter().map(address).collect::<Result<Vec<u64>>>()?;
        let mut launch = function.builder();
        for (arg, address) in args.iter().zip(&addresses) {
            match arg {
                Arg::Tensor(_) | Arg::View(_) => launch.arg(address),
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

    pub fn product_f32(x: &Tensor, weight: &Tensor, across: bool, sum: Option<Tensor>) -> Result<Tensor> {
        let ((rows, inner), (height, width)) = (x.dims2()?, weight.dims2()?);
        let (out, expected) = if across { (height, width) } else { (width, height) };
        if inner != expected || [x.dtype(), weight.dtype()] != [DType::BF16; 2] {
            return Err(Error::internal(format!("{:?} and {:?} as f32", x.dims(), weight.dims())));
        }
        let (y, kept) = match sum {
            Some(sum) if sum.dims() == [rows, out] && sum.dtype() == DType::F32 => (sum, 1f32),
            Some(sum) => return Err(Error::internal(format!("a product [{rows}, {out}] added to {:?}", sum.dims()))),
            // SAFETY: the product has every number written.
            None => (unsafe { Tensor::empty((rows, out), DType::F32, x.device())? }, 0.0),
        };
        let matrix = Factor { of: weight, turned: across, pitch: width, apart: 0 };
        let left = Factor { of: x, turned: false, pitch: inner, apart: 0 };
        // SAFETY: matrices of these sizes lie there, by columns as cuBLAS sees them; y is new, or nobody else's.
        unsafe { multiply([matrix, left], (&y, 0), [out, rows, inner], 1, kept)? };
        Ok(y)
    }

    pub fn add_product(sum: &Tensor, a: &Tensor, (b, apart): (&Tensor, usize)) -> Result<()> {
        let ((batch, heads, slots, d), (_, _, n, end)) = (sum.dims4()?, a.dims4()?);
        let dims = (b.dims(), a.dtype(), sum.dtype());
        if end > slots || dims != (&[batch, heads, n, d], b.dtype(), DType::F32) || a.dims()[..2] != [batch, heads] {
            return Err(Error::internal(format!("{:?} and {:?} added to {:?}", a.dims(), b.dims(), sum.dims())));
        }
        let right = Factor { of: b, turned: false, pitch: d, apart };
        let left = Factor { of: a, turned: true, pitch: end, apart: n * end };
        // SAFETY: as above; nobody else holds the sum.
        unsafe { multiply([right, left], (sum, slots * d), [d, end, n], batch * heads, 1.0) }
    }

    /// A factor as cuBLAS sees it: columns are `pitch` numbers apart, matrices `apart`.
    struct Factor<'a> {
        of: &'a Tensor,
        turned: bool,
        pitch: usize,
        apart: usize,
    }

    /// `count` products of `factors`, f32, plus `kept` times what was there before: [m, n] by columns of m numbers, `apart` numbers apart,
    /// over `k`.
    ///
    /// # Safety
    /// The matrices are within their tensors, and nobody else uses the result.
    unsafe fn multiply(
        factors: [Factor; 2],
        (to, apart): (&Tensor, usize),
        [m, n, k]: [usize; 3],
        count: usize,
        kept: f32,
    ) -> Result<()> {
        let blas = to.device().as_cuda_device()?.cublas_handle();
        let kind = |t: &Tensor| match t.dtype() {
            DType::BF16 => Ok(sys::cudaDataType_t::CUDA_R_16BF),
            DType::F32 => Ok(sys::cudaDataType_t::CUDA_R_32F),
            other => Err(Error::internal(format!("a product of {other:?}"))),
        };
        let way = |factor: &Factor| match factor.turned {
            true => sys::cublasOperation_t::CUBLAS_OP_T,
            false => sys::cublasOperation_t::CUBLAS_OP_N,
        };
        let ([a, b], one) = (factors, 1f32);
        // SAFETY: the caller's; the handle is that of an open library, the factors are on the host as it expects.
        unsafe {
            result::gemm_strided_batched_ex(
                *blas.handle(),
                way(&a),
                way(&b),
                m as i32,
                n as i32,
                k as i32,
                (&raw const one).cast(),
                address(a.of)? as *const _,
                kind(a.of)?,
                a.pitch as i32,
                a.apart as i64,
                address(b.of)? as *const _,
                kind(b.of)?,
                b.pitch as i32,
                b.apart as i64,
                (&raw const kept).cast(),
                address(to)? as *mut _,
                kind(to)?,
                m as i32,
                apart as i64,
                count as i32,
                sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT_TENSOR_OP,
            )
        }
        .w()?;
        Ok(())
    }

    /// Where a tensor's first number is. The memory stays while the tensor does, and is given back in the order of the stream.
    pub fn address(t: &Tensor) -> Result<u64> {
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
