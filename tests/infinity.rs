//! Infinity against PyTorch: tools/golden/infinity_goldens.py made tests/golden/infinity*.
//!
//! The goldens were computed in f64 from the bf16 weights in the files; here everything runs in f32.

use candle_core::{safetensors, DType, Device, Tensor};
use sitter::canvas::Canvas;
use sitter::files::checkpoint::Checkpoint;
use sitter::files::Files;
use sitter::model::family::{ByScale, Example, Family, Keep, Mode, Objective as FamilyObjective, Teacher};
use sitter::model::infinity::bsq::{Bsq, Map};
use sitter::model::infinity::config::Config;
use sitter::model::infinity::drawing::{Drawing, Settings};
use sitter::model::infinity::encoder::Encoder;
use sitter::model::infinity::files::{Parts, TextFiles};
use sitter::model::infinity::loss::bit_nats;
use sitter::model::infinity::loss::{token_weights, Likeness};
use sitter::model::infinity::names::NAMES;
use sitter::model::infinity::pass::{Objective, Pass};
use sitter::model::infinity::schedule::Schedule;
use sitter::model::infinity::t5::{self, T5};
use sitter::model::infinity::text::Text;
use sitter::model::infinity::transformer::Transformer;
use sitter::model::infinity::vae::{Vae, Weights};
use sitter::model::personalized::Personalized;
use sitter::model::subject::Subject;
use sitter::model::text as words;
use sitter::model::words::Word;
use sitter::model::{Model, OpenOptions};
use sitter::ops::plainly;
use sitter::personalize::{Adaptation, Batch, Dataset, Learner, Method, Options as TrainingOptions, Trainable};
use sitter::picture::Picture;
use sitter::run::{Control, Flow, Run, Stage};
use sitter::sample::{self, draw_pictures};
use sitter::tokens::{Beside, Tokens};
use sitter::weight::Format;
use sitter::weights::{Change, Part, Target, Wanted};
use sitter::{train, Error};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

const SCALE_WEIGHTS: [f32; 5] = [1.0, 1.0, 1.0, 1.0, 0.5];
const BITS: usize = 8;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn golden(name: &str) -> Tensor {
    static ALL: OnceLock<HashMap<String, Tensor>> = OnceLock::new();
    let all = ALL.get_or_init(|| safetensors::load(folder("infinity.safetensors"), &Device::Cpu).unwrap());
    all.get(name).unwrap_or_else(|| panic!("no golden {name}")).clone()
}

fn floats(name: &str) -> Vec<f32> {
    golden(name).flatten_all().unwrap().to_vec1().unwrap()
}

fn bytes(name: &str) -> Vec<u32> {
    golden(name).flatten_all().unwrap().to_vec1::<u8>().unwrap().into_iter().map(u32::from).collect()
}

fn assert_close(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let size = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
    let gap = found.iter().zip(expected).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(gap <= tolerance * size.max(1e-30), "{what}: {gap} against {size}");
}

