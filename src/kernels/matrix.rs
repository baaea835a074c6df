//! Weights as they lie in memory.

use super::lanes::Lanes;
use half::bf16;

/// A row-major matrix, read where it lies. Rows of quantised matrices are whole blocks.
#[derive(Clone, Copy)]
pub enum Matrix<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
    /// Blocks of 32: a half-precision scale, then 32 signed bytes.
    Q8_0(&'a [u8]),
    /// Blocks of 256: two half-precision scales, 12 bytes of 6-bit scales and minima for each 32, 128 bytes of nibbles.
    Q4K(&'a [u8]),
}

/// Bytes of a q8_0 block of 32 and of a q4_k block of 256.
pub const Q8_0_BYTES: usize = 34;
pub const Q4K_BYTES: usize = 144;

impl Matrix<'_> {
    /// Numbers in it.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        match self {
            Matrix::F32(s) => s.len(),
            Matrix::Bf16(s) => s.len(),
            Matrix::Q8_0(s) => s.len() / Q8_0_BYTES * 32,
            Matrix::Q4K(s) => s.len() / Q4K_BYTES * 256,
        }
    }

    /// Rows must consist of whole groups of this many numbers.
    pub fn group(&self) -> usize {
        match self {
            Matrix::F32(_) | Matrix::Bf16(_) => 1,
            Matrix::Q8_0(_) => 32,
            Matrix::Q4K(_) => 256,
        }
    }
}

/// How the numbers of a matrix are read into lanes, 32 at a time.
///
/// # Safety
/// `at` + `n` must lie within the matrix; for the quantised ones, `at` is a multiple of 32 and `n` is 32.
pub(super) trait Source: Copy + Send + Sync {
    /// What the numbers of a block have in common, in the form in which `read` wants it.
    type Scales: Copy;
    /// Of the block of 256 in which `at` lies.
    unsafe fn scales<L: Lanes>(self, at: usize) -> Self::Scales;
    /// Numbers `at` to `at + n`, n up to 32; those behind are 0.
    unsafe fn read<L: Lanes>(self, scales: &Self::Scales, at: usize, n: usize) -> [L; 2];
    /// Tells the processor that these will be wanted; they need not be there.
    unsafe fn prefetch<L: Lanes>(self, at: usize);
}

#[derive(Clone, Copy)]
pub(super) struct F32(pub *const f32);
#[derive(Clone, Copy)]
pub(super) struct Bf16(pub *const u16);
#[derive(Clone, Copy)]
pub(super) struct Q8_0(pub *const u8);
#[derive(Clone, Copy)]
pub(super) struct Q4K(pub *const u8);

// SAFETY: addresses of memory that is only read, borrowed by the `Matrix` that they were made of for as long as a
// kernel runs.
unsafe impl Send for F32 {}
unsafe impl Sync for F32 {}
unsafe impl Send for Bf16 {}
unsafe impl Sync for Bf16 {}
unsafe impl Send for Q8_0 {}
unsafe impl Sync for Q8_0 {}
unsafe impl Send for Q4K {}
unsafe impl Sync for Q4K {}

impl Source for F32 {
    type Scales = ();

    #[inline(always)]
    unsafe fn scales<L: Lanes>(self, _: usize) {}
    #[inline(always)]
    unsafe fn prefetch<L: Lanes>(self, at: usize) {
        L::prefetch(self.0.wrapping_add(at))
    }
    #[inline(always)]
    unsafe fn read<L: Lanes>(self, _: &(), at: usize, n: usize) -> [L; 2] {
        let from = self.0.add(at);
        match n {
            32.. => [L::load(from), L::load(from.add(16))],
            16.. => [L::load(from), L::load_part(from.add(16), n - 16)],
            _ => [L::load_part(from, n), L::zero()],
        }
    }
}

impl Source for Bf16 {
    type Scales = ();

    #[inline(always)]
    unsafe fn scales<L: Lanes>(self, _: usize) {}
    #[inline(always)]
    unsafe fn prefetch<L: Lanes>(self, at: usize) {
        L::prefetch(self.0.wrapping_add(at).cast())
    }
    #[inline(always)]
    unsafe fn read<L: Lanes>(self, _: &(), at: usize, n: usize) -> [L; 2] {
        let from = self.0.add(at);
        if n >= 32 {
            return [L::load_bf16(from), L::load_bf16(from.add(16))];
        }
        let mut whole = [0u16; 32];
        std::ptr::copy_nonoverlapping(from, whole.as_mut_ptr(), n);
        [L::load_bf16(whole.as_ptr()), L::load_bf16(whole.as_ptr().add(16))]
    }
}

impl Source for Q8_0 {
    type Scales = ();

    #[inline(always)]
    unsafe fn scales<L: Lanes>(self, _: usize) {}
    #[inline(always)]
    unsafe fn prefetch<L: Lanes>(self, at: usize) {
        L::prefetch(self.0.wrapping_add(at / 32 * Q8_0_BYTES).cast())
    }
    #[inline(always)]
    unsafe fn read<L: Lanes>(self, _: &(), at: usize, _: usize) -> [L; 2] {
        let block = self.0.add(at / 32 * Q8_0_BYTES);
        let scale = L::splat(L::half(block.cast::<u16>().read_unaligned()));
        let numbers = block.add(2).cast::<i8>();
        [L::load_i8(numbers).mul(scale), L::load_i8(numbers.add(16)).mul(scale)]
    }
}

/// Of a q4_k block: what the nibbles of each of its eight parts are multiplied with, and what is then added.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Q4KScales([f32; 16]);

impl Source for Q4K {
    type Scales = Q4KScales;

    #[inline(always)]
    unsafe fn scales<L: Lanes>(self, at: usize) -> Q4KScales {
        let block = self.0.add(at / 256 * Q4K_BYTES);
        // Six bits each of scale and minimum, four bytes at a time: the first four parts have theirs in one byte, the others in two.
        let [s, m, both] = block.add(4).cast::<[u32; 3]>().read_unaligned();
        let later = |low: u32, high: u32| (low & 0x0f0f_0f0f) | ((high >> 6 & 0x0303_0303) << 4);
        let six = [s & 0x3f3f_3f3f, later(both, s), m & 0x3f3f_3f3f, later(both >> 4, m)];
        let halves = block.cast::<[u16; 2]>().read_unaligned();
        let mut factors = [L::half(halves[0]); 16];
        factors[8..].fill(-L::half(halves[1]));
        let mut scales = Q4KScales([0.0; 16]);
        L::load_i8(six.as_ptr().cast()).mul(L::load(factors.as_ptr())).store(scales.0.as_mut_ptr());
        scales
    }
    #[inline(always)]
    unsafe fn prefetch<L: Lanes>(self, at: usize) {
        L::prefetch(self.0.wrapping_add(at / 256 * Q4K_BYTES + at % 256 / 2).cast())
    }
    #[inline(always)]
    unsafe fn read<L: Lanes>(self, scales: &Q4KScales, at: usize, _: usize) -> [L; 2] {
        let part = at % 256 / 32;
        let (scale, minimum) = (L::splat(scales.0[part]), L::splat(scales.0[8 + part]));
        let nibbles = self.0.add(at / 256 * Q4K_BYTES + 16 + part / 2 * 32);
        let upper = part % 2 == 1;
        [
            L::load_nibbles(nibbles, upper).fma(scale, minimum),
            L::load_nibbles(nibbles.add(16), upper).fma(scale, minimum),
        ]
    }
}
