//! From the logits of two branches to drawn codes: guidance, top-k, temperature, draw, in this order, on the device.
//!
//! The grammar mask needs no step of its own: where a code stands, only codes may stand, so only the head's code rows are
//! ever computed; where the grammar leaves no choice, nothing is drawn.

use super::link::Link;
use super::noise::Noise;
use super::Options;
use crate::ops::fused::Of;
use crate::ops::{self, fused};
use crate::Result;
use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor, D};
use rayon::prelude::*;

/// In place of a drawn code: the scores that it was to be drawn from are not numbers.
pub const UNSOUND: u32 = u32::MAX;

/// How scores are made of logits.
pub struct Scorer {
    guidance: Option<f32>,
    top_k: usize,
    temperature: f32,
    /// The same where it is not 1.
    divisor: Option<Tensor>,
    /// [`UNSOUND`].
    unsound: Tensor,
}

impl Scorer {
    pub fn new(link: &Link, options: &Options) -> Result<Self> {
        let divisor = (options.temperature != 1.0).then(|| link.upload(vec![options.temperature], ()));
        Ok(Scorer {
            guidance: (options.guidance != 1.0).then_some(options.guidance),
            top_k: options.top_k as usize,
            temperature: options.temperature,
            divisor: divisor.transpose()?,
            unsound: link.upload(vec![UNSOUND], ())?,
        })
    }

    /// Whether there are rows without a prompt.
    pub fn guided(&self) -> bool {
        self.guidance.is_some()
    }

    /// The scores whose softmax codes are drawn from, f32 [pictures, places, codes]; minus infinity for what cannot be drawn.
    /// `logits` has a row for each picture, and behind them, under guidance, the rows without a prompt.
    pub fn scores(&self, logits: &Tensor) -> Result<Tensor> {
        if fused::serve(logits) {
            return fused::scores(logits, self.guidance, self.top_k, self.temperature);
        }
        let mut scores = match self.guidance {
            Some(scale) => guide(logits, scale)?,
            None => logits.clone(),
        };
        scores = keep_top_k(&scores, self.top_k)?;
        if let Some(divisor) = &self.divisor {
            scores = ops::quotient(&scores, divisor)?;
        }
        Ok(scores)
    }

    /// Draws so many places from softmax(scores) by the Gumbel-max rule: u32 [pictures, places], the first of equal sums. The last of
    /// the scores [pictures, n, codes] is that of all places behind.
    pub fn draw(&self, scores: &Tensor, noise: &Noise, of: &Of, places: usize) -> Result<Tensor> {
        if fused::serve(scores) {
            return fused::draw(scores, noise.table(), of, places, UNSOUND);
        }
        let n = scores.dim(1)?;
        let scores = match places > n {
            true => {
                let last = scores.narrow(1, n - 1, 1)?.repeat((1, places - n, 1))?;
                Tensor::cat(&[scores, &last], 1)?
            }
            false => scores.clone(),
        };
        self.if_sound(&scores, ops::sum(&scores, &noise.of(of, places)?)?.argmax(D::Minus1)?)
    }

    /// The drawn codes, but [`UNSOUND`] where a score is not a number.
    pub fn if_sound(&self, scores: &Tensor, drawn: Tensor) -> Result<Tensor> {
        // One score that is not a number makes the sum none, which does not equal itself.
        let sum = scores.sum(D::Minus1)?;
        let sound = sum.eq(&sum)?;
        Ok(sound.where_cond(&drawn, &self.unsound.broadcast_as(drawn.shape())?)?)
    }
}

/// Classifier-free guidance: `unconditional + scale (conditional - unconditional)`.
fn guide(logits: &Tensor, scale: f32) -> Result<Tensor> {
    let pictures = logits.dim(0)? / 2;
    let (conditional, unconditional) = (logits.narrow(0, 0, pictures)?, logits.narrow(0, pictures, pictures)?);
    ops::sum(&(ops::difference(&conditional, &unconditional)? * f64::from(scale))?, &unconditional)
}

/// Puts every score below the k-th largest of its row to minus infinity; ties with it stay. 0 keeps all.
fn keep_top_k(scores: &Tensor, k: usize) -> Result<Tensor> {
    if k == 0 || k >= scores.dim(D::Minus1)? {
        return Ok(scores.clone());
    }
    let scores = scores.contiguous()?;
    let threshold = match ops::own_kernels(&scores) {
        true => scores.apply_op1_no_bwd(&Kth(k))?,
        false => scores.sort_last_dim(false)?.0.narrow(D::Minus1, k - 1, 1)?,
    };
    // ln 1 = 0 and ln 0 = minus infinity, to be added.
    let kept = ops::ln(&scores.broadcast_ge(&threshold)?.to_dtype(scores.dtype())?)?;
    ops::sum(&scores, &kept)
}

