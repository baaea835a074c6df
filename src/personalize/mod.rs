//! How a subject is taught: first the vectors that stand for it, then the transformer's weights (arXiv 2504.13162).
//!
//! | file | what it is for |
//! |---|---|
//! | `options`, `check` | everything that can be set, and what it may be |
//! | `method` | presets of that, as their papers have them |
//! | `dataset` | reference pictures, varied and encoded |
//! | `templates`, `prompts` | what they are learned under |
//! | `lesson` | batches of both, dealt out by seed and step |
//! | `drawing` | pictures that a training has drawn: of the class to learn from, of the subject to look at |
//! | `learner` | what learns, and one step of it |
//! | `trainable` | what learns, and how |
//! | `passes` | a step's way through the layers and back |
//! | `optimizer`, `eight_bit` | AdamW and its lean states |
//! | `embedding_stage`, `layer_stage` | the two stages |
//! | `checkpoint` | interrupted and taken up again |

mod check;
mod checkpoint;
mod dataset;
mod drawing;
mod eight_bit;
mod embedding_stage;
mod layer_stage;
mod learned;
mod learner;
mod lesson;
mod method;
pub mod optimizer;
mod options;
pub(crate) mod passes;
mod prompts;
mod templates;
mod trainable;

pub use dataset::{Dataset, MAX_PICTURES, SHIFT, ZOOM};
pub use drawing::{Draw, Request};
pub use learner::{Batch, Learner, Outcome};
pub use method::Method;
pub use optimizer::{OptimizerDevice, StateFormat};
pub use options::{Options, Recompute};
pub use templates::TEMPLATES;
pub use trainable::{Adaptation, Trainable};

use crate::device::to_host;
use crate::model::subject::{LossRecord, Subject};
use crate::model::Model;
use crate::run::Run;
use crate::{Error, Result};
use candle_core::DType;
use checkpoint::{Checkpointing, Identity};
use lesson::Lesson;

/// Teaches a model a subject. The model itself stays as it is; the subject holds what was learned.
///
/// Reports stages `encode`, `prior`, `embedding` and `layers`. Finishing early keeps what was learned so far; finishing
/// in the embedding stage leaves the other one out. `draw` is asked for class pictures if `prior_weight` is not 0 and nothing is
/// distilled, and for the subject if `sample_every` is not 0; what it draws of the subject changes nothing about the result.
pub fn train(model: &Model, dataset: &Dataset, options: &Options, draw: &mut Draw, run: &mut Run) -> Result<Subject> {
    run.check()?;
    options.check(model)?;
    let word = &options.identifier;
    if word.chars().all(char::is_alphabetic) && model.family().knows(word)? {
        log::warn!(
            "identifier: the model knows {word} as a word; with the subject it means the subject in every prompt"
        );
    }
    Checkpointing::check(options)?;
    let vectors = embedding_stage::first_vectors(model, options, dataset.len())?;
    let mut lesson = Lesson { options, references: vec![], captions: dataset.captions(), prior: vec![] };
    {
        let learner = Learner::embedding(model, options, &vectors)?;
        lesson.check_prompts(learner.view())?;
        lesson.read_prompts(learner.view(), dataset.len())?;
    }

    lesson.references = dataset.encode(model, options, run)?;
    let checkpoints =
        Checkpointing::begin(options, Identity::new(model, options, &lesson.references, dataset.captions()))?;
    if options.draws_class() {
        lesson.prior = match checkpoints.prior()? {
            Some(prior) => prior,
            None => {
                let size = model.pixels(&lesson.references[0][0]);
                drawing::draw_prior(model, options, size, draw, run)?
            }
        };
    }

    let losses = checkpoints.losses();
    let mut training = Training { lesson, checkpoints, losses, draw, finished: false };
    let vectors = embedding_stage::train(model, &mut training, vectors, run)?;
    let (vectors, changes) = layer_stage::train(model, &mut training, vectors, run)?;
    // Subjects travel; where the checkpoint lay is nobody's business.
    let recorded = Options { checkpoint_path: None, ..options.clone() };
    let subject = Subject {
        identifier: options.identifier.clone(),
        class_word: options.class_word.trim().to_string(),
        // Those of the reference pictures have done their service.
        vectors: to_host(&vectors.narrow(0, 0, options.embedding_vectors as usize)?.to_dtype(DType::F32)?)?,
        changes,
        model: model.fingerprint().to_string(),
        licence: model.family().licence().map(str::to_string),
        method: options.method.name().to_string(),
        options: serde_json::to_value(recorded).map_err(|e| Error::Internal { message: format!("options: {e}") })?,
        losses: training.losses,
    };
    training.checkpoints.remove(run);
    Ok(subject)
}

/// A training in progress, whatever its stage.
struct Training<'a, 'd> {
    lesson: Lesson<'a>,
    checkpoints: Checkpointing,
    losses: Vec<LossRecord>,
    draw: &'a mut Draw<'d>,
    /// The run was asked to finish early.
    finished: bool,
}

impl Training<'_, '_> {
    /// One step of a stage of `total` steps: learn, record, save if it is time to, report, draw if it is time to.
    fn step(&mut self, learner: &mut Learner, total: u64, run: &mut Run) -> Result<()> {
        let (stage, step) = (learner.stage(), learner.steps());
        let batch = self.lesson.batch(learner.view(), stage, step, &run.control())?;
        let loss = learner.step(&batch, run)?.loss;
        self.losses.push(LossRecord { stage: stage.name().to_string(), step, loss });
        self.checkpoints.save(learner, &self.losses, &self.lesson.prior, run)?;
        self.finished = !run.report(stage, step + 1, total, Some(loss))?;
        self.draw_sample(learner, run)
    }
}
