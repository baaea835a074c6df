//! The path that a GPU takes, on the CPU: candle's operations, copies of what learns, one wide group a step, no kernel of ours. In f32
//! it gives what our kernels give; in bf16, with products rounded as cuBLAS rounds them, what bf16 can.

mod verbs;

use candle_core::{DType, Tensor};
use sitter::model::subject::Subject;
use sitter::model::Model;
use sitter::ops::plainly;
use sitter::personalize::{Method, Options};
use sitter::run::Run;
use sitter::sample::{self, Sample};
use sitter::weights::Change;
use verbs::{decodings, draw, drawing, own_side, picture, score, trainings, LEARNING};

fn open(name: &str, dtype: &str) -> Model {
    verbs::open(name, "cpu", dtype)
}

fn teach(model: &Model, options: &Options, side: u32) -> sitter::Result<Subject> {
    verbs::teach(model, options, side, &mut Run::new())
}

fn codes(drawn: &[Sample]) -> Vec<Vec<u32>> {
    drawn.iter().map(|s| s.tokens.codes().to_vec()).collect()
}

/// How many codes are the same: a draw at the edge between two codes may fall either way.
fn agreement(a: &[Vec<u32>], b: &[Vec<u32>]) -> f64 {
    let pairs = || a.iter().flatten().zip(b.iter().flatten());
    pairs().filter(|(a, b)| a == b).count() as f64 / pairs().count() as f64
}

#[test]
fn it_draws_the_codes_that_our_kernels_draw_in_every_way() {
    for (name, side) in LEARNING.into_iter().chain([("grouped", 8)]) {
        let (own, plain) = (open(name, "f32"), plainly(|| open(name, "f32")));
        let by_code = name != "infinity";
        for &decoding in decodings(&own) {
            for top_k in if by_code { vec![0, 7] } else { vec![0] } {
                let options = sample::Options { decoding, top_k, ..drawing(&own, side) };
                let expected = codes(&draw(&own, &[], &options));
                let found = codes(&plainly(|| draw(&plain, &[], &options)));
                assert_eq!(agreement(&found, &expected), 1.0, "{name} {decoding:?} top_k {top_k}");
            }
        }
    }
}

#[test]
fn it_encodes_decodes_and_scores_as_our_kernels_do() {
    for (name, side) in LEARNING {
        let (own, plain) = (open(name, "f32"), plainly(|| open(name, "f32")));
        let side = own_side(&own, side);
        let picture = picture(1, side);
        let expected = own.encode(&picture, &Run::new()).unwrap();
        let found = plainly(|| plain.encode(&picture, &Run::new()).unwrap());
        assert_eq!(found.codes(), expected.codes(), "{name}");
        let decoded = own.decode(&expected, &Run::new()).unwrap();
        let again = plainly(|| plain.decode(&expected, &Run::new()).unwrap());
        let most = decoded.rgb().iter().zip(again.rgb()).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(most <= Some(1), "{name}: {most:?}");
        let score = |model: &Model| score(model, &[], &expected);
        let (a, b) = (score(&own), plainly(|| score(&plain)));
        assert!((a / b - 1.0).abs() < 1e-5, "{name}: {a} and {b}");
    }
}

/// How far apart two subjects' changes are, as a part of their size.
fn gap(a: &Subject, b: &Subject) -> f64 {
    let square = |t: candle_core::Result<Tensor>| {
        let t = t.unwrap().to_dtype(DType::F32).unwrap();
        f64::from(t.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap())
    };
    let (mut apart, mut size) = (square(&a.vectors - &b.vectors), square(Ok(a.vectors.clone())));
    for (name, change) in &a.changes {
        match (change, &b.changes[name]) {
            (Change::Delta(a), Change::Delta(b)) => {
                apart += square(a - b);
                size += square(Ok(a.clone()));
            }
            (Change::LowRank { down: a, up: c }, Change::LowRank { down: b, up: d }) => {
                apart += square(a - b) + square(c - d);
                size += square(Ok(a.clone())) + square(Ok(c.clone()));
            }
            _ => panic!("{name} changed in two ways"),
        }
    }
    (apart / size).sqrt()
}

#[test]
fn it_teaches_the_subjects_that_our_kernels_teach_by_every_method_and_set() {
    for (name, side) in LEARNING {
        let (own, plain) = (open(name, "f32"), plainly(|| open(name, "f32")));
        let side = own_side(&own, side);
        for options in trainings(&own, side) {
            let expected = teach(&own, &options, side).unwrap();
            let found = plainly(|| teach(&plain, &options, side).unwrap());
            let what = format!("{name} {:?} {}", options.method, options.trainable.name());
            let gap = gap(&expected, &found);
            assert!(gap < 2e-3, "{what}: {gap}");
            for (a, b) in expected.losses.iter().zip(&found.losses) {
                assert!((a.loss / b.loss - 1.0).abs() < 1e-4, "{what}: {} and {}", a.loss, b.loss);
            }
        }
    }
}

#[test]
fn quantised_weights_score_within_what_their_format_resolves() {
    for (name, side) in LEARNING {
        let own = open(name, "f32");
        let tokens = own.encode(&picture(1, own_side(&own, side)), &Run::new()).unwrap();
        let expected = score(&own, &[], &tokens);
        let quantised = open(name, "q8_0");
        let found = plainly(|| score(&quantised, &[], &tokens));
        assert!((found / expected - 1.0).abs() < 1e-2, "{name}: {found} nats, {expected} in f32");
    }
}

#[test]
fn in_bf16_every_verb_works_within_what_bf16_resolves() {
    for (name, side) in LEARNING {
        let own = open(name, "f32");
        let side = own_side(&own, side);
        let picture = picture(1, side);
        plainly(|| {
            let model = open(name, "bf16");
            // Infinity keeps its states in f32 everywhere.
            assert_eq!(model.family().dtype(), if name == "infinity" { DType::F32 } else { DType::BF16 });
            let tokens = model.encode(&picture, &Run::new()).unwrap();
            let (a, b) = (score(&model, &[], &tokens), score(&own, &[], &tokens));
            assert!((a / b - 1.0).abs() < 1e-2, "{name}: {a} nats, {b} in f32");
            let options = Options {
                class_word: "dog".into(),
                image_size: side,
                embedding_steps: 2,
                layer_steps: 3,
                layer_learning_rate: 5e-3,
                batch_size: 2,
                ..Options::for_model(&own, Method::TwoStage).unwrap()
            };
            let subject = teach(&model, &options, side).unwrap();
            assert!(subject.losses.iter().all(|l| l.loss.is_finite()));
            for &decoding in decodings(&model) {
                let options = sample::Options { decoding, ..drawing(&own, side) };
                let drawn = draw(&model, &[&subject], &options);
                assert_eq!(drawn.len(), 4, "{name} {decoding:?}");
                model.decode(&drawn[0].tokens, &Run::new()).unwrap();
            }
        });
    }
}
