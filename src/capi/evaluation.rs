//! What is to be measured, on its way to an evaluator.

use super::boundary::guard;
use super::buffer::Out;
use super::engine::lock;
use super::error::sitter_error;
use super::failure::Failure;
use super::handle;
use super::nouns::{sitter_evaluation, sitter_image, Content, Evaluation, Measured};
use super::status::*;
use super::text;
use crate::evaluate::{Item, Protocol, Request, Source};
use std::ffi::c_char;
use std::sync::{Arc, Mutex};

/// A picture that was drawn of the subject.
pub const SITTER_ROLE_PICTURE: i32 = 1;
/// A picture that the subject was taught with.
pub const SITTER_ROLE_REFERENCE: i32 = 2;
/// A picture drawn with the subject applied, of a prompt that names only its class: it tells how far the subject leaked there.
pub const SITTER_ROLE_CLASS_PICTURE: i32 = 3;
/// A picture of such a prompt by the model without the subject.
pub const SITTER_ROLE_UNTOUCHED: i32 = 4;

/// The most pictures of one evaluation.
const MAX_PICTURES: usize = 1 << 20;

/// The evaluation as the evaluator takes it.
pub fn request(evaluation: &Evaluation) -> Request<'_> {
    fn items(entries: &[Measured]) -> Vec<Item<'_>> {
        let item = |entry| {
            let Measured { content, text }: &Measured = entry;
            let source = match content {
                Content::Image(image) => Source::Picture(&image.picture),
                Content::File(path) => Source::File(path),
            };
            Item { source, text }
        };
        entries.iter().map(item).collect()
    }
    Request {
        protocol: evaluation.protocol,
        identifier: evaluation.identifier.as_deref(),
        pictures: items(&evaluation.pictures),
        references: items(&evaluation.references),
        class_pictures: items(&evaluation.class_pictures),
        untouched: items(&evaluation.untouched),
    }
}

/// An empty evaluation, under protocol B. The caller owns it; free it with `sitter_evaluation_free`. Any thread. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_evaluation_new(
    out: *mut *mut sitter_evaluation,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let out = Out::handle(out, "out")?;
        out.set(handle::new(Arc::new(Mutex::new(Evaluation::default()))));
        Ok(())
    })
}

/// Under which published protocol to measure: "A" (DreamBooth), "B" (arXiv 2504.13162), "C" (Kosmos-G, OmniGen: one reference)
/// or "D" (ARBooth, ViCo). SITTER_E_INVALID_ARGUMENT. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_evaluation_set_protocol(
    evaluation: *mut sitter_evaluation,
    protocol: *const c_char,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let evaluation = handle::get(evaluation)?;
        let protocol = Protocol::parse(&text::required(protocol, "protocol")?)?;
        lock(&evaluation).protocol = protocol;
        Ok(())
    })
}

/// The subject's word in prompts, for the score of whole prompts; NULL, the default, leaves that score out. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_evaluation_set_identifier(
    evaluation: *mut sitter_evaluation,
    identifier: *const c_char,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let evaluation = handle::get(evaluation)?;
        let identifier = text::optional(identifier, "identifier")?;
        lock(&evaluation).identifier = identifier;
        Ok(())
    })
}

/// Adds a picture in a role, SITTER_ROLE_PICTURE to SITTER_ROLE_UNTOUCHED; the evaluation keeps a reference of its own. `text` is
/// what it was to show, with {} in the place of the identifier: "a {} dog in the snow"; NULL if that is not known.
/// SITTER_E_INVALID_ARGUMENT. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_evaluation_add_image(
    evaluation: *mut sitter_evaluation,
    role: i32,
    image: *const sitter_image,
    text: *const c_char,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let (evaluation, image) = (handle::get(evaluation)?, handle::get(image)?);
        add(&evaluation, role, Content::Image(image), text)
    })
}

/// As `sitter_evaluation_add_image` of a picture file, which is read when its turn comes: for more pictures than fit in memory.
/// One that cannot be read then is listed in the result. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_evaluation_add_file(
    evaluation: *mut sitter_evaluation,
    role: i32,
    path: *const c_char,
    text: *const c_char,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let evaluation = handle::get(evaluation)?;
        add(&evaluation, role, Content::File(text::required(path, "path")?.into()), text)
    })
}

fn add(evaluation: &Mutex<Evaluation>, role: i32, content: Content, text: *const c_char) -> Result<(), Failure> {
    let text = text::optional(text, "text")?.unwrap_or_default();
    let mut evaluation = lock(evaluation);
    let entries = match role {
        SITTER_ROLE_PICTURE => &mut evaluation.pictures,
        SITTER_ROLE_REFERENCE => &mut evaluation.references,
        SITTER_ROLE_CLASS_PICTURE => &mut evaluation.class_pictures,
        SITTER_ROLE_UNTOUCHED => &mut evaluation.untouched,
        _ => return Err(Failure::invalid("role", format!("is {role}; allowed are 1 to 4"))),
    };
    if entries.len() >= MAX_PICTURES {
        return Err(Failure::invalid("evaluation", format!("it holds {MAX_PICTURES} of these, the most allowed")));
    }
    entries.push(Measured { content, text });
    Ok(())
}

/// Frees an evaluation. NULL does nothing. Any thread. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_evaluation_free(evaluation: *mut sitter_evaluation) {
    handle::free(evaluation);
}
