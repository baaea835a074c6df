//! What learns in a stage, and one step of it: forward, backward, clip, update.

use super::learned::{seen, Intake, Learned, Parameter, Place, Use};
use super::options::Options;
use super::passes::{self, Plan};
use super::prompts;
use crate::device::to_host;
use crate::model::family::{Example, Mode, Objective};
use crate::model::personalized::Personalized;
use crate::model::words::Word;
use crate::model::Model;
use crate::ops::{self, own_kernels_on};
use crate::random::{Dropout, Purpose, Stream};
use crate::run::{Control, Run, Stage};
use crate::weight::Weight;
use crate::weights::Change;
use crate::weights::{LowRank, Part, Target, Wanted};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;

/// The pictures of one step.
pub struct Batch {
    /// Of the subject.
    pub subject: Vec<Example>,
    /// Of the plain class; may be empty.
    pub prior: Vec<Example>,
}

/// What a step found before its update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Mean cross entropy per labelled token of the subject's pictures plus z-loss, plus `prior_weight` times the same of
    /// the class pictures; where something is distilled, of those the mean divergence from the teacher.
    pub loss: f32,
    /// Norm of the gradient of everything that learns, before it is clipped; of two updates the larger one.
    pub gradient_norm: f32,
}

/// A model with one subject in the middle of a stage.
pub struct Learner<'m> {
    /// With everything that learns in it as it is now.
    view: Personalized<'m>,
    options: Options,
    stage: Stage,
    learned: Learned,
    /// Done in this stage.
    steps: u64,
}

/// A number for a step that no other stage has.
pub(super) fn step_key(stage: Stage, step: u64) -> u64 {
    (stage as u64) << 40 | step
}

impl<'m> Learner<'m> {
    /// The embedding stage. `vectors` [N, width] f32 holds the identifier's vectors and behind them those of the
    /// reference pictures, if they have any.
    pub fn embedding(model: &'m Model, options: &Options, vectors: &Tensor) -> Result<Self> {
        Self::new(model, options, Stage::Embedding, vectors, vec![Parameter::vectors(model, options, vectors)?])
    }

