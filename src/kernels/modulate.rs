//! What stands between the products of a layer whose norms are steered from outside: layer norm with a factor and a summand for
//! each channel, gated sums, biases; forward and backward.
//!
//! Matrices are rows of `n` channels. Factors, summands and gates are [groups, n]: as many groups of equally many consecutive rows
//! as there are sequences, or one for all rows.

use super::lanes::Lanes;
use super::matrix::F32;
use super::{level, parallel, vectorised, zeros, Out};

/// Rows that a task takes, all of one group. Sums over rows are made of sums over so many, so they do not depend on the threads.
const CHUNK: usize = 32;

/// Rows of `n` channels in groups, and the tasks that they are split into.
#[derive(Clone, Copy)]
struct Rows {
    n: usize,
    /// Rows in a group.
    each: usize,
    groups: usize,
}

impl Rows {
    fn new(numbers: usize, n: usize, grouped: usize) -> Self {
        assert!(n > 0 && grouped > 0 && grouped.is_multiple_of(n) && numbers.is_multiple_of(grouped), "sizes");
        let groups = grouped / n;
        Rows { n, each: numbers / n / groups, groups }
    }

    fn tasks(self) -> usize {
        self.groups * self.each.div_ceil(CHUNK)
    }

    /// Group and first and last but one row of a task.
    fn task(self, task: usize) -> (usize, usize, usize) {
        let chunks = self.each.div_ceil(CHUNK);
        let (group, first) = (task / chunks, task % chunks * CHUNK);
        let start = group * self.each;
        (group, start + first, start + self.each.min(first + CHUNK))
    }

    fn numbers(self) -> usize {
        self.n * self.each * self.groups
    }

    /// Runs `f` for each task with its group, its rows and room for `sums` rows, which are then added over the tasks of a group in
    /// their order: [sums, groups, n].
    fn summed(
        self,
        sums: usize,
        work: usize,
        f: impl Fn(usize, std::ops::Range<usize>, &mut [f32]) + Sync,
    ) -> Vec<f32> {
        let n = self.n;
        let mut parts = zeros(self.tasks() * sums * n);
        let to = Out::new(&mut parts);
        parallel(self.tasks(), work * self.numbers(), |task| {
            let (group, first, end) = self.task(task);
            // SAFETY: the room of this task, which no other uses.
            let own = unsafe { std::slice::from_raw_parts_mut(to.at(task * sums * n), sums * n) };
            f(group, first..end, own);
        });
        let mut total = zeros(sums * self.groups * n);
        for task in 0..self.tasks() {
            let group = self.task(task).0;
            for sum in 0..sums {
                let from = &parts[(task * sums + sum) * n..][..n];
                let to = &mut total[(sum * self.groups + group) * n..][..n];
                to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
            }
        }
        total
    }
}

/// `y = (x - mean) / deviation * factor + summand` for each row.
pub fn layer_norm(x: &[f32], n: usize, factor: &[f32], summand: &[f32], eps: f32, y: &mut [f32]) {
    let rows = Rows::new(x.len(), n, factor.len());
    assert!(y.len() == x.len() && summand.len() == factor.len(), "sizes");
    let (x, m, s, y) = (F32(x.as_ptr()), F32(factor.as_ptr()), F32(summand.as_ptr()), Out::new(y));
    parallel(rows.tasks(), 6 * rows.numbers(), |task| {
        let (group, first, end) = rows.task(task);
        for row in first..end {
            // SAFETY: row `row` lies within x and y and is this task's; the group's rows lie within both others.
            unsafe { norm_row(level(), x, m, s, eps, y, (row, group), n) }
        }
    });
}

vectorised! {
    unsafe fn norm_row(x: F32, m: F32, s: F32, eps: f32, y: Out, at: (usize, usize), n: usize) = norm_row_any
}

#[inline(always)]
unsafe fn norm_row_any<L: Lanes>(x: F32, m: F32, s: F32, eps: f32, y: Out, (row, group): (usize, usize), n: usize) {
    let (x, y, m, s) = (x.0.add(row * n), y.at(row * n), m.0.add(group * n), s.0.add(group * n));
    let (mean, scale) = statistics::<L>(x, eps, n);
    let (mean, scale) = (L::splat(mean), L::splat(scale));
    for i in (0..n).step_by(16) {
        let hat = L::load_part(x.add(i), n - i).sub(mean).mul(scale);
        hat.fma(L::load_part(m.add(i), n - i), L::load_part(s.add(i), n - i)).store_part(y.add(i), n - i);
    }
}

