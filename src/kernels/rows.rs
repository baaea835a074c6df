//! A few rows times a large matrix: drawing tokens, where time is that of reading the weights once.
//!
//! Both operands run along the dimension that is summed over, so nothing is packed. Each number of the result is summed in
//! sixteen lanes over k and then across them, whatever the other rows are: the bits do not depend on how many there are.

use super::lanes::Lanes;
use super::matrix::{Bf16, Matrix, Source, F32, Q4K, Q8_0};
use super::{level, parallel, vectorised, Out};

/// `y = x w^T` for x [m, k], w [n, k], y [m, n]; all row-major and dense.
///
/// # Panics
/// If the lengths do not fit.
pub fn rows(x: &[f32], w: Matrix, y: &mut [f32], (m, n, k): (usize, usize, usize)) {
    assert!(x.len() == m * k && w.len() == n * k && y.len() == m * n, "matrix sizes");
    assert!(k % w.group() == 0, "quantised rows are whole blocks");
    /// Rows of w that a task takes.
    const CHUNK: usize = 64;
    let to = Out::new(y);
    let x = F32(x.as_ptr());
    parallel(n.div_ceil(CHUNK), m * n * k, |task| {
        let begin = task * CHUNK;
        let end = n.min(begin + CHUNK);
        // SAFETY: sizes were checked above, and each task writes columns `begin..end` of y only.
        unsafe {
            match w {
                Matrix::F32(w) => chunk_f32(level(), x, F32(w.as_ptr()), to, (m, n, k), begin, end),
                Matrix::Bf16(w) => chunk_bf16(level(), x, Bf16(w.as_ptr().cast()), to, (m, n, k), begin, end),
                Matrix::Q8_0(w) => chunk_q8_0(level(), x, Q8_0(w.as_ptr()), to, (m, n, k), begin, end),
                Matrix::Q4K(w) => chunk_q4k(level(), x, Q4K(w.as_ptr()), to, (m, n, k), begin, end),
            }
        }
    });
}

type Sizes = (usize, usize, usize);

vectorised! { unsafe fn chunk_f32(x: F32, w: F32, y: Out, sizes: Sizes, begin: usize, end: usize) = chunk<F32> }
vectorised! { unsafe fn chunk_bf16(x: F32, w: Bf16, y: Out, sizes: Sizes, begin: usize, end: usize) = chunk<Bf16> }
vectorised! { unsafe fn chunk_q8_0(x: F32, w: Q8_0, y: Out, sizes: Sizes, begin: usize, end: usize) = chunk<Q8_0> }
vectorised! { unsafe fn chunk_q4k(x: F32, w: Q4K, y: Out, sizes: Sizes, begin: usize, end: usize) = chunk<Q4K> }

/// Columns `begin..end` of the result.
#[inline(always)]
unsafe fn chunk<L: Lanes, W: Source>(x: F32, w: W, y: Out, (m, n, k): Sizes, begin: usize, end: usize) {
    let mut j = begin;
    while j < end {
        let wide = end - j >= 4;
        let mut i = 0;
        while i < m {
            let left = m - i;
            match (wide, left) {
                (true, 4..) => tile::<L, W, 4, 4>(x, w, y, i, j, n, k),
                (true, 2..) => tile::<L, W, 2, 4>(x, w, y, i, j, n, k),
                (true, _) => tile::<L, W, 1, 4>(x, w, y, i, j, n, k),
                (false, 4..) => tile::<L, W, 4, 1>(x, w, y, i, j, n, k),
                (false, _) => tile::<L, W, 1, 1>(x, w, y, i, j, n, k),
            }
            i += match (wide, left) {
                (_, 4..) => 4,
                (true, 2..) => 2,
                _ => 1,
            };
        }
        j += if wide { 4 } else { 1 };
    }
}

/// R rows of x against C rows of w, from row i and j.
#[inline(always)]
unsafe fn tile<L: Lanes, W: Source, const R: usize, const C: usize>(
    x: F32,
    w: W,
    y: Out,
    i: usize,
    j: usize,
    n: usize,
    k: usize,
) {
    let mut sums = [[L::zero(); C]; R];
    let mut at = 0;
    while at < k {
        let end = k.min(at + 256);
        // No closure: it would not have the processor's vectors.
        let mut scales = [w.scales::<L>(j * k + at); C];
        for c in 1..C {
            scales[c] = w.scales::<L>((j + c) * k + at);
        }
        while at < end {
            let width = (k - at).min(32);
            let mut weights = [[L::zero(); 2]; C];
            for c in 0..C {
                weights[c] = w.read(&scales[c], (j + c) * k + at, width);
                // Of the rows that come next.
                w.prefetch::<L>((j + c + C) * k + at);
            }
            for r in 0..R {
                let [a, b]: [L; 2] = x.read(&(), (i + r) * k + at, width);
                for c in 0..C {
                    sums[r][c] = b.fma(weights[c][1], a.fma(weights[c][0], sums[r][c]));
                }
            }
            at += 32;
        }
    }
    for (r, sums) in sums.into_iter().enumerate() {
        for (c, sum) in sums.into_iter().enumerate() {
            *y.at((i + r) * n + j + c) = sum.sum();
        }
    }
}
