//! What an evaluator measured.

use super::boundary::guard;
use super::buffer::copy_text;
use super::error::sitter_error;
use super::handle;
use super::nouns::sitter_scores;
use super::status::*;
use std::ffi::c_char;

/// The scores as a JSON object; what a network that was not opened would say is null. protocol and rules (what it looks at,
/// compares and averages), pictures, references and texts (how many); means over the pictures: dino (over the references, by the
/// protocol), dino_one (to the first reference), dino_max (to the most alike), clip_i, clip_i_one, clip_i_max likewise, clip_t (the
/// text that the protocol reads), clip_t_class (without identifier), clip_t_prompt (whole prompt); copies, copy_threshold (a
/// picture as like a reference as the two references most alike is a copy), real (references among themselves: pairs, dino,
/// clip_i), leakage (pictures, untouched_pictures, pres, untouched, share: from 0, the class is what it was, to 1, the subject
/// has taken it over), diversity (LPIPS of pictures of one text); each, the same for every picture with name, text, nearest
/// (which reference) and copy; failed (role, name and message of files that could not be read); networks, as
/// `sitter_evaluator_info_json`. Copies it to `buffer` of `capacity` bytes, NUL included; `(NULL, 0)` asks for the size, in
/// `needed`. SITTER_E_BUFFER_TOO_SMALL. Any thread. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_scores_json(
    scores: *const sitter_scores,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || copy_text(&handle::get(scores)?, buffer, capacity, needed))
}

/// One more reference to the same scores; returns it. NULL gives NULL. Any thread. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_scores_ref(scores: *const sitter_scores) -> *mut sitter_scores {
    handle::add_reference(scores)
}

/// Gives a reference back. NULL does nothing. Any thread. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_scores_free(scores: *mut sitter_scores) {
    handle::free(scores);
}
