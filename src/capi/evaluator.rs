//! Networks that measure drawn pictures.

use super::backend::Measure;
use super::boundary::guard;
use super::buffer::{copy_text, handles, room_for, Out};
use super::engine::{lock, sitter_engine, Engine};
use super::error::sitter_error;
use super::evaluation::request;
use super::failure::Failure;
use super::handle;
use super::job::perform;
use super::memory::GiveBack;
use super::nouns::{
    sitter_evaluation, sitter_evaluator, sitter_evaluator_options, sitter_image, sitter_scores, Image, OpenEvaluator,
};
use super::run::sitter_run;
use super::status::*;
use super::text;
use crate::evaluate::Evaluator;
use crate::picture::Picture;
use crate::run::{Run, Stage};
use std::ffi::c_char;
use std::sync::Arc;

/// Opens the networks that `options` name, at least one. They work on the CPU. `engine` may be NULL: the evaluator gets one of
/// its own. `run` may be NULL. The caller owns the result; free it with `sitter_evaluator_free`. Any thread. SITTER_E_NOT_FOUND,
/// SITTER_E_BAD_FORMAT, SITTER_E_SHAPE_MISMATCH, SITTER_E_CORRUPT, SITTER_E_UNSUPPORTED_MODEL, SITTER_E_CANCELLED. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_evaluator_open(
    engine: *const sitter_engine,
    options: *const sitter_evaluator_options,
    run: *mut sitter_run,
    out: *mut *mut sitter_evaluator,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let out = Out::handle(out, "out")?;
        // For what was read of networks that could not be opened.
        let memory = GiveBack;
        let engine = match handle::get_optional(engine)? {
            Some(engine) => engine,
            None => Engine::new(Default::default()),
        };
        let options = lock(&*handle::get(options)?).clone();
        let run = handle::get_optional(run)?;
        let networks = perform(&engine, run, Stage::Open, move |run| -> crate::Result<Box<dyn Measure>> {
            #[cfg(debug_assertions)]
            if let Some(name) = options.dino.as_deref().and_then(|p| p.to_str()) {
                if name.starts_with(super::fake::PREFIX) {
                    return Ok(Box::new(super::fake::Fake::open(name, run)?));
                }
            }
            Ok(Box::new(Evaluator::open(&options, run)?))
        })?;
        out.set(handle::new(Arc::new(OpenEvaluator { engine, networks, _memory: memory })));
        Ok(())
    })
}

/// One more reference to the same evaluator; returns it. NULL gives NULL. Any thread. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_evaluator_ref(evaluator: *const sitter_evaluator) -> *mut sitter_evaluator {
    handle::add_reference(evaluator)
}

/// Gives a reference back. A call in progress keeps the evaluator. NULL does nothing. Any thread. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_evaluator_free(evaluator: *mut sitter_evaluator) {
    handle::free(evaluator);
}

/// Facts about the networks as a JSON object: dino and clip, each null or size (numbers of a vector), side, patch, layers, files
/// (each file and sha256); lpips, null or its files. Copies them to `buffer` of `capacity` bytes, NUL included; `(NULL, 0)` asks
/// for the size, in `needed`. SITTER_E_BUFFER_TOO_SMALL. Any thread. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_evaluator_info_json(
    evaluator: *const sitter_evaluator,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let info = handle::get(evaluator)?.networks.info().map_err(Failure::from)?;
        copy_text(&info.to_string(), buffer, capacity, needed)
    })
}

/// DINO's vectors of `count` images, as the network gives them (not of length 1), one after the other: each as many numbers as
/// `sitter_evaluator_info_json` says. `capacity` and `needed` count numbers; `(NULL, 0)` asks for the size and computes nothing.
/// `run` may be NULL. Any thread. SITTER_E_INVALID_ARGUMENT without DINO, SITTER_E_BUFFER_TOO_SMALL, SITTER_E_CANCELLED.
/// Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_evaluator_dino(
    evaluator: *const sitter_evaluator,
    images: *const *const sitter_image,
    count: usize,
    run: *mut sitter_run,
    buffer: *mut f32,
    capacity: usize,
    needed: *mut usize,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let evaluator = handle::get(evaluator)?;
        let images = handles(images, count, "images")?;
        let size = evaluator.networks.dino_size()?;
        vectors(&evaluator, run, count, size, (buffer, capacity, needed), move |networks, run| {
            networks.dino(&pictures(&images), run)
        })
    })
}

