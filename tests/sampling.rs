//! Scores and drawn pictures of the tiny models against PyTorch (tools/golden/sampling.py), and the promises of seeds.

use candle_core::{IndexOp, Tensor};
use sitter::canvas::Canvas;
use sitter::model::family::{Piece, Prediction};
use sitter::model::personalized::Personalized;
use sitter::model::{Model, OpenOptions};
use sitter::random::picture_seed;
use sitter::run::{Flow, Run};
use sitter::sample::{draw_pictures, sample, Options};
use sitter::tokens::Tokens;
use sitter::Error;
use std::path::PathBuf;

fn golden() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn open_as(name: &str, dtype: &str) -> Model {
    let options =
        OpenOptions { device: "cpu".into(), dtype: dtype.into(), keep_quantised: false, ..Default::default() };
    Model::open(golden().join(name), &options, &mut Run::new()).unwrap()
}

fn open(name: &str) -> Model {
    open_as(name, "f32")
}

fn options() -> Options {
    Options { width: 8, height: 8, count: 1, guidance: 4.0, top_k: 0, seed: 5, ..Options::default() }
}

/// One case of the golden file, with the size in codes; a code of the tiny models is 2 pixels wide.
#[derive(serde::Deserialize)]
struct Case {
    prompt: String,
    height: u32,
    width: u32,
    grid: Vec<u32>,
    score: f32,
    separator_logits: Vec<f32>,
    greedy: std::collections::BTreeMap<String, Vec<u32>>,
}

fn cases(name: &str) -> Vec<Case> {
    let text = std::fs::read_to_string(golden().join("sampling.json")).unwrap();
    let mut all: std::collections::BTreeMap<String, Vec<Case>> = serde_json::from_str(&text).unwrap();
    all.remove(name).unwrap()
}

/// The hidden state behind the last of the pieces, [1, hidden].
fn last_state(view: &Personalized, pieces: &[Piece]) -> Tensor {
    let Prediction::NextToken(next) = view.family.prediction() else { panic!("draws code by code") };
    let x = next.embed(&[pieces], None).unwrap();
    let hidden = next.forward(&x, &next.rotary().causal(pieces.len()).unwrap(), None).unwrap();
    hidden.i((0, pieces.len() - 1)).unwrap().unsqueeze(0).unwrap()
}

#[test]
fn scores_and_logits_agree_with_pytorch() {
    for name in ["plain", "grouped"] {
        let model = open(name);
        let view = Personalized::new(&model, &[]).unwrap();
        for case in cases(name) {
            let tokens = Tokens::new(case.height, case.width, case.grid).unwrap();
            let score = view.score(&case.prompt, std::slice::from_ref(&tokens), &mut Run::new()).unwrap()[0];
            assert!((score - case.score).abs() <= 1e-5 * case.score, "{name}: {score} against {}", case.score);

            let (width, height) = model.pixels(&tokens);
            let prompt = view.condition(&case.prompt, width, height).unwrap().pieces;
            let last = last_state(&view, &prompt);
            let head = &view.family.weights().find("lm_head.weight").unwrap().weight;
            let logits = last.matmul(&head.to_f32().unwrap().t().unwrap()).unwrap();
            let logits = logits.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let size = case.separator_logits.iter().fold(0f32, |m, l| m.max(l.abs()));
            assert_eq!(logits.len(), case.separator_logits.len());
            for (found, expected) in logits.iter().zip(&case.separator_logits) {
                assert!((found - expected).abs() <= 1e-5 * size, "{name}: {found} against {expected}");
            }
        }
    }
}

#[test]
fn pictures_of_different_sizes_are_scored_in_one_call_as_they_are_alone() {
    let model = open("plain");
    let view = Personalized::new(&model, &[]).unwrap();
    let grids: Vec<Tokens> =
        cases("plain").into_iter().map(|c| Tokens::new(c.height, c.width, c.grid).unwrap()).collect();
    let together = view.score("a cat", &grids, &mut Run::new()).unwrap();
    for (grid, score) in grids.iter().zip(together) {
        let alone = view.score("a cat", std::slice::from_ref(grid), &mut Run::new()).unwrap()[0];
        assert!((alone - score).abs() < 1e-5, "{alone} against {score}");
    }
}

