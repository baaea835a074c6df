//! Arrays and texts, in and out.

use crate::host::*;
use sitter::capi::dataset::*;
use sitter::capi::engine::*;
use sitter::capi::error::sitter_error;
use sitter::capi::evaluation::*;
use sitter::capi::evaluator::*;
use sitter::capi::image::*;
use sitter::capi::model::*;
use sitter::capi::nouns::sitter_tokens;
use sitter::capi::options::*;
use sitter::capi::setters::*;
use sitter::capi::status::*;
use sitter::capi::subject::*;
use sitter::capi::tokens::*;
use sitter::capi::version::*;
use std::ffi::{c_char, CStr};
use std::fmt::Debug;
use std::path::Path;
use std::ptr::{null, null_mut};

/// What the two-call form promises, of any function that has it. `sizes` are more that are too small; none for a function
/// that asks for its size with capacity 0 alone.
fn check_two_calls<T: Copy + PartialEq + Debug>(
    copy: impl Fn(*mut T, usize, *mut usize, *mut *mut sitter_error) -> sitter_status,
    filler: T,
    sizes: &[usize],
) {
    let mut needed = usize::MAX;
    check(|err| copy(null_mut(), 0, &mut needed, err)).unwrap();
    assert!(needed > 0 && needed < 1 << 24);
    // Each size that is too small leaves buffer and neighbours as they are, and says what is needed.
    for capacity in sizes.iter().copied().chain([1, needed / 2, needed - 1]).filter(|&c| c < needed) {
        let mut buffer = vec![filler; needed + 4];
        let mut found = usize::MAX;
        let result = check(|err| copy(buffer.as_mut_ptr(), capacity, &mut found, err));
        fails(result, SITTER_E_BUFFER_TOO_SMALL);
        assert_eq!(found, needed);
        assert!(buffer.iter().all(|&b| b == filler), "a buffer of {capacity} was touched");
    }
    for extra in [0, 3] {
        let mut buffer = vec![filler; needed + 4];
        let mut found = usize::MAX;
        check(|err| copy(buffer.as_mut_ptr(), needed + extra, &mut found, err)).unwrap();
        assert_eq!(found, needed);
        assert!(buffer[needed..].iter().all(|&b| b == filler), "written behind the end");
        // With a buffer, nobody has to take the size.
        let mut again = vec![filler; needed + 4];
        check(|err| copy(again.as_mut_ptr(), needed, null_mut(), err)).unwrap();
        assert_eq!(again, buffer);
    }
    fails(check(|err| copy(null_mut(), 0, null_mut(), err)), SITTER_E_NULL_POINTER);
    if !sizes.is_empty() {
        fails(check(|err| copy(null_mut(), 7, &mut needed, err)), SITTER_E_NULL_POINTER);
    }
}

