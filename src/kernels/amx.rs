//! Large products whose factors are bf16 on AMX: a tile of 16 rows and one of 16 columns, 32 steps of k each, in one instruction.
//!
//! Operands are rounded and packed as in [`halves`](super::halves), the left one row by row. Intrinsics of AMX are not stable in Rust,
//! inline assembly is. Where the processor has no tiles, tests run all this on emulated ones.

use super::gemm::{product, Job, Left, DEPTH, WIDEST};
use super::halves::{round_32, Panel};
use super::lanes::{Avx512, Lanes};
use super::matrix::Matrix;
use super::{Level, Out};
use half::bf16;
use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count, _mm512_storeu_si512, _xgetbv};
use std::mem::MaybeUninit;
use std::sync::OnceLock;

#[cfg(test)]
pub mod emulated;

/// Rows and columns of the result that stay in four of the eight tile registers.
pub const TILE: (usize, usize) = (32, WIDEST);
/// Pairs of k in a tile.
pub const PAIRS: usize = 16;

/// Whether to multiply by tiles in this process, which has AVX512-BF16: they are there, they multiply rightly, and nobody is against it.
pub fn usable() -> bool {
    static USABLE: OnceLock<bool> = OnceLock::new();
    *USABLE.get_or_init(|| {
        let wanted = std::env::var_os("SITTER_AMX").is_none_or(|on| on != "0");
        if !wanted || !allowed() {
            return false;
        }
        // SAFETY: tiles and AVX512-BF16 are there.
        let right = unsafe { multiply_rightly() };
        if !right {
            log::warn!("products by this processor's tiles (AMX) are wrong; they are not used. Please report this");
        }
        right
    })
}

/// Whether there is AMX with bf16 here, and the system lets this process use it.
pub fn allowed() -> bool {
    /// A request for a part of the processor's state that is large, and the number of that part: the data of tiles.
    const REQUEST: libc::c_long = 0x1023;
    const TILE_DATA: libc::c_long = 18;
    // SAFETY: the request changes nothing but the room that signals' frames have, and is refused where a thread's signal stack is too
    // small for it.
    present() && unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST, TILE_DATA) == 0 }
}

/// Whether the processor has tiles as large as these and multiplies bf16 in them, and the system knows of it.
fn present() -> bool {
    const OSXSAVE: u32 = 1 << 27;
    const BF16: u32 = 1 << 22;
    const TILES: u32 = 1 << 24;
    // SAFETY: the reads of the processor's description and, where it says so, of the state that the system saves are always allowed.
    unsafe {
        if __cpuid(0).eax < 0x1e || __cpuid(1).ecx & OSXSAVE == 0 {
            return false;
        }
        if __cpuid_count(7, 0).edx & (BF16 | TILES) != BF16 | TILES {
            return false;
        }
        // Bytes of a row and tiles; rows; the most rows of the right factor, and bytes of its row.
        let (tiles, products) = (__cpuid_count(0x1d, 1), __cpuid_count(0x1e, 0).ebx);
        let large = tiles.ebx & 0xffff >= 64 && tiles.ebx >> 16 >= 8 && tiles.ecx & 0xffff >= 16;
        large && products & 0xff >= 16 && products >> 8 & 0xffff >= 64 && saved()
    }
}

/// Whether the system saves tiles and their shapes when it changes threads.
#[target_feature(enable = "xsave")]
unsafe fn saved() -> bool {
    _xgetbv(0) >> 17 & 3 == 3
}

/// What `ldtilecfg` reads: all eight tiles have 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes: [u16; 16],
    rows: [u8; 16],
}

const SHAPES: Shapes = {
    let (mut bytes, mut rows) = ([0; 16], [0; 16]);
    let mut tile = 0;
    while tile < 8 {
        (bytes[tile], rows[tile]) = (64, 16);
        tile += 1;
    }
    Shapes { palette: 1, start_row: 0, reserved: [0; 14], bytes, rows }
};

/// Copies up to 32 rows of the left operand, `pitch` numbers apart: tiles of 16 rows by 32 steps, two below each other. Behind the last
/// step are zeros; what stands in place of rows behind the last has no meaning.
///
/// # Safety
/// The processor has AVX512-BF16; `rows` rows of `depth` numbers are there at `a`, and room for 32 rows of whole tiles at `to`.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16,avx2,fma,f16c")]
pub unsafe fn pack_left(a: *const f32, pitch: usize, to: *mut f32, rows: usize, depth: usize) {
    for p in (0..depth).step_by(2 * PAIRS) {
        for i in 0..rows {
            let pairs = round_32(a.add(i * pitch + p), depth - p);
            _mm512_storeu_si512(to.add((p / 2 / PAIRS * TILE.0 + i) * PAIRS).cast(), pairs);
        }
    }
}

