//! Examples on their way through the blocks and back: this family's part in a step of a training, and in scoring.

use super::bsq::{Bsq, Map, Quantised};
use super::family::{Infinity, Reading};
use super::loss::{bit_nats, token_weights};
use super::pass::{Objective as Against, Pass as Way};
use super::schedule::Schedule;
use crate::device::to_host;
use crate::model::family::{ByScale, Example, Keep, Loss, Mode, Objective, Pass, Piece, Teacher};
use crate::random::{Purpose, Stream};
use crate::run::Control;
use crate::tokens::Beside;
use crate::weights::{sum, Gradients, Wanted};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};

/// Each example goes its own way: their schedules may differ, and one alone fills a processor.
pub struct InfinityPass<'a> {
    model: &'a Infinity,
    parts: Vec<Part<'a>>,
    /// Learned vectors that there are.
    vectors: usize,
    /// Whether any of them is in the texts.
    learned: bool,
    by_scale: ByScale,
    stop: Control,
}

struct Part<'a> {
    way: Way<'a>,
    text: Reading,
    /// Bits as the transformer has them, [tokens, bits].
    labels: Vec<u32>,
    schedule: Schedule,
    /// Of each label in the loss.
    weight: f32,
    /// What another model predicted.
    teacher: Beside,
    /// Where only some cells are learned: how many, and of each token which share.
    learned: Option<(usize, Vec<f32>)>,
}

impl<'a> InfinityPass<'a> {
    pub fn new(
        model: &'a Infinity,
        group: &[(&Example, f32)],
        vectors: Option<&Tensor>,
        how: &Mode,
    ) -> Result<InfinityPass<'a>> {
        let texts = group.iter().map(|(example, _)| {
            // Size and codes stand behind the text.
            let end =
                example.labelled.start.checked_sub(2).ok_or_else(|| Error::internal("no text before a picture"))?;
            model.reading(&example.pieces[..end])
        });
        let texts = texts.collect::<Result<Vec<_>>>()?;
        let features = model.features(&texts, vectors)?;
        let mut parts = Vec::new();
        for (index, (((example, weight), text), features)) in group.iter().zip(texts).zip(features).enumerate() {
            // Only a training has keys.
            let random = how.dropout.as_ref().map(|dropout| (dropout, dropout.keys.get(index).copied().unwrap_or(0)));
            let (schedule, codes) = picture(model, example)?;
            let taught = example.teacher.0.is_some();
            let flips = random.as_ref().filter(|_| !taught).map(|(dropout, key)| {
                let mut random = Stream::new(dropout.seed, Purpose::Correction, *key);
                model.bsq.flips(schedule.scales(), how.by_scale.self_correction, &mut random)
            });
            let quantised = quantised(model, example, &schedule, codes, flips.as_deref(), how.by_scale.teacher)?;
            let bits = model.bsq.bits();
            let inputs = Tensor::from_vec(quantised.inputs.concat(), (1, schedule.total() - 1, bits), &Device::Cpu)?;
            let drops =
                random.map(|(dropout, key)| drops(model.transformer.depth(), dropout.probability, dropout.seed, key));
            let way = Way::new(&model.transformer, &[features], &inputs, &schedule, drops)?;
            let labels = quantised.codes.iter().zip(schedule.scales());
            let labels = labels.flat_map(|(codes, &scale)| model.bsq.labels(codes, scale)).collect();
            let learned =
                example.learned.0.as_ref().map(|cells| (example.learned(), shares(model.bsq, &schedule, cells)));
            parts.push(Part {
                way,
                text,
                labels,
                schedule,
                weight: *weight,
                teacher: example.teacher.clone(),
                learned,
            });
        }
        let learned = parts.iter().any(|part| matches!(&part.text, Reading::Prompt(p) if !p.vectors.is_empty()));
        let vectors = vectors.map_or(Ok(0), |v| v.dim(0))?;
        Ok(InfinityPass { model, parts, vectors, learned, by_scale: how.by_scale.clone(), stop: how.stop.clone() })
    }
}

