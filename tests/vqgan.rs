//! The image tokenizer against PyTorch: tools/golden/vqgan.py made tests/golden/vqgan.safetensors.
//!
//! Weights and pictures come from the formula that stands there and here.

use candle_core::{Device, Tensor};
use sitter::model::vqgan::{Config, Vqgan};
use sitter::picture::Picture;
use sitter::run::Run;
use sitter::tokens::Tokens;
use sitter::Error;
use std::collections::HashMap;

struct Case {
    name: &'static str,
    config: Config,
    /// Number, height and width of the pictures.
    pictures: (usize, usize, usize),
}

fn cases() -> [Case; 3] {
    let base = Config { ch: 32, num_groups: 32, num_res_blocks: 2, ..Config::default() };
    [
        Case {
            name: "lumina",
            config: Config { z_channels: 64, embed_dim: 64, n_embed: 512, ..base.clone() },
            pictures: (1, 64, 96),
        },
        Case {
            name: "small",
            config: Config {
                ch_mult: vec![1, 2, 2],
                resolution: 64,
                z_channels: 16,
                embed_dim: 8,
                n_embed: 256,
                ..base.clone()
            },
            pictures: (2, 48, 32),
        },
        Case {
            name: "attention",
            config: Config {
                ch: 16,
                ch_mult: vec![1, 2, 3],
                num_res_blocks: 1,
                attn_resolutions: vec![16, 8],
                resolution: 32,
                num_groups: 8,
                z_channels: 12,
                embed_dim: 16,
                n_embed: 128,
                ..base
            },
            pictures: (1, 24, 40),
        },
    ]
}

/// `count` numbers in [-1, 1), multiples of 2^-23 that depend on the name only.
fn numbers(name: &str, count: usize) -> impl Iterator<Item = f64> {
    let seed = name.bytes().fold(2166136261u32, |s, b| (s ^ u32::from(b)).wrapping_mul(16777619));
    (0..count as u32).map(move |i| {
        let mut h = i.wrapping_mul(0x9E3779B1) ^ seed;
        for (shift, factor) in [(16, 0x85EBCA6B), (13, 0xC2B2AE35u32)] {
            h ^= h >> shift;
            h = h.wrapping_mul(factor);
        }
        h ^= h >> 16;
        f64::from(h >> 8) / f64::from(1 << 23) - 1.0
    })
}

