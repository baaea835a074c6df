//! Stage 1: only the vectors learn, until they carry what they can.

use super::learner::Learner;
use super::options::Options;
use super::prompts;
use super::templates::TEMPLATES;
use super::Training;
use crate::model::subject::LossRecord;
use crate::model::Model;
use crate::random::{Purpose, Stream};
use crate::run::{Run, Stage};
use crate::Result;
use candle_core::{DType, Tensor};

/// How much the mean loss must fall from one window to the next for training to go on.
const PLATEAU: f64 = 0.002;

/// Teaches the vectors and returns them.
pub(super) fn train(model: &Model, training: &mut Training, vectors: Tensor, run: &mut Run) -> Result<Tensor> {
    let options = training.lesson.options;
    if let Some(vectors) = training.checkpoints.finished_embedding(vectors.dims())? {
        return Ok(vectors);
    }
    let total = u64::from(options.embedding_steps);
    let mut learner = Learner::embedding(model, options, &vectors)?;
    training.checkpoints.restore(&mut learner)?;
    while learner.steps() < total && !training.finished && !plateau(&training.losses, options.early_stop as usize) {
        training.step(&mut learner, total, run)?;
    }
    learner.vectors()
}

/// The vectors that training begins with, [N, hidden] f32: the identifier's, and one for each of `pictures` if they have
/// their own.
pub(super) fn first_vectors(model: &Model, options: &Options, pictures: usize) -> Result<Tensor> {
    let hidden = model.facts().width;
    let (own, device) = (options.embedding_vectors as usize, model.device());
    let pictures = if options.per_image_tokens { pictures } else { 0 };
    let texts: Vec<String> = (0..TEMPLATES.len()).map(|index| prompts::prior(options, index)).collect();
    // As large as that many times the usual row; nothing is looked up for noise of no size.
    let noise = |rows: usize, step: u64, share: f64| -> Result<Tensor> {
        if share == 0.0 {
            return Ok(Tensor::zeros((rows, hidden), DType::F32, device)?);
        }
        let size = model.family().usual_size(&texts)? * share as f32;
        let mut random = Stream::new(options.seed, Purpose::Initial, step << 32);
        let values: Vec<f32> = (0..rows * hidden).map(|_| size * random.normal()).collect();
        Ok(Tensor::from_vec(values, (rows, hidden), device)?)
    };
    let first = match (&options.initial_embedding, &options.initial_word) {
        (Some(values), _) => {
            let given = Tensor::from_vec(values.clone(), (values.len() / hidden, hidden), device)?;
            match given.dim(0)? {
                1 => given.repeat((own, 1))?,
                _ => given,
            }
        }
        (None, Some(word)) => {
            let rows = model.family().word_rows(word)?;
            match own {
                1 => rows.mean_keepdim(0)?,
                _ => {
                    let turns: Vec<u32> = (0..own as u32).map(|i| i % rows.dims()[0] as u32).collect();
                    rows.index_select(&Tensor::new(turns, device)?, 0)?
                }
            }
        }
        (None, None) => noise(own, 1, options.initial_noise)?,
    };
    match pictures {
        0 => Ok(first),
        n => Ok(Tensor::cat(&[first, noise(n, 2, 1.0)?], 0)?),
    }
}

/// Whether the mean loss of the last `window` steps is hardly below that of the `window` steps before.
fn plateau(losses: &[LossRecord], window: usize) -> bool {
    let losses: Vec<f64> =
        losses.iter().filter(|l| l.stage == Stage::Embedding.name()).map(|l| f64::from(l.loss)).collect();
    if window == 0 || losses.len() < 2 * window {
        return false;
    }
    let (before, last) = losses[losses.len() - 2 * window..].split_at(window);
    last.iter().sum::<f64>() > (1.0 - PLATEAU) * before.iter().sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plateau_is_two_windows_without_progress() {
        let records = |losses: &[f32]| {
            let record =
                |(step, &loss): (usize, &f32)| LossRecord { stage: "embedding".into(), step: step as u64, loss };
            losses.iter().enumerate().map(record).collect::<Vec<_>>()
        };
        assert!(!plateau(&records(&[2.0, 2.0, 2.0]), 2));
        assert!(plateau(&records(&[2.0, 2.0, 2.0, 2.0]), 2));
        assert!(!plateau(&records(&[2.0, 2.0, 1.9, 1.9]), 2));
        assert!(plateau(&records(&[9.0, 2.0, 1.0, 1.5, 1.5]), 2));
        assert!(!plateau(&records(&[2.0; 9]), 0));
    }
}