fn values(t: &Tensor) -> Vec<f32> {
    t.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn transformer(name: &str) -> Transformer {
    let files = Files::Folder(folder(name));
    let checkpoint = match files.exists("infinity.pth") {
        true => Checkpoint::open_pickle(&files, "infinity.pth", None).unwrap(),
        false => Checkpoint::open_file(&files, "transformer.safetensors").unwrap(),
    };
    let config = Config::from_shapes(&checkpoint).unwrap();
    let buffers: u64 = checkpoint.names().filter(|n| n.ends_with("zero_k_bias")).map(|n| checkpoint.count(n)).sum();
    assert_eq!(config.parameters(), checkpoint.count("") - buffers);
    Transformer::load(&checkpoint, None, config, Format::F32, &Device::Cpu, |_, _| Ok(())).unwrap()
}

fn vae(name: &str) -> Vae {
    let files = Files::Folder(folder(name));
    let (checkpoint, groups) = match files.exists("vae.pth") {
        true => (Checkpoint::open_pickle(&files, "vae.pth", Some("vae")).unwrap(), None),
        false => (Checkpoint::open_file(&files, "tokenizer.safetensors").unwrap(), Some(4)),
    };
    let weights = Weights { checkpoint: &checkpoint, prefix: "" };
    assert!(weights.are_there());
    let shape = weights.shape(groups).unwrap();
    Vae::load(&weights, shape, &Device::Cpu).unwrap()
}

fn features() -> Tensor {
    golden("text.features")
}

/// Runs by the kernels and by candle's operations, as on a GPU.
fn both(f: impl Fn(&str)) {
    f("kernels");
    plainly(|| f("plain"));
}

#[test]
fn the_text_encoder_gives_pytorchs_features() {
    let files = Files::Folder(folder("infinity/text_encoder"));
    let config = t5::Config::from_json(&files.text("config.json").unwrap(), &files.path("config.json")).unwrap();
    let checkpoint = Checkpoint::open(&files, "model").unwrap();
    let t5 = T5::load(&checkpoint, config.clone(), Format::F32, &Device::Cpu, &mut |_| Ok(())).unwrap();
    both(|how| {
        let found = t5.forward(&bytes("text.ids")).unwrap();
        assert_close(&values(&found), &floats("text.features"), 2e-6, how);
        let long = t5.forward(&bytes("text.long_ids")).unwrap();
        let rows: Vec<u32> = (0..200).step_by(7).collect();
        let some = long.index_select(&Tensor::new(rows, &Device::Cpu).unwrap(), 0).unwrap();
        assert_close(&values(&some), &floats("text.long_features"), 5e-6, how);
    });
    // The files hold bf16: no weight loses anything, and where the processor multiplies bf16 the other factor is rounded to eight bits,
    // half of 2^-8 of it at most, layer after layer. Weights of eight bits cost some hundredth.
    for (format, tolerance) in [(Format::Bf16, 2f32.powi(-8)), (Format::Q8_0, 0.03)] {
        let t5 = T5::load(&checkpoint, config.clone(), format, &Device::Cpu, &mut |_| Ok(())).unwrap();
        let found = t5.forward(&bytes("text.ids")).unwrap();
        assert_close(&values(&found), &floats("text.features"), tolerance, format.name());
    }
}

#[test]
fn texts_become_pytorchs_condition() {
    let transformer = transformer("infinity");
    both(|how| {
        // A longer text beside it changes nothing.
        let longer = Tensor::cat(&[features(), features()], 0).unwrap();
        let (texts, _) = transformer.conditioner.forward(&[features(), longer]).unwrap();
        let n = features().dims()[0];
        let source = texts.source.narrow(0, 0, 1).unwrap().narrow(1, 0, n).unwrap();
        assert_close(&values(&source), &floats("text.source"), 5e-6, how);
        let row = |t: &Tensor| values(&t.narrow(0, 0, 1).unwrap());
        assert_close(&row(&texts.pooled), &floats("text.pooled"), 5e-6, how);
        assert_close(&row(&texts.adaptive), &floats("text.adaptive"), 5e-6, how);
        let (alone, _) = transformer.conditioner.forward(&[features()]).unwrap();
        assert_eq!(values(&alone.source), values(&source));
        assert_eq!(values(&alone.adaptive), row(&texts.adaptive));
    });
}

#[test]
fn the_image_tokenizer_gives_pytorchs_latents_and_pictures() {
    let pixels: Vec<u8> = bytes("vae.picture").into_iter().map(|b| b as u8).collect();
    let picture = Picture::new(48, 64, pixels).unwrap().to_tensor(&Device::Cpu).unwrap();
    let run = Run::new();
    let z = |d: usize| Map { d, grid: (5, 6), data: floats("vae.z") };
    both(|how| {
        let plain = vae("infinity");
        assert_eq!((plain.shape().stride(), plain.shape().groups), (4, 24));
        let latent = plain.encode(&picture, &run).unwrap();
        assert_eq!(latent.grid, (16, 12));
        assert_close(&latent.data, &floats("vae.latent"), 1e-5, how);
        let clamped = |name: &str| floats(name).into_iter().map(|x| x.clamp(-1.0, 1.0)).collect::<Vec<_>>();
        let decoded = plain.decode(&z(BITS), &run).unwrap();
        assert_close(&values(&decoded), &clamped("vae.decoded"), 1e-5, how);

        let folded = vae("infinity_folded");
        assert_eq!(folded.shape().stride(), 2);
        let latent = folded.encode(&picture, &run).unwrap();
        assert_eq!(latent.grid, (32, 24));
        let rows: Vec<f32> = latent
            .data
            .chunks(24)
            .enumerate()
            .filter(|(i, _)| i % 32 % 3 == 0)
            .flat_map(|(_, row)| row.to_vec())
            .collect();
        assert_close(&rows, &floats("folded.latent"), 1e-5, how);
        let decoded = folded.decode(&z(BITS), &run).unwrap();
        assert_close(&values(&decoded), &clamped("folded.decoded"), 1e-5, how);
    });
}

#[test]
fn rotary_positions_of_every_ratio_fall_where_pytorch_rounds_them() {
    let text: Vec<u8> = golden("positions").to_vec1().unwrap();
    let sums: HashMap<String, Vec<[u64; 2]>> = serde_json::from_slice(&text).unwrap();
    assert_eq!(sums.len(), 15);
    for (size, scales) in sums {
        let (h, w) = size.split_once('x').unwrap();
        let schedule = Schedule::of_grid((h.parse().unwrap(), w.parse().unwrap())).unwrap();
        for (s, expected) in scales.iter().enumerate() {
            let sum = |of: fn(&(u32, u32)) -> u32| -> u64 {
                schedule.positions(s).iter().zip(1u64..).map(|(p, i)| i * u64::from(of(p))).sum()
            };
            assert_eq!([sum(|p| p.0), sum(|p| p.1)], *expected, "{size}, scale {s}");
        }
    }
}

/// What a drawing golden begins with: name, last grid, how the model sees it.
fn drawings() -> Vec<(String, Schedule, Bsq, &'static str, usize)> {
    let case = |name: &str, grid: (usize, usize), folded: bool| {
        let schedule = Schedule::of_grid(grid).unwrap();
        let bsq = Bsq { d: BITS, folded, area: false };
        let model = if folded { "infinity_folded" } else { "infinity" };
        (format!("{name}.{}x{}.", grid.0, grid.1), schedule, bsq, model, if folded { 5 } else { 2 })
    };
    let mut all: Vec<_> =
        [(16, 16), (21, 14), (11, 22), (27, 9)].into_iter().map(|grid| case("draw", grid, false)).collect();
    all.push(case("folded", (16, 16), true));
    all
}

fn latent(key: &str, schedule: &Schedule, bsq: Bsq) -> Map {
    Map { d: bsq.d, grid: bsq.grid(schedule.last()), data: floats(&format!("{key}latent")) }
}

/// Numbers of rows 0, step, 2 step ..
fn every(rows: &[f32], width: usize, step: usize) -> Vec<f32> {
    rows.chunks(width).step_by(step).flatten().copied().collect()
}

#[test]
fn latents_become_pytorchs_bits_with_and_without_flips() {
    for (key, schedule, bsq, _, _) in drawings() {
        let scales = schedule.scales();
        let latent = latent(&key, &schedule, bsq);
        let labels = |codes: &[Vec<u32>]| -> Vec<u32> {
            codes.iter().zip(scales).flat_map(|(codes, &scale)| bsq.labels(codes, scale)).collect()
        };
        let plain = bsq.quantise(&latent, scales, None);
        assert_eq!(labels(&plain.codes), bytes(&format!("{key}labels")), "{key}");
        let decoded = floats(&format!("{key}decoded"));
        assert_close(&plain.latent.data, &decoded, 1e-6, &key);
        let again = bsq.dequantise(plain.codes, scales).unwrap();
        assert_close(&again.latent.data, &decoded, 1e-6, &key);

        // Flips come as [bits, cells] of each scale.
        let all = bytes(&format!("{key}flips"));
        let mut at = 0;
        let flips: Vec<Vec<u32>> = scales
            .iter()
            .map(|&scale| {
                let (h, w) = bsq.grid(scale);
                let own = &all[at..at + bsq.d * h * w];
                at += own.len();
                (0..h * w).map(|i| (0..bsq.d).fold(0, |mask, c| mask << 1 | own[c * h * w + i])).collect()
            })
            .collect();
        let flipped = bsq.quantise(&latent, scales, Some(&flips));
        assert_eq!(labels(&flipped.codes), bytes(&format!("{key}flipped_labels")), "{key}");
        let inputs: Vec<f32> = flipped.inputs.concat();
        let step = (inputs.len() / 2000).max(1);
        let expected = floats(&format!("{key}inputs"));
        let some: Vec<f32> = inputs.iter().step_by(step).take(2000).copied().collect();
        assert_close(&some, &expected[..expected.len() - 1], 1e-6, &key);
    }
}

#[test]
fn logits_of_all_scales_at_once_and_of_one_after_the_other_are_pytorchs() {
    for (key, schedule, bsq, model, step) in drawings() {
        let transformer = transformer(model);
        let scales = schedule.scales();
        let width = 2 * bsq.bits();
        let codes = bsq.quantise(&latent(&key, &schedule, bsq), scales, None);
        let tokens = schedule.total();
        let inputs = Tensor::from_vec(codes.inputs.concat(), (1, tokens - 1, bsq.bits()), &Device::Cpu).unwrap();
        let labels: Vec<Vec<u32>> = codes.codes.iter().zip(scales).map(|(c, &s)| bsq.labels(c, s)).collect();
        both(|how| {
            let what = format!("{key} {how}");
            let (texts, _) = transformer.conditioner.forward(&[features()]).unwrap();
            let logits = transformer.forward(&texts, &inputs, &schedule, &Control::default()).unwrap();
            assert_close(&every(&values(&logits), width, step), &floats(&format!("{key}logits")), 1e-5, &what);
            for guidance in [1.0, 3.0] {
                if guidance == 1.0 && schedule.last() != (16, 16) {
                    continue;
                }
                let found = drawn(&transformer, bsq, &schedule, guidance, false, &labels);
                let expected = floats(&format!("{key}drawn{guidance}"));
                assert_close(&every(&found, width, step), &expected, 2e-5, &format!("{what} guided by {guidance}"));
            }
        });
    }
}

#[test]
fn arbooths_own_way_of_drawing_is_pytorchs() {
    let (key, schedule, bsq, model, step) = drawings().swap_remove(1);
    let mut transformer = transformer(model);
    transformer.each_chunk = true;
    let codes = bsq.quantise(&latent(&key, &schedule, bsq), schedule.scales(), None).codes;
    let labels: Vec<Vec<u32>> = codes.iter().zip(schedule.scales()).map(|(c, &s)| bsq.labels(c, s)).collect();
    let area = Bsq { area: true, ..bsq };
    let found = drawn(&transformer, area, &schedule, 3.0, false, &labels);
    assert_close(&every(&found, 2 * BITS, step), &floats(&format!("{key}arbooth")), 2e-5, "arbooth");
    transformer.each_chunk = false;
    both(|how| {
        let found = drawn(&transformer, area, &schedule, 1.0, true, &labels);
        assert_close(&every(&found, 2 * BITS, step), &floats(&format!("{key}apart")), 2e-5, how);
    });
}

/// Logits of drawing in which the bits that come are these.
fn drawn(
    transformer: &Transformer,
    bsq: Bsq,
    schedule: &Schedule,
    guidance: f32,
    apart: bool,
    labels: &[Vec<u32>],
) -> Vec<f32> {
    let mut found = Vec::new();
    let features = [features()];
    let (unguided, stop, guidance) = (None, Control::default(), &[guidance]);
    let drawing = Drawing { transformer, bsq, schedule, features: &features, unguided, guidance, apart, stop };
    let mut choose = |s: usize, _: usize, logits: &[f32]| {
        found.extend_from_slice(logits);
        Ok(labels[s].clone())
    };
    drawing.run(&mut choose, &mut |_| Ok(())).unwrap();
    found
}

#[test]
fn a_seed_gives_the_same_picture_alone_and_beside_others() {
    let transformer = transformer("infinity");
    let bsq = Bsq { d: BITS, folded: false, area: false };
    // Scales of more than 256 cells, where the products are other kernels.
    let schedule = Schedule::of_grid((32, 32)).unwrap();
    let settings = Settings { guidance: vec![3.0, 2.0], temperature: vec![1.0], ..Settings::default() };
    let long = golden("lesson.features");
    let texts = [features(), long, features()];
    let draw = |texts: &[Tensor], seeds: &[u64]| {
        let (guidance, stop) = (&settings.guidance[..], Control::default());
        let drawing = Drawing {
            transformer: &transformer,
            bsq,
            schedule: &schedule,
            features: texts,
            unguided: None,
            guidance,
            apart: false,
            stop,
        };
        drawing.draw(&settings, seeds, &mut |_| Ok(())).unwrap()
    };
    let together = draw(&texts, &[5, 6, 7]);
    for i in 0..3 {
        assert_eq!(draw(&texts[i..i + 1], &[5 + i as u64])[0], together[i], "picture {i}");
    }
    assert_ne!(together[0], together[2]);
}

#[test]
fn a_teacher_hands_over_what_it_predicted_before_the_temperature() {
    let transformer = transformer("infinity");
    let bsq = Bsq { d: BITS, folded: false, area: false };
    let schedule = Schedule::of_grid((14, 21)).unwrap();
    let stop = Control::default();
    let taught = Teacher::Correct.teach(&transformer, bsq, &schedule, &features(), 3, &stop).unwrap();
    // Nothing but the texts is another, so one pass over all scales predicts the same.
    let (texts, _) = transformer.conditioner.forward(&[features()]).unwrap();
    let shape = (1, schedule.total() - 1, BITS);
    let inputs = Tensor::from_vec(taught.inputs.clone(), shape, &Device::Cpu).unwrap();
    let logits = transformer.forward(&texts, &inputs, &schedule, &stop).unwrap();
    assert_close(&taught.logits, &values(&logits), 2e-5, "correct");
    let reference = Teacher::Reference.teach(&transformer, bsq, &schedule, &features(), 3, &stop).unwrap();
    // The first scale has nothing before it.
    assert_close(&reference.logits[..2 * BITS], &taught.logits[..2 * BITS], 1e-6, "first scale");
    assert_ne!(reference.codes, taught.codes);
}

#[test]
fn a_folder_opens_by_its_tensors_whatever_the_files_are_called() {
    let copy = tempfile::tempdir().unwrap();
    let from = folder("infinity");
    let put = |name: &str, to: &str| {
        let to = copy.path().join(to);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(from.join(name), to).unwrap();
    };
    put("infinity.pth", "b.pt");
    put("vae.pth", "infinity_2b_reg.pth");
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        put(&format!("text_encoder/{name}"), &format!("my-t5/{name}"));
    }
    std::fs::write(copy.path().join("notes.bin"), b"no checkpoint").unwrap();
    let files = Files::Folder(copy.path().to_owned());
    assert!(Parts::claims(&files));
    let parts = Parts::find(&files).unwrap();
    assert!(parts.transformer.path().ends_with("b.pt") && parts.vae.path().ends_with("infinity_2b_reg.pth"));
    let text = TextFiles::find(&files).unwrap();
    assert!(text.files().path("").ends_with("my-t5"));
    T5::load(&text.checkpoint().unwrap(), text.config().unwrap(), Format::F32, &Device::Cpu, &mut |_| Ok(())).unwrap();

    put("vae.pth", "again.pth");
    let error = Parts::find(&files).err().unwrap().to_string();
    assert!(
        error.contains("again.pth") && error.contains("infinity_2b_reg.pth") && error.contains("remove one"),
        "{error}"
    );
    std::fs::remove_file(copy.path().join("again.pth")).unwrap();
    std::fs::remove_file(copy.path().join("infinity_2b_reg.pth")).unwrap();
    std::fs::remove_file(copy.path().join("notes.bin")).unwrap();
    let error = Parts::find(&files).err().unwrap().to_string();
    assert!(error.contains("no image tokenizer"), "{error}");
    std::fs::remove_file(copy.path().join("b.pt")).unwrap();
    assert!(!Parts::claims(&files));
    std::fs::remove_dir_all(copy.path().join("my-t5")).unwrap();
    let error = TextFiles::find(&files).err().unwrap().to_string();
    assert!(error.contains("text_encoder") && error.contains("flan-t5-xl"), "{error}");
}

