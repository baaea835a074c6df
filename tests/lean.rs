//! Training in little memory: what it costs in exactness, and that nothing else changes.

use candle_core::{DType, Tensor};
use sitter::estimate::{check_training, optimizer_device, Estimate, Request};
use sitter::model::family::{Example, Piece};
use sitter::model::outline::Outline;
use sitter::model::subject::Subject;
use sitter::model::{Model, OpenOptions};
use sitter::ops::plainly;
use sitter::personalize::{
    Adaptation, Batch, Dataset, Learner, Method, OptimizerDevice, Options, Recompute, StateFormat, Trainable,
};
use sitter::picture::Picture;
use sitter::run::Run;
use sitter::sample::memory::check_memory;
use sitter::weights::Change;
use sitter::{train, Error};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn open(name: &str, dtype: &str) -> Model {
    let options =
        OpenOptions { device: "cpu".into(), dtype: dtype.into(), keep_quantised: false, ..Default::default() };
    Model::open(golden(name), &options, &mut Run::new()).unwrap()
}

fn options(trainable: Trainable) -> Options {
    Options {
        trainable,
        class_word: "dog".into(),
        train_embedding_in_layer_stage: true,
        layer_learning_rate: 1e-3,
        lora_rank: 4,
        ..Options::new(Method::TwoStage)
    }
}

/// Two pictures under a prompt with a learned vector, and one of the class.
fn batch(step: u32) -> Batch {
    let example = |seed: u32, length: u32| {
        let token = |i: u32| Piece::Token((seed * 97 + step * 31 + i * i * 7) % 120);
        let mut pieces: Vec<Piece> = (0..length).map(token).collect();
        pieces[2] = Piece::Vector(0);
        Example { pieces, labelled: 5..length as usize, ..Default::default() }
    };
    Batch { subject: vec![example(1, 30), example(2, 24)], prior: vec![example(3, 19)] }
}

fn learner<'m>(model: &'m Model, options: &Options) -> Learner<'m> {
    let hidden = model.facts().width;
    let vectors: Vec<f32> = (0..hidden).map(|i| (i as f32 * 0.7).sin() * 0.1).collect();
    Learner::layers(model, options, &Tensor::from_vec(vectors, (1, hidden), model.device()).unwrap()).unwrap()
}

/// What some steps leave, and the losses on the way.
fn taught(model: &Model, options: &Options, steps: u32) -> (BTreeMap<String, Tensor>, Vec<f32>) {
    let mut learner = learner(model, options);
    let losses = (0..steps).map(|s| learner.step(&batch(s % 5), &Run::new()).unwrap().loss).collect();
    (learner.state().unwrap(), losses)
}

fn bits(state: &BTreeMap<String, Tensor>) -> Vec<u32> {
    let of = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    state.values().flat_map(of).map(f32::to_bits).collect()
}

/// The distance of what is learned in `a` from that in `b`, as a part of how far `b` went from `start`.
fn distance(a: &BTreeMap<String, Tensor>, b: &BTreeMap<String, Tensor>, start: &BTreeMap<String, Tensor>) -> f64 {
    let (mut gap, mut way) = (0.0, 0.0);
    for (name, b) in b.iter().filter(|(name, _)| name.starts_with("value.")) {
        let square = |t: Tensor| t.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap() as f64;
        gap += square((&a[name] - b).unwrap());
        way += square((b - &start[name]).unwrap());
    }
    (gap / way).sqrt()
}

#[test]
fn recomputing_layers_and_going_back_twice_change_no_bit() {
    for (name, dtype, trainable) in [
        ("plain", "f32", Trainable::QKV),
        ("grouped", "f32", Trainable::ALL),
        ("plain", "f32", Trainable::LORA),
        ("grouped", "f32", Trainable::MLP),
        ("grouped", "bf16", Trainable::ALL),
        ("plain", "bf16", Trainable::QKV),
        ("plain", "q8_0", Trainable::LORA),
    ] {
        let model = open(name, dtype);
        let base = Options { recompute: Recompute::Always, clip_norm: 0.5, ..options(trainable.clone()) };
        let (expected, losses) = taught(&model, &base, 3);
        for (recompute, keep_gradients) in
            [(Recompute::Never, true), (Recompute::Always, false), (Recompute::Auto, false)]
        {
            let (found, same) = taught(&model, &Options { recompute, keep_gradients, ..base.clone() }, 3);
            let what = format!("{name} {dtype} {trainable:?} {recompute:?} keep {keep_gradients}");
            assert!(bits(&found) == bits(&expected), "{what}");
            assert_eq!(same, losses, "{what}");
        }
    }
}