    /// The layers stage, with the vectors as the embedding stage left them.
    pub fn layers(model: &'m Model, options: &Options, vectors: &Tensor) -> Result<Self> {
        let mut parameters = Vec::new();
        if options.train_embedding_in_layer_stage {
            parameters.push(Parameter::vectors(model, options, vectors)?);
        }
        let weights = model.family().weights();
        let layers = options.trained_layers(model.facts().layers);
        let chosen = weights.iter().enumerate().filter(|(_, entry)| options.learns(&entry.spec));
        for (number, (id, entry)) in chosen.enumerate() {
            if !entry.spec.layer.is_some_and(|layer| layers.contains(&layer)) {
                continue;
            }
            let name = &entry.spec.name;
            let mut push = |name: String, part: Part, value: Tensor, dtype: DType| -> Result<()> {
                let place = Place::Weight(Target { part, weight: id });
                parameters.push(Parameter::new((name, place), &value, dtype, model, options)?);
                Ok(())
            };
            let own = entry.weight.dense_dtype();
            if options.is_low_rank() {
                let (out, inner) = (entry.spec.dims[0], entry.spec.dims[1]);
                let rank = (options.lora_rank as usize).min(out).min(inner);
                let up = Tensor::zeros((out, rank), DType::F32, &Device::Cpu)?;
                let dtype = model.family().dtype();
                push(format!("{name}.down"), Part::Down, first_down(rank, inner, options.seed, number)?, dtype)?;
                push(format!("{name}.up"), Part::Up, up, dtype)?;
                continue;
            }
            let value = match options.master_weights {
                true => entry.weight.to_f32()?,
                false => entry.weight.to_f32()?.to_dtype(own)?,
            };
            // A copy, so that updates do not change the model.
            push(name.clone(), Part::Whole, to_host(&value.force_contiguous()?)?, own)?;
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
        let vectors = Some(vectors.to_device(model.device())?.to_dtype(DType::F32)?);
        let view = Personalized { model, family: model.family().clone(), words, vectors };
        let learned = Learned::new(parameters, model, options)?;
        let mut learner = Learner { view, options: options.clone(), stage, learned, steps: 0 };
        learner.install()?;
        Ok(learner)
    }

    /// Puts everything that learns where the model's passes see it.
    fn install(&mut self) -> Result<()> {
        let mut weights = self.view.family.weights().clone();
        for Parameter { place, seen, .. } in &self.learned.parameters {
            let Place::Weight(Target { part, weight }) = *place else {
                self.view.vectors = Some(seen.clone());
                continue;
            };
            let entry = weights.entry_mut(weight);
            let seen: Weight = seen.clone().into();
            match part {
                Part::Whole => entry.weight = seen,
                // `Up` comes behind.
                Part::Down => {
                    let scale = self.options.low_rank_scale(seen.dims()[0]);
                    entry.low_rank = Some(LowRank { up: seen.clone(), down: seen, scale });
                }
                Part::Up => {
                    if let Some(pair) = &mut entry.low_rank {
                        pair.up = seen;
                    }
                }
            }
        }
        self.view.family = self.view.family.with(weights);
        Ok(())
    }

    /// The model with what was learned so far.
    pub fn view(&self) -> &Personalized<'m> {
        &self.view
    }

    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Steps done in this stage.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Learns from a batch: in one update, or where something is distilled in one for the subject and one for the class.
    pub fn step(&mut self, batch: &Batch, run: &Run) -> Result<Outcome> {
        let subject = weighted(&batch.subject, 1.0);
        let prior = weighted(&batch.prior, self.options.prior_weight);
        let outcome = match self.options.distils() && !prior.is_empty() {
            false => self.update(&[subject, prior].concat(), 0, run)?,
            true => {
                let (own, class) = (self.update(&subject, 0, run)?, self.update(&prior, subject.len(), run)?);
                Outcome { loss: own.loss + class.loss, gradient_norm: own.gradient_norm.max(class.gradient_norm) }
            }
        };
        self.steps += 1;
        Ok(outcome)
    }

    /// An update by these examples; `before` are those that the step has learned from already.
    fn update(&mut self, examples: &[(&Example, f32)], before: usize, run: &Run) -> Result<Outcome> {
        // A GPU is filled by one wide group; on a CPU examples go side by side or one by one, and need no padding.
        let per_group = match own_kernels_on(self.view.model.device()) {
            true => 1,
            false => examples.len().div_ceil(self.options.accumulation as usize).max(1),
        };
        let groups: Vec<&[(&Example, f32)]> = examples.chunks(per_group).collect();

        let stop = run.control();
        let limit = self.options.clip_norm;
        let outcome = if limit <= 0.0 {
            self.pass(&groups, before, Use::Update(1.0), &stop)?
        } else if self.options.keep_gradients {
            let mut kept = BTreeMap::new();
            let outcome = self.pass(&groups, before, Use::Keep(&mut kept), &stop)?;
            let rate = self.rate();
            for (index, gradient) in kept {
                self.learned.update(index, gradient, rate, clip(outcome.gradient_norm, limit))?;
            }
            outcome
        } else {
            let outcome = self.pass(&groups, before, Use::Measure, &stop)?;
            self.pass(&groups, before, Use::Update(clip(outcome.gradient_norm, limit)), &stop)?;
            outcome
        };
        Ok(outcome)
    }

    /// What warming up and cooling down leave of the learning rate in the next step.
    fn rate(&self) -> f64 {
        let (done, options) = (self.steps(), &self.options);
        let share = |steps: u64, of: u32| if of == 0 { 1.0 } else { (steps as f64 / f64::from(of)).min(1.0) };
        let cooling = if self.stage == Stage::Layers { options.cooldown_steps } else { 0 };
        let left = u64::from(options.layer_steps).saturating_sub(done);
        share(done + 1, options.warmup_steps) * share(left, cooling.min(options.layer_steps))
    }

