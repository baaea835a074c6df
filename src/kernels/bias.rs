//! What stands around the products of a plain transformer, whose matrices have biases: rows of biases, and the activations of
//! its MLP.

use super::lanes::Lanes;
use super::matrix::F32;
use super::{level, parallel, vectorised, Out};

/// Numbers that a task takes, about.
const CHUNK: usize = 1 << 14;

/// Calls `part(begin, length)` for pieces of whole rows of `n` numbers of `all`.
fn pieces(all: usize, n: usize, part: impl Fn(usize, usize) + Sync) {
    assert!(n > 0 && all.is_multiple_of(n), "sizes");
    let chunk = (CHUNK / n).max(1) * n;
    parallel(all.div_ceil(chunk), 4 * all, |task| part(task * chunk, chunk.min(all - task * chunk)));
}

/// Makes each row of `y` the bias.
pub fn fill_rows(y: &mut [f32], bias: &[f32]) {
    let (all, y) = (y.len(), Out::new(y));
    pieces(all, bias.len(), |at, n| {
        for row in (at..at + n).step_by(bias.len()) {
            // SAFETY: the row lies within y, and no other task writes it.
            unsafe { y.at(row).copy_from_nonoverlapping(bias.as_ptr(), bias.len()) };
        }
    });
}

/// Adds the bias to each row of `y`.
pub fn add_to_rows(y: &mut [f32], bias: &[f32]) {
    let (all, width, y, bias) = (y.len(), bias.len(), Out::new(y), F32(bias.as_ptr()));
    // SAFETY: the pieces lie within y, consist of rows as long as the bias, and do not overlap.
    pieces(all, width, |at, n| unsafe { add_piece(level(), y, bias, at, n, width) });
}

vectorised! { unsafe fn add_piece(y: Out, bias: F32, at: usize, n: usize, width: usize) = add_any }

#[inline(always)]
unsafe fn add_any<L: Lanes>(y: Out, bias: F32, at: usize, n: usize, width: usize) {
    for row in (at..at + n).step_by(width) {
        let y = y.at(row);
        for i in (0..width).step_by(16) {
            let n = width - i;
            L::load_part(y.add(i), n).add(L::load_part(bias.0.add(i), n)).store_part(y.add(i), n);
        }
    }
}

/// `x Phi(x)` in place, Phi by the error function and not by a tanh that resembles it.
pub fn gelu(x: &mut [f32]) {
    let (all, x) = (x.len(), Out::new(x));
    // SAFETY: the pieces lie within x and do not overlap.
    pieces(all, 1, |at, n| unsafe { gelu_piece(level(), x, at, n) });
}

vectorised! { unsafe fn gelu_piece(x: Out, at: usize, n: usize) = gelu_any }

#[inline(always)]
unsafe fn gelu_any<L: Lanes>(x: Out, at: usize, n: usize) {
    let (x, half, root) = (x.at(at), L::splat(0.5), L::splat(std::f32::consts::FRAC_1_SQRT_2));
    for i in (0..n).step_by(16) {
        let v = L::load_part(x.add(i), n - i);
        let h = v.mul(half);
        h.fma(erf(v.mul(root)), h).store_part(x.add(i), n - i);
    }
}

/// The error function to about 3e-7: a quotient of polynomials, odd over even, as in Eigen's and XLA's for f32.
#[inline(always)]
unsafe fn erf<L: Lanes>(x: L) -> L {
    let x = x.max(L::splat(-4.0)).min(L::splat(4.0));
    let square = x.mul(x);
    let mut above = L::splat(-2.726_142_3e-10);
    for c in [2.770_681_4e-8, -2.101_024e-6, -5.692_506_6e-5, -7.349_906_3e-4, -2.954_6e-3, -1.609_603_3e-2] {
        above = above.fma(square, L::splat(c));
    }
    let mut below = L::splat(-1.456_607_2e-5);
    for c in [-2.133_740_6e-4, -1.682_827e-3, -7.373_329_2e-3, -1.426_473_9e-2] {
        below = below.fma(square, L::splat(c));
    }
    x.mul(above).div(below)
}

/// `x sigmoid(1.702 x)` in place.
pub fn quick_gelu(x: &mut [f32]) {
    let (all, x) = (x.len(), Out::new(x));
    // SAFETY: the pieces lie within x and do not overlap.
    pieces(all, 1, |at, n| unsafe { quick_gelu_piece(level(), x, at, n) });
}

vectorised! { unsafe fn quick_gelu_piece(x: Out, at: usize, n: usize) = quick_gelu_any }

#[inline(always)]
unsafe fn quick_gelu_any<L: Lanes>(x: Out, at: usize, n: usize) {
    let (x, one, steep) = (x.at(at), L::splat(1.0), L::splat(-1.702));
    for i in (0..n).step_by(16) {
        let v = L::load_part(x.add(i), n - i);
        v.div(one.add(v.mul(steep).exp())).store_part(x.add(i), n - i);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::layer_norm;

    /// The area under the bell curve from 0 to x, by Simpson's rule.
    fn phi(x: f64) -> f64 {
        let (n, bell) = (2000, |t: f64| (-t * t / 2.0).exp());
        let h = x / n as f64;
        let inner: f64 = (1..n).map(|i| bell(i as f64 * h) * if i % 2 == 1 { 4.0 } else { 2.0 }).sum();
        0.5 + (bell(0.0) + inner + bell(x)) * h / 3.0 / (2.0 * std::f64::consts::PI).sqrt()
    }

    #[test]
    fn the_activations_are_what_their_formulas_say() {
        let x: Vec<f32> = (-800..=800).map(|i| i as f32 / 100.0).collect();
        let (mut exact, mut quick) = (x.clone(), x.clone());
        gelu(&mut exact);
        quick_gelu(&mut quick);
        for ((x, g), q) in x.iter().map(|&x| f64::from(x)).zip(exact).zip(quick) {
            assert!((f64::from(g) - x * phi(x)).abs() < 4e-7 * x.abs().max(1.0), "gelu({x}) = {g}");
            let sigmoid = 1.0 / (1.0 + (-1.702 * x).exp());
            assert!((f64::from(q) - x * sigmoid).abs() < 4e-7 * x.abs().max(1.0), "quick_gelu({x}) = {q}");
        }
    }

    #[test]
    fn biases_go_to_every_row_whatever_its_width() {
        for width in [1, 7, 16, 33, 20_000] {
            let bias: Vec<f32> = (0..width).map(|i| i as f32).collect();
            let mut y = vec![9f32; 5 * width];
            fill_rows(&mut y, &bias);
            add_to_rows(&mut y, &bias);
            assert!(y.chunks(width).all(|row| row.iter().zip(&bias).all(|(y, b)| *y == 2.0 * b)), "{width}");
        }
    }

    #[test]
    fn a_layer_norm_has_the_mean_of_its_bias_and_the_size_of_its_weight() {
        let x: Vec<f32> = (0..3 * 50).map(|i| ((i * 37) % 101) as f32 * 0.3 - 7.0).collect();
        let (weight, bias) = (vec![2f32; 50], vec![-1f32; 50]);
        let mut y = vec![0f32; x.len()];
        layer_norm(&x, 50, &weight, &bias, 1e-6, &mut y);
        for row in y.chunks(50) {
            let mean = row.iter().sum::<f32>() / 50.0;
            let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / 50.0;
            assert!((mean + 1.0).abs() < 1e-5 && (variance - 4.0).abs() < 1e-4, "{mean} {variance}");
        }
    }
}
