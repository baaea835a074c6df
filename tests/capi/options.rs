//! Option objects: every setter takes what is allowed, refuses what is not, and can be read back.

use crate::host::*;
use serde_json::{json, Value};
use sitter::capi::engine::*;
use sitter::capi::error::sitter_error;
use sitter::capi::model::{sitter_model_free, sitter_model_open};
use sitter::capi::nouns::{
    sitter_evaluator_options, sitter_model_options, sitter_sample_options, sitter_train_options,
};
use sitter::capi::options::*;
use sitter::capi::setters::*;
use sitter::capi::status::*;
use std::collections::BTreeSet;
use std::ptr::{null, null_mut};

/// One call of a setter.
type Set = Box<dyn Fn(*mut *mut sitter_error) -> sitter_status>;

struct Setter {
    name: &'static str,
    field: &'static str,
    allowed: Vec<(Set, Value)>,
    refused: Vec<(Set, sitter_status)>,
}

/// `setter!(object, function, field; allowed: (arguments) => value, ...; refused: (arguments), ...)`
macro_rules! setter {
    ($at:expr, $name:ident, $field:literal;
     $(($($good:expr),*) => $value:expr),*; $(($($bad:expr),*)),*) => {
        Setter {
            name: stringify!($name),
            field: $field,
            // SAFETY: living handles, terminated strings, arrays of the length given.
            allowed: vec![$((Box::new(move |err| unsafe { $name($at, $($good),*, err) }) as Set, json!($value))),*],
            refused: vec![$((Box::new(move |err| unsafe { $name($at, $($bad),*, err) }) as Set, SITTER_E_INVALID_ARGUMENT)),*],
        }
    };
}

macro_rules! flag {
    ($at:expr, $name:ident, $field:literal) => {
        setter!($at, $name, $field; (1) => true, (0) => false; (2), (-1), (i32::MAX))
    };
}

fn evaluator_setters(at: *mut sitter_evaluator_options) -> Vec<Setter> {
    vec![
        setter!(at, sitter_evaluator_options_set_dino, "dino";
            (c"dino-vits16".as_ptr()) => "dino-vits16", (null()) => Value::Null; (c"\xff".as_ptr())),
        setter!(at, sitter_evaluator_options_set_clip, "clip";
            (c"/a/b".as_ptr()) => "/a/b", (null()) => Value::Null; (c"\xff".as_ptr())),
        setter!(at, sitter_evaluator_options_set_lpips, "lpips";
            (c"alex.pth".as_ptr()) => "alex.pth", (null()) => Value::Null; (c"\xff".as_ptr())),
    ]
}

fn model_setters(at: *mut sitter_model_options) -> Vec<Setter> {
    vec![
        setter!(at, sitter_model_options_set_device, "device";
            (c"cpu".as_ptr()) => "cpu", (c"cuda:3".as_ptr()) => "cuda:3", (c"auto".as_ptr()) => "auto";
            (c"tpu".as_ptr()), (c"".as_ptr()), (c"cuda:".as_ptr()), (c"cuda:-1".as_ptr()), (c"CPU ".as_ptr())),
        setter!(at, sitter_model_options_set_dtype, "dtype";
            (c"f32".as_ptr()) => "f32", (c"bf16".as_ptr()) => "bf16", (c"q8_0".as_ptr()) => "q8_0", (c"q4_k".as_ptr()) => "q4_k";
            (c"f8".as_ptr()), (c"".as_ptr())),
        flag!(at, sitter_model_options_set_keep_quantised, "keep_quantised"),
        setter!(at, sitter_model_options_set_text_encoder, "text_encoder";
            (c"keep".as_ptr()) => "keep", (c"unload".as_ptr()) => "unload", (c"auto".as_ptr()) => "auto";
            (c"Keep".as_ptr()), (c"".as_ptr())),
    ]
}

