//! Pictures in the middle of being drawn.

use super::decoder::Decoder;
use super::jacobi::Jacobi;
use super::link::Traffic;
use super::sequential::Sequential;
use super::{Decoding, Options, MAX_PICTURES};
use crate::estimate;
use crate::model::outline::Outline;
use crate::model::personalized::Personalized;
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
        let grid = view.model.layout().grid(options.width, options.height)?;
        estimate::check_sampling(&Outline::of(view.model), options, prompts.len() as u64)?;
        let sides = (grid.0 as usize, grid.1 as usize);
        let window = (options.window as usize).min(Sequential::room(sides));
        let room = match options.decoding {
            Decoding::Sequential => Sequential::room(sides),
            Decoding::Speculative | Decoding::SpeculativeDistribution => Jacobi::room(sides, window),
        };
        let pieces = prompts.iter().map(|p| view.prompt(p.as_ref(), options.width, options.height));
        let (decoder, first) = Decoder::new(view, &pieces.collect::<Result<Vec<_>>>()?, grid, room, options, stop)?;
        let seeds = prompts.iter().flat_map(|_| (0..options.count).map(|i| picture_seed(options.seed, i)));
        let seeds: Vec<u64> = seeds.collect();
        let way = match options.decoding {
            Decoding::Sequential => Way::Sequential(Sequential::new(&decoder, &seeds, sides)?),
            Decoding::Speculative => Way::Speculative(Jacobi::new(&decoder, &seeds, sides, window, true)?),
            Decoding::SpeculativeDistribution => Way::Speculative(Jacobi::new(&decoder, &seeds, sides, window, false)?),
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
