//! What learns in a stage, and one step of it: forward, backward, clip, update.

use super::backward::{backward, Group, Plan};
use super::optimizer::{self, AdamW, Update};
use super::options::{Options, Trainable};
use super::prompts;
use crate::model::lumina::layer::{self, LowRank, Part, Wanted, NAMES};
use crate::model::personalized::{Personalized, Piece, Sequence, Word};
use crate::model::subject::Change;
use crate::model::weight::Weight;
use crate::model::Model;
use crate::random::{Dropout, Purpose, Stream};
use crate::run::{Control, Run, Stage};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
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

/// One tensor that learns.
struct Parameter {
    /// `vectors`, or the weight's name in the checkpoint, for low-rank changes with `.down` or `.up` behind it.
    name: String,
    place: Place,
    /// On the CPU, in storage of its own, where updates change it: f32, or the model's dtype without master weights. A model
    /// on the CPU reads it there.
    value: Tensor,
    learning_rate: f64,
    weight_decay: f64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Vectors,
    /// A weight of a layer, or a factor of a low-rank change to one.
    Layer(usize, Part),
}

/// A model with one subject in the middle of a stage.
pub struct Learner<'m> {
    /// With everything that learns in it as it is now.
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
        Self::new(model, options, Stage::Embedding, vectors, vec![vectors_parameter(options, vectors)?])
    }

    /// The layers stage, with the vectors as the embedding stage left them.
    pub fn layers(model: &'m Model, options: &Options, vectors: &Tensor) -> Result<Self> {
        let mut parameters = Vec::new();
        if options.train_embedding_in_layer_stage {
            parameters.push(vectors_parameter(options, vectors)?);
        }
        for index in options.trained_layers(model.transformer().layers.len()) {
            let weights = model.transformer().layers[index].weights();
            let mut push = |name: String, part: Part, value: Tensor| {
                let place = Place::Layer(index, part);
                let (learning_rate, weight_decay) = (options.layer_learning_rate, options.weight_decay);
                parameters.push(Parameter { name, place, value, learning_rate, weight_decay });
            };
            let chosen = NAMES.into_iter().zip(weights).enumerate();
            for (number, (name, weight)) in chosen.filter(|(_, (name, _))| options.trainable.includes(name)) {
                let name = format!("model.layers.{index}.{name}");
                if options.trainable != Trainable::Lora {
                    let value = match options.master_weights {
                        true => weight.to_f32()?,
                        false => weight.to_f32()?.to_dtype(weight.dense_dtype())?,
                    };
                    // A copy, so that updates do not change the model.
                    push(name, Part::Weight(number), value.to_device(&Device::Cpu)?.copy()?);
                    continue;
                }
                let (out, inner) = (weight.dims()[0], weight.dims()[1]);
                let rank = (options.lora_rank as usize).min(out).min(inner);
                let projection = number - layer::Q;
                let down = first_down(rank, inner, options.seed, 3 * index + projection)?;
                push(format!("{name}.down"), Part::Down(projection), down);
                push(format!("{name}.up"), Part::Up(projection), Tensor::zeros((out, rank), DType::F32, &Device::Cpu)?);
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
        let vectors = Some(vectors.to_device(model.device())?.to_dtype(DType::F32)?);
        let view = Personalized { model, transformer: model.transformer().clone(), words, vectors };
        let sizes = parameters.iter().map(|p| p.value.elem_count());
        let betas = (options.beta1, options.beta2);
        let optimizer = AdamW::new(sizes, betas, options.optimizer_state, options.seed);
        let mut learner = Learner { view, options: options.clone(), stage, parameters, optimizer };
        for parameter in &learner.parameters {
            parameter.install(&mut learner.view)?;
        }
        Ok(learner)
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
        self.optimizer.steps()
    }

    /// Learns from a batch.
    pub fn step(&mut self, batch: &Batch, run: &Run) -> Result<Outcome> {
        let labelled = |s: &[Sequence]| s.iter().map(|s| s.labelled.len()).sum::<usize>().max(1) as f64;
        let weight = (1.0 / labelled(&batch.subject)) as f32;
        let prior_weight = (self.options.prior_weight / labelled(&batch.prior)) as f32;
        let sequences: Vec<(&Sequence, f32)> =
            batch.subject.iter().map(|s| (s, weight)).chain(batch.prior.iter().map(|s| (s, prior_weight))).collect();
        // A GPU is filled by one wide group; on a CPU sequences go side by side or one by one, and need no padding.
        let per_group = match self.view.model.device().is_cpu() {
            true => 1,
            false => sequences.len().div_ceil(self.options.accumulation as usize).max(1),
        };
        let groups: Vec<&[(&Sequence, f32)]> = sequences.chunks(per_group).collect();

        let stop = run.control();
        let limit = self.options.clip_norm;
        let outcome = if limit <= 0.0 {
            self.pass(&groups, Use::Update(1.0), &stop)?
        } else if self.options.keep_gradients {
            let mut kept = BTreeMap::new();
            let outcome = self.pass(&groups, Use::Keep(&mut kept), &stop)?;
            let rate = self.rate();
            self.optimizer.begin_step();
            for (index, gradient) in kept {
                let parameter = &self.parameters[index];
                parameter.update(index, &gradient, &mut self.optimizer, rate, clip(outcome.gradient_norm, limit))?;
                parameter.install(&mut self.view)?;
            }
            outcome
        } else {
            let outcome = self.pass(&groups, Use::Measure, &stop)?;
            self.pass(&groups, Use::Update(clip(outcome.gradient_norm, limit)), &stop)?;
            outcome
        };
        Ok(outcome)
    }

    /// What warming up leaves of the learning rate in the next step.
    fn rate(&self) -> f64 {
        match self.options.warmup_steps {
            0 => 1.0,
            n => ((self.steps() + 1) as f64 / f64::from(n)).min(1.0),
        }
    }

    /// Forward and backward over the groups of a step: sequences with their weights per labelled token.
    fn pass(&mut self, groups: &[&[(&Sequence, f32)]], mut purpose: Use, stop: &Control) -> Result<Outcome> {
        let dropouts: Vec<Dropout> = (0..groups.len() as u64)
            .map(|group| Dropout {
                probability: self.options.dropout,
                seed: self.options.seed,
                step: step_key(self.stage, self.steps()) | group << 32,
            })
            .collect();
        let rows: Vec<Vec<&[Piece]>> =
            groups.iter().map(|g| g.iter().map(|(s, _)| s.pieces.as_slice()).collect()).collect();
        let mut prepared = Vec::new();
        for ((sequences, rows), dropout) in groups.iter().zip(&rows).zip(&dropouts) {
            let x = self.view.embed(rows)?;
            let context = self.view.transformer.causal_context(x.dims()[1], Some(dropout))?.stopped_by(stop.clone());
            let of: Vec<&Sequence> = sequences.iter().map(|(s, _)| *s).collect();
            prepared.push(Group { x, context, labels: self.view.labels(&of, |i| sequences[i].1)? });
        }
        let mut wanted = vec![Wanted::default(); self.view.transformer.layers.len()];
        for parameter in &self.parameters {
            match parameter.place {
                Place::Layer(layer, Part::Weight(number)) => wanted[layer].weights[number] = true,
                Place::Layer(layer, _) => wanted[layer].low_rank = true,
                Place::Vectors => {}
            }
        }
        let vectors = self.parameters.iter().position(|p| p.place == Place::Vectors);
        let plan = Plan {
            z_loss: self.options.z_loss,
            wanted: &wanted,
            inputs: vectors.is_some(),
            recompute: self.options.recompute,
            stop: stop.clone(),
        };

        let (rate, steps, stage) = (self.rate(), self.steps(), self.stage);
        let check = |what: &str, value: f64| {
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
        };
        let (mut loss, mut squared) = (0.0, 0.0);
        let places: Vec<Place> = self.parameters.iter().map(|p| p.place).collect();
        let Learner { view, parameters, optimizer, .. } = self;
        let mut begun = false;
        let mut use_gradient = |index: usize, gradient: Tensor| -> Result<()> {
            let gradient = gradient.to_device(&Device::Cpu)?;
            squared += optimizer::squared_norm(&gradient)?;
            match &mut purpose {
                Use::Measure => {}
                Use::Keep(kept) => drop(kept.insert(index, gradient)),
                Use::Update(scale) => {
                    if !begun {
                        optimizer.begin_step();
                        begun = true;
                    }
                    parameters[index].update(index, &gradient, optimizer, rate, *scale)?;
                }
            }
            Ok(())
        };
        let found = backward(
            &view.transformer,
            &prepared,
            &plan,
            &mut |total| {
                loss = total;
                check("loss", total)
            },
            &mut |layer, gradients| {
                for (part, gradient) in gradients {
                    if let Some(index) = places.iter().position(|&p| p == Place::Layer(layer, part)) {
                        use_gradient(index, gradient)?;
                    }
                }
                Ok(())
            },
        )?;
        if let Some(index) = vectors {
            let mut sum: Option<Tensor> = None;
            for (g, rows) in found.iter().zip(&rows) {
                let one = view.vectors_gradient(rows, g)?;
                sum = Some(match sum {
                    Some(sum) => (sum + one)?,
                    None => one,
                });
            }
            if let Some(sum) = sum {
                use_gradient(index, sum)?;
            }
        }
        stop.check()?;
        check("gradient norm", squared)?;
        if begun {
            for parameter in parameters {
                parameter.install(view)?;
            }
        }
        Ok(Outcome { loss: loss as f32, gradient_norm: squared.sqrt() as f32 })
    }

    /// All vectors as they are now, [N, hidden] f32.
    pub fn vectors(&self) -> Result<Tensor> {
        let learned = self.parameters.iter().find(|p| p.place == Place::Vectors);
        match (learned, &self.view.vectors) {
            (Some(p), _) => Ok(p.value.copy()?),
            (None, Some(vectors)) => Ok(vectors.clone()),
            (None, None) => Err(Error::internal("a learner without vectors")),
        }
    }

    /// What the transformer's weights have learned, in the model's dtype, on the CPU. Takes the learner, whose memory is let
    /// go of as the changes are made.
    pub fn changes(self) -> Result<BTreeMap<String, Change>> {
        let Learner { view, parameters, optimizer, .. } = self;
        let original = view.model.transformer();
        drop((optimizer, view));
        let mut downs = BTreeMap::new();
        let mut changes = BTreeMap::new();
        for parameter in parameters {
            let Place::Layer(layer, part) = parameter.place else { continue };
            let out = |t: &Tensor, number: usize| -> Result<Tensor> {
                let dtype = original.layers[layer].weights()[number].dense_dtype();
                Ok(t.to_dtype(dtype)?.copy()?)
            };
            match part {
                Part::Weight(number) => {
                    let weight = original.layers[layer].weights()[number].to_f32()?.to_device(&Device::Cpu)?;
                    let delta = (parameter.value.to_dtype(DType::F32)? - weight)?;
                    changes.insert(parameter.name.clone(), Change::Delta(out(&delta, number)?));
                }
                Part::Down(projection) => {
                    downs.insert((layer, projection), out(&parameter.value, layer::Q + projection)?);
                }
                // Always comes behind its `Down`.
                Part::Up(projection) => {
                    let down = downs.remove(&(layer, projection));
                    if let (Some(name), Some(down)) = (parameter.name.strip_suffix(".up"), down) {
                        let up = out(&parameter.value, layer::Q + projection)?;
                        changes.insert(name.to_string(), Change::LowRank { down, up });
                    }
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
        for (index, p) in self.parameters.iter().enumerate() {
            let (mean, square) = self.optimizer.state(index);
            state.insert(format!("value.{}", p.name), p.value.to_dtype(DType::F32)?.copy()?);
            state.insert(format!("mean.{}", p.name), Tensor::from_vec(mean, p.value.shape(), &Device::Cpu)?);
            state.insert(format!("square.{}", p.name), Tensor::from_vec(square, p.value.shape(), &Device::Cpu)?);
        }
        Ok(state)
    }

    /// Goes on from a state; `get` finds a tensor of it by name and shape.
    pub(super) fn restore(&mut self, steps: u64, get: impl Fn(&str, &[usize]) -> Result<Tensor>) -> Result<()> {
        let mut states = Vec::new();
        for p in &mut self.parameters {
            let get = |part: &str| get(&format!("{part}.{}", p.name), p.value.dims());
            let value = get("value")?.to_dtype(p.value.dtype())?.copy()?;
            let flat = |t: Tensor| Ok::<_, Error>(t.flatten_all()?.to_vec1::<f32>()?);
            states.push((flat(get("mean")?)?, flat(get("square")?)?));
            p.value = value;
            p.install(&mut self.view)?;
        }
        self.optimizer.restore(steps, states);
        Ok(())
    }
}

impl Parameter {
    /// Puts the value where the model's passes see it.
    fn install(&self, view: &mut Personalized) -> Result<()> {
        let device = view.model.device();
        // On the CPU this is the value itself, elsewhere a copy in the model's dtype.
        let seen = |dtype: DType| -> Result<Tensor> {
            match device.is_cpu() {
                true => Ok(self.value.clone()),
                false => Ok(self.value.to_dtype(dtype)?.to_device(device)?),
            }
        };
        match self.place {
            Place::Vectors => view.vectors = Some(seen(DType::F32)?),
            Place::Layer(layer, Part::Weight(number)) => {
                let weight = &mut *view.transformer.layers[layer].weights_mut()[number];
                *weight = seen(weight.dense_dtype())?.into();
            }
            Place::Layer(layer, part) => {
                let dtype = view.transformer.dtype();
                let layer = &mut view.transformer.layers[layer];
                match part {
                    Part::Down(projection) => {
                        let down: Weight = seen(dtype)?.into();
                        let place = &mut layer.low_rank[projection];
                        let up = place.as_ref().map_or(down.clone(), |l| l.up.clone());
                        *place = Some(LowRank { down, up });
                    }
                    // Always comes behind its `Down`.
                    Part::Up(projection) => {
                        if let Some(pair) = &mut layer.low_rank[projection] {
                            pair.up = seen(dtype)?.into();
                        }
                    }
                    Part::Weight(_) => {}
                }
            }
        }
        Ok(())
    }

    fn update(&self, index: usize, gradient: &Tensor, optimizer: &mut AdamW, rate: f64, scale: f64) -> Result<()> {
        let learning_rate = self.learning_rate * rate;
        let weight_decay = self.weight_decay;
        optimizer.update(index, &Update { value: &self.value, gradient, scale, learning_rate, weight_decay })
    }
}

/// What a pass does with the gradients.
enum Use<'a> {
    /// Takes their norm.
    Measure,
    /// Keeps them, by the number of their parameter.
    Keep(&'a mut BTreeMap<usize, Tensor>),
    /// Updates at once, times a factor, and lets go of them.
    Update(f64),
}

/// What gradients of this norm are multiplied with to be no longer than `limit`, as `torch.nn.utils.clip_grad_norm_` does.
fn clip(norm: f32, limit: f64) -> f64 {
    (limit / (f64::from(norm) + 1e-6)).min(1.0)
}

fn vectors_parameter(options: &Options, vectors: &Tensor) -> Result<Parameter> {
    Ok(Parameter {
        name: "vectors".into(),
        place: Place::Vectors,
        value: vectors.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.copy()?,
        learning_rate: options.embedding_learning_rate,
        weight_decay: 0.0,
    })
}

/// The first factor of a low-rank change, uniform within 1 / sqrt(inputs) as peft draws it; the other one starts at zero,
/// and their product is not scaled (peft: alpha equals the rank).
fn first_down(rank: usize, inner: usize, seed: u64, number: usize) -> Result<Tensor> {
    let mut random = Stream::new(seed, Purpose::Initial, 1 + number as u64);
    let bound = (inner as f32).powf(-0.5);
    let values: Vec<f32> = (0..rank * inner).map(|_| bound * (2.0 * random.uniform() - 1.0)).collect();
    Ok(Tensor::from_vec(values, (rank, inner), &Device::Cpu)?)
}