#[test]
fn gradients_that_come_from_a_gpu_are_used_alike_whether_they_are_kept_or_not() {
    let model = open("plain", "f32");
    let steps = |options: &Options| plainly(|| bits(&taught(&model, options, 3).0));
    let clipped = Options { clip_norm: 0.5, ..options(Trainable::ALL) };
    assert!(steps(&Options { keep_gradients: false, ..clipped.clone() }) == steps(&clipped));
    // A limit that no gradient reaches is none.
    let free = Options { clip_norm: 1e9, ..clipped.clone() };
    assert!(steps(&Options { clip_norm: 0.0, ..clipped }) == steps(&free));
}

#[test]
fn a_step_with_the_operations_and_the_groups_of_a_gpu_is_the_step_with_our_kernels() {
    for (name, trainable) in [("plain", Trainable::ALL), ("grouped", Trainable::QKV), ("plain", Trainable::LORA)] {
        let model = open(name, "f32");
        // Three pictures of different lengths: all in one padded group, two and one, each alone.
        for accumulation in [1, 2, 3] {
            let options = Options { dropout: 0.1, accumulation, ..options(trainable.clone()) };
            let (mut own, mut plain) = (learner(&model, &options), plainly(|| learner(&model, &options)));
            let start = own.state().unwrap();
            for step in 0..3 {
                let a = own.step(&batch(step), &Run::new()).unwrap();
                let b = plainly(|| plain.step(&batch(step), &Run::new()).unwrap());
                assert!((a.loss - b.loss).abs() <= 1e-5 * b.loss, "{name}: loss {} and {}", a.loss, b.loss);
                assert!((a.gradient_norm / b.gradient_norm - 1.0).abs() <= 1e-4);
            }
            let gap = distance(&own.state().unwrap(), &plain.state().unwrap(), &start);
            assert!(gap < 1e-3, "{name} {trainable:?} {accumulation}: {gap}");
        }
    }
}

#[test]
fn the_optimizer_gives_the_same_numbers_on_the_device_and_on_the_host() {
    let model = open("plain", "f32");
    for trainable in [Trainable::ALL, Trainable::LORA] {
        let host = Options { weight_decay: 0.1, clip_norm: 0.5, ..options(trainable) };
        let device = Options { optimizer_device: OptimizerDevice::Device, ..host.clone() };
        let start = taught(&model, &host, 0).0;
        let ((a, losses), (b, same)) = (taught(&model, &host, 5), taught(&model, &device, 5));
        let gap = distance(&b, &a, &start);
        assert!(gap < 1e-5, "{gap}");
        assert!(losses.iter().zip(&same).all(|(a, b)| (a - b).abs() < 1e-5 * a), "{losses:?} {same:?}");
        assert!(a.keys().eq(b.keys()));
    }
    let lean = Options { optimizer_state: StateFormat::Int8, ..options(Trainable::QKV) };
    let wrong = Options { optimizer_device: OptimizerDevice::Device, ..lean };
    let error = wrong.check(&model).unwrap_err().to_string();
    assert!(error.contains("optimizer_device") && error.contains("f32"), "{error}");
}

#[test]
fn the_optimizer_is_on_the_device_where_that_is_a_gpu_on_which_it_fits() {
    let mut outline = Outline::read(golden("plain"), &OpenOptions::default()).unwrap();
    let all = Options { image_size: 16, ..options(Trainable::ALL) };
    let lean = Options { optimizer_state: StateFormat::Int8, ..all.clone() };
    assert_eq!(optimizer_device(&outline, &all), OptimizerDevice::Host, "on the CPU");
    outline.at.on_gpu = true;
    let estimate =
        |train: &Options| Estimate::of(&outline, &Request { sample: &Default::default(), prompts: 1, train });
    let on = |optimizer_device: OptimizerDevice| estimate(&Options { optimizer_device, ..all.clone() });
    let (device, host) = (on(OptimizerDevice::Device), on(OptimizerDevice::Host));
    // Values and both means are there all the time, gradients only when what was kept for the passes has gone.
    assert!(device.layers_host == 0 && device.layers >= host.layers + host.layers_host / 4 * 3);
    for (free, expected) in [(device.layers, OptimizerDevice::Device), (device.layers - 1, OptimizerDevice::Host)] {
        let outline = Outline { free: Some(free), ..outline.clone() };
        assert_eq!(optimizer_device(&outline, &all), expected);
        assert_eq!(optimizer_device(&outline, &lean), OptimizerDevice::Host, "lean states");
    }
}

