//! Norms over the rows of a matrix, and their backward passes.

use super::activation::fill;
use super::lanes::Lanes;
use super::matrix::F32;
use super::{level, parallel, vectorised, Out};

/// Rows that a task takes.
const CHUNK: usize = 16;

/// `y = x / rms(x) * weight` for each row of `weight.len()` numbers.
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, y: &mut [f32]) {
    let n = weight.len();
    assert!(x.len() == y.len() && x.len().is_multiple_of(n), "sizes");
    let (rows, y) = (x.len() / n, Out::new(y));
    let (x, w) = (F32(x.as_ptr()), F32(weight.as_ptr()));
    parallel(rows.div_ceil(CHUNK), 4 * rows * n, |task| {
        for row in task * CHUNK..rows.min((task + 1) * CHUNK) {
            // SAFETY: row `row` lies within x and y, and no other task writes it.
            unsafe { rms_row(level(), x, w, eps, y, row, n) }
        }
    });
}

vectorised! { unsafe fn rms_row(x: F32, w: F32, eps: f32, y: Out, row: usize, n: usize) = rms_row_any }

#[inline(always)]
unsafe fn rms_row_any<L: Lanes>(x: F32, w: F32, eps: f32, y: Out, row: usize, n: usize) {
    let (x, y) = (x.0.add(row * n), y.at(row * n));
    let scale = L::splat(rms_scale::<L>(x, eps, n));
    for i in (0..n).step_by(16) {
        let x = L::load_part(x.add(i), n - i);
        x.mul(scale).mul(L::load_part(w.0.add(i), n - i)).store_part(y.add(i), n - i);
    }
}

#[inline(always)]
unsafe fn rms_scale<L: Lanes>(x: *const f32, eps: f32, n: usize) -> f32 {
    let mut square = L::zero();
    for i in (0..n).step_by(16) {
        let x = L::load_part(x.add(i), n - i);
        square = x.fma(x, square);
    }
    1.0 / (square.sum() / n as f32 + eps).sqrt()
}

/// The gradient `dx` of [`rms_norm`] for the gradient `g` of its result. With `dw`, adds the gradient of the weight to it.
pub fn rms_norm_backward(g: &[f32], x: &[f32], weight: &[f32], eps: f32, dx: &mut [f32], dw: Option<&mut [f32]>) {
    let n = weight.len();
    assert!(x.len() == g.len() && x.len() == dx.len() && x.len().is_multiple_of(n), "sizes");
    let rows = x.len() / n;
    if let Some(dw) = dw {
        assert_eq!(dw.len(), n, "sizes");
        // In the order of the rows, so that the sum is the same each time.
        for row in 0..rows {
            // SAFETY: row `row` lies within x and g, and dw is as long as a row.
            unsafe { rms_weight_row(level(), F32(x.as_ptr()), F32(g.as_ptr()), eps, Out::new(dw), row, n) }
        }
    }
    let dx = Out::new(dx);
    let (x, w, g) = (F32(x.as_ptr()), F32(weight.as_ptr()), F32(g.as_ptr()));
    parallel(rows.div_ceil(CHUNK), 8 * rows * n, |task| {
        for row in task * CHUNK..rows.min((task + 1) * CHUNK) {
            // SAFETY: row `row` lies within x, g and dx, and no other task writes it.
            unsafe { rms_backward_row(level(), g, x, w, eps, dx, row, n) }
        }
    });
}

vectorised! { unsafe fn rms_weight_row(x: F32, g: F32, eps: f32, dw: Out, row: usize, n: usize) = rms_weight_row_any }

#[inline(always)]
unsafe fn rms_weight_row_any<L: Lanes>(x: F32, g: F32, eps: f32, dw: Out, row: usize, n: usize) {
    let (x, g, dw) = (x.0.add(row * n), g.0.add(row * n), dw.at(0));
    let scale = L::splat(rms_scale::<L>(x, eps, n));
    for i in (0..n).step_by(16) {
        let hat = L::load_part(x.add(i), n - i).mul(scale);
        hat.fma(L::load_part(g.add(i), n - i), L::load_part(dw.add(i), n - i)).store_part(dw.add(i), n - i);
    }
}