#[test]
fn prompts_are_tokens_with_places_for_learned_vectors() {
    let files = TextFiles::find(&Files::Folder(folder("infinity"))).unwrap();
    let bytes_of = files.files().bytes(&files.name("tokenizer.json")).unwrap();
    let open = |rows: usize| Text::new(words::Text::from_bytes(&bytes_of, Path::new("tokenizer.json")).unwrap(), rows);
    let text = open(112).unwrap();
    let words = [Word { identifier: "[V]".into(), vectors: 0..4 }];
    let plain = text.prompt("a photo of a dog in the snow", &words).unwrap();
    assert_eq!((plain.ids.clone(), plain.vectors.clone()), (bytes("text.ids"), vec![]));
    let learned = text.prompt("a photo of [V] dog in the snow", &words).unwrap();
    // The tokenizer knows 65 tokens: the next row is the spare one.
    let mut expected = bytes("text.ids");
    expected[3] = 65;
    assert_eq!((learned.ids.clone(), learned.vectors.clone()), (expected, vec![(3, 0..4)]));
    assert_eq!(learned.length(), plain.length() + 3);
    assert!(text.prompt("a <placeholder> dog", &words).is_err());
    assert_eq!(text.known("dog").unwrap().map(|ids| ids.len()), Some(1));
    assert_eq!(text.known("dog 7").unwrap(), None);
    let long = text.prompt(&"dog ".repeat(600), &words).unwrap();
    assert_eq!((long.ids.len(), long.ids[511]), (512, 1));
    // Without a row to spare the word is one that the encoder does not know.
    let crowded = open(65).unwrap().prompt("a [V] dog", &words).unwrap();
    assert_eq!((crowded.ids[1], crowded.vectors), (2, vec![(1, 0..4)]));
    assert!(open(40).unwrap().prompt("xyz", &words).is_err());
}

