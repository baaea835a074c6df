//! Drawing: scale after scale, all bits of a scale at once (arXiv 2412.04431, section 3.2).

use super::bsq::{Bsq, Map};
use super::schedule::Schedule;
use super::transformer::Transformer;
use crate::device::to_host;
use crate::random;
use crate::run::Control;
use crate::{Error, Result};
use candle_core::{Device, Tensor, D};

/// The codes of each scale of a picture.
pub type Codes = Vec<Vec<u32>>;

/// Gets (scale, picture, guided logits [tokens, 2 bits]) and gives bits, [tokens, bits].
pub type Choose<'a> = dyn FnMut(usize, usize, &[f32]) -> Result<Vec<u32>> + 'a;

/// Gets the codes so far of each picture after every scale.
pub type Seen<'a> = dyn FnMut(&[Codes]) -> Result<()> + 'a;

/// How bits are chosen. Lists have a value for each scale; the last one given counts for the scales behind, too.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Weight of the prompt against none: logits are `g * guided + (1 - g) * unguided`.
    pub guidance: Vec<f32>,
    /// What logits are divided by.
    pub temperature: Vec<f32>,
    /// The less likely value of a bit is never chosen if its probability is at most 1 less this.
    pub top_p: f32,
}

impl Default for Settings {
    /// As upstream's reproduction script.
    fn default() -> Self {
        Settings { guidance: vec![3.0], temperature: vec![0.5], top_p: 0.97 }
    }
}

fn at(list: &[f32], scale: usize) -> f32 {
    list.get(scale).or(list.last()).copied().unwrap_or(1.0)
}

/// Pictures that are drawn together, one for each of some texts' features [n, text].
pub struct Drawing<'a> {
    pub transformer: &'a Transformer,
    pub bsq: Bsq,
    pub schedule: &'a Schedule,
    pub features: &'a [Tensor],
    /// What stands against each text; by default the model's own unconditional text.
    pub unguided: Option<&'a [Tensor]>,
    pub guidance: &'a [f32],
    /// Whether each scale sees itself alone (a defect of ARBooth's teacher).
    pub apart: bool,
    pub stop: Control,
}

impl Drawing<'_> {
    /// Draws all scales of all pictures.
    pub fn run(&self, choose: &mut Choose, seen: &mut Seen) -> Result<Vec<Codes>> {
        let (transformer, schedule, bsq) = (self.transformer, self.schedule, self.bsq);
        let pictures = self.features.len();
        let scales = schedule.scales();
        let guided = (0..scales.len()).any(|s| at(self.guidance, s) != 1.0);
        let mut features = self.features.to_vec();
        if guided {
            match self.unguided {
                Some(unguided) => features.extend_from_slice(unguided),
                None => {
                    for text in self.features {
                        features.push(transformer.conditioner.unguided(text.dims()[0])?);
                    }
                }
            }
        }
        let rows = features.len();
        if rows != pictures * if guided { 2 } else { 1 } || pictures == 0 {
            return Err(Error::internal("each picture has a text, and one that stands against it"));
        }
        let (texts, _) = transformer.conditioner.forward(&features)?;
        let mut cache = transformer.new_cache(rows, schedule)?;
        let mut totals = vec![Map::zeros(bsq.d, bsq.grid(schedule.last())); pictures];
        let mut codes: Vec<Codes> = vec![vec![]; pictures];
        for (s, &scale) in scales.iter().enumerate() {
            let inputs = match s {
                0 => None,
                _ => {
                    let mut values: Vec<f32> = totals.iter().flat_map(|total| bsq.input(total, scale)).collect();
                    if guided {
                        values.extend_from_within(..);
                    }
                    Some(Tensor::from_vec(values, (rows, schedule.cells(s), bsq.bits()), &Device::Cpu)?)
                }
            };
            let logits = match self.apart {
                true => transformer.apart(&texts, inputs.as_ref(), s, schedule, &self.stop)?,
                false => transformer.next(&texts, inputs.as_ref(), s, schedule, &mut cache, &self.stop)?,
            };
            let logits = to_host(&logits.flatten(1, D::Minus1)?)?.to_vec2::<f32>()?;
            let weight = at(self.guidance, s);
            for picture in 0..pictures {
                self.stop.check()?;
                let mut own = logits[picture].clone();
                if guided {
                    let against = &logits[pictures + picture];
                    own.iter_mut().zip(against).for_each(|(a, b)| *a = weight * *a + (1.0 - weight) * b);
                }
                if own.iter().any(|x| !x.is_finite()) {
                    return Err(Error::internal(format!("the logits of scale {s} are not finite")));
                }
                let bits = choose(s, picture, &own)?;
                let chosen = bsq.codes(&bits, scale);
                bsq.add(&mut totals[picture], &chosen, scale);
                codes[picture].push(chosen);
            }
            seen(&codes)?;
        }
        Ok(codes)
    }

    /// As [`Drawing::run`] with bits drawn at random, each picture by its seed, whatever is drawn beside it.
    pub fn draw(&self, settings: &Settings, seeds: &[u64], seen: &mut Seen) -> Result<Vec<Codes>> {
        self.run(&mut self.chooser(settings, seeds.to_vec()), seen)
    }

    /// Draws bits at random.
    pub fn chooser(
        &self,
        settings: &Settings,
        seeds: Vec<u64>,
    ) -> impl FnMut(usize, usize, &[f32]) -> Result<Vec<u32>> + '_ {
        let (bits, settings) = (self.bsq.bits(), settings.clone());
        let mut noise = vec![0f32; bits];
        move |s, picture, logits| {
            let temperature = at(&settings.temperature, s);
            let first = self.schedule.before(s);
            let mut chosen = Vec::with_capacity(logits.len() / 2);
            for (token, logits) in logits.chunks_exact(2 * bits).enumerate() {
                random::bits(&mut noise, seeds[picture], (first + token) as u32);
                chosen.extend(logits.chunks_exact(2).zip(&noise).map(|(pair, &noise)| {
                    u32::from(noise < probability((pair[1] - pair[0]) / temperature, settings.top_p))
                }));
            }
            Ok(chosen)
        }
    }
}

/// The probability of a 1, for the difference of the logits of 1 and 0.
fn probability(difference: f32, top_p: f32) -> f32 {
    let one = 1.0 / (1.0 + (-difference).exp());
    match one.min(1.0 - one) <= 1.0 - top_p {
        true => one.round(),
        false => one,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unlikely_value_of_a_bit_is_never_chosen() {
        let sharp = |p: f32| probability((p / (1.0 - p)).ln(), 0.97);
        assert_eq!(sharp(0.02), 0.0);
        assert_eq!(sharp(0.98), 1.0);
        assert!((sharp(0.05) - 0.05).abs() < 1e-6);
        assert!((probability(0.0, 1.0) - 0.5).abs() < 1e-7);
        assert!(probability(4.0, 1.0) < 1.0);
    }
}
