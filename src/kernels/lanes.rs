//! Sixteen f32 lanes on whatever vectors the processor has.
//!
//! A kernel is written once, over [`Lanes`], and [`vectorised!`](super::vectorised) makes three machine versions of it.
//! All of them add in the same order and with the same fused multiplications, except [`Portable`], which rounds each
//! product.

use half::bf16;

/// One vector of sixteen numbers.
///
/// # Safety
/// Methods may be called only where the processor has the instructions, which [`vectorised!`](super::vectorised) sees to,
/// and pointers must be good for what is read or written through them; no alignment is needed.
#[allow(clippy::missing_safety_doc)]
pub trait Lanes: Copy {
    /// Rows of the tile of a matrix product that fits the registers, and its columns in vectors; see `gemm`.
    const TILE: (usize, usize);
    /// Columns that two rows are multiplied with at a time, 4 or 2, so that their sums stay in registers; see `rows`.
    const COLUMNS: usize = 4;

    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// Sixteen bf16.
    unsafe fn load_bf16(from: *const u16) -> Self;
    /// Sixteen whole numbers -128 to 127.
    unsafe fn load_i8(from: *const i8) -> Self;
    /// The lower or upper halves of sixteen bytes, 0 to 15, each times `scale` and plus `minimum`.
    unsafe fn load_nibbles(from: *const u8, upper: bool, scale: f32, minimum: f32) -> Self;
    /// `self * by + plus`
    unsafe fn fma(self, by: Self, plus: Self) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    unsafe fn div(self, other: Self) -> Self;
    unsafe fn max(self, other: Self) -> Self;
    unsafe fn min(self, other: Self) -> Self;
    /// To the nearest whole number, even at ties.
    unsafe fn round(self) -> Self;
    /// To the next whole number below.
    unsafe fn floor(self) -> Self;
    /// 2 to the power of whole numbers from -126 to 127.
    unsafe fn power_of_two(self) -> Self;
    /// 8 + 8 lanes, then 4 + 4, 2 + 2, 1 + 1.
    unsafe fn sum(self) -> f32;
    unsafe fn largest(self) -> f32;
    /// A half-precision number.
    unsafe fn half(bits: u16) -> f32;
    /// The same in all lanes.
    #[inline(always)]
    unsafe fn splat_half(bits: u16) -> Self {
        Self::splat(Self::half(bits))
    }
    /// Rows become columns.
    unsafe fn transpose(rows: &mut [Self; 16]);
    /// Tells the processor that an address, which need not be valid, will be wanted.
    #[inline(always)]
    unsafe fn prefetch(_: *const f32) {}

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self::splat(0.0)
    }

    /// The first `n` lanes, the others 0.
    #[inline(always)]
    unsafe fn load_part(from: *const f32, n: usize) -> Self {
        if n >= 16 {
            return Self::load(from);
        }
        let mut whole = [0f32; 16];
        std::ptr::copy_nonoverlapping(from, whole.as_mut_ptr(), n);
        Self::load(whole.as_ptr())
    }

    /// The first `n` of sixteen bf16, the other lanes 0.
    #[inline(always)]
    unsafe fn load_bf16_part(from: *const u16, n: usize) -> Self {
        if n >= 16 {
            return Self::load_bf16(from);
        }
        let mut whole = [0u16; 16];
        std::ptr::copy_nonoverlapping(from, whole.as_mut_ptr(), n);
        Self::load_bf16(whole.as_ptr())
    }

    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, n: usize) {
        if n >= 16 {
            return self.store(to);
        }
        let mut whole = [0f32; 16];
        self.store(whole.as_mut_ptr());
        std::ptr::copy_nonoverlapping(whole.as_ptr(), to, n);
    }

    /// The first `n` lanes as the nearest bf16, of two equally near ones the even one.
    #[inline(always)]
    unsafe fn store_bf16_part(self, to: *mut u16, n: usize) {
        let mut whole = [0f32; 16];
        self.store(whole.as_mut_ptr());
        // The compiler finds the vectors itself.
        let mut bits = [0u16; 16];
        for (bits, x) in bits.iter_mut().zip(whole) {
            *bits = bf16::from_f32(x).to_bits();
        }
        std::ptr::copy_nonoverlapping(bits.as_ptr(), to, n.min(16));
    }

    /// e to the power of each lane, to 2 units in the last place; 0 below -87, large numbers are cut at e^88.
    #[inline(always)]
    unsafe fn exp(self) -> Self {
        let x = self.max(Self::splat(-87.3)).min(Self::splat(88.0));
        let n = x.mul(Self::splat(std::f32::consts::LOG2_E)).round();
        // ln 2 in two parts, so that the product with n is exact.
        let r = n.fma(Self::splat(-0.693_359_4), x);
        let r = n.fma(Self::splat(2.121_944_4e-4), r);
        let mut p = Self::splat(1.987_569_1e-4);
        for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
            p = p.fma(r, Self::splat(c));
        }
        let e = p.fma(r.mul(r), r.add(Self::splat(1.0))).mul(n.power_of_two());
        // Below the cut the result is 0 and not the smallest number, so that masked scores have no share.
        e.keep_above(self, -87.3)
    }

    /// These lanes where `of` is above `limit`, else 0.
    unsafe fn keep_above(self, of: Self, limit: f32) -> Self;
    /// These lanes where `of` is above `limit`, else those of `other`.
    unsafe fn pick(self, other: Self, of: Self, limit: f32) -> Self;
}

