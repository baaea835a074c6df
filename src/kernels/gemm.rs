//! Products of large matrices, after the scheme of Goto and van de Geijn (ACM TOMS 34, 2008): panels of both operands are
//! copied in the order in which a tile of the result, which stays in registers, wants them.
//!
//! Copying also turns a panel around and unpacks bf16 and quantised weights, so neither a transposed nor a wide copy of
//! a matrix is ever made.

use super::buffer::Scratch;
use super::lanes::Lanes;
use super::matrix::{Bf16, Matrix, Source, F32, Q4K, Q8_0};
use super::{level, parallel, vectorised, Level, Out};

/// The left operand [m, k]: element (i, j) lies at `i * row + j * column`; one of the two is 1.
#[derive(Clone, Copy)]
pub struct Left<'a> {
    pub data: &'a [f32],
    pub row: usize,
    pub column: usize,
}

/// Steps of k that a panel holds, or pairs of them: a strip of the left operand fits the first-level cache, and the result is rarely
/// read and written.
pub(super) const DEPTH: usize = 512;
/// The widest panel, in numbers.
pub(super) const WIDEST: usize = 32;

/// `c = a b` (or `c += a b`) for a [m, k] and c [m, n] with rows `stride` apart. b is row-major with rows `pitch` numbers
/// apart: [k, n], or [n, k] if `transposed`. On the threads of the pool.
///
/// # Panics
/// If an operand is too short for the sizes, or a panel of a quantised one would begin inside a block.
pub fn gemm(sizes: (usize, usize, usize), a: Left, b: (Matrix, usize, bool), c: (&mut [f32], usize), add: bool) {
    let (m, n, _) = sizes;
    assert!(m == 0 || n == 0 || c.0.len() >= last(m, c.1, n) && c.1 >= n, "the result is too short");
    // SAFETY: `c` is borrowed mutably and long enough.
    unsafe { product(level(), sizes, a, b, (Out::new(c.0), c.1), (add, true)) }
}

/// As [`gemm`], on this thread alone, for tasks that are parallel themselves.
///
/// # Safety
/// Rows of `n` numbers, `c.1` apart, must be there from `c.0` on and be written by nobody else meanwhile.
pub(super) unsafe fn gemm_here(
    sizes: (usize, usize, usize),
    a: Left,
    b: (Matrix, usize, bool),
    c: (Out, usize),
    add: bool,
) {
    product(level(), sizes, a, b, c, (add, false))
}

/// Numbers from the first to the last of some rows.
fn last(rows: usize, pitch: usize, columns: usize) -> usize {
    (rows - 1) * pitch + columns
}

/// As [`gemm`], with the vectors of a level, and on this thread alone or not.
///
/// # Safety
/// The processor has those vectors; for the rest as [`gemm_here`].
pub(super) unsafe fn product(
    level: Level,
    (m, n, k): (usize, usize, usize),
    a: Left,
    (b, pitch, transposed): (Matrix, usize, bool),
    (c, stride): (Out, usize),
    (accumulate, spread): (bool, bool),
) {
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        if !accumulate {
            (0..m).for_each(|row| c.at(row * stride).write_bytes(0, n));
        }
        return;
    }
    assert!(a.row == 1 || a.column == 1, "rows or columns of the left operand are contiguous");
    assert!(a.data.len() > (m - 1) * a.row + (k - 1) * a.column, "the left operand is too short");
    let (rows, columns) = if transposed { (n, k) } else { (k, n) };
    assert!(b.len() >= last(rows, pitch, columns) && pitch >= columns, "the right operand is too short");
    assert!(b.group() == 1 || (pitch % b.group() == 0 && columns % 32 == 0), "quantised rows are whole blocks");

    let level = match level {
        // What multiplies bf16 rounds the left operand along its rows.
        Level::Avx512Bf16 | Level::Amx if a.column != 1 || !matches!(b, Matrix::Bf16(_)) => Level::Avx512,
        // However few rows there are: the bits of one may not depend on those beside it.
        level => level,
    };
    let (tile_rows, tile_columns) = tile_size(level);
    // Steps of k in one place of a panel, and in how many of them it ends.
    let (together, whole) = match level {
        Level::Avx512Bf16 => (2, 1),
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        Level::Amx => (2, super::amx::PAIRS),
        _ => (1, 1),
    };
    let places = |depth: usize| depth.div_ceil(together).next_multiple_of(whole);
    let panels = n.div_ceil(tile_columns);
    let strips = m.div_ceil(tile_rows);
    // Few panels: the rows are split as well, though each piece then packs the panel anew.
    let threads = if spread { rayon::current_num_threads() } else { 1 };
    let pieces = match threads {
        1 => 1,
        _ => (3 * threads).div_ceil(panels).min(strips.div_ceil(4)).max(1),
    };
    let piece = strips.div_ceil(pieces);
    let worth = |work: usize| if spread { work } else { 0 };
    let mut packed = Scratch::of(strips * tile_rows * places(k.min(DEPTH * together)));
    for from in (0..k).step_by(DEPTH * together) {
        let depth = (DEPTH * together).min(k - from);
        let strip_size = tile_rows * places(depth);
        let left = Out::new(&mut packed);
        parallel(strips, worth(m * depth), |strip| {
            let first = strip * tile_rows;
            // SAFETY: `a` holds these rows and columns (checked above), and each task fills its own strip of `packed`.
            unsafe {
                let to = left.at(strip * strip_size);
                let a_at = a.data.as_ptr().add(first * a.row + from * a.column);
                let rows = tile_rows.min(m - first);
                match level {
                    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
                    Level::Amx => super::amx::pack_left(a_at, a.row, to, rows, depth),
                    #[cfg(target_arch = "x86_64")]
                    Level::Avx512Bf16 => super::halves::pack_left(a_at, a.row, to, rows, depth),
                    _ => pack_left(level, a_at, (a.row, a.column), to, rows, depth),
                }
            }
        });
        parallel(panels * pieces, worth(m * n * depth), |task| {
            let (panel, part) = (task / pieces, task % pieces);
            let first = panel * tile_columns;
            let columns = tile_columns.min(n - first);
            let span = (part * piece, strips.min((part + 1) * piece));
            let add = accumulate || from > 0;
            // SAFETY: all operands are long enough (checked above); each task writes its own columns and rows of c.
            unsafe {
                let left = left.at(0) as *const f32;
                let job = Job { level, left, c, m, depth, stride, from, first, columns, span, pitch, transposed, add };
                match b {
                    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
                    Matrix::Bf16(b) if level == Level::Amx => super::amx::block(b.as_ptr().cast(), job),
                    #[cfg(target_arch = "x86_64")]
                    Matrix::Bf16(b) if level == Level::Avx512Bf16 => super::halves::block(b.as_ptr().cast(), job),
                    Matrix::F32(b) => block_f32(job.level, F32(b.as_ptr()), job),
                    Matrix::Bf16(b) => block_bf16(job.level, Bf16(b.as_ptr().cast()), job),
                    Matrix::Q8_0(b) => block_q8_0(job.level, Q8_0(b.as_ptr()), job),
                    Matrix::Q4K(b) => block_q4k(job.level, Q4K(b.as_ptr()), job),
                }
            }
        });
    }
}

