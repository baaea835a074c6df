//! Cross entropy over a large vocabulary.

use super::lanes::Lanes;
use super::{level, parallel, vectorised, Out};

/// For each row of `n` logits: cross entropy in nats against its target, and its log-normaliser. The logits become the gradient
/// of `sum of weight * (nats + z_loss * normaliser^2)`.
pub fn cross_entropy(
    logits: &mut [f32],
    n: usize,
    targets: &[u32],
    weights: &[f32],
    z_loss: f32,
    nats: &mut [f32],
    normalisers: &mut [f32],
) {
    let rows = targets.len();
    assert!(logits.len() == rows * n && weights.len() == rows, "sizes");
    assert!(nats.len() == rows && normalisers.len() == rows, "sizes");
    assert!(targets.iter().all(|&t| (t as usize) < n), "a target beyond the vocabulary");
    let work = 16 * logits.len();
    let (logits, nats, normalisers) = (Out::new(logits), Out::new(nats), Out::new(normalisers));
    parallel(rows, work, |row| {
        let target = targets[row] as usize;
        // SAFETY: row `row` of the logits and its place in the results are this task's; the target is within the row.
        unsafe {
            let logit = *logits.at(row * n + target);
            row_gradient(level(), logits, row * n, n, weights[row], z_loss, normalisers, row);
            *logits.at(row * n + target) -= weights[row];
            *nats.at(row) = *normalisers.at(row) - logit;
        }
    });
}

vectorised! {
    unsafe fn row_gradient(x: Out, at: usize, n: usize, weight: f32, z_loss: f32, normaliser: Out, row: usize) = row_any
}

/// `weight * softmax * (1 + 2 z_loss normaliser)` in place of the logits.
#[inline(always)]
unsafe fn row_any<L: Lanes>(x: Out, at: usize, n: usize, weight: f32, z_loss: f32, normaliser: Out, row: usize) {
    let x = x.at(at);
    let whole = n / 16 * 16;
    let mut most = f32::NEG_INFINITY;
    if whole > 0 {
        let mut lanes = L::load(x);
        for i in (16..whole).step_by(16) {
            lanes = lanes.max(L::load(x.add(i)));
        }
        most = lanes.largest();
    }
    for i in whole..n {
        most = most.max(*x.add(i));
    }
    let shift = L::splat(-most);
    let mut sum = L::zero();
    for i in (0..whole).step_by(16) {
        let e = L::load(x.add(i)).add(shift).exp();
        e.store(x.add(i));
        sum = sum.add(e);
    }
    let mut total = sum.sum();
    if whole < n {
        let mut rest = [0f32; 16];
        L::load_part(x.add(whole), n - whole).add(shift).exp().store(rest.as_mut_ptr());
        for (i, e) in rest.into_iter().take(n - whole).enumerate() {
            *x.add(whole + i) = e;
            total += e;
        }
    }
    let norm = most + total.ln();
    *normaliser.at(row) = norm;
    let factor = L::splat(weight * (1.0 + 2.0 * z_loss * norm) / total);
    for i in (0..n).step_by(16) {
        L::load_part(x.add(i), n - i).mul(factor).store_part(x.add(i), n - i);
    }
}
