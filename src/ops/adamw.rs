//! A step of AdamW on numbers of a device.

use super::fused::{self, of, size};
use super::{difference, product, quotient, root, sum};
use crate::device::kernel::{Arg, Grid};
use crate::Result;
use candle_core::Tensor;

/// What is added to the root of the mean square; PyTorch's default.
pub const EPS: f64 = 1e-8;

/// The factors of a step.
#[derive(Clone, Copy, Debug)]
pub struct Factors {
    /// Of the gradient, before anything else.
    pub scale: f32,
    /// Of the running means of the gradient and of its square: what they keep, and what they take.
    pub keep: [f32; 2],
    pub take: [f32; 2],
    /// The root of the mean square is divided by it.
    pub root: f32,
    pub rate: f32,
    /// What decay leaves of the value.
    pub kept: f32,
}

impl Factors {
    /// The new value, mean and mean square of a number.
    #[inline]
    pub fn step(&self, value: f32, mean: f32, square: f32, gradient: f32) -> (f32, f32, f32) {
        let g = gradient * self.scale;
        let m = self.keep[0] * mean + self.take[0] * g;
        let s = self.keep[1] * square + self.take[1] * g * g;
        (value * self.kept - self.rate * m / (s.sqrt() / self.root + EPS as f32), m, s)
    }
}

/// Changes a value and its running means, f32 and contiguous, where they lie, by a gradient of as many f32. `seen` is what passes
/// read of the value: the same in storage of its own, f32 or bf16.
pub fn adamw([value, mean, square]: [&Tensor; 3], gradient: &Tensor, seen: &Tensor, factors: &Factors) -> Result<()> {
    // A vector's may come as a row.
    let gradient = gradient.reshape(value.shape())?.contiguous()?;
    if fused::serve(value) {
        let n = value.elem_count();
        let Factors { scale, keep, take, root, rate, kept } = *factors;
        let numbers = [scale, keep[0], keep[1], take[0], take[1], root, rate, kept].map(Arg::Number);
        let tensors = [seen, value, mean, square, &gradient].map(of);
        let args = [&tensors[..], &[size(n)], &numbers].concat();
        // SAFETY: as many numbers in each; nobody else uses those that are written, for the stream keeps the order.
        return unsafe { fused::launch("adamw", seen, Grid::each(n), &args) };
    }
    // The same formulas as in `Factors::step`, rounded in nearly the same places.
    let times = |x: &Tensor, factor: f32| Ok::<_, crate::Error>((x * f64::from(factor))?);
    let g = times(&gradient, factors.scale)?;
    let m = sum(&times(mean, factors.keep[0])?, &times(&g, factors.take[0])?)?;
    let s = sum(&times(square, factors.keep[1])?, &product(&times(&g, factors.take[1])?, &g)?)?;
    let below = (times(&root(&s)?, 1.0 / factors.root)? + EPS)?;
    let change = quotient(&times(&m, factors.rate)?, &below)?;
    let v = difference(&times(value, factors.kept)?, &change)?;
    for (to, from) in [(mean, &m), (square, &s), (value, &v), (seen, &v.to_dtype(seen.dtype())?)] {
        to.slice_set(from, 0, 0)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::plainly;
    use candle_core::{DType, Device};

    #[test]
    fn a_step_is_the_same_number_by_number_in_candles_operations_and_in_one_kernel() {
        let factors =
            Factors { scale: 0.5, keep: [0.9, 0.999], take: [0.1, 0.001], root: 0.0316, rate: 0.01, kept: 0.99 };
        let n = 1000;
        let numbers = |seed: u64, of: fn(f32) -> f32| -> Vec<f32> {
            let mut stream = crate::random::Stream::new(seed, crate::random::Purpose::Initial, 0);
            (0..n).map(|_| of(2.0 * stream.uniform() - 1.0)).collect()
        };
        // Of some numbers the gradient is zero, and was.
        let rare = |x: f32| if x.abs() < 0.1 { 0.0 } else { 1e-3 * x };
        let given =
            [numbers(1, |x| x), numbers(2, rare), numbers(2, |x| if x.abs() < 0.1 { 0.0 } else { 1e-6 * x * x })];
        let gradient = numbers(3, |x| x);
        let expected: Vec<(f32, f32, f32)> =
            (0..n).map(|i| factors.step(given[0][i], given[1][i], given[2][i], gradient[i])).collect();
        let check = || {
            for dtype in [DType::F32, DType::BF16] {
                let tensor = |v: &[f32]| Tensor::from_slice(v, n, &Device::Cpu).unwrap();
                let state = [tensor(&given[0]), tensor(&given[1]), tensor(&given[2])];
                let seen = Tensor::zeros(n, dtype, &Device::Cpu).unwrap();
                let row = tensor(&gradient).reshape((1, n)).unwrap();
                adamw([&state[0], &state[1], &state[2]], &row, &seen, &factors).unwrap();
                let found = state.map(|t| t.to_vec1::<f32>().unwrap());
                for (i, (v, m, s)) in expected.iter().enumerate() {
                    for (part, (found, right)) in
                        [(found[0][i], v), (found[1][i], m), (found[2][i], s)].iter().enumerate()
                    {
                        assert!((found - *right).abs() <= 1e-5 * right.abs() + 1e-12, "{i} {part}: {found} {right}");
                    }
                }
                let value = Tensor::from_slice(&found[0], n, &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
                let f32s = |t: &Tensor| t.to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap();
                assert_eq!(f32s(&seen), f32s(&value), "{dtype:?}");
            }
        };
        plainly(check);
        crate::device::twin::with_each(|| plainly(check));
    }
}