/// For processors without AVX2, and what the others are compared with.
#[derive(Clone, Copy)]
pub struct Portable([f32; 16]);

impl Portable {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        let mut out = self.0;
        for (a, b) in out.iter_mut().zip(other.0) {
            *a = f(*a, b);
        }
        Portable(out)
    }

    #[inline(always)]
    fn each(self, f: impl Fn(f32) -> f32) -> Self {
        Portable(self.0.map(f))
    }
}

impl Lanes for Portable {
    const TILE: (usize, usize) = (4, 1);

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Portable([value; 16])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Portable(from.cast::<[f32; 16]>().read_unaligned())
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        to.cast::<[f32; 16]>().write_unaligned(self.0)
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self {
        Portable(from.cast::<[u16; 16]>().read_unaligned().map(|b| f32::from_bits(u32::from(b) << 16)))
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Self {
        Portable(from.cast::<[i8; 16]>().read_unaligned().map(f32::from))
    }
    #[inline(always)]
    unsafe fn load_nibbles(from: *const u8, upper: bool, scale: f32, minimum: f32) -> Self {
        let shift = if upper { 4 } else { 0 };
        Portable(from.cast::<[u8; 16]>().read_unaligned().map(|b| f32::from((b >> shift) & 15) * scale + minimum))
    }
    #[inline(always)]
    unsafe fn fma(self, by: Self, plus: Self) -> Self {
        self.mul(by).add(plus)
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        self.each(f32::round_ties_even)
    }
    #[inline(always)]
    unsafe fn floor(self) -> Self {
        self.each(f32::floor)
    }
    #[inline(always)]
    unsafe fn power_of_two(self) -> Self {
        self.each(|n| f32::from_bits(((n as i32 + 127) as u32) << 23))
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let mut s = self.0;
        for width in [8, 4, 2, 1] {
            for i in 0..width {
                s[i] += s[i + width];
            }
        }
        s[0]
    }
    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        self.0.into_iter().fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a })
    }
    #[inline(always)]
    unsafe fn half(bits: u16) -> f32 {
        half::f16::from_bits(bits).to_f32()
    }
    #[inline(always)]
    unsafe fn transpose(rows: &mut [Self; 16]) {
        let old = *rows;
        for (i, row) in rows.iter_mut().enumerate() {
            for (j, old) in old.iter().enumerate() {
                row.0[j] = old.0[i];
            }
        }
    }
    #[inline(always)]
    unsafe fn keep_above(self, of: Self, limit: f32) -> Self {
        self.pick(Self::zero(), of, limit)
    }
    #[inline(always)]
    unsafe fn pick(self, other: Self, of: Self, limit: f32) -> Self {
        let mut out = other.0;
        for (i, out) in out.iter_mut().enumerate() {
            *out = if of.0[i] > limit { self.0[i] } else { *out };
        }
        Portable(out)
    }
}

#[cfg(target_arch = "x86_64")]
mod x86;
#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512};
