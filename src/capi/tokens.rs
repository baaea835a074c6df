//! Grids of image tokens: encoded, sampled, or handed in; and scored.

use super::boundary::guard;
use super::buffer::{array, copy_out, handles, Out};
use super::error::sitter_error;
use super::failure::Failure;
use super::handle;
use super::job::perform;
use super::nouns::{sitter_image, sitter_model, sitter_sample_options, sitter_subject, sitter_tokens, Grid};
use super::run::sitter_run;
use super::status::*;
use super::text;
use crate::run::Stage;
use crate::tokens::Tokens;
use std::ffi::c_char;
use std::sync::Arc;

/// The most pictures of one call.
const MAX_PICTURES: usize = 256;
/// The most grids of one picture.
const MAX_GRIDS: usize = 64;

/// The tokens of an image. `target_px` is the side of the square whose area the image is brought to, by the model's list of
/// crop sizes, as in training; 0 takes the image as it is if its sides are multiples of the model's grid unit and it is no
/// larger than the model's own pictures, and otherwise fits it to those. `run` may be NULL. The caller owns the result; free
/// it with `sitter_tokens_free`. Any thread. SITTER_E_CANCELLED. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_tokens_encode(
    model: *const sitter_model,
    image: *const sitter_image,
    target_px: u32,
    run: *mut sitter_run,
    out: *mut *mut sitter_tokens,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let out = Out::handle(out, "out")?;
        let (model, image, run) = (handle::get(model)?, handle::get(image)?, handle::get_optional(run)?);
        let engine = model.engine.clone();
        let tokens =
            perform(&engine, run, Stage::Encode, move |run| model.backend.encode(&image.picture, target_px, run))?;
        out.set(handle::new(Arc::new(Grid { tokens, provenance: None })));
        Ok(())
    })
}

/// Draws `count` pictures of a prompt, 1 to 256, in one batch: `out` is an array of `count` handles, which the caller owns; free
/// each with `sitter_tokens_free`. The prompt names a subject by its identifier. `subjects` is an array of `subject_count`
/// subjects of this model, with different identifiers; NULL if there is none. `options` may be NULL: what the model recommends.
/// `run` may be NULL. Any thread. SITTER_E_WRONG_MODEL, SITTER_E_CANCELLED. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_tokens_sample(
    model: *const sitter_model,
    prompt: *const c_char,
    subjects: *const *const sitter_subject,
    subject_count: usize,
    options: *const sitter_sample_options,
    run: *mut sitter_run,
    out: *mut *mut sitter_tokens,
    count: usize,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        if out.is_null() {
            return Err(Failure::null("out"));
        }
        if !(1..=MAX_PICTURES).contains(&count) {
            return Err(Failure::invalid("count", format!("is {count}; allowed are 1 to {MAX_PICTURES}")));
        }
        if !out.is_aligned() {
            return Err(Failure::invalid("out", "is not aligned for its type"));
        }
        for i in 0..count {
            // SAFETY: the host promises room for `count` handles.
            unsafe { out.add(i).write(std::ptr::null_mut()) };
        }
        let model = handle::get(model)?;
        let prompt = text::required(prompt, "prompt")?;
        let subjects = handles(subjects, subject_count, "subjects")?;
        let mut options = match handle::get_optional(options)? {
            Some(options) => super::engine::lock(&options).clone(),
            None => model.backend.sample_options()?,
        };
        options.count = u32::try_from(count).unwrap_or(u32::MAX);
        let run = handle::get_optional(run)?;
        let engine = model.engine.clone();
        let drawn =
            perform(&engine, run, Stage::Sample, move |run| model.backend.sample(&prompt, &subjects, &options, run))?;
        if drawn.len() != count {
            let message = format!("{} pictures were drawn instead of {count}", drawn.len());
            return Err(Failure::new(SITTER_E_INTERNAL, message));
        }
        for (i, (tokens, provenance)) in drawn.into_iter().enumerate() {
            // SAFETY: as above.
            unsafe { out.add(i).write(handle::new(Arc::new(Grid { tokens, provenance }))) };
        }
        Ok(())
    })
}

/// Tokens from an array of `width` x `height` codebook indices, rows top to bottom; copied. Whether a model knows them is
/// checked where they meet one. The caller owns the result; free it with `sitter_tokens_free`. Any thread. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_tokens_from_array(
    codes: *const u32,
    width: u32,
    height: u32,
    out: *mut *mut sitter_tokens,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let out = Out::handle(out, "out")?;
        let count = u64::from(width).saturating_mul(height.into());
        // Larger than any picture that could be decoded.
        if count > crate::picture::MAX_PIXELS {
            return Err(Failure::invalid("width, height", format!("{width}x{height} tokens are no picture's grid")));
        }
        let codes = array(codes, usize::try_from(count).unwrap_or(usize::MAX), "codes")?;
        let tokens = Tokens::new(height, width, codes)?;
        out.set(handle::new(Arc::new(Grid { tokens, provenance: None })));
        Ok(())
    })
}

