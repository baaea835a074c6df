//! The seam for model families: one that the library does not know, opened, taught, drawn, estimated, saved and resumed by the
//! functions that serve the others.

mod toy;

use candle_core::{DType, Tensor};
use sitter::canvas::Canvas;
use sitter::estimate::{Estimate, Request};
use sitter::model::family::{Keep, Mode, Objective};
use sitter::model::outline::Outline;
use sitter::model::personalized::Personalized;
use sitter::model::subject::Subject;
use sitter::model::{add_family, Model, OpenOptions};
use sitter::personalize::{Adaptation, Dataset, Method, Options, Trainable};
use sitter::picture::Picture;
use sitter::run::{Flow, Run, Stage};
use sitter::sample::{self, draw_pictures, Decoding};
use sitter::tokens::Tokens;
use sitter::weights::Change;
use sitter::weights::{Part, Target, Wanted};
use sitter::{train, Error};
use std::collections::BTreeMap;
use tempfile::TempDir;

/// Every word of the templates, and a few more.
const WORDS: [&str; 26] = [
    "nothing",
    "a",
    "the",
    "of",
    "my",
    "one",
    "photo",
    "rendering",
    "rendition",
    "cropped",
    "clean",
    "dirty",
    "dark",
    "cool",
    "bright",
    "good",
    "nice",
    "small",
    "weird",
    "large",
    "close-up",
    "dog",
    "cat",
    "fox",
    "snow",
    "red",
];

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    toy::write(folder.path(), &WORDS);
    folder
}

fn open(folder: &TempDir) -> Model {
    add_family(&toy::TOY);
    let options =
        OpenOptions { device: "cpu".into(), dtype: "f32".into(), keep_quantised: false, ..Default::default() };
    Model::open(folder.path(), &options, &mut Run::new()).unwrap()
}

/// Three pictures with a pattern that can be learned.
fn dataset() -> Dataset {
    let picture = |n: u32| {
        let pixel = |i: u32| ((i / 3 % 16 / 4 + i / 48 / 4 + n) % 4 * 64) as u8;
        Picture::new(16, 16, (0..16 * 16 * 3).map(pixel).collect()).unwrap()
    };
    Dataset::new((0..3).map(picture).collect()).unwrap()
}

fn options(method: Method) -> Options {
    let preset = Options::new(method);
    Options {
        class_word: "dog".into(),
        image_size: 16,
        embedding_steps: preset.embedding_steps.min(12),
        layer_steps: preset.layer_steps.min(30),
        embedding_learning_rate: 0.05,
        layer_learning_rate: 5e-3,
        weight_decay: 0.0,
        trainable: Trainable::parse("mix").unwrap(),
        lora_rank: 4,
        batch_size: 2,
        seed: 3,
        ..preset
    }
}

