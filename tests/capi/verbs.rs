//! The four verbs on the embedded model, with pictures and trainings as small as they may be.

use crate::events::check_events;
use crate::host::*;
use sitter::capi::image::*;
use sitter::capi::nouns::{sitter_image, sitter_sample_options, sitter_subject};
use sitter::capi::run::*;
use sitter::capi::setters::*;
use sitter::capi::status::*;
use sitter::capi::subject::*;
use std::cell::RefCell;
use std::path::Path;
use std::ptr::null_mut;
use std::sync::OnceLock;

/// The embedded model, set to draw 32x32 pixels and to train two steps per stage.
fn studio() -> &'static Studio {
    static STUDIO: OnceLock<Studio> = OnceLock::new();
    STUDIO.get_or_init(|| {
        let studio = Studio::embedded();
        draw_at(studio.sample.at, 32, 32);
        let at = studio.train.at;
        // SAFETY: a living handle.
        unsafe {
            check(|err| sitter_train_options_set_embedding_steps(at, 2, err)).unwrap();
            check(|err| sitter_train_options_set_layer_steps(at, 2, err)).unwrap();
            check(|err| sitter_train_options_set_augment(at, 1, err)).unwrap();
            check(|err| sitter_train_options_set_image_size(at, 32, err)).unwrap();
        }
        studio
    })
}

fn draw_at(options: *mut sitter_sample_options, width: u32, height: u32) {
    // SAFETY: a living handle.
    unsafe {
        check(|err| sitter_sample_options_set_width(options, width, err)).unwrap();
        check(|err| sitter_sample_options_set_height(options, height, err)).unwrap();
    }
}

fn seed(studio: &Studio, seed: u64) {
    check(|err| unsafe { sitter_sample_options_set_seed(studio.sample.at, seed, err) }).unwrap();
}

/// Another opening of the embedded model with options of its own, for tests that change them.
fn own_studio() -> Studio {
    let studio = Studio::embedded();
    draw_at(studio.sample.at, 32, 32);
    studio
}

fn subject() -> &'static Handle<sitter_subject> {
    static SUBJECT: OnceLock<Handle<sitter_subject>> = OnceLock::new();
    SUBJECT.get_or_init(|| {
        let events = RefCell::new(Vec::new());
        let run = Run::new(|event| {
            events.borrow_mut().push(*event);
            SITTER_CONTINUE
        });
        let subject = studio().train(run.at()).unwrap();
        drop(run);
        let events = events.into_inner();
        check_events(&events);
        let mut stages: Vec<i32> = events.iter().map(|e| e.stage).collect();
        stages.dedup();
        let class = [SITTER_STAGE_SAMPLE, SITTER_STAGE_PRIOR].repeat(2);
        assert_eq!(
            stages,
            [&[SITTER_STAGE_ENCODE], &class[..], &[SITTER_STAGE_EMBEDDING, SITTER_STAGE_LAYERS]].concat()
        );
        let learning = [SITTER_STAGE_EMBEDDING, SITTER_STAGE_LAYERS];
        let steps = events.iter().filter(|e| e.done > 0 && learning.contains(&e.stage));
        assert!(steps.clone().count() > 4 && steps.into_iter().all(|e| e.value > 0.0 && e.value < 20.0));
        subject
    })
}

fn save(subject: &Handle<sitter_subject>, path: &Path) -> Result<()> {
    let path = c(path.to_str().unwrap());
    check(|err| unsafe { sitter_subject_save(subject.at, path.as_ptr(), err) })
}

fn load(path: &Path) -> Result<Handle<sitter_subject>> {
    let path = c(path.to_str().unwrap());
    made(sitter_subject_free, |out, err| unsafe { sitter_subject_load(path.as_ptr(), out, err) })
}

#[test]
fn the_model_says_what_the_header_promises() {
    let _busy = busy();
    let info = model_info(&studio().model);
    for key in [
        "family",
        "name",
        "fingerprint",
        "parameters",
        "vocabulary",
        "codebook",
        "grid_unit_px",
        "device",
        "dtype",
        "can_decode",
        "sample_defaults",
    ] {
        assert!(info.get(key).is_some(), "{key} is missing from {info}");
    }
    assert_eq!(
        (&info["name"], &info["grid_unit_px"], &info["sample_defaults"]["width"]),
        (&"embedded:".into(), &16.into(), &128.into())
    );
}