#[test]
fn texts_are_read_once_whether_or_not_their_encoder_stays() {
    let all = Files::Folder(folder("infinity"));
    let open =
        |keep| Encoder::open(TextFiles::find(&all).unwrap(), Format::F32, &Device::Cpu, keep, &mut |_| Ok(())).unwrap();
    let ids = bytes("text.ids");
    for encoder in [open(true), open(false)] {
        let found = encoder.features(&[&ids, &ids[3..]]).unwrap();
        assert_close(&values(&found[0]), &floats("text.features"), 2e-6, "features");
        assert_eq!(values(&encoder.features(&[&ids[3..]]).unwrap()[0]), values(&found[1]));
    }
}

#[test]
fn losses_and_gradients_of_every_weight_and_of_learned_vectors_are_pytorchs() {
    let transformer = transformer("infinity");
    let bsq = Bsq { d: BITS, folded: false, area: false };
    let schedule = Schedule::of_grid((21, 14)).unwrap();
    let scales = schedule.scales();
    let data = floats("lesson.latents");
    let half = data.len() / 2;
    let pictures: Vec<_> = data
        .chunks(half)
        .map(|data| bsq.quantise(&Map { d: BITS, grid: schedule.last(), data: data.to_vec() }, scales, None))
        .collect();
    let inputs: Vec<f32> = pictures.iter().flat_map(|p| p.inputs.concat()).collect();
    let inputs = Tensor::from_vec(inputs, (2, schedule.total() - 1, BITS), &Device::Cpu).unwrap();
    let labels: Vec<u32> =
        pictures.iter().flat_map(|p| p.codes.iter().zip(scales).flat_map(|(c, &s)| bsq.labels(c, s))).collect();
    let cells: Vec<usize> = (0..scales.len()).map(|s| schedule.cells(s)).collect();
    let twice = |list: Vec<f32>| -> Vec<f32> { list.repeat(2).into_iter().map(|w| w / 2.0).collect() };
    let (weights, equal) = (twice(token_weights(&cells, &SCALE_WEIGHTS)), twice(token_weights(&cells, &[1.0])));
    let teacher = floats("lesson.teacher");

    // Two vectors in the place of the third feature.
    let plain = features();
    let behind = plain.narrow(0, 3, plain.dims()[0] - 3).unwrap();
    let first = Tensor::cat(&[plain.narrow(0, 0, 2).unwrap(), golden("lesson.vectors"), behind], 0).unwrap();
    let texts = [first, golden("lesson.features")];
    let drops = vec![(1.0, 1.0), (1.25, 1.0), (0.0, 1.25), (1.0, 0.0)];
    let drops: Vec<[Vec<f32>; 2]> = drops.into_iter().map(|(a, b)| [vec![a, 1.0], vec![b, 1.0]]).collect();

    let lesson = |kind: &str, keep: Keep, how: &str| {
        let mut pass = Pass::new(&transformer, &texts, &inputs, &schedule, Some(drops.clone())).unwrap();
        (0..transformer.depth()).for_each(|i| pass.forward(i, keep).unwrap());
        let of_teacher = |likeness| Objective::Teacher { logits: &teacher, weights: &equal, likeness };
        let objective = match kind {
            "labels" => Objective::Labels { labels: &labels, weights: &weights },
            "bits" => of_teacher(Likeness::Bits),
            _ => of_teacher(Likeness::Joint),
        };
        let what = format!("{kind} {how}");
        let loss = pass.loss(objective, true).unwrap();
        assert_close(&[loss as f32], &floats(&format!("lesson.{kind}.loss")), 2e-6, &what);
        let targets = (0..transformer.weights.len()).map(|weight| Target { part: Part::Whole, weight });
        let wanted = Wanted::new(transformer.weights.len(), targets);
        for index in (0..transformer.depth()).rev() {
            let found = pass.backward(index, &wanted, true).unwrap();
            assert_eq!(found.len(), NAMES.len());
            for (target, gradient) in found {
                let name = format!("lesson.{kind}.{}", transformer.weights[target.weight].spec.name);
                let expected = floats(&name);
                let (all, most) = (values(&gradient), expected.len() - 1);
                let step = (all.len() / 48).max(1);
                let some: Vec<f32> = all.iter().step_by(step).take(most).copied().collect();
                // Beside the largest of the whole, in the mean: some samples are all small.
                let norm = expected[most];
                let gap = some.iter().zip(&expected).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
                let size = norm / (all.len() as f32).sqrt();
                assert!(gap <= 1e-4 * size.max(1e-7), "{what} {name}: {gap} against {size}");
                let length = all.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt() as f32;
                assert!(
                    (length - norm).abs() <= 2e-5 * norm.max(1e-7),
                    "{what} {name}: length {length}, expected {norm}"
                );
            }
        }
        let found = pass.features().unwrap();
        let vectors = found[0].narrow(0, 2, 2).unwrap();
        assert_close(&values(&vectors), &floats(&format!("lesson.{kind}.vectors")), 2e-5, &what);
    };
    for kind in ["labels", "bits", "joint"] {
        lesson(kind, Keep::All, "kept");
        plainly(|| lesson(kind, Keep::All, "plain"));
    }
    lesson("labels", Keep::Input, "computed anew");
}

