//! The layers of the VQ-GAN: their weights, and what is done with them.
//!
//! Each operation has two forms that give the same numbers but for rounding: [`cpu`] calls the kernels of this library,
//! [`plain`] is made of candle's operations, for GPUs. Maps are [B, channels, height, width], f32.

use super::{cpu, plain, Config, Get};
use crate::ops::{self, own_kernels};
use crate::Result;
use candle_core::{DType, Tensor};

/// Of the group norms.
pub(in crate::model) const EPSILON: f64 = 1e-6;

/// Picks the form that serves the map.
macro_rules! either {
    ($which:expr, $name:ident($($arg:expr),*)) => {
        if own_kernels($which) { cpu::$name($($arg),*) } else { plain::$name($($arg),*) }
    };
}

/// A place among the named weights.
pub(in crate::model) struct Source<'a> {
    pub(in crate::model) config: &'a Config,
    get: &'a Get<'a>,
    name: String,
}

impl<'a> Source<'a> {
    pub(in crate::model) fn new(config: &'a Config, get: &'a Get<'a>) -> Self {
        Source { config, get, name: String::new() }
    }

    /// The place `name` below this one.
    pub(in crate::model) fn at(&self, name: &str) -> Source<'a> {
        let name = if self.name.is_empty() { name.into() } else { format!("{}.{name}", self.name) };
        Source { name, ..*self }
    }

    pub(in crate::model) fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        Ok((self.get)(&format!("{}.{name}", self.name), shape)?.to_dtype(DType::F32)?)
    }
}

/// A 3x3 convolution.
pub(in crate::model) struct Conv3x3 {
    /// [out, in, 3, 3]
    pub weight: Tensor,
    /// [out]
    pub bias: Tensor,
}

/// What a convolution reads in place of the map itself.
#[derive(Clone, Copy, Default)]
pub(in crate::model) struct Reading<'a> {
    /// The norm of the map, followed by x sigmoid(x).
    pub swish: Option<&'a GroupNorm>,
    /// Each pixel twice in each direction.
    pub doubled: bool,
}

impl Conv3x3 {
    pub(in crate::model) fn load(w: &Source, from: usize, to: usize) -> Result<Self> {
        Ok(Conv3x3 { weight: w.get("weight", &[to, from, 3, 3])?, bias: w.get("bias", &[to])? })
    }

    /// One zero on each side: the size stays.
    pub(in crate::model) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        either!(x, conv3x3(self, x, Reading::default(), None))
    }

    /// Of the norm of the map, followed by x sigmoid(x). Added to `sum` if there is one, whose numbers are taken over.
    pub(in crate::model) fn behind(&self, norm: &GroupNorm, x: &Tensor, sum: Option<Tensor>) -> Result<Tensor> {
        either!(x, conv3x3(self, x, Reading { swish: Some(norm), doubled: false }, sum))
    }

    /// Doubles the resolution: each pixel twice in each direction, then the convolution.
    pub(in crate::model) fn double(&self, x: &Tensor) -> Result<Tensor> {
        either!(x, conv3x3(self, x, Reading { swish: None, doubled: true }, None))
    }

    /// Halves the resolution: every second pixel. Zeros on the right and below only: the asymmetry is part of the model.
    pub(in crate::model) fn halve(&self, x: &Tensor) -> Result<Tensor> {
        either!(x, halve(self, x))
    }
}

/// A 1x1 convolution: a matrix product over the channels.
pub(in crate::model) struct Conv1x1 {
    /// [out, in]
    pub weight: Tensor,
    /// [out]
    pub bias: Tensor,
}

impl Conv1x1 {
    pub(in crate::model) fn load(w: &Source, from: usize, to: usize) -> Result<Self> {
        let weight = w.get("weight", &[to, from, 1, 1])?.reshape((to, from))?;
        Ok(Conv1x1 { weight, bias: w.get("bias", &[to])? })
    }

    pub(in crate::model) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        either!(x, conv1x1(self, x))
    }
}

pub(in crate::model) struct GroupNorm {
    pub groups: usize,
    /// [channels]
    pub weight: Tensor,
    pub bias: Tensor,
}

impl GroupNorm {
    pub(in crate::model) fn load(w: &Source, channels: usize) -> Result<Self> {
        let (weight, bias) = (w.get("weight", &[channels])?, w.get("bias", &[channels])?);
        Ok(GroupNorm { groups: w.config.num_groups, weight, bias })
    }

    pub(in crate::model) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        either!(x, group_norm(self, x))
    }
}

pub(in crate::model) struct ResBlock {
    norm1: GroupNorm,
    conv1: Conv3x3,
    norm2: GroupNorm,
    conv2: Conv3x3,
    nin_shortcut: Option<Conv1x1>,
}

impl ResBlock {
    pub(in crate::model) fn load(w: &Source, from: usize, to: usize) -> Result<Self> {
        let nin_shortcut = match from == to {
            true => None,
            false => Some(Conv1x1::load(&w.at("nin_shortcut"), from, to)?),
        };
        Ok(ResBlock {
            norm1: GroupNorm::load(&w.at("norm1"), from)?,
            conv1: Conv3x3::load(&w.at("conv1"), from, to)?,
            norm2: GroupNorm::load(&w.at("norm2"), to)?,
            conv2: Conv3x3::load(&w.at("conv2"), to, to)?,
            nin_shortcut,
        })
    }

    /// The numbers of x are taken over.
    pub(in crate::model) fn forward(&self, x: Tensor) -> Result<Tensor> {
        let h = self.conv1.behind(&self.norm1, &x, None)?;
        let x = match &self.nin_shortcut {
            Some(shortcut) => shortcut.forward(&x)?,
            None => x,
        };
        self.conv2.behind(&self.norm2, &h, Some(x))
    }
}

