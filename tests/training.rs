//! Training: against PyTorch step by step (tools/golden/training.py made the numbers), and as a whole.

use candle_core::{safetensors, DType, Device, Tensor};
use serde::Deserialize;
use sitter::canvas::Canvas;
use sitter::model::family::{Example, Piece};
use sitter::model::personalized::Personalized;
use sitter::model::subject::Subject;
use sitter::model::{Model, OpenOptions};
use sitter::personalize::{train, Batch, Dataset, Learner, Method, Options, Request, Trainable};
use sitter::picture::Picture;
use sitter::run::{Flow, Run, Stage};
use sitter::tokens::{Beside, Tokens};
use sitter::weights::Change;
use sitter::{sample, Error, Result};
use std::cell::Cell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn open(name: &str, dtype: &str) -> Model {
    let options =
        OpenOptions { device: "cpu".into(), dtype: dtype.into(), keep_quantised: false, ..Default::default() };
    Model::open(golden(name), &options, &mut Run::new()).unwrap()
}

// Step by step against PyTorch.

#[derive(Deserialize)]
struct Case {
    name: String,
    model: String,
    stage: String,
    options: Options,
    vectors: Vec<Vec<f32>>,
    batches: Vec<Batches>,
    losses: Vec<f64>,
    norms: Vec<f64>,
}

#[derive(Deserialize)]
struct Batches {
    subject: Vec<Sequence>,
    prior: Vec<Sequence>,
}

/// Pieces, the first that is labelled, and of each label whether it is learned where not all are.
#[derive(Deserialize)]
#[serde(untagged)]
enum Sequence {
    Whole(Vec<Place>, usize),
    CutOut(Vec<Place>, usize, Vec<f32>),
}

/// A token, or in brackets the row of a learned vector.
#[derive(Deserialize)]
#[serde(untagged)]
enum Place {
    Token(u32),
    Vector([u32; 1]),
}

fn examples(given: &[Sequence]) -> Vec<Example> {
    let piece = |p: &Place| match p {
        Place::Token(id) => Piece::Token(*id),
        Place::Vector([row]) => Piece::Vector(*row),
    };
    let example = |sequence: &Sequence| {
        let (places, start, learned) = match sequence {
            Sequence::Whole(places, start) => (places, *start, None),
            Sequence::CutOut(places, start, shown) => (places, *start, Some(Arc::new(shown.clone()))),
        };
        let (pieces, labelled) = (places.iter().map(piece).collect(), start..places.len());
        Example { pieces, labelled, learned: Beside(learned), ..Default::default() }
    };
    given.iter().map(example).collect()
}

/// The difference: its norm as a part of the expected norm, and its largest number as a part of the largest expected.
fn difference(found: &Tensor, expected: &Tensor) -> (f64, f64) {
    assert_eq!(found.dims(), expected.dims());
    let (found, expected) = (numbers(found), numbers(expected));
    let gaps: Vec<f32> = found.iter().zip(&expected).map(|(a, b)| a - b).collect();
    let norm = |v: &[f32]| v.iter().map(|x| (*x as f64).powi(2)).sum::<f64>().sqrt();
    let max = |v: &[f32]| v.iter().fold(0f32, |m, x| m.max(x.abs())) as f64;
    (norm(&gaps) / norm(&expected), max(&gaps) / max(&expected))
}

#[test]
fn losses_gradients_and_updates_are_those_of_pytorch() {
    let cases: Vec<Case> = serde_json::from_slice(&std::fs::read(golden("training.json")).unwrap()).unwrap();
    let expected = safetensors::load(golden("training.safetensors"), &Device::Cpu).unwrap();
    let models: HashMap<&str, Model> = ["plain", "grouped"].map(|n| (n, open(n, "f32"))).into();
    let mut compared = 0;
    for case in &cases {
        let model = &models[case.model.as_str()];
        let vectors = Tensor::new(case.vectors.clone(), &Device::Cpu).unwrap();
        let mut learner = match case.stage.as_str() {
            "embedding" => Learner::embedding(model, &case.options, &vectors).unwrap(),
            _ => Learner::layers(model, &case.options, &vectors).unwrap(),
        };
        let start = learner.state().unwrap();
        let (mut loss_gap, mut norm_gap, mut change_gap, mut largest_gap, mut mean_gap) =
            (0f64, 0f64, 0f64, 0f64, 0f64);
        for (batch, (loss, norm)) in case.batches.iter().zip(case.losses.iter().zip(&case.norms)) {
            let batch = Batch { subject: examples(&batch.subject), prior: examples(&batch.prior) };
            let outcome = learner.step(&batch, &Run::new()).unwrap();
            loss_gap = loss_gap.max((outcome.loss as f64 - loss).abs() / loss);
            norm_gap = norm_gap.max((outcome.gradient_norm as f64 - norm).abs() / norm);
        }
        let state = learner.state().unwrap();
        for (key, expected) in &expected {
            let Some(key) = key.strip_prefix(&format!("{}/", case.name)) else { continue };
            compared += 1;
            if let Some(name) = key.strip_prefix("change.") {
                let value = format!("value.{name}");
                let (norm, largest) = difference(&(&state[&value] - &start[&value]).unwrap(), expected);
                (change_gap, largest_gap) = (change_gap.max(norm), largest_gap.max(largest));
            } else {
                mean_gap = mean_gap.max(difference(&state[key], expected).0);
            }
        }
        println!(
            "{:45} loss {loss_gap:.0e} norm {norm_gap:.0e} mean {mean_gap:.0e} change {change_gap:.0e} largest {largest_gap:.0e}",
            case.name
        );
        assert!(loss_gap < 1e-6, "{}: losses differ by {loss_gap}", case.name);
        assert!(norm_gap < 1e-5, "{}: gradient norms differ by {norm_gap}", case.name);
        assert!(mean_gap < 2e-5, "{}: mean gradients differ by {mean_gap}", case.name);
        assert!(change_gap < 1e-4, "{}: updates differ by {change_gap}", case.name);
        // Single numbers with hardly any gradient: AdamW divides by it, and PyTorch's own f32 is up to 2e-4 off here.
        assert!(largest_gap < 5e-4, "{}: single updates differ by {largest_gap}", case.name);
        let learned = state.keys().filter(|k| k.starts_with("value.")).count();
        let expected = expected.keys().filter(|k| k.starts_with(&format!("{}/change.", case.name))).count();
        assert_eq!(learned, expected, "{}: tensors that learn", case.name);
    }
    assert_eq!(compared, expected.len());
}