/// Mean and 1 / standard deviation.
#[inline(always)]
unsafe fn statistics<L: Lanes>(x: *const f32, eps: f32, n: usize) -> (f32, f32) {
    let mut sum = L::zero();
    for i in (0..n).step_by(16) {
        sum = sum.add(L::load_part(x.add(i), n - i));
    }
    let mean = sum.sum() / n as f32;
    let (m, mut squares, whole) = (L::splat(mean), L::zero(), n / 16 * 16);
    for i in (0..whole).step_by(16) {
        let x = L::load(x.add(i)).sub(m);
        squares = x.fma(x, squares);
    }
    let rest: f32 = (whole..n).map(|i| (*x.add(i) - mean).powi(2)).sum();
    (mean, 1.0 / ((squares.sum() + rest) / n as f32 + eps).sqrt())
}

/// The gradient `dx` of [`layer_norm`] for the gradient `g` of its result; with `wanted`, also those of factor and summand,
/// [2, groups, n].
pub fn layer_norm_backward(
    g: &[f32],
    x: &[f32],
    n: usize,
    factor: &[f32],
    eps: f32,
    dx: &mut [f32],
    wanted: bool,
) -> Vec<f32> {
    let rows = Rows::new(x.len(), n, factor.len());
    assert!(g.len() == x.len() && dx.len() == x.len(), "sizes");
    let (g, x, m, dx) = (F32(g.as_ptr()), F32(x.as_ptr()), F32(factor.as_ptr()), Out::new(dx));
    rows.summed(if wanted { 2 } else { 0 }, 12, |group, own, sums| {
        let sums = Out::new(sums);
        for row in own {
            // SAFETY: row `row` lies within g, x and dx and is this task's, as are the sums.
            unsafe { norm_backward_row(level(), (g, x, m), eps, dx, sums, (row, group), n, wanted) }
        }
    })
}

