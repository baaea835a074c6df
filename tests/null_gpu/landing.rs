//! Gradients on their way to an optimizer in the memory of the host, and values on their way back.

use crate::counts::{counts, Counts};
use crate::verbs::open;
use crate::{alone, random_model};
use candle_core::{DType, Device, Tensor};
use sitter::model::family::{Example, Piece};
use sitter::model::{Model, OpenOptions};
use sitter::personalize::{Batch, Learner, Method, OptimizerDevice, Options, Trainable};
use sitter::run::Run;
use std::collections::BTreeMap;

fn options(optimizer_device: OptimizerDevice) -> Options {
    let own = Options::new(Method::Dreambooth);
    let (layer_learning_rate, weight_decay) = (0.125, 0.5);
    Options {
        class_word: "dog".into(),
        trainable: Trainable::QKV,
        optimizer_device,
        layer_learning_rate,
        weight_decay,
        ..own
    }
}

fn learner<'m>(model: &'m Model, options: &Options) -> Learner<'m> {
    let vectors = Tensor::ones((1, model.facts().width), DType::F32, &Device::Cpu).unwrap();
    Learner::layers(model, options, &vectors).unwrap()
}

fn step(learner: &mut Learner) -> Counts {
    let pieces = (0..20).map(|i| if i == 2 { Piece::Vector(0) } else { Piece::Token(i * 5 % 100) }).collect();
    let batch = Batch { subject: vec![Example { pieces, labelled: 5..20, ..Default::default() }], prior: vec![] };
    let before = counts();
    learner.step(&batch, &Run::new()).unwrap();
    counts() - before
}

/// What passes read of each weight.
fn seen(learner: &Learner) -> BTreeMap<String, Vec<f32>> {
    let weights = learner.view().family.weights();
    let numbers = |t: Tensor| t.to_device(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    weights.iter().map(|entry| (entry.spec.name.to_string(), numbers(entry.weight.to_f32().unwrap()))).collect()
}

#[test]
fn gradients_and_values_travel_while_the_gpu_goes_on() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let shape = random_model::shape::Shape::preset("small").unwrap();
    random_model::write(&shape, folder.path()).unwrap();
    let open = OpenOptions { device: "cuda".into(), dtype: "bf16".into(), keep_quantised: false, ..Default::default() };
    let model = Model::open(folder.path(), &open, &mut Run::new()).unwrap();
    let steps = |options: &Options| {
        let mut learner = learner(&model, options);
        step(&mut learner);
        step(&mut learner)
    };
    let device = steps(&options(OptimizerDevice::Device));
    for (keep_gradients, clip_norm) in [(true, 1.0), (false, 1.0), (true, 0.0)] {
        let host = steps(&Options { keep_gradients, clip_norm, ..options(OptimizerDevice::Host) });
        let learned: usize = (0..shape.layers).map(|_| 3 * shape.hidden * shape.hidden).sum();
        let what = format!("keep {keep_gradients}, clip {clip_norm}: {host:?}, on the device {device:?}");
        assert!(host.downloaded_bytes >= device.downloaded_bytes + 4 * learned as u64, "{what}");
        assert!(host.uploaded_bytes >= device.uploaded_bytes + 2 * learned as u64, "{what}");
        // A second way through the model asks for its loss once more.
        assert!(host.movable_bytes <= 2 * device.movable_bytes, "{what}");
        assert!(host.movable_bytes < learned as u64 / 4, "{what}");
    }
}

/// No gradient of a GPU that computes nothing, so a step makes a value smaller by learning rate times decay, and nothing else.
#[test]
fn a_value_is_updated_by_what_has_landed_and_arrives_whole() {
    let _alone = alone();
    for dtype in ["f32", "bf16"] {
        let model = open("plain", "cuda", dtype);
        for (keep_gradients, clip_norm) in [(true, 1.0), (false, 1.0), (true, 0.0)] {
            for nothing_stays in [false, true] {
                let what = format!("{dtype}, keep {keep_gradients}, clip {clip_norm}, nothing stays {nothing_stays}");
                if nothing_stays {
                    std::env::set_var("NULL_GPU_NOTHING_STAYS", "1");
                }
                let options = Options { keep_gradients, clip_norm, ..options(OptimizerDevice::Host) };
                let mut learner = learner(&model, &options);
                let before = seen(&learner);
                for _ in 0..3 {
                    step(&mut learner);
                }
                std::env::remove_var("NULL_GPU_NOTHING_STAYS");
                let (state, after) = (learner.state().unwrap(), seen(&learner));
                let mut learned = 0;
                for (name, after) in after {
                    let Some(value) = state.get(&format!("value.{name}")) else {
                        assert_eq!(after, before[&name], "{what}: {name}");
                        continue;
                    };
                    let rounded = value.to_dtype(if dtype == "f32" { DType::F32 } else { DType::BF16 }).unwrap();
                    let value = rounded.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
                    assert_eq!(after, value, "{what}: {name}");
                    let kept = (1f32 - 0.125 * 0.5).powi(3);
                    let near = |(a, b): (&f32, &f32)| (a - b * kept).abs() <= 1e-2 * b.abs();
                    assert!(after.iter().zip(&before[&name]).all(near), "{what}: {name}");
                    learned += 1;
                }
                assert!(learned >= 3, "{what}");
            }
        }
    }
}