#[test]
fn a_subject_is_taught_kept_in_a_file_and_drawn() {
    let _busy = busy();
    let info = subject_info(subject());
    for key in [
        "identifier",
        "class_word",
        "model",
        "method",
        "vectors",
        "changed_weights",
        "stored_numbers",
        "steps",
        "last_loss",
        "options",
    ] {
        assert!(info.get(key).is_some(), "{key} is missing from {info}");
    }
    assert_eq!((&info["steps"], &info["class_word"]), (&4.into(), &"fox".into()));
    assert_eq!(info["model"], model_info(&studio().model)["fingerprint"]);

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fox.safetensors");
    save(subject(), &file).unwrap();
    let loaded = load(&file).unwrap();
    assert_eq!(subject_info(&loaded), info);

    let prompt = "a photo of a [V] fox";
    let drawn = |subject| codes(&studio().sample_with(prompt, &[subject], null_mut()).unwrap()[0]);
    assert_eq!(drawn(&loaded), drawn(subject()), "a subject from its file draws the same");
    let score = |subject| studio().score_all(prompt, &[subject], &[&studio().tokens], null_mut()).unwrap();
    assert_eq!(score(&loaded), score(subject()));

    // A prompt that names a subject which is not there, and the same subject twice.
    let message = fails(
        studio().sample(null_mut()).and(studio().sample_with(prompt, &[], null_mut())),
        SITTER_E_INVALID_ARGUMENT,
    );
    assert!(message.contains("[V]"), "{message}");
    fails(studio().sample_with(prompt, &[&loaded, subject()], null_mut()), SITTER_E_INVALID_ARGUMENT);
}

#[test]
fn a_subject_of_another_model_is_refused() {
    let _busy = busy();
    let other = Studio::on(std::ptr::null(), golden("plain").to_str().unwrap(), 8, 2);
    draw_at(other.sample.at, 8, 8);
    let message = fails(other.sample_with("a [V] fox", &[subject()], null_mut()), SITTER_E_WRONG_MODEL);
    let fingerprint = model_info(&other.model)["fingerprint"].as_str().unwrap().to_owned();
    assert!(message.contains(&fingerprint), "{message}");
    fails(other.score_all("a [V] fox", &[subject()], &[&other.tokens], null_mut()), SITTER_E_WRONG_MODEL);
    // The fake model's subjects are of no model that is there.
    let fake = Studio::fake("steps=1").train(null_mut()).unwrap();
    fails(studio().sample_with("a [V] fox", &[&fake], null_mut()), SITTER_E_WRONG_MODEL);
}

#[test]
fn the_same_seed_draws_the_same_tokens_alone_and_in_a_batch() {
    let _busy = busy();
    let mut studio = own_studio();
    seed(&studio, 5);
    let one = codes(&studio.sample(null_mut()).unwrap()[0]);
    assert_eq!(codes(&studio.sample(null_mut()).unwrap()[0]), one);
    studio.count = 3;
    let three: Vec<_> = studio.sample(null_mut()).unwrap().iter().map(codes).collect();
    assert_eq!(three[0], one);
    assert!(three[1] != one && three[2] != one && three[1] != three[2]);
    studio.count = 1;
    seed(&studio, 6);
    assert_ne!(codes(&studio.sample(null_mut()).unwrap()[0]), one);
    assert!(one.len() == 16 && one.iter().all(|&code| code < 8192), "{one:?}");
}

#[test]
fn pictures_scored_together_score_as_they_do_alone() {
    let _busy = busy();
    let studio = studio();
    let small = tokens(&(0..16).collect::<Vec<u32>>(), 4, 4).unwrap();
    let wide = tokens(&(0..32).rev().collect::<Vec<u32>>(), 8, 4).unwrap();
    let all = [&small, &studio.tokens, &wide, &small];
    let together = studio.score_all("a photo of a fox", &[], &all, null_mut()).unwrap();
    for (picture, score) in all.iter().zip(&together) {
        let alone = studio.score_all("a photo of a fox", &[], &[picture], null_mut()).unwrap()[0];
        assert!((alone - score).abs() < 1e-4, "{alone} {score}");
    }
    assert_eq!(together[0], together[3]);
}

#[test]
fn tokens_that_the_model_does_not_have_are_refused() {
    let _busy = busy();
    let studio = studio();
    for code in [8192, u32::MAX] {
        let foreign = tokens(&[0, 1, 2, code], 2, 2).unwrap();
        let message = fails(studio.decode_tokens(&foreign, null_mut()), SITTER_E_INVALID_ARGUMENT);
        assert!(message.contains(&code.to_string()) && message.contains("8192"), "{message}");
        fails(studio.score_all("a fox", &[], &[&foreign], null_mut()), SITTER_E_INVALID_ARGUMENT);
    }
    // Grids that no picture of the model has, some of which would not fit into memory.
    for (width, height) in [(3, 2), (1, 1), (10_000, 10_000), (2, 40_000_000)] {
        let odd = tokens(&vec![0; width as usize * height as usize], width, height).unwrap();
        fails(studio.score_all("a fox", &[], &[&odd], null_mut()), SITTER_E_INVALID_ARGUMENT);
        if width * height > 1000 {
            fails(studio.decode_tokens(&odd, null_mut()), SITTER_E_INVALID_ARGUMENT);
        }
    }
}

