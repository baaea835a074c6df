//! Drawing scale after scale, coarse to fine, by models that predict all codes of a grid at once.

use super::memory::check_memory;
use super::{Options, Sample, MAX_PICTURES};
use crate::model::family::{NextScale, Scales};
use crate::model::outline::Outline;
use crate::model::personalized::Personalized;
use crate::random::picture_seed;
use crate::run::{Run, Stage};
use crate::{Error, Result};

/// Draws `options.count` pictures of each prompt. Reports the codes of a picture that are known after each grid.
pub fn draw(
    view: &Personalized,
    model: &dyn NextScale,
    prompts: &[impl AsRef<str>],
    options: &Options,
    run: &mut Run,
) -> Result<Vec<Sample>> {
    let pictures = prompts.len() * options.count as usize;
    if !(1..=MAX_PICTURES).contains(&pictures) {
        let message = format!(
            "{} prompts of {} pictures; allowed are 1 to {MAX_PICTURES} pictures in one call",
            prompts.len(),
            options.count
        );
        return Err(Error::invalid("prompts", message));
    }
    run.check()?;
    let grid = view.family.grid(options.width, options.height)?;
    check_memory(&Outline::of(view.model), options, prompts.len() as u64)?;
    let grids = model.grids(grid)?;
    for (name, list) in options.lists() {
        if list.len() > grids.len() {
            let (n, scales, width, height) = (list.len(), grids.len(), options.width, options.height);
            let message = format!("has {n} values; a picture of {width}x{height} pixels has {scales} scales");
            return Err(Error::invalid(name, message));
        }
    }
    let total = grids.iter().map(|(h, w)| u64::from(h * w)).sum();
    let (mut conditions, mut seeds, mut texts) = (Vec::new(), Vec::new(), Vec::new());
    for prompt in prompts {
        let asked = view.condition(prompt.as_ref(), options.width, options.height)?;
        let unguided = view.family.unguided(&asked)?;
        for i in 0..options.count {
            conditions.push((asked.clone(), unguided.clone()));
            seeds.push(picture_seed(options.seed, i));
            texts.push(prompt.as_ref().to_string());
        }
    }
    let what = Scales {
        conditions: &conditions,
        vectors: view.vectors.as_ref(),
        grid,
        guidance: options.guidance_of_scales(),
        temperature: options.temperature_of_scales(),
        top_p: options.top_p,
        seeds: &seeds,
        stop: run.control(),
    };
    let drawn = model.draw(&what, &mut |tokens| {
        let known = tokens.first().map_or(0, |t| t.codes().len()) as u64;
        run.canvas().show_grids(tokens.to_vec());
        run.report(Stage::Sample, known, total, None).map(|_| ())
    })?;
    let samples = drawn.into_iter().zip(texts).zip(seeds);
    Ok(samples.map(|((tokens, prompt), seed)| Sample { prompt, tokens, seed }).collect())
}
