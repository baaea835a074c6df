//! Softmax of rows, and its two passes, which the loss ends in its own way.

use super::lanes::Lanes;
use super::{level, parallel, vectorised, Out};

/// Softmax of `scale` times each row of `n` numbers, in place.
///
/// # Panics
/// If there is a part of a row.
pub fn softmax(x: &mut [f32], n: usize, scale: f32) {
    assert!(n > 0 && x.len().is_multiple_of(n), "sizes");
    let (rows, work, x) = (x.len() / n, 16 * x.len(), Out::new(x));
    // SAFETY: row `row` lies within x and belongs to one task.
    parallel(rows, work, |row| unsafe {
        softmax_row(level(), x.from(row * n), n, scale);
    });
}

vectorised! { pub(super) unsafe fn softmax_row(x: Out, n: usize, scale: f32) -> f32 = softmax_here }

/// Softmax of `scale * x` in place. Returns the log-normaliser.
///
/// # Safety
/// `x` must be n numbers, at least one, that nobody else touches.
#[inline(always)]
pub(super) unsafe fn softmax_here<L: Lanes>(x: Out, n: usize, scale: f32) -> f32 {
    let (normaliser, total) = exponentials::<L>(x.at(0), n, scale);
    times::<L>(x.at(0), n, 1.0 / total);
    normaliser
}

/// `scale * x` becomes `exp(scale * x - most)`. Returns the log-normaliser of `scale * x` and the sum of the exponentials.
///
/// # Safety
/// As [`softmax_here`].
#[inline(always)]
pub(super) unsafe fn exponentials<L: Lanes>(x: *mut f32, n: usize, scale: f32) -> (f32, f32) {
    let whole = n / 16 * 16;
    let mut most = f32::NEG_INFINITY;
    if whole > 0 {
        let mut lanes = L::load(x);
        for i in (16..whole).step_by(16) {
            lanes = lanes.max(L::load(x.add(i)));
        }
        most = lanes.largest();
    }
    for i in whole..n {
        most = most.max(*x.add(i));
    }
    let (s, shift) = (L::splat(scale), L::splat(-most * scale));
    let mut sum = L::zero();
    for i in (0..whole).step_by(16) {
        let e = L::load(x.add(i)).fma(s, shift).exp();
        e.store(x.add(i));
        sum = sum.add(e);
    }
    let mut total = sum.sum();
    if whole < n {
        let mut rest = [0f32; 16];
        L::load_part(x.add(whole), n - whole).fma(s, shift).exp().store(rest.as_mut_ptr());
        for (i, e) in rest.into_iter().take(n - whole).enumerate() {
            *x.add(whole + i) = e;
            total += e;
        }
    }
    (most * scale + total.ln(), total)
}

/// `x` times a factor, in place.
///
/// # Safety
/// As [`softmax_here`].
#[inline(always)]
pub(super) unsafe fn times<L: Lanes>(x: *mut f32, n: usize, factor: f32) {
    let factor = L::splat(factor);
    for i in (0..n).step_by(16) {
        L::load_part(x.add(i), n - i).mul(factor).store_part(x.add(i), n - i);
    }
}