fn sample_setters(at: *mut sitter_sample_options) -> Vec<Setter> {
    let nan = f64::NAN;
    let numbers: &'static [f32] = &[4.0, 0.5];
    let broken: &'static [f32] = &[1.0, f32::NAN];
    vec![
        setter!(at, sitter_sample_options_set_guidance_by_scale, "guidance_by_scale";
            (numbers.as_ptr(), 2) => [4.0, 0.5], (null(), 0) => Vec::<f32>::new(); (broken.as_ptr(), 2)),
        setter!(at, sitter_sample_options_set_temperature_by_scale, "temperature_by_scale";
            (numbers.as_ptr(), 1) => [4.0], (null(), 0) => Vec::<f32>::new(); (broken.as_ptr(), 2)),
        setter!(at, sitter_sample_options_set_top_p, "top_p"; (0.5) => 0.5, (0.0) => 0.0, (1.0) => 1.0; (-0.1), (1.1), (nan)),
        setter!(at, sitter_sample_options_set_width, "width"; (64) => 64, (1 << 20) => 1 << 20; ),
        setter!(at, sitter_sample_options_set_height, "height"; (32) => 32; ),
        setter!(at, sitter_sample_options_set_guidance, "guidance";
            (1.0) => 1.0, (0.0) => 0.0, (2.5) => 2.5; (-0.1), (100.5), (1e300), (f64::INFINITY), (nan)),
        setter!(at, sitter_sample_options_set_top_k, "top_k"; (0) => 0, (u32::MAX) => u32::MAX; ),
        setter!(at, sitter_sample_options_set_temperature, "temperature";
            (0.5) => 0.5, (100.0) => 100.0; (0.0), (-1.0), (100.5), (nan), (-nan)),
        setter!(at, sitter_sample_options_set_seed, "seed"; (u64::MAX) => u64::MAX, (0) => 0; ),
        setter!(at, sitter_sample_options_set_decoding, "decoding";
            (c"speculative".as_ptr()) => "speculative",
            (c"speculative_distribution".as_ptr()) => "speculative_distribution",
            (c"sequential".as_ptr()) => "sequential"; (c"Sequential".as_ptr()), (c"".as_ptr())),
        setter!(at, sitter_sample_options_set_window, "window"; (2) => 2, (256) => 256, (0) => 0; (1), (257), (u32::MAX)),
    ]
}