fn weight(name: &str, shape: &[usize]) -> sitter::Result<Tensor> {
    let value = |u: f64| match *shape {
        [_, i, h, w] => u * (3.0 / (i * h * w) as f64).sqrt(),
        [_] if name.ends_with("weight") => 1.0 + 0.25 * u,
        _ if name.ends_with("bias") => 0.125 * u,
        _ => u,
    };
    let values: Vec<f32> = numbers(name, shape.iter().product()).map(|u| value(u) as f32).collect();
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

impl Case {
    fn model(&self) -> Vqgan {
        Vqgan::load(&self.config, true, weight).unwrap()
    }

    fn input(&self) -> Tensor {
        let (n, h, w) = self.pictures;
        let values: Vec<f32> =
            numbers(&format!("pictures of {}", self.name), n * 3 * h * w).map(|v| v as f32).collect();
        Tensor::from_vec(values, (n, 3, h, w), &Device::Cpu).unwrap()
    }
}

fn golden() -> HashMap<String, Tensor> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/vqgan.safetensors");
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

fn values(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    values(a).iter().zip(values(b)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn reference_codes(golden: &HashMap<String, Tensor>, name: &str) -> Vec<Tokens> {
    let codes = &golden[&format!("{name}.codes")];
    let (n, h, w) = codes.dims3().unwrap();
    let codes = codes.flatten_all().unwrap().to_vec1::<i64>().unwrap();
    (0..n)
        .map(|i| {
            let grid = codes[i * h * w..(i + 1) * h * w].iter().map(|&c| c as u32).collect();
            Tokens::new(h as u32, w as u32, grid).unwrap()
        })
        .collect()
}

#[test]
fn latents_agree_with_pytorch() {
    let golden = golden();
    for case in cases() {
        let wanted = &golden[&format!("{}.latents", case.name)];
        let scale = values(wanted).iter().fold(0f32, |m, v| m.max(v.abs()));
        let difference = largest_difference(&case.model().latents(&case.input(), &Run::new()).unwrap(), wanted) / scale;
        println!("{}: latents differ by {difference:e} of the largest", case.name);
        assert!(difference < 1e-5, "{}: {difference}", case.name);
    }
}

#[test]
fn codes_are_those_of_pytorch() {
    let golden = golden();
    for case in cases() {
        // The nearest tie in the golden file is 2e-3 wide, so that every code must agree.
        let gap = values(&golden[&format!("{}.gaps", case.name)]).into_iter().fold(f32::MAX, f32::min);
        assert!(gap > 1e-3, "{gap}");
        assert_eq!(
            case.model().encode(&case.input(), &Run::new()).unwrap(),
            reference_codes(&golden, case.name),
            "{}",
            case.name
        );
    }
}

#[test]
fn decoded_pictures_are_those_of_pytorch_within_one_grey_level() {
    let golden = golden();
    for case in cases() {
        let wanted = &golden[&format!("{}.decoded", case.name)];
        let decoded = case.model().decode(&reference_codes(&golden, case.name), &Run::new()).unwrap();
        let difference = largest_difference(&decoded, wanted);
        println!("{}: decoded values differ by {difference:e}", case.name);
        assert!(difference < 1e-4, "{}: {difference}", case.name);
        for i in 0..case.pictures.0 {
            let pictures = [&decoded, wanted].map(|t| Picture::from_tensor(&t.get(i).unwrap()).unwrap());
            let worst = pictures[0].rgb().iter().zip(pictures[1].rgb()).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(worst <= Some(1), "{}: {worst:?}", case.name);
        }
    }
}

#[test]
fn a_batch_gives_what_its_pictures_give_alone() {
    let case = &cases()[1];
    let model = case.model();
    let input = case.input();
    let together = model.encode(&input, &Run::new()).unwrap();
    for (i, tokens) in together.iter().enumerate() {
        assert_eq!(&model.encode(&input.narrow(0, i, 1).unwrap(), &Run::new()).unwrap()[0], tokens);
    }
    let decoded = model.decode(&together, &Run::new()).unwrap();
    let alone = model.decode(&together[1..], &Run::new()).unwrap();
    assert!(largest_difference(&decoded.narrow(0, 1, 1).unwrap(), &alone) < 1e-5);
}

#[test]
fn of_equal_codes_the_first_is_taken() {
    let case = &cases()[1];
    // Every code twice: the second half repeats the first.
    let twice = |name: &str, shape: &[usize]| match name {
        "quantize.embedding.weight" => {
            let half = weight(name, &[shape[0] / 2, shape[1]])?;
            Ok(Tensor::cat(&[&half, &half], 0)?)
        }
        _ => weight(name, shape),
    };
    let model = Vqgan::load(&case.config, false, twice).unwrap();
    let grids = model.encode(&case.input(), &Run::new()).unwrap();
    assert!(grids.iter().flat_map(Tokens::codes).all(|&c| c < 128));
}

#[test]
fn pictures_that_make_no_grid_are_refused() {
    let model = cases()[1].model();
    for shape in [vec![1, 3, 30, 32], vec![1, 3, 32, 0], vec![1, 1, 32, 32], vec![3, 32, 32], vec![0, 3, 32, 32]] {
        let input = Tensor::zeros(shape.clone(), candle_core::DType::F32, &Device::Cpu).unwrap();
        let error = model.encode(&input, &Run::new()).unwrap_err();
        assert!(error.to_string().contains(&format!("multiples of 4, found {shape:?}")), "{error}");
    }
    let nan = Tensor::full(f32::NAN, (1, 3, 32, 32), &Device::Cpu).unwrap();
    assert!(model.encode(&nan, &Run::new()).is_err());
}

#[test]
fn grids_that_make_no_picture_are_refused() {
    let model = cases()[1].model();
    let grid = |h, w, code| Tokens::new(h, w, vec![code; (h * w) as usize]).unwrap();
    assert!(model.decode(&[], &Run::new()).is_err());
    let error = model.decode(&[grid(2, 2, 256)], &Run::new()).unwrap_err().to_string();
    assert!(error.contains("code 256") && error.contains("256 of the codebook"), "{error}");
    assert!(model
        .decode(&[grid(2, 2, 0), grid(2, 3, 0)], &Run::new())
        .unwrap_err()
        .to_string()
        .contains("2x2 and 2x3"));
}

#[test]
fn a_model_without_decoder_encodes_and_says_why_it_cannot_decode() {
    let case = &cases()[1];
    let no_decoder = |name: &str, shape: &[usize]| {
        assert!(!name.starts_with("decoder.") && !name.starts_with("post_quant_conv"), "{name}");
        weight(name, shape)
    };
    let model = Vqgan::load(&case.config, false, no_decoder).unwrap();
    assert!(!model.can_decode());
    let tokens = model.encode(&case.input(), &Run::new()).unwrap();
    assert!(matches!(model.decode(&tokens, &Run::new()), Err(Error::NotSupported { .. })));
}

#[test]
fn the_weights_asked_for_are_exactly_those_of_the_published_files() {
    let names = std::cell::RefCell::new(std::collections::BTreeSet::new());
    let record = |name: &str, shape: &[usize]| {
        assert!(names.borrow_mut().insert(name.to_string()), "{name} was asked for twice");
        Ok(Tensor::zeros(1, candle_core::DType::F32, &Device::Cpu)?.broadcast_as(shape)?)
    };
    let config = Config { ch: 32, z_channels: 8, embed_dim: 8, n_embed: 4, ..Config::default() };
    Vqgan::load(&config, true, record).unwrap();
    let names = names.into_inner();
    // Counted from the description of the architecture: per residual block 8 tensors and 2 more with a shortcut.
    let encoder = 2 + (10 * 8 + 2 * 2) + 4 * 2 + (2 * 8 + 10) + 4;
    let decoder = 2 + (15 * 8 + 2 * 2) + 4 * 2 + (2 * 8 + 10) + 4;
    assert_eq!(names.len(), encoder + decoder + 1 + 4);
    for name in [
        "encoder.down.2.block.0.nin_shortcut.weight",
        "encoder.down.3.downsample.conv.bias",
        "encoder.mid.attn_1.proj_out.weight",
        "decoder.up.4.upsample.conv.weight",
        "decoder.up.3.block.0.nin_shortcut.bias",
        "decoder.norm_out.weight",
        "quantize.embedding.weight",
        "post_quant_conv.bias",
    ] {
        assert!(names.contains(name), "{name}");
    }
    assert!(
        !names.contains("encoder.down.4.downsample.conv.weight")
            && !names.contains("decoder.up.0.upsample.conv.weight")
    );
}
