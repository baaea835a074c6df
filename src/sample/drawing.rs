//! Pictures in the middle of being drawn.

use super::decoder::{Decoder, Prompts, Raster};
use super::jacobi::Jacobi;
use super::link::Traffic;
use super::memory::check_memory;
use super::sequential::Sequential;
use super::{Decoding, Options, MAX_PICTURES};
use crate::model::family::Prediction;
use crate::model::outline::Outline;
use crate::model::personalized::Personalized;
use crate::ops;
use crate::random::picture_seed;
use crate::run::Control;
use crate::{Error, Result};
use candle_core::Tensor;

/// The pictures of one call, drawn pass by pass: those of the first prompt, then those of the next.
pub struct Drawing<'v> {
    decoder: Decoder<'v>,
    way: Way,
    /// The scores of the first place, until it is drawn.
    first: Option<Tensor>,
    seeds: Vec<u64>,
    /// Rows and columns of codes.
    grid: (u32, u32),
    codes: Vec<Vec<u32>>,
}

enum Way {
    Sequential(Sequential),
    Speculative(Jacobi),
}

impl<'v> Drawing<'v> {
    /// Reads the prompts. Its passes end with an error once `stop` is cancelled.
    pub fn new(
        view: &'v Personalized,
        prompts: &[impl AsRef<str>],
        options: &Options,
        stop: Control,
    ) -> Result<Drawing<'v>> {
        options.check_ranges()?;
        if prompts.is_empty() || prompts.len() * options.count as usize > MAX_PICTURES {
            let message = format!(
                "{} prompts of {} pictures; allowed are 1 to {MAX_PICTURES} pictures in one call",
                prompts.len(),
                options.count
            );
            return Err(Error::invalid("prompts", message));
        }
        stop.check()?;
        let grid = view.family.grid(options.width, options.height)?;
        check_memory(&Outline::of(view.model), options, prompts.len() as u64)?;
        let Prediction::NextToken(model) = view.family.prediction() else {
            return Err(Error::internal("this model draws scale after scale"));
        };
        let raster = Raster::new(model, grid);
        let pictures = prompts.len() * options.count as usize;
        let (decoding, window) = options.way(pictures, ops::own_kernels_on(view.model.device()));
        let window = window.min(raster.places());
        let room = match decoding {
            Decoding::Sequential => raster.places(),
            Decoding::Speculative | Decoding::SpeculativeDistribution => Jacobi::room(&raster, window),
        };
        let conditions = prompts.iter().map(|prompt| {
            let asked = view.condition(prompt.as_ref(), options.width, options.height)?;
            let unguided = view.family.unguided(&asked)?;
            Ok((asked, unguided))
        });
        let read = Prompts { conditions: conditions.collect::<Result<_>>()?, vectors: view.vectors.as_ref() };
        let (decoder, first) = Decoder::new(model, &read, grid, room, options, stop)?;
        let seeds = prompts.iter().flat_map(|_| (0..options.count).map(|i| picture_seed(options.seed, i)));
        let seeds: Vec<u64> = seeds.collect();
        let way = match decoding {
            Decoding::Sequential => Way::Sequential(Sequential::new(&decoder, &seeds, raster)?),
            Decoding::Speculative => Way::Speculative(Jacobi::new(&decoder, &seeds, raster, window, true)?),
            Decoding::SpeculativeDistribution => {
                Way::Speculative(Jacobi::new(&decoder, &seeds, raster, window, false)?)
            }
        };
        let codes = vec![Vec::with_capacity((grid.0 * grid.1) as usize); seeds.len()];
        Ok(Drawing { decoder, way, first: Some(first), seeds, grid, codes })
    }

    /// One pass of the transformer, or none for the first codes. This is where drawn codes become known. Returns how many codes
    /// of every picture are.
    pub fn pass(&mut self) -> Result<usize> {
        let first = self.first.take();
        let drawn = match &mut self.way {
            Way::Sequential(sequential) => sequential.pass(&mut self.decoder, first.as_ref())?,
            Way::Speculative(jacobi) => jacobi.pass(&mut self.decoder, first.as_ref())?,
        };
        self.codes.iter_mut().zip(drawn).for_each(|(codes, drawn)| codes.extend(drawn));
        Ok(self.codes.iter().map(Vec::len).min().unwrap_or(0))
    }

    /// The codes that are known of each picture, rows top to bottom.
    pub fn codes(&self) -> &[Vec<u32>] {
        &self.codes
    }

    /// Height and width of the pictures, in codes.
    pub fn grid(&self) -> (u32, u32) {
        self.grid
    }

    /// Codes of a picture.
    pub fn total(&self) -> usize {
        (self.grid.0 * self.grid.1) as usize
    }

    /// The seed of each picture.
    pub fn seeds(&self) -> &[u64] {
        &self.seeds
    }

    /// What it has cost so far.
    pub fn traffic(&self) -> Traffic {
        self.decoder.link.traffic()
    }

    /// The pictures' codes, when all are known.
    pub fn finish(self) -> Vec<Vec<u32>> {
        self.codes
    }
}
