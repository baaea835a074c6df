//! The subject file: what is kept, and what happens to files that are not what they should be.

use candle_core::{DType, Device, Tensor};
use sitter::model::personalized::Personalized;
use sitter::model::subject::{LossRecord, Subject};
use sitter::model::{Model, OpenOptions};
use sitter::personalize::{Dataset, Method, Options, Trainable};
use sitter::run::Run;
use sitter::tokens::Tokens;
use sitter::weights::Change;
use sitter::{sample, Error};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn open(name: &str) -> Model {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let options =
        OpenOptions { device: "cpu".into(), dtype: "f32".into(), keep_quantised: false, ..Default::default() };
    Model::open(folder, &options, &mut Run::new()).unwrap()
}

fn tensor(dims: &[usize], dtype: DType) -> Tensor {
    let n = dims.iter().product::<usize>();
    let values: Vec<f32> = (0..n).map(|i| (i as f32 * 0.37).sin() * 0.25).collect();
    Tensor::from_vec(values, dims, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}

fn subject(model: &Model) -> Subject {
    let changes = [
        ("model.layers.0.self_attn.q_proj.weight", Change::Delta(tensor(&[32, 32], DType::BF16))),
        ("model.layers.1.input_layernorm.weight", Change::Delta(tensor(&[32], DType::F32))),
        (
            "model.layers.1.self_attn.v_proj.weight",
            Change::LowRank { down: tensor(&[2, 32], DType::F32), up: tensor(&[32, 2], DType::F32) },
        ),
    ];
    Subject {
        identifier: "[V]".into(),
        class_word: "dog".into(),
        vectors: tensor(&[2, 32], DType::F32),
        changes: changes.into_iter().map(|(n, c)| (n.to_string(), c)).collect(),
        model: model.fingerprint().into(),
        licence: Some("a licence".into()),
        method: "two_stage".into(),
        options: serde_json::json!({"layer_steps": 7, "templates": ["ein Bild von {} \u{1f98a}"]}),
        losses: vec![
            LossRecord { stage: "embedding".into(), step: 0, loss: 0.1 },
            LossRecord { stage: "layers".into(), step: 3, loss: 7.000_000_5 },
        ],
    }
}

fn numbers(t: &Tensor) -> Vec<f32> {
    t.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn score(model: &Model, subject: &Subject) -> f32 {
    let tokens = Tokens::new(4, 4, (0..16).collect()).unwrap();
    Personalized::new(model, &[subject]).unwrap().score("a photo of a [V] dog", &[tokens], &mut Run::new()).unwrap()[0]
}

#[test]
fn a_saved_subject_comes_back_whole_and_the_same_bytes_are_written_again() {
    let model = open("plain");
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("a.safetensors"), folder.path().join("b.safetensors"));
    let before = subject(&model);
    before.save(&first).unwrap();
    let after = Subject::load(&first).unwrap();
    assert_eq!(numbers(&before.vectors), numbers(&after.vectors));
    assert_eq!(
        (&before.identifier, &before.class_word, &before.model, &before.licence),
        (&after.identifier, &after.class_word, &after.model, &after.licence)
    );
    assert_eq!((&before.method, &before.options, &before.losses), (&after.method, &after.options, &after.losses));
    assert_eq!(before.changes.len(), after.changes.len());
    match &after.changes["model.layers.0.self_attn.q_proj.weight"] {
        Change::Delta(d) => assert_eq!((d.dtype(), d.dims()), (DType::BF16, &[32, 32][..])),
        other => panic!("{other:?}"),
    }
    assert_eq!(score(&model, &before), score(&model, &after));
    assert_ne!(score(&model, &after), score(&model, &after.without_layers()));

    let info = after.info();
    assert_eq!((info.vectors, info.changed_weights, info.stored_numbers), (2, 3, 32 * 32 + 32 + 2 * 64));
    assert_eq!((info.steps, info.last_loss), (2, Some(7.000_000_5)));
    assert_eq!(info.licence.as_deref(), Some("a licence"));

    after.save(&second).unwrap();
    assert_eq!(std::fs::read(&first).unwrap(), std::fs::read(&second).unwrap());
    // Nothing else is left in the folder.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn only_what_changed_is_stored() {
    let model = open("plain");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vectors.safetensors");
    subject(&model).without_layers().save(&path).unwrap();
    assert!(std::fs::metadata(&path).unwrap().len() < 2000);
    assert!(Subject::load(&path).unwrap().changes.is_empty());
}

#[test]
fn a_failed_save_leaves_the_older_file() {
    let model = open("plain");
    let folder = tempfile::tempdir().unwrap();
    let error = subject(&model).save(folder.path().join("nowhere/a.safetensors")).unwrap_err();
    assert!(matches!(&error, Error::NotFound { message, .. } if message.contains("folder")), "{error}");
    assert!(subject(&model).save("/").is_err());
    // A folder of that name cannot be replaced, and no temporary file stays.
    let taken = folder.path().join("taken");
    std::fs::create_dir(&taken).unwrap();
    std::fs::write(taken.join("x"), "x").unwrap();
    assert!(subject(&model).save(&taken).is_err());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[cfg(unix)]
#[test]
fn a_saved_file_is_as_readable_as_any_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let (plain, saved) = (folder.path().join("plain"), folder.path().join("s.safetensors"));
    std::fs::write(&plain, "").unwrap();
    subject(&open("plain")).save(&saved).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions();
    assert_eq!(mode(&saved), mode(&plain));
}

#[test]
fn another_model_refuses_it_and_both_are_named() {
    let (plain, grouped) = (open("plain"), open("grouped"));
    let subject = subject(&plain);
    let error = Personalized::new(&grouped, &[&subject]).err().unwrap();
    assert!(matches!(error, Error::WrongModel { .. }));
    let error = error.to_string();
    assert!(error.contains(plain.fingerprint()) && error.contains(grouped.fingerprint()), "{error}");
    assert!(error.contains(grouped.name()), "{error}");
}

#[test]
fn a_flipped_bit_is_refused_with_the_name_of_the_file_and_the_tensor() {
    let model = open("plain");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.safetensors");
    subject(&model).save(&path).unwrap();
    let sound = std::fs::read(&path).unwrap();
    let data = 8 + u64::from_le_bytes(sound[..8].try_into().unwrap()) as usize;
    let text = sound.windows(9).position(|bytes| bytes == b"two_stage").unwrap();
    for (at, named) in [(data, "input_layernorm"), (sound.len() - 1, "q_proj"), (text, "header")] {
        let mut bytes = sound.clone();
        bytes[at] ^= 2;
        std::fs::write(&path, &bytes).unwrap();
        let error = Subject::load(&path).unwrap_err().to_string();
        assert!(error.contains("damaged.safetensors") && error.contains(named), "{error}");
    }
}

#[test]
fn truncated_and_foreign_files_are_refused_by_name() {
    let model = open("plain");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("subject.safetensors");
    subject(&model).save(&path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let refused = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let error = Subject::load(&path).unwrap_err().to_string();
        assert!(error.starts_with(path.to_str().unwrap()), "{error}");
        error
    };
    for length in [0, 4, 8, 100, whole.len() / 2, whole.len() - 1] {
        refused(&whole[..length]);
    }
    refused(&[&whole[..], b"more"].concat());
    refused(b"<!DOCTYPE html><html></html>");
    let model_file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/plain/model.safetensors");
    let error = refused(&std::fs::read(model_file).unwrap());
    assert!(error.contains("not a subject"), "{error}");
    let missing = Subject::load(folder.path().join("missing")).unwrap_err();
    assert!(matches!(missing, Error::NotFound { .. }), "{missing}");
    assert!(missing.to_string().contains("a subject") && !missing.to_string().contains("model"), "{missing}");
    let empty = refused(b"");
    assert!(empty.contains("empty (0 bytes)") && empty.contains("not a subject"), "{empty}");
}

/// The file with other tensors and another header.
fn forged(path: &Path, header: &str, tensors: &[(&str, Tensor)]) {
    let tensors: BTreeMap<String, Tensor> = tensors.iter().map(|(n, t)| (n.to_string(), t.clone())).collect();
    let info = [("sitter_subject".to_string(), header.to_string())].into();
    safetensors::serialize_to_file(&tensors, Some(info), path).unwrap();
}

#[test]
fn files_from_the_future_and_files_that_contradict_themselves_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("subject.safetensors");
    let good = r#"{"version": 1, "identifier": "[V]", "class_word": "dog", "model": "x", "method": "m", "options": {}, "losses": []}"#;
    let f32s = |dims: &[usize]| tensor(dims, DType::F32);
    let vectors = ("vectors", f32s(&[1, 32]));
    let refused = |header: &str, tensors: &[(&str, Tensor)], word: &str| {
        forged(&path, header, tensors);
        let error = Subject::load(&path).unwrap_err().to_string();
        assert!(error.starts_with(path.to_str().unwrap()) && error.contains(word), "{word}: {error}");
    };
    forged(&path, good, std::slice::from_ref(&vectors));
    Subject::load(&path).unwrap();

    let one = std::slice::from_ref(&vectors);
    refused(&good.replace("\"version\": 1", "\"version\": 2"), one, "version 2");
    refused(&good.replace("\"version\": 1", "\"version\": \"x\""), one, "which version");
    refused(&good.replace("\"model\"", "\"modem\""), one, "model");
    for identifier in ["", "two words", " ", "tab\\tbed", "line\\nbreak", "\\u0007", "\u{2003}", &"x".repeat(65)] {
        refused(&good.replace("[V]", identifier), one, "identifier");
    }
    refused(&good.replace("\"dog\"", "\"d\\u001bog\""), one, "class word");
    refused(&good.replace("\"dog\"", &format!("\"{}\"", "dog ".repeat(300))), one, "class word");
    refused("[", one, "header");
    refused(good, &[("vektors", f32s(&[1, 32]))], "vectors is missing");
    refused(good, &[("vectors", f32s(&[32]))], "[vectors, hidden]");
    refused(good, &[vectors.clone(), ("other", f32s(&[1]))], "other has no place");
    refused(good, &[vectors.clone(), ("down.w", f32s(&[2, 4]))], "up.w is missing");
    refused(good, &[vectors.clone(), ("up.w", f32s(&[2, 4]))], "down.w is missing");
    refused(good, &[vectors.clone(), ("down.w", f32s(&[2, 4])), ("up.w", f32s(&[4, 3]))], "does not fit");
    refused(good, &[vectors.clone(), ("delta.w", (f32s(&[2]) * f64::NAN).unwrap())], "delta.w");
    refused(good, &[("vectors", Tensor::new(&[[1u32]], &Device::Cpu).unwrap())], "vectors");
}

