//! Drawing again with as little change as can be: the rule of distribution-exact speculative decoding.

use super::link::Link;
use super::logits::{Scorer, UNSOUND};
use crate::ops;
use crate::ops::fused::{self, Asked};
use crate::Result;
use candle_core::{DType, Tensor, D};
use candle_nn::ops::softmax_last_dim;

/// Numbers per block of the running sums.
const BLOCK: usize = 64;

/// Maximal coupling on the device: a code x that was drawn from q is kept with probability min(1, p(x) / q(x)), and otherwise
/// drawn anew from what p has more than q, max(0, p - q). Whatever q was, the result is distributed as p, and no rule with
/// that property keeps x more often.
pub struct Coupling {
    codes: usize,
    /// [BLOCK, BLOCK], 1 where the row is no later than the column.
    within: Tensor,
    /// [blocks, blocks], 1 where the row is earlier than the column.
    before: Tensor,
    /// f32 [blocks * BLOCK]: number of codes minus the code's own.
    rank: Tensor,
    /// Draws anew from p itself, which is wrong: so that a test can show that it would notice.
    #[cfg(test)]
    pub broken: bool,
}

impl Coupling {
    pub fn new(link: &Link, codes: usize) -> Result<Self> {
        let blocks = codes.div_ceil(BLOCK);
        let square = |n: usize, one: fn(usize, usize) -> bool| {
            let values = (0..n * n).map(|at| f32::from(u8::from(one(at / n, at % n)))).collect();
            link.upload(values, (n, n))
        };
        Ok(Coupling {
            codes,
            within: square(BLOCK, |row, column| row <= column)?,
            before: square(blocks, |row, column| row < column)?,
            rank: link.upload((1..=blocks * BLOCK).rev().map(|rank| rank as f32).collect(), blocks * BLOCK)?,
            #[cfg(test)]
            broken: false,
        })
    }

    /// Probabilities of scores, f32 [..., codes].
    pub fn probabilities(scores: &Tensor) -> Result<Tensor> {
        Ok(softmax_last_dim(&scores.contiguous()?)?)
    }

    /// Uniform numbers in (0, 1) of whole ones in 0..2^24.
    pub fn uniform(whole: &Tensor) -> Result<Tensor> {
        let step = 1.0 / 16777216.0;
        Ok(whole.to_dtype(DType::F32)?.affine(step, 0.5 * step)?)
    }

    /// Draws the places of scores [pictures, n, codes] anew, and of those behind it guesses at what `asked` has numbers for: u32. Also
    /// returns the probabilities that places were drawn from; `last` are those of the pass before, if there was one.
    pub fn places(
        &self,
        scores: &Tensor,
        last: Option<&Tensor>,
        asked: &Asked,
        scorer: &Scorer,
    ) -> Result<(Tensor, Tensor)> {
        #[cfg(test)]
        let may = !self.broken;
        #[cfg(not(test))]
        let may = true;
        if may && fused::serve(scores) {
            return fused::couple(scores, last, asked, UNSOUND);
        }
        let uniform = [asked.keep, asked.anew, asked.behind].map(Self::uniform);
        let [keep, anew, behind] = uniform;
        let p = Self::probabilities(scores)?;
        let drawn = match last {
            None => self.invert(&p, &anew?)?,
            Some(q) => {
                let q = q.flatten(0, 1)?.index_select(&asked.from.flatten_all()?, 0)?.reshape(p.shape())?;
                self.draw(&p, &q, asked.drafts, &keep?, &anew?)?
            }
        };
        let guessed = self.invert(&p.narrow(1, p.dim(1)? - 1, 1)?, &behind?)?;
        Ok((Tensor::cat(&[scorer.if_sound(scores, drawn)?, guessed], 1)?, p))
    }