vectorised! {
    unsafe fn rms_backward_row(g: F32, x: F32, w: F32, eps: f32, dx: Out, row: usize, n: usize) = rms_backward_row_any
}

#[inline(always)]
unsafe fn rms_backward_row_any<L: Lanes>(g: F32, x: F32, w: F32, eps: f32, dx: Out, row: usize, n: usize) {
    let (g, x, dx) = (g.0.add(row * n), x.0.add(row * n), dx.at(row * n));
    let scale = rms_scale::<L>(x, eps, n);
    let mut along = L::zero();
    for i in (0..n).step_by(16) {
        let gw = L::load_part(g.add(i), n - i).mul(L::load_part(w.0.add(i), n - i));
        along = gw.fma(L::load_part(x.add(i), n - i), along);
    }
    // dx = scale (g w - hat mean(g w hat)), hat = x scale
    let mean = L::splat(-along.sum() * scale * scale / n as f32);
    let scale = L::splat(scale);
    for i in (0..n).step_by(16) {
        let gw = L::load_part(g.add(i), n - i).mul(L::load_part(w.0.add(i), n - i));
        L::load_part(x.add(i), n - i).fma(mean, gw).mul(scale).store_part(dx.add(i), n - i);
    }
}

/// The layer norm of queries and keys with the rotary positions behind it.
///
/// x is [rows, heads, d]; weight and bias are [heads, d]; cos and sin are [positions, d / 2], and row r has position
/// r mod positions. Channel j pairs with channel j + d / 2.
#[derive(Clone, Copy)]
pub struct Rotary<'a> {
    pub heads: usize,
    pub d: usize,
    pub weight: &'a [f32],
    pub bias: &'a [f32],
    pub eps: f32,
    pub cos: &'a [f32],
    pub sin: &'a [f32],
}

impl Rotary<'_> {
    fn rows(&self, x: &[f32]) -> usize {
        let (width, half) = (self.heads * self.d, self.d / 2);
        assert!(self.weight.len() == width && self.bias.len() == width && x.len().is_multiple_of(width), "sizes");
        assert!(
            self.cos.len() == self.sin.len() && self.cos.len().is_multiple_of(half) && !self.cos.is_empty(),
            "sizes"
        );
        x.len() / width
    }

    /// cos and sin of a row.
    fn angles(&self, row: usize) -> (&[f32], &[f32]) {
        let half = self.d / 2;
        let at = row % (self.cos.len() / half) * half;
        (&self.cos[at..at + half], &self.sin[at..at + half])
    }

    pub fn forward(&self, x: &[f32], y: &mut [f32]) {
        let (rows, d, width) = (self.rows(x), self.d, self.heads * self.d);
        assert_eq!(x.len(), y.len(), "sizes");
        let y = Out::new(y);
        parallel(rows.div_ceil(CHUNK), 8 * x.len(), |task| {
            for row in task * CHUNK..rows.min((task + 1) * CHUNK) {
                let (cos, sin) = self.angles(row);
                let angles = (F32(cos.as_ptr()), F32(sin.as_ptr()));
                for head in 0..self.heads {
                    let at = row * width + head * d;
                    let (w, b) = (F32(self.weight[head * d..].as_ptr()), F32(self.bias[head * d..].as_ptr()));
                    // SAFETY: head `head` of row `row` lies within x and y, and no other task writes it.
                    unsafe { rotary_head(level(), F32(x[at..at + d].as_ptr()), (w, b), angles, self.eps, y, at, d) }
                }
            }
        });
    }

    /// The gradient `dx` for the gradient `g` of the result. With `dw`, adds the gradients of weight and bias, [heads, d]
    /// each.
    pub fn backward(&self, g: &[f32], x: &[f32], dx: &mut [f32], dw: Option<(&mut [f32], &mut [f32])>) {
        let (rows, d, width) = (self.rows(x), self.d, self.heads * self.d);
        assert!(x.len() == g.len() && x.len() == dx.len(), "sizes");
        let dx = Out::new(dx);
        let (wanted, sums) = match dw {
            Some((w, b)) => {
                assert!(w.len() == width && b.len() == width, "sizes");
                (true, (Out::new(w), Out::new(b)))
            }
            None => (false, (dx, dx)),
        };
        let one = |row: usize, head: usize| {
            let (cos, sin) = self.angles(row);
            let angles = (F32(cos.as_ptr()), F32(sin.as_ptr()));
            let at = row * width + head * d;
            let operands = (F32(g[at..at + d].as_ptr()), F32(x[at..at + d].as_ptr()));
            let w = F32(self.weight[head * d..].as_ptr());
            // SAFETY: head `head` of row `row` lies within g, x, dx and the sums; no other task writes that part of dx, and
            // the sums of a head belong to one task.
            unsafe { rotary_backward_head(level(), operands, w, angles, self.eps, dx, at, d, wanted, sums, head * d) }
        };
        if wanted {
            // A head to a task: its sums run over the rows in their order.
            parallel(self.heads, 16 * x.len(), |head| (0..rows).for_each(|row| one(row, head)));
        } else {
            parallel(rows.div_ceil(CHUNK), 16 * x.len(), |task| {
                for row in task * CHUNK..rows.min((task + 1) * CHUNK) {
                    (0..self.heads).for_each(|head| one(row, head));
                }
            });
        }
    }
}

