//! Products whose factors are bf16: two steps of k in one instruction (`vdpbf16ps` of AVX512-BF16), sums in f32.
//!
//! The left operand is rounded to bf16, as PyTorch rounds it under autocast; the right one is bf16 already. Large products follow the
//! scheme of [`gemm`](super::gemm), whose panels and strips hold pairs of bf16 here, those of a few rows that of [`rows`](super::rows).

use super::gemm::{Job, DEPTH, WIDEST};
use super::lanes::{Avx512, Lanes};
use super::Out;
use std::arch::x86_64::*;
use std::mem::MaybeUninit;

/// Rows of the left operand in a strip, and columns of a panel in vectors. One row less than for f32: the compiler would put a sum of
/// fourteen into memory.
const ROWS: usize = 13;
const VECTORS: usize = 2;
/// Rows and columns of the tile of the result that stays in registers.
pub const TILE: (usize, usize) = (ROWS, 16 * VECTORS);

/// Room for pairs of a panel's steps and columns.
#[repr(align(64))]
pub struct Panel([MaybeUninit<f32>; DEPTH * WIDEST]);

impl Panel {
    #[inline(always)]
    pub fn new() -> Self {
        Panel([MaybeUninit::uninit(); DEPTH * WIDEST])
    }

    #[inline(always)]
    pub fn room(&mut self) -> *mut f32 {
        self.0.as_mut_ptr().cast()
    }

    /// The panel of `b` that the job wants, packed: pair after pair, `WIDEST` columns each.
    ///
    /// # Safety
    /// The processor has AVX-512, and `job` was made by `gemm` for this operand.
    #[inline(always)]
    pub unsafe fn packed(&mut self, b: *const u16, job: Job) -> *mut f32 {
        let panel = self.room();
        match job.transposed {
            true => pack_turned(b, job, panel),
            false => pack_straight(b, job, panel),
        }
        panel
    }
}

/// The first `n` numbers from `from` on rounded to bf16, 32 at most, and zeros behind them.
///
/// # Safety
/// The processor has AVX512-BF16, and the numbers are there.
#[inline(always)]
pub unsafe fn round_32(from: *const f32, n: usize) -> __m512i {
    let low = _mm512_maskz_loadu_ps(first_of_16(n), from);
    let high = _mm512_maskz_loadu_ps(first_of_16(n.saturating_sub(16)), from.wrapping_add(16));
    std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low))
}

/// Copies up to `ROWS` rows of the left operand, `pitch` numbers apart, pair by pair. Of an odd depth the last pair ends with 0. What
/// stands in place of rows behind the last has no meaning.
///
/// # Safety
/// The processor has AVX512-BF16; `rows` rows of `depth` numbers are there at `a`, and room for their pairs in strips of `ROWS` at `to`.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16,avx2,fma,f16c")]
pub unsafe fn pack_left(a: *const f32, pitch: usize, to: *mut f32, rows: usize, depth: usize) {
    for p in (0..depth).step_by(32) {
        let steps = (depth - p).min(32);
        let mut pairs = [Avx512::zero(); 16];
        for i in 0..ROWS {
            // The bits of 32 bf16 in the lanes of a vector of f32.
            pairs[i] = Avx512(_mm512_castsi512_ps(round_32(a.add(i.min(rows - 1) * pitch + p), steps)));
        }
        Avx512::transpose(&mut pairs);
        for (i, pair) in pairs.iter().enumerate().take(steps.div_ceil(2)) {
            pair.store_part(to.add((p / 2 + i) * ROWS), ROWS);
        }
    }
}

/// One panel of columns of the right operand `b` against some strips of rows.
///
/// # Safety
/// The processor has AVX512-BF16, and `job` was made by `gemm` for this operand.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16,avx2,fma,f16c")]
pub unsafe fn block(b: *const u16, job: Job) {
    let mut panel = Panel::new();
    let panel = panel.packed(b, job);
    for strip in job.span.0..job.span.1 {
        let first = strip * ROWS;
        let left = job.left.add(first * job.depth.div_ceil(2));
        let c = job.c.at(first * job.stride + job.first);
        tile(left, panel, c, job, ROWS.min(job.m - first));
    }
}

#[inline(always)]
fn first_of_16(n: usize) -> u16 {
    if n >= 16 {
        !0
    } else {
        (1 << n) - 1
    }
}

#[inline(always)]
fn first_of_32(n: usize) -> u32 {
    if n >= 32 {
        !0
    } else {
        (1 << n) - 1
    }
}

/// Rows of b are steps of k: two of them are interleaved.
#[inline(always)]
unsafe fn pack_straight(b: *const u16, job: Job, panel: *mut f32) {
    let columns = first_of_32(job.columns);
    let mut order = [0u16; 64];
    for (i, place) in order.iter_mut().enumerate() {
        // Number i / 2 of the first row, then of the second.
        *place = (i / 2 + 32 * (i % 2)) as u16;
    }
    let order = [order.as_ptr(), order.as_ptr().add(32)].map(|part| _mm512_loadu_si512(part.cast()));
    for p in (0..job.depth).step_by(2) {
        let row = b.add((job.from + p) * job.pitch + job.first);
        let even = _mm512_maskz_loadu_epi16(columns, row.cast());
        let odd = match p + 1 < job.depth {
            true => _mm512_maskz_loadu_epi16(columns, row.add(job.pitch).cast()),
            false => _mm512_setzero_si512(),
        };
        let to = panel.add(p / 2 * 16 * VECTORS);
        for v in 0..VECTORS {
            let pairs = _mm512_permutex2var_epi16(even, order[v], odd);
            _mm512_storeu_si512(to.add(16 * v).cast(), pairs);
        }
    }
}