#[test]
fn sizes_are_asked_for_and_small_buffers_stay_untouched() {
    let studio = Studio::fake("steps=3");
    let subject = studio.train(null_mut()).unwrap();
    let model_options =
        made(sitter_model_options_free, |out, err| unsafe { sitter_model_options_new(out, err) }).unwrap();
    let engine = engine(1, 1);
    let odd = pattern(5, 3);
    // SAFETY: living handles, and buffers as large as they say.
    unsafe {
        let x = b'x' as c_char;
        check_two_calls(|b, n, needed, err| sitter_model_info_json(studio.model.at, b, n, needed, err), x, &[0]);
        check_two_calls(|b, n, needed, err| sitter_subject_info_json(subject.at, b, n, needed, err), x, &[0]);
        check_two_calls(
            |b, n, needed, err| sitter_model_options_get_json(model_options.at, b, n, needed, err),
            x,
            &[0],
        );
        check_two_calls(
            |b, n, needed, err| sitter_sample_options_get_json(studio.sample.at, b, n, needed, err),
            x,
            &[0],
        );
        check_two_calls(|b, n, needed, err| sitter_train_options_get_json(studio.train.at, b, n, needed, err), x, &[0]);
        // Miri knows no function that says how much memory there is.
        if !cfg!(miri) {
            // Free memory changes all the time; the size of the text must not.
            let without_numbers = |b: *mut c_char, n: usize, needed: *mut usize, err| {
                let status = sitter_devices_json(b, n, needed, err);
                if status == SITTER_OK && !b.is_null() {
                    let text = std::slice::from_raw_parts_mut(b.cast::<u8>(), CStr::from_ptr(b).count_bytes());
                    text.iter_mut().filter(|c| c.is_ascii_digit()).for_each(|c| *c = b'0');
                }
                status
            };
            check_two_calls(without_numbers, x, &[0]);
        }
        check_two_calls(|b, n, needed, err| sitter_engine_drain_log(engine.at, b, n, needed, err), x, &[0]);
        check_two_calls(|b, n, needed, err| sitter_tokens_copy(studio.tokens.at, b, n, needed, err), u32::MAX, &[0]);
        check_two_calls(|b, n, needed, err| sitter_image_copy_rgb8(odd.at, b, n, needed, err), 0xee, &[0]);
        check_two_calls(|b, n, needed, err| sitter_image_copy_f32(odd.at, b, n, needed, err), -9.0, &[0]);
        // Here capacity 0 asks for the size, whatever the arrays.
        check_two_calls(
            |b, n, needed, err| sitter_subject_losses(subject.at, b, null_mut(), null_mut(), n, needed, err),
            -3,
            &[],
        );
        check_two_calls(
            |b, n, needed, err| sitter_subject_losses(subject.at, null_mut(), b, null_mut(), n, needed, err),
            77,
            &[],
        );
        check_two_calls(
            |b, n, needed, err| sitter_subject_losses(subject.at, null_mut(), null_mut(), b, n, needed, err),
            -1.0,
            &[],
        );
    }
}

#[test]
fn losses_fill_three_arrays_or_none() {
    let studio = Studio::fake("steps=3");
    let subject = studio.train(null_mut()).unwrap();
    let (mut stages, mut steps, mut losses) = ([-1; 4], [99; 4], [-1.0; 4]);
    let mut needed = 99;
    // Nothing but the number is wanted.
    check(|err| unsafe { sitter_subject_losses(subject.at, null_mut(), null_mut(), null_mut(), 4, &mut needed, err) })
        .unwrap();
    assert_eq!(needed, 3);
    // SAFETY: arrays of four.
    unsafe {
        let (a, b, c) = (stages.as_mut_ptr(), steps.as_mut_ptr(), losses.as_mut_ptr());
        fails(check(|err| sitter_subject_losses(subject.at, a, b, c, 2, &mut needed, err)), SITTER_E_BUFFER_TOO_SMALL);
        assert_eq!((needed, stages, steps, losses), (3, [-1; 4], [99; 4], [-1.0; 4]));
        check(|err| sitter_subject_losses(subject.at, a, b, c, 4, &mut needed, err)).unwrap();
    }
    assert_eq!((stages, steps), ([5, 5, 5, -1], [0, 1, 2, 99]));
    assert_eq!(losses, [0.0, 1.0, 2.0, -1.0]);
}