/// The sums of a tile of the result, row by row.
#[repr(align(64))]
struct Sums([MaybeUninit<f32>; TILE.0 * WIDEST]);

/// One panel of columns of the right operand `b` against some strips of rows.
///
/// # Safety
/// Tiles and AVX512-BF16 are there, and `job` was made by `gemm` for this operand.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16,avx2,fma,f16c")]
pub unsafe fn block(b: *const u16, job: Job) {
    let mut panel = Panel::new();
    let panel = panel.packed(b, job);
    let blocks = job.depth.div_ceil(2 * PAIRS);
    // Zeros behind the last pair: what is there could be no number.
    let filled = job.depth.div_ceil(2);
    panel.add(filled * WIDEST).write_bytes(0, (blocks * PAIRS - filled) * WIDEST);
    let mut sums = Sums([MaybeUninit::uninit(); TILE.0 * WIDEST]);
    let sums = sums.0.as_mut_ptr().cast();
    configure();
    for strip in job.span.0..job.span.1 {
        let first = strip * TILE.0;
        let left = job.left.add(first * blocks * PAIRS);
        multiply(left, panel, blocks, sums);
        let c = job.c.at(first * job.stride + job.first);
        for i in 0..TILE.0.min(job.m - first) {
            for j in (0..job.columns).step_by(16) {
                job.put(c, i, j, Avx512::load(sums.add(i * WIDEST + j)));
            }
        }
    }
    release();
}

/// Gives all tiles of this thread their shape.
///
/// # Safety
/// They are there.
#[inline(always)]
unsafe fn configure() {
    let shapes = SHAPES;
    // SAFETY: 64 bytes that describe tiles as the processor has them. Nothing else in a program uses them.
    asm!("ldtilecfg [{}]", in(reg) &shapes, options(nostack, readonly));
}

/// Gives them up, so that the system need not save them.
///
/// # Safety
/// They are there.
#[inline(always)]
unsafe fn release() {
    // SAFETY: nothing is wanted of them any more.
    asm!("tilerelease", options(nostack, nomem));
}

/// The 32 x 32 sums over `blocks` times 32 steps, row by row, into `sums`.
///
/// # Safety
/// Tiles are configured by `SHAPES`; `left` and `right` hold so many blocks of 32 rows or 16 rows of pairs, `sums` 1024 numbers.
#[inline(always)]
unsafe fn multiply(left: *const f32, right: *const f32, blocks: usize, sums: *mut f32) {
    const { assert!(WIDEST == 32 && DEPTH.is_multiple_of(PAIRS)) };
    // SAFETY: reads blocks of 2048 bytes from both operands and writes 4096 bytes of sums, all of which are there; tile registers are
    // used by nobody else.
    asm!(
        "tilezero tmm0",
        "tilezero tmm1",
        "tilezero tmm2",
        "tilezero tmm3",
        "2:",
        "tileloadd tmm4, [{left} + {narrow}*1]",
        "tileloadd tmm6, [{right} + {wide}*1]",
        "tileloadd tmm7, [{right} + {wide}*1 + 64]",
        "tdpbf16ps tmm0, tmm4, tmm6",
        "tileloadd tmm5, [{left} + {narrow}*1 + 1024]",
        "tdpbf16ps tmm1, tmm4, tmm7",
        "tdpbf16ps tmm2, tmm5, tmm6",
        "tdpbf16ps tmm3, tmm5, tmm7",
        "add {left}, 2048",
        "add {right}, 2048",
        "dec {blocks}",
        "jnz 2b",
        "tilestored [{sums} + {wide}*1], tmm0",
        "tilestored [{sums} + {wide}*1 + 64], tmm1",
        "tilestored [{sums} + {wide}*1 + 2048], tmm2",
        "tilestored [{sums} + {wide}*1 + 2112], tmm3",
        left = inout(reg) left => _,
        right = inout(reg) right => _,
        blocks = inout(reg) blocks => _,
        sums = in(reg) sums,
        narrow = in(reg) 64usize,
        wide = in(reg) 128usize,
        options(nostack),
    );
}

