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
    // What is multiplied with bf16 is rounded to it where the processor has an instruction for that.
    #[cfg(target_arch = "x86_64")]
    let rounded = (level() >= super::Level::Avx512Bf16 && matches!(w, Matrix::Bf16(_)))
        // SAFETY: the processor has what the level says, and the size of x was checked above.
        .then(|| unsafe { super::halves::round_rows(x, k) });
    let x = F32(x.as_ptr());
    parallel(n.div_ceil(CHUNK), m * n * k, |task| {
        let begin = task * CHUNK;
        let end = n.min(begin + CHUNK);
        // SAFETY: sizes were checked above, and each task writes columns `begin..end` of y only.
        unsafe {
            #[cfg(target_arch = "x86_64")]
            if let (Matrix::Bf16(w), Some(x)) = (w, &rounded) {
                return super::halves::chunk(x, w.as_ptr().cast(), to, (m, n, k), begin, end);
            }
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

/// Up to so many rows look at each weight once, where it lies; of more, a part of the weights is unpacked for all of them.
const FEW: usize = 4;
/// Steps of k that are taken at a time: a block of quantised numbers.
const DEPTH: usize = 256;
/// Rows whose parts of as many steps, and whose sums, fit the second-level cache.
const MANY: usize = 128;
/// Columns whose unpacked weights of so many steps fit the first-level cache.
const STRIP: usize = 16;

/// Columns `begin..end` of the result.
#[inline(always)]
unsafe fn chunk<L: Lanes, W: Source>(x: F32, w: W, y: Out, (m, n, k): Sizes, begin: usize, end: usize) {
    if m <= FEW {
        return straight::<L, W>(x, w, y, (m, n, k), begin, end);
    }
    for i in (0..m).step_by(MANY) {
        strips::<L, W>(F32(x.0.add(i * k)), w, y.from(i * n), ((m - i).min(MANY), n, k), begin, end);
    }
}

#[inline(always)]
unsafe fn straight<L: Lanes, W: Source>(x: F32, w: W, y: Out, (m, n, k): Sizes, begin: usize, end: usize) {
    for j in (begin..end).step_by(L::COLUMNS) {
        let mut i = 0;
        while i < m {
            let rows = if m - i >= 2 { 2 } else { 1 };
            match (end - j >= L::COLUMNS, rows, L::COLUMNS) {
                (true, 2, 2) => tile::<L, W, 2, 2>(x, w, i * k, j * k, y.at(i * n + j), n, k),
                (true, 1, 2) => tile::<L, W, 1, 2>(x, w, i * k, j * k, y.at(i * n + j), n, k),
                (true, 2, _) => tile::<L, W, 2, 4>(x, w, i * k, j * k, y.at(i * n + j), n, k),
                (true, ..) => tile::<L, W, 1, 4>(x, w, i * k, j * k, y.at(i * n + j), n, k),
                (false, ..) => {
                    for j in j..end {
                        for i in i..i + rows {
                            tile::<L, W, 1, 1>(x, w, i * k, j * k, y.at(i * n + j), n, k);
                        }
                    }
                }
            }
            i += rows;
        }
    }
}

/// R rows of x against C rows of w, from the numbers `x_at` and `w_at` on; `y` is the first of the result, whose rows are n long.
#[inline(always)]
unsafe fn tile<L: Lanes, W: Source, const R: usize, const C: usize>(
    x: F32,
    w: W,
    x_at: usize,
    w_at: usize,
    y: *mut f32,
    n: usize,
    k: usize,
) {
    let mut sums = [[L::zero(); C]; R];
    for at in (0..k).step_by(DEPTH) {
        // No closures: they would not have the processor's vectors.
        let mut blocks = Blocks::<W, R, C> { x: [x.block::<L>(x_at + at); R], w: [w.block::<L>(w_at + at); C] };
        for r in 1..R {
            blocks.x[r] = x.block::<L>(x_at + r * k + at);
        }
        // Of the rows that come next.
        let mut ahead = [w.address(w_at + C * k + at); C];
        for c in 1..C {
            blocks.w[c] = w.block::<L>(w_at + c * k + at);
            ahead[c] = w.address(w_at + (C + c) * k + at);
        }
        let width = (k - at).min(DEPTH);
        for from in (0..width).step_by(64) {
            for c in 0..C {
                L::prefetch(ahead[c].wrapping_add(from / 32 * W::BYTES).cast());
                L::prefetch(ahead[c].wrapping_add((from / 32 + 1) * W::BYTES).cast());
            }
            blocks.step::<L>(from, width, &mut sums);
        }
    }
    for (r, sums) in sums.into_iter().enumerate() {
        for (c, sum) in sums.into_iter().enumerate() {
            *y.add(r * n + c) = sum.sum();
        }
    }
}

#[repr(align(64))]
struct Strip([f32; STRIP * DEPTH]);

#[inline(always)]
unsafe fn strips<L: Lanes, W: Source>(x: F32, w: W, y: Out, (m, n, k): Sizes, begin: usize, end: usize) {
    let mut plain = Strip([0.0; STRIP * DEPTH]);
    let mut sums = vec![[L::zero(); STRIP]; m];
    for first in (begin..end).step_by(STRIP) {
        let columns = (end - first).min(STRIP);
        sums.fill([L::zero(); STRIP]);
        for at in (0..k).step_by(DEPTH) {
            let width = (k - at).min(DEPTH);
            // The sums of columns that are not there go nowhere, but what they are made of must be.
            let lie = if columns == STRIP { w.plain(first * k + at) } else { None };
            let (weights, apart) = match lie {
                Some(weights) => (weights, k),
                None => {
                    for (c, to) in plain.0.chunks_mut(DEPTH).enumerate().take(columns) {
                        unpack::<L, W>(w, (first + c) * k + at, &mut to[..width.next_multiple_of(32)], width);
                    }
                    (plain.0.as_ptr(), DEPTH)
                }
            };
            let mut i = 0;
            while i < m {
                let rows = match m - i {
                    4.. if L::COLUMNS == 4 => 4,
                    2.. => 2,
                    _ => 1,
                };
                for c in (0..columns).step_by(4) {
                    let (x, w) = ((x.0.add(i * k + at), k), (weights.add(c * apart), apart));
                    if i == 0 && lie.is_some() {
                        // As `unpack` does.
                        for c in 0..4 {
                            for line in 0..DEPTH / 16 {
                                L::prefetch(w.0.wrapping_add(c * apart + DEPTH + 16 * line));
                            }
                        }
                    }
                    match (rows, L::COLUMNS) {
                        (4, _) => add::<L, 4, 4>(x, w, width, &mut sums[i..], c),
                        (2, 4) => add::<L, 2, 4>(x, w, width, &mut sums[i..], c),
                        (2, _) => {
                            add::<L, 2, 2>(x, w, width, &mut sums[i..], c);
                            add::<L, 2, 2>(x, (w.0.add(2 * apart), apart), width, &mut sums[i..], c + 2);
                        }
                        _ => add::<L, 1, 4>(x, w, width, &mut sums[i..], c),
                    }
                }
                i += rows;
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            for (c, sum) in sums.iter().enumerate().take(columns) {
                *y.at(i * n + first + c) = sum.sum();
            }
        }
    }
}

/// `width` numbers of w from `at` on, and zeros behind them.
#[inline(always)]
unsafe fn unpack<L: Lanes, W: Source>(w: W, at: usize, plain: &mut [f32], width: usize) {
    let block = w.block::<L>(at);
    // Of the same row, but wanted only when all others have been here: too far for the processor to foresee.
    let ahead = w.address(at + DEPTH);
    for (part, to) in plain.chunks_exact_mut(32).enumerate() {
        let [a, b]: [L; 2] = W::read(&block, part * 32, (width - part * 32).min(32));
        a.store(to.as_mut_ptr());
        b.store(to.as_mut_ptr().add(16));
        L::prefetch(ahead.wrapping_add(part * W::BYTES).cast());
        if W::BYTES > 64 {
            L::prefetch(ahead.wrapping_add(part * W::BYTES + 64).cast());
        }
    }
}

/// Adds to the sums of R rows and the C columns from `c` on what `width` steps give; `w` has the first column's weights. Columns,
/// and x's rows, are so far from each other.
#[inline(always)]
unsafe fn add<L: Lanes, const R: usize, const C: usize>(
    (x, pitch): (*const f32, usize),
    (w, apart): (*const f32, usize),
    width: usize,
    sums: &mut [[L; STRIP]],
    c: usize,
) {
    let mut blocks = Blocks::<F32, R, C> { x: [x; R], w: [w; C] };
    for i in 1..C {
        blocks.w[i] = w.add(i * apart);
    }
    let mut own = [[L::zero(); C]; R];
    for r in 0..R {
        blocks.x[r] = x.add(r * pitch);
        own[r].copy_from_slice(&sums[r][c..c + C]);
    }
    for from in (0..width).step_by(64) {
        blocks.step::<L>(from, width, &mut own);
    }
    for r in 0..R {
        sums[r][c..c + C].copy_from_slice(&own[r]);
    }
}

/// Some rows of x and w: up to 256 steps of them.
struct Blocks<W: Source, const R: usize, const C: usize> {
    x: [*const f32; R],
    w: [W::Block; C],
}

impl<W: Source, const R: usize, const C: usize> Blocks<W, R, C> {
    /// Adds the products of 64 steps, or of what is left of `width`.
    #[inline(always)]
    unsafe fn step<L: Lanes>(&self, from: usize, width: usize, sums: &mut [[L; C]; R]) {
        // That it is a multiple of 64 tells the halves of a byte apart when this is compiled.
        let from = from / 64 * 64;
        if from + 64 <= width {
            self.half_step(from, 32, sums);
            self.half_step(from + 32, 32, sums);
            return;
        }
        self.half_step(from, (width - from).min(32), sums);
        if from + 32 < width {
            self.half_step(from + 32, width - from - 32, sums);
        }
    }

    #[inline(always)]
    unsafe fn half_step<L: Lanes>(&self, from: usize, count: usize, sums: &mut [[L; C]; R]) {
        if C <= 2 {
            // There is no room for the weights of more than one column, and what is multiplied is read from the cache each time.
            for c in 0..C {
                let [u, v]: [L; 2] = W::read(&self.w[c], from, count);
                for r in 0..R {
                    let [a, b]: [L; 2] = F32::read(&self.x[r], from, count);
                    sums[r][c] = b.fma(v, a.fma(u, sums[r][c]));
                }
            }
            return;
        }
        let mut weights = [[L::zero(); 2]; C];
        for c in 0..C {
            weights[c] = W::read(&self.w[c], from, count);
        }
        for r in 0..R {
            let [a, b]: [L; 2] = F32::read(&self.x[r], from, count);
            for c in 0..C {
                sums[r][c] = b.fma(weights[c][1], a.fma(weights[c][0], sums[r][c]));
            }
        }
    }
}