/// The tiny model by the seam.
fn open(folder: &Path) -> Model {
    let options =
        OpenOptions { device: "cpu".into(), dtype: "f32".into(), keep_quantised: false, ..Default::default() };
    Model::open(folder, &options, &mut Run::new()).unwrap()
}

/// Without recommendations of its own.
fn bare() -> (tempfile::TempDir, Model) {
    let copy = tempfile::tempdir().unwrap();
    std::fs::create_dir(copy.path().join("text_encoder")).unwrap();
    let names = [
        "infinity.pth",
        "vae.pth",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "text_encoder/tokenizer.json",
    ];
    for name in names {
        std::fs::copy(folder("infinity").join(name), copy.path().join(name)).unwrap();
    }
    let model = open(copy.path());
    (copy, model)
}

/// A picture of a size that the tiny model knows.
fn picture(n: u32, width: u32, height: u32) -> Picture {
    let pixel = |i: u32| ((i / 3 % width / 8 + i / 3 / width / 8 + n) % 4 * 64) as u8;
    Picture::new(width, height, (0..width * height * 3).map(pixel).collect()).unwrap()
}

fn tokens_of(latent: &[f32], schedule: &Schedule) -> Tokens {
    let bsq = Bsq { d: BITS, folded: false, area: false };
    let latent = Map { d: BITS, grid: schedule.last(), data: latent.to_vec() };
    let codes = bsq.quantise(&latent, schedule.scales(), None).codes.concat();
    let grids: Vec<(u32, u32)> = schedule.scales().iter().map(|&(h, w)| (h as u32, w as u32)).collect();
    Tokens::of_grids(&grids, codes).unwrap()
}

#[test]
fn the_seam_opens_encodes_decodes_and_scores() {
    let model = open(&folder("infinity"));
    let info = model.info();
    assert_eq!((info.family, info.codebook, info.grid_unit_px, info.vocabulary), ("infinity", 256, 4, 112));
    let fitted = model.fit(&picture(0, 100, 70), 64, Default::default()).unwrap();
    assert_eq!((fitted.width(), fitted.height()), (84, 56));
    let tokens = model.encode(&fitted, &Run::new()).unwrap();
    assert_eq!((tokens.grids().len(), tokens.height(), tokens.width()), (7, 14, 21));
    let whole = model.decode(&tokens, &Run::new()).unwrap();
    assert_eq!((whole.width(), whole.height()), (84, 56));
    // A picture that is not all there is a small one.
    let some = Tokens::of_grids(&tokens.grids()[..4], tokens.codes()[..35].to_vec()).unwrap();
    let small = model.decode(&some, &Run::new()).unwrap();
    assert_eq!((small.width(), small.height()), (24, 16));

    let (key, schedule, bsq, _, _) = drawings().swap_remove(0);
    let tokens = tokens_of(&latent(&key, &schedule, bsq).data, &schedule);
    let transformer = transformer("infinity");
    let (texts, _) = transformer.conditioner.forward(&[features()]).unwrap();
    let quantised = bsq.quantise(&latent(&key, &schedule, bsq), schedule.scales(), None);
    let inputs = Tensor::from_vec(quantised.inputs.concat(), (1, schedule.total() - 1, BITS), &Device::Cpu).unwrap();
    let logits = values(&transformer.forward(&texts, &inputs, &schedule, &Control::default()).unwrap());
    let nats = bit_nats(&logits, &bytes(&format!("{key}labels")));
    let mean = nats.iter().map(|&n| f64::from(n)).sum::<f64>() / nats.len() as f64;
    let view = Personalized::new(&model, &[]).unwrap();
    let scores = view.score("a photo of a dog in the snow", std::slice::from_ref(&tokens), &mut Run::new()).unwrap();
    assert!((f64::from(scores[0]) - mean).abs() < 1e-6, "{} and {mean}", scores[0]);
    let error = view.score("a dog", &[some], &mut Run::new()).unwrap_err().to_string();
    assert!(error.contains("4x6 codes"), "{error}");
    let error = model.encode(&picture(0, 64, 60), &Run::new()).unwrap_err().to_string();
    assert!(error.contains("64x60") && error.contains("64x64"), "{error}");
}

