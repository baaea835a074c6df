//! Masks of dropout, made where they are used.

use super::Masked;
use crate::Result;
use candle_core::cuda_backend::cudarc::driver::{LaunchConfig, PushKernelArg};
use candle_core::cuda_backend::cudarc::nvrtc::compile_ptx;
use candle_core::cuda_backend::WrapErr;
use candle_core::{builder_arg as arg, CpuStorage, CudaStorage, CustomOp1, Layout, Shape, Tensor};
use std::sync::OnceLock;

const SOURCE: &str = include_str!("dropout.cu");

/// The masks of the examples of x [B, ..] one behind the other, f32 and shaped as x. None if the kernel cannot be compiled.
pub fn masks(x: &Tensor, of: &[Masked]) -> Result<Option<Tensor>> {
    static KERNEL: OnceLock<Option<String>> = OnceLock::new();
    let kernel = KERNEL.get_or_init(|| match compile_ptx(SOURCE) {
        Ok(ptx) => Some(ptx.to_src()),
        Err(e) => {
            log::warn!("masks of dropout are made on the host: {e}");
            None
        }
    });
    let Some(kernel) = kernel else { return Ok(None) };
    Ok(Some(x.apply_op1_no_bwd(&Masks { kernel, of })?))
}

struct Masks<'a> {
    kernel: &'a str,
    of: &'a [Masked],
}

impl CustomOp1 for Masks<'_> {
    fn name(&self) -> &'static str {
        "dropout masks"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        candle_core::bail!("masks on the CPU are made by random::Dropout")
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> candle_core::Result<(CudaStorage, Shape)> {
        let device = &x.device;
        let n = layout.shape().elem_count() / self.of.len().max(1);
        let function = device.get_or_load_custom_func("dropout_mask", "sitter_dropout", self.kernel)?;
        // SAFETY: every number is written below: the examples' masks fill it.
        let mut all = unsafe { device.alloc::<f32>(layout.shape().elem_count())? };
        for (example, masked) in self.of.iter().enumerate() {
            let mut mask = all.slice_mut(example * n..(example + 1) * n);
            let Masked { site, purpose, step, seed: [low, high], threshold, kept } = *masked;
            let mut launch = function.builder();
            launch.arg(&mut mask);
            arg!(launch, n as u32);
            arg!(launch, site);
            arg!(launch, purpose);
            arg!(launch, step);
            arg!(launch, low);
            arg!(launch, high);
            arg!(launch, threshold);
            arg!(launch, kept);
            // SAFETY: the arguments are those of the kernel, which writes `n` numbers of `mask`.
            unsafe { launch.launch(LaunchConfig::for_num_elems((n as u32).div_ceil(4))) }.w()?;
        }
        Ok((CudaStorage::wrap_cuda_slice(all, device.clone()), layout.shape().clone()))
    }
}
