//! The weights of a model by name and role: what a family computes with, what can learn, and what a subject changes.

use super::weight::Weight;
use crate::ops;
use crate::{Error, Result};
use candle_core::{DType, Tensor};
use std::collections::BTreeMap;
use std::ops::Index;
use std::sync::Arc;

/// The number of a weight in its model's [`Weights`].
pub type WeightId = usize;

/// What is known about a weight before its numbers are read.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// As in the checkpoint.
    pub name: String,
    /// The layer that it belongs to, from 0. Weights of no layer stay as they are.
    pub layer: Option<usize>,
    /// What it serves, by the names that `trainable` takes; `all` need not be among them.
    pub roles: &'static [&'static str],
    pub dims: Vec<usize>,
    /// Whether it is the matrix [out, in] of a linear map: such weights are quantised, and take low-rank changes.
    pub linear: bool,
}

impl Spec {
    pub fn numbers(&self) -> usize {
        self.dims.iter().product()
    }
}

/// Adds `scale up down` to a matrix [out, in].
#[derive(Clone)]
pub struct LowRank {
    /// [rank, in]
    pub down: Weight,
    /// [out, rank]
    pub up: Weight,
    /// Alpha divided by the rank.
    pub scale: f64,
}

impl LowRank {
    /// A change with another beside it: their sum. Both are unscaled.
    fn joined(first: Option<LowRank>, down: Tensor, up: Tensor) -> Result<Self> {
        let (down, up) = match first {
            Some(LowRank { down: Weight::Dense(d), up: Weight::Dense(u), .. }) => {
                (Tensor::cat(&[d, down], 0)?, Tensor::cat(&[u, up], 1)?)
            }
            _ => (down, up),
        };
        Ok(LowRank { down: down.into(), up: up.into(), scale: 1.0 })
    }
}

/// A weight with what it is called and what is added to it. A clone shares the numbers.
#[derive(Clone)]
pub struct Entry {
    pub spec: Arc<Spec>,
    pub weight: Weight,
    /// A change that is not merged into the matrix.
    pub low_rank: Option<LowRank>,
}

/// How one weight differs from the model's own.
#[derive(Clone, Debug)]
pub enum Change {
    /// To be added to the weight; its shape.
    Delta(Tensor),
    /// `up` [out, rank] times `down` [rank, in] is to be added.
    LowRank { down: Tensor, up: Tensor },
}

impl Change {
    /// Shape of the weight that it changes.
    pub fn shape(&self) -> Result<Vec<usize>> {
        Ok(match self {
            Change::Delta(delta) => delta.dims().to_vec(),
            Change::LowRank { down, up } => vec![up.dim(0)?, down.dim(1)?],
        })
    }

    /// Numbers that it is stored in.
    pub fn numbers(&self) -> usize {
        match self {
            Change::Delta(delta) => delta.elem_count(),
            Change::LowRank { down, up } => down.elem_count() + up.elem_count(),
        }
    }
}

/// Which of its numbers learn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The weight itself.
    Whole,
    /// The factors of its low-rank change.
    Down,
    Up,
}

/// A tensor that learns. In this order gradients are handed over: all of one part, by number of their weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    pub part: Part,
    pub weight: WeightId,
}

/// Gradients, f32.
pub type Gradients = Vec<(Target, Tensor)>;

/// Gradients of the same targets, in the same order each time, added up. Nothing is no summand.
pub fn sum(found: impl IntoIterator<Item = Gradients>) -> Result<Gradients> {
    found.into_iter().try_fold(Gradients::new(), |sums, more| match sums.is_empty() {
        true => Ok(more),
        false => {
            let both = sums.into_iter().zip(more);
            both.map(|((target, sum), (_, more))| Ok((target, ops::add(sum, &more)?))).collect()
        }
    })
}

/// What gradients are asked for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    whole: Vec<bool>,
    factors: Vec<bool>,
}

impl Wanted {
    pub fn new(weights: usize, targets: impl IntoIterator<Item = Target>) -> Self {
        let mut wanted = Wanted { whole: vec![false; weights], factors: vec![false; weights] };
        for target in targets {
            match target.part {
                Part::Whole => wanted.whole[target.weight] = true,
                Part::Down | Part::Up => wanted.factors[target.weight] = true,
            }
        }
        wanted
    }

    /// Of the weight itself.
    pub fn whole(&self, weight: WeightId) -> bool {
        self.whole.get(weight).copied().unwrap_or(false)
    }

    /// Of its low-rank change.
    pub fn factors(&self, weight: WeightId) -> bool {
        self.factors.get(weight).copied().unwrap_or(false)
    }

    /// Of one of these weights or its change.
    pub fn any(&self, weights: impl IntoIterator<Item = WeightId>) -> bool {
        weights.into_iter().any(|w| self.whole(w) || self.factors(w))
    }
}

