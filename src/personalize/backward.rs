//! The backward pass, layer by layer.
//!
//! The forward pass keeps what each layer was given, nothing else. On the way back each layer is computed anew, turned into
//! gradients and let go of; gradients of weights are handed over layer by layer. Groups of sequences go through a layer one
//! after the other, so a layer's gradients are whole when it is done.

use super::memory::kept_bytes;
use super::options::Recompute;
use crate::device;
use crate::kernels::together;
use crate::model::lumina::layer::{Gradients, Kept, Wanted};
use crate::model::lumina::transformer::{Context, Transformer};
use crate::model::ops;
use crate::model::personalized::Labels;
use crate::run::Control;
use crate::{Error, Result};
use candle_core::Tensor;
use rayon::prelude::*;

/// Sequences that run as one batch.
pub struct Group<'a> {
    /// Input embeddings, [B, T, hidden].
    pub x: Tensor,
    pub context: Context<'a>,
    pub labels: Labels,
}

/// What is asked of a backward pass.
pub struct Plan<'a> {
    pub z_loss: f64,
    /// Of each layer.
    pub wanted: &'a [Wanted],
    /// Whether the gradients of the input embeddings are wanted.
    pub inputs: bool,
    pub recompute: Recompute,
    pub stop: Control,
}

/// What a layer needs on the way back.
enum Memory {
    Input(Tensor),
    All(Box<Kept>),
}

/// The loss of all groups. `on_loss` gets it before the way back begins, `on_layer` each layer that has gradients with its
/// number and their sums over the groups, from the last to the first: it may change the layer's numbers where they lie. Returns
/// the gradients of the groups' input embeddings.
pub fn backward(
    transformer: &Transformer,
    groups: &[Group],
    plan: &Plan,
    on_loss: &mut dyn FnMut(f64) -> Result<()>,
    on_layer: &mut dyn FnMut(usize, Gradients) -> Result<()>,
) -> Result<Vec<Tensor>> {
    let config = &transformer.config;
    let asked = |w: &Wanted| w.low_rank || w.weights.contains(&true);
    let lowest = match plan.inputs {
        true => 0,
        false => plan.wanted.iter().position(asked).unwrap_or(transformer.layers.len()),
    };
    let of = |x: &Tensor| {
        let tokens = x.elem_count() / config.hidden_size;
        kept_bytes(config, tokens as u128, x.dtype().size_in_bytes() as u128)
    };
    let kept = groups.iter().map(|g| of(&g.x)).sum();
    let free = device::free_memory(transformer.device()).map(u128::from);
    let recompute = plan.recompute.decide((transformer.layers.len() - lowest) as u128, kept, free);

    let mut states: Vec<Tensor> = groups.iter().map(|g| g.x.clone()).collect();
    let mut memories: Vec<Vec<Memory>> = Vec::new();
    for (index, layer) in transformer.layers.iter().enumerate() {
        let forward = |(x, group): (&Tensor, &Group)| -> Result<(Tensor, Option<Memory>)> {
            plan.stop.check()?;
            if index < lowest || recompute {
                let y = layer.forward(x, index, config, &group.context, None)?;
                return Ok((y, (index >= lowest).then(|| Memory::Input(x.clone()))));
            }
            let (y, kept) = layer.forward_keeping(x, index, config, &group.context)?;
            Ok((y, Some(Memory::All(Box::new(kept)))))
        };
        let (next, memory): (Vec<_>, Vec<_>) = each(states.iter().zip(groups).collect(), forward)?.into_iter().unzip();
        states = next;
        memories.push(memory.into_iter().flatten().collect());
    }

    let (mut total, mut gradients) = (0.0, Vec::new());
    for (hidden, group) in states.into_iter().zip(groups) {
        plan.stop.check()?;
        let (loss, gradient) = together(|| head(transformer, hidden, group, plan.z_loss))?;
        total += loss;
        gradients.push(gradient);
    }
    on_loss(total)?;

    for index in (lowest..transformer.layers.len()).rev() {
        let layer = &transformer.layers[index];
        let back = |((g, memory), group): ((Tensor, Memory), &Group)| -> Result<(Tensor, Gradients)> {
            plan.stop.check()?;
            let kept = match memory {
                Memory::All(kept) => *kept,
                Memory::Input(x) => layer.forward_keeping(&x, index, config, &group.context)?.1,
            };
            layer.backward(g, kept, index, config, &group.context, &plan.wanted[index])
        };
        let memory = memories.pop().unwrap_or_default();
        let (mut sums, mut next): (Gradients, Vec<Tensor>) = (vec![], vec![]);
        for (gradient, found) in each(gradients.into_iter().zip(memory).zip(groups).collect(), back)? {
            next.push(gradient);
            sums = match sums.is_empty() {
                true => found,
                false => sums
                    .into_iter()
                    .zip(found)
                    .map(|((part, sum), (_, more))| Ok((part, ops::add(sum, &more)?)))
                    .collect::<Result<_>>()?,
            };
        }
        gradients = next;
        if !sums.is_empty() {
            on_layer(index, sums)?;
        }
    }
    Ok(gradients)
}

/// Applies `f` to what belongs to each group: side by side where a group alone would not fill the processor, else one
/// after the other, so that only one group's intermediate results are there at a time.
fn each<T: Send, R: Send>(
    groups: Vec<(T, &Group)>,
    f: impl Fn((T, &Group)) -> Result<R> + Sync + Send,
) -> Result<Vec<R>> {
    /// Numbers in a group's states.
    const SMALL: usize = 1 << 18;
    let small = groups.iter().all(|(_, g)| g.x.elem_count() <= SMALL && g.x.device().is_cpu());
    match small && groups.len() > 1 {
        true => groups.into_par_iter().map(f).collect::<Vec<_>>().into_iter().collect(),
        false => together(|| groups.into_iter().map(f).collect()),
    }
}

/// The loss of a group and its gradient with respect to what the last layer gave.
fn head(transformer: &Transformer, hidden: Tensor, group: &Group, z_loss: f64) -> Result<(f64, Tensor)> {
    let (b, t, h) = hidden.dims3()?;
    let (norm, eps) = (&transformer.norm, transformer.config.rms_norm_eps);
    let Labels { at, targets, weights } = &group.labels;
    let at = Tensor::new(at.as_slice(), hidden.device())?;
    let seen = hidden.reshape((b * t, h))?.index_select(&at, 0)?;
    let loss = transformer.loss(&ops::rms_norm(&seen, norm, eps)?, targets, weights, z_loss, true)?;
    let gradient = loss.gradient.ok_or_else(|| Error::internal("no gradient of the loss"))?;
    let (gradient, _) = ops::rms_norm_backward(&gradient, &seen, norm, eps, false)?;
    let whole = Tensor::zeros((b * t, h), hidden.dtype(), hidden.device())?;
    Ok((loss.total, whole.index_add(&at, &gradient, 0)?.reshape((b, t, h))?))
}
