//! Infinity as its users meet it: options of drawing and opening, sizes, batches, and folders right and wrong. Its numbers are in
//! tests/infinity.rs.

use candle_core::{safetensors, DType, Device, Tensor};
use sitter::canvas::Canvas;
use sitter::estimate::{Estimate, Request};
use sitter::model::infinity::schedule::Schedule;
use sitter::model::outline::Outline;
use sitter::model::personalized::Personalized;
use sitter::model::{Model, OpenOptions, TextEncoder};
use sitter::personalize::{Dataset, Method, Options as TrainingOptions};
use sitter::picture::Picture;
use sitter::run::{Control, Flow, Run, Stage};
use sitter::sample::{self, draw_pictures, Decoding, Sample};
use sitter::{train, Error};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tempfile::TempDir;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn how(text_encoder: TextEncoder) -> OpenOptions {
    OpenOptions { device: "cpu".into(), dtype: "f32".into(), text_encoder, ..Default::default() }
}

fn open(folder: &Path) -> Model {
    Model::open(folder, &how(TextEncoder::Auto), &mut Run::new()).unwrap()
}

fn draw(model: &Model, prompts: &[&str], options: &sample::Options) -> sitter::Result<Vec<Sample>> {
    draw_pictures(&Personalized::new(model, &[]).unwrap(), prompts, options, &mut Run::new())
}

fn options(model: &Model) -> sample::Options {
    sample::Options { seed: 3, ..sample::Options::for_model(model).unwrap() }
}

/// The message of an error about a field.
#[track_caller]
fn refused<T: std::fmt::Debug>(result: sitter::Result<T>, field: &str) -> String {
    match result.unwrap_err() {
        Error::InvalidArgument { field: found, message } if found == field => message,
        other => panic!("{other} is not about {field}"),
    }
}

/// A copy of a golden folder; `rename` gives the names of its files in the copy, None for those that are left out.
fn copied(name: &str, rename: impl Fn(&str) -> Option<String>) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    let mut names = vec![];
    let from = golden(name);
    for entry in std::fs::read_dir(&from).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        match entry.path().is_dir() {
            false => names.push(name),
            true => names.extend(
                std::fs::read_dir(entry.path())
                    .unwrap()
                    .map(|inner| format!("{name}/{}", inner.unwrap().file_name().into_string().unwrap())),
            ),
        }
    }
    for name in names {
        if let Some(new) = rename(&name) {
            let to = copy.path().join(new);
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(from.join(&name), to).unwrap();
        }
    }
    copy
}

fn as_it_is(name: &str) -> TempDir {
    copied(name, |file| Some(file.into()))
}

/// A file of safetensors with other tensors.
fn change(file: &Path, change: impl FnOnce(&mut HashMap<String, Tensor>)) {
    let mut tensors = safetensors::load(file, &Device::Cpu).unwrap();
    change(&mut tensors);
    safetensors::save(&tensors, file).unwrap();
}

fn picture(n: u32, width: u32, height: u32) -> Picture {
    let pixel = |i: u32| ((i / 3 % width / 8 + i / 3 / width / 8 + n) % 4 * 64) as u8;
    Picture::new(width, height, (0..width * height * 3).map(pixel).collect()).unwrap()
}

// Options of drawing.