/// The schedule and the codes of an example.
fn picture(model: &Infinity, example: &Example) -> Result<(Schedule, Vec<u32>)> {
    let wrong = |piece: &Piece| Error::internal(format!("{piece:?} stands where a picture's size or codes do"));
    let side = |piece: &Piece| match piece {
        Piece::Token(side) => Ok(*side),
        other => Err(wrong(other)),
    };
    let code = |piece: &Piece| match piece {
        Piece::Code(code) => Ok(*code),
        other => Err(wrong(other)),
    };
    let start = example.labelled.start;
    let schedule = model.schedule_of((side(&example.pieces[start - 2])?, side(&example.pieces[start - 1])?))?;
    Ok((schedule, example.pieces[example.labelled.clone()].iter().map(code).collect::<Result<_>>()?))
}

/// Of each token the share of its cells that are learned.
fn shares(bsq: Bsq, schedule: &Schedule, cells: &[f32]) -> Vec<f32> {
    let (mut shares, mut rest) = (Vec::new(), cells);
    for &scale in schedule.scales() {
        let (own, behind) = rest.split_at(bsq.grid(scale).0 * bsq.grid(scale).1);
        // A code of ones for each cell that is learned: the share of ones among a token's bits is what is asked for.
        let codes: Vec<u32> = own.iter().map(|&learned| if learned > 0.0 { u32::MAX } else { 0 }).collect();
        let bits = bsq.labels(&codes, scale);
        shares.extend(bits.chunks_exact(bsq.bits()).map(|b| b.iter().sum::<u32>() as f32 / b.len() as f32));
        rest = behind;
    }
    shares
}

/// Labels and inputs. Without flips the codes are what they are; with them, later labels mend what was turned over.
fn quantised(
    model: &Infinity,
    example: &Example,
    schedule: &Schedule,
    codes: Vec<u32>,
    flips: Option<&[Vec<u32>]>,
    teacher: Teacher,
) -> Result<Quantised> {
    // A student is given what its teacher was.
    let area = model.bsq.area || example.teacher.0.is_some() && teacher == Teacher::Reference;
    let (bsq, scales) = (Bsq { area, ..model.bsq }, schedule.scales());
    let cells = |scale| bsq.grid(scale).0 * bsq.grid(scale).1;
    let mut codes = codes.into_iter();
    let given = scales.iter().map(|&scale| codes.by_ref().take(cells(scale)).collect()).collect();
    let plain = bsq.dequantise(given, scales)?;
    let Some(flips) = flips.filter(|f| f.iter().flatten().any(|&mask| mask != 0)) else { return Ok(plain) };
    // Of tokens that come from elsewhere only the codes are known: their sum is the nearest thing to the latent.
    let latent = match &example.latent.0 {
        Some(latent) => Map { d: bsq.d, grid: bsq.grid(schedule.last()), data: latent.to_vec() },
        None => plain.latent,
    };
    Ok(bsq.quantise(&latent, scales, Some(flips)))
}

/// Drop-path (Huang et al., arXiv 1603.09382): the two steered residuals of each block are left out with a probability that grows from 0
/// in the first block to `most` in the last, and scaled up otherwise.
fn drops(depth: usize, most: f32, seed: u64, key: u64) -> Vec<[Vec<f32>; 2]> {
    let mut random = Stream::new(seed, Purpose::DropPath, key);
    let mut factor = |probability: f32| if random.chance(probability) { 0.0 } else { 1.0 / (1.0 - probability) };
    let of = |index: usize| {
        let probability = most * index as f32 / (depth - 1).max(1) as f32;
        [vec![factor(probability)], vec![factor(probability)]]
    };
    (0..depth).map(of).collect()
}