/// Every pixel attends to all pixels, with a single head.
pub(in crate::model) struct Attention {
    norm: GroupNorm,
    q: Conv1x1,
    k: Conv1x1,
    v: Conv1x1,
    proj_out: Conv1x1,
}

impl Attention {
    pub(in crate::model) fn load(w: &Source, channels: usize) -> Result<Self> {
        let conv = |name: &str| Conv1x1::load(&w.at(name), channels, channels);
        let norm = GroupNorm::load(&w.at("norm"), channels)?;
        Ok(Attention { norm, q: conv("q")?, k: conv("k")?, v: conv("v")?, proj_out: conv("proj_out")? })
    }

    pub(in crate::model) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.norm.forward(x)?;
        let (q, k, v) = (self.q.forward(&y)?, self.k.forward(&y)?, self.v.forward(&y)?);
        let mixed = either!(&q, attention(&q, &k, &v))?;
        ops::add(self.proj_out.forward(&mixed)?, x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::plainly;
    use crate::ops::testing::at_each_level;
    use candle_core::Device;

    fn random(dims: &[usize], size: f32) -> Tensor {
        (crate::ops::testing::random(dims) * size as f64).unwrap()
    }

    fn assert_close(own: &Tensor, plain: &Tensor, what: &str) {
        assert_eq!(own.dims(), plain.dims(), "{what}");
        let largest = |t: &Tensor| t.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        let gap = largest(&(own - plain).unwrap());
        assert!(gap <= 1e-5 * largest(plain), "{what}: {gap} against {}", largest(plain));
    }

    /// The result of an operation by the kernels and by candle's operations.
    fn compare(what: &str, f: impl Fn() -> Result<Tensor>) {
        assert_close(&f().unwrap(), &plainly(|| f().unwrap()), what);
    }

    #[test]
    fn kernels_give_what_plain_operations_give_at_any_size_and_level_of_vectors() {
        let config = Config { num_groups: 4, ..Config::default() };
        let get = |name: &str, shape: &[usize]| match name.ends_with("norm.weight") {
            true => Ok((random(shape, 0.2) + 1.0)?),
            false => Ok(random(shape, 0.1)),
        };
        let root = Source::new(&config, &get);
        // Many tasks, odd sides, a row shorter than a vector, a single pixel, several pictures. (A group of a single number
        // has no variance: its norm is all rounding.)
        at_each_level(|| {
            for (b, from, to, h, w) in [
                (1, 8, 12, 70, 130),
                (2, 16, 5, 12, 20),
                (1, 4, 3, 9, 7),
                (3, 8, 8, 1, 9),
                (1, 16, 4, 1, 1),
                (1, 96, 40, 33, 3),
            ] {
                let what = format!("{b} {from} {to} {h} {w}");
                let conv = Conv3x3::load(&root, from, to).unwrap();
                let small = Conv1x1::load(&root, from, to).unwrap();
                let norm = GroupNorm::load(&root.at("norm"), from).unwrap();
                let x = random(&[b, from, h, w], 1.0);
                let sum = random(&[b, to, h, w], 1.0);
                compare(&format!("convolution {what}"), || conv.forward(&x));
                compare(&format!("behind a norm {what}"), || conv.behind(&norm, &x, Some(sum.copy()?)));
                compare(&format!("doubled {what}"), || conv.double(&x));
                compare(&format!("1x1 {what}"), || small.forward(&x));
                compare(&format!("norm {what}"), || norm.forward(&x));
                if h > 1 {
                    compare(&format!("halved {what}"), || {
                        conv.halve(&x.narrow(2, 0, h / 2 * 2)?.narrow(3, 0, w / 2 * 2)?)
                    });
                }
            }
        });
    }

    #[test]
    fn attention_in_parts_is_the_same_as_in_one_piece() {
        let config = Config { num_groups: 4, ..Config::default() };
        let get = |_: &str, shape: &[usize]| Ok(random(shape, 0.5));
        let attention = Attention::load(&Source::new(&config, &get), 8).unwrap();
        let (h, w) = (40, 30); // more pixels than are taken at once
        let x = random(&[2, 8, h, w], 1.0);
        compare("attention", || attention.forward(&x));
        let y = attention.norm.forward(&x).unwrap();
        let conv = |c: &Conv1x1| c.forward(&y).unwrap().reshape((2, 8, h * w)).unwrap();
        let scores = (conv(&attention.q).t().unwrap().matmul(&conv(&attention.k)).unwrap() * 8f64.powf(-0.5)).unwrap();
        let scores = candle_nn::ops::softmax(&scores, candle_core::D::Minus1).unwrap();
        let out = conv(&attention.v).matmul(&scores.t().unwrap()).unwrap().reshape((2, 8, h, w)).unwrap();
        let whole = (&x + attention.proj_out.forward(&out).unwrap()).unwrap();
        assert_close(&attention.forward(&x).unwrap(), &whole, "attention in one piece");
    }

    #[test]
    fn group_norm_survives_a_mean_far_from_zero() {
        let config = Config { num_groups: 2, ..Config::default() };
        let get = |name: &str, shape: &[usize]| {
            Ok(Tensor::full(if name == ".weight" { 1f32 } else { 0.0 }, shape, &Device::Cpu)?)
        };
        let norm = GroupNorm::load(&Source::new(&config, &get), 4).unwrap();
        let x = (random(&[1, 4, 128, 128], 1.0) + 1000.0).unwrap();
        for y in [norm.forward(&x).unwrap(), plainly(|| norm.forward(&x).unwrap())] {
            let mean = y.mean_all().unwrap().to_scalar::<f32>().unwrap();
            let square = y.sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(mean.abs() < 1e-2 && (square - 1.0).abs() < 1e-2, "{mean} {square}");
        }
    }
}
