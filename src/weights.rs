//! The weights of a model by name and role: what a family computes with, what can learn, and what a subject changes.

use super::weight::Weight;
use crate::ops;
use crate::{Error, Result};
use candle_core::{DType, Tensor, TensorId};
use std::collections::BTreeMap;
use std::ops::{Index, Range};
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

    /// Puts the gradient of the weight itself to `found`, if it is wanted.
    pub fn collect(
        &self,
        weight: WeightId,
        found: &mut Gradients,
        gradient: impl FnOnce() -> Result<Tensor>,
    ) -> Result<()> {
        if self.whole(weight) {
            found.push((Target { part: Part::Whole, weight }, gradient()?));
        }
        Ok(())
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
        self.with_change(x, ops::linear(x, &self.weight)?)
    }

    /// The same in f32, see [`ops::linear_f32`].
    pub fn forward_f32(&self, x: &Tensor) -> Result<Tensor> {
        self.with_change(x, ops::linear_f32(x, &self.weight)?)
    }

    fn with_change(&self, x: &Tensor, y: Tensor) -> Result<Tensor> {
        match &self.low_rank {
            Some(LowRank { down, up, scale }) => {
                let change = ops::linear(&ops::linear(x, down)?, up)?.to_dtype(y.dtype())?;
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
        let input = || x.ok_or_else(|| Error::internal(format!("{}: its input was not kept", self.spec.name)));
        wanted.collect(id, found, || ops::weight_gradient(g, input()?))?;
        let gx = ops::input_gradient(g, &self.weight, sum)?;
        let Some(LowRank { down, up, scale }) = &self.low_rank else { return Ok(gx) };
        let g = scaled(g.clone(), *scale)?;
        let g_low = ops::input_gradient(&g, up, None)?;
        if wanted.factors(id) {
            let mut push = |part: Part, gradient: Tensor| found.push((Target { part, weight: id }, gradient));
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
    /// By the number of the first.
    joined: BTreeMap<WeightId, Joined>,
}

/// Matrices that lie one behind the other, so that one product serves all.
#[derive(Clone)]
struct Joined {
    whole: Tensor,
    /// What the weights are as long as nobody changed them: rows of the whole.
    parts: Vec<TensorId>,
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

    /// Has matrices of equal width with numbers one behind the other lie so, too; quantised ones stay where they are.
    pub fn join(&mut self, ids: Range<WeightId>) -> Result<()> {
        let tensors = self.entries[ids.clone()].iter().map(|entry| entry.tensor().ok()).collect::<Option<Vec<_>>>();
        let Some(tensors) = tensors else { return Ok(()) };
        let whole = Tensor::cat(&tensors, 0)?;
        let (mut parts, mut row) = (vec![], 0);
        for entry in &mut self.entries[ids.clone()] {
            let rows = entry.spec.dims[0];
            let part = whole.narrow(0, row, rows)?;
            row += rows;
            parts.push(part.id());
            entry.weight = part.into();
        }
        self.joined.insert(ids.start, Joined { whole, parts });
        Ok(())
    }

    /// The rows of a matrix and of those that lie behind it, if they were joined and nothing was changed of them or added to them.
    pub fn joined(&self, first: WeightId) -> Option<&Tensor> {
        let joined = self.joined.get(&first)?;
        let is_part = |(entry, part): (&Entry, &TensorId)| {
            entry.low_rank.is_none() && matches!(&entry.weight, Weight::Dense(t) if t.id() == *part)
        };
        self.entries[first..].iter().zip(&joined.parts).all(is_part).then_some(&joined.whole)
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
        if left > 0 {
            return Err(Error::invalid("subject", "changes weights that the model does not have"));
        }
        // Those that were changed all lie together again; the others would have to be copied.
        for (first, Joined { parts, .. }) in self.joined.clone() {
            let ids = first..first + parts.len();
            let changed = |id: WeightId| {
                let Entry { spec, weight, low_rank } = &self.entries[id];
                let other = matches!(weight, Weight::Dense(t) if t.id() != parts[id - first]);
                other && low_rank.is_none() && changes.contains_key(&spec.name)
            };
            if ids.clone().all(changed) {
                self.join(ids)?;
            }
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::random;

    fn weights() -> Weights {
        let mut weights = Weights::default();
        for (name, rows) in [("q", 3), ("k", 2), ("v", 2), ("o", 3)] {
            let dims = vec![rows, 4];
            let spec = Spec { name: name.into(), layer: Some(0), roles: &[], dims: dims.clone(), linear: true };
            weights.push(spec, random(&dims).into());
        }
        weights
    }

    fn numbers(t: &Tensor) -> Vec<f32> {
        t.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn joined_matrices_are_what_they_were_until_one_is_changed_and_again_when_all_are() {
        let mut joined = weights();
        let before: Vec<_> = joined.iter().map(|entry| numbers(entry.tensor().unwrap())).collect();
        assert!(joined.joined(0).is_none());
        joined.join(0..3).unwrap();
        let after: Vec<_> = joined.iter().map(|entry| numbers(entry.tensor().unwrap())).collect();
        assert_eq!(after, before);
        assert_eq!(numbers(joined.joined(0).unwrap()), before[..3].concat());
        assert!(joined.joined(1).is_none());

        let delta =
            |rows: usize| Change::Delta(Tensor::ones((rows, 4), DType::F32, &candle_core::Device::Cpu).unwrap());
        let mut some = joined.clone();
        some.apply(&BTreeMap::from([("k".to_string(), delta(2))])).unwrap();
        assert!(some.joined(0).is_none() && joined.joined(0).is_some());
        let mut all = joined.clone();
        all.apply(&[("q", 3), ("k", 2), ("v", 2)].map(|(name, rows)| (name.to_string(), delta(rows))).into()).unwrap();
        let changed: Vec<f32> = before[..3].concat().iter().map(|x| x + 1.0).collect();
        assert_eq!(numbers(all.joined(0).unwrap()), changed);
        let mut low = joined.clone();
        let change = Change::LowRank { down: random(&[1, 4]), up: random(&[2, 1]) };
        low.apply(&BTreeMap::from([("v".to_string(), change)])).unwrap();
        assert!(low.joined(0).is_none());
    }
}
