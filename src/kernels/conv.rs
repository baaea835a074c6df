//! 3x3 convolutions by minimal filtering ([`winograd`](super::winograd)), and the group norm before them.
//!
//! The transformed numbers of many tiles make one matrix product for each position in a tile. A task takes a rectangle of tiles: the
//! positions of its inputs, 48 tiles wide, stay in the first-level cache while the weights of all outputs go by. It reads the picture as
//! it lies: no unfolded, padded, normalised or upsampled copy is made.

use super::buffer::aligned;
use super::lanes::Lanes;
use super::matrix::F32;
use super::winograd::{Doubled, Four, Scheme};
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

/// The most tiles of a task, those of them that lie side by side, and below each other.
const GROUP: usize = 48;
const ABREAST: usize = 16;
const DEEP: usize = 6;
/// The longest row of pixels that tiles side by side read or make, with room for a vector behind it.
const LINE: usize = 4 * ABREAST + 16;

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
    let (side, step) = match x.doubled {
        true => (Doubled::SIDE, Doubled::OUT),
        false => (Four::SIDE, Four::OUT),
    };
    let level = level();
    let rows = strip_rows(level);
    let strips = out.div_ceil(rows);
    let mut transformed = aligned(side * side * strips * rows * x.channels);
    // SAFETY: inside the buffer.
    let to = unsafe { Out::new(&mut transformed.0).from(transformed.1) };
    parallel(strips, 64 * weight.len(), |strip| {
        // SAFETY: each task writes the rows of its own strip.
        unsafe {
            let weight = F32(weight.as_ptr());
            let strip = Strip { number: strip, of: strips, rows, out, channels: x.channels };
            match x.doubled {
                true => weights_doubled(level, weight, strip, to),
                false => weights_four(level, weight, strip, to),
            }
        }
    });

    let (down, across) = (height.div_ceil(step), width.div_ceil(step));
    let segments = across.div_ceil(ABREAST);
    let abreast = across.div_ceil(segments);
    let mut bands = down.div_ceil((GROUP / abreast).min(DEEP));
    // A few groups are shared evenly.
    let threads = rayon::current_num_threads();
    while bands < down && segments * bands < 4 * threads && !(segments * bands).is_multiple_of(threads) {
        bands += 1;
    }
    let deep = down.div_ceil(bands);
    // SAFETY: the memory of all transformed weights.
    let weights = unsafe { to.at(0) };
    let job = Job { level, x, weights, bias, strips, segments, abreast, deep, y: Out::new(y), add };
    let (groups, next) = (segments * down.div_ceil(deep), AtomicUsize::new(0));
    let per_tile = side * side * (x.channels + strips * rows);
    parallel(threads.min(groups), down * across * per_tile * out, |_| {
        let mut scratch = aligned(per_tile * GROUP + ABREAST);
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= groups {
                break;
            }
            // SAFETY: sizes were checked above; the tiles of a group are written by nobody else.
            unsafe {
                let scratch = Out::new(&mut scratch.0).from(scratch.1);
                match x.doubled {
                    true => convolve_doubled(job.level, job, index, scratch),
                    false => convolve_four(job.level, job, index, scratch),
                }
            }
        }
    });
}

/// Rows of the tile of a matrix product that stays in registers.
fn strip_rows(level: Level) -> usize {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 | Level::Avx512Bf16 | Level::Amx => 8,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => 6,
        _ => 4,
    }
}

/// Some outputs of the weights.
#[derive(Clone, Copy)]
struct Strip {
    number: usize,
    /// Strips in all.
    of: usize,
    rows: usize,
    /// Outputs and inputs in all.
    out: usize,
    channels: usize,
}

vectorised! { unsafe fn weights_four(weight: F32, strip: Strip, to: Out) = weights_any<Four> }
vectorised! { unsafe fn weights_doubled(weight: F32, strip: Strip, to: Out) = weights_any<Doubled> }

