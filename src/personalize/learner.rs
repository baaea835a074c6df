//! What learns in a stage, and one step of it: forward, backward, clip, update.

use super::optimizer::{self, AdamW, Update};
use super::options::{Options, Trainable};
use super::prompts;
use crate::model::lumina::transformer::Transformer;
use crate::model::personalized::{Personalized, Sequence, Word};
use crate::model::subject::Change;
use crate::model::Model;
use crate::random::{Dropout, Purpose, Stream};
use crate::run::{Control, Run, Stage};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor, Var};
use rayon::prelude::*;
use std::collections::BTreeMap;

/// The sequences of one step.
pub struct Batch {
    /// Pictures of the subject.
    pub subject: Vec<Sequence>,
    /// Pictures of the plain class; may be empty.
    pub prior: Vec<Sequence>,
}

/// What a step found before its update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Mean cross entropy per labelled token of the subject's pictures plus z-loss, plus `prior_weight` times the same of
    /// the class pictures.
    pub loss: f32,
    /// Norm of the gradient of everything that learns, before it is clipped.
    pub gradient_norm: f32,
}

/// One tensor that learns, kept in f32 whatever the model runs in.
struct Parameter {
    /// `vectors`, or the weight's name in the checkpoint, for low-rank changes with `.down` or `.up` behind it.
    name: String,
    place: Place,
    value: Var,
    learning_rate: f64,
    weight_decay: f64,
}

#[derive(Clone, Copy)]
enum Place {
    Vectors,
    /// A weight, by layer and by number in [`weights_mut`](crate::model::lumina::transformer::Layer::weights_mut).
    Weight(usize, usize),
    /// The two factors of a low-rank change, by layer and by number of the projection: query, key, value.
    Down(usize, usize),
    Up(usize, usize),
}

/// A model with one subject in the middle of a stage.
pub struct Learner<'m> {
    /// Nothing in it is tracked; what learns is put in at each pass.
    view: Personalized<'m>,
    options: Options,
    stage: Stage,
    parameters: Vec<Parameter>,
    optimizer: AdamW,
}

/// A number for a step that no other stage has.
pub(super) fn step_key(stage: Stage, step: u64) -> u64 {
    (stage as u64) << 40 | step
}

impl<'m> Learner<'m> {
    /// The embedding stage. `vectors` [N, hidden] f32 holds the identifier's vectors and behind them those of the
    /// reference pictures, if they have any.
    pub fn embedding(model: &'m Model, options: &Options, vectors: &Tensor) -> Result<Self> {
        Self::new(model, options, Stage::Embedding, vectors, vec![vectors_parameter(model, options, vectors)?])
    }

    /// The layers stage, with the vectors as the embedding stage left them.
    pub fn layers(model: &'m Model, options: &Options, vectors: &Tensor) -> Result<Self> {
        let mut parameters = Vec::new();
        if options.train_embedding_in_layer_stage {
            parameters.push(vectors_parameter(model, options, vectors)?);
        }
        let mut transformer = model.transformer().clone();
        for index in options.trained_layers(model) {
            let weights = transformer.layers[index].weights_mut();
            let chosen = weights.into_iter().enumerate().filter(|(_, (name, _))| options.trainable.includes(name));
            for (projection, (number, (name, weight))) in chosen.enumerate() {
                let name = format!("model.layers.{index}.{name}");
                let mut push = |name: String, place: Place, value: &Tensor| -> Result<()> {
                    let value = Var::from_tensor(&value.to_dtype(DType::F32)?.contiguous()?)?;
                    let (learning_rate, weight_decay) = (options.layer_learning_rate, options.weight_decay);
                    parameters.push(Parameter { name, place, value, learning_rate, weight_decay });
                    Ok(())
                };
                if options.trainable != Trainable::Lora {
                    push(name, Place::Weight(index, number), weight)?;
                    continue;
                }
                let (out, inner) = weight.dims2()?;
                let rank = (options.lora_rank as usize).min(out).min(inner);
                let down = first_down(rank, inner, options.seed, 3 * index + projection, model.device())?;
                let up = Tensor::zeros((out, rank), DType::F32, model.device())?;
                push(format!("{name}.down"), Place::Down(index, projection), &down)?;
                push(format!("{name}.up"), Place::Up(index, projection), &up)?;
            }
        }
        Self::new(model, options, Stage::Layers, vectors, parameters)
    }

