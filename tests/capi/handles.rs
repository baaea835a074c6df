//! Opaque handles: kinds, references, the end.

use crate::host::*;
use sitter::capi::dataset::*;
use sitter::capi::engine::*;
use sitter::capi::error::*;
use sitter::capi::image::*;
use sitter::capi::model::*;
use sitter::capi::nouns::{
    sitter_dataset, sitter_image, sitter_model, sitter_model_options, sitter_sample_options, sitter_subject,
    sitter_tokens, sitter_train_options,
};
use sitter::capi::options::*;
use sitter::capi::run::*;
use sitter::capi::status::*;
use sitter::capi::subject::*;
use sitter::capi::tokens::*;
use sitter::capi::version::*;
use std::ffi::{c_void, CStr};
use std::ptr::{null, null_mut};

type Use = Box<dyn Fn(*mut c_void) -> sitter_status>;
type Free = Box<dyn Fn(*mut c_void)>;

/// A noun: a handle of it, a function that wants one, and the function that frees one.
struct Kind {
    name: &'static str,
    at: *mut c_void,
    apply: Use,
    free: Free,
}

fn kinds() -> Vec<Kind> {
    macro_rules! kind {
        ($name:ident, $at:expr, $free:ident, |$h:ident, $err:ident| $call:expr) => {
            Kind {
                name: stringify!($name),
                at: $at.leak().cast(),
                apply: Box::new(|h| {
                    let $h = h.cast::<$name>();
                    status(&check(|$err| $call))
                }),
                free: Box::new(|h| $free(h.cast())),
            }
        };
    }
    // SAFETY, here and in the macro: living handles for the constructors; for the others, any pointer to 8 readable bytes,
    // which is what is tested.
    unsafe {
        let engine_options = made(sitter_engine_options_free, |out, err| sitter_engine_options_new(out, err)).unwrap();
        let model_options = made(sitter_model_options_free, |out, err| sitter_model_options_new(out, err)).unwrap();
        let fresh = Studio::fake("steps=1");
        let subject = fresh.train(null_mut()).unwrap();
        vec![
            kind!(sitter_engine, engine(1, 1), sitter_engine_free, |h, err| {
                sitter_engine_drain_log(h, null_mut(), 0, &mut 0, err)
            }),
            kind!(sitter_engine_options, engine_options, sitter_engine_options_free, |h, err| {
                sitter_engine_options_set_threads(h, 1, err)
            }),
            kind!(sitter_model_options, model_options, sitter_model_options_free, |h, err| {
                sitter_model_options_get_json(h, null_mut(), 0, &mut 0, err)
            }),
            kind!(sitter_sample_options, fresh.sample, sitter_sample_options_free, |h, err| {
                sitter_sample_options_get_json(h, null_mut(), 0, &mut 0, err)
            }),
            kind!(sitter_train_options, fresh.train, sitter_train_options_free, |h, err| {
                sitter_train_options_get_json(h, null_mut(), 0, &mut 0, err)
            }),
            kind!(sitter_model, fresh.model, sitter_model_free, |h, err| {
                sitter_model_info_json(h, null_mut(), 0, &mut 0, err)
            }),
            kind!(sitter_image, fresh.image, sitter_image_free, |h, err| { sitter_image_size(h, &mut 0, &mut 0, err) }),
            kind!(sitter_tokens, fresh.tokens, sitter_tokens_free, |h, err| {
                sitter_tokens_grid(h, &mut 0, &mut 0, err)
            }),
            kind!(sitter_dataset, fresh.dataset, sitter_dataset_free, |h, err| {
                sitter_dataset_count(h, &mut 0, err)
            }),
            kind!(sitter_subject, subject, sitter_subject_free, |h, err| {
                sitter_subject_info_json(h, null_mut(), 0, &mut 0, err)
            }),
            kind!(sitter_run, Run::silent().handle, sitter_run_free, |h, err| {
                sitter_run_set_callback(h, None, null_mut(), err)
            }),
        ]
    }
}