#[test]
fn subjects_that_a_prompt_does_not_name_are_told() {
    let model = open("plain");
    let other = Subject { identifier: "[W]".into(), ..subject(&model) };
    let view = Personalized::new(&model, &[&subject(&model), &other]).unwrap();
    assert_eq!(view.unnamed("a photo of a [V] dog"), ["[W]"]);
    assert_eq!(view.unnamed("a photo of a dog"), ["[V]", "[W]"]);
    assert!(view.unnamed("[W] and [V]").is_empty());
}

#[test]
fn subjects_with_numbers_that_overflow_are_a_typed_error() {
    let model = open("plain");
    let tokens = Tokens::new(4, 4, (0..16).collect()).unwrap();
    let huge = || Change::Delta((tensor(&[32, 32], DType::F32) * 1e38).unwrap());
    let weights = ["v_proj", "o_proj"].map(|name| (format!("model.layers.1.self_attn.{name}.weight"), huge()));
    let huge = Subject { changes: BTreeMap::from(weights), ..subject(&model) };
    let view = Personalized::new(&model, &[&huge]).unwrap();
    let error = view.score("a photo of a [V] dog", &[tokens], &mut Run::new()).unwrap_err();
    assert!(matches!(error, Error::Overflow { .. }), "{error}");
}