vectorised! {
    unsafe fn norm_backward_row(
        of: (F32, F32, F32), eps: f32, dx: Out, sums: Out, at: (usize, usize), n: usize, wanted: bool,
    ) = norm_backward_row_any
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn norm_backward_row_any<L: Lanes>(
    (g, x, m): (F32, F32, F32),
    eps: f32,
    dx: Out,
    sums: Out,
    (row, group): (usize, usize),
    n: usize,
    wanted: bool,
) {
    let (g, x, m, dx) = (g.0.add(row * n), x.0.add(row * n), m.0.add(group * n), dx.at(row * n));
    let (mean, scale) = statistics::<L>(x, eps, n);
    let (mean, scale) = (L::splat(mean), L::splat(scale));
    let (mut total, mut along) = (L::zero(), L::zero());
    for i in (0..n).step_by(16) {
        let g = L::load_part(g.add(i), n - i);
        let hat = L::load_part(x.add(i), n - i).sub(mean).mul(scale);
        if wanted {
            let (dm, ds) = (sums.at(i), sums.at(n + i));
            g.fma(hat, L::load_part(dm, n - i)).store_part(dm, n - i);
            g.add(L::load_part(ds, n - i)).store_part(ds, n - i);
        }
        let gm = g.mul(L::load_part(m.add(i), n - i));
        total = total.add(gm);
        // Lanes behind the end: gm is 0 there.
        along = gm.fma(hat, along);
    }
    let (total, along) = (L::splat(total.sum() / n as f32), L::splat(-along.sum() / n as f32));
    for i in (0..n).step_by(16) {
        let hat = L::load_part(x.add(i), n - i).sub(mean).mul(scale);
        let gm = L::load_part(g.add(i), n - i).mul(L::load_part(m.add(i), n - i)).sub(total);
        hat.fma(along, gm).mul(scale).store_part(dx.add(i), n - i);
    }
}

/// `y += x * gate` for each row; without `x`, `y += gate`.
pub fn add_gated(y: &mut [f32], n: usize, x: Option<&[f32]>, gate: &[f32]) {
    let rows = Rows::new(y.len(), n, gate.len());
    assert!(x.is_none_or(|x| x.len() == y.len()), "sizes");
    let (x, gate, y) = (x.map(|x| F32(x.as_ptr())), F32(gate.as_ptr()), Out::new(y));
    parallel(rows.tasks(), 4 * rows.numbers(), |task| {
        let (group, first, end) = rows.task(task);
        for row in first..end {
            // SAFETY: row `row` lies within x and y and is this task's; row `group` lies within the gates.
            unsafe { gated_row(level(), x, gate, y, (row, group), n) }
        }
    });
}

vectorised! { unsafe fn gated_row(x: Option<F32>, gate: F32, y: Out, at: (usize, usize), n: usize) = gated_row_any }

#[inline(always)]
unsafe fn gated_row_any<L: Lanes>(x: Option<F32>, gate: F32, y: Out, (row, group): (usize, usize), n: usize) {
    let (gate, y) = (gate.0.add(group * n), y.at(row * n));
    for i in (0..n).step_by(16) {
        let (gate, sum) = (L::load_part(gate.add(i), n - i), L::load_part(y.add(i), n - i));
        let sum = match x {
            Some(x) => L::load_part(x.0.add(row * n + i), n - i).fma(gate, sum),
            None => sum.add(gate),
        };
        sum.store_part(y.add(i), n - i);
    }
}

/// The gradient `dx = g * gate` of x in [`add_gated`], and with `x` that of the gates, [groups, n].
pub fn gate_backward(g: &[f32], n: usize, x: Option<&[f32]>, gate: &[f32], dx: &mut [f32]) -> Vec<f32> {
    let rows = Rows::new(g.len(), n, gate.len());
    assert!(x.is_none_or(|x| x.len() == g.len()) && dx.len() == g.len(), "sizes");
    let (g, x, gate, dx) = (F32(g.as_ptr()), x.map(|x| F32(x.as_ptr())), F32(gate.as_ptr()), Out::new(dx));
    rows.summed(usize::from(x.is_some()), 4, |group, own, sums| {
        let sums = Out::new(sums);
        for row in own {
            // SAFETY: row `row` lies within g, x and dx and is this task's, as are the sums.
            unsafe { gate_backward_row(level(), (g, x, gate), dx, sums, (row, group), n) }
        }
    })
}

vectorised! {
    unsafe fn gate_backward_row(of: (F32, Option<F32>, F32), dx: Out, sums: Out, at: (usize, usize), n: usize)
        = gate_backward_row_any
}

#[inline(always)]
unsafe fn gate_backward_row_any<L: Lanes>(
    (g, x, gate): (F32, Option<F32>, F32),
    dx: Out,
    sums: Out,
    (row, group): (usize, usize),
    n: usize,
) {
    let (g, gate, dx) = (g.0.add(row * n), gate.0.add(group * n), dx.at(row * n));
    for i in (0..n).step_by(16) {
        let g = L::load_part(g.add(i), n - i);
        if let Some(x) = x {
            let sum = sums.at(i);
            g.fma(L::load_part(x.0.add(row * n + i), n - i), L::load_part(sum, n - i)).store_part(sum, n - i);
        }
        g.mul(L::load_part(gate.add(i), n - i)).store_part(dx.add(i), n - i);
    }
}

/// Sums over the rows of each of some groups, [groups, n]: the gradient of a bias.
pub fn row_sums(g: &[f32], n: usize, groups: usize) -> Vec<f32> {
    let rows = Rows::new(g.len(), n, groups * n);
    let from = F32(g.as_ptr());
    rows.summed(1, 1, |_, own, sums| {
        let sums = Out::new(sums);
        for row in own {
            // SAFETY: row `row` lies within g, and the sums are this task's.
            unsafe { sum_row(level(), from, sums, row, n) }
        }
    })
}

vectorised! { unsafe fn sum_row(g: F32, sums: Out, row: usize, n: usize) = sum_row_any }

#[inline(always)]
unsafe fn sum_row_any<L: Lanes>(g: F32, sums: Out, row: usize, n: usize) {
    let (g, sums) = (g.0.add(row * n), sums.at(0));
    for i in (0..n).step_by(16) {
        L::load_part(g.add(i), n - i).add(L::load_part(sums.add(i), n - i)).store_part(sums.add(i), n - i);
    }
}