#[test]
fn pixels_and_tokens_come_back_as_they_went_in() {
    let bytes: Vec<u8> = (0..4 * 3 * 3).map(|i| i * 7).collect();
    let packed = image(&bytes, 4, 3).unwrap();
    assert_eq!(rgb(&packed), bytes);
    let floats: Vec<f32> =
        two_calls(|b, n, needed, err| unsafe { sitter_image_copy_f32(packed.at, b, n, needed, err) });
    assert!(floats.iter().zip(&bytes).all(|(f, b)| *f == f32::from(*b) / 255.0));
    let again =
        made(sitter_image_free, |out, err| unsafe { sitter_image_from_f32(floats.as_ptr(), 4, 3, 0, out, err) });
    assert_eq!(rgb(&again.unwrap()), bytes);

    // Rows with gaps between them, the last without one.
    let mut wide = [0xeeu8; 2 * 20 + 12];
    for y in 0..3 {
        wide[y * 20..y * 20 + 12].copy_from_slice(&bytes[y * 12..y * 12 + 12]);
    }
    let strided =
        made(sitter_image_free, |out, err| unsafe { sitter_image_from_rgb8(wide.as_ptr(), 4, 3, 20, out, err) });
    assert_eq!(rgb(&strided.unwrap()), bytes);

    // With opacity: what is opaque as it is, the rest laid on white.
    let clear: Vec<u8> =
        bytes.chunks(3).enumerate().flat_map(|(i, v)| [v[0], v[1], v[2], if i % 2 == 0 { 255 } else { 0 }]).collect();
    let on_white =
        made(sitter_image_free, |out, err| unsafe { sitter_image_from_rgba8(clear.as_ptr(), 4, 3, 16, out, err) });
    let expected: Vec<u8> =
        bytes.chunks(3).enumerate().flat_map(|(i, v)| if i % 2 == 0 { [v[0], v[1], v[2]] } else { [255; 3] }).collect();
    assert_eq!(rgb(&on_white.unwrap()), expected);

    let grid = tokens(&[5, 0, u32::MAX, 7, 8, 9], 3, 2).unwrap();
    assert_eq!(codes(&grid), [5, 0, u32::MAX, 7, 8, 9]);
    let (mut width, mut height) = (0, 0);
    check(|err| unsafe { sitter_tokens_grid(grid.at, &mut width, &mut height, err) }).unwrap();
    assert_eq!((width, height), (3, 2));
}

#[test]
fn impossible_pictures_and_grids_are_refused_before_anything_is_read() {
    let pixels = [0u8; 12];
    // SAFETY: what is refused is not read; that is what is tested.
    unsafe {
        for (width, height, stride) in [
            (0, 0, 0),
            (0, 4, 0),
            (4, 0, 0),
            (1 << 14, 1 << 14, 0),
            (u32::MAX, u32::MAX, 0),
            (u32::MAX, 1, 0),
            (1, u32::MAX, 0),
            (2, 2, 5),
            (2, 2, 1),
            (2, 2, usize::MAX),
            (2, 2, usize::MAX / 2),
        ] {
            let result = made(sitter_image_free, |out, err| {
                sitter_image_from_rgb8(pixels.as_ptr(), width, height, stride, out, err)
            });
            fails(result, SITTER_E_INVALID_ARGUMENT);
            let result = made(sitter_image_free, |out, err| {
                sitter_image_from_rgba8(pixels.as_ptr(), width, height, stride, out, err)
            });
            fails(result, SITTER_E_INVALID_ARGUMENT);
            let result = made(sitter_image_free, |out, err| {
                sitter_image_from_f32(pixels.as_ptr().cast(), width, height, stride, out, err)
            });
            fails(result, SITTER_E_INVALID_ARGUMENT);
        }
        let floats = [0f32; 12];
        // Rows of float that begin between two floats, and an array that does.
        let result = made(sitter_image_free, |out, err| sitter_image_from_f32(floats.as_ptr(), 1, 2, 14, out, err));
        fails(result, SITTER_E_INVALID_ARGUMENT);
        let crooked = floats.as_ptr().wrapping_byte_add(1);
        let result = made(sitter_image_free, |out, err| sitter_image_from_f32(crooked, 1, 1, 0, out, err));
        fails(result, SITTER_E_INVALID_ARGUMENT);
        let result = made(sitter_image_free, |out, err| sitter_image_from_rgb8(null(), 1, 1, 0, out, err));
        fails(result, SITTER_E_NULL_POINTER);

        for (width, height) in [(0, 0), (0, 3), (3, 0), (u32::MAX, u32::MAX), (1 << 16, 1 << 16)] {
            let result =
                made(sitter_tokens_free, |out, err| sitter_tokens_from_array([0u32].as_ptr(), width, height, out, err));
            fails(result, SITTER_E_INVALID_ARGUMENT);
        }
        let result = made(sitter_tokens_free, |out, err| sitter_tokens_from_array(null(), 1, 1, out, err));
        fails(result, SITTER_E_NULL_POINTER);
    }
}