#[test]
fn changes_that_do_not_fit_the_model_are_refused() {
    let model = open("plain");
    let with = |name: &str, change: Change| {
        let changes = BTreeMap::from([(name.to_string(), change)]);
        let error = Personalized::new(&model, &[&Subject { changes, ..subject(&model) }]).err().unwrap().to_string();
        assert!(error.starts_with("subject"), "{error}");
        error
    };
    let error = with("model.layers.0.self_attn.q_proj.weight", Change::Delta(tensor(&[32], DType::F32)));
    assert!(error.contains("[32]") && error.contains("[32, 32]"), "{error}");
    with("model.layers.9.self_attn.q_proj.weight", Change::Delta(tensor(&[32, 32], DType::F32)));
    let narrow = Subject { vectors: tensor(&[1, 16], DType::F32), ..subject(&model) };
    let error = Personalized::new(&model, &[&narrow]).err().unwrap().to_string();
    assert!(error.starts_with("subject") && error.contains("16"), "{error}");
}

// What version 0.1.0 made, see tools/golden/subjects.py.

fn made_before() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/subjects")
}

/// As that script has them.
fn way(name: &str) -> Options {
    let (method, embedding_steps, layer_steps) = match name {
        "two_stage" => (Method::TwoStage, 6, 8),
        "lora" => (Method::Lora, 6, 8),
        _ => (Method::Dreambooth, 0, 6),
    };
    let all = name == "all";
    let preset = Options::new(method);
    Options {
        class_word: "dog".into(),
        embedding_steps,
        layer_steps,
        trainable: if all { Trainable::ALL } else { preset.trainable.clone() },
        prior_weight: if all { 0.5 } else { 0.0 },
        prior_count: if all { 2 } else { 32 },
        image_size: 16,
        batch_size: 3,
        embedding_learning_rate: 0.05,
        layer_learning_rate: 3e-3,
        lora_rank: 4,
        seed: 5,
        dropout: 0.1,
        ..preset
    }
}

