//! The Gumbel noise that decides draws, kept on the device until it has been used.

use super::link::Link;
use crate::ops::fused::Of;
use crate::random::gumbel;
use crate::Result;
use candle_core::{DType, Tensor};
use rayon::prelude::*;

/// The noise of each picture's next codes. Position p (a code's number in its picture) has row `p % rows` of the picture's
/// table, so a later position takes the place of one that is drawn.
pub struct Noise {
    /// f32 [pictures, rows, codes].
    table: Tensor,
    seeds: Vec<u64>,
    /// The first position of each picture that has no noise yet.
    made: Vec<u32>,
}

impl Noise {
    /// For pictures with these seeds, `rows` positions of each at a time.
    pub fn new(link: &Link, seeds: &[u64], rows: usize, codes: usize) -> Result<Self> {
        let shape = (seeds.len(), rows, codes);
        let table = link.buffer(|device| Ok(Tensor::zeros(shape, DType::F32, device)?))?;
        Ok(Noise { table, seeds: seeds.to_vec(), made: vec![0; seeds.len()] })
    }

    pub fn rows(&self) -> u32 {
        self.table.dims()[1] as u32
    }

    /// Makes the noise of the positions of each picture before `until`, in one transfer.
    pub fn reach(&mut self, link: &Link, until: &[u32]) -> Result<()> {
        let missing = self.made.iter().zip(until).map(|(&from, &until)| from..until.max(from));
        let missing: Vec<_> = missing.enumerate().collect();
        let each: Vec<(u64, u32)> =
            missing.iter().flat_map(|(picture, range)| range.clone().map(|p| (self.seeds[*picture], p))).collect();
        if each.is_empty() {
            return Ok(());
        }
        let codes = self.table.dim(2)?;
        let mut values = vec![0f32; each.len() * codes];
        values.par_chunks_mut(codes).zip(each.par_iter()).for_each(|(row, &(seed, p))| gumbel(row, seed, p));
        let values = link.upload(values, (1, each.len(), codes))?;
        let mut at = 0;
        for (picture, mut range) in missing {
            let table = self.table.narrow(0, picture, 1)?;
            self.made[picture] = range.end;
            while !range.is_empty() {
                let row = (range.start % self.rows()) as usize;
                let n = range.len().min(self.rows() as usize - row);
                table.slice_set(&values.narrow(1, at, n)?.contiguous()?, 1, row)?;
                at += n;
                range.start += n as u32;
            }
        }
        Ok(())
    }

    /// Where the noise of a position is, the same for all pictures.
    pub fn of_position(&self, position: u32) -> Of<'static> {
        Of::Row((position % self.rows()) as usize)
    }

    /// Where a position of a picture is, for [`Of::Rows`].
    pub fn row(&self, picture: usize, position: u32) -> u32 {
        picture as u32 * self.rows() + position % self.rows()
    }

    /// f32 [pictures, rows, codes].
    pub fn table(&self) -> &Tensor {
        &self.table
    }

    /// The noise of places, [pictures, places, codes].
    pub fn of(&self, of: &Of, places: usize) -> Result<Tensor> {
        let (pictures, rows, codes) = self.table.dims3()?;
        match of {
            Of::Row(at) => Ok(self.table.narrow(1, *at, places)?),
            Of::Rows(given) => {
                let table = self.table.reshape((pictures * rows, codes))?;
                Ok(table.index_select(&given.flatten_all()?, 0)?.reshape((pictures, places, codes))?)
            }
        }
    }
}