fn train_setters(at: *mut sitter_train_options) -> Vec<Setter> {
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    let long = "x".repeat(65);
    let long = Box::leak(c(&long).into_boxed_c_str()).as_ptr();
    let numbers: &'static [f32] = &[0.5, -0.25];
    let broken: &'static [f32] = &[0.5, f32::NAN];
    let weights: &'static [f32] = &[1.0, 0.5];
    let layers: &'static [u32] = &[1, 3];
    let templates = Box::leak(Box::new([c"a {} b".as_ptr(), c"{}".as_ptr()])).as_ptr();
    let bare = Box::leak(Box::new([c"no place".as_ptr()])).as_ptr();
    let twice = Box::leak(Box::new([c"{} and {}".as_ptr()])).as_ptr();
    vec![
        setter!(at, sitter_train_options_set_identifier, "identifier";
            (c"sks".as_ptr()) => "sks", (c"[Ä]".as_ptr()) => "[Ä]"; (c"".as_ptr()), (c"a b".as_ptr()), (c"a\n".as_ptr()), (long)),
        setter!(at, sitter_train_options_set_class_word, "class_word"; (c"toy car".as_ptr()) => "toy car", (c"".as_ptr()) => ""; ),
        flag!(at, sitter_train_options_set_use_class_word, "use_class_word"),
        setter!(at, sitter_train_options_set_embedding_steps, "embedding_steps"; (0) => 0, (1_000_000) => 1_000_000; (1_000_001), (u32::MAX)),
        setter!(at, sitter_train_options_set_embedding_learning_rate, "embedding_learning_rate"; (0.125) => 0.125; (-1.0), (10.5), (nan), (inf)),
        setter!(at, sitter_train_options_set_embedding_vectors, "embedding_vectors"; (1) => 1, (64) => 64; (0), (65)),
        setter!(at, sitter_train_options_set_initial_embedding, "initial_embedding";
            (numbers.as_ptr(), 2) => [0.5, -0.25], (null(), 0) => null_value(); (broken.as_ptr(), 2)),
        setter!(at, sitter_train_options_set_initial_word, "initial_word"; (c"dog".as_ptr()) => "dog", (null()) => null_value(); (c" ".as_ptr()), (c"".as_ptr())),
        setter!(at, sitter_train_options_set_layer_steps, "layer_steps"; (7) => 7; (1_000_001)),
        setter!(at, sitter_train_options_set_layer_learning_rate, "layer_learning_rate"; (0.5) => 0.5; (-1e-9), (11.0), (nan)),
        setter!(at, sitter_train_options_set_trainable, "trainable";
            (c"all".as_ptr()) => "all", (c"mlp".as_ptr()) => "mlp", (c"attention".as_ptr()) => "attention", (c"lora".as_ptr()) => "lora", (c"*.o_proj.weight,mlp".as_ptr()) => "*.o_proj.weight,mlp",
            (c"qkv".as_ptr()) => "qkv";
            (c"QKV".as_ptr()), (c"".as_ptr())),
        flag!(at, sitter_train_options_set_keep_gradients, "keep_gradients"),
        flag!(at, sitter_train_options_set_master_weights, "master_weights"),
        setter!(at, sitter_train_options_set_optimizer_state, "optimizer_state";
            (c"f32".as_ptr()) => "f32", (c"bf16".as_ptr()) => "bf16", (c"int8".as_ptr()) => "int8";
            (c"INT8".as_ptr()), (c"".as_ptr())),
        setter!(at, sitter_train_options_set_optimizer_device, "optimizer_device";
            (c"device".as_ptr()) => "device", (c"host".as_ptr()) => "host", (c"auto".as_ptr()) => "auto"; (c"gpu".as_ptr()), (c"".as_ptr())),
        setter!(at, sitter_train_options_set_recompute, "recompute";
            (c"auto".as_ptr()) => "auto", (c"always".as_ptr()) => "always", (c"never".as_ptr()) => "never";
            (c"sometimes".as_ptr()), (c"".as_ptr())),
        setter!(at, sitter_train_options_set_adaptation, "adaptation";
            (c"low_rank".as_ptr()) => "low_rank", (c"full".as_ptr()) => "full"; (c"lora".as_ptr()), (c"".as_ptr())),
        setter!(at, sitter_train_options_set_lora_rank, "lora_rank"; (1024) => 1024; (0), (1025)),
        setter!(at, sitter_train_options_set_lora_alpha, "lora_alpha"; (32.0) => 32.0; (-1.0), (10_001.0), (nan)),
        setter!(at, sitter_train_options_set_layer_stride, "layer_stride"; (4) => 4; (0), (1001)),
        setter!(at, sitter_train_options_set_layers, "layers"; (layers.as_ptr(), 2) => [1, 3], (null(), 0) => Vec::<u32>::new(); ),
        flag!(at, sitter_train_options_set_train_embedding_in_layer_stage, "train_embedding_in_layer_stage"),
        setter!(at, sitter_train_options_set_batch_size, "batch_size"; (256) => 256; (0), (257)),
        setter!(at, sitter_train_options_set_accumulation, "accumulation"; (2) => 2; (0), (257)),
        setter!(at, sitter_train_options_set_weight_decay, "weight_decay"; (0.25) => 0.25; (-0.5), (10.5), (nan)),
        setter!(at, sitter_train_options_set_beta1, "beta1"; (0.5) => 0.5; (1.0), (-0.1), (nan)),
        setter!(at, sitter_train_options_set_beta2, "beta2"; (0.0) => 0.0; (1.0), (nan)),
        setter!(at, sitter_train_options_set_clip_norm, "clip_norm"; (0.0) => 0.0, (2.0) => 2.0; (-1.0), (2e9), (nan)),
        setter!(at, sitter_train_options_set_z_loss, "z_loss"; (1.0) => 1.0; (1.5), (-0.5), (nan)),
        setter!(at, sitter_train_options_set_dropout, "dropout"; (0.25) => 0.25; (1.0), (0.999_999_999_9), (nan)),
        setter!(at, sitter_train_options_set_guidance_dropout, "guidance_dropout"; (1.0) => 1.0; (1.25), (-0.25), (nan)),
        setter!(at, sitter_train_options_set_warmup_steps, "warmup_steps"; (9) => 9; ),
        setter!(at, sitter_train_options_set_cooldown_steps, "cooldown_steps"; (9) => 9; ),
        flag!(at, sitter_train_options_set_per_image_tokens, "per_image_tokens"),
        setter!(at, sitter_train_options_set_templates, "templates";
            (templates, 2) => ["a {} b", "{}"], (null(), 0) => Vec::<u32>::new(); (bare, 1), (twice, 1)),
        setter!(at, sitter_train_options_set_image_size, "image_size"; (512) => 512; ),
        flag!(at, sitter_train_options_set_random_crop, "random_crop"),
        flag!(at, sitter_train_options_set_flip, "flip"),
        setter!(at, sitter_train_options_set_augment, "augment"; (1000) => 1000; (1001)),
        flag!(at, sitter_train_options_set_augment_aligned, "augment_aligned"),
        flag!(at, sitter_train_options_set_masked_training, "masked_training"),
        setter!(at, sitter_train_options_set_prior_weight, "prior_weight"; (0.5) => 0.5; (-1.0), (101.0), (nan)),
        setter!(at, sitter_train_options_set_prior_count, "prior_count"; (10_000) => 10_000; (0), (10_001)),
        setter!(at, sitter_train_options_set_initial_noise, "initial_noise"; (0.0) => 0.0, (0.5) => 0.5; (-0.1), (10.5), (nan)),
        flag!(at, sitter_train_options_set_prior_distillation, "prior_distillation"),
        setter!(at, sitter_train_options_set_teacher, "teacher";
            (c"reference".as_ptr()) => "reference", (c"correct".as_ptr()) => "correct"; (c"Correct".as_ptr()), (c"".as_ptr())),
        setter!(at, sitter_train_options_set_scale_weights, "scale_weights";
            (weights.as_ptr(), 2) => [1.0, 0.5], (null(), 0) => Vec::<f32>::new(); (numbers.as_ptr(), 2), (broken.as_ptr(), 2)),
        setter!(at, sitter_train_options_set_self_correction, "self_correction"; (0.25) => 0.25; (-0.1), (1.1), (nan)),
        setter!(at, sitter_train_options_set_sample_every, "sample_every"; (7) => 7, (0) => 0; (1_000_001)),
        setter!(at, sitter_train_options_set_sample_prompt, "sample_prompt"; (c"a [V] dog".as_ptr()) => "a [V] dog", (null()) => null_value(); (c" ".as_ptr()), (c"".as_ptr())),
        setter!(at, sitter_train_options_set_early_stop, "early_stop"; (5) => 5; ),
        setter!(at, sitter_train_options_set_checkpoint_every, "checkpoint_every"; (3) => 3; ),
        setter!(at, sitter_train_options_set_checkpoint_path, "checkpoint_path"; (c"/x/y".as_ptr()) => "/x/y", (null()) => null_value(); ),
        setter!(at, sitter_train_options_set_seed, "seed"; (u64::MAX) => u64::MAX; ),
    ]
}

