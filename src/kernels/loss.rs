//! Cross entropy over a large vocabulary.

use super::lanes::Lanes;
use super::softmax::{exponentials, times};
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
            let normaliser = row_gradient(level(), logits.from(row * n), n, weights[row], z_loss);
            *logits.at(row * n + target) -= weights[row];
            *normalisers.at(row) = normaliser;
            *nats.at(row) = normaliser - logit;
        }
    });
}

vectorised! { unsafe fn row_gradient(x: Out, n: usize, weight: f32, z_loss: f32) -> f32 = row_gradient_any }

/// `weight * softmax * (1 + 2 z_loss normaliser)` in place of the logits. Returns the log-normaliser.
#[inline(always)]
unsafe fn row_gradient_any<L: Lanes>(x: Out, n: usize, weight: f32, z_loss: f32) -> f32 {
    let (normaliser, total) = exponentials::<L>(x.at(0), n, 1.0);
    times::<L>(x.at(0), n, weight * (1.0 + 2.0 * z_loss * normaliser) / total);
    normaliser
}
