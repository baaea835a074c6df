//! The numeric building blocks of a transformer layer.
//!
//! Each has one definition and, where that pays, two ways to get it: candle's fused kernel when no gradient is wanted,
//! and a backward pass written by hand when the weights are frozen. The hand-written form is what keeps training lean:
//! candle's own backward pass of a matrix product also computes the gradient of a frozen weight.

use crate::run::Control;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, DType, Layout, Result, Shape, Storage, Tensor, D};

/// A graph node with value `value` and gradient `backward(gradient of the value)`, in place of the graph that made
/// `value` from `x`. `value` must not itself hold a graph (compute it from `x.detach()`).
pub fn custom_gradient(
    x: &Tensor,
    value: Tensor,
    backward: impl Fn(&Tensor) -> Result<Tensor> + Send + Sync + 'static,
) -> Result<Tensor> {
    // Fresh storage of exactly the value's size, so that it can be taken over as it is.
    let value =
        if value.is_contiguous() && value.layout().start_offset() == 0 { value } else { value.force_contiguous()? };
    x.apply_op1(Node { value, backward })
}

struct Node<F> {
    value: Tensor,
    backward: F,
}

impl<F: Fn(&Tensor) -> Result<Tensor> + Send + Sync> CustomOp1 for Node<F> {
    fn name(&self) -> &'static str {
        "custom-gradient"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        let (storage, layout) = self.value.storage_and_layout();
        match &*storage {
            Storage::Cpu(s) => Ok((s.try_clone(layout)?, self.value.shape().clone())),
            _ => candle_core::bail!("custom-gradient: value and argument are on different devices"),
        }
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        let (storage, layout) = self.value.storage_and_layout();
        match &*storage {
            Storage::Cuda(s) => Ok((s.try_clone(layout)?, self.value.shape().clone())),
            _ => candle_core::bail!("custom-gradient: value and argument are on different devices"),
        }
    }

    fn bwd(&self, _arg: &Tensor, _res: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        (self.backward)(gradient).map(Some)
    }
}

/// `x W^T` for x [..., in] and W [out, in].
pub fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let mut dims = x.dims().to_vec();
    let (out, inner) = weight.dims2()?;
    let rows = x.elem_count() / inner;
    let flat = x.reshape((rows, inner))?;
    let y = if flat.track_op() && !weight.track_op() {
        let value = flat.detach().matmul(&weight.t()?)?;
        let weight = weight.clone();
        custom_gradient(&flat, value, move |g| g.contiguous()?.matmul(&weight))?
    } else {
        flat.matmul(&weight.t()?)?
    };
    *dims.last_mut().expect("a matrix product has at least two dimensions") = out;
    y.reshape(dims)
}

/// Root-mean-square norm over the last dimension: statistics in f32, the weight applied in the dtype of x.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    if !x.track_op() && !weight.track_op() && x.dtype() == DType::F32 {
        return candle_nn::ops::rms_norm(&x.contiguous()?, weight, eps as f32);
    }
    let dtype = x.dtype();
    let normalise = move |x: &Tensor| -> Result<(Tensor, Tensor)> {
        let x = x.to_dtype(DType::F32)?;
        let scale = (x.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?.recip()?;
        Ok((x.broadcast_mul(&scale)?, scale))
    };
    if weight.track_op() || !x.track_op() {
        return normalise(x)?.0.to_dtype(dtype)?.broadcast_mul(weight);
    }
    let (hat, scale) = normalise(&x.detach())?;
    let value = hat.to_dtype(dtype)?.broadcast_mul(weight)?;
    let weight = weight.to_dtype(DType::F32)?;
    custom_gradient(x, value, move |g| {
        let g = g.to_dtype(DType::F32)?.broadcast_mul(&weight)?;
        let mean = (&g * &hat)?.mean_keepdim(D::Minus1)?;
        (g - hat.broadcast_mul(&mean)?)?.broadcast_mul(&scale)?.to_dtype(dtype)
    })
}

/// Layer norm over the last dimension (mean subtracted), statistics in f32, then weight and bias, which broadcast
/// against x, in the dtype of x.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let dtype = x.dtype();
    let normalise = move |x: &Tensor| -> Result<(Tensor, Tensor)> {
        let x = x.to_dtype(DType::F32)?;
        let x = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let scale = (x.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?.recip()?;
        Ok((x.broadcast_mul(&scale)?, scale))
    };
    if weight.track_op() || bias.track_op() || !x.track_op() {
        return normalise(x)?.0.to_dtype(dtype)?.broadcast_mul(weight)?.broadcast_add(bias);
    }
    let (hat, scale) = normalise(&x.detach())?;
    let value = hat.to_dtype(dtype)?.broadcast_mul(weight)?.broadcast_add(bias)?;
    let weight = weight.to_dtype(DType::F32)?;
    custom_gradient(x, value, move |g| {
        let g = g.to_dtype(DType::F32)?.broadcast_mul(&weight)?;
        let mean = g.mean_keepdim(D::Minus1)?;
        let along = (&g * &hat)?.mean_keepdim(D::Minus1)?;
        (g.broadcast_sub(&mean)? - hat.broadcast_mul(&along)?)?.broadcast_mul(&scale)?.to_dtype(dtype)
    })
}

