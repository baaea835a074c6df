//! What a host calls, on the embedded model: `cargo bench --bench verbs`.

use criterion::{criterion_group, criterion_main, Criterion};
use sitter::model::personalized::Personalized;
use sitter::model::{Model, OpenOptions, EMBEDDED};
use sitter::personalize::{Dataset, Method, Options};
use sitter::picture::Picture;
use sitter::run::Run;
use sitter::{sample, train};
use std::hint::black_box;

fn open() -> Model {
    Model::open(EMBEDDED, &OpenOptions::default(), &mut Run::new()).unwrap()
}

fn verbs(c: &mut Criterion) {
    c.bench_function("open", |b| b.iter(|| black_box(open())));

    let model = open();
    let view = Personalized::new(&model, &[]).unwrap();
    let mut options = sample::Options::for_model(&model).unwrap();
    let drawn = sample::sample(&model, "a red ball", &[], &options, &mut Run::new()).unwrap();
    c.bench_function("sample one picture", |b| {
        b.iter(|| black_box(sample::draw_pictures(&view, &["a red ball"], &options, &mut Run::new()).unwrap()))
    });
    options.count = 8;
    c.bench_function("sample eight pictures", |b| {
        b.iter(|| black_box(sample::draw_pictures(&view, &["a red ball"], &options, &mut Run::new()).unwrap()))
    });

    let tokens = &drawn[0].tokens;
    c.bench_function("decode", |b| b.iter(|| black_box(model.decode(tokens, &Run::new()).unwrap())));
    let picture: Picture = model.decode(tokens, &Run::new()).unwrap();
    let dataset = Dataset::new(vec![picture.clone()]).unwrap();
    for (name, embedding_steps, layer_steps) in [("train, embedding step", 1, 0), ("train, layers step", 0, 1)] {
        let defaults = Options::for_model(&model, Method::TwoStage).unwrap();
        let options = Options { class_word: "ball".into(), embedding_steps, layer_steps, ..defaults };
        c.bench_function(name, |b| b.iter(|| black_box(train(&model, &dataset, &options, &mut Run::new()).unwrap())));
    }
    c.bench_function("encode", |b| b.iter(|| black_box(model.encode(&picture, &Run::new()).unwrap())));
}

criterion_group!(benches, verbs);
criterion_main!(benches);
