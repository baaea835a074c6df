//! The whole story with the four verbs, on a tiny model: open, train, sample, decode.

use sitter::model::personalized::Personalized;
use sitter::model::subject::Subject;
use sitter::model::{Model, OpenOptions};
use sitter::personalize::{Dataset, Method, Options};
use sitter::picture::{read_png_text, Picture};
use sitter::run::{Run, Stage};
use sitter::sample::{self, draw_pictures};
use sitter::Error;
use std::path::PathBuf;

fn open(name: &str) -> Model {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    Model::open(
        folder,
        &OpenOptions { device: "cpu".into(), dtype: "f32".into(), keep_quantised: false, ..Default::default() },
        &mut Run::new(),
    )
    .unwrap()
}

fn reference(shade: u8) -> Picture {
    let rgb = (0..16 * 16 * 3).map(|i| ((i % 48) as u8 * 5) ^ shade).collect();
    Picture::new(16, 16, rgb).unwrap()
}

fn options(identifier: &str, model: &Model) -> Options {
    let mut options = Options::for_model(model, Method::TwoStage).unwrap();
    options.identifier = identifier.into();
    options.class_word = "fox".into();
    options.image_size = 8;
    options.embedding_steps = 3;
    options.layer_steps = 3;
    options.layer_learning_rate = 1e-3;
    options
}

#[test]
fn a_subject_is_taught_with_class_pictures_drawn_by_the_untouched_model_and_drawn() {
    let model = open("plain");
    let dataset = Dataset::new(vec![reference(0), reference(99)]).unwrap();
    let mut asked = options("[V]", &model);
    asked.prior_weight = 1.0;
    asked.prior_count = 2;
    let mut stages = Vec::new();
    let mut run = Run::with_events(|event| {
        if stages.last() != Some(&event.stage) {
            stages.push(event.stage);
        }
        sitter::run::Flow::Continue
    });
    // The class pictures take the model's recommended settings, whose 768 pixels the requested size replaces.
    let subject = sitter::train(&model, &dataset, &asked, &mut run).unwrap();
    drop(run);
    assert!(stages.contains(&Stage::Prior) && stages.ends_with(&[Stage::Embedding, Stage::Layers]), "{stages:?}");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("subject.safetensors");
    subject.save(&file).unwrap();
    let subject = Subject::load(&file).unwrap();

    let view = Personalized::new(&model, &[&subject]).unwrap();
    let settings = sample::Options { width: 8, height: 8, guidance: 2.0, ..sample::Options::default() };
    let prompt = "a photo of a [V] fox";
    let drawn = draw_pictures(&view, &[prompt], &settings, &mut Run::new()).unwrap();
    let picture = model.decode(&drawn[0].tokens, &Run::new()).unwrap();
    assert_eq!((picture.width(), picture.height()), (8, 8));

    let png = folder.path().join("fox.png");
    let (key, text) = drawn[0].provenance(&view, &settings);
    picture.save_png(&png, &[(key, &text)]).unwrap();
    let said = read_png_text(&png).unwrap();
    let said: serde_json::Value = serde_json::from_str(&said.iter().find(|(k, _)| k == "sitter").unwrap().1).unwrap();
    assert_eq!(said["prompt"], prompt);
    assert_eq!(said["subjects"], serde_json::json!(["[V]"]));
    assert_eq!(said["seed"], 0);
    assert_eq!(said["fingerprint"], model.fingerprint());
    assert_eq!(Picture::load(&png).unwrap().rgb(), picture.rgb());
}

#[test]
fn two_subjects_stand_in_one_prompt_and_cannot_share_a_name() {
    let model = open("plain");
    let teach = |identifier: &str, shade: u8| {
        let dataset = Dataset::new(vec![reference(shade)]).unwrap();
        sitter::train(&model, &dataset, &options(identifier, &model), &mut Run::new()).unwrap()
    };
    let (a, b) = (teach("[A]", 0), teach("[B]", 99));
    let prompt = "a [A] fox and a [B] fox";
    let settings = sample::Options { width: 8, height: 8, ..sample::Options::default() };
    let draw =
        |subjects: &[&Subject], prompt: &str| sample::sample(&model, prompt, subjects, &settings, &mut Run::new());
    assert_eq!(draw(&[&a, &b], prompt).unwrap().len(), 1);
    let error = draw(&[&a], prompt).unwrap_err();
    assert!(matches!(error, Error::InvalidArgument { .. }) && error.to_string().contains("[B]"), "{error}");
    assert!(draw(&[&a, &a], "a [A] fox").unwrap_err().to_string().contains("[A]"));

    // Each subject changes what is drawn, and the order in which they are given does not matter beyond rounding.
    let score = |subjects: &[&Subject]| {
        let tokens =
            model.encode(&reference(0).fit(8, 4, sitter::picture::Crop::Centre).unwrap(), &Run::new()).unwrap();
        Personalized::new(&model, subjects).unwrap().score(prompt, &[tokens], &mut Run::new()).unwrap()[0]
    };
    let (ab, ba) = (score(&[&a, &b]), score(&[&b, &a]));
    assert!((ab - ba).abs() < 1e-5 * ab, "{ab} and {ba}");
}

#[test]
fn a_subject_does_not_change_the_model() {
    let model = open("plain");
    let tokens = [model.encode(&reference(0).fit(8, 4, sitter::picture::Crop::Centre).unwrap(), &Run::new()).unwrap()];
    let score = |subjects: &[&Subject]| {
        Personalized::new(&model, subjects).unwrap().score("a photo of a fox", &tokens, &mut Run::new()).unwrap()[0]
    };
    let before = score(&[]);
    let dataset = Dataset::new(vec![reference(0)]).unwrap();
    let subject = sitter::train(&model, &dataset, &options("[V]", &model), &mut Run::new()).unwrap();
    assert_ne!(score(&[&subject]), before);
    assert_eq!(score(&[]), before);
    assert_eq!(score(&[&subject.without_layers()]), before, "the plain prompt does not name the subject");
}
