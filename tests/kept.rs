//! What a forward pass keeps for the way back in bf16, where the weights are not f32: gradients stay what they are in f32, as far as
//! bf16 tells numbers apart. (How many bytes it is, `tests/memory.rs` counts; that computing layers anew changes no bit,
//! `tests/lean.rs` sees.)

#[allow(dead_code)]
mod verbs;

use candle_core::Tensor;
use sitter::model::family::{Example, Family, Keep, Mode, Objective};
use sitter::model::personalized::Personalized;
use sitter::model::Model;
use sitter::run::Run;
use sitter::weights::{Part, Target, Wanted};
use std::sync::Arc;
use verbs::{open, own_side, picture, LEARNING};

/// The loss of an example, and the gradients of all weights of the layers, the last one's first.
fn slopes(family: &dyn Family, example: &Example) -> (f64, Vec<(Target, Tensor)>) {
    let weights = family.weights();
    let of_layers = weights.iter().enumerate().filter(|(_, entry)| entry.spec.layer.is_some());
    let wanted = Wanted::new(weights.len(), of_layers.map(|(weight, _)| Target { part: Part::Whole, weight }));
    let each = 1.0 / example.labelled.len() as f32;
    let mut pass = family.pass(&[(example, each)], None, &Mode::default()).unwrap();
    let layers = family.facts().layers;
    (0..layers).for_each(|layer| pass.forward(layer, Keep::All).unwrap());
    let loss = pass.loss(&Objective { z_loss: 1e-5, with_gradient: true }).unwrap();
    let gradients = (0..layers).rev().flat_map(|layer| pass.backward(layer, &wanted).unwrap()).collect();
    (loss.total, gradients)
}

fn square(t: &Tensor) -> f64 {
    f64::from(t.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap())
}

/// A model with the numbers that weights of another have, in f32: nothing is rounded for a product.
fn with_numbers_of(model: &Model, narrow: &Model) -> Arc<dyn Family> {
    let mut weights = model.family().weights().clone();
    for (id, entry) in narrow.family().weights().iter().enumerate() {
        weights.entry_mut(id).weight = entry.weight.to_f32().unwrap().into();
    }
    model.family().with(weights)
}

#[test]
fn gradients_of_a_bf16_model_are_those_of_f32_to_what_bf16_resolves() {
    for (name, side) in LEARNING {
        let (whole, narrow) = (open(name, "cpu", "f32"), open(name, "cpu", "bf16"));
        let side = own_side(&whole, side);
        let tokens = whole.encode(&picture(1, side), &Run::new()).unwrap();
        let example = Personalized::new(&whole, &[]).unwrap().example("a photo of a dog", &tokens).unwrap();
        let (exact, expected) = slopes(with_numbers_of(&whole, &narrow).as_ref(), &example);
        let (loss, found) = slopes(with_numbers_of(&narrow, &narrow).as_ref(), &example);
        assert!((loss / exact - 1.0).abs() < 1e-3, "{name}: loss {loss} and {exact}");
        let (mut apart, mut size) = (0.0, 0.0);
        for ((target, expected), (same, found)) in expected.iter().zip(&found) {
            assert_eq!(target, same, "{name}");
            let (gap, all) = (square(&(found - expected).unwrap()), square(expected));
            (apart, size) = (apart + gap, size + all);
        }
        let gap = (apart / size).sqrt();
        println!("{name}: {gap:.5}");
        // Of a number 2^-8 is lost at most; it grows from layer to layer, most where scores are large.
        assert!(gap < 2f64.powi(-5), "{name}: gradients differ by {gap}");
    }
}