// As a whole.

/// Smooth pictures that differ.
fn pictures(count: u32) -> Vec<Picture> {
    let picture = |n: u32| {
        let pixel = |i: u32| {
            let (x, y, c) = (i / 3 % 20, i / 60, i % 3);
            (128.0 + 120.0 * ((x * (n + 1) + y * (c + 1)) as f32 * 0.2 + n as f32).sin()) as u8
        };
        Picture::new(20, 16, (0..20 * 16 * 3).map(pixel).collect()).unwrap()
    };
    (0..count).map(picture).collect()
}

fn dataset() -> Dataset {
    Dataset::new(pictures(3)).unwrap()
}

fn options(method: Method) -> Options {
    Options {
        class_word: "dog".into(),
        image_size: 16,
        embedding_steps: 6 * u32::from(method != Method::Dreambooth),
        layer_steps: 8 * u32::from(method != Method::TextualInversion),
        embedding_learning_rate: 0.05,
        layer_learning_rate: 3e-3,
        lora_rank: 4,
        batch_size: 3,
        weight_decay: 0.0,
        seed: 5,
        ..Options::new(method)
    }
}

fn no_prior(_: &Personalized, _: &Request, _: &mut Run) -> Result<Vec<Tokens>> {
    panic!("class pictures were asked for")
}

fn teach(model: &Model, options: &Options, run: &mut Run) -> Result<Subject> {
    train(model, &dataset(), options, &mut no_prior, run)
}

fn mean_loss(subject: &Subject, stage: &str, first: bool) -> f32 {
    let of_stage: Vec<f32> = subject.losses.iter().filter(|l| l.stage == stage).map(|l| l.loss).collect();
    let third = of_stage.len() / 3;
    let part = if first { &of_stage[..third] } else { &of_stage[of_stage.len() - third..] };
    part.iter().sum::<f32>() / third as f32
}