#[test]
fn guidance_and_temperature_are_one_for_all_scales_or_one_for_each() {
    let model = open(&golden("infinity"));
    let base = options(&model);
    assert_eq!((base.guidance, base.temperature, base.top_p, base.top_k), (3.0, 0.5, 0.97, 0));
    let tokens = |o: &sample::Options| draw(&model, &["a red dog"], o).unwrap().swap_remove(0).tokens;
    let plain = tokens(&base);
    let lists = |guidance: &[f32], temperature: &[f32]| sample::Options {
        guidance_by_scale: guidance.into(),
        temperature_by_scale: temperature.into(),
        ..base.clone()
    };
    // The same for each scale, however it is said; the last value counts for those behind.
    assert_eq!(tokens(&lists(&[3.0], &[])), plain);
    assert_eq!(tokens(&lists(&[3.0; 7], &[0.5; 3])), plain);
    // A value of its own begins where it stands: what is drawn before is the same.
    for changed in [lists(&[3.0, 3.0, 3.0, 3.0, 30.0], &[]), lists(&[], &[0.5, 0.5, 0.5, 0.5, 50.0])] {
        let other = tokens(&changed);
        assert_eq!(other.codes()[..57], plain.codes()[..57]);
        assert_ne!(other.codes()[57..121], plain.codes()[57..121]);
    }
    // Without guidance anywhere there is no second branch, and with it somewhere a scale of its own may do without.
    let free = sample::Options { guidance: 1.0, ..base.clone() };
    assert!(!free.guided() && !lists(&[1.0, 1.0], &[]).guided() && lists(&[1.0, 2.0], &[]).guided());
    assert_eq!(tokens(&lists(&[1.0], &[])), tokens(&free));
    assert_eq!(tokens(&lists(&[1.0, 1.0, 3.0], &[])).codes()[..5], tokens(&free).codes()[..5]);

    let said = refused(draw(&model, &["a dog"], &lists(&[3.0; 8], &[])), "guidance_by_scale");
    assert!(said.contains("8 values") && said.contains("64x64 pixels has 7 scales"), "{said}");
    refused(draw(&model, &["a dog"], &lists(&[], &[0.5; 14])), "temperature_by_scale");
    refused(draw(&model, &["a dog"], &lists(&[3.0, -1.0], &[])), "guidance_by_scale");
    refused(draw(&model, &["a dog"], &lists(&[], &[0.5, f32::NAN])), "temperature_by_scale");
}

#[test]
fn unlikely_bits_are_never_drawn_and_at_0_the_likeliest_always() {
    let model = open(&golden("infinity"));
    let tokens = |seed: u64, top_p: f32| {
        let hot = sample::Options { seed, top_p, temperature: 2.0, ..options(&model) };
        draw(&model, &["a dog"], &hot).unwrap().swap_remove(0).tokens
    };
    assert_eq!(tokens(1, 0.0), tokens(2, 0.0));
    assert_ne!(tokens(1, 1.0), tokens(2, 1.0));
    assert_ne!(tokens(1, 1.0), tokens(1, 0.6));
    let wrong = sample::Options { top_p: 1.5, ..options(&model) };
    refused(draw(&model, &["a dog"], &wrong), "top_p");
}

#[test]
fn options_of_the_other_way_of_drawing_are_refused_with_those_that_are_known() {
    let model = open(&golden("infinity"));
    for (field, set) in [
        ("top_k", (|o| o.top_k = 900) as fn(&mut sample::Options)),
        ("decoding", |o| o.decoding = Decoding::Speculative),
    ] {
        let mut wrong = options(&model);
        set(&mut wrong);
        let said = refused(draw(&model, &["a dog"], &wrong), field);
        assert!(said.contains("scale after scale") && said.contains("guidance_by_scale"), "{said}");
    }
    let other = open(Path::new("embedded:"));
    for (field, set) in [
        ("guidance_by_scale", (|o| o.guidance_by_scale = vec![3.0, 2.0]) as fn(&mut sample::Options)),
        ("temperature_by_scale", |o| o.temperature_by_scale = vec![1.0]),
        ("top_p", |o| o.top_p = 0.97),
    ] {
        let mut wrong = options(&other);
        set(&mut wrong);
        let said = refused(draw(&other, &["a fox"], &wrong), field);
        assert!(said.contains("code by code") && said.contains("top_k"), "{said}");
    }
}

