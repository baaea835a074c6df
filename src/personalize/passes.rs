//! A step's way through the layers and back.
//!
//! The forward pass keeps what each layer's backward pass needs; if memory is short only what the layer was given, which on the way
//! back is computed anew. There each layer is turned into gradients and let go of; gradients of weights are handed over layer by
//! layer. The groups of a step go through a layer one after the other, so a layer's gradients are whole when it is done.

use super::options::Recompute;
use crate::device;
use crate::kernels::together;
use crate::model::family::{Family, Keep, Objective, Pass};
use crate::model::footprint::Place;
use crate::ops;
use crate::weights::{sum, Gradients, Wanted};
use crate::Result;
use candle_core::Tensor;
use rayon::prelude::*;

/// Numbers in a group's states up to which groups go side by side on a CPU.
pub const SMALL: usize = 1 << 18;

/// What is asked of the passes of a step.
pub struct Plan<'a> {
    pub objective: Objective,
    pub wanted: &'a Wanted,
    /// Whether the gradient of the learned vectors is wanted.
    pub vectors: bool,
    pub recompute: Recompute,
    /// Where the model runs.
    pub at: Place,
}

/// Takes the groups of a step through the model. `on_loss` gets their loss before the way back begins, `on_layer` the gradients of
/// each layer, summed over the groups, from the last to the first: it may change the layer's numbers where they lie. Returns the
/// gradient of the learned vectors if it is wanted.
pub fn run(
    family: &dyn Family,
    passes: &mut [Box<dyn Pass + '_>],
    plan: &Plan,
    on_loss: &mut dyn FnMut(f64) -> Result<()>,
    on_layer: &mut dyn FnMut(Gradients) -> Result<()>,
) -> Result<Option<Tensor>> {
    let layers = family.facts().layers;
    let lowest = if plan.vectors { 0 } else { lowest(family, plan.wanted) };
    let keep = match recomputes(family, passes, plan, layers - lowest) {
        true => Keep::Input,
        false => Keep::All,
    };

    for layer in 0..layers {
        let keep = if layer < lowest { Keep::Nothing } else { keep };
        each(family, passes, |pass| pass.forward(layer, keep))?;
    }

    let mut total = 0.0;
    for pass in passes.iter_mut() {
        total += together(|| pass.loss(&plan.objective))?.total;
    }
    on_loss(total)?;

    for layer in (lowest..layers).rev() {
        let gradients = sum(each(family, passes, |pass| pass.backward(layer, plan.wanted))?)?;
        if !gradients.is_empty() {
            on_layer(gradients)?;
        }
    }

    if !plan.vectors {
        return Ok(None);
    }
    let mut sum: Option<Tensor> = None;
    for pass in passes {
        let one = pass.vectors()?;
        sum = Some(match sum {
            Some(sum) => ops::add(sum, &one)?,
            None => one,
        });
    }
    Ok(sum)
}

/// The first layer that anything is wanted of.
fn lowest(family: &dyn Family, wanted: &Wanted) -> usize {
    let weights = family.weights().iter().enumerate();
    let asked = weights.filter(|(id, _)| wanted.any([*id])).filter_map(|(_, entry)| entry.spec.layer);
    asked.min().unwrap_or(family.facts().layers)
}

/// Whether layers are computed anew on the way back.
fn recomputes(family: &dyn Family, passes: &[Box<dyn Pass + '_>], plan: &Plan, backward: usize) -> bool {
    let footprint = family.footprint();
    let kept = passes.iter().map(|pass| footprint.kept(pass.tokens() as u128, &plan.at)).sum();
    let free = device::free_memory(family.device()).map(u128::from);
    plan.recompute.decide(backward as u128, kept, free)
}

/// Applies `f` to each group: side by side where a group alone would not fill the processor, else one after the other, so that
/// only one group's intermediate results are there at a time.
fn each<R: Send>(
    family: &dyn Family,
    passes: &mut [Box<dyn Pass + '_>],
    f: impl Fn(&mut dyn Pass) -> Result<R> + Sync + Send,
) -> Result<Vec<R>> {
    let hidden = family.footprint().hidden() as usize;
    let small = ops::own_kernels_on(family.device()) && passes.iter().all(|pass| pass.tokens() * hidden <= SMALL);
    match small && passes.len() > 1 {
        true => passes.par_iter_mut().map(|pass| f(pass.as_mut())).collect::<Vec<_>>().into_iter().collect(),
        false => together(|| passes.iter_mut().map(|pass| f(pass.as_mut())).collect()),
    }
}