fn numbers(t: &Tensor) -> Vec<f32> {
    t.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Bit for bit.
fn assert_same(a: &Subject, b: &Subject) {
    assert_eq!(numbers(&a.vectors), numbers(&b.vectors));
    assert_eq!(a.losses, b.losses);
    assert!(a.changes.keys().eq(b.changes.keys()));
    for (x, y) in a.changes.values().zip(b.changes.values()) {
        match (x, y) {
            (Change::Delta(x), Change::Delta(y)) => assert_eq!(numbers(x), numbers(y)),
            (Change::LowRank { down: a, up: b }, Change::LowRank { down: c, up: d }) => {
                assert_eq!((numbers(a), numbers(b)), (numbers(c), numbers(d)));
            }
            _ => panic!("{x:?} {y:?}"),
        }
    }
}

#[test]
fn every_method_teaches_what_it_says_and_the_loss_falls() {
    let model = open("plain", "f32");
    // ARBooth is for families that draw scale after scale.
    for method in Method::ALL.into_iter().filter(|method| *method != Method::Arbooth) {
        let mut stages = Vec::new();
        let mut run = Run::with_events(|e| {
            stages.push((e.stage, e.done, e.total, e.loss.is_some()));
            Flow::Continue
        });
        let subject = teach(&model, &options(method), &mut run).unwrap();
        drop(run);
        let count = |stage: Stage| stages.iter().filter(|s| s.0 == stage).count();
        let (embedding, layers) = match method {
            Method::TextualInversion => (6, 0),
            Method::Dreambooth => (0, 8),
            _ => (6, 8),
        };
        assert_eq!((count(Stage::Encode), count(Stage::Embedding), count(Stage::Layers)), (3, embedding, layers));
        assert!(stages.iter().all(|s| s.1 >= 1 && s.1 <= s.2 && s.3 == (s.0 != Stage::Encode)), "{stages:?}");
        assert_eq!(subject.losses.len(), embedding + layers);
        assert_eq!((subject.method.as_str(), subject.identifier.as_str()), (method.name(), "[V]"));
        assert_eq!(subject.vectors.dims(), [1, 32]);
        assert_eq!(subject.changes.len(), if layers > 0 { 6 } else { 0 });
        assert!(subject.changes.values().all(|c| matches!(c, Change::LowRank { .. }) == (method == Method::Lora)));
        if layers > 0 {
            let (before, after) = (mean_loss(&subject, "layers", true), mean_loss(&subject, "layers", false));
            assert!(after < before, "{method:?}: {before} to {after}");
        }

        // What was learned helps where it is used, not only in the records of training.
        let tokens = model.encode(&pictures(1)[0].fit(16, 4, Default::default()).unwrap(), &Run::new()).unwrap();
        let score = |subject: &Subject| {
            let view = Personalized::new(&model, &[subject]).unwrap();
            view.score("a photo of a [V] dog", std::slice::from_ref(&tokens), &mut Run::new()).unwrap()[0]
        };
        if layers > 0 {
            assert!(score(&subject) < score(&subject.without_layers()), "{method:?}");
        }
    }
}

#[test]
fn the_first_recorded_loss_is_the_score_of_the_untouched_model() {
    let model = open("plain", "f32");
    let options = Options {
        batch_size: 1,
        z_loss: 0.0,
        dropout: 0.0,
        per_image_tokens: false,
        templates: vec!["a photo of a {}".into()],
        initial_word: Some("cat".into()),
        embedding_steps: 1,
        ..options(Method::TextualInversion)
    };
    let dataset = Dataset::new(pictures(1)).unwrap();
    let subject = train(&model, &dataset, &options, &mut no_prior, &mut Run::new()).unwrap();
    let tokens = model.encode(&pictures(1)[0].fit(16, 4, Default::default()).unwrap(), &Run::new()).unwrap();
    let view = Personalized::new(&model, &[]).unwrap();
    let expected = view.score("a photo of a cat dog", &[tokens], &mut Run::new()).unwrap()[0];
    assert!((subject.losses[0].loss - expected).abs() < 1e-5, "{} against {expected}", subject.losses[0].loss);
}

#[test]
fn of_a_cut_out_only_what_shows_the_subject_is_learned() {
    let model = open("plain", "f32");
    let inside = |i: usize| (4..12).contains(&(i % 20)) && i / 20 < 8;
    let cut_out = |p: &Picture| {
        let rgba = p.rgb().chunks_exact(3).enumerate();
        let rgba: Vec<u8> = rgba.flat_map(|(i, v)| [v[0], v[1], v[2], if inside(i) { 255 } else { 0 }]).collect();
        Picture::from_rgba(20, 16, &rgba).unwrap()
    };
    let dataset = Dataset::new(pictures(3).iter().map(cut_out).collect()).unwrap();
    let learn = |options: &Options| train(&model, &dataset, options, &mut no_prior, &mut Run::new()).unwrap();
    let still = Options { layer_learning_rate: 0.0, embedding_learning_rate: 0.0, ..options(Method::TwoStage) };
    let still = Options {
        dropout: 0.0,
        z_loss: 0.0,
        guidance_dropout: 0.0,
        templates: vec!["a photo of a {}".into()],
        ..still
    };
    // That the masked loss is PyTorch's is shown above; here that a training uses it.
    let masked = learn(&Options { augment: 0, ..still.clone() });
    let whole = learn(&Options { masked_training: false, ..still.clone() });
    assert!((masked.losses[0].loss - whole.losses[0].loss).abs() > 1e-3, "what is transparent was learned");
    // The subject's own loss falls, and the same pictures on white are learned as they always were.
    let options = options(Method::TwoStage);
    let subject = learn(&options);
    assert!(mean_loss(&subject, "layers", false) < mean_loss(&subject, "layers", true));
    let white =
        Dataset::new(dataset.pictures().iter().map(|p| Picture::new(20, 16, p.rgb().to_vec()).unwrap()).collect());
    let options = Options { masked_training: false, ..options };
    let on_white = train(&model, &white.unwrap(), &options, &mut no_prior, &mut Run::new()).unwrap();
    assert_same(&learn(&options), &on_white);
}

#[test]
fn the_embedding_stage_lowers_the_loss_of_a_fixed_prompt() {
    let model = open("plain", "f32");
    let options = Options {
        embedding_steps: 36,
        embedding_vectors: 4,
        templates: vec!["a photo of a {}".into()],
        per_image_tokens: false,
        dropout: 0.0,
        ..options(Method::TextualInversion)
    };
    let subject = teach(&model, &options, &mut Run::new()).unwrap();
    let (before, after) = (mean_loss(&subject, "embedding", true), mean_loss(&subject, "embedding", false));
    assert!(after < before - 0.01, "{before} to {after}");
}

#[test]
fn the_same_seed_gives_the_same_subject_and_another_seed_another() {
    let model = open("plain", "f32");
    let options = Options { augment: 3, flip: true, random_crop: true, dropout: 0.1, ..options(Method::TwoStage) };
    let subject = teach(&model, &options, &mut Run::new()).unwrap();
    assert_same(&subject, &teach(&model, &options, &mut Run::new()).unwrap());
    let other = teach(&model, &Options { seed: 6, ..options }, &mut Run::new()).unwrap();
    assert_ne!(numbers(&subject.vectors), numbers(&other.vectors));
}

#[test]
fn neither_the_threads_nor_the_rounds_of_a_step_change_the_subject() {
    let model = open("grouped", "f32");
    let options = Options { dropout: 0.1, batch_size: 3, ..options(Method::TwoStage) };
    let learn = |threads: usize, accumulation: u32| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let options = Options { accumulation, ..options.clone() };
        pool.install(|| teach(&model, &options, &mut Run::new()).unwrap())
    };
    let one = learn(1, 1);
    for (threads, accumulation) in [(1, 2), (3, 1), (4, 3)] {
        let other = learn(threads, accumulation);
        assert_eq!(one.losses, other.losses, "{threads} threads, {accumulation} rounds");
        assert_eq!(numbers(&one.vectors), numbers(&other.vectors), "{threads} threads, {accumulation} rounds");
    }
}