/// CLIP's vectors of `count` images, otherwise as `sitter_evaluator_dino`. Any thread. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_evaluator_clip_image(
    evaluator: *const sitter_evaluator,
    images: *const *const sitter_image,
    count: usize,
    run: *mut sitter_run,
    buffer: *mut f32,
    capacity: usize,
    needed: *mut usize,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let evaluator = handle::get(evaluator)?;
        let images = handles(images, count, "images")?;
        let size = evaluator.networks.clip_size()?;
        vectors(&evaluator, run, count, size, (buffer, capacity, needed), move |networks, run| {
            networks.clip_image(&pictures(&images), run)
        })
    })
}

/// CLIP's vectors of `count` texts, otherwise as `sitter_evaluator_dino`. What does not fit the network (77 tokens in the papers)
/// is cut off. Any thread. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_evaluator_clip_text(
    evaluator: *const sitter_evaluator,
    texts: *const *const c_char,
    count: usize,
    run: *mut sitter_run,
    buffer: *mut f32,
    capacity: usize,
    needed: *mut usize,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let evaluator = handle::get(evaluator)?;
        let texts = text::list(texts, count, "texts")?;
        let size = evaluator.networks.clip_size()?;
        vectors(&evaluator, run, count, size, (buffer, capacity, needed), move |networks, run| {
            networks.clip_text(&texts.iter().map(String::as_str).collect::<Vec<_>>(), run)
        })
    })
}

fn pictures(images: &[Arc<Image>]) -> Vec<&Picture> {
    images.iter().map(|image| &image.picture).collect()
}

/// Computes vectors and copies them out, if there is room.
fn vectors(
    evaluator: &Arc<OpenEvaluator>,
    run: *mut sitter_run,
    count: usize,
    size: usize,
    (buffer, capacity, needed): (*mut f32, usize, *mut usize),
    compute: impl FnOnce(&dyn Measure, &mut Run) -> crate::Result<Vec<Vec<f32>>> + Send + 'static,
) -> Result<(), Failure> {
    let run = handle::get_optional(run)?;
    let too_many = || Failure::invalid("count", format!("{count} vectors do not fit in memory"));
    let total = count.checked_mul(size).ok_or_else(too_many)?;
    if !room_for(total, buffer, capacity, needed)? {
        return Ok(());
    }
    let shared = evaluator.clone();
    let found = perform(&evaluator.engine, run, Stage::Score, move |run| compute(&*shared.networks, run))?.concat();
    if found.len() != total {
        return Err(Failure::new(SITTER_E_INTERNAL, format!("{} numbers were made instead of {total}", found.len())));
    }
    // SAFETY: the host promises `capacity` numbers, which are enough (`room_for`); its buffer is not ours.
    unsafe { std::ptr::copy_nonoverlapping(found.as_ptr(), buffer, found.len()) };
    Ok(())
}

/// Measures the pictures of an evaluation; it may be changed and measured again. Pictures and references that cannot be read do
/// not end the call but are listed in the result, unless none is left. `run` may be NULL. The caller owns the result; free it with
/// `sitter_scores_free`. Any thread. SITTER_E_INVALID_ARGUMENT without pictures or references; the status of the first file if
/// none can be read; SITTER_E_CANCELLED. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_evaluator_score(
    evaluator: *const sitter_evaluator,
    evaluation: *const sitter_evaluation,
    run: *mut sitter_run,
    out: *mut *mut sitter_scores,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let out = Out::handle(out, "out")?;
        let (evaluator, evaluation) = (handle::get(evaluator)?, handle::get(evaluation)?);
        let evaluation = lock(&evaluation).clone();
        let run = handle::get_optional(run)?;
        let shared = evaluator.clone();
        let work = move |run: &mut Run| shared.networks.score(&request(&evaluation), run);
        let json = perform(&evaluator.engine, run, Stage::Score, work)?;
        out.set(handle::new(Arc::new(json)));
        Ok(())
    })
}