#[test]
fn low_rank_changes_of_any_set_of_weights_learn_and_count_what_alpha_says() {
    let model = open("plain", "f32");
    for trainable in ["mlp", "attention", "all", "*.gate_proj.weight,model.layers.1.self_attn.o_proj.weight"] {
        let set = Trainable::parse(trainable).unwrap();
        let base = Options {
            adaptation: Adaptation::LowRank,
            dropout: 0.0,
            layer_learning_rate: 5e-3,
            weight_decay: 0.0,
            ..options(set)
        };
        let losses = taught(&model, &base, 61).1;
        assert!(losses[60] < 0.97 * losses[0], "{trainable}: {losses:?}");
        // A product that counts twice has, before the first update, twice the gradient: half of it is the same.
        let outcome = |lora_alpha: f64| {
            let options = Options { lora_alpha, train_embedding_in_layer_stage: false, ..base.clone() };
            learner(&model, &options).step(&batch(0), &Run::new()).unwrap()
        };
        let (once, same, twice) = (outcome(0.0), outcome(4.0), outcome(8.0));
        assert_eq!(once, same, "{trainable}: alpha is the rank");
        assert!((twice.gradient_norm / once.gradient_norm - 2.0).abs() < 1e-4, "{trainable}");
    }
}

#[test]
fn lean_optimizer_states_stay_near_f32_over_200_steps() {
    let model = open("plain", "f32");
    let base = Options { dropout: 0.0, layer_learning_rate: 2e-4, ..options(Trainable::QKV) };
    let start = taught(&model, &base, 0).0;
    let (expected, losses) = taught(&model, &base, 200);
    let last = |losses: &[f32]| losses[195..].iter().sum::<f32>() / 5.0;
    assert!(last(&losses) < 0.92 * losses[0], "it learns at all: {} from {}", last(&losses), losses[0]);
    for (format, allowed) in [(StateFormat::Bf16, 0.02), (StateFormat::Int8, 0.06)] {
        let (found, lean) = taught(&model, &Options { optimizer_state: format, ..base.clone() }, 200);
        let gap = distance(&found, &expected, &start);
        println!("{}: {gap:.4} of the way, loss {} for {}", format.name(), last(&lean), last(&losses));
        assert!(gap < allowed, "{}: {gap}", format.name());
        assert!((last(&lean) / last(&losses) - 1.0).abs() < 0.02, "{}", format.name());
    }
}

#[test]
fn a_bf16_model_learns_without_master_weights() {
    let model = open("plain", "bf16");
    let base = Options { dropout: 0.0, layer_learning_rate: 2e-4, ..options(Trainable::QKV) };
    let start = taught(&model, &base, 0).0;
    let (expected, losses) = taught(&model, &base, 200);
    let lean = Options { master_weights: false, optimizer_state: StateFormat::Int8, ..base };
    let (found, rounded) = taught(&model, &lean, 200);
    let q = &found["value.model.layers.0.self_attn.q_proj.weight"];
    let again = q.to_dtype(DType::BF16).unwrap().to_dtype(DType::F32).unwrap();
    assert!(bits(&BTreeMap::from([("q".into(), again)])) == bits(&BTreeMap::from([("q".into(), q.clone())])));
    let gap = distance(&found, &expected, &start);
    let last = |losses: &[f32]| losses[195..].iter().sum::<f32>() / 5.0;
    println!("bf16 without masters: {gap:.4} of the way, loss {} for {}", last(&rounded), last(&losses));
    assert!((last(&rounded) / last(&losses) - 1.0).abs() < 0.05, "{} for {}", last(&rounded), last(&losses));
}

#[test]
fn low_rank_changes_and_vectors_learn_on_quantised_weights() {
    for dtype in ["q8_0", "q4_k"] {
        let model = open("plain", dtype);
        let options = Options { dropout: 0.0, layer_learning_rate: 2e-3, ..options(Trainable::LORA) };
        let losses = taught(&model, &options, 101).1;
        // Every fifth batch is the same.
        assert!(losses[100] < 0.95 * losses[0], "{dtype}: {losses:?}");
    }
}