#[test]
fn the_seam_draws_grid_after_grid_alike_alone_and_beside_others() {
    let model = open(&folder("infinity"));
    let view = Personalized::new(&model, &[]).unwrap();
    let options = sample::Options { count: 2, seed: 4, ..sample::Options::for_model(&model).unwrap() };
    let canvas = Canvas::default();
    let mut known = Vec::new();
    let mut run = Run::with_events(|event| {
        known.push((event.done, event.total, canvas.rows(3).map_or(0, |tokens| tokens.height())));
        Flow::Continue
    })
    .drawing_on(canvas.clone());
    let drawn = draw_pictures(&view, &["a dog", "the red cat in the snow"], &options, &mut run).unwrap();
    drop(run);
    let expected = [(1, 1), (5, 2), (21, 4), (57, 6), (121, 8), (265, 12), (521, 16)];
    assert_eq!(known, expected.map(|(done, height)| (done, 521, height)));
    assert_eq!(drawn.len(), 4);
    let alone = sample::Options { count: 1, seed: drawn[3].seed, ..options.clone() };
    let again = draw_pictures(&view, &["the red cat in the snow"], &alone, &mut Run::new()).unwrap();
    assert_eq!(again[0].tokens, drawn[3].tokens);
    assert_ne!(drawn[0].tokens, drawn[1].tokens);
    model.decode(&drawn[0].tokens, &Run::new()).unwrap();
    let wrong = sample::Options { decoding: sample::Decoding::Speculative, ..options.clone() };
    let error = draw_pictures(&view, &["a dog"], &wrong, &mut Run::new()).unwrap_err().to_string();
    assert!(error.contains("scale after scale"), "{error}");
    let wrong = sample::Options { width: 60, ..options };
    assert!(draw_pictures(&view, &["a dog"], &wrong, &mut Run::new()).is_err());
    let mut run = Run::with_events(|_| Flow::Cancel);
    let cancelled = draw_pictures(&view, &["a dog"], &sample::Options::for_model(&model).unwrap(), &mut run);
    assert!(matches!(cancelled, Err(Error::Cancelled)));
}

#[test]
fn steps_of_training_are_pytorchs_for_every_set_of_weights() {
    let (_folder, model) = bare();
    let drawing = sample::Options::for_model(&model).unwrap();
    assert_eq!((drawing.width, drawing.guidance, drawing.temperature), (256, 3.0, 0.5));
    let teaching = TrainingOptions::for_model(&model, Method::TwoStage).unwrap();
    assert_eq!((teaching.image_size, teaching.trainable.name()), (256, "arbooth"));
    let schedule = Schedule::of_grid((11, 22)).unwrap();
    let data = floats("steps.latents");
    let pictures: Vec<Tokens> = data.chunks(data.len() / 2).map(|latent| tokens_of(latent, &schedule)).collect();
    let first = golden("steps.vectors");
    for set in ["arbooth", "self_attention", "all"] {
        let options = TrainingOptions {
            class_word: "dog".into(),
            embedding_vectors: 2,
            embedding_learning_rate: 2e-3,
            layer_learning_rate: 2e-3,
            trainable: Trainable::parse(set).unwrap(),
            adaptation: Adaptation::Full,
            train_embedding_in_layer_stage: true,
            batch_size: 2,
            dropout: 0.0,
            z_loss: 0.0,
            weight_decay: 0.0,
            clip_norm: 0.0,
            warmup_steps: 0,
            beta1: 0.9,
            beta2: 0.999,
            layer_stride: 1,
            image_size: 64,
            ..TrainingOptions::new(Method::TwoStage)
        };
        let mut learner = Learner::layers(&model, &options, &first).unwrap();
        let losses: Vec<f32> = (0..3)
            .map(|_| {
                let prompts = ["a photo of a [V] dog", "a red cat in the snow"];
                let examples = prompts.iter().zip(&pictures).map(|(p, t)| learner.view().example(p, t).unwrap());
                let batch = Batch { subject: examples.collect(), prior: vec![] };
                learner.step(&batch, &Run::new()).unwrap().loss
            })
            .collect();
        assert_close(&losses, &floats(&format!("steps.{set}.losses")), 1e-5, set);
        let state = learner.state().unwrap();
        let moved = (state["value.vectors"].clone() - &first).unwrap();
        assert_close(&values(&moved), &floats(&format!("steps.{set}.vectors")), 2e-3, set);
        let each = match set {
            "all" => 19,
            "arbooth" => 10,
            _ => 6,
        };
        assert_eq!(assert_moved(&model, &state, &format!("steps.{set}")), 4 * each, "{set}");
    }
}

#[test]
fn of_a_cut_out_the_loss_is_that_of_the_cells_that_show_it() {
    for name in ["infinity", "infinity_folded"] {
        let model = open(&folder(name));
        let tokens = model.encode(&picture(1, 64, 64), &Run::new()).unwrap();
        let cells = tokens.codes().len();
        // The upper half of each grid, in pairs of rows: a token may be of four cells.
        let upper = |(h, w): (u32, u32)| (0..h * w).map(move |i| f32::from(u8::from(i / w / 2 * 4 < h)));
        let shown: Vec<f32> = tokens.grids().into_iter().flat_map(upper).collect();
        let options = TrainingOptions {
            class_word: "dog".into(),
            image_size: 64,
            dropout: 0.0,
            self_correction: 0.0,
            scale_weights: vec![],
            ..TrainingOptions::new(Method::TextualInversion)
        };
        let vectors = Tensor::ones((1, model.facts().width), DType::F32, &Device::Cpu).unwrap();
        let mut learner = Learner::embedding(&model, &options, &vectors).unwrap();
        let whole = learner.view().example("a photo of a [V] dog", &tokens).unwrap();
        let cut_out =
            learner.view().example("a photo of a [V] dog", &tokens.clone().with_shown(shown.clone())).unwrap();
        assert_eq!((whole.learned(), cut_out.learned() < cells), (cells, true));
        let nats = learner.view().nats(&[&whole], &Control::default()).unwrap();
        let expected = nats.iter().zip(&shown).map(|(n, s)| n * s).sum::<f32>() / cut_out.learned() as f32;
        let mean = nats.iter().sum::<f32>() / cells as f32;
        assert!((expected / mean - 1.0).abs() > 1e-4, "{name}: the halves do not differ");
        let loss = learner.step(&Batch { subject: vec![cut_out], prior: vec![] }, &Run::new()).unwrap().loss;
        assert_close(&[loss], &[expected], 1e-5, name);
    }
}

