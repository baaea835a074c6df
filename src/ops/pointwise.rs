//! Element by element: what the operators between tensors do, without the tensor library's threads.
//!
//! On the CPU candle shares large element-wise operations between threads of its own, one set for the process. They are none of
//! the engine's, and a forked child, in which they are not there, would wait for them for ever. So where tensors may be on
//! the CPU these functions stand in place of `+`, `-`, `*` and `/` between tensors and of `sqr`, `log` and the like;
//! `tests/hosts/c/fork.c` sees whether candle's threads were started. (Operators with a number, comparisons, sums, products
//! of matrices and whatever moves numbers make no use of them.)

use super::cpu::floats;
use super::own_kernels;
use crate::kernels::{fill, zeros};
use crate::Result;
use candle_core::cpu::erf::erf_f32;
use candle_core::{Device, Tensor};
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

/// `a + b`; here and below each is repeated along the dimensions in which the other is larger.
pub fn sum(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    binary(a, b, Tensor::broadcast_add, |a, b| a + b)
}

pub fn difference(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    binary(a, b, Tensor::broadcast_sub, |a, b| a - b)
}

pub fn product(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    binary(a, b, Tensor::broadcast_mul, |a, b| a * b)
}

pub fn quotient(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    binary(a, b, Tensor::broadcast_div, |a, b| a / b)
}

pub fn square(x: &Tensor) -> Result<Tensor> {
    unary(x, Tensor::sqr, |x| x * x)
}

/// The square root.
pub fn root(x: &Tensor) -> Result<Tensor> {
    unary(x, Tensor::sqrt, f32::sqrt)
}

/// The natural logarithm; minus infinity of 0.
pub fn ln(x: &Tensor) -> Result<Tensor> {
    unary(x, Tensor::log, f32::ln)
}

/// 0 in place of negative numbers.
pub fn positive_part(x: &Tensor) -> Result<Tensor> {
    unary(x, Tensor::relu, |x| x.max(0.0))
}

/// `x` times the share of the normal distribution that is below it, by the error function itself and not one of its
/// approximations.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    unary(x, Tensor::gelu_erf, |x| x * below(x))
}

/// The gradient of x in [`gelu`] for the gradient `g` of its result.
pub fn gelu_backward(g: &Tensor, x: &Tensor) -> Result<Tensor> {
    let plain = |g: &Tensor, x: &Tensor| {
        let below = (((x * FRAC_1_SQRT_2)?.erf()? + 1.0)? * 0.5)?;
        let density = ((x.sqr()? * -0.5)?.exp()? * DENSITY)?;
        g * (below + (x * density)?)?
    };
    binary(g, x, plain, |g, x| g * (below(x) + x * DENSITY as f32 * (-0.5 * x * x).exp()))
}

/// Of the normal distribution at 0: 1 / sqrt(2 pi).
const DENSITY: f64 = FRAC_2_SQRT_PI * FRAC_1_SQRT_2 / 2.0;

/// The share of the normal distribution below x.
fn below(x: f32) -> f32 {
    0.5 * (1.0 + erf_f32(x * FRAC_1_SQRT_2 as f32))
}

fn unary(
    x: &Tensor,
    plain: fn(&Tensor) -> candle_core::Result<Tensor>,
    f: impl Fn(f32) -> f32 + Sync,
) -> Result<Tensor> {
    if !own_kernels(x) {
        return Ok(plain(x)?);
    }
    let x = x.contiguous()?;
    let values = floats(&x)?;
    let mut y = zeros(x.elem_count());
    fill(&mut y, |at, y| y.iter_mut().zip(&values[at..]).for_each(|(y, &x)| *y = f(x)));
    Ok(Tensor::from_vec(y, x.dims(), &Device::Cpu)?)
}