/// Whether products by tiles are those of AVX512-BF16. Of whole numbers so small that no sum is rounded, so that they have to be the
/// same in whatever order a processor adds, and so large that fewer digits would not do.
///
/// # Safety
/// Tiles and AVX512-BF16 are there.
unsafe fn multiply_rightly() -> bool {
    // Two strips of rows, panels of columns and panels of steps, the second of each a part of one.
    const SIZES: (usize, usize, usize) = (41, 53, 1063);
    let (m, n, k) = SIZES;
    let number = |i: usize| ((i as u32).wrapping_mul(2_654_435_761) >> 16) as f32 % 201.0 - 100.0;
    let a: Vec<f32> = (0..m * k).map(number).collect();
    let b: Vec<bf16> = (0..k * n).map(|i| bf16::from_f32(number(m * k + i))).collect();
    let products = |level, transposed| {
        let mut c = vec![0f32; m * n];
        let left = Left { data: &a, row: k, column: 1 };
        let right = (Matrix::Bf16(&b), if transposed { k } else { n }, transposed);
        product(level, SIZES, left, right, (Out::new(&mut c), n), (false, false));
        c
    };
    [false, true].iter().all(|&transposed| products(Level::Amx, transposed) == products(Level::Avx512Bf16, transposed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::buffer::Scratch;
    use crate::kernels::tiles_here;
    use crate::random::{Purpose, Stream};

    #[test]
    fn a_tile_of_the_result_has_the_sums_of_products() {
        if !emulated::here() {
            return;
        }
        // Where there is no AVX512-BF16 either, this is all that runs of the kernel.
        for blocks in [1, 2, 5] {
            let steps = 2 * PAIRS * blocks;
            let mut whole = (0..).map(|i: usize| (i * 37 % 23) as f32 - 11.0);
            let mut numbers = |n: usize| -> Vec<f32> { whole.by_ref().take(n).collect() };
            let (a, b) = (numbers(32 * steps), numbers(steps * 32));
            let pair = |even: f32, odd: f32| f32::from_bits(even.to_bits() >> 16 | odd.to_bits() & 0xffff_0000);
            let mut left = vec![0f32; 32 * steps / 2];
            let mut right = vec![0f32; 32 * steps / 2];
            for p in 0..steps / 2 {
                for i in 0..32 {
                    let even = i * steps + 2 * p;
                    left[(p / PAIRS * 32 + i) * PAIRS + p % PAIRS] = pair(a[even], a[even + 1]);
                    right[p * 32 + i] = pair(b[2 * p * 32 + i], b[(2 * p + 1) * 32 + i]);
                }
            }
            let mut sums = vec![f32::NAN; 32 * 32];
            // SAFETY: the operands are as large as is said.
            unsafe {
                configure();
                multiply(left.as_ptr(), right.as_ptr(), blocks, sums.as_mut_ptr());
                release();
            }
            for (at, &sum) in sums.iter().enumerate() {
                let expected: f32 = (0..steps).map(|p| a[at / 32 * steps + p] * b[p * 32 + at % 32]).sum();
                assert_eq!(sum, expected, "row {}, column {} of {steps} steps", at / 32, at % 32);
            }
        }
    }

    /// Random numbers for a product of these sizes, the right ones bf16.
    fn factors((m, n, k): (usize, usize, usize)) -> (Vec<f32>, Vec<bf16>) {
        let mut stream = Stream::new(3, Purpose::Initial, 0);
        ((0..m * k).map(|_| stream.normal()).collect(), (0..k * n).map(|_| bf16::from_f32(stream.normal())).collect())
    }

    /// A product of dense factors, or of the transposed right one, on the threads of the pool.
    fn multiplied(a: &[f32], b: (&[bf16], bool), (m, n, k): (usize, usize, usize)) -> Vec<f32> {
        let mut c = vec![f32::NAN; m * n];
        let right = (Matrix::Bf16(b.0), if b.1 { k } else { n }, b.1);
        // SAFETY: `tiles_here` said that tiles and AVX512-BF16 are there, and the result has room.
        unsafe {
            let to = (Out::new(&mut c), n);
            product(Level::Amx, (m, n, k), Left { data: a, row: k, column: 1 }, right, to, (false, true))
        };
        c
    }

    /// Leaves what is no number in the memory that the next piece of work on this thread finds.
    #[inline(never)]
    fn soil() {
        std::hint::black_box(&mut [f32::NAN; 1 << 16]);
        Scratch::of(1 << 17).fill(f32::NAN);
    }

    #[test]
    fn products_are_right_at_every_border_of_tiles_and_panels() {
        if !tiles_here() {
            return;
        }
        let borders = [1, 15, 16, 17, 31, 32, 33, 67];
        let steps = [1, 2, 3, 31, 32, 33, 63, 64, 65, 1023, 1024, 1025, 1057, 2049];
        let few = borders.iter().flat_map(|&m| borders.map(|n| (m, n, 35)));
        let many = steps.iter().flat_map(|&k| [(1, 1, k), (35, 37, k)]);
        for (m, n, k) in few.chain(many) {
            for (transposed, add) in [(false, false), (false, true), (true, false), (true, true)] {
                // Between rows of both factors is what is no number, and between those of the result what stays.
                let (row, pitch, stride) = (k + 5, if transposed { k } else { n } + 3, n + 2);
                let rows = if transposed { n } else { k };
                let mut stream = Stream::new(3, Purpose::Initial, 0);
                let mut number = |at: usize, row: usize, gap: usize| match at % row < row - gap {
                    true => stream.normal(),
                    false => f32::NAN,
                };
                let a: Vec<f32> = (0..m * row).map(|at| number(at, row, 5)).collect();
                let b: Vec<bf16> = (0..rows * pitch).map(|at| bf16::from_f32(number(at, pitch, 3))).collect();
                let before: Vec<f32> = (0..m * stride).map(|_| stream.normal()).collect();
                let mut c = before.clone();
                let left = Left { data: &a, row, column: 1 };
                soil();
                // SAFETY: tiles and AVX512-BF16 are there, and the result has room.
                unsafe {
                    let to = (Out::new(&mut c), stride);
                    let right = (Matrix::Bf16(&b), pitch, transposed);
                    product(Level::Amx, (m, n, k), left, right, to, (add, false))
                };
                // Roundings on the way of a number, at the most: of sixteen pairs, of their sums, of panels and of what was there.
                let roundings = (16 + 1 + k.div_ceil(32) + k.div_ceil(1024)) as f64;
                for (at, &found) in c.iter().enumerate() {
                    let (i, j) = (at / stride, at % stride);
                    if j >= n {
                        assert_eq!(found, before[at], "behind row {i} of {m} x {n} x {k}");
                        continue;
                    }
                    let products = (0..k).map(|p| {
                        let b = if transposed { b[j * pitch + p] } else { b[p * pitch + j] };
                        f64::from(bf16::from_f32(a[i * row + p])) * f64::from(b)
                    });
                    let parts = products.chain(add.then_some(before[at].into()));
                    let (sum, size) = parts.fold((0f64, 0f64), |(sum, size), x| (sum + x, size + x.abs()));
                    let limit = roundings * size * f64::from(f32::EPSILON) / 2.0;
                    let gap = (f64::from(found) - sum).abs();
                    assert!(gap <= limit, "{m} x {n} x {k}, {transposed}, {add}, at {i}, {j}: {found} for {sum}");
                }
            }
        }
    }

    #[test]
    fn a_row_has_the_same_bits_whatever_rows_are_beside_it() {
        if !tiles_here() {
            return;
        }
        let (m, n, k) = (70, 45, 1100);
        let (a, b) = factors((m, n, k));
        let together = multiplied(&a, (&b, true), (m, n, k));
        for (first, count) in (0..m).map(|row| (row, 1)).chain([(0, 33), (33, 37), (5, 64)]) {
            let some = multiplied(&a[first * k..(first + count) * k], (&b, true), (count, n, k));
            assert_eq!(some, together[first * n..(first + count) * n], "{count} rows from {first} on");
        }
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bits() {
        if !tiles_here() {
            return;
        }
        let sizes = (300, 100, 333);
        let (a, b) = factors(sizes);
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let with = |threads: usize| pool(threads).install(|| multiplied(&a, (&b, false), sizes));
        let alone = with(1);
        for threads in [2, 5] {
            assert_eq!(with(threads), alone, "{threads} threads");
        }
    }

    #[test]
    fn tiles_that_multiply_wrongly_are_found_out() {
        if !tiles_here() {
            return;
        }
        // SAFETY: tiles and AVX512-BF16 are there.
        let rightly = || unsafe { multiply_rightly() };
        assert!(rightly());
        if !allowed() {
            assert!(!emulated::wrongly(rightly));
        }
    }
}