#[test]
fn every_method_teaches_it_and_subjects_come_back_from_their_files() {
    let model = open(&folder("infinity"));
    let dataset = Dataset::new((0..2).map(|n| picture(n, 64, 64)).collect()).unwrap();
    let tokens = model.encode(&dataset.pictures()[0], &Run::new()).unwrap();
    let score = |subject: &Subject| {
        let view = Personalized::new(&model, &[subject]).unwrap();
        view.score("a photo of a [V] dog", std::slice::from_ref(&tokens), &mut Run::new()).unwrap()[0]
    };
    let options = |method: Method, trainable: &str| {
        let preset = TrainingOptions::for_model(&model, method).unwrap();
        TrainingOptions {
            class_word: "dog".into(),
            image_size: 64,
            embedding_steps: preset.embedding_steps.min(3),
            layer_steps: preset.layer_steps.min(8),
            embedding_learning_rate: 0.05,
            layer_learning_rate: 2e-3,
            trainable: Trainable::parse(trainable).unwrap(),
            templates: vec!["a photo of a {}".into()],
            batch_size: 1,
            seed: 3,
            ..preset
        }
    };
    let teach = |options: &TrainingOptions| train(&model, &dataset, options, &mut Run::new()).unwrap();
    for method in Method::ALL {
        let subject = teach(&options(method, "arbooth"));
        if options(method, "arbooth").layer_steps > 0 {
            assert!(score(&subject) < score(&subject.without_layers()), "{method:?}");
        }
    }
    let low_rank =
        TrainingOptions { adaptation: Adaptation::LowRank, lora_rank: 4, ..options(Method::TwoStage, "all") };
    let subject = teach(&low_rank);
    assert_eq!(subject.changes.len(), 4 * 7);
    assert!(score(&subject) < score(&subject.without_layers()));
    let copy = tempfile::tempdir().unwrap();
    let file = copy.path().join("subject.safetensors");
    subject.save(&file).unwrap();
    assert_eq!(score(&Subject::load(&file).unwrap()), score(&subject));
    let prior =
        TrainingOptions { prior_weight: 0.5, prior_count: 2, layer_steps: 2, ..options(Method::Dreambooth, "mlp") };
    assert_eq!(teach(&prior).changes.len(), 4 * 4);
}

#[test]
fn every_format_of_the_weights_opens_and_is_near() {
    let model = open(&folder("infinity"));
    let (key, schedule, bsq, _, _) = drawings().swap_remove(0);
    let tokens = [tokens_of(&latent(&key, &schedule, bsq).data, &schedule)];
    let score =
        |model: &Model| Personalized::new(model, &[]).unwrap().score("a red dog", &tokens, &mut Run::new()).unwrap()[0];
    let exact = score(&model);
    // Of bf16 the weights are exact; what they are multiplied with is rounded to eight bits where the processor multiplies bf16.
    for (dtype, tolerance) in [("bf16", 1e-3), ("q8_0", 1e-2)] {
        let options =
            OpenOptions { device: "cpu".into(), dtype: dtype.into(), keep_quantised: false, ..Default::default() };
        let other = Model::open(folder("infinity"), &options, &mut Run::new()).unwrap();
        let found = score(&other);
        assert!((found / exact - 1.0).abs() < tolerance, "{dtype}: {found} and {exact}");
    }
}

/// What a model's predictions differ by from its teacher's.
fn divergence(family: &dyn Family, vectors: Option<&Tensor>, taught: &Example, teacher: Teacher) -> f64 {
    let weight = 1.0 / taught.labelled.len() as f32;
    let how = Mode { by_scale: ByScale { teacher, ..ByScale::default() }, ..Mode::default() };
    let mut pass = family.pass(&[(taught, weight)], vectors, &how).unwrap();
    (0..family.facts().layers).for_each(|layer| pass.forward(layer, Keep::All).unwrap());
    let loss = pass.loss(&FamilyObjective { with_gradient: true, z_loss: 0.0 }).unwrap();
    assert_eq!(loss.nats.len(), taught.labelled.len());
    loss.total
}

#[test]
fn a_student_that_did_not_change_has_nothing_to_learn_from_a_correct_teacher() {
    let model = open(&folder("infinity"));
    let run = Run::new();
    let loss =
        |taught: &Example, weights, teacher| divergence(model.family().with(weights).as_ref(), None, taught, teacher);
    let condition = model.family().condition("a photo of a dog", &[], 64, 64).unwrap();
    let taught = model.family().teach(&condition, (64, 64), 5, Teacher::Correct, &run.control()).unwrap().unwrap();
    let original = model.family().weights().clone();
    assert!(loss(&taught, original.clone(), Teacher::Correct).abs() < 1e-7);
    let mut changed = original.clone();
    let entry = changed.entry_mut(3 * NAMES.len() + 17);
    entry.weight = (entry.weight.to_f32().unwrap() * 3.0).unwrap().into();
    assert!(loss(&taught, changed, Teacher::Correct) > 1e-4);

    // The published teacher is another one even to its own pupil.
    let teacher = Teacher::Reference;
    let taught = model.family().teach(&condition, (64, 64), 5, teacher, &run.control()).unwrap().unwrap();
    assert!(loss(&taught, original, teacher) > 1e-3);
}

/// The numbers of a state beside a golden: what each weight of a set moved by.
fn assert_moved(model: &Model, state: &BTreeMap<String, Tensor>, golden: &str) -> usize {
    let mut learned = 0;
    for entry in model.family().weights().iter() {
        let name = &entry.spec.name;
        let Some(value) = state.get(&format!("value.{name}")) else { continue };
        learned += 1;
        let moved = values(&(value - entry.weight.to_f32().unwrap()).unwrap());
        let expected = floats(&format!("{golden}.{name}"));
        let most = expected.len() - 1;
        let step = (moved.len() / 24).max(1);
        let some: Vec<f32> = moved.iter().step_by(step).take(most).copied().collect();
        // A strength at its limit has no gradient.
        if expected[most] > 0.0 {
            assert_close(&some, &expected[..most], 1e-2, &format!("{golden} {name}"));
            let length = moved.iter().map(|x| x * x).sum::<f32>().sqrt();
            assert!((length / expected[most] - 1.0).abs() < 1e-3, "{golden} {name}: {length}");
        }
    }
    learned
}