    fn new(
        model: &'m Model,
        options: &Options,
        stage: Stage,
        vectors: &Tensor,
        parameters: Vec<Parameter>,
    ) -> Result<Self> {
        let own = options.embedding_vectors;
        let mut words = vec![Word { identifier: options.identifier.clone(), vectors: 0..own }];
        for (index, row) in (own..vectors.dim(0)? as u32).enumerate() {
            words.push(Word { identifier: prompts::picture_word(index), vectors: row..row + 1 });
        }
        let vectors = Some(vectors.to_device(model.device())?);
        let view = Personalized { model, transformer: model.transformer().clone(), words, vectors };
        let optimizer = AdamW::new(parameters.iter().map(|p| &p.value), options.beta1, options.beta2)?;
        Ok(Learner { view, options: options.clone(), stage, parameters, optimizer })
    }

    /// The view that prompts and sequences are made with. Its weights are those at the beginning of the stage.
    pub fn view(&self) -> &Personalized<'m> {
        &self.view
    }

    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Steps done in this stage.
    pub fn steps(&self) -> u64 {
        self.optimizer.steps()
    }

    /// Learns from a batch.
    pub fn step(&mut self, batch: &Batch, run: &Run) -> Result<Outcome> {
        let labelled = |s: &[Sequence]| s.iter().map(|s| s.labelled.len()).sum::<usize>().max(1) as f64;
        let weight = (1.0 / labelled(&batch.subject)) as f32;
        let prior_weight = (self.options.prior_weight / labelled(&batch.prior)) as f32;
        let sequences: Vec<(&Sequence, f32)> =
            batch.subject.iter().map(|s| (s, weight)).chain(batch.prior.iter().map(|s| (s, prior_weight))).collect();

        // A GPU is filled by one wide pass, a CPU by one pass per thread, and those need no padding. The passes are the same
        // whatever the number of threads, and are summed in order, so the result is too.
        let per_round = sequences.len().div_ceil(self.options.accumulation as usize).max(1);
        let (per_pass, passes) = match self.view.model.device().is_cpu() {
            true => (1, per_round.min(rayon::current_num_threads())),
            false => (per_round, 1),
        };
        let mut loss = 0f64;
        let mut gradients: Vec<Option<Tensor>> = vec![None; self.parameters.len()];
        let stop = run.control();
        let passed: Vec<_> = sequences.chunks(per_pass).enumerate().collect();
        for round in passed.chunks(passes) {
            let one = |&(pass, sequences): &(usize, _)| self.pass(pass, sequences, &stop);
            for result in round.par_iter().map(one).collect::<Vec<_>>() {
                let (part, found) = result?;
                loss += part;
                add(&mut gradients, found)?;
            }
        }
        let gradients = self.parameters.iter().zip(gradients).map(|(p, g)| match g {
            Some(g) => Ok(g),
            None => Ok(p.value.zeros_like()?),
        });
        let mut gradients = gradients.collect::<Result<Vec<_>>>()?;
        let norm = optimizer::norm(&gradients)?;
        if !loss.is_finite() || !norm.is_finite() {
            let field = match self.stage {
                Stage::Embedding => "embedding_learning_rate",
                _ => "layer_learning_rate",
            };
            let message = format!(
                "training went out of bounds at step {} of stage {} (loss {loss}, gradient norm {norm}); lower the learning rate",
                self.steps(),
                self.stage.name()
            );
            return Err(Error::invalid(field, message));
        }
        if self.options.clip_norm > 0.0 {
            optimizer::clip(&mut gradients, norm, self.options.clip_norm)?;
        }
        run.check()?;
        let warm = match self.options.warmup_steps {
            0 => 1.0,
            n => ((self.steps() + 1) as f64 / n as f64).min(1.0),
        };
        let updates = self.parameters.iter().zip(&gradients).map(|(p, gradient)| Update {
            value: &p.value,
            gradient,
            learning_rate: p.learning_rate * warm,
            weight_decay: p.weight_decay,
        });
        self.optimizer.step(&updates.collect::<Vec<_>>())?;
        Ok(Outcome { loss: loss as f32, gradient_norm: norm as f32 })
    }

    /// Forward and backward over some sequences of a step with their weights per labelled token: the loss and the gradient
    /// of each parameter.
    fn pass(&self, pass: usize, sequences: &[(&Sequence, f32)], stop: &Control) -> Result<(f64, Vec<Option<Tensor>>)> {
        stop.check()?;
        let view = self.tracked_view()?;
        let dropout = Dropout {
            probability: self.options.dropout,
            seed: self.options.seed,
            step: step_key(self.stage, self.steps()) | (pass as u64) << 32,
        };
        let owned: Vec<Sequence> = sequences.iter().map(|(s, _)| (*s).clone()).collect();
        let loss = view.losses(&owned, |i| sequences[i].1, self.options.z_loss, Some(&dropout), stop)?;
        let found = loss.total.backward();
        // A cancelled run fails inside; what to say of it is not that tensor operation's to know.
        stop.check()?;
        let mut found = found?;
        let gradients = self.parameters.iter().map(|p| found.remove(&p.value)).collect();
        Ok((loss.total.to_scalar::<f32>()? as f64, gradients))
    }

    /// The view with everything that learns put in, so that gradients flow to it.
    fn tracked_view(&self) -> Result<Personalized<'m>> {
        self.view_with(|value| value.as_tensor().clone())
    }

    /// The model with what it has learned so far, to draw with until the next step. Nothing in it is tracked.
    pub(super) fn learned_view(&self) -> Result<Personalized<'m>> {
        self.view_with(|value| value.as_tensor().detach())
    }

    fn view_with(&self, value: impl Fn(&Var) -> Tensor) -> Result<Personalized<'m>> {
        let mut view = self.view.clone();
        let dtype = view.transformer.dtype();
        for parameter in &self.parameters {
            let value = value(&parameter.value);
            match parameter.place {
                Place::Vectors => view.vectors = Some(value),
                Place::Weight(layer, number) => {
                    *view.transformer.layers[layer].weights_mut()[number].1 = value.to_dtype(dtype)?;
                }
                Place::Down(layer, projection) => {
                    let down = value.to_dtype(dtype)?;
                    view.transformer.layers[layer].low_rank[projection] = Some((down.clone(), down));
                }
                // Always comes right behind its `Down`.
                Place::Up(layer, projection) => {
                    let up = value.to_dtype(dtype)?;
                    if let Some(pair) = &mut view.transformer.layers[layer].low_rank[projection] {
                        pair.1 = up;
                    }
                }
            }
        }
        Ok(view)
    }

    /// All vectors as they are now, [N, hidden] f32.
    pub fn vectors(&self) -> Result<Tensor> {
        let learned = self.parameters.iter().find(|p| matches!(p.place, Place::Vectors));
        match (learned, &self.view.vectors) {
            (Some(p), _) => current(&p.value),
            (None, Some(vectors)) => Ok(vectors.clone()),
            (None, None) => Err(Error::Internal { message: "a learner without vectors".into() }),
        }
    }

    /// What the transformer's weights have learned so far, in the model's dtype, on the CPU.
    pub fn changes(&self) -> Result<BTreeMap<String, Change>> {
        let mut original: Transformer = self.view.transformer.clone();
        let dtype = original.dtype();
        let out = |t: &Tensor| -> Result<Tensor> { Ok(t.to_dtype(dtype)?.to_device(&Device::Cpu)?) };
        let mut downs = BTreeMap::new();
        let mut changes = BTreeMap::new();
        for parameter in &self.parameters {
            let value = current(&parameter.value)?;
            match parameter.place {
                Place::Weight(layer, number) => {
                    let weight = original.layers[layer].weights_mut()[number].1.to_dtype(DType::F32)?;
                    changes.insert(parameter.name.clone(), Change::Delta(out(&(value - weight)?)?));
                }
                Place::Down(layer, projection) => {
                    downs.insert((layer, projection), out(&value)?);
                }
                // Always comes right behind its `Down`.
                Place::Up(layer, projection) => {
                    if let (Some(name), Some(down)) =
                        (parameter.name.strip_suffix(".up"), downs.remove(&(layer, projection)))
                    {
                        changes.insert(name.to_string(), Change::LowRank { down, up: out(&value)? });
                    }
                }
                Place::Vectors => {}
            }
        }
        Ok(changes)
    }

    /// Everything that a step changes, f32, on the CPU: of all that learns the `value.NAME`, and the optimizer's running
    /// means of the gradient and of its square, `mean.NAME` and `square.NAME`. The name is `vectors`, or that of the weight
    /// in the checkpoint, for low-rank changes with `.down` or `.up` behind it.
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut state = BTreeMap::new();
        for (p, (mean, square)) in self.parameters.iter().zip(self.optimizer.moments()) {
            for (part, tensor) in [("value", &current(&p.value)?), ("mean", mean), ("square", square)] {
                state.insert(format!("{part}.{}", p.name), tensor.to_device(&Device::Cpu)?);
            }
        }
        Ok(state)
    }

    /// Goes on from a state; `get` finds a tensor of it by name and shape.
    pub(super) fn restore(&mut self, steps: u64, get: impl Fn(&str, &[usize]) -> Result<Tensor>) -> Result<()> {
        let mut moments = Vec::new();
        for p in &self.parameters {
            let get = |part: &str| {
                get(&format!("{part}.{}", p.name), p.value.dims())?.to_device(p.value.device()).map_err(Error::from)
            };
            p.value.set(&get("value")?)?;
            moments.push((get("mean")?, get("square")?));
        }
        self.optimizer = AdamW::resume(self.options.beta1, self.options.beta2, steps, moments);
        Ok(())
    }
}