#[test]
fn pictures_of_any_shape_become_tokens() {
    let _busy = busy();
    let studio = studio();
    let encode = |image: &Handle<sitter_image>, target: u32| {
        made(sitter::capi::tokens::sitter_tokens_free, |out, err| unsafe {
            sitter::capi::tokens::sitter_tokens_encode(studio.model.at, image.at, target, null_mut(), out, err)
        })
    };
    for (width, height) in [(1, 1), (20_000, 1), (1, 20_000), (95, 97), (16, 16), (400, 96)] {
        let grid = encode(&pattern(width, height), 0).unwrap();
        let picture = studio.decode_tokens(&grid, null_mut()).unwrap();
        let (mut w, mut h) = (0, 0);
        check(|err| unsafe { sitter_image_size(picture.at, &mut w, &mut h, err) }).unwrap();
        assert!(w > 0 && h > 0 && w % 16 == 0 && h % 16 == 0 && w <= 4 * h && h <= 4 * w, "{width}x{height}: {w}x{h}");
    }
    for target in [1, 17, 95, 5000, 1 << 31, u32::MAX] {
        fails(encode(&studio.image, target), SITTER_E_INVALID_ARGUMENT);
    }
    assert_eq!(codes(&encode(&studio.image, 64).unwrap()).len(), 64);
}

#[test]
fn impossible_drawings_are_refused_before_they_begin() {
    let _busy = busy();
    let studio = own_studio();
    for (width, height) in [(0, 32), (32, 0), (31, 32), (u32::MAX, u32::MAX), (1 << 20, 1 << 20), (16 * 255, 16)] {
        draw_at(studio.sample.at, width, height);
        let message = fails(studio.sample(null_mut()), SITTER_E_INVALID_ARGUMENT);
        assert!(message.contains("width") || message.contains("height"), "{message}");
    }
    draw_at(studio.sample.at, 32, 32);
    for prompt in ["", " \t", "a [nobody] fox"] {
        fails(studio.sample_with(prompt, &[], null_mut()), SITTER_E_INVALID_ARGUMENT);
    }
    let endless = "fox ".repeat(100_000);
    let message = fails(studio.sample_with(&endless, &[], null_mut()), SITTER_E_INVALID_ARGUMENT);
    assert!(message.contains("tokens") && message.len() < 1000, "{message}");
    fails(studio.score_all(&endless, &[], &[&studio.tokens], null_mut()), SITTER_E_INVALID_ARGUMENT);
    // Options that contradict each other are told when they meet.
    let train = train_options(&studio.model, None);
    let refused = |message: &str| {
        let result = made(sitter_subject_free, |out, err| unsafe {
            sitter_subject_train(studio.model.at, studio.dataset.at, train.at, null_mut(), out, err)
        });
        let found = fails(result, SITTER_E_INVALID_ARGUMENT);
        assert!(found.contains(message), "{found}");
    };
    // SAFETY: living handles.
    unsafe {
        check(|err| sitter_train_options_set_class_word(train.at, c"".as_ptr(), err)).unwrap();
        refused("class_word");
        check(|err| sitter_train_options_set_class_word(train.at, c"fox".as_ptr(), err)).unwrap();
        check(|err| sitter_train_options_set_image_size(train.at, u32::MAX, err)).unwrap();
        refused("image_size");
        check(|err| sitter_train_options_set_image_size(train.at, 32, err)).unwrap();
        check(|err| sitter_train_options_set_layers(train.at, [4_000_000_000].as_ptr(), 1, err)).unwrap();
        refused("layers");
    }
}

#[test]
fn a_drawn_picture_carries_what_made_it() {
    let _busy = busy();
    let studio = own_studio();
    seed(&studio, 41);
    let drawn = studio.sample(null_mut()).unwrap();
    let picture = studio.decode_tokens(&drawn[0], null_mut()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fox.png");
    let path = c(file.to_str().unwrap());
    check(|err| unsafe { sitter_image_save_png(picture.at, path.as_ptr(), err) }).unwrap();
    let text = sitter::picture::read_png_text(&file).unwrap();
    let [(key, json)] = &text[..] else { panic!("{text:?}") };
    let json: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!(key, "sitter");
    assert_eq!((&json["prompt"], &json["seed"], &json["width"]), (&"a photo of a fox".into(), &41.into(), &32.into()));
    assert_eq!(json["fingerprint"], model_info(&studio.model)["fingerprint"]);

    // The file holds the pixels, and a picture that nobody drew has no such text.
    let back = made(sitter_image_free, |out, err| unsafe { sitter_image_open(path.as_ptr(), out, err) }).unwrap();
    assert_eq!(rgb(&back), rgb(&picture));
    check(|err| unsafe { sitter_image_save_png(back.at, path.as_ptr(), err) }).unwrap();
    assert!(sitter::picture::read_png_text(&file).unwrap().is_empty());
}