#[test]
fn cancelling_stops_at_the_step_and_gives_nothing() {
    let model = open("plain", "f32");
    for stage in [Stage::Encode, Stage::Embedding, Stage::Layers] {
        let mut last = None;
        let mut run = Run::with_events(|e| {
            last = Some((e.stage, e.done));
            if e.stage == stage && e.done == 2 {
                Flow::Cancel
            } else {
                Flow::Continue
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let options = Options { checkpoint_path: Some(folder.path().join("c")), ..options(Method::TwoStage) };
        assert!(matches!(teach(&model, &options, &mut run), Err(Error::Cancelled)));
        drop(run);
        assert_eq!(last, Some((stage, 2)));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
    let run = &mut Run::new();
    run.control().cancel();
    assert!(matches!(teach(&model, &options(Method::TwoStage), run), Err(Error::Cancelled)));
}

#[test]
fn finishing_early_keeps_what_was_learned() {
    let model = open("plain", "f32");
    let finish = |stage: Stage, at: u64| {
        let mut run =
            Run::with_events(move |e| if e.stage == stage && e.done == at { Flow::Finish } else { Flow::Continue });
        teach(&model, &options(Method::TwoStage), &mut run).unwrap()
    };
    let whole = teach(&model, &options(Method::TwoStage), &mut Run::new()).unwrap();
    let early = finish(Stage::Embedding, 4);
    assert_eq!(early.losses[..], whole.losses[..4]);
    assert!(early.changes.is_empty());
    let short = Options { embedding_steps: 4, layer_steps: 0, ..options(Method::TwoStage) };
    assert_eq!(numbers(&early.vectors), numbers(&teach(&model, &short, &mut Run::new()).unwrap().vectors));

    let later = finish(Stage::Layers, 3);
    assert_eq!(later.losses[..], whole.losses[..9]);
    let short = Options { layer_steps: 3, ..options(Method::TwoStage) };
    assert_same(&later, &teach(&model, &short, &mut Run::new()).unwrap());
}

/// Stops after `stop` events of a stage, then begins anew.
fn interrupted(model: &Model, options: &Options, stage: Stage, stop: u64) -> (Subject, u64) {
    let folder = tempfile::tempdir().unwrap();
    let options =
        Options { checkpoint_every: 2, checkpoint_path: Some(folder.path().join("training")), ..options.clone() };
    let mut run = Run::with_events(|e| if e.stage == stage && e.done == stop { Flow::Cancel } else { Flow::Continue });
    let mut drawn = 0;
    let mut prior = |_: &Personalized, request: &Request, _: &mut Run| {
        drawn += request.count;
        let codes = |i: u32| (0..64).map(|c| (c * 7 + i + request.seed as u32) % 16).collect();
        (0..request.count).map(|i| Tokens::new(8, 8, codes(i))).collect()
    };
    let stopped = train(model, &dataset(), &options, &mut prior, &mut run);
    assert!(matches!(stopped, Err(Error::Cancelled)));
    assert!(folder.path().join("training").exists());
    let mut steps = 0;
    let mut run = Run::with_events(|e| {
        steps += u64::from(e.loss.is_some());
        Flow::Continue
    });
    let subject = train(model, &dataset(), &options, &mut prior, &mut run).unwrap();
    drop(run);
    assert!(subject.options["checkpoint_path"].is_null(), "a subject tells where its checkpoint lay");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "a finished training removes its checkpoint");
    assert_eq!(
        drawn,
        if options.prior_weight > 0.0 { options.prior_count } else { 0 },
        "class pictures are drawn once"
    );
    (subject, steps)
}

#[test]
fn an_interrupted_training_goes_on_to_the_same_result() {
    let cases = [
        ("plain", "f32", options(Method::TwoStage), Stage::Embedding, 5, 10),
        ("plain", "f32", options(Method::TwoStage), Stage::Layers, 3, 6),
        ("grouped", "bf16", Options { trainable: Trainable::ALL, ..options(Method::TwoStage) }, Stage::Layers, 4, 4),
        ("grouped", "f32", options(Method::Lora), Stage::Layers, 7, 2),
        ("plain", "f32", options(Method::Dreambooth), Stage::Layers, 5, 4),
    ];
    for (name, dtype, options, stage, stop, left) in cases {
        let model = open(name, dtype);
        let options = Options { dropout: 0.1, augment: 2, ..options };
        let whole = teach(&model, &options, &mut Run::new()).unwrap();
        let (resumed, steps) = interrupted(&model, &options, stage, stop);
        assert_same(&whole, &resumed);
        assert_eq!(steps, left, "{name} {stage:?}: steps after the interruption");
    }
}

#[test]
fn class_pictures_are_asked_for_once_and_learned_beside_the_subject() {
    let model = open("plain", "f32");
    let options = Options { prior_weight: 1.0, prior_count: 6, ..options(Method::TwoStage) };
    let mut requests = Vec::new();
    let mut prior = |_: &Personalized, request: &Request, _: &mut Run| {
        requests.push(request.clone());
        (0..request.count).map(|i| Tokens::new(8, 8, vec![i % 16; 64])).collect()
    };
    let with = train(&model, &dataset(), &options, &mut prior, &mut Run::new()).unwrap();
    let counts: Vec<u32> = requests.iter().map(|r| r.count).collect();
    assert_eq!(counts, [4, 2]);
    assert!(requests.iter().all(|r| r.prompt.contains("dog") && !r.prompt.contains("[V]")), "{requests:?}");
    assert_eq!((requests[0].width, requests[0].height), (16, 12));
    assert_ne!(requests[0].seed, requests[1].seed);

    let without = teach(&model, &Options { prior_weight: 0.0, ..options.clone() }, &mut Run::new()).unwrap();
    // The embedding stage has no prior, so it is the same.
    assert_eq!(with.losses[..6], without.losses[..6]);
    assert!(with.losses[6].loss > 1.5 * without.losses[6].loss);

    let (resumed, _) = interrupted(&model, &options, Stage::Layers, 5);
    assert_eq!(resumed.losses.len(), 14);
}

// Pictures of the subject while it is learned.

/// Asks for a picture after every fourth of 14 steps.
fn with_samples(method: Method) -> Options {
    Options { sample_every: 4, dropout: 0.1, ..options(method) }
}

#[test]
fn samples_show_the_subject_as_it_is_by_then_and_change_nothing_about_the_result() {
    for (name, dtype) in [("plain", "f32"), ("grouped", "bf16")] {
        let model = open(name, dtype);
        for method in [Method::TwoStage, Method::Lora] {
            let options = with_samples(method);
            let mut drawn = Vec::new();
            let mut draw = |view: &Personalized, request: &Request, run: &mut Run| {
                assert_eq!((request.width, request.height, request.count, request.seed), (16, 12, 1, 5));
                let settings = sample::Options { width: 16, height: 12, ..Default::default() };
                let pictures = sample::draw_pictures(view, &[&request.prompt], &settings, run)?;
                let scored = view.score(&request.prompt, &[pictures[0].tokens.clone()], &mut Run::new())?[0];
                drawn.push((request.prompt.clone(), scored));
                Ok(vec![])
            };
            let subject = train(&model, &dataset(), &options, &mut draw, &mut Run::new()).unwrap();
            assert!(drawn.iter().all(|(prompt, _)| prompt == "a photo of a [V] dog"), "{drawn:?}");
            assert!(drawn.len() == 3 && drawn[0].1 != drawn[1].1 && drawn[1].1 != drawn[2].1, "{drawn:?}");
            assert_same(&subject, &teach(&model, &Options { sample_every: 0, ..options }, &mut Run::new()).unwrap());
        }
    }
}

#[test]
fn samples_are_offered_while_they_are_drawn_and_events_say_which_one_it_is() {
    let model = open("plain", "f32");
    let canvas = Canvas::default();
    let mut seen = Vec::new();
    let mut run = Run::with_events(|e| {
        if e.stage == Stage::Sample {
            seen.push((e.done, e.total, e.item, e.item_count, canvas.rows(0).map_or(0, |t| t.height())));
        }
        Flow::Continue
    })
    .drawing_on(canvas.clone());
    let options = Options { sample_prompt: Some("[V] at night".into()), ..with_samples(Method::TwoStage) };
    sitter::train(&model, &dataset(), &options, &mut run).unwrap();
    drop(run);
    let expected = |item| (1..=48u64).map(move |done| (done, 48, item, 3, done as u32 / 8));
    assert_eq!(seen, (0..3).flat_map(expected).collect::<Vec<_>>());
    assert_eq!(canvas.rows(0).unwrap().codes().len(), 48);
}

#[test]
fn a_training_that_is_stopped_while_it_draws_a_sample_stops_there() {
    let model = open("plain", "f32");
    let learn = |answer: Flow| {
        let drawn = Cell::new(0);
        let mut run = Run::with_events(|e| match (e.stage, e.done) {
            (Stage::Sample, done) => {
                drawn.set(drawn.get() + 1);
                if done == 3 {
                    answer
                } else {
                    Flow::Continue
                }
            }
            _ => Flow::Continue,
        });
        let result = sitter::train(&model, &dataset(), &with_samples(Method::TwoStage), &mut run);
        drop(run);
        assert_eq!(drawn.get(), 3);
        result
    };
    assert!(matches!(learn(Flow::Cancel), Err(Error::Cancelled)));
    let early = learn(Flow::Finish).unwrap();
    let short = Options { embedding_steps: 4, layer_steps: 0, sample_every: 0, ..with_samples(Method::TwoStage) };
    assert_eq!(early.losses, teach(&model, &short, &mut Run::new()).unwrap().losses);
}

#[test]
fn samples_may_differ_when_an_interrupted_training_goes_on() {
    let model = open("plain", "f32");
    let folder = tempfile::tempdir().unwrap();
    let options = |sample_every| Options {
        sample_every,
        checkpoint_every: 2,
        checkpoint_path: Some(folder.path().join("training")),
        ..with_samples(Method::TwoStage)
    };
    let mut run = Run::with_events(|e| if e.stage == Stage::Layers { Flow::Cancel } else { Flow::Continue });
    assert!(matches!(sitter::train(&model, &dataset(), &options(3), &mut run), Err(Error::Cancelled)));
    let resumed = sitter::train(&model, &dataset(), &options(5), &mut Run::new()).unwrap();
    assert_same(
        &resumed,
        &teach(&model, &Options { sample_every: 0, ..with_samples(Method::TwoStage) }, &mut Run::new()).unwrap(),
    );
}

#[test]
fn a_sample_prompt_that_cannot_be_drawn_is_refused_before_anything_is_learned() {
    let model = open("plain", "f32");
    for prompt in ["", "a [W] dog"] {
        let options = Options { sample_prompt: Some(prompt.into()), ..with_samples(Method::TwoStage) };
        let mut run = Run::with_events(|e| panic!("{e:?}"));
        let error = sitter::train(&model, &dataset(), &options, &mut run).unwrap_err().to_string();
        assert!(error.contains("sample_prompt"), "{error}");
    }
}

#[test]
fn a_checkpoint_that_can_not_be_written_is_noticed_before_anything_is_learned() {
    let model = open("plain", "f32");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("notes"), "not a checkpoint").unwrap();
    for name in ["no/training", ".", "notes"] {
        let path = folder.path().join(name);
        let options = Options { checkpoint_every: 1, checkpoint_path: Some(path.clone()), ..options(Method::TwoStage) };
        let mut run = Run::with_events(|e| panic!("{e:?}"));
        let error = teach(&model, &options, &mut run).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()), "{error}");
    }
    assert_eq!(std::fs::read(folder.path().join("notes")).unwrap(), b"not a checkpoint");
}

