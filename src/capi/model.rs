//! Opened models.

use super::backend::Backend;
use super::boundary::guard;
use super::buffer::{copy_text, Out};
use super::engine::{lock, sitter_engine, Engine};
use super::error::sitter_error;
use super::failure::Failure;
use super::handle;
use super::job::perform;
use super::memory::GiveBack;
use super::nouns::{sitter_model, sitter_model_options, sitter_sample_options, sitter_train_options, OpenModel};
use super::run::sitter_run;
use super::status::*;
use super::text;
use crate::estimate::{Estimate, Request};
use crate::model::outline::Outline;
use crate::model::Model;
use crate::personalize::{self, Method};
use crate::run::Stage;
use crate::sample;
use std::ffi::c_char;
use std::sync::Arc;

/// Opens a model folder in Hugging Face layout (`config.json`, `model.safetensors` or shards with an index,
/// `tokenizer.json`, image tokenizer), or `embedded:`, the small model inside the library; `embedded:infinity` is a second
/// one where the build has the feature `embedded_infinity`. `engine` may be NULL: the model gets one of its own. `options`
/// may be NULL: device and dtype `auto`. `run` may be NULL. The caller owns the result; free it with `sitter_model_free`. Any
/// thread. SITTER_E_NOT_FOUND, SITTER_E_BAD_FORMAT, SITTER_E_SHAPE_MISMATCH, SITTER_E_CORRUPT, SITTER_E_UNSUPPORTED_MODEL,
/// SITTER_E_DEVICE, SITTER_E_CANCELLED. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_model_open(
    engine: *const sitter_engine,
    path: *const c_char,
    options: *const sitter_model_options,
    run: *mut sitter_run,
    out: *mut *mut sitter_model,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let out = Out::handle(out, "out")?;
        // For what was read of a model that could not be opened.
        let memory = GiveBack;
        let engine = match handle::get_optional(engine)? {
            Some(engine) => engine,
            None => Engine::new(Default::default()),
        };
        let path = text::required(path, "path")?;
        let options = handle::get_optional(options)?.map(|o| lock(&o).clone()).unwrap_or_default();
        let run = handle::get_optional(run)?;
        let backend = perform(&engine, run, Stage::Open, move |run| -> crate::Result<Box<dyn Backend>> {
            #[cfg(debug_assertions)]
            if path.starts_with(super::fake::PREFIX) {
                return Ok(Box::new(super::fake::Fake::open(&path, run)?));
            }
            Ok(Box::new(Model::open(&path, &options, run)?))
        })?;
        out.set(handle::new(Arc::new(OpenModel { engine, backend, _memory: memory })));
        Ok(())
    })
}

/// One more reference to the same model; returns it. NULL gives NULL. Any thread. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_model_ref(model: *const sitter_model) -> *mut sitter_model {
    handle::add_reference(model)
}

/// Gives a reference back. A call in progress keeps the model. NULL does nothing. Any thread. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_model_free(model: *mut sitter_model) {
    handle::free(model);
}

/// Facts about the model as a JSON object: family, name, fingerprint, parameters, vocabulary, codebook, grid_unit_px, device,
/// dtype, can_decode, sample_defaults, and licence, the terms of the family's published weights, where they are known. Copies them
/// to `buffer` of `capacity` bytes, NUL included; `(NULL, 0)` asks for the size, in `needed`. SITTER_E_BUFFER_TOO_SMALL. Any
/// thread. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_model_info_json(
    model: *const sitter_model,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let info = handle::get(model)?.backend.info().map_err(Failure::from)?;
        copy_text(&info.to_string(), buffer, capacity, needed)
    })
}

/// How much memory a model and the work with it would take, said from its configuration before any of it is taken: a JSON object
/// with peaks in bytes, weights included: weights, encode, decode, sample, embedding (training stage 1), layers (stage 2),
/// layers_host (what stage 2 keeps in the host's memory beside a GPU), and free, what the device could still give, or null.
/// `path` as in `sitter_model_open`; nothing is opened. `options`, `sample` and `train` may be NULL: device and dtype `auto`, and
/// what the model recommends. Copies the text to `buffer` of `capacity` bytes, NUL included; `(NULL, 0)` asks for the size, in
/// `needed`. Calls that need more than is free fail at once with SITTER_E_RESOURCE_EXHAUSTED. Any thread.
/// SITTER_E_NOT_FOUND, SITTER_E_BAD_FORMAT, SITTER_E_UNSUPPORTED_MODEL, SITTER_E_DEVICE, SITTER_E_BUFFER_TOO_SMALL.
/// Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_model_estimate_json(
    path: *const c_char,
    options: *const sitter_model_options,
    sample: *const sitter_sample_options,
    train: *const sitter_train_options,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let path = text::required(path, "path")?;
        let options = handle::get_optional(options)?.map(|o| lock(&o).clone()).unwrap_or_default();
        let outline = Outline::read(&path, &options)?;
        let sample = match handle::get_optional(sample)? {
            Some(sample) => lock(&sample).clone(),
            None => sample::Options::recommended(&outline.recommended)?,
        };
        let train = match handle::get_optional(train)? {
            Some(train) => lock(&train).clone(),
            None => personalize::Options::recommended(&outline.recommended, None::<Method>)?,
        };
        sample.check_ranges()?;
        train.check_ranges()?;
        let estimate = Estimate::of(&outline, &Request { sample: &sample, prompts: 1, train: &train });
        let json = serde_json::to_string(&estimate).map_err(|e| crate::Error::internal(e.to_string()))?;
        copy_text(&json, buffer, capacity, needed)
    })
}
