//! Option objects. Their setters are in `setters`, generated from the fields of the Rust options.

use super::boundary::guard;
use super::buffer::{copy_text, Out};
use super::engine::lock;
use super::error::sitter_error;
use super::failure::Failure;
use super::handle::{self, Noun};
use super::nouns::{
    sitter_evaluator_options, sitter_model, sitter_model_options, sitter_sample_options, sitter_train_options,
};
use super::status::*;
use super::text;
use crate::evaluate;
use crate::model::outline::Outline;
use crate::model::recommended::Recommended;
use crate::model::OpenOptions;
use crate::personalize::{self, Method};
use crate::sample;
use serde::Serialize;
use std::ffi::c_char;
use std::sync::{Arc, Mutex};

/// Options that can be checked one field at a time.
pub trait Fields: Clone + Serialize + Send + 'static {
    fn check_ranges(&self) -> crate::Result<()>;
}

impl Fields for evaluate::OpenOptions {
    fn check_ranges(&self) -> crate::Result<()> {
        evaluate::OpenOptions::check_ranges(self)
    }
}

impl Fields for OpenOptions {
    fn check_ranges(&self) -> crate::Result<()> {
        OpenOptions::check_ranges(self)
    }
}

impl Fields for sample::Options {
    fn check_ranges(&self) -> crate::Result<()> {
        sample::Options::check_ranges(self)
    }
}

impl Fields for personalize::Options {
    fn check_ranges(&self) -> crate::Result<()> {
        personalize::Options::check_ranges(self)
    }
}

/// Sets a field if its new value is allowed; otherwise nothing changes.
pub fn change<F: Fields, N: Noun<Value = Arc<Mutex<F>>>>(
    options: *mut N,
    set: impl FnOnce(&mut F) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let options = handle::get(options)?;
    let mut fields = lock(&options);
    let mut next = fields.clone();
    set(&mut next)?;
    next.check_ranges()?;
    *fields = next;
    Ok(())
}

/// 0 or 1.
pub fn flag(value: i32, field: &str) -> Result<bool, Failure> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Failure::invalid(field, format!("is {value}; allowed are 0 and 1"))),
    }
}

/// Hands out new options, unless there is no place for them.
fn made<F, N: Noun<Value = Arc<Mutex<F>>>>(
    out: *mut *mut N,
    options: impl FnOnce() -> Result<F, Failure>,
) -> Result<(), Failure> {
    let out = Out::handle(out, "out")?;
    out.set(handle::new(Arc::new(Mutex::new(options()?))));
    Ok(())
}

/// What the model in a folder recommends.
fn recommended(path: *const c_char) -> Result<Recommended, Failure> {
    Ok(Outline::read(text::required(path, "path")?, &OpenOptions::default())?.recommended)
}

fn json<F: Fields, N: Noun<Value = Arc<Mutex<F>>>>(
    options: *const N,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> Result<(), Failure> {
    let fields = lock(&*handle::get(options)?).clone();
    let text = serde_json::to_string(&fields).map_err(|e| Failure::new(SITTER_E_INTERNAL, e.to_string()))?;
    copy_text(&text, buffer, capacity, needed)
}

/// Options for opening an evaluator; at least one network has to be set. The caller owns them; free them with
/// `sitter_evaluator_options_free`. Any thread. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_evaluator_options_new(
    out: *mut *mut sitter_evaluator_options,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || made(out, || Ok(evaluate::OpenOptions::default())))
}

/// All options with their values, as a JSON object. Copies it to `buffer` of `capacity` bytes, NUL included; `(NULL, 0)` asks
/// for the size, in `needed`. SITTER_E_BUFFER_TOO_SMALL. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_evaluator_options_get_json(
    options: *const sitter_evaluator_options,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || json(options, buffer, capacity, needed))
}

/// Frees options. NULL does nothing. Any thread. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_evaluator_options_free(options: *mut sitter_evaluator_options) {
    handle::free(options);
}

/// Options for opening a model. The caller owns them; free them with `sitter_model_options_free`. Any thread. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_model_options_new(
    out: *mut *mut sitter_model_options,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || made(out, || Ok(OpenOptions::default())))
}

