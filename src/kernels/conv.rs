//! 3x3 convolutions by minimal filtering, F(2x2, 3x3) (Lavin and Gray, *Fast Algorithms for Convolutional Neural Networks*,
//! CVPR 2016), and the group norm before them.
//!
//! The result is made in tiles of 2x2 pixels. A tile's 4x4 inputs and the weights are transformed so that the convolution
//! becomes 16 products per pair of channels instead of 36; over many tiles these are 16 matrix products. Where each input
//! pixel stands for 2x2 (upsampling), a third of the transformed rows and columns is zero, and 9 products remain. Its
//! rounding errors are about those of the plain sum.
//!
//! A task takes tiles whose transformed numbers fit the second-level cache, and reads the picture as it lies: no unfolded,
//! padded, normalised or upsampled copy is made.

use super::lanes::Lanes;
use super::matrix::F32;
use super::{level, parallel, vectorised, Level, Out};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A picture [channels, height, width] as a convolution reads it.
#[derive(Clone, Copy)]
pub struct Planes<'a> {
    pub data: &'a [f32],
    pub channels: usize,
    pub height: usize,
    pub width: usize,
    /// A factor and a summand of each channel: z sigmoid(z) with z = factor x + summand is read in place of x.
    pub swish: Option<(&'a [f32], &'a [f32])>,
    /// Each pixel stands for 2x2 pixels.
    pub doubled: bool,
}

impl Planes<'_> {
    /// Height and width of what is convolved.
    fn size(&self) -> (usize, usize) {
        match self.doubled {
            true => (2 * self.height, 2 * self.width),
            false => (self.height, self.width),
        }
    }
}

/// Numbers of transformed input and output that a task holds: most of a second-level cache.
const SCRATCH: usize = 400_000;
/// The most tiles of a task, and the longest row of pixels that they need.
const TILES: usize = 192;
const PIXELS: usize = 2 * TILES + 32;

/// `y = conv(x) + bias`, or `y += conv(x) + bias`, for weight [out, in, 3, 3] and y [out, height, width]; beyond its border the
/// picture is 0. On the threads of the pool.
///
/// # Panics
/// If the lengths do not fit.
pub fn conv3x3(x: Planes, weight: &[f32], bias: &[f32], y: &mut [f32], add: bool) {
    let (height, width) = x.size();
    let out = bias.len();
    assert!(
        x.data.len() == x.channels * x.height * x.width
            && weight.len() == 9 * out * x.channels
            && y.len() == out * height * width
            && x.swish.is_none_or(|(a, b)| a.len() == x.channels && b.len() == x.channels),
        "sizes"
    );
    if y.is_empty() {
        return;
    }
    let level = level();
    let (rows, columns) = tile_size(level);
    let side = if x.doubled { 3 } else { 4 };
    let strips = out.div_ceil(rows);
    let across = width.div_ceil(2);
    let tiles = across * height.div_ceil(2);
    let per_tile = side * side * (x.channels + strips * rows);
    let group = columns * (SCRATCH / (per_tile * columns)).clamp(1, TILES / columns);

    let mut transformed = vec![0f32; side * side * strips * x.channels * rows];
    let to = Out::new(&mut transformed);
    parallel(strips, 64 * weight.len(), |strip| {
        // SAFETY: each task writes the rows of its own strip.
        unsafe { transform_weights(weight, x.channels, (strip, strips, rows), x.doubled, to) }
    });

    let job =
        Job { level, x, weights: transformed.as_ptr(), bias, out, strips, tiles, across, group, y: Out::new(y), add };
    let (groups, next) = (tiles.div_ceil(group), AtomicUsize::new(0));
    let workers = rayon::current_num_threads().min(groups);
    parallel(workers, tiles * per_tile * out, |_| {
        let mut scratch = vec![0f32; per_tile * group];
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= groups {
                break;
            }
            // SAFETY: sizes were checked above; the tiles of a group are written by nobody else.
            unsafe { convolve(job.level, job, index * group, Out::new(&mut scratch)) }
        }
    });
}

/// Rows and columns of the tile of a matrix product that stays in registers.
fn tile_size(level: Level) -> (usize, usize) {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 | Level::Avx512Bf16 | Level::Amx => (8, 48),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => (6, 16),
        _ => (4, 16),
    }
}