/// Rotary positions without a norm, of x [rows, heads, d], or with `back` the other way round; cos and sin as in [`Rotary`].
pub fn rotate(x: &[f32], (heads, d): (usize, usize), cos: &[f32], sin: &[f32], back: bool, y: &mut [f32]) {
    let (width, half) = (heads * d, d / 2);
    assert!(x.len() == y.len() && x.len().is_multiple_of(width), "sizes");
    assert!(cos.len() == sin.len() && cos.len().is_multiple_of(half) && !cos.is_empty(), "sizes");
    let positions = cos.len() / half;
    let sign = if back { -1.0 } else { 1.0 };
    fill(y, |mut at, mut y| {
        // A half of a head, or what of it lies in this piece, at a time.
        while !y.is_empty() {
            let (channel, from) = (at % half, at / width % positions * half);
            let (now, later) = y.split_at_mut(y.len().min(half - channel));
            let second = at % d >= half;
            let (pair, sign) = if second { (at - half, sign) } else { (at + half, -sign) };
            let (own, pair) = (&x[at..at + now.len()], &x[pair..pair + now.len()]);
            let (cos, sin) = (&cos[from + channel..][..now.len()], &sin[from + channel..][..now.len()]);
            for i in 0..now.len() {
                now[i] = own[i] * cos[i] + sign * pair[i] * sin[i];
            }
            at += now.len();
            y = later;
        }
    });
}

/// Mean and 1 / standard deviation.
#[inline(always)]
unsafe fn statistics<L: Lanes>(x: *const f32, eps: f32, d: usize) -> (f32, f32) {
    let mut sum = L::zero();
    for i in (0..d).step_by(16) {
        sum = sum.add(L::load_part(x.add(i), d - i));
    }
    let mean = sum.sum() / d as f32;
    let mut square = 0f32;
    let mut lanes = L::zero();
    let whole = d / 16 * 16;
    for i in (0..whole).step_by(16) {
        let x = L::load(x.add(i)).sub(L::splat(mean));
        lanes = x.fma(x, lanes);
    }
    for i in whole..d {
        square += (*x.add(i) - mean).powi(2);
    }
    let variance = (lanes.sum() + square) / d as f32;
    (mean, 1.0 / (variance + eps).sqrt())
}