#[test]
fn what_made_a_picture_is_told_with_the_lists() {
    let model = open(&golden("infinity"));
    let view = Personalized::new(&model, &[]).unwrap();
    let set = sample::Options { guidance_by_scale: vec![4.0, 2.5], ..options(&model) };
    let drawn = draw(&model, &["a dog"], &set).unwrap();
    let told: serde_json::Value = serde_json::from_str(&drawn[0].provenance(&view, &set).1).unwrap();
    assert_eq!(told["guidance_by_scale"], serde_json::json!([4.0, 2.5]));
    assert_eq!((told["top_p"].as_f64(), told.get("temperature_by_scale")), (Some(0.97), None));
}

#[test]
fn every_size_of_the_table_is_drawn_and_one_that_is_none_names_the_nearest() {
    let model = open(&golden("infinity"));
    let smallest: Vec<Schedule> = Schedule::all().into_iter().filter(|s| s.scales().len() == 7).collect();
    assert_eq!(smallest.len(), 15);
    for schedule in smallest {
        let (h, w) = schedule.last();
        let size = sample::Options { width: w as u32 * 4, height: h as u32 * 4, ..options(&model) };
        let drawn = draw(&model, &["a dog"], &size).unwrap().swap_remove(0).tokens;
        let grids: Vec<(usize, usize)> = drawn.grids().iter().map(|&(h, w)| (h as usize, w as usize)).collect();
        assert_eq!(grids, schedule.scales());
        let shown = model.decode(&drawn, &Run::new()).unwrap();
        assert_eq!((shown.width(), shown.height()), (size.width, size.height));
        let again = model.encode(&shown, &Run::new()).unwrap();
        assert_eq!(again.grids(), drawn.grids());
    }
    let wrong = sample::Options { width: 70, height: 64, ..options(&model) };
    let said = draw(&model, &["a dog"], &wrong).unwrap_err().to_string();
    assert!(said.contains("70x64") && said.contains("64x64") && said.contains("80x64"), "{said}");
}

#[test]
fn tokens_whose_grids_are_none_of_the_models_are_refused() {
    let model = open(&golden("infinity"));
    let tokens = draw(&model, &["a dog"], &options(&model)).unwrap().swap_remove(0).tokens;
    let last = sitter::tokens::Tokens::new(16, 16, tokens.codes()[265..].to_vec()).unwrap();
    let said = refused(model.decode(&last, &Run::new()), "tokens");
    assert!(said.contains("16x16"), "{said}");
    let mut codes = tokens.codes().to_vec();
    codes[100] = 256;
    let wide = sitter::tokens::Tokens::of_grids(&tokens.grids(), codes).unwrap();
    let said = refused(model.decode(&wide, &Run::new()), "tokens");
    assert!(said.contains("256") && said.contains("8 bits"), "{said}");
}

#[test]
fn a_seed_gives_the_same_picture_alone_and_among_prompts_of_other_lengths() {
    for name in ["infinity", "infinity_folded"] {
        let model = open(&golden(name));
        let prompts = ["a dog", "a photo of the red cat in the snow", "the snow"];
        let together = sample::Options { count: 2, ..options(&model) };
        let drawn = draw(&model, &prompts, &together).unwrap();
        for (i, one) in drawn.iter().enumerate() {
            let alone = sample::Options { count: 1, seed: one.seed, ..together.clone() };
            let again = draw(&model, &[prompts[i / 2]], &alone).unwrap().swap_remove(0);
            assert_eq!((&again.tokens, again.prompt.as_str()), (&one.tokens, prompts[i / 2]), "{name}, picture {i}");
        }
    }
}

#[test]
fn a_preview_after_every_scale_is_a_picture_that_grows() {
    let model = open(&golden("infinity_folded"));
    let view = Personalized::new(&model, &[]).unwrap();
    let canvas = Canvas::default();
    let mut seen = Vec::new();
    let mut run = Run::with_events(|event| {
        assert_eq!((event.stage, event.total), (Stage::Sample, 4 * 521));
        let tokens = canvas.rows(1).unwrap();
        let shown = model.decode(&tokens, &Run::new()).unwrap();
        seen.push((tokens.grids().len(), shown.width()));
        Flow::Continue
    })
    .drawing_on(canvas.clone());
    let two = sample::Options { count: 2, ..options(&model) };
    let drawn = draw_pictures(&view, &["a dog"], &two, &mut run).unwrap();
    drop(run);
    assert_eq!(seen, [(1, 4), (2, 8), (3, 16), (4, 24), (5, 32), (6, 48), (7, 64)]);
    assert_eq!(canvas.rows(1), Some(drawn[1].tokens.clone()));
}