    /// Forward and backward over the groups of a step: examples with their weights per label.
    fn pass(&mut self, groups: &[&[(&Example, f32)]], before: usize, purpose: Use, stop: &Control) -> Result<Outcome> {
        let check = self.finite();
        let wanted = self.wanted();
        let plan = Plan {
            objective: Objective { z_loss: self.options.z_loss, with_gradient: true },
            wanted: &wanted,
            // Where the class has an update of its own they are not in its prompts.
            vectors: before == 0 && self.learned.parameters.iter().any(|p| p.place == Place::Vectors),
            recompute: self.options.recompute,
            at: self.view.model.place(),
        };
        let rate = self.rate();
        let mut number = step_key(self.stage, self.steps()) + ((before as u64) << 32);
        let Learner { view, learned, options, .. } = self;
        let mut passes = Vec::new();
        for group in groups {
            // Each example has masks of its own, however the examples of a step are grouped.
            let keys = (0..group.len() as u64).map(|i| number + (i << 32)).collect();
            number += (group.len() as u64) << 32;
            let dropout = Dropout { probability: options.dropout, seed: options.seed, keys };
            let how = Mode { dropout: Some(dropout), by_scale: options.by_scale(), stop: stop.clone() };
            passes.push(view.family.pass(group, view.vectors.as_ref(), &how)?);
        }

        let mut loss = 0.0;
        let mut intake = Intake::new(learned, purpose, rate);
        let vectors = passes::run(
            view.family.as_ref(),
            &mut passes,
            &plan,
            &mut |total| {
                loss = total;
                check("loss", total)
            },
            &mut |gradients| intake.take(gradients.into_iter().map(|(target, g)| (Place::Weight(target), g))),
        )?;
        intake.take(vectors.map(|g| (Place::Vectors, g)))?;
        let squared = intake.finish()?;
        stop.check()?;
        check("gradient norm", squared)?;
        Ok(Outcome { loss: loss as f32, gradient_norm: squared.sqrt() as f32 })
    }

    /// Which gradients a step asks for.
    fn wanted(&self) -> Wanted {
        let targets = self.learned.parameters.iter().filter_map(|p| match p.place {
            Place::Weight(target) => Some(target),
            Place::Vectors => None,
        });
        Wanted::new(self.view.family.weights().len(), targets)
    }

    /// Errors if a number of this step is not finite, with what to do about it.
    fn finite(&self) -> impl Fn(&str, f64) -> Result<()> {
        let (steps, stage) = (self.steps(), self.stage);
        move |what: &str, value: f64| {
            if value.is_finite() {
                return Ok(());
            }
            let field = match stage {
                Stage::Embedding => "embedding_learning_rate",
                _ => "layer_learning_rate",
            };
            let (stage, hint) = (stage.name(), "lower the learning rate");
            let message =
                format!("training went out of bounds at step {steps} of stage {stage} ({what} {value}); {hint}");
            Err(Error::invalid(field, message))
        }
    }

    /// All vectors as they are now, [N, hidden] f32.
    pub fn vectors(&self) -> Result<Tensor> {
        let learned = self.learned.parameters.iter().find(|p| p.place == Place::Vectors);
        match (learned, &self.view.vectors) {
            (Some(p), _) => Ok(p.value.copy()?),
            (None, Some(vectors)) => Ok(vectors.clone()),
            (None, None) => Err(Error::internal("a learner without vectors")),
        }
    }