/// Tokens of several grids, coarse to fine, as models have them that draw scale after scale: `widths` and `heights` are arrays of
/// `grid_count` numbers, 1 to 64, and `codes` has all codes of the first grid, rows top to bottom, then those of the next; copied.
/// Whether a model knows them is checked where they meet one. The caller owns the result; free it with `sitter_tokens_free`. Any
/// thread. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_tokens_from_grids(
    codes: *const u32,
    widths: *const u32,
    heights: *const u32,
    grid_count: usize,
    out: *mut *mut sitter_tokens,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let out = Out::handle(out, "out")?;
        if !(1..=MAX_GRIDS).contains(&grid_count) {
            return Err(Failure::invalid("grid_count", format!("is {grid_count}; allowed are 1 to {MAX_GRIDS}")));
        }
        let (widths, heights) = (array(widths, grid_count, "widths")?, array(heights, grid_count, "heights")?);
        let grids: Vec<(u32, u32)> = heights.into_iter().zip(widths).collect();
        let cells = grids.iter().map(|&(h, w)| u64::from(h).saturating_mul(w.into())).fold(0, u64::saturating_add);
        if cells > crate::picture::MAX_PIXELS {
            return Err(Failure::invalid("widths, heights", format!("{cells} tokens are no picture's")));
        }
        let codes = array(codes, usize::try_from(cells).unwrap_or(usize::MAX), "codes")?;
        let tokens = Tokens::of_grids(&grids, codes)?;
        out.set(handle::new(Arc::new(Grid { tokens, provenance: None })));
        Ok(())
    })
}

/// Mean nats per labelled token of each of `count` pictures under a prompt, written to `scores`: how surprising the model finds
/// it; lower is likelier. Subjects as for `sitter_tokens_sample`. `run` may be NULL. Any thread. SITTER_E_WRONG_MODEL,
/// SITTER_E_CANCELLED. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_tokens_score(
    model: *const sitter_model,
    prompt: *const c_char,
    subjects: *const *const sitter_subject,
    subject_count: usize,
    pictures: *const *const sitter_tokens,
    count: usize,
    run: *mut sitter_run,
    scores: *mut f64,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let out = Out::value(scores, "scores").map(|_| scores)?;
        let model = handle::get(model)?;
        let prompt = text::required(prompt, "prompt")?;
        let subjects = handles(subjects, subject_count, "subjects")?;
        let pictures: Vec<Tokens> =
            handles(pictures, count, "pictures")?.iter().map(|grid| grid.tokens.clone()).collect();
        let run = handle::get_optional(run)?;
        let engine = model.engine.clone();
        let found =
            perform(&engine, run, Stage::Score, move |run| model.backend.score(&prompt, &subjects, &pictures, run))?;
        let found: Vec<f64> = found.into_iter().map(f64::from).collect();
        copy_out(&found, out, count, std::ptr::null_mut())
    })
}

/// Width and height of the grid, in tokens; of several grids, of the last one. Any thread. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_tokens_grid(
    tokens: *const sitter_tokens,
    width: *mut u32,
    height: *mut u32,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let grid = handle::get(tokens)?;
        let (to_width, to_height) = (Out::value(width, "width")?, Out::value(height, "height")?);
        to_width.set(grid.tokens.width());
        to_height.set(grid.tokens.height());
        Ok(())
    })
}

/// How many grids the tokens have: one, or one for each scale of models that draw scale after scale. Any thread. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_tokens_grid_count(
    tokens: *const sitter_tokens,
    count: *mut usize,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let out = Out::value(count, "count")?;
        out.set(handle::get(tokens)?.tokens.grids().len());
        Ok(())
    })
}

/// Width and height of grid `index`, from 0, the coarsest. Its codes follow those of the grids before it in what
/// `sitter_tokens_copy` gives. SITTER_E_INVALID_ARGUMENT if there is no such grid. Any thread. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_tokens_grid_at(
    tokens: *const sitter_tokens,
    index: usize,
    width: *mut u32,
    height: *mut u32,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let (to_width, to_height) = (Out::value(width, "width")?, Out::value(height, "height")?);
        let grids = handle::get(tokens)?.tokens.grids();
        let Some(&(height, width)) = grids.get(index) else {
            return Err(Failure::invalid("index", format!("is {index}; there are {} grids", grids.len())));
        };
        to_width.set(width);
        to_height.set(height);
        Ok(())
    })
}

/// Copies the codebook indices out, rows top to bottom, of several grids one after the other. `capacity` and `needed` count tokens;
/// `(NULL, 0)` asks for the size.
/// SITTER_E_BUFFER_TOO_SMALL. Any thread. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_tokens_copy(
    tokens: *const sitter_tokens,
    buffer: *mut u32,
    capacity: usize,
    needed: *mut usize,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || copy_out(handle::get(tokens)?.tokens.codes(), buffer, capacity, needed))
}

/// One more reference to the same tokens; returns it. NULL gives NULL. Any thread. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_tokens_ref(tokens: *const sitter_tokens) -> *mut sitter_tokens {
    handle::add_reference(tokens)
}

/// Gives a reference back. NULL does nothing. Any thread. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_tokens_free(tokens: *mut sitter_tokens) {
    handle::free(tokens);
}