/// Transformed weights of the outputs of one strip: [side * side, strips, in, rows].
///
/// # Safety
/// `to` must have room for all of them, and nobody else writes this strip's.
#[inline(always)]
unsafe fn weights_any<L: Lanes, S: Scheme>(weight: F32, strip: Strip, to: Out) {
    let numbers = strip.channels * strip.rows;
    let pitch = strip.of * numbers;
    let first = strip.number * strip.rows;
    // The numbers of all rows for a channel lie together.
    for start in (0..numbers).step_by(16) {
        let n = 16.min(numbers - start);
        let mut gathered = [[0f32; 16]; 9];
        for lane in 0..n {
            let (channel, row) = ((start + lane) / strip.rows, first + (start + lane) % strip.rows);
            if row < strip.out {
                let g = weight.0.add((row * strip.channels + channel) * 9);
                for (k, to) in gathered.iter_mut().enumerate() {
                    to[lane] = *g.add(k);
                }
            }
        }
        let mut columns = [[L::zero(); 6]; 3];
        for c in 0..3 {
            let mut g = [L::zero(); 3];
            for r in 0..3 {
                g[r] = L::load(gathered[3 * r + c].as_ptr());
            }
            columns[c] = S::weights(g);
        }
        for i in 0..S::SIDE {
            let line = S::weights([columns[0][i], columns[1][i], columns[2][i]]);
            for j in 0..S::SIDE {
                line[j].store_part(to.at((i * S::SIDE + j) * pitch + strip.number * numbers + start), n);
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
    strips: usize,
    /// Groups side by side.
    segments: usize,
    /// Tiles of a group in a row, and rows of them; less at the right and below.
    abreast: usize,
    deep: usize,
    y: Out,
    add: bool,
}

// SAFETY: `weights` is only read, and each task writes its own tiles of `y`.
unsafe impl Send for Job<'_> {}
// SAFETY: as above.
unsafe impl Sync for Job<'_> {}

/// A group of tiles: its first row and column of tiles, and how many it has.
#[derive(Clone, Copy)]
struct Group {
    row: usize,
    column: usize,
    deep: usize,
    abreast: usize,
}

vectorised! { unsafe fn convolve_four(job: Job, group: usize, scratch: Out) = convolve_any<Four> }
vectorised! { unsafe fn convolve_doubled(job: Job, group: usize, scratch: Out) = convolve_any<Doubled> }

#[inline(always)]
unsafe fn convolve_any<L: Lanes, S: Scheme>(job: Job, group: usize, scratch: Out) {
    let (height, width) = job.x.size();
    let (row, column) = (group / job.segments * job.deep, group % job.segments * job.abreast);
    let deep = job.deep.min(height.div_ceil(S::OUT) - row);
    let abreast = job.abreast.min(width.div_ceil(S::OUT) - column);
    let group = Group { row, column, deep, abreast };
    let rows = strip_rows(job.level);
    let (inputs, outputs) = (job.x.channels, job.strips * rows);
    let products = scratch.from(S::SIDE * S::SIDE * inputs * GROUP);
    for channel in 0..inputs {
        input::<L, S>(job.x, channel, group, scratch.from(channel * GROUP), inputs * GROUP);
    }
    let vectors = (deep * abreast).div_ceil(16);
    for position in 0..S::SIDE * S::SIDE {
        let right = scratch.at(position * inputs * GROUP) as *const f32;
        for strip in 0..job.strips {
            let left = job.weights.add((position * job.strips + strip) * inputs * rows);
            let to = products.at((position * outputs + strip * rows) * GROUP);
            // The rows of a level's tile are a constant: one branch remains.
            match (rows, vectors) {
                (8, 3) => product::<L, 8, 3>(left, right, inputs, to),
                (8, 2) => product::<L, 8, 2>(left, right, inputs, to),
                (8, _) => product::<L, 8, 1>(left, right, inputs, to),
                _ => {
                    for v in 0..vectors {
                        let (right, to) = (right.add(16 * v), to.add(16 * v));
                        match rows {
                            6 => product::<L, 6, 1>(left, right, inputs, to),
                            _ => product::<L, 4, 1>(left, right, inputs, to),
                        }
                    }
                }
            }
        }
    }
    for channel in 0..job.bias.len() {
        output::<L, S>(job, channel, group, products.from(channel * GROUP), outputs * GROUP);
    }
}

/// `to = left right` for left [depth, R] and right [depth, 16 C] with rows [`GROUP`] apart, as those of the result.
#[inline(always)]
unsafe fn product<L: Lanes, const R: usize, const C: usize>(
    mut left: *const f32,
    mut right: *const f32,
    depth: usize,
    to: *mut f32,
) {
    let mut sums = [[L::zero(); C]; R];
    for _ in 0..depth {
        // The weights come from beyond the second-level cache.
        L::prefetch(left.wrapping_add(16 * R));
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
        right = right.wrapping_add(GROUP);
    }
    for (i, sums) in sums.iter().enumerate() {
        for (j, sum) in sums.iter().enumerate() {
            sum.store(to.add(i * GROUP + 16 * j));
        }
    }
}

/// Tells the processor that some pixels, which need not be there, will be wanted.
#[inline(always)]
unsafe fn prefetch<L: Lanes>(from: *const f32, count: usize) {
    for at in (0..count + 15).step_by(16) {
        L::prefetch(from.wrapping_add(at));
    }
}

/// `count` pixels of a row from column `first` on into `to`; 0 outside the picture.
#[inline(always)]
unsafe fn read_row<L: Lanes>(x: Planes, channel: usize, row: isize, first: isize, count: usize, to: &mut [f32; LINE]) {
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

/// Transforms the tiles of a group in one channel. Position p of the result goes to `to + p * pitch`, tile by tile.
#[inline(always)]
unsafe fn input<L: Lanes, S: Scheme>(x: Planes, channel: usize, group: Group, to: Out, pitch: usize) {
    // Rows of pixels, transformed along the row.
    let mut lines = [[L::zero(); 6]; 4 * DEEP + 2];
    let mut line = [0f32; LINE];
    // Pixel S::STEP t + j is number t of phase j.
    let mut phases = [[0f32; ABREAST + 16]; 4];
    let (top, left) = ((group.row * S::STEP) as isize - 1, (group.column * S::STEP) as isize - 1);
    let (rows, pixels) = ((group.deep - 1) * S::STEP + S::REACH, (group.abreast - 1) * S::STEP + S::REACH);
    for (row, line_to) in lines.iter_mut().enumerate().take(rows) {
        // The next channel's pixels lie a whole plane further: no processor sees them coming.
        let next = ((channel + 1) * x.height) as isize + top + row as isize;
        prefetch::<L>(x.data.as_ptr().wrapping_offset(next * x.width as isize + left), pixels);
        read_row::<L>(x, channel, top + row as isize, left, pixels, &mut line);
        if S::STEP == 4 {
            for t in 0..ABREAST + 1 {
                for (j, phase) in phases.iter_mut().enumerate() {
                    phase[t] = line[4 * t + j];
                }
            }
        } else {
            phases[0].copy_from_slice(&line[..ABREAST + 16]);
        }
        let mut d = [L::zero(); 6];
        for k in 0..S::REACH {
            d[k] = L::load(phases[k % S::STEP].as_ptr().add(k / S::STEP));
        }
        *line_to = S::inputs(d);
    }
    for row in 0..group.deep {
        for j in 0..S::SIDE {
            let mut d = [L::zero(); 6];
            for k in 0..S::REACH {
                d[k] = lines[row * S::STEP + k][j];
            }
            let made = S::inputs(d);
            for i in 0..S::SIDE {
                made[i].store_part(to.at((i * S::SIDE + j) * pitch + row * group.abreast), group.abreast);
            }
        }
    }
}

/// The pixels of the tiles of a group in one channel. Position p of their products lies at `products + p * pitch`.
#[inline(always)]
unsafe fn output<L: Lanes, S: Scheme>(job: Job, channel: usize, group: Group, products: Out, pitch: usize) {
    let (height, width) = job.x.size();
    let bias = L::splat(job.bias[channel]);
    let mut line = [0f32; LINE];
    for row in 0..group.deep {
        let mut columns = [[L::zero(); 6]; 4];
        for j in 0..S::SIDE {
            let mut m = [L::zero(); 6];
            for i in 0..S::SIDE {
                m[i] = L::load(products.at((i * S::SIDE + j) * pitch + row * group.abreast));
            }
            let made = S::outputs(m);
            for i in 0..S::OUT {
                columns[i][j] = made[i];
            }
        }
        let x = group.column * S::OUT;
        for i in 0..S::OUT {
            let y = (group.row + row) * S::OUT + i;
            if y >= height {
                break;
            }
            let made = S::outputs(columns[i]);
            let mut apart = [[0f32; ABREAST]; 4];
            for j in 0..S::OUT {
                made[j].store(apart[j].as_mut_ptr());
            }
            for t in 0..ABREAST {
                for j in 0..S::OUT {
                    line[S::OUT * t + j] = apart[j][t];
                }
            }
            let pixels = (S::OUT * group.abreast).min(width - x);
            prefetch::<L>(job.y.0.wrapping_add(((channel + 1) * height + y) * width + x), pixels);
            let to = job.y.at((channel * height + y) * width + x);
            for at in (0..pixels).step_by(16) {
                let (sum, left) = (L::load(line.as_ptr().add(at)).add(bias), pixels - at);
                let sum = if job.add { sum.add(L::load_part(to.add(at), left)) } else { sum };
                sum.store_part(to.add(at), left);
            }
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