/// Rows and columns of the tile that stays in registers.
fn tile_size(level: Level) -> (usize, usize) {
    #[cfg(target_arch = "x86_64")]
    use super::lanes::{Avx2, Avx512};
    let (rows, vectors) = match level {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        Level::Amx => return super::amx::TILE,
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Bf16 => return super::halves::TILE,
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => Avx512::TILE,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => Avx2::TILE,
        _ => super::lanes::Portable::TILE,
    };
    (rows, 16 * vectors)
}

/// One panel of columns against some strips of rows.
#[derive(Clone, Copy)]
pub(super) struct Job {
    level: Level,
    pub left: *const f32,
    pub c: Out,
    pub m: usize,
    pub depth: usize,
    pub stride: usize,
    /// First step of k, first column, number of columns, strips of rows.
    pub from: usize,
    pub first: usize,
    pub columns: usize,
    pub span: (usize, usize),
    pub pitch: usize,
    pub transposed: bool,
    pub add: bool,
}

impl Job {
    /// Puts sums into row `row` and the columns from `column` on of the tile of the result that begins at `c`, or adds them.
    ///
    /// # Safety
    /// The row and the first of these columns are in the result, and this task's.
    #[inline(always)]
    pub unsafe fn put<L: Lanes>(&self, c: *mut f32, row: usize, column: usize, sums: L) {
        let (to, n) = (c.add(row * self.stride + column), self.columns - column);
        let sums = if self.add { L::load_part(to, n).add(sums) } else { sums };
        sums.store_part(to, n);
    }
}

// SAFETY: the addresses are only read, but for `c`, of which each task writes its own part.
unsafe impl Send for Job {}
// SAFETY: as above.
unsafe impl Sync for Job {}

vectorised! { unsafe fn block_f32(b: F32, job: Job) = block<F32> }
vectorised! { unsafe fn block_bf16(b: Bf16, job: Job) = block<Bf16> }
vectorised! { unsafe fn block_q8_0(b: Q8_0, job: Job) = block<Q8_0> }
vectorised! { unsafe fn block_q4k(b: Q4K, job: Job) = block<Q4K> }

#[repr(align(64))]
struct Panel([std::mem::MaybeUninit<f32>; DEPTH * WIDEST]);