#[test]
fn floats_outside_the_range_are_brought_to_it_and_nan_is_refused() {
    let from = |values: [f32; 3]| {
        made(sitter_image_free, |out, err| unsafe { sitter_image_from_f32(values.as_ptr(), 1, 1, 0, out, err) })
    };
    assert_eq!(rgb(&from([-1.0, 0.5, 2.0]).unwrap()), [0, 128, 255]);
    assert_eq!(rgb(&from([f32::NEG_INFINITY, f32::MIN_POSITIVE, f32::INFINITY]).unwrap()), [0, 0, 255]);
    for nan in [[f32::NAN, 0.0, 0.0], [0.0, -f32::NAN, 0.0], [0.0, 0.0, f32::from_bits(0x7f80_0001)]] {
        let message = fails(from(nan), SITTER_E_INVALID_ARGUMENT);
        assert!(message.contains("NaN"), "{message}");
    }
}

#[test]
fn counts_of_pictures_are_checked() {
    let studio = Studio::fake("steps=1");
    let prompt = c"x";
    // SAFETY: what is refused is not written to.
    unsafe {
        let sample = |out: *mut *mut sitter_tokens, count: usize| {
            let options = studio.sample.at;
            check(|err| {
                sitter_tokens_sample(studio.model.at, prompt.as_ptr(), null(), 0, options, null_mut(), out, count, err)
            })
        };
        let mut out = [null_mut(); 1];
        for count in [0, 257, usize::MAX] {
            fails(sample(out.as_mut_ptr(), count), SITTER_E_INVALID_ARGUMENT);
        }
        fails(sample(null_mut(), 1), SITTER_E_NULL_POINTER);
        let score = |pictures: *const *const sitter_tokens, count: usize, scores: *mut f64| {
            check(|err| {
                sitter_tokens_score(
                    studio.model.at,
                    prompt.as_ptr(),
                    null(),
                    0,
                    pictures,
                    count,
                    null_mut(),
                    scores,
                    err,
                )
            })
        };
        let mut scores = [-7.0; 2];
        fails(score(null(), 1, scores.as_mut_ptr()), SITTER_E_NULL_POINTER);
        fails(score([null()].as_ptr(), 1, scores.as_mut_ptr()), SITTER_E_NULL_POINTER);
        fails(score([studio.tokens.at.cast_const()].as_ptr(), 1, null_mut()), SITTER_E_NULL_POINTER);
        fails(
            score([studio.tokens.at.cast_const()].as_ptr(), usize::MAX, scores.as_mut_ptr()),
            SITTER_E_INVALID_ARGUMENT,
        );
        score(null(), 0, scores.as_mut_ptr()).unwrap();
        assert_eq!(scores, [-7.0; 2]);
    }
}

#[test]
fn text_that_is_not_utf8_is_told_with_the_place() {
    let studio = Studio::fake("steps=1");
    let subject = studio.train(null_mut()).unwrap();
    let bad = std::ffi::CString::new(&b"gr\xffn"[..]).unwrap();
    let good = c"x".as_ptr();
    let told = |result: Result<()>| {
        let message = fails(result, SITTER_E_INVALID_ARGUMENT);
        assert!(message.contains("not UTF-8 at byte 2"), "{message}");
    };
    // SAFETY: living handles and terminated strings.
    unsafe {
        let bad = bad.as_ptr();
        told(
            made(sitter_model_free, |out, err| sitter_model_open(null(), bad, null(), null_mut(), out, err)).map(drop),
        );
        told(made(sitter_image_free, |out, err| sitter_image_open(bad, out, err)).map(drop));
        told(check(|err| sitter_image_save_png(studio.image.at, bad, err)));
        told(made(sitter_subject_free, |out, err| sitter_subject_load(bad, out, err)).map(drop));
        told(check(|err| sitter_subject_save(subject.at, bad, err)));
        told(check(|err| sitter_dataset_add(studio.dataset.at, studio.image.at, bad, err)));
        let model = studio.model.at;
        told(made(sitter_train_options_free, |out, err| sitter_train_options_new(model, bad, out, err)).map(drop));
        let mut out = null_mut();
        told(check(|err| sitter_tokens_sample(model, bad, null(), 0, null(), null_mut(), &mut out, 1, err)));
        let pictures = [studio.tokens.at.cast_const()];
        told(check(|err| sitter_tokens_score(model, bad, null(), 0, pictures.as_ptr(), 1, null_mut(), &mut 0.0, err)));
        told(check(|err| sitter_train_options_set_identifier(studio.train.at, bad, err)));
        let list = [good, good, bad];
        let result = check(|err| sitter_train_options_set_templates(studio.train.at, list.as_ptr(), 3, err));
        let message = fails(result, SITTER_E_INVALID_ARGUMENT);
        assert!(message.contains("templates[2]") && message.contains("byte 2"), "{message}");
        assert_eq!(sitter_has_feature(bad), 0);
    }
}