/// All options with their values, as a JSON object. Copies it to `buffer` of `capacity` bytes, NUL included; `(NULL, 0)` asks
/// for the size, in `needed`. SITTER_E_BUFFER_TOO_SMALL. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_model_options_get_json(
    options: *const sitter_model_options,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || json(options, buffer, capacity, needed))
}

/// Frees options. NULL does nothing. Any thread. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_model_options_free(options: *mut sitter_model_options) {
    handle::free(options);
}

/// Options for drawing, with what the model recommends; with the defaults of the paper (arXiv 2504.13162) if `model` is NULL.
/// The caller owns them; free them with `sitter_sample_options_free`. Any thread. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_sample_options_new(
    model: *const sitter_model,
    out: *mut *mut sitter_sample_options,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        made(out, || {
            Ok(match handle::get_optional(model)? {
                Some(model) => model.backend.sample_options()?,
                None => sample::Options::default(),
            })
        })
    })
}

/// Options for drawing with what the model in a folder recommends, which is not opened: for `sitter_model_estimate_json`. `path` as
/// in `sitter_model_open`. The caller owns them; free them with `sitter_sample_options_free`. Any thread. SITTER_E_NOT_FOUND,
/// SITTER_E_BAD_FORMAT, SITTER_E_UNSUPPORTED_MODEL. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_sample_options_for_folder(
    path: *const c_char,
    out: *mut *mut sitter_sample_options,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || made(out, || Ok(sample::Options::recommended(&recommended(path)?)?)))
}

/// All options with their values, as a JSON object. Copies it to `buffer` of `capacity` bytes, NUL included; `(NULL, 0)` asks
/// for the size, in `needed`. SITTER_E_BUFFER_TOO_SMALL. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_sample_options_get_json(
    options: *const sitter_sample_options,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || json(options, buffer, capacity, needed))
}

/// Frees options. NULL does nothing. Any thread. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_sample_options_free(options: *mut sitter_sample_options) {
    handle::free(options);
}

/// Options for teaching a subject by a method, with what the model recommends; with the defaults of the paper (arXiv 2504.13162)
/// if `model` is NULL. `method` is "two_stage", "textual_inversion", "dreambooth", "lora", or "arbooth" (arXiv 2504.02612; for
/// families that draw scale after scale); NULL is the one that the model's family has by default, without a model "two_stage". The
/// class word has to be set before they are used. The caller owns them; free them with `sitter_train_options_free`. Any thread. Since
/// 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_new(
    model: *const sitter_model,
    method: *const c_char,
    out: *mut *mut sitter_train_options,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        made(out, || {
            let method = named(method)?;
            Ok(match handle::get_optional(model)? {
                Some(model) => model.backend.train_options(method)?,
                None => personalize::Options::new(method.unwrap_or_default()),
            })
        })
    })
}

/// The method of a name, or that which is meant without one.
fn named(method: *const c_char) -> Result<Option<Method>, Failure> {
    let name = text::optional(method, "method")?;
    Ok(name.map(|name| Method::parse(&name)).transpose()?)
}

/// Options for teaching a subject with what the model in a folder recommends, which is not opened: for
/// `sitter_model_estimate_json`. `path` as in `sitter_model_open`, `method` as in `sitter_train_options_new`. The caller owns them;
/// free them with `sitter_train_options_free`. Any thread. SITTER_E_NOT_FOUND, SITTER_E_BAD_FORMAT, SITTER_E_UNSUPPORTED_MODEL.
/// Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_for_folder(
    path: *const c_char,
    method: *const c_char,
    out: *mut *mut sitter_train_options,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || made(out, || Ok(personalize::Options::recommended(&recommended(path)?, named(method)?)?)))
}

/// All options with their values, as a JSON object. Copies it to `buffer` of `capacity` bytes, NUL included; `(NULL, 0)` asks
/// for the size, in `needed`. SITTER_E_BUFFER_TOO_SMALL. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_get_json(
    options: *const sitter_train_options,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || json(options, buffer, capacity, needed))
}

/// Frees options. NULL does nothing. Any thread. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_free(options: *mut sitter_train_options) {
    handle::free(options);
}