#[test]
fn a_training_goes_on_while_its_checkpoints_can_not_be_written() {
    let model = open("plain", "f32");
    let folder = tempfile::tempdir().unwrap();
    let (place, away) = (folder.path().join("disk"), folder.path().join("pulled out"));
    std::fs::create_dir(&place).unwrap();
    let path = place.join("training");
    let steps = |file: &std::path::Path| {
        let text = std::fs::read(file).unwrap();
        String::from_utf8_lossy(&text).split("\\\"steps\\\":").nth(1).unwrap().chars().next().unwrap()
    };
    let mut seen = vec![];
    let options = Options { checkpoint_every: 1, checkpoint_path: Some(path.clone()), ..options(Method::TwoStage) };
    let mut run = Run::with_events(|e| {
        if e.stage == Stage::Layers {
            match e.done {
                2 => std::fs::rename(&place, &away).unwrap(),
                4 => {
                    // The last good one is still there; the next step finds room again.
                    assert_eq!(steps(&away.join("training")), '2');
                    std::fs::rename(&away, &place).unwrap();
                }
                5 => assert_eq!(steps(&path), '5'),
                _ => {}
            }
            seen.push((e.done, e.warnings));
        }
        Flow::Continue
    });
    let taught = teach(&model, &options, &mut run).unwrap();
    drop(run);
    assert_eq!(seen, [(1, 0), (2, 0), (3, 1), (4, 2), (5, 2), (6, 2), (7, 2), (8, 2)]);
    let plain = Options { checkpoint_every: 0, checkpoint_path: None, ..options.clone() };
    assert_same(&taught, &teach(&model, &plain, &mut Run::new()).unwrap());
    assert_eq!(std::fs::read_dir(&place).unwrap().count(), 0);
}

