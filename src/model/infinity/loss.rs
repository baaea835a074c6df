//! What a prediction of bits is worth, and its gradient (arXiv 2412.04431, section 3.2; 2504.02612, section 3).
//!
//! Logits are rows of two numbers a bit, that of 0 before that of 1. Each loss is a weighted sum over tokens of a mean over bits.

use crate::{Error, Result};
use rayon::prelude::*;

/// A loss and its gradient with respect to the logits.
pub struct Loss {
    pub total: f64,
    pub gradient: Vec<f32>,
}

/// How a student is compared with its teacher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Likeness {
    /// Divergence of each bit's two probabilities, their mean over bits.
    Bits,
    /// Divergence of one softmax over all numbers of a token, as ARBooth's code has it.
    Joint,
}

/// ln(1 + e^x)
fn softplus(x: f32) -> f32 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// Cross entropy of each bit in nats: labels are 0 or 1.
pub fn bit_nats(logits: &[f32], labels: &[u32]) -> Vec<f32> {
    let nats = |(pair, &label): (&[f32], &u32)| softplus((pair[0] - pair[1]) * if label == 1 { 1.0 } else { -1.0 });
    logits.chunks_exact(2).zip(labels).map(nats).collect()
}

/// `sum over tokens of weight * mean over bits of cross entropy`.
pub fn label_loss(logits: &[f32], labels: &[u32], weights: &[f32]) -> Result<Loss> {
    let bits = per_token(logits, labels.len() * 2, weights)? / 2;
    let row = |((logits, labels), &weight): ((&[f32], &[u32]), &f32)| {
        let weight = weight / bits as f32;
        let total: f32 = bit_nats(logits, labels).iter().sum();
        let slope = |(pair, &label): (&[f32], &u32)| {
            let g = weight * (sigmoid(pair[1] - pair[0]) - label as f32);
            [-g, g]
        };
        let gradient: Vec<f32> = logits.chunks_exact(2).zip(labels).flat_map(slope).collect();
        (f64::from(weight) * f64::from(total), gradient)
    };
    let rows = logits.par_chunks_exact(2 * bits).zip(labels.par_chunks_exact(bits)).zip(weights).map(row);
    Ok(gathered(rows.collect()))
}

/// `sum over tokens of weight * KL(teacher || student)`, by likeness.
pub fn teacher_loss(logits: &[f32], teacher: &[f32], weights: &[f32], likeness: Likeness) -> Result<Loss> {
    let width = per_token(logits, teacher.len(), weights)?;
    let group = match likeness {
        Likeness::Bits => 2,
        Likeness::Joint => width,
    };
    let share = group as f32 / width as f32;
    let row = |((logits, teacher), &weight): ((&[f32], &[f32]), &f32)| {
        let (mut total, mut gradient) = (0.0, Vec::with_capacity(width));
        for (student, teacher) in logits.chunks_exact(group).zip(teacher.chunks_exact(group)) {
            let (s, t) = (log_softmax(student), log_softmax(teacher));
            for (s, t) in s.iter().zip(&t) {
                total += t.exp() * (t - s);
                gradient.push(weight * share * (s.exp() - t.exp()));
            }
        }
        (f64::from(weight * share) * f64::from(total), gradient)
    };
    let rows = logits.par_chunks_exact(width).zip(teacher.par_chunks_exact(width)).zip(weights).map(row);
    Ok(gathered(rows.collect()))
}

fn log_softmax(x: &[f32]) -> Vec<f32> {
    let most = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let norm = most + x.iter().map(|x| (x - most).exp()).sum::<f32>().ln();
    x.iter().map(|x| x - norm).collect()
}

/// In the order of the tokens, whatever the threads were.
fn gathered(rows: Vec<(f64, Vec<f32>)>) -> Loss {
    let total = rows.iter().map(|(total, _)| total).sum();
    Loss { total, gradient: rows.into_iter().flat_map(|(_, gradient)| gradient).collect() }
}

/// Logits of a token.
fn per_token(logits: &[f32], expected: usize, weights: &[f32]) -> Result<usize> {
    match !weights.is_empty() && logits.len() == expected && expected.is_multiple_of(2 * weights.len()) {
        true => Ok(expected / weights.len()),
        false => {
            Err(Error::internal(format!("{} logits, {expected} expected, of {} tokens", logits.len(), weights.len())))
        }
    }
}

/// The weight of each token of a sequence, `1 / tokens` times its scale's; the last weight given counts for the scales behind, too.
pub fn token_weights(cells: &[usize], scale_weights: &[f32]) -> Vec<f32> {
    let tokens = cells.iter().sum::<usize>() as f32;
    let of = |s: usize| scale_weights.get(s).or(scale_weights.last()).copied().unwrap_or(1.0) / tokens;
    cells.iter().enumerate().flat_map(|(s, &n)| std::iter::repeat_n(of(s), n)).collect()
}
