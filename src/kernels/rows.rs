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
unsafe fn chunk<L: Lanes, W: Source>(x: F32, w: W, y: Out, sizes: Sizes, begin: usize, end: usize) {
    let (m, _, k) = sizes;
    // What several tiles of rows look at is unpacked once, and read from the cache.
    let keeps = W::GROUP > 1 && m > 4;
    let mut plain = vec![0f32; if keeps { 4 * k } else { 0 }];
    for j in (begin..end).step_by(4) {
        let count = (end - j).min(4);
        if keeps {
            unpack::<L, W>(w, j * k, &mut plain[..count * k]);
            columns::<L, F32>(x, F32(plain.as_ptr()), 0, y, j, count, sizes);
        } else {
            columns::<L, W>(x, w, j, y, j, count, sizes);
        }
    }
}

/// Numbers of w from `at` on.
#[inline(always)]
unsafe fn unpack<L: Lanes, W: Source>(w: W, at: usize, plain: &mut [f32]) {
    for (number, to) in plain.chunks_mut(256).enumerate() {
        let block = w.block::<L>(at + number * 256);
        for (part, to) in to.chunks_exact_mut(32).enumerate() {
            let [a, b]: [L; 2] = W::read(&block, part * 32, 32);
            a.store(to.as_mut_ptr());
            b.store(to.as_mut_ptr().add(16));
        }
    }
}

/// Up to four columns of the result from `j` on, which belong to the rows of w from `from` on.
#[inline(always)]
unsafe fn columns<L: Lanes, W: Source>(x: F32, w: W, from: usize, y: Out, j: usize, count: usize, sizes: Sizes) {
    let (m, n, k) = sizes;
    let mut i = 0;
    while i < m {
        // Of the rows of w that come next, but once, and not behind what was unpacked.
        let ahead = if i == 0 && from == j { 4 * k } else { 0 };
        let rows = match m - i {
            4.. => 4,
            2.. if count == 4 => 2,
            _ => 1,
        };
        let each = if count == 4 { 1 } else { count };
        for c in 0..each {
            let (w_at, y_at) = (((from + c) * k, ahead), y.at(i * n + j + c));
            match (count == 4, rows) {
                (true, 4) => tile::<L, W, 4, 4>(x, w, i * k, w_at, y_at, n, k),
                (true, 2) => tile::<L, W, 2, 4>(x, w, i * k, w_at, y_at, n, k),
                (true, _) => tile::<L, W, 1, 4>(x, w, i * k, w_at, y_at, n, k),
                (false, 4) => tile::<L, W, 4, 1>(x, w, i * k, w_at, y_at, n, k),
                (false, _) => tile::<L, W, 1, 1>(x, w, i * k, w_at, y_at, n, k),
            }
        }
        i += rows;
    }
}

/// R rows of x against C rows of w, from the numbers `x_at` and `w_at` on; `y` is the first of the result, whose rows are n long.
/// What is so many numbers `ahead` in w is fetched into the cache.
#[inline(always)]
unsafe fn tile<L: Lanes, W: Source, const R: usize, const C: usize>(
    x: F32,
    w: W,
    x_at: usize,
    (w_at, ahead): (usize, usize),
    y: *mut f32,
    n: usize,
    k: usize,
) {
    let mut sums = [[L::zero(); C]; R];
    for at in (0..k).step_by(256) {
        // No closures: they would not have the processor's vectors.
        let mut blocks =
            Blocks { x: [x.block::<L>(x_at + at); R], w: [w.block::<L>(w_at + at); C], ahead: [w.address(0); C] };
        for r in 1..R {
            blocks.x[r] = x.block::<L>(x_at + r * k + at);
        }
        for c in 0..C {
            if c > 0 {
                blocks.w[c] = w.block::<L>(w_at + c * k + at);
            }
            blocks.ahead[c] = w.address(w_at + c * k + at + ahead);
        }
        let width = (k - at).min(256);
        let mut from = 0;
        // In pairs, so that the halves of a byte are told apart when this is compiled.
        while from + 64 <= width {
            step::<L, W, R, C>(&blocks, from / 64 * 64, 32, &mut sums);
            step::<L, W, R, C>(&blocks, from / 64 * 64 + 32, 32, &mut sums);
            from += 64;
        }
        while from < width {
            step::<L, W, R, C>(&blocks, from, (width - from).min(32), &mut sums);
            from += 32;
        }
    }
    for (r, sums) in sums.into_iter().enumerate() {
        for (c, sum) in sums.into_iter().enumerate() {
            *y.add(r * n + c) = sum.sum();
        }
    }
}

/// 256 numbers, or what is left of the rows.
struct Blocks<W: Source, const R: usize, const C: usize> {
    x: [*const f32; R],
    w: [W::Block; C],
    ahead: [*const u8; C],
}

/// Adds the products of `width` numbers, up to 32.
#[inline(always)]
unsafe fn step<L: Lanes, W: Source, const R: usize, const C: usize>(
    blocks: &Blocks<W, R, C>,
    from: usize,
    width: usize,
    sums: &mut [[L; C]; R],
) {
    let mut weights = [[L::zero(); 2]; C];
    for c in 0..C {
        weights[c] = W::read(&blocks.w[c], from, width);
        L::prefetch(blocks.ahead[c].wrapping_add(from / 32 * W::BYTES).cast());
    }
    for r in 0..R {
        let [a, b]: [L; 2] = F32::read(&blocks.x[r], from, width);
        for c in 0..C {
            sums[r][c] = b.fma(weights[c][1], a.fma(weights[c][0], sums[r][c]));
        }
    }
}
