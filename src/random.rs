//! Randomness without state: a counter-based generator (Philox4x32-10; Salmon et al., "Parallel Random Numbers: As Easy
//! as 1, 2, 3", SC 2011). A number depends only on the seed and on what it is for, never on the order of evaluation, so
//! the same seed gives the same result however the work is batched, resumed or sped up.

use crate::kernels::{fill, parallel, zeros};
use crate::ops::fused;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use std::sync::{Mutex, PoisonError};

/// Ten rounds of Philox4x32.
pub fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
        }
        let a = 0xD251_1F53_u64 * counter[0] as u64;
        let b = 0xCD9E_8D57_u64 * counter[2] as u64;
        counter = [(b >> 32) as u32 ^ counter[1] ^ key[0], b as u32, (a >> 32) as u32 ^ counter[3] ^ key[1], a as u32];
    }
    counter
}

fn key(seed: u64) -> [u32; 2] {
    [seed as u32, (seed >> 32) as u32]
}

/// What a number is for; keeps the draws of different purposes independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    Gumbel = 0,
    PictureSeed = 1,
    Initial = 2,
    Prompts = 3,
    Pictures = 4,
    Dropout = 5,
    Guidance = 6,
    Augment = 7,
    Rounding = 8,
    Coupling = 9,
    Bits = 10,
    Correction = 11,
    DropPath = 12,
    Backdrop = 13,
}

/// The seed of picture `index` of a call: drawn alone with it, the picture is the same. Picture 0 has the call's seed.
pub fn picture_seed(seed: u64, index: u32) -> u64 {
    if index == 0 {
        return seed;
    }
    let bits = philox([index, 0, Purpose::PictureSeed as u32, 0], key(seed));
    bits[0] as u64 | (bits[1] as u64) << 32
}

/// Uniform in (0, 1), never 0 or 1.
fn unit(bits: u32) -> f64 {
    (bits as f64 + 0.5) / 4294967296.0
}

/// The Gumbel noise of one position for codes 0, 1, ...: added to scores, the largest sum is a draw from softmax(scores).
pub fn gumbel(noise: &mut [f32], seed: u64, position: u32) {
    for (block, noise) in noise.chunks_mut(4).enumerate() {
        let bits = philox([block as u32, position, Purpose::Gumbel as u32, 0], key(seed));
        noise.iter_mut().zip(bits).for_each(|(noise, bits)| *noise = -(-unit(bits).ln()).ln() as f32);
    }
}

/// What one place of a picture needs in one round of speculative decoding: independent numbers in 0..2^24.
pub fn coupling(seed: u64, place: u32, round: u32) -> [u32; 3] {
    let bits = philox([place, round, Purpose::Coupling as u32, 0], key(seed));
    [bits[0] >> 8, bits[1] >> 8, bits[2] >> 8]
}

/// Uniform numbers in (0, 1) for the bits of one token.
pub fn bits(noise: &mut [f32], seed: u64, token: u32) {
    for (block, noise) in noise.chunks_mut(4).enumerate() {
        let bits = philox([block as u32, token, Purpose::Bits as u32, 0], key(seed));
        noise.iter_mut().zip(bits).for_each(|(noise, bits)| *noise = ((bits >> 8) as f32 + 0.5) / 16777216.0);
    }
}

/// A short sequence of numbers for one purpose at one step.
pub struct Stream {
    seed: u64,
    purpose: Purpose,
    step: u64,
    drawn: u32,
}

impl Stream {
    pub fn new(seed: u64, purpose: Purpose, step: u64) -> Self {
        Stream { seed, purpose, step, drawn: 0 }
    }

    fn bits(&mut self) -> [u32; 4] {
        // The high half of the step cannot exceed 16 bits in practice; the purpose takes the rest of that word.
        let purpose = self.purpose as u32 | ((self.step >> 32) as u32) << 8;
        let bits = philox([self.drawn, self.step as u32, purpose, 1], key(self.seed));
        self.drawn += 1;
        bits
    }

    /// Uniform in (0, 1).
    pub fn uniform(&mut self) -> f32 {
        // 24 bits, so that the rounding to f32 can't reach 1.
        ((self.bits()[0] >> 8) as f32 + 0.5) / 16777216.0
    }

