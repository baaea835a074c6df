//! Janus-Pro against transformers' (tools/golden/janus.py made the numbers), and by every verb.

use candle_core::{DType, Device, Tensor};
use serde::Deserialize;
use sitter::canvas::Canvas;
use sitter::estimate::{Estimate, Request};
use sitter::files::checkpoint::Checkpoint;
use sitter::files::Files;
use sitter::model::family::{Example, NextToken, Piece, Prediction};
use sitter::model::outline::Outline;
use sitter::model::personalized::Personalized;
use sitter::model::subject::Subject;
use sitter::model::vqgan::vq16::{self, Naming};
use sitter::model::vqgan::Vqgan;
use sitter::model::words::Word;
use sitter::model::{Model, OpenOptions};
use sitter::ops::plainly;
use sitter::personalize::{Adaptation, Batch, Dataset, Learner, Method, Options, Trainable};
use sitter::picture::Picture;
use sitter::run::{Flow, Run, Stage};
use sitter::sample::{self, draw_pictures, Decoding};
use sitter::tokens::Tokens;
use sitter::weights::Change;
use sitter::{train, Error, Result};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use tempfile::TempDir;

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/janus").join(name)
}

#[derive(Deserialize)]
struct Expected {
    prompt: String,
    ids: Vec<u32>,
    pads: Vec<u32>,
    words: Vec<u32>,
    greedy: Vec<u32>,
    #[serde(rename = "greedy of a dog by 1.5")]
    greedy_dog: Vec<u32>,
    #[serde(rename = "codes of transformers")]
    codes_of_transformers: Vec<u32>,
    #[serde(rename = "codes of the original")]
    codes_of_the_original: Vec<u32>,
    score: f32,
    teaching: Vec<Case>,
}

static EXPECTED: LazyLock<Expected> =
    LazyLock::new(|| serde_json::from_slice(&std::fs::read(golden("expected.json")).unwrap()).unwrap());

fn tensors() -> HashMap<String, Tensor> {
    candle_core::safetensors::load(golden("expected.safetensors"), &Device::Cpu).unwrap()
}

/// The folder as its authors would publish it.
fn original() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (from, to) in [
        ("original.json", "config.json"),
        ("tokenizer.json", "tokenizer.json"),
        ("pytorch_model.bin", "pytorch_model.bin"),
    ] {
        std::fs::copy(golden(from), folder.path().join(to)).unwrap();
    }
    folder
}

/// The same in Hugging Face's form.
fn hugging_face() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "tokenizer.json"] {
        std::fs::copy(golden(name), folder.path().join(name)).unwrap();
    }
    let names: BTreeMap<String, String> =
        serde_json::from_slice(&std::fs::read(golden("names.json")).unwrap()).unwrap();
    let files = Files::Folder(golden(""));
    let weights = Checkpoint::open_pickle(&files, "pytorch_model.bin", None).unwrap();
    let get = |name: &str| weights.get_any(name, DType::BF16, &Device::Cpu).unwrap();
    let tensors: HashMap<String, Tensor> = names.iter().map(|(ours, theirs)| (ours.clone(), get(theirs))).collect();
    candle_core::safetensors::save(&tensors, folder.path().join("model.safetensors")).unwrap();
    folder
}

fn try_open(folder: &Path, dtype: &str) -> Result<Model> {
    let options =
        OpenOptions { device: "cpu".into(), dtype: dtype.into(), keep_quantised: false, ..Default::default() };
    Model::open(folder, &options, &mut Run::new())
}

fn open() -> Model {
    try_open(original().path(), "f32").unwrap()
}

fn refusal(folder: &TempDir) -> Error {
    match try_open(folder.path(), "f32") {
        Err(e) => e,
        Ok(_) => panic!("a spoiled model opened"),
    }
}

fn replace(folder: &TempDir, file: &str, from: &str, to: &str) {
    let path = folder.path().join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{file} has no {from}");
    std::fs::write(path, text.replace(from, to)).unwrap();
}

fn numbers(t: &Tensor) -> Vec<f32> {
    t.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn next_token(model: &Model) -> &dyn NextToken {
    match model.family().prediction() {
        Prediction::NextToken(next) => next,
        Prediction::NextScale(_) => panic!("draws code by code"),
    }
}

fn codes(codes: &[u32]) -> Tokens {
    Tokens::new(4, 4, codes.to_vec()).unwrap()
}

fn largest_gap(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0f32, |largest, (a, b)| largest.max((a - b).abs()))
}

// Numbers.