#[test]
fn vectors_come_in_two_calls_and_a_small_buffer_is_left_alone() {
    let studio = Studio::fake("steps=1");
    let images = [studio.image.at.cast_const(); 3];
    let dino = |count: usize, buffer: *mut f32, capacity: usize, needed: *mut usize| {
        check(|err| unsafe {
            let (at, run) = (studio.evaluator.at, null_mut());
            sitter_evaluator_dino(at, images.as_ptr(), count, run, buffer, capacity, needed, err)
        })
    };
    let (mut buffer, mut needed) = ([-7.0f32; 12], 0);
    dino(3, null_mut(), 0, &mut needed).unwrap();
    assert_eq!(needed, 12);
    fails(dino(3, buffer.as_mut_ptr(), 11, &mut needed), SITTER_E_BUFFER_TOO_SMALL);
    assert_eq!(buffer, [-7.0; 12]);
    dino(3, buffer.as_mut_ptr(), 12, null_mut()).unwrap();
    assert_eq!(buffer, [1.0; 12]);
    dino(0, buffer.as_mut_ptr(), 12, &mut needed).unwrap();
    assert_eq!(needed, 0);
    fails(dino(usize::MAX, buffer.as_mut_ptr(), 12, &mut needed), SITTER_E_INVALID_ARGUMENT);
    fails(dino(1, null_mut(), 12, &mut needed), SITTER_E_NULL_POINTER);
}

#[test]
fn an_evaluation_takes_known_roles_and_protocols_only() {
    let studio = Studio::fake("steps=1");
    let (at, image) = (studio.evaluation.at, studio.image.at);
    for role in [0, 5, -1, i32::MAX] {
        let add = |err| unsafe { sitter_evaluation_add_image(at, role, image, null(), err) };
        assert!(fails(check(add), SITTER_E_INVALID_ARGUMENT).contains("role"));
    }
    for (name, allowed) in [("A", true), ("D", true), ("E", false), ("b", false), ("", false)] {
        let name = c(name);
        let set = check(|err| unsafe { sitter_evaluation_set_protocol(at, name.as_ptr(), err) });
        assert_eq!(set.is_ok(), allowed, "{name:?}");
    }
    let scores = studio.measure(null_mut()).unwrap();
    assert_eq!((&scores["protocol"], &scores["pictures"]), (&"D".into(), &1.into()));
}

#[test]
#[cfg_attr(miri, ignore)]
fn leakage_says_how_far_the_class_has_gone_to_the_subject() {
    let subjects = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/subjects");
    let file = |name: &str| c(subjects.join(name).to_str().unwrap());
    let judge = evaluator(null(), golden("evaluate/dino").to_str().unwrap()).unwrap();
    for (drawn_of_the_class, share) in [("fox/1.png", 1.0), ("dog/1.png", 0.0)] {
        let evaluation = made(sitter_evaluation_free, |out, err| unsafe { sitter_evaluation_new(out, err) }).unwrap();
        for (role, name) in [
            (SITTER_ROLE_PICTURE, "fox/1.png"),
            (SITTER_ROLE_REFERENCE, "fox/1.png"),
            (SITTER_ROLE_CLASS_PICTURE, drawn_of_the_class),
            (SITTER_ROLE_UNTOUCHED, "dog/1.png"),
        ] {
            let add =
                |err| unsafe { sitter_evaluation_add_file(evaluation.at, role, file(name).as_ptr(), null(), err) };
            check(add).unwrap();
        }
        let found = scores(&judge, &evaluation, null_mut()).unwrap()["leakage"]["share"].as_f64().unwrap();
        assert!((found - share).abs() < 1e-6, "{found}");
    }
}