fn numbers(t: &Tensor) -> Vec<f32> {
    t.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Every number of a subject, bit for bit.
fn bits(subject: &Subject) -> Vec<u32> {
    let parts = |change: &Change| match change {
        Change::Delta(delta) => numbers(delta),
        Change::LowRank { down, up } => [numbers(down), numbers(up)].concat(),
    };
    let all = [numbers(&subject.vectors), subject.changes.values().flat_map(parts).collect()].concat();
    all.into_iter().map(f32::to_bits).collect()
}

#[test]
fn a_family_that_the_library_does_not_know_opens_encodes_scores_and_decodes() {
    let folder = folder();
    let model = open(&folder);
    let info = model.info();
    assert_eq!((info.family, info.codebook, info.grid_unit_px, info.vocabulary), ("toy", 8, 4, WORDS.len()));
    let picture = model.fit(&dataset().pictures()[0], 16, Default::default()).unwrap();
    let tokens = model.encode(&picture, &Run::new()).unwrap();
    assert_eq!((tokens.height(), tokens.width()), (4, 4));
    let again = model.encode(&model.decode(&tokens, &Run::new()).unwrap(), &Run::new()).unwrap();
    assert_eq!(tokens, again);
    let view = Personalized::new(&model, &[]).unwrap();
    let other = Tokens::new(2, 3, vec![1; 6]).unwrap();
    let scores = view.score("a photo of a dog", &[tokens.clone(), other.clone()], &mut Run::new()).unwrap();
    assert_eq!(scores[1], view.score("a photo of a dog", &[other], &mut Run::new()).unwrap()[0]);
    assert!(scores.iter().all(|s| *s > 0.0) && scores[0] != scores[1]);
    let error = view.score("a unicorn", &[tokens], &mut Run::new()).unwrap_err().to_string();
    assert!(error.contains("unicorn"), "{error}");
}

#[test]
fn gradients_handed_over_by_the_seam_are_the_slopes_of_the_loss() {
    let model = open(&folder());
    let (family, vectors) = (model.family(), model.family().word_rows("cat").unwrap());
    let words = [sitter::model::words::Word { identifier: "[V]".into(), vectors: 0..1 }];
    let condition = family.condition("a [V] dog", &words, 16, 16).unwrap();
    let example = family.example(&condition, &Tokens::new(2, 2, vec![1, 5, 2, 7]).unwrap()).unwrap();
    let loss = |weights: sitter::weights::Weights, vectors: &Tensor| {
        let changed = family.with(weights);
        let mut pass = changed.pass(&[(&example, 0.25)], Some(vectors), &Mode::default()).unwrap();
        (0..2).for_each(|layer| pass.forward(layer, Keep::Nothing).unwrap());
        pass.loss(&Objective::default()).unwrap().total
    };
    let targets = (0..4).map(|weight| Target { part: Part::Whole, weight });
    let wanted = Wanted::new(family.weights().len(), targets);
    let mut pass = family.pass(&[(&example, 0.25)], Some(&vectors), &Mode::default()).unwrap();
    (0..2).for_each(|layer| pass.forward(layer, Keep::All).unwrap());
    pass.loss(&Objective { with_gradient: true, z_loss: 0.0 }).unwrap();
    let mut gradients: BTreeMap<usize, Vec<f32>> = BTreeMap::new();
    for layer in [1, 0] {
        gradients.extend(pass.backward(layer, &wanted).unwrap().into_iter().map(|(t, g)| (t.weight, numbers(&g))));
    }
    let nudged = |t: &Tensor, at: usize, by: f32| {
        let mut values = numbers(t);
        values[at] += by;
        Tensor::from_vec(values, t.shape(), t.device()).unwrap()
    };
    let check = |slope: f64, gradient: f32, what: &str| {
        assert!((slope - f64::from(gradient)).abs() < 2e-3 * (1.0 + slope.abs()), "{what}: {slope} and {gradient}");
    };
    for (id, gradient) in &gradients {
        for at in [0, 7, 31] {
            let at_weight = |by: f32| {
                let mut weights = family.weights().clone();
                let entry = weights.entry_mut(*id);
                entry.weight = nudged(&entry.weight.to_f32().unwrap(), at, by).into();
                loss(weights, &vectors)
            };
            check((at_weight(1e-2) - at_weight(-1e-2)) / 2e-2, gradient[at], &format!("weight {id}, number {at}"));
        }
    }
    let of_vectors = numbers(&pass.vectors().unwrap());
    for at in [0, 13] {
        let at_vector = |by: f32| loss(family.weights().clone(), &nudged(&vectors, at, by));
        check((at_vector(1e-2) - at_vector(-1e-2)) / 2e-2, of_vectors[at], &format!("vector, number {at}"));
    }
}

#[test]
fn every_method_and_adaptation_teaches_it_by_the_roles_that_it_names() {
    let model = open(&folder());
    let tokens = model.encode(&dataset().pictures()[0], &Run::new()).unwrap();
    let score = |subject: &Subject| {
        let view = Personalized::new(&model, &[subject]).unwrap();
        view.score("a photo of a [V] dog", std::slice::from_ref(&tokens), &mut Run::new()).unwrap()[0]
    };
    let teach = |options: &Options| train(&model, &dataset(), options, &mut Run::new()).unwrap();
    // ARBooth is for families that draw scale after scale.
    for method in Method::ALL.into_iter().filter(|method| *method != Method::Arbooth) {
        let subject = teach(&options(method));
        let stages = |name: &str| subject.losses.iter().filter(|l| l.stage == name).count();
        let expected = options(method);
        assert_eq!(
            (stages("embedding"), stages("layers")),
            (expected.embedding_steps as usize, expected.layer_steps as usize)
        );
        assert_eq!(subject.changes.len(), if expected.layer_steps > 0 { 2 } else { 0 }, "{method:?}");
        if expected.layer_steps > 0 {
            assert!(score(&subject) < score(&subject.without_layers()), "{method:?}");
        }
    }
    for (trainable, adaptation, count) in [
        ("gain", Adaptation::Full, 2),
        ("all", Adaptation::Full, 4),
        ("all", Adaptation::LowRank, 2),
        ("layers.1.*", Adaptation::Full, 2),
        ("mix,layers.0.gain", Adaptation::Full, 3),
    ] {
        let trainable = Trainable::parse(trainable).unwrap();
        let subject = teach(&Options { trainable: trainable.clone(), adaptation, ..options(Method::TwoStage) });
        assert_eq!(subject.changes.len(), count, "{}", trainable.name());
        let low_rank = subject.changes.values().all(|c| matches!(c, Change::LowRank { .. }));
        assert_eq!(low_rank, adaptation == Adaptation::LowRank);
        assert!(score(&subject) < score(&subject.without_layers()), "{}", trainable.name());
    }
    let wrong = Options { trainable: Trainable::QKV, ..options(Method::TwoStage) };
    let error = train(&model, &dataset(), &wrong, &mut Run::new()).unwrap_err().to_string();
    assert!(error.contains("qkv") && error.contains("gain, mix") && error.contains("layers.0.mix"), "{error}");
}

#[test]
fn it_draws_with_a_preview_and_alike_by_every_exact_way_of_decoding() {
    let model = open(&folder());
    let subject = train(&model, &dataset(), &options(Method::TwoStage), &mut Run::new()).unwrap();
    let view = Personalized::new(&model, &[&subject]).unwrap();
    let base =
        sample::Options { width: 12, height: 16, count: 3, guidance: 2.0, top_k: 0, seed: 4, ..Default::default() };
    let canvas = Canvas::default();
    let mut rows = Vec::new();
    let mut run = Run::with_events(|event| {
        assert_eq!((event.stage, event.total), (Stage::Sample, 12));
        rows.push(canvas.rows(1).map_or(0, |tokens| tokens.height()));
        Flow::Continue
    })
    .drawing_on(canvas.clone());
    let drawn = draw_pictures(&view, &["a [V] dog", "the red fox"], &base, &mut run).unwrap();
    drop(run);
    assert_eq!(rows, [0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4]);
    assert_eq!(drawn.len(), 6);
    assert!(drawn.iter().all(|s| (s.tokens.height(), s.tokens.width()) == (4, 3)));
    for window in [2, 5, 256] {
        let options = sample::Options { decoding: Decoding::Speculative, window, ..base.clone() };
        let again = draw_pictures(&view, &["a [V] dog", "the red fox"], &options, &mut Run::new()).unwrap();
        assert_eq!(again, drawn, "window {window}");
    }
    let alone = sample::Options { count: 1, seed: drawn[4].seed, ..base.clone() };
    assert_eq!(draw_pictures(&view, &["the red fox"], &alone, &mut Run::new()).unwrap()[0].tokens, drawn[4].tokens);
    let coupled = sample::Options { decoding: Decoding::SpeculativeDistribution, ..base };
    assert_eq!(draw_pictures(&view, &["a [V] dog"], &coupled, &mut Run::new()).unwrap().len(), 3);
    let picture = model.decode(&drawn[0].tokens, &Run::new()).unwrap();
    assert_eq!((picture.width(), picture.height()), (12, 16));
}

#[test]
fn prior_preservation_draws_its_class_pictures() {
    let model = open(&folder());
    let options = Options { prior_weight: 0.5, prior_count: 3, ..options(Method::TwoStage) };
    let mut drawn = 0;
    let mut run = Run::with_events(|event| {
        drawn = if event.stage == Stage::Prior { event.done } else { drawn };
        Flow::Continue
    });
    let subject = train(&model, &dataset(), &options, &mut run).unwrap();
    drop(run);
    assert_eq!(drawn, 3);
    assert_eq!(subject.losses.len(), 42);
}

#[test]
fn a_saved_subject_and_an_interrupted_training_come_back_to_the_bit() {
    let folder = folder();
    let model = open(&folder);
    let options = Options { trainable: Trainable::ALL, dropout: 0.0, ..options(Method::TwoStage) };
    let whole = train(&model, &dataset(), &options, &mut Run::new()).unwrap();
    let file = folder.path().join("subject.safetensors");
    whole.save(&file).unwrap();
    assert_eq!(bits(&Subject::load(&file).unwrap()), bits(&whole));

    let checkpoint = folder.path().join("checkpoint");
    let options = Options { checkpoint_every: 4, checkpoint_path: Some(checkpoint.clone()), ..options };
    let mut run = Run::with_events(|event| match (event.stage, event.done) {
        (Stage::Layers, 9) => Flow::Cancel,
        _ => Flow::Continue,
    });
    assert!(matches!(train(&model, &dataset(), &options, &mut run), Err(Error::Cancelled)));
    drop(run);
    assert!(checkpoint.exists());
    let resumed = train(&model, &dataset(), &options, &mut Run::new()).unwrap();
    assert_eq!(bits(&resumed), bits(&whole));
    assert_eq!(resumed.losses, whole.losses);

    // Another model of the family is another model.
    let other = tempfile::tempdir().unwrap();
    toy::write(other.path(), &WORDS[..25]);
    assert!(matches!(Personalized::new(&open(&other), &[&whole]), Err(Error::WrongModel { .. })));
}

#[test]
fn its_memory_is_estimated_before_anything_is_opened() {
    let folder = folder();
    add_family(&toy::TOY);
    let outline = Outline::read(folder.path(), &OpenOptions { dtype: "f32".into(), ..Default::default() }).unwrap();
    let estimate = |train: &Options| {
        Estimate::of(
            &outline,
            &Request { sample: &sample::Options { width: 16, height: 16, ..Default::default() }, prompts: 1, train },
        )
    };
    let (matrices, all) = (estimate(&options(Method::TwoStage)), {
        let all = Options { trainable: Trainable::ALL, ..options(Method::TwoStage) };
        estimate(&all)
    });
    assert_eq!(matrices.weights, 4 * (2 * (32 * 32 + 32) + 8 * 32));
    // Value, two running means and a kept gradient of each number.
    assert_eq!(all.layers - matrices.layers, 2 * 32 * 16);
    assert!(matrices.sample > matrices.weights && matrices.embedding > matrices.weights);
}