#[test]
fn both_published_forms_open_as_one_model_without_what_reads_pictures() {
    let folders = [original(), hugging_face()];
    let models = folders.each_ref().map(|folder| try_open(folder.path(), "f32").unwrap());
    for model in &models {
        let info = model.info();
        assert_eq!((info.family, info.codebook, info.vocabulary, info.grid_unit_px), ("janus-pro", 64, 336, 64));
        assert!(info.can_decode && info.licence.unwrap().contains("DeepSeek Model License"), "{:?}", info.licence);
        // Embeddings, two layers, norm, head, aligner and the vectors of codes; nothing that reads pictures, no head for text.
        let layer = 4 * 32 * 32 + 3 * 32 * 64 + 2 * 32;
        let around = (32 * 32 + 32) + (64 * 32 + 64) + (32 * 8 + 32) + (32 * 32 + 32);
        assert_eq!(info.parameters, 336 * 32 + 2 * layer + 32 + around + 64 * 8);
    }
    assert_eq!(models[0].fingerprint(), models[1].fingerprint());
    let tokens = codes(&EXPECTED.greedy);
    let [a, b] = models.each_ref().map(|model| {
        let view = Personalized::new(model, &[]).unwrap();
        view.score(&EXPECTED.prompt, std::slice::from_ref(&tokens), &mut Run::new()).unwrap()[0]
    });
    assert_eq!(a.to_bits(), b.to_bits());
    assert!((a - EXPECTED.score).abs() < 1e-5 * EXPECTED.score, "{a} and {}", EXPECTED.score);
}

#[test]
fn a_prompt_becomes_the_pieces_of_the_published_template() {
    let model = open();
    let family = model.family();
    let tokens = |ids: &[u32]| ids.iter().map(|&id| Piece::Token(id)).collect::<Vec<_>>();
    let condition = family.condition(&format!("  {}\n", EXPECTED.prompt), &[], 64, 64).unwrap();
    assert_eq!(condition.pieces, tokens(&EXPECTED.ids));
    assert_eq!(family.unguided(&condition).unwrap().pieces, tokens(&EXPECTED.pads));

    // A learned word takes the place of the word and of the blank before it; the other branch has as many pieces.
    let word = [Word { identifier: "[V]".into(), vectors: 3..5 }];
    let with = family.condition("a photo of a red [V]", &word, 64, 64).unwrap();
    let at = EXPECTED.ids.windows(EXPECTED.words.len()).position(|w| w == EXPECTED.words).unwrap();
    let mut expected = tokens(&EXPECTED.ids);
    expected.splice(at..at + EXPECTED.words.len(), [Piece::Vector(3), Piece::Vector(4)]);
    assert_eq!(with.pieces, expected);
    let without = family.unguided(&with).unwrap();
    assert_eq!(without.pieces.len(), with.pieces.len());
    assert!(without.pieces[1..with.pieces.len() - 1].iter().all(|p| *p == tokens(&EXPECTED.pads)[1]));
    // A word's own rows are those that it has inside of a sentence.
    assert_eq!(family.word_rows("fox").unwrap().dims(), [EXPECTED.words.len(), 32]);

    for prompt in ["a <begin_of_image> fox", "a <｜end▁of▁sentence｜>"] {
        let error = family.condition(prompt, &[], 64, 64).unwrap_err();
        assert!(matches!(&error, Error::InvalidArgument { field, .. } if field == "prompt"), "{error}");
    }
    let error = family.condition(&"fox ".repeat(5000), &[], 64, 64).unwrap_err().to_string();
    assert!(error.contains("at most 3072"), "{error}");
}

#[test]
fn logits_are_those_of_transformers_with_and_without_the_prompt() {
    let model = open();
    let next = next_token(&model);
    let expected = tensors().remove("logits").unwrap();
    for (row, ids) in [&EXPECTED.ids, &EXPECTED.pads].into_iter().enumerate() {
        let codes = EXPECTED.greedy[..15].iter().map(|&code| Piece::Code(code));
        let pieces: Vec<Piece> = ids.iter().map(|&id| Piece::Token(id)).chain(codes).collect();
        let logits = || {
            let x = next.embed(&[&pieces], None).unwrap();
            let hidden = next.forward(&x, &next.rotary().causal(pieces.len()).unwrap(), None).unwrap();
            numbers(&next.logits(&hidden.narrow(1, ids.len() - 1, 16).unwrap()).unwrap())
        };
        // By the kernels, and by the operations that a GPU gets.
        for (form, found) in [("kernels", logits()), ("plain operations", plainly(logits))] {
            let gap = largest_gap(&found, &numbers(&expected.get(row).unwrap()));
            println!("logits of row {row} by {form} differ by {gap:.1e}");
            assert!(gap < 1e-4, "{gap}");
        }
    }
}