#[test]
fn drawing_is_cancelled_between_scales_and_within_one() {
    let model = open(&golden("infinity"));
    let view = Personalized::new(&model, &[]).unwrap();
    let mut events = 0;
    let mut between = Run::with_events(|_| {
        events += 1;
        if events == 3 {
            Flow::Cancel
        } else {
            Flow::Continue
        }
    });
    let cancelled = draw_pictures(&view, &["a dog"], &options(&model), &mut between);
    assert!(matches!(cancelled, Err(Error::Cancelled)));
    drop(between);
    assert_eq!(events, 3);

    // The last scales of a large picture take much longer than what is waited for here.
    let large = sample::Options { width: 256, height: 256, count: 4, ..options(&model) };
    let (control, canvas) = (Control::default(), Canvas::default());
    let asked = std::thread::scope(|scope| {
        let drawing = scope.spawn(|| {
            let mut run = Run::new().controlled_by(control.clone()).drawing_on(canvas.clone());
            draw_pictures(&view, &["a dog"], &large, &mut run).map(drop)
        });
        while canvas.rows(0).is_none_or(|tokens| tokens.grids().len() < 11) && !drawing.is_finished() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
        let asked = Instant::now();
        control.cancel();
        assert!(matches!(drawing.join().unwrap(), Err(Error::Cancelled)));
        asked
    });
    assert!(canvas.rows(0).unwrap().grids().len() < 13, "it was done before it was cancelled");
    assert!(asked.elapsed().as_secs_f32() < 2.0, "{:?}", asked.elapsed());
}

// Options of opening.

#[test]
fn a_text_encoder_that_is_unloaded_gives_the_same_pictures_and_is_not_read_again_for_known_texts() {
    let folder = as_it_is("infinity");
    let open = |text_encoder| Model::open(folder.path(), &how(text_encoder), &mut Run::new());
    let (kept, unloaded) = (open(TextEncoder::Keep).unwrap(), open(TextEncoder::Unload).unwrap());
    assert_eq!(kept.fingerprint(), unloaded.fingerprint());
    let drawn = draw(&unloaded, &["a dog"], &options(&kept)).unwrap();
    assert_eq!(drawn, draw(&kept, &["a dog"], &options(&kept)).unwrap());
    let weights = folder.path().join("text_encoder/model.safetensors");
    std::fs::remove_file(&weights).unwrap();
    assert_eq!(draw(&unloaded, &["a dog"], &options(&kept)).unwrap(), drawn);
    draw(&kept, &["a cat"], &options(&kept)).unwrap();
    let said = draw(&unloaded, &["a cat"], &options(&kept)).unwrap_err().to_string();
    assert!(said.contains("model.safetensors"), "{said}");
    let said = open(TextEncoder::Keep).err().unwrap().to_string();
    assert!(said.contains("model.safetensors"), "{said}");
}

#[test]
fn a_training_reads_its_texts_once_before_it_learns() {
    let folder = as_it_is("infinity");
    let model = Model::open(folder.path(), &how(TextEncoder::Unload), &mut Run::new()).unwrap();
    let dataset = Dataset::new((0..2).map(|n| picture(n, 64, 64)).collect()).unwrap();
    let options = TrainingOptions {
        class_word: "dog".into(),
        image_size: 64,
        embedding_steps: 12,
        layer_steps: 12,
        per_image_tokens: true,
        prior_weight: 0.5,
        prior_count: 2,
        batch_size: 2,
        ..TrainingOptions::for_model(&model, Method::TwoStage).unwrap()
    };
    let weights = folder.path().join("text_encoder/model.safetensors");
    let mut run = Run::with_events(|event| {
        if event.stage == Stage::Encode && weights.exists() {
            std::fs::remove_file(&weights).unwrap();
        }
        Flow::Continue
    });
    let subject = train(&model, &dataset, &options, &mut run).unwrap();
    drop(run);
    assert_eq!(subject.losses.len(), 24);
    assert!(!weights.exists());
}

