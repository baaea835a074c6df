//! Sitter teaches a pretrained autoregressive text-to-image model one subject from a few pictures, and draws that
//! subject in new scenes.
//!
//! Four verbs: open a model ([`model::Model::open`]), train a subject ([`train`]), sample tokens ([`sample::sample`]),
//! decode the image ([`model::Model::decode`]).
//!
//! | room | what it is for |
//! |---|---|
//! | [`error`] | one typed error |
//! | [`estimate`] | how much memory each phase takes |
//! | [`device`] | which device and number format |
//! | [`run`], [`canvas`] | events, cancel, finish early; what is drawn so far |
//! | [`random`] | randomness without state |
//! | [`picture`] | pixels in and out |
//! | `save` | files that appear whole or not at all |
//! | [`tokens`] | a picture in codes |
//! | `kernels` | the arithmetic of the CPU |
//! | [`ops`] | what models compute with, on the CPU and on GPUs, forward and backward |
//! | [`files`] | files of models, and the library's own |
//! | [`weight`], [`weights`] | numbers in a format; weights by name and role |
//! | [`model`] | what a pretrained model is: the families, their text and image tokenizers, subjects |
//! | [`personalize`] | how a subject is taught |
//! | [`sample`] | how tokens are drawn |
//! | [`evaluate`] | how drawn pictures are measured, as the papers do |
//! | [`capi`] | the C boundary, `include/sitter.h` |

pub mod canvas;
pub mod capi;
mod caught;
pub mod device;
pub mod error;
pub mod estimate;
pub mod evaluate;
pub mod files;
mod kernels;
pub mod model;
pub mod ops;
pub mod personalize;
pub mod picture;
pub mod random;
pub mod run;
pub mod sample;
mod save;
pub mod tokens;
pub mod weight;
pub mod weights;

pub use error::{Error, Result};

// What the tests of the ways to do things do, which calls this library by its name.
#[cfg(test)]
extern crate self as sitter;
#[cfg(test)]
#[path = "../tests/verbs/mod.rs"]
#[allow(dead_code)]
mod verbs;

use model::personalized::Personalized;
use model::subject::Subject;
use model::Model;
use run::Run;

/// Teaches a model a subject; see [`personalize::train`]. Class pictures for prior preservation and samples of the subject, if
/// the options ask for them, are drawn with the settings that the model recommends; what is drawn so far is on the run's
/// [`canvas`](run::Run::canvas).
pub fn train(
    model: &Model,
    dataset: &personalize::Dataset,
    options: &personalize::Options,
    run: &mut Run,
) -> Result<Subject> {
    options.check(model)?;
    let outline = model::outline::Outline::of(model);
    estimate::check_training(&outline, options)?;
    let optimizer_device = estimate::optimizer_device(&outline, options);
    let options = &personalize::Options { optimizer_device, ..options.clone() };
    let settings = sample::Options::for_model(model)?;
    let mut draw = |view: &Personalized, request: &personalize::Request, run: &mut Run| {
        let personalize::Request { width, height, count, seed, .. } = *request;
        let settings = sample::Options { width, height, count, seed, ..settings.clone() };
        let pictures = sample::draw_pictures(view, &[&request.prompt], &settings, run)?;
        Ok(pictures.into_iter().map(|p| p.tokens).collect())
    };
    personalize::train(model, dataset, options, &mut draw, run)
}

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
