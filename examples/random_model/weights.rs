//! Random tensors that come into being while they are written.

use super::janus;
use super::shape::{Dtype, Layout, Shape};
use half::bf16;
use rayon::prelude::*;
use safetensors::tensor::{Dtype as Stored, View};
use sitter::model::vqgan::Vqgan;
use sitter::Result;
use std::borrow::Cow;
use std::cell::RefCell;

/// As transformers initialises matrices and embeddings.
const STD: f32 = 0.02;
/// About the size of the encoder's output with these weights, so that pictures have different codes.
const CODE_STD: f32 = 0.3;
/// Numbers of one task.
const CHUNK: usize = 1 << 16;

/// A tensor of numbers with this mean and standard deviation, that depend on the seed and the tensor's name only.
#[derive(Clone)]
pub struct Drawn {
    pub name: String,
    shape: Vec<usize>,
    dtype: Dtype,
    mean: f32,
    std: f32,
    seed: u64,
}

impl Drawn {
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn bytes(&self) -> usize {
        self.count() * if self.dtype == Dtype::Bf16 { 2 } else { 4 }
    }

    /// Number `index` of the tensor: the sum of four uniform ones, which is close to normal and has no far outliers.
    fn value(&self, key: u64, index: usize) -> f32 {
        let bits = mixed(key.wrapping_add((index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)));
        let sum: u64 = (0..4).map(|part| bits >> (16 * part) & 0xFFFF).sum();
        self.mean + self.std * 3f32.sqrt() * ((sum as f32 + 2.0) / 65536.0 - 2.0)
    }
}

/// The finaliser of SplitMix64.
fn mixed(mut z: u64) -> u64 {
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}

impl View for Drawn {
    fn dtype(&self) -> Stored {
        match self.dtype {
            Dtype::F32 => Stored::F32,
            Dtype::Bf16 => Stored::BF16,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data_len(&self) -> usize {
        self.bytes()
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let key = self.name.bytes().fold(mixed(self.seed), |key, byte| mixed(key ^ u64::from(byte)));
        let size = self.bytes() / self.count().max(1);
        let mut bytes = vec![0; self.bytes()];
        bytes.par_chunks_mut(CHUNK * size).enumerate().for_each(|(chunk, bytes)| {
            for (index, bytes) in bytes.chunks_exact_mut(size).enumerate() {
                let value = self.value(key, chunk * CHUNK + index);
                match self.dtype {
                    Dtype::F32 => bytes.copy_from_slice(&value.to_le_bytes()),
                    Dtype::Bf16 => bytes.copy_from_slice(&bf16::from_f32(value).to_le_bytes()),
                }
            }
        });
        bytes.into()
    }
}

/// The transformer's tensors in the order of the layers.
pub fn transformer(shape: &Shape) -> Vec<Drawn> {
    let (h, i, v) = (shape.hidden, shape.intermediate, shape.vocabulary);
    let d = h / shape.heads;
    let kv = shape.kv_heads * d;
    let tensor = |name: String, shape_: &[usize], mean: f32, std: f32| Drawn {
        name,
        shape: shape_.to_vec(),
        dtype: shape.dtype,
        mean,
        std,
        seed: shape.seed,
    };
    let matrix = |name: String, rows: usize, columns: usize| tensor(name, &[rows, columns], 0.0, STD);
    let lumina = matches!(shape.layout, Layout::Lumina);
    let prefix = if lumina { "model." } else { janus::PREFIX };
    let mut all = vec![matrix(format!("{prefix}embed_tokens.weight"), v, h)];
    for layer in 0..shape.layers {
        let at = |name: &str| format!("{prefix}layers.{layer}.{name}");
        all.push(tensor(at("input_layernorm.weight"), &[h], 1.0, 0.0));
        for (name, rows) in [("q", h), ("k", kv), ("v", kv), ("o", h)] {
            all.push(matrix(at(&format!("self_attn.{name}_proj.weight")), rows, h));
        }
        for name in ["q_norm", "k_norm"].into_iter().filter(|_| lumina) {
            all.push(tensor(at(&format!("self_attn.{name}.weight")), &[1, d], 1.0, 0.0));
            all.push(tensor(at(&format!("self_attn.{name}.bias")), &[1, d], 0.0, 0.0));
        }
        all.push(tensor(at("post_attention_layernorm.weight"), &[h], 1.0, 0.0));
        all.push(matrix(at("mlp.gate_proj.weight"), i, h));
        all.push(matrix(at("mlp.up_proj.weight"), i, h));
        all.push(matrix(at("mlp.down_proj.weight"), h, i));
    }
    all.push(tensor(format!("{prefix}norm.weight"), &[h], 1.0, 0.0));
    if lumina {
        all.push(matrix("lm_head.weight".into(), v, h));
    }
    all
}

/// Tensors as they are asked for.
pub struct Recorder<'a> {
    pub shape: &'a Shape,
    pub dtype: Dtype,
    pub tensors: RefCell<Vec<Drawn>>,
}

impl<'a> Recorder<'a> {
    pub fn new(shape: &'a Shape, dtype: Dtype) -> Self {
        Recorder { shape, dtype, tensors: RefCell::new(vec![]) }
    }

    pub fn push(&self, name: String, shape: &[usize], mean: f32, std: f32) {
        let (dtype, seed) = (self.dtype, self.shape.seed);
        self.tensors.borrow_mut().push(Drawn { name, shape: shape.to_vec(), dtype, mean, std, seed });
    }

    pub fn matrix(&self, name: &str, rows: usize, columns: usize, std: f32) {
        self.tensor(name, &[rows, columns], std);
    }

    pub fn tensor(&self, name: &str, shape: &[usize], std: f32) {
        self.push(name.into(), shape, 0.0, std);
    }

    pub fn ones(&self, name: &str, size: usize) {
        self.push(name.into(), &[size], 1.0, 0.0);
    }

    pub fn bias(&self, name: &str, size: usize) {
        self.push(name.into(), &[size], 0.0, STD);
    }

    /// A tensor of an image tokenizer.
    pub fn network(&self, name: String, wanted: &[usize]) -> Result<candle_core::Tensor> {
        let (mean, std) = match *wanted {
            // As PyTorch initialises convolutions.
            [_, from, height, width] => (0.0, ((3 * from * height * width) as f32).powf(-0.5)),
            [_, _] => (0.0, CODE_STD),
            _ if name.contains("norm") && name.ends_with("weight") => (1.0, 0.0),
            _ => (0.0, STD),
        };
        self.push(name, wanted, mean, std);
        Ok(candle_core::Tensor::zeros(wanted, candle_core::DType::F32, &candle_core::Device::Cpu)?)
    }
}

/// The image tokenizer's tensors, f32 as published. Which there are, the reader says itself.
pub fn vqgan(shape: &Shape) -> Result<Vec<Drawn>> {
    let recorder = Recorder::new(shape, Dtype::F32);
    Vqgan::load(&shape.vqgan, true, |name, wanted| recorder.network(name.to_string(), wanted))?;
    Ok(recorder.tensors.into_inner())
}