impl Part<'_> {
    /// Weights of tokens, so that a token's weight is the sum of its cells', those that are not learned left out.
    fn weights(&self, model: &Infinity, by_scale: &ByScale) -> Vec<f32> {
        let cells: Vec<usize> = (0..self.schedule.scales().len()).map(|s| self.schedule.cells(s)).collect();
        let labels = (self.labels.len() / model.bsq.d) as f32;
        // The published code weighs the scales of labels, and not those of a teacher.
        let of_scales = match self.teacher.0 {
            None => token_weights(&cells, &by_scale.weights),
            Some(_) => token_weights(&cells, &[1.0]),
        };
        let Some((learned, shares)) = &self.learned else {
            return of_scales.into_iter().map(|w| w * labels * self.weight).collect();
        };
        let each = shares.len() as f32 / shares.iter().sum::<f32>().max(f32::MIN_POSITIVE);
        of_scales.into_iter().zip(shares).map(|(w, share)| w * share * each * *learned as f32 * self.weight).collect()
    }

    /// The mean over bits of each cell, scale after scale as the codes stand.
    fn nats(&self, logits: &[f32], model: &Infinity) -> Vec<f32> {
        let (bsq, bits) = (model.bsq, model.bsq.bits());
        let nats = bit_nats(logits, &self.labels);
        let mut found = Vec::with_capacity(nats.len() / bsq.d);
        for (s, &scale) in self.schedule.scales().iter().enumerate() {
            let start = self.schedule.before(s) * bits;
            found.extend(bsq.means(&nats[start..start + self.schedule.cells(s) * bits], scale));
        }
        found
    }
}

impl Pass for InfinityPass<'_> {
    fn tokens(&self) -> usize {
        self.parts.iter().map(|part| part.way.tokens()).sum()
    }

    fn forward(&mut self, layer: usize, keep: Keep) -> Result<()> {
        self.parts.iter_mut().try_for_each(|part| {
            self.stop.check()?;
            part.way.forward(layer, keep)
        })
    }

    /// Cross entropy of all bits, or the divergence from a teacher. A cell's nats are the mean of its bits'; in the total each scale has
    /// its weight. There is no z-loss: two classes need none.
    fn loss(&mut self, objective: &Objective) -> Result<Loss> {
        let mut loss = Loss { total: 0.0, nats: vec![] };
        for part in &mut self.parts {
            self.stop.check()?;
            let logits = part.way.logits()?;
            loss.nats.extend(part.nats(&to_host(&logits.flatten_all()?)?.to_vec1::<f32>()?, self.model));
            if objective.with_gradient {
                let weights = part.weights(self.model, &self.by_scale);
                let likeness = self.by_scale.teacher.likeness();
                let against = match &part.teacher.0 {
                    None => Against::Labels { labels: &part.labels, weights: &weights },
                    Some(logits) => Against::Teacher { logits: logits.as_slice(), weights: &weights, likeness },
                };
                loss.total += part.way.turn(&logits, against, self.learned)?;
            }
        }
        if !objective.with_gradient {
            // Nobody asked for it; weights are those of scoring, equal for all.
            let mut at = 0;
            for part in &self.parts {
                let cells = part.labels.len() / self.model.bsq.d;
                let sum: f64 = loss.nats[at..at + cells].iter().map(|&n| f64::from(n)).sum();
                loss.total += f64::from(part.weight) * sum;
                at += cells;
            }
        }
        Ok(loss)
    }

    fn backward(&mut self, layer: usize, wanted: &Wanted) -> Result<Gradients> {
        let mut found = Gradients::new();
        for part in &mut self.parts {
            self.stop.check()?;
            found = sum([found, part.way.backward(layer, wanted, self.learned)?])?;
        }
        Ok(found)
    }

    fn vectors(&mut self) -> Result<Tensor> {
        let width = self.model.facts.width;
        let mut sum = Tensor::zeros((self.vectors, width), DType::F32, self.model.transformer.device())?;
        if !self.learned {
            return Ok(sum);
        }
        for part in &mut self.parts {
            let gradients = part.way.features()?;
            if let (Reading::Prompt(prompt), Some(gradient)) = (&part.text, gradients.first()) {
                sum = prompt.gathered(gradient, sum)?;
            }
        }
        Ok(sum)
    }
}