#[test]
fn a_text_encoder_counts_in_estimates_while_it_stays() {
    let of = |text_encoder| {
        let outline = Outline::read(golden("infinity"), &how(text_encoder)).unwrap();
        let sample = sample::Options::recommended(&outline.recommended).unwrap();
        let train = TrainingOptions::recommended(&outline.recommended, Method::TwoStage).unwrap();
        Estimate::of(&outline, &Request { sample: &sample, prompts: 1, train: &train })
    };
    let file = safetensors::load(golden("infinity/text_encoder/model.safetensors"), &Device::Cpu).unwrap();
    let bytes = file.values().map(|t| 4 * t.elem_count() as u64).sum::<u64>();
    let (kept, unloaded) = (of(TextEncoder::Keep), of(TextEncoder::Unload));
    // Its vectors are left out of the count.
    let difference = kept.weights - unloaded.weights;
    assert!(difference <= bytes && difference * 100 > bytes * 98, "{difference} of {bytes}");
    assert!(unloaded.sample >= unloaded.weights + difference);
    // This machine has more than twice the memory of a tiny model.
    assert_eq!(of(TextEncoder::Auto).weights, kept.weights);
}

#[test]
fn a_model_without_a_text_encoder_of_its_own_takes_auto_only() {
    let refusal = |choice| Model::open("embedded:", &how(choice), &mut Run::new()).map(|m| m.name().to_owned());
    let said = refused(refusal(TextEncoder::Unload), "text_encoder");
    assert!(said.contains("unload") && said.contains("auto"), "{said}");
    refused(refusal(TextEncoder::Keep), "text_encoder");
    refused(TextEncoder::parse("free"), "text_encoder");
}

// Folders.

#[test]
fn a_model_that_sees_four_cells_as_one_opens_from_shards_draws_and_encodes() {
    let model = open(&golden("infinity_folded"));
    let info = model.info();
    assert_eq!((info.family, info.codebook, info.grid_unit_px, info.vocabulary), ("infinity", 256, 4, 112));
    let defaults = options(&model);
    assert_eq!((defaults.width, defaults.guidance, defaults.temperature), (64, 3.0, 1.0));
    let drawn = draw(&model, &["a photo of a dog"], &defaults).unwrap().swap_remove(0).tokens;
    assert_eq!(drawn.grids(), [1, 2, 4, 6, 8, 12, 16].map(|side| (2 * side, 2 * side)));
    let shown = model.decode(&drawn, &Run::new()).unwrap();
    assert_eq!((shown.width(), shown.height()), (64, 64));
    let tokens = model.encode(&picture(0, 84, 56), &Run::new()).unwrap();
    assert_eq!((tokens.grids().len(), tokens.height(), tokens.width()), (7, 28, 42));
    let view = Personalized::new(&model, &[]).unwrap();
    let scores = view.score("a dog", &[tokens, drawn], &mut Run::new()).unwrap();
    assert!(scores.iter().all(|nats| (0.1..5.0).contains(nats)), "{scores:?}");
}