#[test]
fn a_checkpoint_with_a_flipped_bit_is_refused_by_name() {
    let model = open("plain", "f32");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("training");
    let options = Options { checkpoint_every: 1, checkpoint_path: Some(path.clone()), ..options(Method::TwoStage) };
    let mut stop = Run::with_events(|e| if e.loss.is_some() { Flow::Cancel } else { Flow::Continue });
    assert!(teach(&model, &options, &mut stop).is_err());
    let mut bytes = std::fs::read(&path).unwrap();
    let data = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[data] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let error = teach(&model, &options, &mut Run::new()).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }) && error.to_string().contains(path.to_str().unwrap()), "{error}");
    assert!(error.to_string().contains("tensor mean.vectors"), "{error}");
}

#[test]
fn a_checkpoint_of_another_training_is_refused_and_says_why() {
    let model = open("plain", "f32");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("training");
    let good = Options { checkpoint_every: 1, checkpoint_path: Some(path.clone()), ..options(Method::TwoStage) };
    let stop = || Run::with_events(|e| if e.loss.is_some() { Flow::Cancel } else { Flow::Continue });
    assert!(teach(&model, &good, &mut stop()).is_err());

    let changed = Options { layer_steps: 9, seed: 6, ..good.clone() };
    let error = teach(&model, &changed, &mut Run::new()).unwrap_err().to_string();
    assert!(error.contains("layer_steps (8, now 9)") && error.contains("seed (5, now 6)"), "{error}");
    let other = Dataset::new(pictures(2)).unwrap();
    let error = train(&model, &other, &good, &mut no_prior, &mut Run::new()).unwrap_err().to_string();
    assert!(error.contains("reference pictures"), "{error}");
    let error = teach(&open("grouped", "f32"), &good, &mut Run::new()).unwrap_err().to_string();
    assert!(error.contains("the model ("), "{error}");
    let error = teach(&open("plain", "bf16"), &good, &mut Run::new()).unwrap_err().to_string();
    assert!(error.contains("dtype (f32, now bf16)"), "{error}");

    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 100]).unwrap();
    let error = teach(&model, &good, &mut Run::new()).unwrap_err();
    assert!(error.to_string().starts_with(path.to_str().unwrap()), "{error}");
    std::fs::copy(golden("plain/model.safetensors"), &path).unwrap();
    let error = teach(&model, &good, &mut Run::new()).unwrap_err().to_string();
    assert!(error.contains("not a training checkpoint"), "{error}");
}