/// The k-th largest number of each row; k counts from 1.
struct Kth(usize);

impl CustomOp1 for Kth {
    fn name(&self) -> &'static str {
        "kth-largest"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let mut dims = layout.dims().to_vec();
        let (Some((from, to)), Some(last)) = (layout.contiguous_offsets(), dims.last_mut()) else {
            candle_core::bail!("kth-largest: expected rows that lie one behind the other");
        };
        let n = std::mem::replace(last, 1);
        let rows = storage.as_slice::<f32>()?[from..to].par_chunks_exact(n);
        let found = rows.map_init(Vec::new, |row: &mut Vec<f32>, values| {
            row.clear();
            row.extend_from_slice(values);
            *row.select_nth_unstable_by(self.0 - 1, |a, b| b.total_cmp(a)).1
        });
        Ok((CpuStorage::F32(found.collect()), dims.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::noise::Noise;
    use candle_core::Device;

    fn scorer(guidance: f32, top_k: u32, temperature: f32) -> Scorer {
        let options = Options { guidance, top_k, temperature, ..Options::default() };
        Scorer::new(&Link::new(&Device::Cpu), &options).unwrap()
    }

    fn scores(scorer: &Scorer, logits: &[&[f32]]) -> Vec<f32> {
        let rows: Vec<Vec<f32>> = logits.iter().map(|r| r.to_vec()).collect();
        let logits = Tensor::new(rows, &Device::Cpu).unwrap().unsqueeze(1).unwrap();
        scorer.scores(&logits).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn guidance_moves_away_from_the_unconditional() {
        assert_eq!(scores(&scorer(1.0, 0, 1.0), &[&[1.0, 2.0]]), [1.0, 2.0]);
        assert_eq!(scores(&scorer(4.0, 0, 1.0), &[&[1.0, 2.0], &[0.5, 3.0]]), [2.5, -1.0]);
        assert_eq!(scores(&scorer(0.0, 0, 1.0), &[&[1.0, 2.0], &[0.5, 3.0]]), [0.5, 3.0]);
    }

    #[test]
    fn top_k_keeps_ties_with_the_last_one() {
        const NEVER: f32 = f32::NEG_INFINITY;
        assert_eq!(scores(&scorer(1.0, 2, 1.0), &[&[3.0, 1.0, 2.0, 2.0, 0.0]]), [3.0, NEVER, 2.0, 2.0, NEVER]);
        assert_eq!(scores(&scorer(1.0, 0, 0.5), &[&[1.0, 2.0]]), [2.0, 4.0]);
        assert_eq!(scores(&scorer(1.0, 1, 1.0), &[&[1.0, 2.0], &[4.0, 3.0]]), [NEVER, 2.0, 4.0, NEVER]);
    }

    #[test]
    fn a_score_that_is_not_a_number_is_told_from_a_code() {
        let scorer = scorer(1.0, 2, 1.0);
        let logits = [[[0.5, 1.0, 0.0]], [[0.0, f32::NAN, 1.0]], [[0.0, 1.0, f32::INFINITY]]];
        let scores = scorer.scores(&Tensor::new(&logits, &Device::Cpu).unwrap()).unwrap();
        let silent = Noise::new(&Link::new(&Device::Cpu), &[0; 3], 1, 3).unwrap();
        let drawn = scorer.draw(&scores, &silent, &Of::Row(0), 1).unwrap().flatten_all().unwrap();
        assert_eq!(drawn.to_vec1::<u32>().unwrap()[..2], [1, UNSOUND]);
    }

    #[test]
    fn draws_are_those_of_the_rule_written_plainly() {
        let (pictures, codes) = (3, 50);
        let link = Link::new(&Device::Cpu);
        let logits: Vec<Vec<f32>> = (0..2 * pictures as u64)
            .map(|row| {
                let mut stream = crate::random::Stream::new(7, crate::random::Purpose::Initial, row);
                (0..codes).map(|_| stream.normal()).collect()
            })
            .collect();
        let on_device = link.upload(logits.concat(), (2 * pictures, 1, codes)).unwrap();
        let mut noise = Noise::new(&link, &[4, 5, 6], 8, codes).unwrap();
        noise.reach(&link, &[30, 30, 30]).unwrap();
        for (scale, k, temperature) in [(3.0f32, 10, 0.7f32), (1.5, 1, 1.0), (4.0, 0, 2.0)] {
            let scorer = scorer(scale, k, temperature);
            let scores = scorer.scores(&on_device).unwrap();
            for position in 22..30 {
                let drawn = scorer.draw(&scores, &noise, &noise.of_position(position), 1).unwrap();
                for (picture, drawn) in link.download(&drawn).unwrap().concat().into_iter().enumerate() {
                    let branches = logits[picture].iter().zip(&logits[pictures + picture]);
                    let guided: Vec<f32> = branches.map(|(c, u)| scale * (c - u) + u).collect();
                    let mut sorted = guided.clone();
                    sorted.sort_by(|a, b| b.total_cmp(a));
                    let threshold = if k == 0 { f32::NEG_INFINITY } else { sorted[k as usize - 1] };
                    let mut noise = vec![0f32; codes];
                    crate::random::gumbel(&mut noise, 4 + picture as u64, position);
                    let sums = guided.iter().zip(&noise).map(|(&score, noise)| match score >= threshold {
                        true => score / temperature + noise,
                        false => f32::NEG_INFINITY,
                    });
                    let best = sums.enumerate().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap().0;
                    assert_eq!(drawn as usize, best, "picture {picture}, position {position}");
                }
            }
        }
    }

    #[test]
    fn places_behind_the_scores_are_drawn_from_the_last_of_them_by_their_own_noise() {
        let (pictures, n, behind, codes) = (2, 3, 4, 20);
        let link = Link::new(&Device::Cpu);
        let mut noise = Noise::new(&link, &[8, 9], n + behind, codes).unwrap();
        noise.reach(&link, &[7, 7]).unwrap();
        let scores = crate::ops::testing::random(&[pictures, n, codes]);
        let rows: Vec<u32> =
            (0..pictures).flat_map(|p| (0..7).map(move |i| (p, i))).map(|(p, i)| noise.row(p, i)).collect();
        let rows = link.upload(rows, (pictures, n + behind)).unwrap();
        let scorer = scorer(1.0, 0, 1.0);
        let drawn = scorer.draw(&scores, &noise, &Of::Rows(&rows), n + behind).unwrap();
        for (i, drawn) in link.download(&drawn).unwrap().concat().into_iter().enumerate() {
            let (picture, place) = (i / (n + behind), i % (n + behind));
            let row = scores.narrow(0, picture, 1).unwrap().narrow(1, place.min(n - 1), 1).unwrap();
            let row = row.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let mut own = vec![0f32; codes];
            crate::random::gumbel(&mut own, 8 + picture as u64, place as u32);
            let sums = row.iter().zip(&own).map(|(score, noise)| score + noise);
            let best = sums.enumerate().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap().0;
            assert_eq!(drawn as usize, best, "picture {picture}, place {place}");
        }
    }

    /// As compiled for the CPU; `plainly` calls them then.
    #[test]
    fn the_kernels_for_gpus_draw_what_the_cpu_draws() {
        crate::device::twin::with_each(|| {
            crate::ops::plainly(|| {
                guidance_moves_away_from_the_unconditional();
                top_k_keeps_ties_with_the_last_one();
                a_score_that_is_not_a_number_is_told_from_a_code();
                places_behind_the_scores_are_drawn_from_the_last_of_them_by_their_own_noise();
                draws_are_those_of_the_rule_written_plainly();
            })
        });
    }

    /// Pearson's statistic of draws against the exact distribution; the bound is the 99.9% quantile for `cells - 1`.
    fn chi_square(logits: &[f32], k: u32, temperature: f32, bound: f64) {
        let n = 20000;
        let (link, scorer) = (Link::new(&Device::Cpu), scorer(1.0, k, temperature));
        let row = scorer.scores(&Tensor::from_slice(logits, (1, 1, logits.len()), &Device::Cpu).unwrap()).unwrap();
        let weights: Vec<f64> =
            row.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().map(|&l| (l as f64).exp()).collect();
        let total: f64 = weights.iter().sum();
        let mut noise = Noise::new(&link, &[11], n as usize, logits.len()).unwrap();
        noise.reach(&link, &[n]).unwrap();
        let mut counts = vec![0u32; logits.len()];
        for position in 0..n {
            let drawn = scorer.draw(&row, &noise, &noise.of_position(position), 1).unwrap();
            counts[link.download(&drawn).unwrap()[0][0] as usize] += 1;
        }
        let mut statistic = 0.0;
        for (&count, weight) in counts.iter().zip(&weights) {
            let expected = n as f64 * weight / total;
            if expected == 0.0 {
                assert_eq!(count, 0);
            } else {
                statistic += (count as f64 - expected).powi(2) / expected;
            }
        }
        assert!(statistic < bound, "{statistic}: {counts:?}");
    }

    #[test]
    fn draws_follow_the_exact_distribution() {
        let logits = [0.0, 1.0, 2.0, -1.0, 0.5, 0.25];
        chi_square(&logits, 0, 1.0, 20.5);
        chi_square(&logits, 3, 1.0, 13.8);
        chi_square(&logits, 0, 2.0, 20.5);
    }
}