fn null_value() -> Value {
    Value::Null
}

/// Every setter with every value: what is allowed is read back, what is not leaves everything as it was.
fn check_setters(setters: &[Setter], read: impl Fn() -> Value) {
    for Setter { name, field, allowed, refused } in setters {
        assert!(read().get(field).is_some(), "{name}: {field} cannot be read back");
        for (set, value) in allowed {
            check(set).unwrap_or_else(|f| panic!("{name}: {f:?}"));
            assert_eq!(&read()[field], value, "{name}");
        }
        let before = read();
        for (set, expected) in refused {
            let message = fails(check(set), *expected);
            assert!(message.contains(field), "{name} does not name the field: {message}");
            assert_eq!(read(), before, "{name} was refused and changed something");
        }
    }
}

#[test]
fn each_setter_takes_what_is_allowed_and_leaves_the_old_value_otherwise() {
    // SAFETY: living handles.
    unsafe {
        let evaluator = made(sitter_evaluator_options_free, |out, err| sitter_evaluator_options_new(out, err)).unwrap();
        check_setters(&evaluator_setters(evaluator.at), || {
            json(|b, n, needed, err| sitter_evaluator_options_get_json(evaluator.at, b, n, needed, err))
        });
        let model = made(sitter_model_options_free, |out, err| sitter_model_options_new(out, err)).unwrap();
        check_setters(&model_setters(model.at), || {
            json(|b, n, needed, err| sitter_model_options_get_json(model.at, b, n, needed, err))
        });
        let sample = made(sitter_sample_options_free, |out, err| sitter_sample_options_new(null(), out, err)).unwrap();
        check_setters(&sample_setters(sample.at), || {
            json(|b, n, needed, err| sitter_sample_options_get_json(sample.at, b, n, needed, err))
        });
        let train =
            made(sitter_train_options_free, |out, err| sitter_train_options_new(null(), null(), out, err)).unwrap();
        check_setters(&train_setters(train.at), || {
            json(|b, n, needed, err| sitter_train_options_get_json(train.at, b, n, needed, err))
        });
    }
}