    /// Uniform in 0..n; n must be positive.
    pub fn below(&mut self, n: usize) -> usize {
        let bits = self.bits();
        let wide = bits[0] as u64 | (bits[1] as u64) << 32;
        ((wide as u128 * n as u128) >> 64) as usize
    }

    /// True with probability p.
    pub fn chance(&mut self, p: f32) -> bool {
        self.uniform() < p
    }

    /// Standard normal (Box-Muller).
    pub fn normal(&mut self) -> f32 {
        let bits = self.bits();
        let (radius, angle) = ((-2.0 * unit(bits[0]).ln()).sqrt(), std::f64::consts::TAU * unit(bits[1]));
        (radius * angle.cos()) as f32
    }
}

/// Residual dropout of one training step: the same seed and key give the same masks, whatever an example is batched with.
#[derive(Clone, Debug)]
pub struct Dropout {
    pub probability: f32,
    pub seed: u64,
    /// Of each example in the batch: a number that no other example has, in no step.
    pub keys: Vec<u64>,
}

impl Dropout {
    /// Zeroes elements of x [B, ..] with the given probability and scales up the rest; `site` tells the places in a pass apart.
    /// In a batch that is padded at the end of its second dimension, what is no padding gets the mask that it gets alone.
    pub fn apply(&self, x: &Tensor, site: u32) -> Result<Tensor> {
        if self.probability <= 0.0 {
            return Ok(x.clone());
        }
        let (n, batch) = (x.elem_count() / self.keys.len().max(1), x.dim(0)?);
        if batch != self.keys.len() {
            return Err(Error::internal(format!("{} keys for dropout of {batch} examples", self.keys.len())));
        }
        let of: Vec<Masked> = self.keys.iter().map(|&key| self.masked(key, site)).collect();
        if fused::serve(x) {
            return fused::dropout(x, &of);
        }
        let mut mask = Vec::with_capacity(x.elem_count());
        of.iter().for_each(|masked| mask.extend(masked.make(n)));
        if x.device().is_cpu() && x.dtype() == DType::F32 {
            // Not by an operator between tensors, see `ops::sum`.
            let values = x.flatten_all()?.to_vec1::<f32>()?;
            fill(&mut mask, |at, mask| mask.iter_mut().zip(&values[at..]).for_each(|(mask, &x)| *mask *= x));
            return Ok(Tensor::from_vec(mask, x.shape(), &Device::Cpu)?);
        }
        let mask = Tensor::from_vec(mask, x.shape(), &Device::Cpu)?.to_device(x.device())?;
        Ok((x.to_dtype(DType::F32)? * mask)?.to_dtype(x.dtype())?)
    }

    fn masked(&self, step: u64, site: u32) -> Masked {
        let keep = 1.0 - self.probability;
        Masked {
            site,
            purpose: Purpose::Dropout as u32 | (step as u32) << 8,
            step: (step >> 24) as u32 | 1 << 31,
            seed: key(self.seed),
            threshold: (keep as f64 * 4294967296.0) as u64,
            kept: 1.0 / keep,
        }
    }
}

/// What one mask is made of; `ops/fused.cu` makes the same of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Masked {
    pub site: u32,
    pub purpose: u32,
    pub step: u32,
    pub seed: [u32; 2],
    /// Of the 2^32 values that a number's bits may have, those below are kept.
    pub threshold: u64,
    /// What is kept is multiplied with.
    pub kept: f32,
}