#[test]
fn early_stop_ends_the_embedding_stage_on_a_plateau() {
    let model = open("plain", "f32");
    let options =
        Options { embedding_steps: 50, embedding_learning_rate: 0.0, early_stop: 6, ..options(Method::TwoStage) };
    let subject = teach(&model, &options, &mut Run::new()).unwrap();
    let embedding = subject.losses.iter().filter(|l| l.stage == "embedding").count();
    assert!((12..50).contains(&embedding), "{embedding}");
    assert_eq!(subject.losses.len(), embedding + 8);
}

#[test]
fn bf16_learns_too() {
    for (name, trainable) in [("plain", Trainable::ALL), ("grouped", Trainable::QKV), ("plain", Trainable::LORA)] {
        let model = open(name, "bf16");
        let options =
            Options { trainable: trainable.clone(), train_embedding_in_layer_stage: true, ..options(Method::TwoStage) };
        let subject = teach(&model, &options, &mut Run::new()).unwrap();
        let (before, after) = (mean_loss(&subject, "layers", true), mean_loss(&subject, "layers", false));
        assert!(after < before, "{name} {trainable:?}: {before} to {after}");
        let stored = subject.changes.iter().all(|(name, c)| match c {
            // Norms are f32 on the CPU whatever the matrices are in.
            Change::Delta(d) => d.dtype() == DType::BF16 || name.contains("norm"),
            Change::LowRank { down, up } => down.dtype() == DType::BF16 && up.dtype() == DType::BF16,
        });
        assert!(stored && subject.vectors.dtype() == DType::F32);
    }
}

#[test]
fn first_vectors_come_from_a_word_or_are_given() {
    let model = open("plain", "f32");
    let still = Options { embedding_learning_rate: 0.0, ..options(Method::TextualInversion) };
    let vectors = |options: Options| numbers(&teach(&model, &options, &mut Run::new()).unwrap().vectors);
    let row = |word: &str| {
        let vocabulary: serde_json::Value =
            serde_json::from_slice(&std::fs::read(golden("plain/tokenizer.json")).unwrap()).unwrap();
        let id = vocabulary["model"]["vocab"][word].as_u64().unwrap() as usize;
        let weights = safetensors::load(golden("plain/model.safetensors"), &Device::Cpu).unwrap();
        numbers(&weights["model.embed_tokens.weight"].get(id).unwrap())
    };
    assert_eq!(vectors(Options { initial_word: Some("cat".into()), ..still.clone() }), row("cat"));
    let two = Options { initial_word: Some("cat dog".into()), embedding_vectors: 2, ..still.clone() };
    assert_eq!(vectors(two), [row("cat"), row("dog")].concat());
    let given = Options { initial_embedding: Some(row("fox")), embedding_vectors: 2, ..still.clone() };
    assert_eq!(vectors(given), [row("fox"), row("fox")].concat());
    let both = [row("fox"), row("dog")].concat();
    let given = Options { initial_embedding: Some(both.clone()), embedding_vectors: 2, ..still.clone() };
    assert_eq!(vectors(given), both);
    // Noise of the size of words, which in this model is 1.
    let noise = vectors(Options { embedding_vectors: 64, ..still });
    let size = (noise.iter().map(|v| v * v).sum::<f32>() / noise.len() as f32).sqrt();
    assert!((0.9..1.1).contains(&size), "{size}");
}

#[test]
fn captions_are_used_as_they_are_and_must_contain_the_identifier() {
    let model = open("plain", "f32");
    let options = Options { identifier: "sks".into(), per_image_tokens: false, ..options(Method::TextualInversion) };
    let teach = |captions: [&str; 3]| {
        let dataset = dataset().with_captions(captions.map(String::from).to_vec()).unwrap();
        train(&model, &dataset, &options, &mut no_prior, &mut Run::new())
    };
    assert_eq!(teach(["a sks dog", "sks in the snow", "my sks"]).unwrap().identifier, "sks");
    let error = teach(["a sks dog", "a dog in the snow", "my sks"]).unwrap_err().to_string();
    assert!(error.contains("captions") && error.contains("caption 1") && error.contains("sks"), "{error}");
}