vectorised! {
    unsafe fn rotary_head(x: F32, w: (F32, F32), angles: (F32, F32), eps: f32, y: Out, at: usize, d: usize)
        = rotary_head_any
}

#[inline(always)]
unsafe fn rotary_head_any<L: Lanes>(
    x: F32,
    (w, b): (F32, F32),
    (cos, sin): (F32, F32),
    eps: f32,
    y: Out,
    at: usize,
    d: usize,
) {
    let (x, y, half) = (x.0, y.at(at), d / 2);
    let (mean, scale) = statistics::<L>(x, eps, d);
    let (mean, scale) = (L::splat(mean), L::splat(scale));
    for i in (0..half).step_by(16) {
        let n = half - i;
        // No closure: it would not have the processor's vectors.
        let mut normed = [L::zero(); 2];
        for (part, j) in [i, i + half].into_iter().enumerate() {
            let hat = L::load_part(x.add(j), n).sub(mean).mul(scale);
            normed[part] = hat.fma(L::load_part(w.0.add(j), n), L::load_part(b.0.add(j), n));
        }
        let [p, q] = normed;
        let (cos, sin) = (L::load_part(cos.0.add(i), n), L::load_part(sin.0.add(i), n));
        p.mul(cos).sub(q.mul(sin)).store_part(y.add(i), n);
        q.mul(cos).add(p.mul(sin)).store_part(y.add(i + half), n);
    }
}

vectorised! {
    unsafe fn rotary_backward_head(
        operands: (F32, F32), w: F32, angles: (F32, F32), eps: f32, dx: Out, at: usize, d: usize, wanted: bool,
        sums: (Out, Out), sum_at: usize,
    ) = rotary_backward_head_any
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn rotary_backward_head_any<L: Lanes>(
    (g, x): (F32, F32),
    w: F32,
    (cos, sin): (F32, F32),
    eps: f32,
    dx: Out,
    at: usize,
    d: usize,
    wanted: bool,
    sums: (Out, Out),
    sum_at: usize,
) {
    let (g, x, dx, half) = (g.0, x.0, dx.at(at), d / 2);
    let (mean, scale) = statistics::<L>(x, eps, d);
    let (m, s) = (L::splat(mean), L::splat(scale));
    // Turned back, times the weight: the gradient of the normalised numbers, kept in dx for the second loop.
    let (mut total, mut along) = (L::zero(), L::zero());
    for i in (0..half).step_by(16) {
        let n = half - i;
        let (cos, sin) = (L::load_part(cos.0.add(i), n), L::load_part(sin.0.add(i), n));
        let (gp, gq) = (L::load_part(g.add(i), n), L::load_part(g.add(i + half), n));
        let turned = [gp.mul(cos).add(gq.mul(sin)), gq.mul(cos).sub(gp.mul(sin))];
        for (j, turned) in [i, i + half].into_iter().zip(turned) {
            let hat = L::load_part(x.add(j), n).sub(m).mul(s);
            if wanted {
                let (dw, db) = (sums.0.at(sum_at + j), sums.1.at(sum_at + j));
                turned.fma(hat, L::load_part(dw, n)).store_part(dw, n);
                turned.add(L::load_part(db, n)).store_part(db, n);
            }
            let gw = turned.mul(L::load_part(w.0.add(j), n));
            gw.store_part(dx.add(j), n);
            total = total.add(gw);
            // Lanes behind the end: gw is 0 there.
            along = gw.fma(hat, along);
        }
    }
    let (total, along) = (L::splat(total.sum() / d as f32), L::splat(-along.sum() / d as f32));
    for i in (0..d).step_by(16) {
        let hat = L::load_part(x.add(i), d - i).sub(m).mul(s);
        let gw = L::load_part(dx.add(i), d - i).sub(total);
        hat.fma(along, gw).mul(s).store_part(dx.add(i), d - i);
    }
}
