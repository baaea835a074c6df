//! Queries and keys of length one with rotary positions behind, for attention by cosines: `y = R (strength x / |x|)`, where R turns
//! pairs of neighbouring channels.

use super::lanes::Lanes;
use super::{level, parallel, vectorised, zeros, Out};

/// Rows that a task takes.
const CHUNK: usize = 16;
/// What a length counts as at least.
const LEAST: f32 = 1e-12;

/// x is [rows, heads, d] with `pitch` numbers from row to row; cos and sin are [positions, d / 2], and row r has position
/// r mod positions.
#[derive(Clone, Copy)]
pub struct Cosine<'a> {
    pub heads: usize,
    pub d: usize,
    pub pitch: usize,
    /// [heads]
    pub strength: &'a [f32],
    pub cos: &'a [f32],
    pub sin: &'a [f32],
}

impl Cosine<'_> {
    fn check(&self, rows: usize, x: &[f32]) -> usize {
        let width = self.heads * self.d;
        assert!(self.d.is_multiple_of(2) && self.strength.len() == self.heads && self.pitch >= width, "sizes");
        assert!(rows > 0 && x.len() >= (rows - 1) * self.pitch + width, "sizes");
        let positions = self.cos.len() / (self.d / 2);
        assert!(self.cos.len() == self.sin.len() && positions > 0 && rows.is_multiple_of(positions), "sizes");
        positions
    }

    /// y is [rows, heads, d], dense.
    pub fn forward(&self, x: &[f32], y: &mut [f32]) {
        let Cosine { heads, d, pitch, strength, .. } = *self;
        let rows = y.len() / (heads * d);
        let positions = self.check(rows, x);
        assert_eq!(y.len(), rows * heads * d, "sizes");
        let y = Out::new(y);
        parallel(rows.div_ceil(CHUNK), 6 * rows * heads * d, |task| {
            for row in task * CHUNK..rows.min((task + 1) * CHUNK) {
                let angles = row % positions * (d / 2);
                let angles = (&self.cos[angles..][..d / 2], &self.sin[angles..][..d / 2]);
                for head in 0..heads {
                    // SAFETY: d numbers of x, within it by `check`, and this head of this row of y, which is this task's.
                    let (x, y) = unsafe {
                        let to = std::slice::from_raw_parts_mut(y.at((row * heads + head) * d), d);
                        (x.get_unchecked(row * pitch + head * d..row * pitch + (head + 1) * d), to)
                    };
                    // SAFETY: all slices have the lengths that d asks for.
                    unsafe { head_forward(level(), x, strength[head], angles, y) }
                }
            }
        });
    }

    /// The gradient of x for the gradient `g` [rows, heads, d] of the result, into `dx`, which lies as x does; and that of
    /// the strengths, [heads].
    pub fn backward(&self, g: &[f32], x: &[f32], dx: &mut [f32]) -> Vec<f32> {
        let Cosine { heads, d, pitch, strength, .. } = *self;
        let rows = g.len() / (heads * d);
        let positions = self.check(rows, x);
        assert!(g.len() == rows * heads * d && dx.len() >= (rows - 1) * pitch + heads * d, "sizes");
        let tasks = rows.div_ceil(CHUNK);
        let mut parts = zeros(tasks * heads);
        let (dx, sums) = (Out::new(dx), Out::new(&mut parts));
        parallel(tasks, 10 * rows * heads * d, |task| {
            for row in task * CHUNK..rows.min((task + 1) * CHUNK) {
                let angles = row % positions * (d / 2);
                let angles = (&self.cos[angles..][..d / 2], &self.sin[angles..][..d / 2]);
                for head in 0..heads {
                    let at = row * pitch + head * d;
                    let g = &g[(row * heads + head) * d..][..d];
                    // SAFETY: d numbers of dx, within it by the checks, and a sum, which are this task's.
                    let (dx, sum) =
                        unsafe { (std::slice::from_raw_parts_mut(dx.at(at), d), &mut *sums.at(task * heads + head)) };
                    // SAFETY: all slices have the lengths that d asks for.
                    *sum += unsafe { head_backward(level(), g, &x[at..at + d], strength[head], angles, dx) };
                }
            }
        });
        // In the order of the rows, whatever the threads were.
        let mut total = vec![0f32; heads];
        for part in parts.chunks_exact(heads) {
            total.iter_mut().zip(part).for_each(|(total, part)| *total += part);
        }
        total
    }
}

/// 1 / the length.
#[inline(always)]
unsafe fn inverse<L: Lanes>(x: &[f32]) -> f32 {
    let mut squares = L::zero();
    for i in (0..x.len()).step_by(16) {
        let x = L::load_part(x.as_ptr().add(i), x.len() - i);
        squares = x.fma(x, squares);
    }
    1.0 / squares.sum().sqrt().max(LEAST)
}

vectorised! {
    unsafe fn head_forward(x: &[f32], strength: f32, angles: (&[f32], &[f32]), y: &mut [f32]) = head_forward_any
}

#[inline(always)]
unsafe fn head_forward_any<L: Lanes>(x: &[f32], strength: f32, (cos, sin): (&[f32], &[f32]), y: &mut [f32]) {
    let scale = inverse::<L>(x) * strength;
    for (((x, y), c), s) in x.chunks_exact(2).zip(y.chunks_exact_mut(2)).zip(cos).zip(sin) {
        let (a, b) = (x[0] * scale, x[1] * scale);
        y[0] = a * c - b * s;
        y[1] = b * c + a * s;
    }
}

vectorised! {
    unsafe fn head_backward(g: &[f32], x: &[f32], strength: f32, angles: (&[f32], &[f32]), dx: &mut [f32]) -> f32
        = head_backward_any
}

/// Returns the gradient of the strength.
#[inline(always)]
unsafe fn head_backward_any<L: Lanes>(
    g: &[f32],
    x: &[f32],
    strength: f32,
    (cos, sin): (&[f32], &[f32]),
    dx: &mut [f32],
) -> f32 {
    let inverse = inverse::<L>(x);
    for (((g, dx), c), s) in g.chunks_exact(2).zip(dx.chunks_exact_mut(2)).zip(cos).zip(sin) {
        dx[0] = g[0] * c + g[1] * s;
        dx[1] = g[1] * c - g[0] * s;
    }
    let mut along = L::zero();
    for i in (0..x.len()).step_by(16) {
        let x = L::load_part(x.as_ptr().add(i), x.len() - i);
        along = x.fma(L::load_part(dx.as_ptr().add(i), dx.len() - i), along);
    }
    // Of x / |x|.
    let along = along.sum() * inverse;
    let (scale, back) = (strength * inverse, along * inverse);
    // No closure: it would not have the processor's vectors.
    for (dx, x) in dx.iter_mut().zip(x) {
        *dx = scale * (*dx - back * x);
    }
    along
}
