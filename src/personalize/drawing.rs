//! Pictures that a training has drawn while it works: of the plain class, for prior preservation, and of the subject, for
//! people to see how far it is.

use super::learner::Learner;
use super::options::Options;
use super::{prompts, Training};
use crate::model::personalized::Personalized;
use crate::model::Model;
use crate::run::{Run, Stage};
use crate::tokens::Tokens;
use crate::{Error, Result};

/// Class pictures drawn with one prompt.
const PRIOR_PER_PROMPT: u32 = 4;

/// Pictures to be drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub prompt: String,
    /// Pixels.
    pub width: u32,
    pub height: u32,
    pub count: u32,
    pub seed: u64,
}

/// Draws pictures with a model as it is given; see [`train`](super::train).
pub type Draw<'a> = dyn FnMut(&Personalized, &Request, &mut Run) -> Result<Vec<Tokens>> + 'a;

/// Has the class pictures drawn by the untouched model: a few with each of several prompts.
pub(super) fn draw_prior(
    model: &Model,
    options: &Options,
    (width, height): (u32, u32),
    draw: &mut Draw,
    run: &mut Run,
) -> Result<Vec<(String, Tokens)>> {
    let untouched = Personalized::new(model, &[])?;
    let mut prior = Vec::new();
    let total = options.prior_count;
    for (group, first) in (0..total).step_by(PRIOR_PER_PROMPT as usize).enumerate() {
        let count = PRIOR_PER_PROMPT.min(total - first);
        let prompt = prompts::prior(options, group);
        // Pictures of different groups must differ in their noise.
        let seed = options.seed ^ (group as u64 + 1) << 32;
        run.at_item(group as u32, total.div_ceil(PRIOR_PER_PROMPT));
        let drawn = draw(&untouched, &Request { prompt: prompt.clone(), width, height, count, seed }, run)?;
        prior.extend(drawn.into_iter().map(|tokens| (prompt.clone(), tokens)));
        run.report(Stage::Prior, u64::from(first + count), total.into(), None)?;
    }
    run.at_item(0, 1);
    match prior.is_empty() {
        true => Err(Error::Internal { message: "no class pictures were drawn for prior preservation".into() }),
        false => Ok(prior),
    }
}

impl Training<'_, '_> {
    /// Has the subject drawn as it is by now, if it is time to. Always with the same seed and at the size of the first
    /// reference picture, so that the pictures can be compared. They go to the run's canvas and nowhere else.
    pub(super) fn draw_sample(&mut self, learner: &Learner, run: &mut Run) -> Result<()> {
        let options = self.lesson.options;
        let (every, steps) = (options.sample_every, self.losses.len() as u32);
        if every == 0 || self.finished || !steps.is_multiple_of(every) {
            return Ok(());
        }
        let (width, height) = learner.view().model.pixels(&self.lesson.references[0][0]);
        let request = Request { prompt: prompts::sample(options), width, height, count: 1, seed: options.seed };
        run.at_item(steps / every - 1, (options.embedding_steps + options.layer_steps) / every);
        let drawn = run.unless_finished(|run| (self.draw)(learner.view(), &request, run))?;
        run.at_item(0, 1);
        self.finished = drawn.is_none();
        Ok(())
    }
}