#[test]
fn top_k_1_equals_a_plain_uncached_loop_token_for_token() {
    for name in ["plain", "grouped"] {
        let model = open(name);
        for case in cases(name) {
            for (guidance, expected) in &case.greedy {
                let guidance = guidance.parse().unwrap();
                let (width, height) = (case.width * 2, case.height * 2);
                let options = Options { width, height, guidance, top_k: 1, count: 2, ..options() };
                for sample in sample(&model, &case.prompt, &[], &options, &mut Run::new()).unwrap() {
                    assert_eq!(sample.tokens.codes(), expected, "{name}, guidance {guidance}");
                }
            }
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_picture_and_another_seed_another() {
    let model = open("plain");
    let draw = |seed| sample(&model, "a fox", &[], &Options { seed, ..options() }, &mut Run::new()).unwrap();
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1)[0].tokens, draw(2)[0].tokens);
}

#[test]
fn a_picture_of_a_batch_equals_the_picture_drawn_alone_with_its_own_seed() {
    for name in ["plain", "grouped"] {
        let model = open(name);
        let batch = sample(&model, "a fox", &[], &Options { count: 5, ..options() }, &mut Run::new()).unwrap();
        for (i, picture) in batch.iter().enumerate() {
            assert_eq!(picture.seed, picture_seed(5, i as u32));
            let alone = Options { seed: picture.seed, ..options() };
            assert_eq!(&sample(&model, "a fox", &[], &alone, &mut Run::new()).unwrap()[0], picture, "{name} {i}");
        }
    }
}

#[test]
fn prompts_of_different_length_drawn_together_give_the_pictures_of_each_drawn_alone() {
    for name in ["plain", "grouped"] {
        let model = open(name);
        let view = Personalized::new(&model, &[]).unwrap();
        let prompts = ["a fox", "a cat and a fox and a cat", "a cat"];
        for guidance in [1.0, 3.0] {
            let options = Options { count: 2, guidance, ..options() };
            let together = draw_pictures(&view, &prompts, &options, &mut Run::new()).unwrap();
            let alone = prompts.map(|p| draw_pictures(&view, &[p], &options, &mut Run::new()).unwrap()).concat();
            assert_eq!(together, alone, "{name}, guidance {guidance}");
        }
    }
}

#[test]
fn a_call_draws_at_least_one_and_at_most_256_pictures() {
    let model = open("plain");
    let view = Personalized::new(&model, &[]).unwrap();
    for prompts in [vec![], vec!["a fox"; 129]] {
        let options = Options { count: 2, ..options() };
        let error = draw_pictures(&view, &prompts, &options, &mut Run::new()).unwrap_err().to_string();
        assert!(error.contains(&format!("{} prompts of 2 pictures", prompts.len())), "{error}");
    }
}

#[test]
fn first_codes_follow_the_models_exact_distribution() {
    let model = open("plain");
    let view = Personalized::new(&model, &[]).unwrap();
    // The distribution of the first code by a plain pass, without guidance.
    let Prediction::NextToken(next) = view.family.prediction() else { panic!("draws code by code") };
    let pieces = next.opening(&view.condition("a fox", 8, 8).unwrap(), (4, 4)).unwrap();
    let logits = next.logits(&last_state(&view, &pieces)).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let weights: Vec<f64> = logits.iter().map(|&l| (l as f64).exp()).collect();
    let total: f64 = weights.iter().sum();

    let mut counts = vec![0f64; weights.len()];
    let rounds = 16;
    for seed in 0..rounds {
        let options = Options { count: 256, guidance: 1.0, seed, ..options() };
        for picture in sample(&model, "a fox", &[], &options, &mut Run::new()).unwrap() {
            counts[picture.tokens.codes()[0] as usize] += 1.0;
        }
    }
    let n = (rounds * 256) as f64;
    let statistic: f64 = weights
        .iter()
        .zip(&counts)
        .map(|(w, c)| {
            let expected = n * w / total;
            (c - expected).powi(2) / expected
        })
        .sum();
    // 99.9% quantile for 15 degrees of freedom.
    assert_eq!(counts.len(), 16);
    assert!(statistic < 37.7, "{statistic}: {counts:?}");
}

#[test]
fn bf16_draws_complete_pictures_and_scores_close_to_f32() {
    let (wide, narrow) = (open("plain"), open_as("plain", "bf16"));
    assert_eq!(narrow.info().dtype, "bf16");
    let drawn = sample(&narrow, "a fox", &[], &options(), &mut Run::new()).unwrap();
    assert_eq!(drawn[0].tokens.codes().len(), 16);
    let case = &cases("plain")[0];
    let tokens = [Tokens::new(case.height, case.width, case.grid.clone()).unwrap()];
    let score =
        |m: &Model| Personalized::new(m, &[]).unwrap().score(&case.prompt, &tokens, &mut Run::new()).unwrap()[0];
    assert!((score(&wide) - score(&narrow)).abs() < 0.05 * score(&wide));
}

#[test]
fn wrong_requests_are_refused_by_name() {
    let model = open("plain");
    let ask = |prompt: &str, options: Options| {
        sample(&model, prompt, &[], &options, &mut Run::new()).unwrap_err().to_string()
    };
    for (error, word) in [
        (ask("a [V] dog", options()), "[V] names a subject that was not given"),
        (ask(" ", options()), "prompt"),
        (ask("a fox", Options { width: 6, ..options() }), "multiple of 4"),
        (ask("a fox", Options { height: 4000, ..options() }), "largest"),
        (ask("a fox", Options { count: 0, ..options() }), "count"),
        (ask("a fox", Options { temperature: 0.0, ..options() }), "temperature"),
        (ask("a fox", Options { guidance: f32::NAN, ..options() }), "guidance"),
    ] {
        assert!(error.contains(word), "{error} should name {word}");
    }
}

#[test]
fn what_is_drawn_so_far_can_be_seen_and_is_the_top_of_what_is_drawn_in_the_end() {
    let model = open("plain");
    let canvas = Canvas::default();
    let seen = std::cell::RefCell::new(vec![]);
    let mut run = Run::with_events(|e| {
        seen.borrow_mut().push((e.done, [canvas.rows(0), canvas.rows(1)]));
        Flow::Continue
    })
    .drawing_on(canvas.clone());
    let drawn = sample(&model, "a cat", &[], &Options { count: 2, ..options() }, &mut run).unwrap();
    drop(run);
    assert_eq!(canvas.rows(2), None);
    for (done, rows) in seen.into_inner() {
        for (rows, whole) in rows.iter().zip(&drawn) {
            let codes = rows.as_ref().map_or(&[][..], |r| r.codes());
            assert_eq!(codes, &whole.tokens.codes()[..(done / 4 * 4) as usize], "after {done} codes");
        }
    }
}

#[test]
fn a_picture_tells_which_model_drew_it_but_not_where_that_lies() {
    let model = open("plain");
    let view = Personalized::new(&model, &[]).unwrap();
    let drawn = sample(&model, "a cat", &[], &options(), &mut Run::new()).unwrap();
    let (_, text) = drawn[0].provenance(&view, &options());
    let told: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((told["model"].as_str(), told["fingerprint"].as_str()), (Some("plain"), Some(model.fingerprint())));
    assert!(!text.contains('/') && model.name().contains('/'), "{text}");
}

#[test]
fn cancelling_stops_within_a_code() {
    let model = open("plain");
    let mut seen = 0;
    let mut run = Run::with_events(|event| {
        seen = event.done;
        if event.done == 3 {
            Flow::Cancel
        } else {
            Flow::Continue
        }
    });
    let result = sample(&model, "a fox", &[], &options(), &mut run);
    assert!(matches!(result, Err(Error::Cancelled)));
    drop(run);
    assert_eq!(seen, 3);
}