#[inline(always)]
unsafe fn block<L: Lanes, B: Source>(b: B, job: Job) {
    let (rows, vectors) = L::TILE;
    let mut panel = Panel([std::mem::MaybeUninit::uninit(); DEPTH * WIDEST]);
    let panel: *mut f32 = panel.0.as_mut_ptr().cast();
    match job.transposed {
        true => pack_turned::<L, B>(b, job, panel, vectors),
        false => pack_straight::<L, B>(b, job, panel, vectors),
    }
    for strip in job.span.0..job.span.1 {
        let first = strip * rows;
        let left = job.left.add(strip * rows * job.depth);
        let c = job.c.at(first * job.stride + job.first);
        let height = rows.min(job.m - first);
        // The sizes of a level's tile are constants: one branch remains.
        match (rows, vectors) {
            (14, 2) => tile::<L, 14, 2>(left, panel, c, job, height),
            (6, 1) => tile::<L, 6, 1>(left, panel, c, job, height),
            _ => tile::<L, 4, 1>(left, panel, c, job, height),
        }
    }
}

/// Rows of b are steps of k.
#[inline(always)]
unsafe fn pack_straight<L: Lanes, B: Source>(b: B, job: Job, panel: *mut f32, vectors: usize) {
    let width = 16 * vectors;
    // Blocks of quantised rows are read whole.
    let base = job.first / 32 * 32;
    let skip = (job.first - base) / 16;
    for p in 0..job.depth {
        let at = (job.from + p) * job.pitch + job.first;
        let to = panel.add(p * width);
        if width == 32 {
            let [x, y] = b.read_at::<L>(at, job.columns);
            x.store(to);
            y.store(to.add(16));
        } else if skip == 0 {
            b.read_at::<L>(at, job.columns.min(16))[0].store(to);
        } else {
            b.read_at::<L>(at - 16, 16 + job.columns.min(16))[1].store(to);
        }
    }
}

/// Rows of b are columns of the product.
#[inline(always)]
unsafe fn pack_turned<L: Lanes, B: Source>(b: B, job: Job, panel: *mut f32, vectors: usize) {
    let width = 16 * vectors;
    let mut p = 0;
    while p < job.depth {
        let steps = 32.min(job.depth - p);
        for v in 0..vectors {
            let mut low = [L::zero(); 16];
            let mut high = [L::zero(); 16];
            for i in 0..16 {
                let column = 16 * v + i;
                if column < job.columns {
                    let at = (job.first + column) * job.pitch + job.from + p;
                    let [x, y] = b.read_at::<L>(at, steps);
                    low[i] = x;
                    high[i] = y;
                }
            }
            L::transpose(&mut low);
            for (i, x) in low.iter().enumerate().take(steps) {
                x.store(panel.add((p + i) * width + 16 * v));
            }
            if steps > 16 {
                L::transpose(&mut high);
                for (i, x) in high.iter().enumerate().take(steps - 16) {
                    x.store(panel.add((p + 16 + i) * width + 16 * v));
                }
            }
        }
        p += 32;
    }
}

vectorised! {
    unsafe fn pack_left(a: *const f32, steps: (usize, usize), to: *mut f32, rows: usize, depth: usize) = pack_left_any
}

/// `rows` rows of the left operand, k by k. What stands in place of rows behind the last has no meaning.
#[inline(always)]
unsafe fn pack_left_any<L: Lanes>(
    a: *const f32,
    (row, column): (usize, usize),
    to: *mut f32,
    rows: usize,
    depth: usize,
) {
    let (height, _) = L::TILE;
    if row == 1 {
        for p in 0..depth {
            L::load_part(a.add(p * column), rows).store_part(to.add(p * height), height);
        }
        return;
    }
    for p in (0..depth).step_by(16) {
        let steps = 16.min(depth - p);
        let mut lanes = [L::zero(); 16];
        for i in 0..height {
            lanes[i] = L::load_part(a.add(i.min(rows - 1) * row + p), steps);
        }
        L::transpose(&mut lanes);
        for (i, x) in lanes.iter().enumerate().take(steps) {
            x.store_part(to.add((p + i) * height), height);
        }
    }
}

#[inline(always)]
unsafe fn tile<L: Lanes, const R: usize, const C: usize>(
    mut a: *const f32,
    mut b: *const f32,
    c: *mut f32,
    job: Job,
    rows: usize,
) {
    for i in 0..R {
        for j in 0..C {
            L::prefetch(c.wrapping_add(i * job.stride + 16 * j));
        }
    }
    let mut sums = [[L::zero(); C]; R];
    for _ in 0..job.depth {
        // Panel and strip together do not fit the first-level cache.
        L::prefetch(a.wrapping_add(8 * R));
        for j in 0..C {
            L::prefetch(b.wrapping_add(16 * (8 * C + j)));
        }
        let mut right = [L::zero(); C];
        for j in 0..C {
            right[j] = L::load(b.add(16 * j));
        }
        for i in 0..R {
            let left = L::splat(*a.add(i));
            for j in 0..C {
                sums[i][j] = left.fma(right[j], sums[i][j]);
            }
        }
        a = a.add(R);
        b = b.add(16 * C);
    }
    for i in 0..R {
        if i < rows {
            for j in 0..C {
                if 16 * j < job.columns {
                    job.put(c, i, 16 * j, sums[i][j]);
                }
            }
        }
    }
}