/// Rotary positions, half-split: channel j pairs with channel j + d/2. x is [B, T, heads, d]; cos and sin are
/// [B or 1, T, 1, d/2] in the dtype of x. The backward pass, which nothing else can interrupt, ends here with an error once
/// `stop` is cancelled.
pub fn rope(x: &Tensor, cos: &Tensor, sin: &Tensor, stop: &Control) -> Result<Tensor> {
    let rotate = |x: &Tensor, cos: &Tensor, sin: &Tensor, backwards: bool| -> Result<Tensor> {
        let half = x.dim(D::Minus1)? / 2;
        let (a, b) = (x.narrow(D::Minus1, 0, half)?, x.narrow(D::Minus1, half, half)?);
        let (ac, bs) = (a.broadcast_mul(cos)?, b.broadcast_mul(sin)?);
        let (bc, a_s) = (b.broadcast_mul(cos)?, a.broadcast_mul(sin)?);
        match backwards {
            false => Tensor::cat(&[(ac - bs)?, (bc + a_s)?], D::Minus1),
            true => Tensor::cat(&[(ac + bs)?, (bc - a_s)?], D::Minus1),
        }
    };
    let value = rotate(&x.detach(), cos, sin, false)?;
    if !x.track_op() {
        return Ok(value);
    }
    let (cos, sin, stop) = (cos.clone(), sin.clone(), stop.clone());
    custom_gradient(x, value, move |g| match stop.is_cancelled() {
        true => candle_core::bail!("cancelled"),
        false => rotate(g, &cos, &sin, true),
    })
}

/// Softmax over the last dimension, taken in f32.
pub fn softmax(x: &Tensor) -> Result<Tensor> {
    let dtype = x.dtype();
    let p = candle_nn::ops::softmax_last_dim(&x.detach().to_dtype(DType::F32)?.contiguous()?)?;
    if !x.track_op() {
        return p.to_dtype(dtype);
    }
    custom_gradient(x, p.to_dtype(dtype)?, move |g| {
        let g = g.to_dtype(DType::F32)?;
        let along = (&g * &p)?.sum_keepdim(D::Minus1)?;
        (&p * g.broadcast_sub(&along)?)?.to_dtype(dtype)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    fn assert_close(a: &Tensor, b: &Tensor, relative: f32) {
        assert_eq!(a.dims(), b.dims());
        let size = b.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        let gap = (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(gap <= relative * size, "{gap} against {size}");
    }

    /// The gradient of sum(f(x) * r) for a fixed random r, by the graph, and by central differences in f32.
    fn check(f: impl Fn(&Tensor) -> Result<Tensor>, dims: &[usize]) {
        let x = Var::randn(0f32, 1.0, dims, &Device::Cpu).unwrap();
        let y = f(x.as_tensor()).unwrap();
        let r = y.detach().randn_like(0.0, 1.0).unwrap();
        let gradient = (&y * &r).unwrap().sum_all().unwrap().backward().unwrap().remove(&x).unwrap();
        let direction = x.as_tensor().detach().randn_like(0.0, 1.0).unwrap();
        let h = 1e-2;
        let at = |s: f64| {
            let moved = (x.as_tensor().detach() + (&direction * s).unwrap()).unwrap();
            (f(&moved).unwrap() * &r).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap() as f64
        };
        let expected = (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * h);
        let found = (gradient * direction).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap() as f64;
        assert!((found - expected).abs() <= 5e-3 * expected.abs().max(1.0), "{found} against {expected}");
    }

    #[test]
    fn gradients_written_by_hand_agree_with_finite_differences() {
        let cpu = &Device::Cpu;
        let random = |dims: &[usize]| Tensor::randn(0f32, 1.0, dims, cpu).unwrap();
        let (w, n, b) = (random(&[5, 8]), random(&[8]), random(&[8]));
        check(|x| linear(x, &w), &[2, 3, 8]);
        check(|x| rms_norm(x, &n, 1e-5), &[2, 3, 8]);
        check(|x| layer_norm(x, &n, &b, 1e-5), &[2, 3, 8]);
        check(softmax, &[2, 3, 8]);
        let angle = random(&[1, 3, 1, 4]);
        let (cos, sin) = (angle.cos().unwrap(), angle.sin().unwrap());
        check(|x| rope(x, &cos, &sin, &Control::default()), &[2, 3, 2, 8]);
    }

    #[test]
    fn frozen_and_trained_weights_give_the_same_gradient_of_the_input() {
        let cpu = &Device::Cpu;
        let x = Var::randn(0f32, 1.0, (4, 8), cpu).unwrap();
        let w = Var::randn(0f32, 1.0, (6, 8), cpu).unwrap();
        let n = Var::randn(0f32, 1.0, 8, cpu).unwrap();
        let loss = |w: &Tensor, n: &Tensor| {
            let y = linear(&rms_norm(x.as_tensor(), n, 1e-5).unwrap(), w).unwrap();
            y.sqr().unwrap().sum_all().unwrap().backward().unwrap()
        };
        let frozen = loss(&w.as_tensor().detach(), &n.as_tensor().detach());
        let trained = loss(w.as_tensor(), n.as_tensor());
        assert_close(frozen.get(&x).unwrap(), trained.get(&x).unwrap(), 1e-5);
        assert!(frozen.get(&w).is_none() && trained.get(&w).is_some() && trained.get(&n).is_some());
    }
}