#[test]
fn a_handle_of_another_kind_is_told_and_never_freed_as_one() {
    let all = kinds();
    for kind in &all {
        assert_eq!((kind.apply)(null_mut()), SITTER_E_NULL_POINTER, "{}", kind.name);
        (kind.free)(null_mut());
        for other in &all {
            let expected = if kind.name == other.name { SITTER_OK } else { SITTER_E_WRONG_HANDLE };
            assert_eq!((kind.apply)(other.at), expected, "{} as {}", other.name, kind.name);
            if kind.name != other.name {
                (kind.free)(other.at);
            }
        }
        // Memory that never was a handle, and an address that none can have.
        let mut foreign = [0u64; 8];
        assert_eq!((kind.apply)(foreign.as_mut_ptr().cast()), SITTER_E_WRONG_HANDLE);
        assert_eq!((kind.apply)(foreign.as_mut_ptr().wrapping_byte_add(1).cast()), SITTER_E_WRONG_HANDLE);
        (kind.free)(foreign.as_mut_ptr().cast());
    }
    for kind in &all {
        assert_eq!((kind.apply)(kind.at), SITTER_OK, "{} was harmed", kind.name);
        (kind.free)(kind.at);
    }
}

#[test]
#[cfg_attr(miri, ignore = "looks at freed memory")]
fn a_freed_handle_is_told_where_that_can_be_seen() {
    // Freed memory is looked at here, which only the allocator's habits make harmless. What must not happen is success.
    for kind in kinds() {
        (kind.free)(kind.at);
        assert_eq!((kind.apply)(kind.at), SITTER_E_WRONG_HANDLE, "{}", kind.name);
    }
}

#[test]
fn an_object_lives_as_long_as_it_has_references() {
    let studio = Studio::fake("steps=1");
    let subject = studio.train(null_mut()).unwrap();
    // SAFETY: living handles; each reference is freed once.
    unsafe {
        for _ in 0..3 {
            assert_eq!(sitter_model_ref(studio.model.at), studio.model.at);
            assert_eq!(sitter_image_ref(studio.image.at), studio.image.at);
            assert_eq!(sitter_tokens_ref(studio.tokens.at), studio.tokens.at);
            assert_eq!(sitter_subject_ref(subject.at), subject.at);
        }
        for _ in 0..3 {
            sitter_model_free(studio.model.at);
            sitter_image_free(studio.image.at);
            sitter_tokens_free(studio.tokens.at);
            sitter_subject_free(subject.at);
            studio.still_works();
            assert_eq!(subject_info(&subject)["class_word"], "fox");
        }
        assert!(sitter_model_ref(null()).is_null() && sitter_image_ref(null()).is_null());
        assert!(sitter_tokens_ref(null()).is_null() && sitter_subject_ref(null()).is_null());
        // Another kind is no reference either.
        assert!(sitter_model_ref(studio.image.at.cast()).is_null());
    }
}

#[test]
fn children_keep_what_they_need_whatever_is_freed_first() {
    let studio = Studio::fake("steps=1");
    let drawn = studio.sample(null_mut()).unwrap();
    let subject = studio.train(null_mut()).unwrap();
    let picture = studio.decode_tokens(&drawn[0], null_mut()).unwrap();
    drop(studio);
    assert_eq!(codes(&drawn[0]).len(), 4);
    drop(drawn);
    assert_eq!(rgb(&picture).len(), 12);
    assert_eq!(subject_info(&subject)["class_word"], "fox");
}

