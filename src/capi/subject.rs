//! Learned subjects.

use super::boundary::guard;
use super::buffer::{copy_out, copy_text, Out};
use super::dataset;
use super::engine::lock;
use super::error::sitter_error;
use super::failure::Failure;
use super::handle;
use super::job::perform;
use super::memory::GiveBack;
use super::nouns::{sitter_dataset, sitter_model, sitter_subject, sitter_train_options};
use super::run::{sitter_run, stage_number};
use super::status::*;
use super::text;
use super::threads::on_own_threads;
use crate::model::subject::Subject;
use crate::run::Stage;
use std::ffi::c_char;
use std::sync::Arc;

/// Teaches the model a subject; the model stays as it is. `options` come from `sitter_train_options_new`; at least the class
/// word has to be set. `run` may be NULL. The caller owns the result; free it with `sitter_subject_free`. Any thread.
/// SITTER_E_CANCELLED; after `sitter_run_finish_early` SITTER_OK and what was learned so far. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_subject_train(
    model: *const sitter_model,
    dataset: *const sitter_dataset,
    options: *const sitter_train_options,
    run: *mut sitter_run,
    out: *mut *mut sitter_subject,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let out = Out::handle(out, "out")?;
        let _memory = GiveBack;
        let (model, dataset, options) = (handle::get(model)?, handle::get(dataset)?, handle::get(options)?);
        let dataset = dataset::build(&lock(&dataset))?;
        let options = lock(&options).clone();
        let run = handle::get_optional(run)?;
        let engine = model.engine.clone();
        let subject = perform(&engine, run, Stage::Encode, move |run| model.backend.train(&dataset, &options, run))?;
        out.set(handle::new(Arc::new(subject)));
        Ok(())
    })
}

/// Writes a subject file (safetensors). It appears whole or not at all. Any thread. SITTER_E_IO, SITTER_E_NOT_FOUND for a
/// folder that is not there. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_subject_save(
    subject: *const sitter_subject,
    path: *const c_char,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || Ok(handle::get(subject)?.save(text::required(path, "path")?)?))
}

/// Reads a subject file. The caller owns the result; free it with `sitter_subject_free`. Any thread. SITTER_E_NOT_FOUND,
/// SITTER_E_BAD_FORMAT, SITTER_E_CORRUPT for a file that is damaged, SITTER_E_RESOURCE_EXHAUSTED. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_subject_load(
    path: *const c_char,
    out: *mut *mut sitter_subject,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let out = Out::handle(out, "out")?;
        let path = text::required(path, "path")?;
        let subject = on_own_threads(|| Subject::load(path))??;
        out.set(handle::new(Arc::new(subject)));
        Ok(())
    })
}

/// Facts about the subject as a JSON object: identifier, class_word, model (its fingerprint), method, vectors,
/// changed_weights, stored_numbers, steps, last_loss, options, and licence, the terms of the model's weights, where they were known
/// when it was taught. Copies them to `buffer` of `capacity` bytes, NUL included; `(NULL, 0)` asks for the size, in `needed`.
/// SITTER_E_BUFFER_TOO_SMALL. Any thread. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_subject_info_json(
    subject: *const sitter_subject,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let subject = handle::get(subject)?;
        let mut info =
            serde_json::to_value(subject.info()).map_err(|e| Failure::new(SITTER_E_INTERNAL, e.to_string()))?;
        if let Some(object) = info.as_object_mut() {
            object.insert("options".into(), subject.options.clone());
        }
        copy_text(&info.to_string(), buffer, capacity, needed)
    })
}

/// The losses of the training, one entry a step in order: SITTER_STAGE_EMBEDDING or SITTER_STAGE_LAYERS, the step within the
/// stage from 0, and the loss in nats per token, each in an array of `capacity`. An array may be NULL to leave it out; with
/// capacity 0 the call asks for the number of entries, in `needed`. SITTER_E_BUFFER_TOO_SMALL. Any thread. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_subject_losses(
    subject: *const sitter_subject,
    stages: *mut i32,
    steps: *mut u64,
    losses: *mut f64,
    capacity: usize,
    needed: *mut usize,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let subject = handle::get(subject)?;
        let records = &subject.losses;
        let number = |name: &str| match name {
            n if n == Stage::Embedding.name() => stage_number(Stage::Embedding),
            n if n == Stage::Layers.name() => stage_number(Stage::Layers),
            _ => 0,
        };
        if capacity == 0 || !needed.is_null() {
            Out::value(needed, "needed")?.set(records.len());
        }
        if capacity == 0 {
            return Ok(());
        }
        if !stages.is_null() {
            let values: Vec<i32> = records.iter().map(|r| number(&r.stage)).collect();
            copy_out(&values, stages, capacity, needed)?;
        }
        if !steps.is_null() {
            copy_out(&records.iter().map(|r| r.step).collect::<Vec<u64>>(), steps, capacity, needed)?;
        }
        if !losses.is_null() {
            let values: Vec<f64> = records.iter().map(|r| f64::from(r.loss)).collect();
            copy_out(&values, losses, capacity, needed)?;
        }
        Ok(())
    })
}

/// One more reference to the same subject; returns it. NULL gives NULL. Any thread. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_subject_ref(subject: *const sitter_subject) -> *mut sitter_subject {
    handle::add_reference(subject)
}

/// Gives a reference back. NULL does nothing. Any thread. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_subject_free(subject: *mut sitter_subject) {
    handle::free(subject);
}
