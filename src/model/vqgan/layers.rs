//! The layers of the VQ-GAN.

use super::{Config, Get};
use crate::Result;
use candle_core::{DType, Tensor, D};

/// Floats of unfolded pixels held at once by a convolution on the CPU; 8 MiB stay in the cache.
const UNFOLDED: usize = 1 << 21;

/// Pixels whose attention to all others is computed at once.
const QUERIES_AT_ONCE: usize = 1024;

/// A place among the named weights.
pub(super) struct Source<'a> {
    pub(super) config: &'a Config,
    get: &'a Get<'a>,
    name: String,
}

impl<'a> Source<'a> {
    pub(super) fn new(config: &'a Config, get: &'a Get<'a>) -> Self {
        Source { config, get, name: String::new() }
    }

    /// The place `name` below this one.
    pub(super) fn at(&self, name: &str) -> Source<'a> {
        let name = if self.name.is_empty() { name.into() } else { format!("{}.{name}", self.name) };
        Source { name, ..*self }
    }

    pub(super) fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        Ok((self.get)(&format!("{}.{name}", self.name), shape)?.to_dtype(DType::F32)?)
    }
}

/// A 3x3 convolution. With stride 1 it keeps the size (one zero on each side); with stride 2 it pads nothing.
pub(super) struct Conv3x3 {
    /// [out, 9 in] for the CPU's own way, [out, in, 3, 3] otherwise.
    weight: Tensor,
    /// [1, out, 1, 1]
    bias: Tensor,
    stride: usize,
}

impl Conv3x3 {
    pub(super) fn load(w: &Source, from: usize, to: usize, stride: usize) -> Result<Self> {
        let mut weight = w.get("weight", &[to, from, 3, 3])?;
        if weight.device().is_cpu() && stride == 1 {
            weight = weight.permute((0, 2, 3, 1))?.reshape((to, 9 * from))?;
        }
        let bias = w.get("bias", &[to])?.reshape((1, to, 1, 1))?;
        Ok(Conv3x3 { weight, bias, stride })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = match self.weight.rank() {
            2 => self.unfolded(x)?,
            _ => x.contiguous()?.conv2d(&self.weight, usize::from(self.stride == 1), self.stride, 1, 1)?,
        };
        Ok(y.broadcast_add(&self.bias)?)
    }

    /// A matrix product over the nine neighbours of each pixel, some rows of the picture at a time. candle's own
    /// convolution gathers the neighbours pixel by pixel and takes about twice as long on small pictures.
    ///
    /// In a padded picture laid out flat, the neighbour in direction (dy, dx) of *every* pixel is the same picture
    /// read from an offset. So each of the nine is one copy of a contiguous run, at the price of computing two surplus
    /// pixels per row, which are cut off in the end.
    fn unfolded(&self, x: &Tensor) -> Result<Tensor> {
        let (b, c, h, w) = x.dims4()?;
        let (out, wide) = (self.weight.dim(0)?, w + 2);
        let weight = self.weight.broadcast_as((b, out, 9 * c))?;
        let band = (UNFOLDED / (b * 9 * c * wide)).clamp(1, h);
        let mut bands = Vec::with_capacity(h.div_ceil(band));
        for top in (0..h).step_by(band) {
            let rows = band.min(h - top);
            let (first, end) = (top.saturating_sub(1), (top + rows + 1).min(h));
            let x = x.narrow(2, first, end - first)?;
            // One row above, one below, and one more so that the last runs do not end outside.
            let above = usize::from(top == 0);
            let x = x.pad_with_zeros(2, above, rows + 3 - above - (end - first))?.pad_with_zeros(3, 1, 1)?;
            let flat = x.reshape((b, c, (rows + 3) * wide))?;
            let runs = (0..9).map(|i| flat.narrow(2, i / 3 * wide + i % 3, rows * wide));
            let neighbours = Tensor::cat(&runs.collect::<candle_core::Result<Vec<_>>>()?, 1)?; // [B, 9 in, rows wide]
            let y = weight.matmul(&neighbours)?.reshape((b, out, rows, wide))?;
            bands.push(y.narrow(3, 0, w)?);
        }
        Ok(Tensor::cat(&bands, 2)?)
    }
}

/// A 1x1 convolution: a matrix product over the channels.
pub(super) struct Conv1x1 {
    /// [out, in]
    weight: Tensor,
    /// [1, out, 1]
    bias: Tensor,
}