#[test]
fn the_text_encoder_is_found_in_every_published_form() {
    let shards = "pytorch_model-0000";
    let expected = draw(&open(&golden("infinity_folded")), &["a dog"], &options(&open(&golden("infinity_folded"))));
    let expected = expected.unwrap();
    // Another folder, whatever it is called.
    let renamed = copied("infinity_folded", |file| Some(file.replace("flan-t5-xl/", "encoder of texts/")));
    let model = open(renamed.path());
    assert_eq!(draw(&model, &["a dog"], &options(&model)).unwrap(), expected);
    // Safetensors, which are preferred, whole and in shards.
    let folder = copied("infinity_folded", |file| (!file.contains(shards)).then(|| file.into()));
    let at = |name: &str| folder.path().join("flan-t5-xl").join(name);
    let tensors = safetensors::load(golden("infinity/text_encoder/model.safetensors"), &Device::Cpu).unwrap();
    let part = |first: bool| {
        let own = tensors.iter().filter(|(name, _)| name.starts_with("encoder.block.0") == first);
        own.map(|(name, t)| (name.clone(), t.clone())).collect::<HashMap<_, _>>()
    };
    let mut places = serde_json::Map::new();
    for (i, first) in [(1, true), (2, false)] {
        let file = format!("model-0000{i}-of-00002.safetensors");
        safetensors::save(&part(first), at(&file)).unwrap();
        places.extend(part(first).into_keys().map(|name| (name, file.clone().into())));
    }
    let index = serde_json::json!({"metadata": {}, "weight_map": places});
    std::fs::write(at("model.safetensors.index.json"), index.to_string()).unwrap();
    let sharded = open(folder.path());
    assert_eq!(draw(&sharded, &["a dog"], &options(&sharded)).unwrap(), expected);
    // A pickle of its own is looked into when there are neither safetensors nor an index.
    let single = copied("infinity_folded", |file| match file.ends_with(".index.json") {
        true => None,
        false => Some(file.replace("pytorch_model-00001-of-00002.bin", "pytorch_model.bin")),
    });
    let said = Model::open(single.path(), &how(TextEncoder::Auto), &mut Run::new()).err().unwrap().to_string();
    assert!(said.contains("pytorch_model.bin") && said.contains("1 layers") && said.contains("num_layers 2"), "{said}");
}