#[test]
fn a_dataset_keeps_its_pictures_and_says_how_many_there_are() {
    let studio = Studio::fake("steps=1");
    let count = || {
        let mut count = 99;
        // SAFETY: a living handle.
        check(|err| unsafe { sitter_dataset_count(studio.dataset.at, &mut count, err) }).unwrap();
        count
    };
    assert_eq!(count(), 2);
    let caption = c("a photo of [V]");
    let extra = pattern(5, 5);
    // SAFETY: living handles.
    check(|err| unsafe { sitter_dataset_add(studio.dataset.at, extra.at, caption.as_ptr(), err) }).unwrap();
    drop(extra);
    assert_eq!(count(), 3);
    // Captions for some of the pictures only.
    let message = fails(studio.train(null_mut()), SITTER_E_INVALID_ARGUMENT);
    assert!(message.contains("captions"), "{message}");
    // An empty one.
    let empty = made(sitter_dataset_free, |out, err| unsafe { sitter_dataset_new(out, err) }).unwrap();
    let result = made(sitter_subject_free, |out, err| unsafe {
        sitter_subject_train(studio.model.at, empty.at, studio.train.at, null_mut(), out, err)
    });
    fails(result, SITTER_E_INVALID_ARGUMENT);
}

#[test]
fn error_texts_of_nothing_are_empty() {
    // SAFETY: NULL is allowed; a handle of another kind is told apart.
    unsafe {
        let other = pattern(1, 1);
        for error in [null(), other.at.cast_const().cast::<sitter_error>()] {
            assert_eq!(sitter_error_status(error), SITTER_OK);
            assert_eq!(CStr::from_ptr(sitter_error_message(error)), c"");
            assert_eq!(CStr::from_ptr(sitter_error_detail(error)), c"");
            sitter_error_free(error.cast_mut());
        }
    }
}

#[test]
fn a_failing_call_needs_no_place_for_its_error() {
    // SAFETY: NULL for every pointer is what is tested.
    unsafe {
        assert_eq!(sitter_model_info_json(null(), null_mut(), 0, null_mut(), null_mut()), SITTER_E_NULL_POINTER);
        assert_eq!(sitter_run_new(null_mut(), null_mut()), SITTER_E_NULL_POINTER);
        assert_eq!(sitter_require_abi(2, 0, null_mut()), SITTER_E_ABI_MISMATCH);
    }
}

#[test]
fn the_library_says_what_it_is() {
    // SAFETY: static texts.
    unsafe {
        assert_eq!(sitter_abi_version(), SITTER_ABI_MAJOR << 16 | SITTER_ABI_MINOR);
        check(|err| sitter_require_abi(SITTER_ABI_MAJOR, SITTER_ABI_MINOR, err)).unwrap();
        for (major, minor) in
            [(0, 0), (SITTER_ABI_MAJOR + 1, 0), (SITTER_ABI_MAJOR, SITTER_ABI_MINOR + 1), (u32::MAX, 0)]
        {
            let message = fails(check(|err| sitter_require_abi(major, minor, err)), SITTER_E_ABI_MISMATCH);
            assert!(message.contains(&format!("{major}.{minor}")), "{message}");
        }
        let text = |t| CStr::from_ptr(t).to_str().unwrap();
        assert_eq!(text(sitter_version_string()), env!("CARGO_PKG_VERSION"));
        let info: serde_json::Value = serde_json::from_str(text(sitter_build_info_json())).unwrap();
        assert_eq!(info["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(text(sitter_status_name(SITTER_E_CANCELLED)), "SITTER_E_CANCELLED");
        assert_eq!(text(sitter_status_name(-5)), "unknown status");
        assert_eq!(sitter_has_feature(c"embedded_model".as_ptr()), 1);
        assert_eq!(sitter_has_feature(c"time_travel".as_ptr()), 0);
        assert_eq!(sitter_has_feature(null()), 0);
    }
    // Miri knows no function that says how much memory there is.
    if !cfg!(miri) {
        let devices = json(|b, n, needed, err| unsafe { sitter_devices_json(b, n, needed, err) });
        let cpu = devices.as_array().unwrap().iter().find(|d| d["name"] == "cpu").unwrap();
        assert!(cpu["memory_free_bytes"].as_u64().unwrap() <= cpu["memory_bytes"].as_u64().unwrap(), "{cpu}");
    }
}