#[test]
fn steps_of_arbooth_with_either_teacher_are_pytorchs() {
    let (_folder, model) = bare();
    assert_eq!(Method::recommended(model.recommended()), Method::Arbooth);
    let published = TrainingOptions::for_model(&model, Method::Arbooth).unwrap();
    assert_eq!((published.embedding_vectors, published.layer_steps, published.batch_size), (4, 500, 2));
    let schedule = Schedule::of_grid((11, 22)).unwrap();
    let data = floats("arbooth.latents");
    let pictures: Vec<Tokens> = data.chunks(data.len() / 2).map(|latent| tokens_of(latent, &schedule)).collect();
    for teacher in Teacher::ALL {
        let name = format!("arbooth.{}", teacher.name());
        let options = TrainingOptions {
            class_word: "dog".into(),
            dropout: 0.0,
            self_correction: 0.0,
            scale_weights: SCALE_WEIGHTS.into(),
            teacher,
            ..published.clone()
        };
        let first = Tensor::zeros((4, 128), DType::F32, &Device::Cpu).unwrap();
        let mut learner = Learner::layers(&model, &options, &first).unwrap();
        let mut step = || {
            let subject = learner.view().example("a photo of [V] dog", &pictures[0]).unwrap();
            let mut class = learner.view().example("a photo of dog", &pictures[1]).unwrap();
            class.teacher = Beside(Some(Arc::new(floats("arbooth.teacher"))));
            learner.step(&Batch { subject: vec![subject], prior: vec![class] }, &Run::new()).unwrap().loss
        };
        let losses: Vec<f32> = (0..3).map(|_| step()).collect();
        assert_eq!(learner.steps(), 3);
        assert_close(&losses, &floats(&format!("{name}.losses")), 1e-5, &name);
        let state = learner.state().unwrap();
        assert_close(&values(&state["value.vectors"]), &floats(&format!("{name}.vectors")), 2e-3, &name);
        assert_eq!(assert_moved(&model, &state, &name), 4 * 10);
    }
}

/// A training by ARBooth that is over in a moment.
fn short(model: &Model) -> TrainingOptions {
    TrainingOptions {
        class_word: "dog".into(),
        image_size: 64,
        layer_steps: 4,
        layer_learning_rate: 2e-3,
        batch_size: 1,
        seed: 3,
        ..TrainingOptions::for_model(model, Method::Arbooth).unwrap()
    }
}

fn two_pictures() -> Dataset {
    Dataset::new((0..2).map(|n| picture(n, 64, 64)).collect()).unwrap()
}

#[test]
fn an_interrupted_training_with_distillation_goes_on_to_the_same_subject() {
    let model = open(&folder("infinity"));
    let place = tempfile::tempdir().unwrap();
    let options = short(&model);
    let whole = train(&model, &two_pictures(), &options, &mut Run::new()).unwrap();
    let path = Some(place.path().join("training.safetensors"));
    let saving = TrainingOptions { checkpoint_every: 1, checkpoint_path: path, ..options };
    let mut run = Run::with_events(|event| match (event.stage, event.done) {
        (Stage::Layers, 3) => Flow::Cancel,
        _ => Flow::Continue,
    });
    let cancelled = train(&model, &two_pictures(), &saving, &mut run);
    assert!(matches!(cancelled, Err(Error::Cancelled)));
    drop(run);
    let resumed = train(&model, &two_pictures(), &saving, &mut Run::new()).unwrap();
    assert_eq!(values(&resumed.vectors), values(&whole.vectors));
    assert_eq!(resumed.losses.len(), 4);
    for (name, change) in &whole.changes {
        let (Change::Delta(a), Change::Delta(b)) = (change, &resumed.changes[name]) else { panic!("{name}") };
        assert_eq!(values(a), values(b), "{name}");
    }
}

#[test]
fn vectors_of_arbooth_start_at_zero() {
    let model = open(&folder("infinity"));
    let options = TrainingOptions { embedding_learning_rate: 0.0, layer_steps: 1, ..short(&model) };
    let subject = train(&model, &two_pictures(), &options, &mut Run::new()).unwrap();
    assert_eq!((subject.vectors.dims(), values(&subject.vectors)), (&[4, 128][..], vec![0.0; 512]));
    let noisy = train(&model, &two_pictures(), &TrainingOptions { initial_noise: 1.0, ..options }, &mut Run::new());
    assert!(values(&noisy.unwrap().vectors).iter().all(|x| *x != 0.0));
}

#[test]
fn distillation_keeps_what_the_model_predicts_of_the_class() {
    let model = open(&folder("infinity"));
    // From pictures of the untouched model, what was predicted of them before and after a training.
    let view = Personalized::new(&model, &[]).unwrap();
    let condition = view.condition("a photo of dog", 64, 64).unwrap();
    let teach = |seed| view.family.teach(&condition, (64, 64), seed, Teacher::Correct, &Control::default());
    let examples: Vec<Example> = (100..104).map(|seed| teach(seed).unwrap().unwrap()).collect();
    let drift = |prior_weight: f64| -> f64 {
        let options = TrainingOptions { prior_weight, layer_steps: 20, ..short(&model) };
        let subject = train(&model, &two_pictures(), &options, &mut Run::new()).unwrap();
        let taught = Personalized::new(&model, &[&subject]).unwrap();
        let of = |e: &Example| divergence(taught.family.as_ref(), taught.vectors.as_ref(), e, Teacher::Correct);
        examples.iter().map(of).sum::<f64>() / examples.len() as f64
    };
    let (with, without) = (drift(1.0), drift(0.0));
    assert!(with < 0.8 * without, "{with} with distillation, {without} without");
}

#[test]
fn options_that_mean_nothing_to_a_family_are_refused_with_those_that_do() {
    let model = open(&folder("infinity"));
    let wrong = TrainingOptions { z_loss: 1e-5, ..short(&model) };
    let error = train(&model, &two_pictures(), &wrong, &mut Run::new()).unwrap_err().to_string();
    assert!(error.contains("z_loss") && error.contains("prior_distillation, teacher, scale_weights"), "{error}");
    let embedded = Model::open("embedded:", &OpenOptions::default(), &mut Run::new()).unwrap();
    let wrong = TrainingOptions { class_word: "fox".into(), ..TrainingOptions::new(Method::Arbooth) };
    let error = train(&embedded, &two_pictures(), &wrong, &mut Run::new()).unwrap_err().to_string();
    assert!(
        error.contains("prior_distillation") && error.contains("lumina-mgpt draws code after code and knows z_loss"),
        "{error}"
    );
}