fn add(sums: &mut [Option<Tensor>], found: Vec<Option<Tensor>>) -> Result<()> {
    for (sum, g) in sums.iter_mut().zip(found) {
        *sum = match (sum.take(), g) {
            (Some(sum), Some(g)) => Some((sum + g)?),
            (sum, g) => sum.or(g),
        };
    }
    Ok(())
}

/// The value as it is now, in storage of its own: that of the variable changes with the next step.
fn current(value: &Var) -> Result<Tensor> {
    Ok(value.as_tensor().copy()?.detach())
}

fn vectors_parameter(model: &Model, options: &Options, vectors: &Tensor) -> Result<Parameter> {
    Ok(Parameter {
        name: "vectors".into(),
        place: Place::Vectors,
        value: Var::from_tensor(&vectors.to_device(model.device())?.to_dtype(DType::F32)?)?,
        learning_rate: options.embedding_learning_rate,
        weight_decay: 0.0,
    })
}

/// The first factor of a low-rank change, uniform within 1 / sqrt(inputs) as peft draws it; the other one starts at zero,
/// and their product is not scaled (peft: alpha equals the rank).
fn first_down(rank: usize, inner: usize, seed: u64, number: usize, device: &Device) -> Result<Tensor> {
    let mut random = Stream::new(seed, Purpose::Initial, 1 + number as u64);
    let bound = (inner as f32).powf(-0.5);
    let values: Vec<f32> = (0..rank * inner).map(|_| bound * (2.0 * random.uniform() - 1.0)).collect();
    Ok(Tensor::from_vec(values, (rank, inner), device)?)
}
