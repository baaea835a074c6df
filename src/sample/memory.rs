//! How much memory drawing takes.

use super::sequential::positions_at_once;
use super::{Decoding, Options};
use crate::model::footprint::Drawn;
use crate::model::outline::{bytes, Outline};
use crate::ops;
use crate::{Error, Result};

/// Bytes that drawing so many prompts takes beside the model's weights.
pub fn needed(outline: &Outline, options: &Options, prompts: u64) -> u64 {
    let pictures = u128::from(prompts) * u128::from(options.count);
    let (codes, patch) = outline.footprint.codebook();
    let columns = (options.width / patch.max(1)) as usize;
    // Places of a pass, and numbers for each code of a picture: noise and where it comes from, or probabilities.
    let (decoding, window) = options.way(pictures as usize, ops::own_kernels_on(&outline.device));
    let window = window as u128;
    let (places, noise) = match decoding {
        Decoding::Sequential => (1, 2 * positions_at_once(pictures as usize, codes, columns) as u128),
        Decoding::Speculative => (window, 8 * window),
        Decoding::SpeculativeDistribution => (window, 12 * window),
    };
    let drawn = Drawn {
        width: options.width.into(),
        height: options.height.into(),
        prompts: prompts.into(),
        pictures,
        guided: options.guided(),
        places,
        noise,
    };
    bytes(outline.footprint.drawing(&drawn, &outline.at))
}

/// Errors if drawing so many pictures would not fit what is free, with the cheapest change that would.
pub fn check_memory(outline: &Outline, options: &Options, prompts: u64) -> Result<()> {
    let Some(free) = outline.free else { return Ok(()) };
    let now = needed(outline, options, prompts);
    if now <= free {
        return Ok(());
    }
    let fits = |&count: &u32| needed(outline, &Options { count, ..options.clone() }, prompts) <= free;
    let advice = (1..options.count).rev().find(fits).map(|count| format!("draw {count} pictures in one call"));
    Err(Error::OutOfMemory { what: "drawing".into(), needed: now, free, advice })
}
