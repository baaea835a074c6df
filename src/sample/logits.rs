//! From two rows of logits to one drawn code: guidance, top-k, temperature, draw, in this order.
//!
//! The grammar mask needs no step of its own: where a code stands, only codes may stand, so only the head's code rows are
//! ever computed; where the grammar leaves no choice, nothing is drawn.

use crate::random::add_gumbel;

/// Classifier-free guidance: `unconditional + scale (conditional - unconditional)`, in place of `conditional`.
pub fn guide(conditional: &mut [f32], unconditional: &[f32], scale: f32) {
    for (c, u) in conditional.iter_mut().zip(unconditional) {
        *c = scale * (*c - u) + u;
    }
}

/// Puts every logit below the k-th largest to minus infinity; ties with it stay. 0 keeps all.
pub fn keep_top_k(logits: &mut [f32], k: usize) {
    if k == 0 || k >= logits.len() {
        return;
    }
    let mut sorted = logits.to_vec();
    let (_, threshold, _) = sorted.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
    let threshold = *threshold;
    logits.iter_mut().filter(|l| **l < threshold).for_each(|l| *l = f32::NEG_INFINITY);
}

/// Draws an index from softmax(logits / temperature) by the Gumbel-max rule, with the noise of this seed and position.
pub fn draw(logits: &mut [f32], temperature: f32, seed: u64, position: u32) -> u32 {
    logits.iter_mut().for_each(|l| *l /= temperature);
    add_gumbel(logits, seed, position);
    // The first of equal scores, so that the result does not depend on how the search is split.
    let best =
        logits.iter().enumerate().fold((0, f32::NEG_INFINITY), |best, (i, &l)| if l > best.1 { (i, l) } else { best });
    best.0 as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guidance_of_one_changes_nothing_and_more_moves_away_from_the_unconditional() {
        let mut logits = [1.0, 2.0];
        guide(&mut logits, &[0.5, 3.0], 1.0);
        assert_eq!(logits, [1.0, 2.0]);
        guide(&mut logits, &[0.5, 3.0], 4.0);
        assert_eq!(logits, [2.5, -1.0]);
    }

    #[test]
    fn top_k_keeps_ties_with_the_last_one() {
        let mut logits = [3.0, 1.0, 2.0, 2.0, 0.0];
        keep_top_k(&mut logits, 2);
        assert_eq!(logits, [3.0, f32::NEG_INFINITY, 2.0, 2.0, f32::NEG_INFINITY]);
        let mut logits = [1.0, 2.0];
        keep_top_k(&mut logits, 0);
        assert_eq!(logits, [1.0, 2.0]);
    }

    /// Pearson's statistic of draws against the exact distribution; the bound is the 99.9% quantile for `cells - 1`.
    fn chi_square(logits: &[f32], k: usize, temperature: f32, bound: f64) {
        let n = 20000;
        let mut kept = logits.to_vec();
        keep_top_k(&mut kept, k);
        let weights: Vec<f64> = kept.iter().map(|&l| (l as f64 / temperature as f64).exp()).collect();
        let total: f64 = weights.iter().sum();
        let mut counts = vec![0u32; logits.len()];
        for position in 0..n {
            counts[draw(&mut kept.clone(), temperature, 11, position) as usize] += 1;
        }
        let mut statistic = 0.0;
        for (&count, weight) in counts.iter().zip(&weights) {
            let expected = n as f64 * weight / total;
            if expected == 0.0 {
                assert_eq!(count, 0);
            } else {
                statistic += (count as f64 - expected).powi(2) / expected;
            }
        }
        assert!(statistic < bound, "{statistic}: {counts:?}");
    }

    #[test]
    fn draws_follow_the_exact_distribution() {
        let logits = [0.0, 1.0, 2.0, -1.0, 0.5, 0.25];
        chi_square(&logits, 0, 1.0, 20.5);
        chi_square(&logits, 3, 1.0, 13.8);
        chi_square(&logits, 0, 2.0, 20.5);
    }
}