#[test]
fn guided_greedy_codes_are_those_of_transformers_by_every_way_of_decoding() {
    let model = open();
    let view = Personalized::new(&model, &[]).unwrap();
    for decoding in Decoding::ALL {
        let options = sample::Options { top_k: 1, decoding, window: 5, ..sample::Options::for_model(&model).unwrap() };
        assert_eq!(options.guidance, 5.0);
        let drawn = draw_pictures(&view, &[&EXPECTED.prompt], &options, &mut Run::new()).unwrap();
        assert_eq!(drawn[0].tokens.codes(), EXPECTED.greedy, "{}", decoding.name());
        // Another prompt in the same batch has a row of padding of its own length.
        let options = sample::Options { guidance: 1.5, ..options };
        let prompts = [EXPECTED.prompt.as_str(), "a dog"];
        let drawn = draw_pictures(&view, &prompts, &options, &mut Run::new()).unwrap();
        assert_eq!(drawn[1].tokens.codes(), EXPECTED.greedy_dog, "{}", decoding.name());
    }
}

#[test]
fn decoded_pictures_are_those_of_transformers_within_a_level() {
    let expected = Picture::from_tensor(&tensors()["decoded"]).unwrap();
    for folder in [original(), hugging_face()] {
        let model = try_open(folder.path(), "f32").unwrap();
        let picture = model.decode(&codes(&EXPECTED.greedy), &Run::new()).unwrap();
        assert_eq!((picture.width(), picture.height()), (64, 64));
        let gap = picture.rgb().iter().zip(expected.rgb()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(gap <= 1, "{gap} levels");
        // Rows that are there while the others are not drawn yet.
        let rows = Tokens::new(2, 4, EXPECTED.greedy[..8].to_vec()).unwrap();
        assert_eq!(model.decode(&rows, &Run::new()).unwrap().height(), 32);
    }
}

#[test]
fn pictures_are_encoded_by_the_rule_of_the_original_and_transformers_rule_is_another() {
    let shown = tensors()["picture"].flatten_all().unwrap().to_vec1::<u8>().unwrap();
    let picture = Picture::new(64, 64, shown).unwrap();
    let found = open().encode(&picture, &Run::new()).unwrap();
    assert_eq!((found.height(), found.width()), (4, 4));
    assert_eq!(found.codes(), EXPECTED.codes_of_the_original);

    assert_ne!(EXPECTED.codes_of_transformers, EXPECTED.codes_of_the_original);
    let weights = Checkpoint::open_pickle(&Files::Folder(golden("")), "pytorch_model.bin", None).unwrap();
    let called = |name: &str| format!("gen_vision_model.{name}");
    let find = |name: &str| weights.shape(&called(name)).map(<[usize]>::to_vec);
    let config = vq16::config(
        Naming::LlamaGen,
        &find,
        &|name, _| find(name).ok_or_else(|| Error::invalid("name", name)),
        weights.path(),
    )
    .unwrap();
    assert_eq!(
        (config.ch_mult.as_slice(), config.num_res_blocks, config.downsampling()),
        (&[1, 1, 1, 1, 2][..], 1, 16)
    );
    let raw = sitter::model::vqgan::Config { directions: false, ..config };
    let vq = Vqgan::load(&raw, true, |name, shape| {
        weights.get(&called(&Naming::LlamaGen.file_name(name, 5)), shape, DType::F32, &Device::Cpu)
    })
    .unwrap();
    let found = vq.encode(&picture.to_tensor(&Device::Cpu).unwrap(), &Run::new()).unwrap();
    assert_eq!(found[0].codes(), EXPECTED.codes_of_transformers);
}

#[derive(Deserialize)]
struct Case {
    name: String,
    stage: String,
    options: Options,
    vectors: Vec<Vec<f32>>,
    batches: Vec<Vec<(Vec<Place>, Vec<u32>)>>,
    losses: Vec<f64>,
    norms: Vec<f64>,
    /// Norms of what is compared at some of its numbers.
    lengths: BTreeMap<String, f64>,
}

/// A token, or in brackets the row of a learned vector.
#[derive(Deserialize)]
#[serde(untagged)]
enum Place {
    Token(u32),
    Vector([u32; 1]),
}

fn example((prompt, codes): &(Vec<Place>, Vec<u32>)) -> Example {
    let piece = |p: &Place| match p {
        Place::Token(id) => Piece::Token(*id),
        Place::Vector([row]) => Piece::Vector(*row),
    };
    let pieces: Vec<Piece> = prompt.iter().map(piece).chain(codes.iter().map(|&code| Piece::Code(code))).collect();
    Example { labelled: prompt.len()..pieces.len(), pieces, ..Default::default() }
}

#[test]
fn losses_gradients_and_updates_are_those_of_autograd() {
    let model = open();
    let expected = tensors();
    let mut compared = 0;
    for case in &EXPECTED.teaching {
        let vectors = Tensor::new(case.vectors.clone(), &Device::Cpu).unwrap();
        let mut learner = match case.stage.as_str() {
            "embedding" => Learner::embedding(&model, &case.options, &vectors).unwrap(),
            _ => Learner::layers(&model, &case.options, &vectors).unwrap(),
        };
        let start = learner.state().unwrap();
        let (mut loss_gap, mut norm_gap) = (0f64, 0f64);
        for (batch, (loss, norm)) in case.batches.iter().zip(case.losses.iter().zip(&case.norms)) {
            let batch = Batch { subject: batch.iter().map(example).collect(), prior: vec![] };
            let outcome = learner.step(&batch, &Run::new()).unwrap();
            loss_gap = loss_gap.max((outcome.loss as f64 / loss - 1.0).abs());
            norm_gap = norm_gap.max((outcome.gradient_norm as f64 / norm - 1.0).abs());
        }
        let state = learner.state().unwrap();
        let (mut length_gap, mut mean_gap, mut change_gap) = (0f64, 0f64, 0f64);
        for (key, &length) in &case.lengths {
            let found = match key.split_once("/change.").map(|(_, name)| format!("value.{name}")) {
                Some(value) => (&state[&value] - &start[&value]).unwrap(),
                None => state[key.split_once('/').unwrap().1].clone(),
            };
            let found = numbers(&found);
            let norm = found.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            length_gap = length_gap.max((norm / length - 1.0).abs());
            let some: Vec<f32> = found.iter().copied().step_by((found.len() / 40).max(1)).take(40).collect();
            let expected = numbers(&expected[key]);
            let largest = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
            let gap = f64::from(largest_gap(&some, &expected) / largest);
            match key.contains("/change.") {
                true => change_gap = change_gap.max(gap),
                false => mean_gap = mean_gap.max(gap),
            }
            compared += 1;
        }
        println!(
            "{:25} loss {loss_gap:.0e} norm {norm_gap:.0e} lengths {length_gap:.0e} means {mean_gap:.0e} changes {change_gap:.0e}",
            case.name
        );
        assert!(loss_gap < 1e-6, "{}: losses differ by {loss_gap}", case.name);
        assert!(norm_gap < 1e-5, "{}: gradient norms differ by {norm_gap}", case.name);
        assert!(length_gap < 1e-4, "{}: norms of changes and mean gradients differ by {length_gap}", case.name);
        assert!(mean_gap < 1e-4, "{}: mean gradients differ by {mean_gap}", case.name);
        // AdamW divides by gradients that may be next to nothing.
        assert!(change_gap < 1e-3, "{}: updates differ by {change_gap}", case.name);
        let learned = state.keys().filter(|k| k.starts_with("value.")).count();
        assert_eq!(2 * learned, case.lengths.len(), "{}: tensors that learn", case.name);
    }
    let given = expected.keys().filter(|key| key.contains('/')).count();
    assert_eq!(compared, given);
}

// Verbs.

fn dataset() -> Dataset {
    let picture = |n: u32| {
        let pixel = |i: u32| {
            let (x, y, c) = (i / 3 % 80, i / 240, i % 3);
            (128.0 + 120.0 * ((x * (n + 1) + y * (c + 1)) as f32 * 0.1 + n as f32).sin()) as u8
        };
        Picture::new(80, 64, (0..80 * 64 * 3).map(pixel).collect()).unwrap()
    };
    Dataset::new((0..3).map(picture).collect()).unwrap()
}

fn options(model: &Model, method: Method) -> Options {
    let preset = Options::for_model(model, method).unwrap();
    Options {
        class_word: "dog".into(),
        embedding_steps: preset.embedding_steps.min(6),
        layer_steps: preset.layer_steps.min(10),
        embedding_learning_rate: 0.05,
        layer_learning_rate: 3e-3,
        lora_rank: 4,
        batch_size: 2,
        seed: 5,
        ..preset
    }
}

#[test]
fn options_begin_with_what_the_family_is_drawn_and_taught_with() {
    let (folder, open_options) = (original(), OpenOptions { dtype: "f32".into(), ..Default::default() });
    let model = try_open(folder.path(), "f32").unwrap();
    let outline = Outline::read(folder.path(), &open_options).unwrap();
    for drawing in
        [sample::Options::for_model(&model).unwrap(), sample::Options::recommended(&outline.recommended).unwrap()]
    {
        let expected = sample::Options {
            width: 64,
            height: 64,
            guidance: 5.0,
            top_k: 0,
            temperature: 1.0,
            ..sample::Options::default()
        };
        assert_eq!(drawing, expected);
    }
    let teaching = Options::for_model(&model, Method::Lora).unwrap();
    assert_eq!((teaching.image_size, teaching.clip_norm, teaching.weight_decay), (64, 1.0, 0.0));
    assert_eq!(teaching, Options::recommended(&outline.recommended, Method::Lora).unwrap());
    // A model's own recommendation stands above the family's.
    std::fs::write(folder.path().join("sitter.json"), r#"{"sample": {"guidance": 3}}"#).unwrap();
    let again = Outline::read(folder.path(), &open_options).unwrap();
    assert_eq!(sample::Options::recommended(&again.recommended).unwrap().guidance, 3.0);
}

#[test]
fn every_method_role_and_adaptation_teaches_it() {
    let model = open();
    let teach = |options: &Options| train(&model, &dataset(), options, &mut Run::new()).unwrap();
    let tokens =
        model.encode(&model.fit(&dataset().pictures()[0], 64, Default::default()).unwrap(), &Run::new()).unwrap();
    let score = |subject: &Subject| {
        let view = Personalized::new(&model, &[subject]).unwrap();
        view.score("a photo of a [V] dog", std::slice::from_ref(&tokens), &mut Run::new()).unwrap()[0]
    };
    // ARBooth is for families that draw scale after scale.
    for method in Method::ALL.into_iter().filter(|method| *method != Method::Arbooth) {
        let options = options(&model, method);
        let subject = teach(&options);
        assert_eq!(subject.losses.len(), (options.embedding_steps + options.layer_steps) as usize, "{method:?}");
        assert_eq!(subject.changes.len(), if options.layer_steps > 0 { 6 } else { 0 }, "{method:?}");
        if options.layer_steps > 0 {
            assert!(score(&subject) < score(&subject.without_layers()), "{method:?}");
        }
    }
    let base = Options { embedding_steps: 1, ..options(&model, Method::TwoStage) };
    for (trainable, full, low_rank) in
        [("attention", 8, 8), ("mlp", 6, 6), ("head", 4, 2), ("aligner", 4, 2), ("all", 26, 18), ("mlp,head", 10, 8)]
    {
        for (adaptation, count) in [(Adaptation::Full, full), (Adaptation::LowRank, low_rank)] {
            let trainable = Trainable::parse(trainable).unwrap();
            let subject = teach(&Options { trainable: trainable.clone(), adaptation, ..base.clone() });
            assert_eq!(subject.changes.len(), count, "{} {adaptation:?}", trainable.name());
            let all = subject.changes.values().all(|c| matches!(c, Change::LowRank { .. }));
            assert_eq!(all, adaptation == Adaptation::LowRank);
            assert!(score(&subject) < score(&subject.without_layers()), "{} {adaptation:?}", trainable.name());
        }
    }
    // The head learns with the last layer, the aligner with the first.
    let of_last = Options { trainable: Trainable::parse("head").unwrap(), layers: vec![0], ..base.clone() };
    let error = train(&model, &dataset(), &of_last, &mut Run::new()).unwrap_err().to_string();
    assert!(error.contains("layers") && error.contains("head"), "{error}");
}

#[test]
fn recomputed_layers_and_gradients_that_are_not_kept_teach_the_same() {
    let model = open();
    let base = Options { trainable: Trainable::ALL, ..options(&model, Method::TwoStage) };
    let teach = |options: &Options| train(&model, &dataset(), options, &mut Run::new()).unwrap();
    let bits = |subject: &Subject| -> Vec<u32> {
        let changes = subject.changes.values().flat_map(|c| match c {
            Change::Delta(delta) => numbers(delta),
            Change::LowRank { .. } => panic!("a low-rank change"),
        });
        changes.map(f32::to_bits).collect()
    };
    let whole = bits(&teach(&base));
    assert_eq!(whole, bits(&teach(&Options { recompute: sitter::personalize::Recompute::Always, ..base.clone() })));
    assert_eq!(whole, bits(&teach(&Options { keep_gradients: false, ..base })));
}

#[test]
fn it_draws_with_a_preview_alike_by_every_exact_way_alone_and_in_a_batch() {
    let model = open();
    let subject = train(&model, &dataset(), &options(&model, Method::TwoStage), &mut Run::new()).unwrap();
    let view = Personalized::new(&model, &[&subject]).unwrap();
    let base = sample::Options { count: 2, seed: 4, ..sample::Options::for_model(&model).unwrap() };
    let prompts = ["a photo of a [V] dog", "a red fox in the snow"];
    let canvas = Canvas::default();
    let mut rows = Vec::new();
    let mut run = Run::with_events(|event| {
        assert_eq!((event.stage, event.total), (Stage::Sample, 16));
        rows.push(canvas.rows(0).map_or(0, |tokens| tokens.height()));
        Flow::Continue
    })
    .drawing_on(canvas.clone());
    let drawn = draw_pictures(&view, &prompts, &base, &mut run).unwrap();
    drop(run);
    assert_eq!(rows, (1..=16).map(|n| n / 4).collect::<Vec<_>>());
    assert_eq!(drawn.len(), 4);
    for window in [2, 5, 256] {
        let options = sample::Options { decoding: Decoding::Speculative, window, ..base.clone() };
        assert_eq!(draw_pictures(&view, &prompts, &options, &mut Run::new()).unwrap(), drawn, "window {window}");
    }
    for (at, prompt) in [(1, prompts[0]), (3, prompts[1])] {
        let alone = sample::Options { count: 1, seed: drawn[at].seed, ..base.clone() };
        assert_eq!(draw_pictures(&view, &[prompt], &alone, &mut Run::new()).unwrap()[0].tokens, drawn[at].tokens);
    }
    let coupled = sample::Options { decoding: Decoding::SpeculativeDistribution, ..base.clone() };
    assert_eq!(draw_pictures(&view, &prompts, &coupled, &mut Run::new()).unwrap().len(), 4);
    let free = sample::Options { guidance: 1.0, ..base };
    assert_ne!(draw_pictures(&view, &prompts, &free, &mut Run::new()).unwrap(), drawn);
    let picture = model.decode(&drawn[0].tokens, &Run::new()).unwrap();
    assert_eq!((picture.width(), picture.height()), (64, 64));
}

#[test]
fn it_runs_in_every_format_and_quantised_weights_are_kept_and_read_again() {
    let tokens = codes(&EXPECTED.greedy);
    let score = |model: &Model| {
        let view = Personalized::new(model, &[]).unwrap();
        view.score(&EXPECTED.prompt, std::slice::from_ref(&tokens), &mut Run::new()).unwrap()[0]
    };
    let plain = open();
    for (dtype, most) in [("bf16", 0.02), ("q8_0", 0.2), ("q4_k", 0.2)] {
        for folder in [original(), hugging_face()] {
            let options =
                OpenOptions { device: "cpu".into(), dtype: dtype.into(), keep_quantised: true, ..Default::default() };
            let first = score(&Model::open(folder.path(), &options, &mut Run::new()).unwrap());
            assert!((first - EXPECTED.score).abs() < most, "{dtype}: {first} and {}", EXPECTED.score);
            let kept = folder.path().join(format!("sitter.{dtype}.safetensors"));
            assert_eq!(kept.exists(), dtype != "bf16");
            let model = Model::open(folder.path(), &options, &mut Run::new()).unwrap();
            assert_eq!(score(&model).to_bits(), first.to_bits());
            assert_eq!(model.fingerprint(), plain.fingerprint(), "a subject of one format is one of all");
            let subject = train(&model, &dataset(), &options_of(&model), &mut Run::new()).unwrap();
            assert!(subject.losses.iter().all(|l| l.loss.is_finite()));
            let drawing = sample::Options::for_model(&model).unwrap();
            let view = Personalized::new(&model, &[&subject]).unwrap();
            assert_eq!(draw_pictures(&view, &["a [V] dog"], &drawing, &mut Run::new()).unwrap().len(), 1);
        }
    }
}

/// A short training of everything by low-rank changes.
fn options_of(model: &Model) -> Options {
    Options { trainable: Trainable::ALL, layer_steps: 2, embedding_steps: 2, ..options(model, Method::Lora) }
}

#[test]
fn a_subject_is_saved_and_an_interrupted_training_goes_on_to_the_same_bits() {
    let model = open();
    let options = Options { trainable: Trainable::ALL, ..options(&model, Method::TwoStage) };
    let whole = train(&model, &dataset(), &options, &mut Run::new()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("subject.safetensors");
    whole.save(&file).unwrap();
    let bits = |subject: &Subject| -> Vec<u32> {
        let of = |change: &Change| match change {
            Change::Delta(delta) => numbers(delta),
            Change::LowRank { down, up } => [numbers(down), numbers(up)].concat(),
        };
        let all = [numbers(&subject.vectors), subject.changes.values().flat_map(of).collect()].concat();
        all.into_iter().map(f32::to_bits).collect()
    };
    assert_eq!(bits(&Subject::load(&file).unwrap()), bits(&whole));
    let checkpoint = Some(folder.path().join("checkpoint"));
    let options = Options { checkpoint_every: 4, checkpoint_path: checkpoint, ..options };
    let mut run = Run::with_events(|event| match (event.stage, event.done) {
        (Stage::Layers, 7) => Flow::Cancel,
        _ => Flow::Continue,
    });
    assert!(matches!(train(&model, &dataset(), &options, &mut run), Err(Error::Cancelled)));
    drop(run);
    assert_eq!(bits(&train(&model, &dataset(), &options, &mut Run::new()).unwrap()), bits(&whole));
}

#[test]
fn a_subject_taught_on_one_published_form_is_drawn_by_the_other_and_says_what_licence_it_is_under() {
    let (folder, other) = (original(), hugging_face());
    let models = [&folder, &other].map(|folder| try_open(folder.path(), "f32").unwrap());
    let taught = train(&models[0], &dataset(), &options(&models[0], Method::Lora), &mut Run::new()).unwrap();
    let file = folder.path().join("subject.safetensors");
    taught.save(&file).unwrap();
    let subject = Subject::load(&file).unwrap();
    assert!(subject.info().licence.unwrap().contains("DeepSeek Model License"));
    let drawn = models.each_ref().map(|model| {
        let view = Personalized::new(model, &[&subject]).unwrap();
        let options = sample::Options::for_model(model).unwrap();
        draw_pictures(&view, &["a photo of a [V] dog"], &options, &mut Run::new()).unwrap().remove(0).tokens
    });
    assert_eq!(drawn[0], drawn[1]);
}

#[test]
fn a_model_of_other_numbers_words_or_constants_is_another() {
    let fingerprint = |folder: &TempDir| try_open(folder.path(), "f32").unwrap().fingerprint().to_owned();
    let same = fingerprint(&hugging_face());
    // What says nothing about what is computed may differ.
    let folder = hugging_face();
    replace(&folder, "config.json", "\"model_type\": \"janus\"", "\"note\": 1, \"model_type\": \"janus\"");
    assert_eq!(fingerprint(&folder), same);
    for (file, from, to) in [
        ("config.json", "\"rms_norm_eps\": 1e-06", "\"rms_norm_eps\": 1e-05"),
        ("config.json", "\"rope_theta\": 10000.0", "\"rope_theta\": 20000.0"),
        ("tokenizer.json", "<end_of_image>", "<other>"),
    ] {
        let folder = hugging_face();
        replace(&folder, file, from, to);
        assert_ne!(fingerprint(&folder), same, "{from} to {to}");
    }
    let folder = hugging_face();
    let path = folder.path().join("model.safetensors");
    let mut all = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    let name = "model.vqmodel.decoder.conv_in.bias";
    let changed = (&all[name] + 1.0).unwrap();
    all.insert(name.into(), changed);
    candle_core::safetensors::save(&all, &path).unwrap();
    assert_ne!(fingerprint(&folder), same);
}

#[test]
fn pictures_of_another_size_are_refused_by_field_and_size() {
    let model = open();
    let view = Personalized::new(&model, &[]).unwrap();
    for (field, width, height) in [("width", 128, 64), ("height", 64, 32), ("width", 48, 64)] {
        let options = sample::Options { width, height, ..sample::Options::for_model(&model).unwrap() };
        let error = draw_pictures(&view, &["a dog"], &options, &mut Run::new()).unwrap_err();
        assert!(matches!(&error, Error::InvalidArgument { field: f, .. } if f == field), "{error}");
        assert!(error.to_string().contains("64 x 64 only"), "{error}");
    }
    let wrong = Options { image_size: 128, ..options(&model, Method::TwoStage) };
    let error = train(&model, &dataset(), &wrong, &mut Run::new()).unwrap_err().to_string();
    assert!(error.contains("image_size") && error.contains("64 x 64 only"), "{error}");
    let small = Tokens::new(2, 4, vec![1; 8]).unwrap();
    let error = view.score("a dog", &[small], &mut Run::new()).unwrap_err().to_string();
    assert!(error.contains("tokens") && error.contains("4 x 4 only"), "{error}");
    let error = view.score("a dog", &[codes(&[64; 16])], &mut Run::new()).unwrap_err().to_string();
    assert!(error.contains("code 64"), "{error}");
    assert!(model.encode(&dataset().pictures()[0], &Run::new()).is_err());
}

#[test]
fn its_memory_is_estimated_before_it_is_opened_and_the_vision_tower_does_not_count() {
    let folder = original();
    let outline = Outline::read(folder.path(), &OpenOptions { dtype: "f32".into(), ..Default::default() }).unwrap();
    let model = try_open(folder.path(), "f32").unwrap();
    let drawing = sample::Options::for_model(&model).unwrap();
    let train = options(&model, Method::TwoStage);
    let estimate = |train: &Options| Estimate::of(&outline, &Request { sample: &drawing, prompts: 1, train });
    let qkv = estimate(&train);
    let vq = Checkpoint::open_pickle(&Files::Folder(golden("")), "pytorch_model.bin", None).unwrap();
    let vq = vq.count("gen_vision_model.") - vq.count("gen_vision_model.quantize.codebook_used");
    assert_eq!(qkv.weights, 4 * (model.info().parameters + vq));
    let all = estimate(&Options { trainable: Trainable::ALL, ..train.clone() });
    let head = estimate(&Options { trainable: Trainable::parse("head").unwrap(), ..train });
    // Value, two running means and a kept gradient of each number: 2 layers without qkv, head, aligner.
    let around = (32 * 32 + 32) + (64 * 32 + 64) + (32 * 8 + 32) + (32 * 32 + 32);
    assert_eq!(all.layers - qkv.layers, 16 * (2 * (32 * 32 + 3 * 32 * 64 + 2 * 32) + around));
    assert!(head.layers < qkv.layers && qkv.sample > qkv.weights && qkv.embedding > qkv.weights);
}

// Files.

#[test]
fn shards_of_pytorch_files_open_by_their_index() {
    let folder = original();
    let path = |name: &str| folder.path().join(name);
    let shard = "pytorch_model-00001-of-00001.bin";
    std::fs::rename(path("pytorch_model.bin"), path(shard)).unwrap();
    let names: BTreeMap<String, String> =
        serde_json::from_slice(&std::fs::read(golden("names.json")).unwrap()).unwrap();
    let map: BTreeMap<&String, &str> = names.values().map(|name| (name, shard)).collect();
    let index = serde_json::json!({"metadata": {"total_size": 1}, "weight_map": map}).to_string();
    std::fs::write(path("pytorch_model.bin.index.json"), &index).unwrap();
    assert_eq!(try_open(folder.path(), "f32").unwrap().info().codebook, 64);
    std::fs::write(path("pytorch_model.bin.index.json"), index.replace(shard, "../x.bin")).unwrap();
    assert!(refusal(&folder).to_string().contains("not a bin file of this model"));
    std::fs::write(path("pytorch_model.bin.index.json"), index.replace(shard, "pytorch_model-00002-of-00002.bin"))
        .unwrap();
    let error = refusal(&folder);
    assert!(
        matches!(&error, Error::NotFound { path, .. } if path.ends_with("pytorch_model-00002-of-00002.bin")),
        "{error}"
    );
}

#[test]
fn words_with_a_meaning_are_found_by_their_names_and_missed_by_them() {
    for word in ["<｜▁pad▁｜>", "<begin_of_image>", "<｜begin▁of▁sentence｜>"] {
        let folder = original();
        replace(&folder, "tokenizer.json", word, "<another>");
        let error = refusal(&folder).to_string();
        assert!(error.contains("tokenizer.json") && error.contains(word), "{error}");
    }
    // By no number: where two have changed places, each means what its name says.
    let folder = original();
    for (from, to) in
        [("<begin_of_image>", "<x>"), ("<image_placeholder>", "<begin_of_image>"), ("<x>", "<image_placeholder>")]
    {
        replace(&folder, "tokenizer.json", from, to);
    }
    let model = try_open(folder.path(), "f32").unwrap();
    let pieces = model.family().condition(&EXPECTED.prompt, &[], 64, 64).unwrap().pieces;
    let Some((&last, rest)) = EXPECTED.ids.split_last() else { panic!("no ids") };
    let expected: Vec<Piece> = rest.iter().chain([&(last + 1)]).map(|&id| Piece::Token(id)).collect();
    assert_eq!(pieces, expected);
}

#[test]
fn wrong_folders_are_refused_by_file_and_field() {
    for (file, from, to, words) in [
        ("config.json", "\"num_attention_heads\": 4", "\"num_attention_heads\": 5", &["language_config", "heads"][..]),
        (
            "config.json",
            "\"num_attention_heads\": 4",
            "\"num_attention_heads\": \"4\"",
            &["num_attention_heads", "whole number"],
        ),
        (
            "config.json",
            "\"num_hidden_layers\": 2",
            "\"num_hidden_layers\": 3",
            &["language_model.model.layers.2", "no such tensor"],
        ),
        ("config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 100000", &["num_hidden_layers", "4096"]),
        ("config.json", "\"vocab_size\": 336", "\"vocab_size\": 335", &["embed_tokens", "335"]),
        ("config.json", "\"image_size\": 64", "\"image_size\": 60", &["60", "16"]),
        ("config.json", "\"image_size\": 64", "\"image_size\": 0", &["vision_config.image_size"]),
        (
            "config.json",
            "\"torch_dtype\"",
            "\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2}, \"torch_dtype\"",
            &["rope_scaling"],
        ),
        ("config.json", "\"torch_dtype\"", "\"attention_bias\": true, \"torch_dtype\"", &["attention_bias"]),
        ("config.json", "\"torch_dtype\"", "\"rms_norm_eps\": -1, \"torch_dtype\"", &["rms_norm_eps"]),
        ("config.json", "multi_modality", "multi_modal", &["multi_modal", "Janus-Pro"]),
    ] {
        let folder = original();
        replace(&folder, file, from, to);
        let error = refusal(&folder).to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{from} to {to}: {error}");
    }
    let folder = original();
    std::fs::remove_file(folder.path().join("pytorch_model.bin")).unwrap();
    assert!(matches!(refusal(&folder), Error::NotFound { .. }));
    // A text model of the same kind has none of the parts that make pictures.
    let folder = hugging_face();
    let path = folder.path().join("model.safetensors");
    let all = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    let text = all.into_iter().filter(|(name, _)| !name.starts_with("model.generation_")).collect();
    candle_core::safetensors::save(&text, &path).unwrap();
    let error = refusal(&folder).to_string();
    assert!(error.contains("model.safetensors") && error.contains("generation_embeddings"), "{error}");
}