impl Conv1x1 {
    pub(super) fn load(w: &Source, from: usize, to: usize) -> Result<Self> {
        let weight = w.get("weight", &[to, from, 1, 1])?.reshape((to, from))?;
        Ok(Conv1x1 { weight, bias: w.get("bias", &[to])?.reshape((1, to, 1))? })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (b, c, h, w) = x.dims4()?;
        let out = self.weight.dim(0)?;
        let weight = self.weight.broadcast_as((b, out, c))?;
        let y = weight.matmul(&x.reshape((b, c, h * w))?)?.broadcast_add(&self.bias)?;
        Ok(y.reshape((b, out, h, w))?)
    }
}

pub(super) struct GroupNorm {
    groups: usize,
    /// [channels]
    weight: Tensor,
    bias: Tensor,
}

impl GroupNorm {
    pub(super) fn load(w: &Source, channels: usize) -> Result<Self> {
        let (weight, bias) = (w.get("weight", &[channels])?, w.get("bias", &[channels])?);
        Ok(GroupNorm { groups: w.config.num_groups, weight, bias })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        const EPSILON: f64 = 1e-6;
        let (b, c, h, w) = x.dims4()?;
        let g = self.groups;
        // Sums of rows first, then of the row sums: a plain running sum of millions of f32 loses digits.
        let grouped = x.reshape((b, g, c / g * h, w))?;
        let mean = grouped.mean(3)?.mean_keepdim(2)?.unsqueeze(3)?; // [B, G, 1, 1]
        let variance = grouped.broadcast_sub(&mean)?.sqr()?.mean(3)?.mean_keepdim(2)?; // [B, G, 1]
        let scale = (variance + EPSILON)?.sqrt()?.recip()?;
        // One factor and one summand per channel instead of four passes over the pixels.
        let factor = scale.broadcast_mul(&self.weight.reshape((1, g, c / g))?)?; // [B, G, C/G]
        let summand = self.bias.reshape((1, g, c / g))?.broadcast_sub(&factor.broadcast_mul(&mean.squeeze(3)?)?)?;
        let (factor, summand) = (factor.reshape((b, c, 1, 1))?, summand.reshape((b, c, 1, 1))?);
        Ok(x.broadcast_mul(&factor)?.broadcast_add(&summand)?)
    }

    /// The norm followed by x sigmoid(x).
    pub(super) fn swish(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.forward(x)?.silu()?)
    }
}

pub(super) struct ResBlock {
    norm1: GroupNorm,
    conv1: Conv3x3,
    norm2: GroupNorm,
    conv2: Conv3x3,
    nin_shortcut: Option<Conv1x1>,
}