fn binary(
    a: &Tensor,
    b: &Tensor,
    plain: fn(&Tensor, &Tensor) -> candle_core::Result<Tensor>,
    f: impl Fn(f32, f32) -> f32 + Sync,
) -> Result<Tensor> {
    if !own_kernels(a) {
        return Ok(plain(a, b)?);
    }
    let shape = a.shape().broadcast_shape_binary_op(b.shape(), "pointwise")?;
    let (a, b) = (a.broadcast_as(&shape)?, b.broadcast_as(&shape)?);
    let (xs, ys) = (floats(&a)?, floats(&b)?);
    // Numbers that lie one behind the other are a single row.
    let (outer, width) = match (a.is_contiguous() && b.is_contiguous(), shape.dims().split_last()) {
        (false, Some((&width, outer))) => (outer, width),
        _ => (&[][..], shape.elem_count()),
    };
    let step = |t: &Tensor| if outer.is_empty() { 1 } else { t.stride()[outer.len()] };
    let (step_a, step_b) = (step(&a), step(&b));
    let row_at = |t: &Tensor, mut row: usize| {
        let places = outer.iter().zip(t.stride()).rev();
        places.fold(0, |at, (&n, &stride)| at + stride * (row % n, row /= n).0)
    };
    let mut z = zeros(shape.elem_count());
    fill(&mut z, |mut at, mut z| {
        while !z.is_empty() {
            let (row, column) = (at / width, at % width);
            let (now, later) = z.split_at_mut(z.len().min(width - column));
            let x = &xs[row_at(&a, row) + column * step_a..];
            let y = &ys[row_at(&b, row) + column * step_b..];
            match (step_a, step_b) {
                (1, 1) => now.iter_mut().zip(x).zip(y).for_each(|((z, &x), &y)| *z = f(x, y)),
                _ => now.iter_mut().enumerate().for_each(|(i, z)| *z = f(x[i * step_a], y[i * step_b])),
            }
            at += now.len();
            z = later;
        }
    });
    Ok(Tensor::from_vec(z, shape, &Device::Cpu)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::plainly;
    use crate::ops::testing::random;

    /// The bits of an operation here and by candle.
    fn assert_equal(what: &str, f: impl Fn() -> Result<Tensor>) {
        let (own, plain) = (f().unwrap(), plainly(|| f().unwrap()));
        assert_eq!(own.dims(), plain.dims(), "{what}");
        let bits = |t: &Tensor| -> Vec<u32> {
            t.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
        };
        assert!(bits(&own) == bits(&plain), "{what}");
    }

    #[test]
    fn the_bits_are_those_of_the_operators_however_tensors_lie() {
        let wide = random(&[3, 40, 700]);
        let pairs = [
            (random(&[40000]), random(&[40000])),
            (wide.clone(), random(&[3, 40, 1])),
            (wide.clone(), random(&[700])),
            (random(&[3, 1, 700]), random(&[1, 40, 1])),
            (wide.clone(), random(&[])),
            (random(&[]), random(&[])),
            (wide.transpose(0, 2).unwrap(), random(&[700, 40, 3])),
            (wide.narrow(1, 3, 30).unwrap(), wide.narrow(1, 10, 30).unwrap()),
            (wide.narrow(2, 5, 1).unwrap(), random(&[3, 40, 1])),
            (random(&[0, 5]), random(&[5])),
        ];
        for (a, b) in pairs {
            let what = format!("{:?} and {:?}", a.layout(), b.layout());
            for f in [sum, difference, product, quotient] {
                assert_equal(&what, || f(&a, &b));
                assert_equal(&what, || f(&b, &a));
            }
            for f in [square, ln, positive_part] {
                assert_equal(&what, || f(&a));
            }
        }
        let odd = Tensor::new(&[0f32, -0.0, f32::NAN, f32::INFINITY, -1.0], &Device::Cpu).unwrap();
        let odd = |f: fn(&Tensor) -> Result<Tensor>| f(&odd).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!((odd(ln)[0], odd(ln)[3]), (f32::NEG_INFINITY, f32::INFINITY));
        assert_eq!((odd(positive_part)[4], odd(square)[4]), (0.0, 1.0));
    }
}