/// Transformed weights of the outputs of one strip: [side * side, strips, in, rows].
///
/// # Safety
/// `to` must have room for all of them, and nobody else writes this strip's.
unsafe fn transform_weights(
    weight: &[f32],
    channels: usize,
    (strip, strips, rows): (usize, usize, usize),
    doubled: bool,
    to: Out,
) {
    let out = weight.len() / (9 * channels);
    let (pitch, base) = (strips * channels * rows, strip * channels * rows);
    // The numbers of all rows for a channel lie together.
    for channel in 0..channels {
        for row in 0..rows.min(out - strip * rows) {
            let at = ((strip * rows + row) * channels + channel) * 9;
            let g = &weight[at..at + 9];
            // G g G^T with G = [1 0 0; 1/2 1/2 1/2; 1/2 -1/2 1/2; 0 0 1]
            let mut columns = [[0f32; 3]; 4];
            for c in 0..3 {
                let (ends, middle) = (0.5 * (g[c] + g[6 + c]), 0.5 * g[3 + c]);
                columns[0][c] = g[c];
                columns[1][c] = ends + middle;
                columns[2][c] = ends - middle;
                columns[3][c] = g[6 + c];
            }
            let to = to.from(base + channel * rows + row);
            let mut position = 0;
            for (i, [a, b, c]) in columns.into_iter().enumerate() {
                if doubled && i == 2 {
                    continue;
                }
                let (ends, middle) = (0.5 * (a + c), 0.5 * b);
                for (j, value) in [a, ends + middle, ends - middle, c].into_iter().enumerate() {
                    if !(doubled && j == 2) {
                        *to.at(position * pitch) = value;
                        position += 1;
                    }
                }
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Job<'a> {
    level: Level,
    x: Planes<'a>,
    weights: *const f32,
    bias: &'a [f32],
    out: usize,
    strips: usize,
    /// Tiles in all, in a row of the picture, and in a task.
    tiles: usize,
    across: usize,
    group: usize,
    y: Out,
    add: bool,
}

// SAFETY: `weights` is only read, and each task writes its own tiles of `y`.
unsafe impl Send for Job<'_> {}
// SAFETY: as above.
unsafe impl Sync for Job<'_> {}

vectorised! { unsafe fn convolve(job: Job, first: usize, scratch: Out) = convolve_any }

/// The tiles `first` to `first + group`.
#[inline(always)]
unsafe fn convolve_any<L: Lanes>(job: Job, first: usize, scratch: Out) {
    let tiles = job.group.min(job.tiles - first);
    let side = if job.x.doubled { 3 } else { 4 };
    let (rows, columns) = tile_size(job.level);
    let (inputs, outputs) = (job.x.channels, job.strips * rows);
    let products = scratch.from(side * side * inputs * job.group);
    let mut lines = Lines { a: [[0.0; PIXELS]; 4], b: [[0.0; PIXELS]; 4], line: [0.0; PIXELS] };
    for channel in 0..inputs {
        let mut done = 0;
        while done < tiles {
            let (row, column) = ((first + done) / job.across, (first + done) % job.across);
            let n = (tiles - done).min(job.across - column);
            let to = scratch.from(channel * job.group + done);
            match job.x.doubled {
                true => doubled_input::<L>(job.x, channel, (row, column, n), to, inputs * job.group, &mut lines),
                false => input::<L>(job.x, channel, (row, column, n), to, inputs * job.group, &mut lines),
            }
            done += n;
        }
    }
    for position in 0..side * side {
        for strip in 0..job.strips {
            let left = job.weights.add((position * job.strips + strip) * inputs * rows);
            for column in (0..tiles).step_by(columns) {
                let right = scratch.at(position * inputs * job.group + column);
                let to = products.at((position * outputs + strip * rows) * job.group + column);
                // The sizes of a level's tile are constants: one branch remains.
                match (rows, columns) {
                    (8, 48) => product::<L, 8, 3>(left, right, inputs, to, job.group),
                    (6, 16) => product::<L, 6, 1>(left, right, inputs, to, job.group),
                    _ => product::<L, 4, 1>(left, right, inputs, to, job.group),
                }
            }
        }
    }
    for channel in 0..job.out {
        let products = products.from(channel * job.group);
        output::<L>(job, channel, (first, tiles), products, outputs * job.group, &mut lines);
    }
}

/// `to = left right` for left [depth, R] and right [depth, 16 C] with rows `stride` apart, as those of the result.
#[inline(always)]
unsafe fn product<L: Lanes, const R: usize, const C: usize>(
    mut left: *const f32,
    right: *const f32,
    depth: usize,
    to: *mut f32,
    stride: usize,
) {
    let mut sums = [[L::zero(); C]; R];
    let mut right = right;
    for _ in 0..depth {
        let mut b = [L::zero(); C];
        for (j, b) in b.iter_mut().enumerate() {
            *b = L::load(right.add(16 * j));
        }
        for (i, sums) in sums.iter_mut().enumerate() {
            let a = L::splat(*left.add(i));
            for j in 0..C {
                sums[j] = a.fma(b[j], sums[j]);
            }
        }
        left = left.add(R);
        right = right.wrapping_add(stride);
    }
    for (i, sums) in sums.iter().enumerate() {
        for (j, sum) in sums.iter().enumerate() {
            sum.store(to.add(i * stride + 16 * j));
        }
    }
}

/// Rows of pixels or tiles on their way.
struct Lines {
    a: [[f32; PIXELS]; 4],
    b: [[f32; PIXELS]; 4],
    line: [f32; PIXELS],
}

/// `count` pixels of a row from column `first` on into `to`; 0 outside the picture.
#[inline(always)]
unsafe fn read_row<L: Lanes>(
    x: Planes,
    channel: usize,
    row: isize,
    first: isize,
    count: usize,
    to: &mut [f32; PIXELS],
) {
    let end = first + count as isize;
    let (from, until) = (first.max(0), end.min(x.width as isize));
    if row < 0 || row >= x.height as isize || from >= until {
        to[..count].fill(0.0);
        return;
    }
    let (before, n) = ((from - first) as usize, (until - from) as usize);
    to[..before].fill(0.0);
    to[before + n..count].fill(0.0);
    let source = x.data.as_ptr().add((channel * x.height + row as usize) * x.width + from as usize);
    let to = to.as_mut_ptr().add(before);
    let Some((factor, summand)) = x.swish else {
        std::ptr::copy_nonoverlapping(source, to, n);
        return;
    };
    let (factor, summand, one) = (L::splat(factor[channel]), L::splat(summand[channel]), L::splat(1.0));
    for i in (0..n).step_by(16) {
        let z = L::load_part(source.add(i), n - i).fma(factor, summand);
        let y = z.div(one.add(L::zero().sub(z).exp()));
        y.store_part(to.add(i), n - i);
    }
}

/// Transforms `n` tiles of a row: B^T d B with B^T = [1 0 -1 0; 0 1 1 0; 0 -1 1 0; 0 1 0 -1]. Position p of the result goes to
/// `to + p * pitch`.
#[inline(always)]
unsafe fn input<L: Lanes>(
    x: Planes,
    channel: usize,
    (row, column, n): (usize, usize, usize),
    to: Out,
    pitch: usize,
    Lines { a: even, b: odd, line }: &mut Lines,
) {
    for r in 0..4 {
        read_row::<L>(x, channel, (2 * row + r) as isize - 1, 2 * column as isize - 1, 2 * n + 2, line);
        for t in 0..n + 1 {
            even[r][t] = line[2 * t];
            odd[r][t] = line[2 * t + 1];
        }
    }
    for t in (0..n).step_by(16) {
        let down = |of: &[[f32; PIXELS]; 4], t: usize| {
            let [a, b, c, d] = [0, 1, 2, 3].map(|r: usize| L::load(of[r].as_ptr().add(t)));
            [a.sub(c), b.add(c), c.sub(b), b.sub(d)]
        };
        let (a, b, c, d) = (down(even, t), down(odd, t), down(even, t + 1), down(odd, t + 1));
        for i in 0..4 {
            let line = [a[i].sub(c[i]), b[i].add(c[i]), c[i].sub(b[i]), b[i].sub(d[i])];
            for (j, v) in line.into_iter().enumerate() {
                v.store_part(to.at((4 * i + j) * pitch + t), n - t);
            }
        }
    }
}

/// As [`input`], of a picture whose pixels count twice in each direction. The tile's inputs are a, b, b, c, of which B^T
/// makes a - b, 2 b, 0, b - c.
#[inline(always)]
unsafe fn doubled_input<L: Lanes>(
    x: Planes,
    channel: usize,
    (row, column, n): (usize, usize, usize),
    to: Out,
    pitch: usize,
    Lines { a: pixels, .. }: &mut Lines,
) {
    for (r, pixels) in pixels.iter_mut().take(3).enumerate() {
        read_row::<L>(x, channel, (row + r) as isize - 1, column as isize - 1, n + 2, pixels);
    }
    for t in (0..n).step_by(16) {
        let down = |t: usize| {
            let [a, b, c] = [0, 1, 2].map(|r: usize| L::load(pixels[r].as_ptr().add(t)));
            [a.sub(b), b.add(b), b.sub(c)]
        };
        let (a, b, c) = (down(t), down(t + 1), down(t + 2));
        for i in 0..3 {
            let line = [a[i].sub(b[i]), b[i].add(b[i]), b[i].sub(c[i])];
            for (j, v) in line.into_iter().enumerate() {
                v.store_part(to.at((3 * i + j) * pitch + t), n - t);
            }
        }
    }
}

/// Pixels of the tiles `first` to `first + tiles` of one channel: A^T m A with A^T = [1 1 1 0; 0 1 -1 -1]. Position p of m
/// lies at `products + p * pitch`.
#[inline(always)]
unsafe fn output<L: Lanes>(
    job: Job,
    channel: usize,
    (first, tiles): (usize, usize),
    products: Out,
    pitch: usize,
    Lines { a: upper_row, b: lower_row, line }: &mut Lines,
) {
    for t in (0..tiles).step_by(16) {
        let at = |position: usize| L::load(products.at(position * pitch + t));
        let mut upper = [L::zero(); 4];
        let mut lower = [L::zero(); 4];
        if job.x.doubled {
            for (j, of) in [0, 1, 3].into_iter().enumerate() {
                let (a, b, c) = (at(j), at(3 + j), at(6 + j));
                upper[of] = a.add(b);
                lower[of] = b.sub(c);
            }
        } else {
            for j in 0..4 {
                let (a, b, c, d) = (at(j), at(4 + j), at(8 + j), at(12 + j));
                upper[j] = a.add(b).add(c);
                lower[j] = b.sub(c).sub(d);
            }
        }
        for (made, m) in [&mut *upper_row, &mut *lower_row].into_iter().zip([upper, lower]) {
            m[0].add(m[1]).add(m[2]).store(made[0].as_mut_ptr().add(t));
            m[1].sub(m[2]).sub(m[3]).store(made[1].as_mut_ptr().add(t));
        }
    }
    let (height, width) = job.x.size();
    let bias = L::splat(job.bias[channel]);
    for (below, made) in [upper_row, lower_row].into_iter().enumerate() {
        for t in 0..tiles {
            line[2 * t] = made[0][t];
            line[2 * t + 1] = made[1][t];
        }
        let mut done = 0;
        while done < tiles {
            let (row, column) = ((first + done) / job.across, (first + done) % job.across);
            let n = (tiles - done).min(job.across - column);
            let (y, x) = (2 * row + below, 2 * column);
            if y < height {
                let pixels = (2 * n).min(width - x);
                let to = job.y.at((channel * height + y) * width + x);
                for i in (0..pixels).step_by(16) {
                    let (sum, left) = (L::load(line.as_ptr().add(2 * done + i)).add(bias), pixels - i);
                    let sum = if job.add { sum.add(L::load_part(to.add(i), left)) } else { sum };
                    sum.store_part(to.add(i), left);
                }
            }
            done += n;
        }
    }
}

/// The factor and the summand of each channel that make a group norm of a picture [channels, pixels].
///
/// # Panics
/// If the lengths do not fit.
pub fn group_norm(x: &[f32], groups: usize, weight: &[f32], bias: &[f32], eps: f64) -> (Vec<f32>, Vec<f32>) {
    let channels = weight.len();
    let whole = channels.is_multiple_of(groups) && x.len().is_multiple_of(channels);
    assert!(bias.len() == channels && whole && !x.is_empty(), "sizes");
    let size = x.len() / groups;
    let mut found = vec![[0f64; 2]; groups];
    let to = std::sync::Mutex::new(&mut found);
    parallel(groups, 2 * x.len(), |group| {
        let x = &x[group * size..(group + 1) * size];
        // Relative to a number near their mean, so that no digits are lost in the squares.
        let (mut sum, mut square) = (0f64, 0f64);
        for chunk in x.chunks(1 << 13) {
            let mut sums = [0f32; 2];
            // SAFETY: the chunk is as long as is said, and both sums are written by this task alone.
            unsafe { moments(level(), F32(chunk.as_ptr()), chunk.len(), x[0], Out::new(&mut sums)) };
            sum += f64::from(sums[0]);
            square += f64::from(sums[1]);
        }
        let mean = sum / size as f64;
        let variance = (square / size as f64 - mean * mean).max(0.0);
        to.lock().expect("no task panics")[group] = [f64::from(x[0]) + mean, 1.0 / (variance + eps).sqrt()];
    });
    let each = |channel: usize| {
        let [mean, scale] = found[channel / (channels / groups)];
        let factor = scale * f64::from(weight[channel]);
        (factor as f32, (f64::from(bias[channel]) - factor * mean) as f32)
    };
    (0..channels).map(each).unzip()
}

vectorised! { unsafe fn moments(x: F32, n: usize, shift: f32, to: Out) = moments_any }

#[inline(always)]
unsafe fn moments_any<L: Lanes>(x: F32, n: usize, shift: f32, to: Out) {
    let (mut sums, mut squares) = ([L::zero(); 4], [L::zero(); 4]);
    let whole = n / 64 * 64;
    for i in (0..whole).step_by(64) {
        for j in 0..4 {
            let x = L::load(x.0.add(i + 16 * j)).sub(L::splat(shift));
            sums[j] = sums[j].add(x);
            squares[j] = x.fma(x, squares[j]);
        }
    }
    let total = |of: [L; 4]| of[0].add(of[1]).add(of[2].add(of[3])).sum();
    let (mut sum, mut square) = (total(sums), total(squares));
    for i in whole..n {
        let x = *x.0.add(i) - shift;
        sum += x;
        square += x * x;
    }
    *to.at(0) = sum;
    *to.at(1) = square;
}