impl ResBlock {
    pub(super) fn load(w: &Source, from: usize, to: usize) -> Result<Self> {
        let nin_shortcut = match from == to {
            true => None,
            false => Some(Conv1x1::load(&w.at("nin_shortcut"), from, to)?),
        };
        Ok(ResBlock {
            norm1: GroupNorm::load(&w.at("norm1"), from)?,
            conv1: Conv3x3::load(&w.at("conv1"), from, to, 1)?,
            norm2: GroupNorm::load(&w.at("norm2"), to)?,
            conv2: Conv3x3::load(&w.at("conv2"), to, to, 1)?,
            nin_shortcut,
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let h = self.conv1.forward(&self.norm1.swish(x)?)?;
        let h = self.conv2.forward(&self.norm2.swish(&h)?)?;
        match &self.nin_shortcut {
            Some(shortcut) => Ok((shortcut.forward(x)? + h)?),
            None => Ok((x + h)?),
        }
    }
}

/// Every pixel attends to all pixels, with a single head.
pub(super) struct Attention {
    norm: GroupNorm,
    q: Conv1x1,
    k: Conv1x1,
    v: Conv1x1,
    proj_out: Conv1x1,
}

impl Attention {
    pub(super) fn load(w: &Source, channels: usize) -> Result<Self> {
        let conv = |name: &str| Conv1x1::load(&w.at(name), channels, channels);
        let norm = GroupNorm::load(&w.at("norm"), channels)?;
        Ok(Attention { norm, q: conv("q")?, k: conv("k")?, v: conv("v")?, proj_out: conv("proj_out")? })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (b, c, h, w) = x.dims4()?;
        let n = h * w;
        let y = self.norm.forward(x)?;
        let q = self.q.forward(&y)?.reshape((b, c, n))?.transpose(1, 2)?;
        let k = self.k.forward(&y)?.reshape((b, c, n))?;
        let v = self.v.forward(&y)?.reshape((b, c, n))?;
        let mut parts = Vec::with_capacity(n.div_ceil(QUERIES_AT_ONCE));
        for start in (0..n).step_by(QUERIES_AT_ONCE) {
            let q = q.narrow(1, start, QUERIES_AT_ONCE.min(n - start))?.contiguous()?; // [B, some, C]
            let scores = (q.matmul(&k)? * (c as f64).powf(-0.5))?;
            let scores = candle_nn::ops::softmax(&scores, D::Minus1)?; // [B, some, N]
            parts.push(v.matmul(&scores.transpose(1, 2)?)?); // [B, C, some]
        }
        let y = Tensor::cat(&parts, 2)?.reshape((b, c, h, w))?;
        Ok((x + self.proj_out.forward(&y)?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn largest_difference(a: &Tensor, b: &Tensor) -> f32 {
        assert_eq!(a.dims(), b.dims());
        (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
    }

    #[test]
    fn a_convolution_in_bands_is_the_same_as_in_one_piece_and_as_candles() {
        let config = Config::default();
        let get = |name: &str, shape: &[usize]| {
            Ok(Tensor::randn(0f32, if name == ".bias" { 1.0 } else { 0.05 }, shape, &Device::Cpu)?)
        };
        // Four bands, the last one shorter; one band; a single row; a single pixel.
        for (b, c, h, w) in [(1, 64, 61, 200), (2, 8, 12, 20), (1, 8, 1, 9), (3, 4, 1, 1)] {
            let ours = Conv3x3::load(&Source::new(&config, &get), c, 5, 1).unwrap();
            let weight =
                ours.weight.reshape((5, 3, 3, c)).unwrap().permute((0, 3, 1, 2)).unwrap().contiguous().unwrap();
            let candles = Conv3x3 { weight, bias: ours.bias.clone(), stride: 1 };
            let x = Tensor::randn(0f32, 1.0, (b, c, h, w), &Device::Cpu).unwrap();
            let difference = largest_difference(&ours.forward(&x).unwrap(), &candles.forward(&x).unwrap());
            assert!(difference < 1e-4, "{b} {c} {h} {w}: {difference}");
        }
    }

    #[test]
    fn attention_in_parts_is_the_same_as_in_one_piece() {
        let config = Config { num_groups: 4, ..Config::default() };
        let get = |_: &str, shape: &[usize]| Ok(Tensor::randn(0f32, 0.5, shape, &Device::Cpu)?);
        let attention = Attention::load(&Source::new(&config, &get), 8).unwrap();
        let (h, w) = (40, 30); // more pixels than are taken at once
        let x = Tensor::randn(0f32, 1.0, (2, 8, h, w), &Device::Cpu).unwrap();
        let y = attention.norm.forward(&x).unwrap();
        let conv = |c: &Conv1x1| c.forward(&y).unwrap().reshape((2, 8, h * w)).unwrap();
        let scores = (conv(&attention.q).t().unwrap().matmul(&conv(&attention.k)).unwrap() * 8f64.powf(-0.5)).unwrap();
        let scores = candle_nn::ops::softmax(&scores, D::Minus1).unwrap();
        let out = conv(&attention.v).matmul(&scores.t().unwrap()).unwrap().reshape((2, 8, h, w)).unwrap();
        let whole = (&x + attention.proj_out.forward(&out).unwrap()).unwrap();
        assert!(largest_difference(&attention.forward(&x).unwrap(), &whole) < 1e-4);
    }

    #[test]
    fn group_norm_survives_a_mean_far_from_zero() {
        let config = Config { num_groups: 2, ..Config::default() };
        let get = |name: &str, shape: &[usize]| {
            Ok(Tensor::full(if name == ".weight" { 1f32 } else { 0.0 }, shape, &Device::Cpu)?)
        };
        let norm = GroupNorm::load(&Source::new(&config, &get), 4).unwrap();
        let x = (Tensor::randn(0f32, 1.0, (1, 4, 128, 128), &Device::Cpu).unwrap() + 1000.0).unwrap();
        let y = norm.forward(&x).unwrap();
        let mean = y.mean_all().unwrap().to_scalar::<f32>().unwrap();
        let square = y.sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(mean.abs() < 1e-2 && (square - 1.0).abs() < 1e-2, "{mean} {square}");
    }
}