    /// Codes distributed as p [pictures, n, codes], of which as many as can be are equal to `drafts` u32 [pictures, n], which
    /// were drawn from q, shaped as p. `keep` and `anew` are uniform in (0, 1), [pictures, n], independent of all before.
    pub fn draw(&self, p: &Tensor, q: &Tensor, drafts: &Tensor, keep: &Tensor, anew: &Tensor) -> Result<Tensor> {
        let of_draft = |of: &Tensor| of.gather(&drafts.unsqueeze(2)?, 2)?.squeeze(2);
        let kept = ops::product(keep, &of_draft(q)?)?.lt(&of_draft(p)?)?;
        let more = ops::positive_part(&ops::difference(p, q)?)?;
        #[cfg(test)]
        let more = if self.broken { p.clone() } else { more };
        Ok(kept.where_cond(drafts, &self.invert(&more, anew)?)?)
    }

    /// Codes drawn in proportion to `mass` [pictures, n or 1, codes], by inversion: the first whose running sum exceeds `uniform`
    /// [pictures, n] of the whole.
    pub fn invert(&self, mass: &Tensor, uniform: &Tensor) -> Result<Tensor> {
        let (pictures, n, _) = mass.dims3()?;
        let blocks = self.before.dim(0)?;
        let mass = mass.pad_with_zeros(D::Minus1, 0, blocks * BLOCK - self.codes)?;
        let within = ops::matmul(&mass.reshape((pictures * n * blocks, BLOCK))?, &self.within)?;
        let sums = within.narrow(1, BLOCK - 1, 1)?.reshape((pictures * n, blocks))?.contiguous()?;
        let before = ops::matmul(&sums, &self.before)?.reshape((pictures * n * blocks, 1))?;
        let running = ops::sum(&within, &before)?.reshape((pictures, n, blocks * BLOCK))?;
        let target = ops::product(&running.max_keepdim(D::Minus1)?, &uniform.unsqueeze(2)?)?;
        // Codes without mass score 0, those where the sum has passed the target more, the earlier the more, the others 1:
        // rounding can never choose a code that has none.
        let passed = ops::product(&running.broadcast_gt(&target)?.to_dtype(DType::F32)?, &self.rank)?;
        let possible = mass.gt(&mass.zeros_like()?)?.to_dtype(DType::F32)?;
        Ok(ops::product(&(passed + 1.0)?, &possible)?.argmax(D::Minus1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn inversion_gives_each_code_its_share_and_none_to_codes_without_mass() {
        let link = Link::new(&Device::Cpu);
        // Two codes over one block, so that the running sums cross it.
        let coupling = Coupling::new(&link, BLOCK + 2).unwrap();
        let mut mass = vec![0f32; BLOCK + 2];
        (mass[3], mass[BLOCK - 1], mass[BLOCK + 1]) = (1.0, 2.0, 1.0);
        let mass = link.upload(mass, (1, 1, BLOCK + 2)).unwrap();
        let n = 1000;
        let uniform = link.upload((0..n).map(|i| (i as f32 + 0.5) / n as f32).collect(), (1, n)).unwrap();
        let drawn = link.download(&coupling.invert(&mass, &uniform).unwrap()).unwrap().concat();
        let count = |code: usize| drawn.iter().filter(|&&c| c == code as u32).count();
        assert_eq!([count(3), count(BLOCK - 1), count(BLOCK + 1)], [250, 500, 250]);
    }

    #[test]
    fn the_last_code_has_its_share_where_codes_fill_the_blocks() {
        let link = Link::new(&Device::Cpu);
        let coupling = Coupling::new(&link, BLOCK).unwrap();
        let mass = link.upload(vec![1f32; BLOCK], (1, 1, BLOCK)).unwrap();
        let uniform = link.upload((0..BLOCK).map(|i| (i as f32 + 0.5) / BLOCK as f32).collect(), (1, BLOCK)).unwrap();
        let drawn = link.download(&coupling.invert(&mass, &uniform).unwrap()).unwrap().concat();
        assert!(drawn.into_iter().eq(0..BLOCK as u32));
    }

    #[test]
    fn the_kernel_for_gpus_draws_the_places_that_the_rule_draws() {
        let (link, pictures, n, window, codes) = (Link::new(&Device::Cpu), 2, 5, 3, 150);
        let scorer = Scorer::new(&link, &crate::sample::Options::default()).unwrap();
        let coupling = Coupling::new(&link, codes).unwrap();
        let mut stream = crate::random::Stream::new(3, crate::random::Purpose::Initial, 0);
        let mut whole = |rows: usize, columns: usize, below: f32| {
            let numbers = (0..rows * columns).map(|_| (stream.uniform() * below) as u32).collect();
            link.upload::<u32>(numbers, (rows, columns)).unwrap()
        };
        let (places, same) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
        for round in 0..40 {
            let scores = (crate::ops::testing::random(&[pictures, n, codes]) * 2.0).unwrap();
            // What was drawn from before is near, so that drafts are kept and not; some codes cannot be.
            let near = (&scores + (crate::ops::testing::random(&[pictures, n, codes]) * 0.5).unwrap()).unwrap();
            let before = Coupling::probabilities(&near).unwrap();
            let never = scores
                .lt(-3.0)
                .unwrap()
                .where_cond(&Tensor::full(f32::NEG_INFINITY, scores.shape(), &Device::Cpu).unwrap(), &scores);
            let scores = never.unwrap();
            let of = [whole(pictures, n, codes as f32), whole(pictures, n, (pictures * n) as f32)];
            let random =
                [whole(pictures, n, 16777216.0), whole(pictures, n, 16777216.0), whole(pictures, window, 16777216.0)];
            let asked = Asked { drafts: &of[0], from: &of[1], keep: &random[0], anew: &random[1], behind: &random[2] };
            let last = (round % 4 > 0).then_some(&before);
            let rule = || coupling.places(&scores, last, &asked, &scorer).unwrap();
            let (expected, p) = rule();
            let count = || {
                let (found, q) = crate::ops::plainly(rule);
                crate::ops::testing::assert_close(&q, &p, "probabilities");
                let [found, expected] = [&found, &expected].map(|drawn| link.download(drawn).unwrap().concat());
                places.set(places.get() + found.len());
                same.set(same.get() + found.iter().zip(&expected).filter(|(a, b)| a == b).count());
            };
            crate::device::twin::with_each(count);
        }
        let (places, same) = (places.get(), same.get());
        // At the edge between two codes rounding may decide.
        assert!(same + places / 200 >= places, "{same} of {places}");
    }

    #[test]
    fn as_many_drafts_are_kept_as_the_distributions_have_in_common() {
        let link = Link::new(&Device::Cpu);
        let coupling = Coupling::new(&link, 4).unwrap();
        let (p, q) = ([0.1f32, 0.2, 0.3, 0.4], [0.4f32, 0.3, 0.2, 0.1]);
        let n = 40000;
        let numbers = |word: usize| (0..n).map(|i| crate::random::coupling(5, i, 0)[word]).collect::<Vec<_>>();
        let uniform = |word: usize| Coupling::uniform(&link.upload(numbers(word), (1, n as usize)).unwrap()).unwrap();
        let rows = |row: [f32; 4]| link.upload(row.repeat(n as usize), (1, n as usize, 4)).unwrap();
        let drafts = coupling.invert(&rows(q), &uniform(2)).unwrap();
        let drawn = coupling.draw(&rows(p), &rows(q), &drafts, &uniform(0), &uniform(1)).unwrap();
        let [drafts, drawn] = [drafts, drawn].map(|codes| link.download(&codes).unwrap().concat());
        for (code, share) in p.iter().enumerate() {
            let found = drawn.iter().filter(|&&c| c == code as u32).count() as f32 / n as f32;
            assert!((found - share).abs() < 0.01, "{code}: {found} against {share}");
        }
        // 0.6 is the sum of the smaller of each pair.
        let kept = drafts.iter().zip(&drawn).filter(|(a, b)| a == b).count() as f32 / n as f32;
        assert!((kept - 0.6).abs() < 0.01, "{kept}");
    }
}