/// Rows of b are columns of the product: their pairs lie as they are wanted.
#[inline(always)]
unsafe fn pack_turned(b: *const u16, job: Job, panel: *mut f32) {
    for p in (0..job.depth).step_by(32) {
        let steps = (job.depth - p).min(32);
        for v in 0..VECTORS {
            let mut pairs = [Avx512::zero(); 16];
            for i in 0..16 {
                let column = 16 * v + i;
                if column < job.columns {
                    let row = b.add((job.first + column) * job.pitch + job.from + p);
                    pairs[i] = Avx512(_mm512_castsi512_ps(_mm512_maskz_loadu_epi16(first_of_32(steps), row.cast())));
                }
            }
            Avx512::transpose(&mut pairs);
            for (i, pair) in pairs.iter().enumerate().take(steps.div_ceil(2)) {
                pair.store(panel.add((p / 2 + i) * 16 * VECTORS + 16 * v));
            }
        }
    }
}

#[inline(always)]
unsafe fn tile(mut a: *const f32, mut b: *const f32, c: *mut f32, job: Job, rows: usize) {
    for i in 0..ROWS {
        for j in 0..VECTORS {
            Avx512::prefetch(c.wrapping_add(i * job.stride + 16 * j));
        }
    }
    let mut sums = [[_mm512_setzero_ps(); VECTORS]; ROWS];
    for _ in 0..job.depth.div_ceil(2) {
        // Panel and strip together do not fit the first-level cache.
        Avx512::prefetch(a.wrapping_add(8 * ROWS));
        let mut right = [_mm512_setzero_ps(); VECTORS];
        for j in 0..VECTORS {
            Avx512::prefetch(b.wrapping_add(16 * (8 * VECTORS + j)));
            right[j] = _mm512_loadu_ps(b.add(16 * j));
        }
        for i in 0..ROWS {
            let left = _mm512_set1_ps(*a.add(i));
            for j in 0..VECTORS {
                let pairs = |x: __m512| std::mem::transmute::<__m512, __m512bh>(x);
                sums[i][j] = _mm512_dpbf16_ps(sums[i][j], pairs(left), pairs(right[j]));
            }
        }
        a = a.add(ROWS);
        b = b.add(16 * VECTORS);
    }
    for i in 0..rows {
        for j in 0..VECTORS {
            if 16 * j < job.columns {
                job.put(c, i, 16 * j, Avx512(sums[i][j]));
            }
        }
    }
}

/// Rows [m, k] rounded to bf16, each with zeros up to `k.next_multiple_of(32)`.
///
/// # Safety
/// The processor has AVX512-BF16, and `x` has m k numbers.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16,avx2,fma,f16c")]
pub unsafe fn round_rows(x: &[f32], k: usize) -> Vec<u16> {
    let width = k.next_multiple_of(32);
    let mut rounded = vec![0u16; x.len() / k * width];
    for (row, to) in x.chunks_exact(k).zip(rounded.chunks_exact_mut(width)) {
        for p in (0..k).step_by(32) {
            _mm512_storeu_si512(to.as_mut_ptr().add(p).cast(), round_32(row.as_ptr().add(p), k - p));
        }
    }
    rounded
}

/// Columns `begin..end` of `y = x w^T` for x [m, k] as [`round_rows`] leaves it, w [n, k] and y [m, n]. Each number is summed in sixteen
/// lanes over k and then across them, whatever the other rows are.
///
/// # Safety
/// The processor has AVX512-BF16, the operands have these sizes, and nobody else writes those columns of y.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16,avx2,fma,f16c")]
pub unsafe fn chunk(x: &[u16], w: *const u16, y: Out, (m, n, k): (usize, usize, usize), begin: usize, end: usize) {
    let x = x.as_ptr();
    let width = k.next_multiple_of(32);
    for j in (begin..end).step_by(4) {
        let mut i = 0;
        while i < m {
            let (x, w, y) = (x.add(i * width), w.add(j * k), y.at(i * n + j));
            i += match (end - j >= 4, m - i) {
                (true, 4..) => dots::<4, 4>(x, w, y, n, k),
                (true, 2..) => dots::<2, 4>(x, w, y, n, k),
                (true, _) => dots::<1, 4>(x, w, y, n, k),
                (false, _) => {
                    for c in 0..end - j {
                        dots::<1, 1>(x, w.add(c * k), y.add(c), n, k);
                    }
                    1
                }
            }
        }
    }
}

/// R rows of x against C of w; returns R. `y` is the first of the result, whose rows are n long.
#[inline(always)]
unsafe fn dots<const R: usize, const C: usize>(x: *const u16, w: *const u16, y: *mut f32, n: usize, k: usize) -> usize {
    let width = k.next_multiple_of(32);
    let mut sums = [[_mm512_setzero_ps(); C]; R];
    for p in (0..k).step_by(32) {
        let there = first_of_32(k - p);
        let mut weights = [_mm512_setzero_si512(); C];
        for c in 0..C {
            let at = w.add(c * k + p);
            // Of the rows that come next.
            Avx512::prefetch(at.wrapping_add(C * k).cast());
            weights[c] = _mm512_maskz_loadu_epi16(there, at.cast());
        }
        for r in 0..R {
            let left = _mm512_loadu_si512(x.add(r * width + p).cast());
            for c in 0..C {
                let pairs = |x: __m512i| std::mem::transmute::<__m512i, __m512bh>(x);
                sums[r][c] = _mm512_dpbf16_ps(sums[r][c], pairs(left), pairs(weights[c]));
            }
        }
    }
    for (r, sums) in sums.into_iter().enumerate() {
        for (c, sum) in sums.into_iter().enumerate() {
            *y.add(r * n + c) = Avx512(sum).sum();
        }
    }
    R
}
