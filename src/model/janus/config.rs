//! What `config.json` and the shapes of the tensors say about a model.
//!
//! Both published forms leave out what has its usual value, and neither describes the image tokenizer in full; the tensors tell
//! all but the number of heads and the constants of norms and rotary positions.

use super::names::{self, Form};
use crate::files::checkpoint::Checkpoint;
use crate::model::llama::Shape;
use crate::model::vqgan::{self, vq16};
use crate::weights::Spec;
use crate::{Error, Result};
use serde_json::Value;
use std::path::Path;

/// Numbers of a head, where the configuration does not say: that of both published models.
const HEAD_DIM: usize = 128;
/// Pixels along a side, where the configuration does not say.
const SIDE: u64 = 384;
/// No published model comes near; a product of two such numbers still fits 64 bits.
const MOST: usize = 1 << 24;

/// The numbers that fix the shape of a model.
#[derive(Clone, Debug)]
pub struct Config {
    pub shape: Shape,
    /// Numbers between the two maps of the head.
    pub head_width: usize,
    pub codes: usize,
    /// Numbers of the vector of a code.
    pub code_width: usize,
    /// Pixels along each side of a picture.
    pub side: u32,
    pub vq: vqgan::Config,
}

/// The tensors of a model, as far as they are known before they are read.
pub struct Tensors<'a> {
    pub checkpoint: &'a Checkpoint,
    pub form: Form,
}

impl Tensors<'_> {
    fn find(&self, name: &str) -> Option<Vec<usize>> {
        self.checkpoint.shape(&self.form.file_name(name, 1)).map(<[usize]>::to_vec)
    }

    /// The shape of a tensor with so many dimensions.
    fn need(&self, name: &str, rank: usize) -> Result<Vec<usize>> {
        self.need_called(&self.form.file_name(name, 1), rank)
    }

    /// The same by the name that the files have.
    fn need_called(&self, called: &str, rank: usize) -> Result<Vec<usize>> {
        let wrong = |found: String| Error::Tensor {
            file: self.checkpoint.path().to_owned(),
            tensor: called.to_owned(),
            expected: format!("a tensor of {rank} dimensions"),
            found,
        };
        match self.checkpoint.shape(called).map(<[usize]>::to_vec) {
            Some(shape) if shape.len() == rank && shape.iter().all(|n| (1..=MOST).contains(n)) => Ok(shape),
            Some(shape) => Err(wrong(format!("shape {shape:?}"))),
            None => Err(wrong("no such tensor; is this a Janus model that makes pictures, with all its files?".into())),
        }
    }
}

impl Config {
    /// `file` is named in errors.
    pub fn read(text: &str, file: &Path, tensors: &Tensors) -> Result<Self> {
        let root: Value = serde_json::from_str(text)
            .map_err(|e| Error::bad_format(file, format!("not a model configuration: {e}")))?;
        let unsupported = |message: String| Error::UnsupportedModel { file: file.to_owned(), message };
        let name = if root.get("language_config").is_some() { "language_config" } else { "text_config" };
        let fields = Fields { file, name, value: root.get(name).unwrap_or(&Value::Null) };

        let [vocabulary, hidden] = tensors.need(&format!("{}embed_tokens.weight", names::TRANSFORMER), 2)?[..] else {
            return Err(Error::internal("a shape of two dimensions"));
        };
        let of_layer = |index: usize, name: &str| format!("{}layers.{index}.{name}.weight", names::TRANSFORMER);
        let counted = (0..).take_while(|&i| tensors.find(&of_layer(i, "input_layernorm")).is_some()).count();
        let hidden = fields.whole("hidden_size")?.unwrap_or(hidden);
        let vocabulary = fields.whole("vocab_size")?.unwrap_or(vocabulary);
        let heads = match (fields.whole("num_attention_heads")?, fields.whole("head_dim")?) {
            (Some(heads), _) => heads,
            (None, Some(head_dim)) => hidden / head_dim,
            (None, None) => hidden / HEAD_DIM,
        };
        if heads == 0 || !hidden.is_multiple_of(heads) || !(hidden / heads).is_multiple_of(2) {
            let message = format!(
                "{hidden} numbers (hidden_size) do not split into {heads} heads of even size; field \
                 {name}.num_attention_heads says how many there are"
            );
            return Err(Error::bad_format(file, message));
        }
        let head_dim = hidden / heads;
        let keys = tensors.need(&of_layer(0, "self_attn.k_proj"), 2)?[0];
        let kv_heads = fields.whole("num_key_value_heads")?.unwrap_or(keys / head_dim);
        if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            let message = format!("{name}: {heads} heads do not share {kv_heads} keys (num_key_value_heads)");
            return Err(Error::bad_format(file, message));
        }
        for field in ["attention_bias", "mlp_bias"] {
            if fields.value[field] == Value::Bool(true) {
                return Err(unsupported(format!("{name}.{field} is true; Janus-Pro has no biases there")));
            }
        }
        if let Some(other) = fields.value["hidden_act"].as_str().filter(|act| *act != "silu") {
            return Err(unsupported(format!("{name}.hidden_act is \"{other}\"; expected \"silu\"")));
        }
        let intermediate = tensors.need(&of_layer(0, "mlp.gate_proj"), 2)?[0];
        let shape = Shape {
            prefix: names::TRANSFORMER,
            vocabulary,
            hidden,
            intermediate: fields.whole("intermediate_size")?.unwrap_or(intermediate),
            layers: match fields.whole("num_hidden_layers")?.unwrap_or(counted) {
                n @ 1..=4096 => n,
                n => {
                    return Err(Error::bad_format(
                        file,
                        format!("field {name}.num_hidden_layers is {n}; expected 1 to 4096"),
                    ))
                }
            },
            heads,
            kv_heads,
            head_dim,
            norm_eps: fields.real("rms_norm_eps", &fields.value["rms_norm_eps"], 1e-6, 1.0)?,
            rope_theta: fields.rope_theta()?,
            post_norm: false,
            head_norms: false,
        };