#[test]
fn options_of_a_folder_are_those_of_its_model_without_opening_it() {
    let (path, lora) = (c("embedded:"), c("lora"));
    // SAFETY: living handles, terminated strings.
    unsafe {
        let model =
            made(sitter_model_free, |out, err| sitter_model_open(null(), path.as_ptr(), null(), null_mut(), out, err))
                .unwrap();
        let sample = |options: Result<Handle<sitter_sample_options>>| {
            let options = options.unwrap();
            json(|b, n, needed, err| sitter_sample_options_get_json(options.at, b, n, needed, err))
        };
        let free = sitter_sample_options_free;
        let of_folder = sample(made(free, |out, err| sitter_sample_options_for_folder(path.as_ptr(), out, err)));
        assert_eq!(of_folder, sample(made(free, |out, err| sitter_sample_options_new(model.at, out, err))));
        assert_ne!(of_folder, sample(made(free, |out, err| sitter_sample_options_new(null(), out, err))));

        let train = |options: Result<Handle<sitter_train_options>>| {
            let options = options.unwrap();
            json(|b, n, needed, err| sitter_train_options_get_json(options.at, b, n, needed, err))
        };
        let free = sitter_train_options_free;
        let method = lora.as_ptr();
        let of_folder = train(made(free, |out, err| sitter_train_options_for_folder(path.as_ptr(), method, out, err)));
        assert_eq!(of_folder, train(made(free, |out, err| sitter_train_options_new(model.at, method, out, err))));
        assert_ne!(of_folder, train(made(free, |out, err| sitter_train_options_new(null(), method, out, err))));

        let nowhere = c("nowhere");
        let missing = made(free, |out, err| sitter_train_options_for_folder(nowhere.as_ptr(), null(), out, err));
        fails(missing, SITTER_E_NOT_FOUND);
    }
}

