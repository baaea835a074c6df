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

    /// The numbers from `at` on.
    ///
    /// # Panics
    /// If there are not so many, or they lie inside a block.
    pub fn from(&self, at: usize) -> Self {
        assert!(at.is_multiple_of(self.group()), "a matrix begins with a block");
        match self {
            Matrix::F32(s) => Matrix::F32(&s[at..]),
            Matrix::Bf16(s) => Matrix::Bf16(&s[at..]),
            Matrix::Q8_0(s) => Matrix::Q8_0(&s[at / 32 * Q8_0_BYTES..]),
            Matrix::Q4K(s) => Matrix::Q4K(&s[at / 256 * Q4K_BYTES..]),
        }
    }

    /// Rows must consist of whole groups of this many numbers.
    pub fn group(&self) -> usize {
        match self {
            Matrix::F32(_) => F32::GROUP,
            Matrix::Bf16(_) => Bf16::GROUP,
            Matrix::Q8_0(_) => Q8_0::GROUP,
            Matrix::Q4K(_) => Q4K::GROUP,
        }
    }
}

/// How the numbers of a matrix are read into lanes: 32 at a time, of blocks of up to 256.
///
/// # Safety
/// What is read must lie within the matrix. Blocks begin at multiples of `GROUP`, and of quantised ones whole 32s are read.
pub(super) trait Source: Copy + Send + Sync {
    /// Numbers that are packed together; 1 if they are not.
    const GROUP: usize;
    /// Bytes of 32 numbers.
    const BYTES: usize;
    /// Where a block lies, and what its numbers have in common.
    type Block: Copy;
    /// Where number `at` lies, or its block. It need not be there.
    fn address(self, at: usize) -> *const u8;
    /// The same of numbers that are f32 as they lie.
    fn plain(self, _at: usize) -> Option<*const f32> {
        None
    }
    /// The block that begins with number `at`.
    unsafe fn block<L: Lanes>(self, at: usize) -> Self::Block;
    /// Numbers `from` to `from + n` of a block, n up to 32; those behind are 0. `from` is a multiple of 32.
    unsafe fn read<L: Lanes>(block: &Self::Block, from: usize, n: usize) -> [L; 2];
    /// The same by their place in the matrix.
    #[inline(always)]
    unsafe fn read_at<L: Lanes>(self, at: usize, n: usize) -> [L; 2] {
        Self::read(&self.block::<L>(at - at % Self::GROUP), at % Self::GROUP, n)
    }
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
    const GROUP: usize = 1;
    const BYTES: usize = 128;
    type Block = *const f32;

    #[inline(always)]
    fn address(self, at: usize) -> *const u8 {
        self.0.wrapping_add(at).cast()
    }
    #[inline(always)]
    fn plain(self, at: usize) -> Option<*const f32> {
        Some(self.0.wrapping_add(at))
    }
    #[inline(always)]
    unsafe fn block<L: Lanes>(self, at: usize) -> *const f32 {
        self.0.add(at)
    }
    #[inline(always)]
    unsafe fn read<L: Lanes>(block: &*const f32, from: usize, n: usize) -> [L; 2] {
        let from = block.add(from);
        match n {
            32.. => [L::load(from), L::load(from.add(16))],
            16.. => [L::load(from), L::load_part(from.add(16), n - 16)],
            _ => [L::load_part(from, n), L::zero()],
        }
    }
}

impl Source for Bf16 {
    const GROUP: usize = 1;
    const BYTES: usize = 64;
    type Block = *const u16;

    #[inline(always)]
    fn address(self, at: usize) -> *const u8 {
        self.0.wrapping_add(at).cast()
    }
    #[inline(always)]
    unsafe fn block<L: Lanes>(self, at: usize) -> *const u16 {
        self.0.add(at)
    }
    #[inline(always)]
    unsafe fn read<L: Lanes>(block: &*const u16, from: usize, n: usize) -> [L; 2] {
        let from = block.add(from);
        match n {
            32.. => [L::load_bf16(from), L::load_bf16(from.add(16))],
            16.. => [L::load_bf16(from), L::load_bf16_part(from.add(16), n - 16)],
            _ => [L::load_bf16_part(from, n), L::zero()],
        }
    }
}

impl Source for Q8_0 {
    const GROUP: usize = 32;
    const BYTES: usize = Q8_0_BYTES;
    type Block = *const u8;

    #[inline(always)]
    fn address(self, at: usize) -> *const u8 {
        self.0.wrapping_add(at / 32 * Q8_0_BYTES)
    }
    #[inline(always)]
    unsafe fn block<L: Lanes>(self, at: usize) -> *const u8 {
        self.0.add(at / 32 * Q8_0_BYTES)
    }
    #[inline(always)]
    unsafe fn read<L: Lanes>(block: &*const u8, from: usize, _: usize) -> [L; 2] {
        let group = block.add(from / 32 * Q8_0_BYTES);
        let scale = L::splat_half(group.cast::<u16>().read_unaligned());
        let numbers = group.add(2).cast::<i8>();
        [L::load_i8(numbers).mul(scale), L::load_i8(numbers.add(16)).mul(scale)]
    }
}

/// A q4_k block: its nibbles; what those of each of its eight parts are multiplied with, and what is then added.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Q4KBlock {
    scales: [f32; 16],
    nibbles: *const u8,
}

impl Source for Q4K {
    const GROUP: usize = 256;
    const BYTES: usize = Q4K_BYTES / 8;
    type Block = Q4KBlock;

    #[inline(always)]
    fn address(self, at: usize) -> *const u8 {
        self.0.wrapping_add(at / 256 * Q4K_BYTES)
    }
    #[inline(always)]
    unsafe fn block<L: Lanes>(self, at: usize) -> Q4KBlock {
        let block = self.0.add(at / 256 * Q4K_BYTES);
        // Six bits each of scale and minimum, four bytes at a time: the first four parts have theirs in one byte, the others in two.
        let [s, m, both] = block.add(4).cast::<[u32; 3]>().read_unaligned();
        let later = |low: u32, high: u32| (low & 0x0f0f_0f0f) | ((high >> 6 & 0x0303_0303) << 4);
        let six = [s & 0x3f3f_3f3f, later(both, s), m & 0x3f3f_3f3f, later(both >> 4, m)];
        let halves = block.cast::<[u16; 2]>().read_unaligned();
        let mut factors = [L::half(halves[0]); 16];
        factors[8..].fill(-L::half(halves[1]));
        let mut of = Q4KBlock { scales: [0.0; 16], nibbles: block.add(16) };
        L::load_i8(six.as_ptr().cast()).mul(L::load(factors.as_ptr())).store(of.scales.as_mut_ptr());
        of
    }
    #[inline(always)]
    unsafe fn read<L: Lanes>(block: &Q4KBlock, from: usize, _: usize) -> [L; 2] {
        let part = from / 32;
        let (scale, minimum, upper) = (block.scales[part], block.scales[8 + part], part % 2 == 1);
        let nibbles = block.nibbles.add(part / 2 * 32);
        [L::load_nibbles(nibbles, upper, scale, minimum), L::load_nibbles(nibbles.add(16), upper, scale, minimum)]
    }
}