#[test]
fn a_shard_that_is_missing_or_lacks_a_tensor_is_named() {
    let shard = "flan-t5-xl/pytorch_model-00002-of-00002.bin";
    let missing = copied("infinity_folded", |file| (file != shard).then(|| file.into()));
    let open = |folder: &TempDir| Model::open(folder.path(), &how(TextEncoder::Auto), &mut Run::new()).map(|_| ());
    let error = open(&missing).unwrap_err();
    assert!(matches!(&error, Error::NotFound { path, .. } if path.ends_with(shard)), "{error}");
    let other = as_it_is("infinity_folded");
    std::fs::copy(other.path().join(shard.replace("00002-", "00001-")), other.path().join(shard)).unwrap();
    let said = open(&other).unwrap_err().to_string();
    assert!(said.contains("pytorch_model"), "{said}");
    let index = other.path().join("flan-t5-xl/pytorch_model.bin.index.json");
    std::fs::write(&index, r#"{"weight_map": {"shared.weight": "../../secret.bin"}}"#).unwrap();
    let said = open(&other).unwrap_err().to_string();
    assert!(said.contains("../../secret.bin"), "{said}");
}

#[test]
fn wrong_weights_are_refused_by_file_and_tensor() {
    type Change = fn(&mut HashMap<String, Tensor>);
    let open = |folder: &TempDir| Model::open(folder.path(), &how(TextEncoder::Auto), &mut Run::new()).map(|_| ());
    fn of(t: &mut HashMap<String, Tensor>, name: &str, f: impl FnOnce(Tensor) -> Tensor) {
        let changed = f(t[name].clone());
        t.insert(name.into(), changed);
    }
    let cases: [(&str, &str, &str, Change); 9] = [
        ("infinity_folded", "transformer.safetensors", "block_chunks.1.module.0.ca.mat_q.weight", |t| {
            t.remove("block_chunks.1.module.0.ca.mat_q.weight");
        }),
        ("infinity_folded", "transformer.safetensors", "block_chunks.1.module.0.ada_gss", |t| {
            t.remove("block_chunks.1.module.0.ada_gss");
        }),
        ("infinity_folded", "transformer.safetensors", "head.weight", |t| {
            of(t, "head.weight", |w| w.narrow(0, 0, 40).unwrap().contiguous().unwrap());
        }),
        ("infinity_folded", "transformer.safetensors", "block_chunks.0.module.0.ffn.fc1.bias", |t| {
            of(t, "block_chunks.0.module.0.ffn.fc1.bias", |w| w.to_dtype(DType::U32).unwrap());
        }),
        ("infinity_folded", "transformer.safetensors", "lvl_embed.weight", |t| {
            of(t, "lvl_embed.weight", |w| (w.to_dtype(DType::F32).unwrap() / 0.0).unwrap());
        }),
        ("infinity_folded", "tokenizer.safetensors", "decoder.conv_out.weight", |t| {
            t.remove("decoder.conv_out.weight");
        }),
        ("infinity_folded", "tokenizer.safetensors", "encoder.mid.block_1.conv1.weight", |t| {
            of(t, "encoder.mid.block_1.conv1.weight", |w| w.narrow(1, 0, 4).unwrap().contiguous().unwrap());
        }),
        ("infinity", "text_encoder/model.safetensors", "encoder.block.1.layer.1.DenseReluDense.wo.weight", |t| {
            t.remove("encoder.block.1.layer.1.DenseReluDense.wo.weight");
        }),
        ("infinity", "text_encoder/model.safetensors", "encoder.final_layer_norm.weight", |t| {
            of(t, "encoder.final_layer_norm.weight", |w| (w.to_dtype(DType::F32).unwrap() * f64::NAN).unwrap());
        }),
    ];
    for (model, file, tensor, edit) in cases {
        let folder = as_it_is(model);
        change(&folder.path().join(file), edit);
        let said = open(&folder).unwrap_err().to_string();
        let name = file.rsplit('/').next().unwrap();
        assert!(said.contains(name) && said.contains(tensor), "{said}");
    }
}

#[test]
fn parts_that_do_not_belong_together_are_told_so() {
    let refusal =
        |folder: &TempDir| Model::open(folder.path(), &how(TextEncoder::Auto), &mut Run::new()).err().unwrap();
    // The transformer of one and the image tokenizer of the other.
    let mixed = copied("infinity", |file| (file != "infinity.pth").then(|| file.into()));
    std::fs::copy(golden("infinity_folded/transformer.safetensors"), mixed.path().join("t.safetensors")).unwrap();
    change(&mixed.path().join("t.safetensors"), |t| {
        let bits = t["word_embed.weight"].narrow(1, 0, 12).unwrap().contiguous().unwrap();
        t.insert("word_embed.weight".into(), bits);
    });
    let said = refusal(&mixed).to_string();
    assert!(said.contains("12 bits") && said.contains("vae.pth") && said.contains("8 channels"), "{said}");
    // A text encoder of another width.
    let narrow = as_it_is("infinity");
    change(&narrow.path().join("text_encoder/model.safetensors"), |t| {
        let table = t["shared.weight"].narrow(1, 0, 64).unwrap().contiguous().unwrap();
        t.insert("shared.weight".into(), table);
    });
    let said = refusal(&narrow).to_string();
    assert!(said.contains("64 numbers") && said.contains("128"), "{said}");
    // A T5 whose MLP has no gate.
    let plain = as_it_is("infinity");
    let config = plain.path().join("text_encoder/config.json");
    let text = std::fs::read_to_string(&config).unwrap().replace("gated-gelu", "relu");
    std::fs::write(&config, text).unwrap();
    let said = refusal(&plain).to_string();
    assert!(said.contains("config.json") && said.contains("gated-gelu"), "{said}");
    // Two text encoders and no sign which.
    let both = copied("infinity", |file| Some(file.replace("text_encoder/", "one/")));
    std::fs::create_dir(both.path().join("two")).unwrap();
    std::fs::copy(both.path().join("one/config.json"), both.path().join("two/config.json")).unwrap();
    let said = refusal(&both).to_string();
    assert!(said.contains("one, two"), "{said}");
}