        if tensors.find(names::DEEPER).is_some() {
            let name = tensors.form.file_name(names::DEEPER, 1);
            return Err(unsupported(format!("the weights have {name}; only aligners of two layers are known")));
        }
        let codes = tensors.need(names::CODES, 2)?;
        let head_width = tensors.need("model.generation_head.proj_out.weight", 2)?[0];
        let vq = vq16::config(
            tensors.form.naming(),
            &|name| tensors.checkpoint.shape(&format!("{}{name}", tensors.form.vq())).map(<[usize]>::to_vec),
            &|name, rank| tensors.need_called(&format!("{}{name}", tensors.form.vq()), rank),
            tensors.checkpoint.path(),
        )?;
        if vq.n_embed != codes[0] {
            return Err(unsupported(format!(
                "the image tokenizer has {} codes, the transformer vectors for {}; are they of one model?",
                vq.n_embed, codes[0]
            )));
        }
        let side = side(&root, file)?;
        if !side.is_multiple_of(vq.downsampling()) {
            let message = format!("pictures of {side} pixels do not split into codes of {}", vq.downsampling());
            return Err(Error::bad_format(file, message));
        }
        Ok(Config { shape, head_width, codes: codes[0], code_width: codes[1], side, vq })
    }

    /// The weights that have names: those of the layers, of the head and of the aligner.
    pub fn specs(&self) -> Vec<Spec> {
        let layers = (0..self.shape.layers).flat_map(|index| self.shape.layer_specs(index));
        layers.chain(names::around(&self.shape, self.head_width, self.codes, self.code_width)).collect()
    }

    /// Parameters but those of the image tokenizer.
    pub fn parameters(&self) -> u64 {
        let around = names::around(&self.shape, self.head_width, self.codes, self.code_width);
        let around: u64 = around.iter().map(|spec| spec.numbers() as u64).sum();
        self.shape.numbers() + around + self.codes as u64 * self.code_width as u64
    }
}

/// Pixels along a side: what the part that reads pictures is made for, which is the same.
fn side(root: &Value, file: &Path) -> Result<u32> {
    let vision = &root["vision_config"];
    let given = [&vision["image_size"], &vision["params"]["image_size"]].into_iter().find(|value| !value.is_null());
    let side = match given {
        Some(Value::Array(sides)) if sides.windows(2).all(|pair| pair[0] == pair[1]) => {
            sides.first().and_then(Value::as_u64)
        }
        Some(value) => value.as_u64(),
        None => Some(SIDE),
    };
    match side {
        Some(side @ 1..=4096) => Ok(side as u32),
        _ => Err(Error::bad_format(file, "field vision_config.image_size is not a number of pixels from 1 to 4096")),
    }
}

/// The part of the configuration that is about the transformer.
struct Fields<'a> {
    file: &'a Path,
    name: &'a str,
    value: &'a Value,
}

impl Fields<'_> {
    fn wrong<T>(&self, field: &str, found: &Value, expected: &str) -> Result<T> {
        let message = format!("field {}.{field} is {found}; expected {expected}", self.name);
        Err(Error::bad_format(self.file, message))
    }

    fn whole(&self, field: &str) -> Result<Option<usize>> {
        let value = &self.value[field];
        match value.as_u64().and_then(|n| usize::try_from(n).ok()) {
            Some(n) if (1..=MOST).contains(&n) => Ok(Some(n)),
            _ if value.is_null() => Ok(None),
            _ => self.wrong(field, value, &format!("a whole number from 1 to {MOST}")),
        }
    }

    fn real(&self, field: &str, value: &Value, default: f64, most: f64) -> Result<f64> {
        match value.as_f64() {
            Some(real) if real > 0.0 && real <= most => Ok(real),
            _ if value.is_null() => Ok(default),
            _ => self.wrong(field, value, &format!("above 0 and at most {most}")),
        }
    }

    /// The base of the rotary positions, by either of transformers' fields; stretched ones are not known.
    fn rope_theta(&self) -> Result<f64> {
        for field in ["rope_parameters", "rope_scaling"] {
            let value = &self.value[field];
            let plain = |key: &str| value[key].is_null() || value[key] == "default";
            if !plain("rope_type") || !plain("type") {
                let message = format!("{}.{field} is {value}; only plain rotary positions are known", self.name);
                return Err(Error::UnsupportedModel { file: self.file.to_owned(), message });
            }
        }
        let given = [&self.value["rope_theta"], &self.value["rope_parameters"]["rope_theta"]];
        let given = given.into_iter().find(|value| !value.is_null()).unwrap_or(&Value::Null);
        self.real("rope_theta", given, 10000.0, 1e12)
    }
}