impl Entry {
    /// `x W^T`, the low-rank change included, for x [.., in].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = ops::linear(x, &self.weight)?;
        match &self.low_rank {
            Some(LowRank { down, up, scale }) => {
                let change = ops::linear(&ops::linear(x, down)?, up)?;
                ops::add(y, &scaled(change, *scale)?)
            }
            None => Ok(y),
        }
    }

    /// The gradient of x in [`Entry::forward`], added to `sum` if there is one, for the gradient `g` of the result. Gradients of
    /// this weight, which is number `id`, go to `found` if they are `wanted`; `x` may be left out if none is.
    pub fn backward(
        &self,
        id: WeightId,
        g: &Tensor,
        x: Option<&Tensor>,
        sum: Option<Tensor>,
        wanted: &Wanted,
        found: &mut Gradients,
    ) -> Result<Tensor> {
        let mut push = |part: Part, gradient: Tensor| found.push((Target { part, weight: id }, gradient));
        let input = || x.ok_or_else(|| Error::internal(format!("{}: its input was not kept", self.spec.name)));
        if wanted.whole(id) {
            push(Part::Whole, ops::weight_gradient(g, input()?)?);
        }
        let gx = ops::input_gradient(g, &self.weight, sum)?;
        let Some(LowRank { down, up, scale }) = &self.low_rank else { return Ok(gx) };
        let g = scaled(g.clone(), *scale)?;
        let g_low = ops::input_gradient(&g, up, None)?;
        if wanted.factors(id) {
            push(Part::Down, ops::weight_gradient(&g_low, input()?)?);
            push(Part::Up, ops::weight_gradient(&g, &ops::linear(input()?, down)?)?);
        }
        ops::input_gradient(&g_low, down, Some(gx))
    }

    /// The numbers of a weight that is no matrix of a linear map.
    pub fn tensor(&self) -> Result<&Tensor> {
        match &self.weight {
            Weight::Dense(t) => Ok(t),
            Weight::Quantised(_) => Err(Error::internal(format!("{} is quantised", self.spec.name))),
        }
    }
}

fn scaled(x: Tensor, scale: f64) -> Result<Tensor> {
    Ok(if scale == 1.0 { x } else { (x * scale)? })
}

/// The weights of a model that have names. A clone shares the numbers, so a changed copy costs only what changed.
#[derive(Clone, Default)]
pub struct Weights {
    entries: Vec<Entry>,
}

impl Weights {
    pub fn push(&mut self, spec: Spec, weight: Weight) {
        self.entries.push(Entry { spec: Arc::new(spec), weight, low_rank: None });
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    pub fn entry_mut(&mut self, id: WeightId) -> &mut Entry {
        &mut self.entries[id]
    }

    /// The weight of this name.
    pub fn find(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|e| e.spec.name == name)
    }

    /// Adds changes to the weights of their names; the sum is made in f32. Low-rank changes are put beside the matrices: changed
    /// copies of those would cost far more memory.
    pub fn apply(&mut self, changes: &BTreeMap<String, Change>) -> Result<()> {
        let mut left = changes.len();
        for entry in self.entries.iter_mut().filter(|e| e.spec.layer.is_some()) {
            let Some(change) = changes.get(&entry.spec.name) else { continue };
            left -= 1;
            entry.apply(change)?;
        }
        match left {
            0 => Ok(()),
            _ => Err(Error::invalid("subject", "changes weights that the model does not have")),
        }
    }
}

impl Index<WeightId> for Weights {
    type Output = Entry;

    fn index(&self, id: WeightId) -> &Entry {
        &self.entries[id]
    }
}

impl Entry {
    fn apply(&mut self, change: &Change) -> Result<()> {
        let (found, expected) = (change.shape()?, self.weight.dims());
        if found != expected {
            let message = format!("changes {} by shape {found:?}; the model has {expected:?}", self.spec.name);
            return Err(Error::invalid("subject", message));
        }
        let (dtype, device) = (self.weight.dense_dtype(), self.weight.device());
        let delta = match change {
            Change::Delta(delta) => delta.to_device(&device)?.to_dtype(DType::F32)?,
            Change::LowRank { down, up } => {
                let (down, up) = (down.to_device(&device)?, up.to_device(&device)?);
                if self.spec.linear {
                    let (down, up) = (down.to_dtype(dtype)?, up.to_dtype(dtype)?);
                    self.low_rank = Some(LowRank::joined(self.low_rank.take(), down, up)?);
                    return Ok(());
                }
                let message = format!("has a low-rank change of {}, which is no linear map", self.spec.name);
                return Err(Error::invalid("subject", message));
            }
        };
        self.weight = ops::sum(&self.weight.to_f32()?, &delta)?.to_dtype(dtype)?.into();
        Ok(())
    }
}
