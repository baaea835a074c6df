//! Code by code.

use super::decoder::{Decoder, Raster};
use super::noise::Noise;
use crate::Result;
use candle_core::Tensor;

/// The most noise that is made in advance, in numbers, unless a single position needs more.
const NOISE: usize = 1 << 20;

/// Positions whose noise is made at once: a row of codes, or fewer if many pictures are drawn.
pub fn positions_at_once(pictures: usize, codes: usize, width: usize) -> usize {
    (NOISE / (pictures * codes).max(1)).clamp(1, width.max(1))
}

/// Pictures being drawn a code at a time, all of them in step.
pub struct Sequential {
    noise: Noise,
    /// The codes drawn last, u32 [pictures, 1].
    last: Option<Tensor>,
    /// u32 [pictures, 1].
    newline: Tensor,
    raster: Raster,
    /// Codes drawn of each picture.
    position: usize,
}

impl Sequential {
    /// For pictures with these seeds.
    pub fn new(decoder: &Decoder, seeds: &[u64], raster: Raster) -> Result<Self> {
        let rows = positions_at_once(seeds.len(), decoder.codes(), raster.width);
        let noise = Noise::new(&decoder.link, seeds, rows, decoder.codes())?;
        let newline = decoder.link.upload(vec![decoder.newline(); seeds.len()], (seeds.len(), 1))?;
        Ok(Sequential { noise, last: None, newline, raster, position: 0 })
    }

    /// One pass: the next code of each picture. `first` are the scores of the first place, for the first pass.
    pub fn pass(&mut self, decoder: &mut Decoder, first: Option<&Tensor>) -> Result<Vec<Vec<u32>>> {
        let scores = match (first, &self.last) {
            (Some(scores), _) => scores.clone(),
            // What follows the last code of a row is fixed.
            (None, Some(last)) if self.raster.closes_rows() && self.position.is_multiple_of(self.raster.width) => {
                decoder.feed(&Tensor::cat(&[last, &self.newline], 1)?)?
            }
            (None, Some(last)) => decoder.feed(last)?,
            (None, None) => return Err(crate::Error::Internal { message: "nothing was drawn yet".into() }),
        };
        let rows = self.noise.rows() as usize;
        if self.position.is_multiple_of(rows) {
            let until = (self.position + rows).min(self.raster.codes());
            self.noise.reach(&decoder.link, &vec![until as u32; decoder.pictures])?;
        }
        let drawn = decoder.scorer.draw(&scores, &self.noise, &self.noise.of_position(self.position as u32), 1)?;
        self.position += 1;
        let codes = decoder.download(&drawn)?;
        self.last = Some(drawn);
        Ok(codes)
    }
}