#[test]
fn a_model_may_recommend_options_and_what_is_set_by_hand_wins() {
    let folder = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(golden("plain")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    let for_model = |recommended: &str, method: Method| {
        std::fs::write(folder.path().join("sitter.json"), recommended).unwrap();
        Options::for_model(&Model::open(folder.path(), &OpenOptions::default(), &mut Run::new()).unwrap(), method)
    };
    let recommended = r#"{"train": {"layer_steps": 9, "image_size": 16, "trainable": "mlp"},
                          "train.dreambooth": {"layer_steps": 21}, "train.textual_inversion": {"layer_steps": 0}}"#;
    let two_stage = for_model(recommended, Method::TwoStage).unwrap();
    assert_eq!((two_stage.layer_steps, two_stage.image_size, two_stage.trainable), (9, 16, Trainable::MLP));
    assert_eq!((two_stage.embedding_steps, two_stage.method), (1500, Method::TwoStage));
    let dreambooth = for_model(recommended, Method::Dreambooth).unwrap();
    assert_eq!((dreambooth.layer_steps, dreambooth.embedding_steps, dreambooth.image_size), (21, 0, 16));
    assert_eq!(for_model("{}", Method::Lora).unwrap(), Options::new(Method::Lora));

    for (wrong, word) in [
        (r#"{"train": {"layer_stepz": 9}}"#, "layer_stepz"),
        (r#"{"train": {"layer_steps": "nine"}}"#, "nine"),
        (r#"{"train": {"trainable": "everything"}}"#, "everything"),
        (r#"{"train": 9}"#, "object"),
    ] {
        let error = for_model(wrong, Method::TwoStage).unwrap_err().to_string();
        assert!(error.contains("sitter.json") && error.contains(word), "{error}");
    }
}

#[test]
fn options_out_of_range_are_refused_by_name() {
    let model = open("plain", "f32");
    let refused = |field: &str, word: &str, change: &dyn Fn(&mut Options)| {
        let mut options = options(Method::TwoStage);
        change(&mut options);
        match teach(&model, &options, &mut Run::new()) {
            Err(Error::InvalidArgument { field: found, message }) => {
                assert!(found == field && message.contains(word), "{found}: {message}");
            }
            other => panic!("{field}: {other:?}"),
        }
    };
    refused("embedding_learning_rate", "-1", &|o| o.embedding_learning_rate = -1.0);
    refused("layer_learning_rate", "NaN", &|o| o.layer_learning_rate = f64::NAN);
    refused("embedding_vectors", "1 to 64", &|o| o.embedding_vectors = 0);
    refused("batch_size", "1 to 256", &|o| o.batch_size = 0);
    refused("accumulation", "1 to batch_size, 3", &|o| o.accumulation = 4);
    refused("beta2", "below 1", &|o| o.beta2 = 1.0);
    refused("dropout", "below 1", &|o| o.dropout = 1.0);
    refused("guidance_dropout", "1.5", &|o| o.guidance_dropout = 1.5);
    refused("layers", "0 to 1", &|o| o.layers = vec![2]);
    refused("image_size", "multiple of 4", &|o| o.image_size = 18);
    refused("image_size", "at most 32 pixels", &|o| o.image_size = 1_600_000);
    refused("class_word", "use_class_word", &|o| o.class_word = " ".into());
    refused("identifier", "blanks", &|o| o.identifier = "my dog".into());
    refused("identifier", "class word", &|o| o.identifier = "dog".into());
    refused("identifier", "ordinary word", &|o| o.identifier = "a".into());
    refused("identifier", "ordinary word", &|o| o.identifier = "photo".into());
    refused("identifier", "ordinary word", &|o| o.identifier = "Generate".into());
    refused("templates", "exactly one", &|o| o.templates = vec!["a photo".into()]);
    refused("initial_embedding", "expected 32 or 32", &|o| o.initial_embedding = Some(vec![0.0; 31]));
    refused("initial_word", "does not know", &|o| o.initial_word = Some("zebra".into()));
    refused("checkpoint_path", "checkpoint_every", &|o| o.checkpoint_every = 5);
    refused("embedding_steps", "nothing", &|o| (o.embedding_steps, o.layer_steps) = (0, 0));
    refused("prior_weight", "-1", &|o| o.prior_weight = -1.0);
}

#[test]
fn a_rate_that_is_far_too_high_is_reported_and_not_a_subject_of_nan() {
    let model = open("plain", "f32");
    let options =
        Options { layer_learning_rate: 10.0, weight_decay: 10.0, layer_steps: 30, ..options(Method::TwoStage) };
    match teach(&model, &options, &mut Run::new()) {
        Err(Error::InvalidArgument { field, message }) => {
            assert!(field == "layer_learning_rate" && message.contains("lower the learning rate"), "{message}");
        }
        Ok(subject) => assert!(subject.losses.iter().all(|l| l.loss.is_finite())),
        Err(other) => panic!("{other}"),
    }
}
