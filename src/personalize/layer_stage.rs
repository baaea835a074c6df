//! Stage 2: transformer weights learn, so that the subject really lands in the picture.

use super::learner::Learner;
use super::Training;
use crate::model::Model;
use crate::run::Run;
use crate::weights::Change;
use crate::Result;
use candle_core::Tensor;
use std::collections::BTreeMap;

/// Teaches the weights, and the vectors with them if the options say so; returns the vectors and what changed.
pub(super) fn train(
    model: &Model,
    training: &mut Training,
    vectors: Tensor,
    run: &mut Run,
) -> Result<(Tensor, BTreeMap<String, Change>)> {
    let options = training.lesson.options;
    let total = u64::from(options.layer_steps);
    if total == 0 || training.finished {
        return Ok((vectors, BTreeMap::new()));
    }
    let mut learner = Learner::layers(model, options, &vectors)?;
    training.checkpoints.restore(&mut learner)?;
    while learner.steps() < total && !training.finished {
        training.step(&mut learner, total, run)?;
    }
    Ok((learner.vectors()?, learner.changes()?))
}
