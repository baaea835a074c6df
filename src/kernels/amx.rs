//! Large products whose factors are bf16 on AMX: a tile of 16 rows and one of 16 columns, 32 steps of k each, in one instruction.
//!
//! Operands are rounded and packed as in [`halves`](super::halves), the left one row by row. Intrinsics of AMX are not stable in Rust,
//! inline assembly is.

use super::gemm::{Job, DEPTH, WIDEST};
use super::halves::{round_32, Panel};
use super::lanes::{Avx512, Lanes};
use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count, _mm512_storeu_si512, _xgetbv};

/// Rows and columns of the result that stay in four of the eight tile registers.
pub const TILE: (usize, usize) = (32, WIDEST);
/// Pairs of k in a tile.
pub const PAIRS: usize = 16;

/// Whether there is AMX with bf16 here, and the system lets this process use it.
pub fn allowed() -> bool {
    /// A request for a part of the processor's state that is large, and the number of that part: the data of tiles.
    const REQUEST: libc::c_long = 0x1023;
    const TILE_DATA: libc::c_long = 18;
    const OSXSAVE: u32 = 1 << 27;
    const BF16: u32 = 1 << 22;
    const TILES: u32 = 1 << 24;
    // SAFETY: the reads of the processor's description and, where it says so, of the state that the system saves are always allowed; the
    // request changes nothing but the room that signals' frames have, and is refused where a thread's signal stack is too small for it.
    unsafe {
        if __cpuid(0).eax < 7 || __cpuid(1).ecx & OSXSAVE == 0 {
            return false;
        }
        let has = __cpuid_count(7, 0).edx & (BF16 | TILES) == BF16 | TILES;
        has && saved() && libc::syscall(libc::SYS_arch_prctl, REQUEST, TILE_DATA) == 0
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

/// One panel of columns of the right operand `b` against some strips of rows.
///
/// # Safety
/// [`allowed`] said yes, and `job` was made by `gemm` for this operand.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16,avx2,fma,f16c")]
pub unsafe fn block(b: *const u16, job: Job) {
    let mut panel = Panel::new();
    let panel = panel.packed(b, job);
    let blocks = job.depth.div_ceil(2 * PAIRS);
    // Zeros behind the last pair: what is there could be no number.
    let filled = job.depth.div_ceil(2);
    panel.add(filled * WIDEST).write_bytes(0, (blocks * PAIRS - filled) * WIDEST);
    let mut sums = Panel::new();
    let sums = sums.room();
    let shapes = SHAPES;
    // SAFETY: 64 aligned bytes that describe tiles as the processor has them. Nothing else in a program uses them.
    asm!("ldtilecfg [{}]", in(reg) &shapes, options(nostack, readonly));
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
    // SAFETY: gives the tiles up, so that the system need not save them.
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