#[test]
fn subjects_of_version_0_1_draw_the_same_codes_as_then() {
    let model = open("plain");
    let text = std::fs::read_to_string(made_before().join("drawn.json")).unwrap();
    let drawn: BTreeMap<String, Vec<Vec<u32>>> = serde_json::from_str(&text).unwrap();
    for (case, expected) in drawn {
        let (name, decoding) = case.split_once(' ').unwrap();
        let subject =
            (name != "untouched").then(|| Subject::load(made_before().join(format!("{name}.safetensors"))).unwrap());
        let prompt = if subject.is_some() { "a photo of a [V] dog" } else { "a photo of a dog" };
        let options = sample::Options {
            width: 16,
            height: 8,
            count: 3,
            guidance: 4.0,
            top_k: 8,
            seed: 11,
            decoding: sample::Decoding::parse(decoding).unwrap(),
            window: 5,
            ..Default::default()
        };
        let subjects: Vec<&Subject> = subject.iter().collect();
        let found = sample::sample(&model, prompt, &subjects, &options, &mut Run::new()).unwrap();
        let found: Vec<Vec<u32>> = found.into_iter().map(|s| s.tokens.into_codes()).collect();
        assert_eq!(found, expected, "{case}");
    }
}

#[test]
fn the_same_seed_teaches_the_subject_that_version_0_1_taught_bit_for_bit() {
    let model = open("plain");
    let pictures: Vec<_> = (0..3).map(|n| made_before().join(format!("{n}.png"))).collect();
    let dataset = Dataset::load(&pictures).unwrap();
    for name in ["two_stage", "lora", "all"] {
        let before = Subject::load(made_before().join(format!("{name}.safetensors"))).unwrap();
        let now = sitter::train(&model, &dataset, &way(name), &mut Run::new()).unwrap();
        assert_eq!(now.losses, before.losses, "{name}");
        assert_eq!(numbers(&now.vectors), numbers(&before.vectors), "{name}");
        assert!(now.changes.keys().eq(before.changes.keys()), "{name}");
        for ((weight, now), before) in now.changes.iter().zip(before.changes.values()) {
            let parts = |change: &Change| match change {
                Change::Delta(delta) => vec![numbers(delta)],
                Change::LowRank { down, up } => vec![numbers(down), numbers(up)],
            };
            assert!(parts(now) == parts(before), "{name}: {weight}");
        }
    }
}

/// Taught to the model that `embedded:` was until 2026-11-29: vectors alone, of the same width.
#[test]
fn a_subject_of_the_first_embedded_model_is_told_that_it_belongs_to_another_one() {
    let model = Model::open("embedded:", &OpenOptions::default(), &mut Run::new()).unwrap();
    let subject = Subject::load(made_before().join("first_embedded.safetensors")).unwrap();
    let error = Personalized::new(&model, &[&subject]).err().unwrap();
    assert!(matches!(error, Error::WrongModel { .. }), "{error}");
    assert!(error.to_string().contains("open the model it belongs to"), "{error}");
}