#[test]
fn what_does_not_fit_is_refused_with_both_numbers_and_what_would_fit() {
    let outline = |layers: usize| {
        let folder = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(golden("plain")).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
        }
        let config = std::fs::read_to_string(golden("plain").join("config.json")).unwrap();
        let config = config.replace("\"num_hidden_layers\": 2", &format!("\"num_hidden_layers\": {layers}"));
        let config = config.replace("\"hidden_size\": 32", "\"hidden_size\": 8192");
        let config = config.replace("\"intermediate_size\": 48", "\"intermediate_size\": 22016");
        let config = config.replace("\"vocab_size\": 128", "\"vocab_size\": 65536");
        std::fs::write(folder.path().join("config.json"), config).unwrap();
        Outline::read(folder.path(), &OpenOptions::default()).unwrap()
    };
    let refusal = |result: sitter::Result<()>| match result.unwrap_err() {
        Error::OutOfMemory { needed, free, advice, .. } => {
            assert!(needed > free && free > 0, "{needed} of {free}");
            advice
        }
        other => panic!("{other}"),
    };
    let all = Options { layer_learning_rate: 1e-5, image_size: 192, ..options(Trainable::ALL) };
    assert_eq!(refusal(check_training(&outline(3000), &all)), None);
    assert_eq!(refusal(outline(3000).check_opening()), None);
    // As much as makes full training too large and a lean one small enough.
    let mut fitting = outline(4);
    fitting.free = Some(40_000_000_000);
    fitting.opened = true;
    let advice = refusal(check_training(&fitting, &all)).expect("something fits");
    assert!(advice.contains("optimizer_state") || advice.contains("low_rank"), "{advice}");
    let many = sitter::sample::Options { count: 256, width: 4096, height: 4096, ..Default::default() };
    let advice = refusal(check_memory(&outline(2000), &many, 1));
    assert!(advice.is_none_or(|a| a.contains("pictures in one call")));
}

// Killed and taken up again.

const CHILD: &str = "SITTER_TEST_CHECKPOINT";

fn long(checkpoint: Option<PathBuf>) -> Options {
    Options {
        embedding_steps: 40,
        layer_steps: 40,
        image_size: 32,
        checkpoint_every: u32::from(checkpoint.is_some()) * 3,
        checkpoint_path: checkpoint,
        optimizer_state: StateFormat::Int8,
        ..options(Trainable::QKV)
    }
}

fn teach(options: &Options) -> Subject {
    let picture = |k: u32| {
        let pixels = (0..32 * 32 * 3).map(|i| (i * (k + 3) % 251) as u8).collect();
        Picture::new(32, 32, pixels).unwrap()
    };
    let dataset = Dataset::new((0..3).map(picture).collect()).unwrap();
    train(&open("plain", "f32"), &dataset, options, &mut Run::new()).unwrap()
}

/// Not a test of its own: the process that the next test kills.
#[test]
fn trains_with_checkpoints_when_told_to() {
    let Ok(folder) = std::env::var(CHILD) else { return };
    let folder = PathBuf::from(folder);
    teach(&long(Some(folder.join("checkpoint")))).save(folder.join("subject")).unwrap();
}

#[test]
fn a_training_killed_at_any_moment_ends_in_the_same_subject() {
    let expected = teach(&long(None));
    let folder = tempfile::tempdir().unwrap();
    let run = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "trains_with_checkpoints_when_told_to"]).env(CHILD, folder.path());
        command.stdout(std::process::Stdio::null()).spawn().unwrap()
    };
    let mut killed = 0;
    for round in 0u64.. {
        let mut child = run();
        // Ever later, at odd moments: in writing a checkpoint as well.
        std::thread::sleep(Duration::from_millis(60 + 47 * round));
        child.kill().unwrap();
        if child.wait().unwrap().success() || folder.path().join("subject").exists() {
            break;
        }
        killed += 1;
    }
    assert!(killed >= 2, "killed {killed} times");
    let found = Subject::load(folder.path().join("subject")).unwrap();
    let state = |s: &Subject| {
        let change = |(name, change): (&String, &Change)| match change {
            Change::Delta(delta) => (name.clone(), delta.flatten_all().unwrap().to_vec1::<f32>().unwrap()),
            other => panic!("{name}: {other:?}"),
        };
        (s.changes.iter().map(change).collect::<Vec<_>>(), s.vectors.to_vec2::<f32>().unwrap())
    };
    assert!(found.losses == expected.losses, "the same losses");
    assert!(state(&found) == state(&expected), "the same numbers");
}
