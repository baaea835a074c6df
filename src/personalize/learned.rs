//! What learns in a stage, and what becomes of the gradients that a step's way back hands over, layer by layer.
//!
//! Where the model is on a GPU and what learns in the memory of the host, gradients land there while the GPU goes on: those that are
//! kept until the end, the others are used while the layer before is on its way back.

use super::optimizer::{AdamW, Gradient, Update};
use super::options::Options;
use crate::device::landing::{Landing, Landings};
use crate::device::to_host;
use crate::model::Model;
use crate::ops::{self, own_kernels_on};
use crate::weights::Target;
use crate::Result;
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;

/// One tensor that learns.
pub struct Parameter {
    /// `vectors`, or the weight's name in the checkpoint, for low-rank changes with `.down` or `.up` behind it.
    pub name: String,
    pub place: Place,
    /// In storage of its own, where updates change it: f32, or the model's dtype without master weights. In the memory of the
    /// host, or on the model's device.
    pub value: Tensor,
    /// What the model's passes read: the value itself on the CPU, on a GPU a copy in the model's dtype.
    pub seen: Tensor,
    pub learning_rate: f64,
    pub weight_decay: f64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Vectors,
    Weight(Target),
}

impl Parameter {
    /// `value` is on the CPU; `dtype` is what passes read.
    pub fn new(
        (name, place): (String, Place),
        value: &Tensor,
        dtype: DType,
        model: &Model,
        options: &Options,
    ) -> Result<Self> {
        let home = if options.on_device() { model.device() } else { &Device::Cpu };
        let value = value.to_device(home)?;
        let (learning_rate, weight_decay) = match place {
            Place::Vectors => (options.embedding_learning_rate, 0.0),
            Place::Weight(_) => (options.layer_learning_rate, options.weight_decay),
        };
        Ok(Parameter { name, place, seen: seen(model, &value, dtype)?, value, learning_rate, weight_decay })
    }

    pub fn vectors(model: &Model, options: &Options, vectors: &Tensor) -> Result<Self> {
        let value = vectors.to_dtype(DType::F32)?.copy()?;
        Self::new(("vectors".into(), Place::Vectors), &value, DType::F32, model, options)
    }
}

/// What a model's passes read of a value.
pub fn seen(model: &Model, value: &Tensor, dtype: DType) -> Result<Tensor> {
    match own_kernels_on(model.device()) {
        true => Ok(value.clone()),
        false => Ok(value.to_dtype(dtype)?.to_device(model.device())?.copy()?),
    }
}

/// What a pass does with the gradients.
pub enum Use<'a> {
    /// Takes their norm.
    Measure,
    /// Keeps them, by the number of their parameter.
    Keep(&'a mut BTreeMap<usize, Found>),
    /// Updates, times a factor, and lets go of them.
    Update(f64),
}

/// A gradient where its parameter's value is, or on its way there.
pub enum Found {
    Tensor(Tensor),
    Landing(Landing),
}

/// Everything that learns, and what updates it.
pub struct Learned {
    pub parameters: Vec<Parameter>,
    pub optimizer: AdamW,
    landings: Landings,
    /// Whether gradients come from a GPU to the memory of the host.
    lands: bool,
}

impl Learned {
    pub fn new(parameters: Vec<Parameter>, model: &Model, options: &Options) -> Result<Self> {
        let (betas, on_device) = ((options.beta1, options.beta2), options.on_device());
        let values = parameters.iter().map(|p| &p.value);
        let optimizer = AdamW::new(values, betas, options.optimizer_state, on_device, options.seed)?;
        let lands = !on_device && !own_kernels_on(model.device());
        Ok(Learned { parameters, optimizer, landings: Landings::default(), lands })
    }

    /// Lets go of everything else.
    pub fn into_parameters(self) -> Vec<Parameter> {
        self.parameters
    }

    /// Updates a parameter by its gradient times `scale`; `rate` is what warming up and cooling down leave of the learning rate.
    pub fn update(&mut self, index: usize, gradient: Found, rate: f64, scale: f64) -> Result<()> {
        let Parameter { value, seen, learning_rate, weight_decay, .. } = &self.parameters[index];
        let (learning_rate, weight_decay) = (learning_rate * rate, *weight_decay);
        let update = |gradient| Update { value, seen, gradient, scale, learning_rate, weight_decay };
        // What passes read is written into the memory that is there: a second copy of everything that learns would not fit.
        match gradient {
            Found::Tensor(gradient) => self.optimizer.update(index, &update(Gradient::Tensor(&gradient)))?,
            Found::Landing(mut landing) => {
                self.optimizer.update(index, &update(Gradient::Numbers(landing.numbers()?)))?;
                landing.send(value, seen)?;
                self.landings.give_back(landing);
            }
        }
        Ok(())
    }
}

/// Takes the gradients of a pass.
pub struct Intake<'a> {
    learned: &'a mut Learned,
    purpose: Use<'a>,
    rate: f64,
    /// The sum of the squares of each gradient, where it was computed.
    squares: Vec<Tensor>,
    /// Of the layer before, to update from.
    under_way: Vec<(usize, Landing)>,
}

impl<'a> Intake<'a> {
    /// `rate` as for [`Learned::update`].
    pub fn new(learned: &'a mut Learned, purpose: Use<'a>, rate: f64) -> Self {
        Intake { learned, purpose, rate, squares: vec![], under_way: vec![] }
    }

    /// Those of a layer, or of what else learns.
    pub fn take(&mut self, gradients: impl IntoIterator<Item = (Place, Tensor)>) -> Result<()> {
        let before = std::mem::take(&mut self.under_way);
        for (place, gradient) in gradients {
            let Some(index) = self.learned.parameters.iter().position(|p| p.place == place) else { continue };
            self.squares.push(ops::square(&gradient)?.sum_all()?);
            if let Use::Measure = self.purpose {
                continue;
            }
            let found = match self.learned.lands {
                true => Found::Landing(self.learned.landings.fetch(&gradient)?),
                false => Found::Tensor(gradient),
            };
            match (&mut self.purpose, found) {
                (Use::Measure, _) => {}
                (Use::Keep(kept), found) => drop(kept.insert(index, found)),
                (Use::Update(_), Found::Landing(landing)) => self.under_way.push((index, landing)),
                (Use::Update(scale), found) => self.learned.update(index, found, self.rate, *scale)?,
            }
        }
        self.update(before)
    }

    fn update(&mut self, landed: Vec<(usize, Landing)>) -> Result<()> {
        let Use::Update(scale) = self.purpose else { return Ok(()) };
        landed.into_iter().try_for_each(|(index, l)| self.learned.update(index, Found::Landing(l), self.rate, scale))
    }

    /// The sum of the squares of all gradients.
    pub fn finish(mut self) -> Result<f64> {
        let last = std::mem::take(&mut self.under_way);
        self.update(last)?;
        if self.squares.is_empty() {
            return Ok(0.0);
        }
        let squares = to_host(&Tensor::stack(&self.squares, 0)?)?.to_vec1::<f32>()?;
        Ok(squares.into_iter().map(f64::from).sum())
    }
}