    /// What the model's weights have learned, in the model's dtype, on the CPU. Takes the learner, whose memory is let
    /// go of as the changes are made.
    pub fn changes(self) -> Result<BTreeMap<String, Change>> {
        let Learner { view, learned, options, .. } = self;
        let original = view.model.family().weights();
        let parameters = learned.into_parameters();
        drop(view);
        let mut downs = BTreeMap::new();
        let mut changes = BTreeMap::new();
        for Parameter { place, value, seen, .. } in parameters {
            let Place::Weight(Target { part, weight }) = place else { continue };
            drop(seen);
            let value = to_host(&value)?;
            let entry = &original[weight];
            let name = entry.spec.name.clone();
            let out = |t: &Tensor| -> Result<Tensor> { Ok(t.to_dtype(entry.weight.dense_dtype())?.copy()?) };
            match part {
                Part::Whole => {
                    let before = to_host(&entry.weight.to_f32()?.force_contiguous()?)?;
                    let delta = ops::difference(&value.to_dtype(DType::F32)?, &before)?;
                    changes.insert(name, Change::Delta(out(&delta)?));
                }
                Part::Down => {
                    downs.insert(weight, out(&value)?);
                }
                // Always comes behind its `Down`.
                Part::Up => {
                    let Some(down) = downs.remove(&weight) else { continue };
                    let scale = options.low_rank_scale(down.dim(0)?);
                    let up = if scale == 1.0 { out(&value)? } else { out(&(value * scale)?)? };
                    changes.insert(name, Change::LowRank { down, up });
                }
            }
        }
        Ok(changes)
    }

    /// Everything that a step changes, f32, on the CPU: of all that learns the `value.NAME`, and the optimizer's running
    /// means of the gradient and of its square, `mean.NAME` and `square.NAME`. The name is `vectors`, or that of the weight
    /// in the checkpoint, for low-rank changes with `.down` or `.up` behind it.
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut state = BTreeMap::new();
        for (index, p) in self.learned.parameters.iter().enumerate() {
            let (mean, square) = self.learned.optimizer.state(index)?;
            let value = to_host(&p.value.to_dtype(DType::F32)?.copy()?)?;
            state.insert(format!("value.{}", p.name), value);
            state.insert(format!("mean.{}", p.name), Tensor::from_vec(mean, p.value.shape(), &Device::Cpu)?);
            state.insert(format!("square.{}", p.name), Tensor::from_vec(square, p.value.shape(), &Device::Cpu)?);
        }
        Ok(state)
    }

    /// Goes on from a state; `get` finds a tensor of it by name and shape.
    pub(super) fn restore(&mut self, steps: u64, get: impl Fn(&str, &[usize]) -> Result<Tensor>) -> Result<()> {
        let mut states = Vec::new();
        for p in &mut self.learned.parameters {
            let get = |part: &str| get(&format!("{part}.{}", p.name), p.value.dims());
            let value = get("value")?.to_dtype(p.value.dtype())?.copy()?.to_device(p.value.device())?;
            let flat = |t: Tensor| Ok::<_, Error>(t.flatten_all()?.to_vec1::<f32>()?);
            states.push((flat(get("mean")?)?, flat(get("square")?)?));
            p.seen = seen(self.view.model, &value, p.seen.dtype())?;
            p.value = value;
        }
        let updates = |p: &Parameter| match p.place {
            Place::Weight(_) if self.options.distils() => 2 * steps,
            _ => steps,
        };
        let steps_of = self.learned.parameters.iter().map(updates).collect();
        self.learned.optimizer.restore(steps_of, states)?;
        self.steps = steps;
        self.install()
    }
}

/// Examples with their weight per label.
fn weighted(examples: &[Example], weight: f64) -> Vec<(&Example, f32)> {
    let labels = examples.iter().map(Example::learned).sum::<usize>().max(1) as f64;
    examples.iter().map(|e| (e, (weight / labels) as f32)).collect()
}

/// What gradients of this norm are multiplied with to be no longer than `limit`, as `torch.nn.utils.clip_grad_norm_` does.
fn clip(norm: f32, limit: f64) -> f64 {
    (limit / (f64::from(norm) + 1e-6)).min(1.0)
}

/// The first factor of a low-rank change, uniform within 1 / sqrt(inputs) as peft draws it; the other one starts at zero,
/// and their product is not scaled (peft: alpha equals the rank).
fn first_down(rank: usize, inner: usize, seed: u64, number: usize) -> Result<Tensor> {
    let mut random = Stream::new(seed, Purpose::Initial, 1 + number as u64);
    let bound = (inner as f32).powf(-0.5);
    let values: Vec<f32> = (0..rank * inner).map(|_| bound * (2.0 * random.uniform() - 1.0)).collect();
    Ok(Tensor::from_vec(values, (rank, inner), &Device::Cpu)?)
}
