//! What is learned from: encoded pictures and their prompts, dealt out in batches.
//!
//! A batch depends only on seed, stage and step, so that a training that was interrupted sees what it would have seen.

use super::learner::{step_key, Batch};
use super::options::Options;
use super::prompts;
use crate::model::family::{Example, Piece};
use crate::model::personalized::Personalized;
use crate::random::{picture_seed, Purpose, Stream};
use crate::run::{Control, Stage};
use crate::tokens::Tokens;
use crate::{Error, Result};

/// Everything that batches are made from.
pub(super) struct Lesson<'a> {
    pub options: &'a Options,
    /// Of each reference picture the tokens of its copies.
    pub references: Vec<Vec<Tokens>>,
    pub captions: Option<&'a [String]>,
    /// Class pictures with their prompts.
    pub prior: Vec<(String, Tokens)>,
}

impl Lesson<'_> {
    /// The batch of a step.
    pub fn batch(&self, view: &Personalized, stage: Stage, step: u64, stop: &Control) -> Result<Batch> {
        let options = self.options;
        let key = step_key(stage, step);
        let stream = |purpose| Stream::new(options.seed, purpose, key);
        let (mut copies, mut words, mut guidance) =
            (stream(Purpose::Pictures), stream(Purpose::Prompts), stream(Purpose::Guidance));
        let (mut subject, mut sizes) = (Vec::new(), Vec::new());
        for i in 0..options.batch_size as u64 {
            let picture = deal(self.references.len(), step * options.batch_size as u64 + i, options.seed, stage);
            let pool = &self.references[picture];
            let tokens = &pool[copies.below(pool.len())];
            let caption = self.captions.map(|c| c[picture].as_str());
            let prompt = prompts::draw(options, caption, picture, &mut words);
            let unprompted = guidance.chance(options.guidance_dropout) && stage == Stage::Layers;
            sizes.push(view.family.pixels(tokens));
            subject.push(example(view, &prompt, unprompted, tokens)?);
        }
        let mut prior = Vec::new();
        if options.prior_weight > 0.0 && stage == Stage::Layers {
            for (i, &size) in sizes.iter().enumerate() {
                prior.push(match options.distils() {
                    true => {
                        let prompt = prompts::prior(options, words.below(prompts::templates(options)));
                        let number = step * u64::from(options.batch_size) + i as u64 + 1;
                        taught(view, &prompt, size, picture_seed(options.seed, number as u32), options, stop)?
                    }
                    false => {
                        let (prompt, tokens) = &self.prior[copies.below(self.prior.len())];
                        example(view, prompt, guidance.chance(options.guidance_dropout), tokens)?
                    }
                });
            }
        }
        Ok(Batch { subject, prior })
    }

    /// Has every text of the training read at once, before anything learns that would stand beside the reader in memory.
    pub fn read_prompts(&self, view: &Personalized, pictures: usize) -> Result<()> {
        let unit = view.model.facts().unit;
        let prompts = prompts::all(self.options, self.captions, pictures);
        let conditions = prompts.iter().map(|prompt| view.condition(prompt, unit, unit)).collect::<Result<Vec<_>>>()?;
        view.family.read(&conditions)
    }

    /// Errors if a prompt cannot be used, before any time is spent on it.
    pub fn check_prompts(&self, view: &Personalized) -> Result<()> {
        let (options, unit) = (self.options, view.model.facts().unit);
        if options.sample_every > 0 {
            view.condition(&prompts::sample(options), unit, unit)
                .map_err(|e| Error::invalid("sample_prompt", e.to_string()))?;
        }
        for (picture, caption) in self.captions.unwrap_or_default().iter().enumerate() {
            let condition = view.condition(caption, unit, unit);
            let pieces = condition
                .map(|c| c.pieces)
                .map_err(|e| Error::invalid("captions", format!("caption {picture}: {e}")))?;
            if !pieces.iter().any(|p| matches!(p, Piece::Vector(row) if *row < options.embedding_vectors)) {
                let message = format!(
                    "caption {picture}, {caption:?}, does not contain the identifier {} as a word",
                    options.identifier
                );
                return Err(Error::invalid("captions", message));
            }
        }
        Ok(())
    }
}

/// A picture under a prompt, or as the other branch of guidance sees it.
fn example(view: &Personalized, prompt: &str, unguided: bool, tokens: &Tokens) -> Result<Example> {
    if !unguided {
        return view.example(prompt, tokens);
    }
    let (width, height) = view.family.pixels(tokens);
    let condition = view.condition(prompt, width, height)?;
    view.family.example(&view.family.unguided(&condition)?, tokens)
}

/// A picture of the plain class with what the untouched model predicted as it drew it.
fn taught(
    view: &Personalized,
    prompt: &str,
    size: (u32, u32),
    seed: u64,
    options: &Options,
    stop: &Control,
) -> Result<Example> {
    let untouched = Personalized::new(view.model, &[])?;
    let condition = untouched.condition(prompt, size.0, size.1)?;
    let taught = untouched.family.teach(&condition, size, seed, options.teacher, stop)?;
    taught.ok_or_else(|| Error::invalid("prior_distillation", "this model's family has no teacher"))
}

/// Which of `n` pictures is number `position` in an endless row of shuffled packs, so that all are seen equally often.
fn deal(n: usize, position: u64, seed: u64, stage: Stage) -> usize {
    let (pack, place) = (position / n as u64, (position % n as u64) as usize);
    let mut random = Stream::new(seed, Purpose::Pictures, 1 << 48 | step_key(stage, pack));
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        order.swap(i, random.below(i + 1));
    }
    order[place]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_dealt_equally_often_in_changing_order() {
        let row: Vec<usize> = (0..40).map(|p| deal(4, p, 9, Stage::Layers)).collect();
        for pack in row.chunks(4) {
            let mut sorted = pack.to_vec();
            sorted.sort();
            assert_eq!(sorted, [0, 1, 2, 3]);
        }
        assert!(row.chunks(4).any(|pack| pack != &row[..4]));
        assert_ne!(row, (0..40).map(|p| deal(4, p, 9, Stage::Embedding)).collect::<Vec<_>>());
        assert_ne!(row, (0..40).map(|p| deal(4, p, 10, Stage::Layers)).collect::<Vec<_>>());
    }
}