#[test]
fn every_setter_of_the_header_is_in_these_tables() {
    let header = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/include/sitter.h")).unwrap();
    let words = header.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let declared: BTreeSet<&str> = words.filter(|w| w.contains("_options_set_")).collect();
    let engine = [
        "sitter_engine_options_set_threads",
        "sitter_engine_options_set_max_jobs",
        "sitter_engine_options_set_log_level",
        "sitter_engine_options_set_log",
    ];
    let tables = [
        evaluator_setters(null_mut()),
        model_setters(null_mut()),
        sample_setters(null_mut()),
        train_setters(null_mut()),
    ];
    let tested: BTreeSet<&str> = tables.iter().flatten().map(|s| s.name).chain(engine).collect();
    assert_eq!(declared, tested);
    // Each refuses NULL in place of its object.
    for Setter { name, allowed, .. } in tables.iter().flatten() {
        for (set, _) in allowed {
            assert_eq!(check(set).unwrap_err().status, SITTER_E_NULL_POINTER, "{name}");
        }
    }
}

#[test]
fn engine_options_refuse_what_is_out_of_range() {
    // SAFETY: living handles.
    unsafe {
        let options = made(sitter_engine_options_free, |out, err| sitter_engine_options_new(out, err)).unwrap();
        let at = options.at;
        for threads in [0, 1, 1024] {
            check(|err| sitter_engine_options_set_threads(at, threads, err)).unwrap();
        }
        fails(check(|err| sitter_engine_options_set_threads(at, 1025, err)), SITTER_E_INVALID_ARGUMENT);
        for jobs in [0, 65, u32::MAX] {
            fails(check(|err| sitter_engine_options_set_max_jobs(at, jobs, err)), SITTER_E_INVALID_ARGUMENT);
        }
        for level in [-1, 5, i32::MAX] {
            fails(check(|err| sitter_engine_options_set_log_level(at, level, err)), SITTER_E_INVALID_ARGUMENT);
        }
        fails(check(|err| sitter_engine_options_set_threads(null_mut(), 1, err)), SITTER_E_NULL_POINTER);
    }
}

#[test]
fn the_methods_are_presets_and_models_recommend() {
    let studio = Studio::fake("steps=1");
    let read = |method: Option<&str>| {
        let options = train_options(&studio.model, method);
        json(|b, n, needed, err| unsafe { sitter_train_options_get_json(options.at, b, n, needed, err) })
    };
    assert_eq!(read(None), read(Some("two_stage")));
    // The fake model's own recommendation.
    assert_eq!(read(None)["image_size"], 16);
    assert_eq!(read(Some("textual_inversion"))["layer_steps"], 0);
    assert_eq!(read(Some("dreambooth"))["embedding_steps"], 0);
    let lora = read(Some("lora"));
    assert_eq!((&lora["trainable"], &lora["adaptation"]), (&"qkv".into(), &"low_rank".into()));
    let unknown = made(sitter_train_options_free, |out, err| unsafe {
        sitter_train_options_new(studio.model.at, c"hypernetwork".as_ptr(), out, err)
    });
    let message = fails(unknown, SITTER_E_INVALID_ARGUMENT);
    assert!(message.contains("hypernetwork") && message.contains("lora"), "{message}");
}

#[test]
fn a_device_that_is_not_there_is_told_when_a_model_is_opened_on_it() {
    // SAFETY: living handles.
    let result = unsafe {
        let options = made(sitter_model_options_free, |out, err| sitter_model_options_new(out, err)).unwrap();
        check(|err| sitter_model_options_set_device(options.at, c"cuda:63".as_ptr(), err)).unwrap();
        let path = c"embedded:".as_ptr();
        made(sitter_model_free, |out, err| sitter_model_open(null(), path, options.at, null_mut(), out, err))
    };
    let status = status(&result);
    assert!([SITTER_E_DEVICE, SITTER_E_NOT_SUPPORTED].contains(&status), "{status}");
}