impl Masked {
    /// What the `n` numbers of an example are multiplied with.
    fn make(&self, n: usize) -> Vec<f32> {
        /// Numbers that a thread makes at a time.
        const PIECE: usize = 1 << 14;
        let mut mask = zeros(n);
        let pieces: Vec<Mutex<&mut [f32]>> = mask.chunks_mut(PIECE).map(Mutex::new).collect();
        parallel(pieces.len(), 8 * n, |piece| {
            let mut numbers = pieces[piece].lock().unwrap_or_else(PoisonError::into_inner);
            for (block, numbers) in numbers.chunks_mut(4).enumerate() {
                let block = (piece * PIECE / 4 + block) as u32;
                let bits = philox([block, self.site, self.purpose, self.step], self.seed);
                let value = |b: u32| if u64::from(b) < self.threshold { self.kept } else { 0.0 };
                numbers.iter_mut().zip(bits).for_each(|(number, b)| *number = value(b));
            }
        });
        drop(pieces);
        mask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_published_known_answers() {
        // Random123's kat_vectors.
        assert_eq!(philox([0; 4], [0; 2]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
        let counter = [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344];
        assert_eq!(philox(counter, [0xa4093822, 0x299f31d0]), [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]);
    }

    #[test]
    fn gumbel_noise_depends_on_seed_and_position_and_not_on_the_number_of_codes() {
        let draw = |n: usize, seed, position| {
            let mut noise = vec![0f32; n];
            gumbel(&mut noise, seed, position);
            noise
        };
        assert_eq!(draw(5, 1, 2)[..], draw(64, 1, 2)[..5]);
        assert_ne!(draw(5, 1, 2), draw(5, 1, 3));
        assert_ne!(draw(5, 1, 2), draw(5, 1 << 32 | 1, 2));
        // Mean 0.5772 and variance pi^2/6 of the standard Gumbel distribution; 4 standard errors.
        let all: Vec<f32> = (0..500).flat_map(|p| draw(64, 7, p)).collect();
        let mean = all.iter().sum::<f32>() / all.len() as f32;
        let variance = all.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / all.len() as f32;
        assert!((mean - 0.5772).abs() < 0.03, "{mean}");
        assert!((variance - 1.6449).abs() < 0.08, "{variance}");
    }

    #[test]
    fn draws_below_n_are_uniform() {
        let mut counts = [0; 5];
        let mut stream = Stream::new(3, Purpose::Prompts, 9);
        (0..5000).for_each(|_| counts[stream.below(5)] += 1);
        assert!(counts.iter().all(|&c| (c - 1000i32).abs() < 120), "{counts:?}");
    }

    #[test]
    fn dropout_keeps_the_mean_and_repeats() {
        let x = Tensor::ones((100, 100), candle_core::DType::F32, &Device::Cpu).unwrap();
        let x = x.unsqueeze(0).unwrap();
        let dropout = Dropout { probability: 0.25, seed: 1, keys: vec![2] };
        let a = dropout.apply(&x, 0).unwrap();
        let mean = a.mean_all().unwrap().to_scalar::<f32>().unwrap();
        assert!((mean - 1.0).abs() < 0.03, "{mean}");
        let same = |b: &Tensor| (&a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap() == 0.0;
        assert!(same(&dropout.apply(&x, 0).unwrap()));
        assert!(!same(&dropout.apply(&x, 1).unwrap()));
    }

    #[test]
    fn an_example_is_thinned_out_alike_alone_and_in_a_padded_batch() {
        let ones = |b: usize, t: usize| Tensor::ones((b, t, 7), candle_core::DType::F32, &Device::Cpu).unwrap();
        let dropout = |keys: &[u64]| Dropout { probability: 0.4, seed: 9, keys: keys.to_vec() };
        let values = |t: Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let batch = dropout(&[3 << 32 | 1, 4 << 32 | 1]).apply(&ones(2, 9), 5).unwrap();
        for (row, t) in [(0, 9), (1, 6)] {
            let alone = values(dropout(&[(3 + row as u64) << 32 | 1]).apply(&ones(1, t), 5).unwrap());
            assert_eq!(values(batch.narrow(0, row, 1).unwrap())[..7 * t], alone);
        }
        assert!(dropout(&[1]).apply(&ones(2, 3), 0).is_err());
    }

    #[test]
    fn the_kernel_for_gpus_makes_the_masks_of_the_cpu() {
        crate::device::twin::with_kernels(|| {
            let dropout = |keys: &[u64]| Dropout { probability: 0.3, seed: 0x1234_5678_9abc_def0, keys: keys.to_vec() };
            for (n, keys, site) in
                [(1, [7, 8], 0), (1001, [3 << 32 | 1 << 40 | 99, 5], 5), (4096, [u64::MAX >> 8, 1], 63)]
            {
                let ones = Tensor::ones((2, n), DType::F32, &Device::Cpu).unwrap();
                let found =
                    crate::ops::plainly(|| dropout(&keys).apply(&ones, site)).unwrap().to_vec2::<f32>().unwrap();
                let expected = keys.map(|key| dropout(&keys).masked(key, site).make(n));
                assert_eq!(found, expected, "{n} {keys:?} {site}");
            }
        });
    }
}
