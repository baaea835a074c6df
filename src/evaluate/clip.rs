//! CLIP's two towers, in the names of Hugging Face, and its text tokenizer.

use super::vit::{vectors_of, Activation, Block, Linear, Norm, Transformer, Vision};
use super::weights::Weights;
use crate::kernels::zeros;
use crate::model::text::Text;
use crate::run::Control;
use crate::{Error, Result};
use serde_json::{json, Value};

/// Where the text tokenizer may be.
pub const TOKENIZER: [&str; 3] = ["tokenizer.json", "vocab.json", "merges.txt"];
const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";

pub struct Clip {
    pub vision: Vision,
    pub text: TextTower,
}

/// The network that makes one vector of a text.
pub struct TextTower {
    tokenizer: Text,
    /// Of the tokens in front of and behind each text.
    start: u32,
    end: u32,
    /// Whose place the vector is read at.
    read_at: ReadAt,
    width: usize,
    /// [vocabulary, width] and [longest text, width]
    tokens: Vec<f32>,
    positions: Vec<f32>,
    body: Transformer,
    last: Norm,
    /// [size of the vector, width]
    projection: Vec<f32>,
}

#[derive(Clone, Copy)]
enum ReadAt {
    /// OpenAI's configurations call the end token 2, which it is not; the largest id is meant.
    Largest,
    First(u32),
}

/// Part of the configuration of one tower; what is left out is as in ViT-B/32.
struct Part<'a> {
    weights: &'a Weights,
    values: Value,
    name: &'static str,
}

impl Part<'_> {
    fn number(&self, field: &str, default: u64) -> Result<usize> {
        let value = &self.values[field];
        if value.is_null() {
            return Ok(default as usize);
        }
        // Far beyond any CLIP; products of two still fit.
        value.as_u64().filter(|n| (1..1 << 24).contains(n)).map(|n| n as usize).ok_or_else(|| {
            let file = self.weights.files.path("config.json");
            Error::bad_format(file, format!("{}.{field} is {value}; a positive whole number is needed", self.name))
        })
    }

    fn activation(&self) -> Result<Activation> {
        match self.values["hidden_act"].as_str().unwrap_or("quick_gelu") {
            "quick_gelu" => Ok(Activation::QuickGelu),
            "gelu" => Ok(Activation::Gelu),
            other => {
                Err(self.weights.unsupported(format!("uses the activation {other}; gelu and quick_gelu are known")))
            }
        }
    }

    fn eps(&self) -> f32 {
        self.values["layer_norm_eps"].as_f64().unwrap_or(1e-5) as f32
    }

    /// The layers under `prefix`.
    fn body(&self, prefix: &str, width: usize, heads: usize, mlp: usize) -> Result<Transformer> {
        let (weights, eps, layers) = (self.weights, self.eps(), self.number("num_hidden_layers", 12)?);
        let (heads, mlp) =
            (self.number("num_attention_heads", heads as u64)?, self.number("intermediate_size", mlp as u64)?);
        if !width.is_multiple_of(heads) {
            return Err(weights.unsupported(format!("has {heads} heads, which do not divide a width of {width}")));
        }
        let block = |i: usize| {
            let at = |rest: &str| format!("{prefix}.encoder.layers.{i}.{rest}");
            let square = |rest: &str| weights.linear(&at(rest), width, width);
            Ok(Block {
                before: weights.norm(&at("layer_norm1"), width, eps)?,
                query: square("self_attn.q_proj")?,
                key: square("self_attn.k_proj")?,
                value: square("self_attn.v_proj")?,
                out: square("self_attn.out_proj")?,
                after: weights.norm(&at("layer_norm2"), width, eps)?,
                up: weights.linear(&at("mlp.fc1"), mlp, width)?,
                down: weights.linear(&at("mlp.fc2"), width, mlp)?,
            })
        };
        let blocks = (0..layers).map(block).collect::<Result<_>>()?;
        Ok(Transformer { blocks, heads, activation: self.activation()? })
    }
}

pub fn load(weights: &Weights) -> Result<Clip> {
    if !weights.checkpoint.contains("vision_model.embeddings.class_embedding") {
        return Err(weights.unsupported(
            "is no CLIP in Hugging Face's layout: it has no vision_model.embeddings.class_embedding; openai/clip-vit-base-patch32 \
             has one",
        ));
    }
    let config = weights.config()?.unwrap_or_default();
    let part = |name: &'static str| Part { weights, values: config[name].clone(), name };
    let size = Part { weights, values: config.clone(), name: "config" }.number("projection_dim", 512)?;
    Ok(Clip { vision: vision(&part("vision_config"), size)?, text: text(&part("text_config"), size)? })
}

fn vision(part: &Part, size: usize) -> Result<Vision> {
    let weights = part.weights;
    let (width, patch) = (part.number("hidden_size", 768)?, part.number("patch_size", 32)?);
    let side = part.number("image_size", 224)?;
    if !side.is_multiple_of(patch) || side > super::MAX_SIDE {
        return Err(weights.unsupported(format!("is for pictures of {side} pixels in patches of {patch}")));
    }
    let places = (side / patch).pow(2) + 1;
    let at = |rest: &str| format!("vision_model.{rest}");
    Ok(Vision {
        patch,
        side,
        patches: Linear {
            weight: weights.vector(&at("embeddings.patch_embedding.weight"), &[width, 3, patch, patch])?,
            bias: vec![0.0; width],
        },
        class_token: weights.vector(&at("embeddings.class_embedding"), &[width])?,
        positions: weights.vector(&at("embeddings.position_embedding.weight"), &[places, width])?,
        // The name is misspelt in every file.
        first: Some(weights.norm(&at("pre_layrnorm"), width, part.eps())?),
        body: part.body("vision_model", width, 12, 3072)?,
        last: weights.norm(&at("post_layernorm"), width, part.eps())?,
        projection: Some(weights.vector("visual_projection.weight", &[size, width])?),
    })
}

fn text(part: &Part, size: usize) -> Result<TextTower> {
    let weights = part.weights;
    let (width, vocabulary) = (part.number("hidden_size", 512)?, part.number("vocab_size", 49408)?);
    let longest = part.number("max_position_embeddings", 77)?;
    let tokenizer = tokenizer(weights)?;
    let special = |name: &str| {
        tokenizer.id(name).filter(|&id| (id as usize) < vocabulary).ok_or_else(|| {
            Error::bad_format(
                tokenizer.file(),
                format!("has no token {name} among the {vocabulary} of the network; is it CLIP's?"),
            )
        })
    };
    if longest < 2 {
        return Err(weights.unsupported("has no room for a text between its first and its last token"));
    }
    let at = |rest: &str| format!("text_model.{rest}");
    Ok(TextTower {
        start: special(START)?,
        end: special(END)?,
        read_at: match part.number("eos_token_id", 2)? {
            2 => ReadAt::Largest,
            id => ReadAt::First(id as u32),
        },
        width,
        tokens: weights.vector(&at("embeddings.token_embedding.weight"), &[vocabulary, width])?,
        positions: weights.vector(&at("embeddings.position_embedding.weight"), &[longest, width])?,
        body: part.body("text_model", width, 8, 2048)?,
        last: weights.norm(&at("final_layer_norm"), width, part.eps())?,
        projection: weights.vector("text_projection.weight", &[size, width])?,
        tokenizer,
    })
}

/// `tokenizer.json`, or what Hugging Face makes of the older `vocab.json` and `merges.txt`.
fn tokenizer(weights: &Weights) -> Result<Text> {
    let [whole, vocabulary, merges] = TOKENIZER;
    let files = &weights.files;
    if files.exists(whole) || !files.exists(vocabulary) {
        return Text::open(files.bytes(whole)?, &files.path(whole), &weights.control);
    }
    let file = files.path(vocabulary);
    let known: Value = serde_json::from_str(&files.text(vocabulary)?)
        .map_err(|e| Error::bad_format(&file, format!("is not JSON: {e}")))?;
    let text = files.text(merges)?;
    let pairs: Vec<&str> = text.lines().filter(|l| !l.is_empty() && !l.starts_with("#version")).collect();
    let special = |name: &str| {
        known[name].as_u64().map(|id| {
            json!({"id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false, "normalized": true,
                   "special": true})
        })
    };
    let added: Vec<Value> = [START, END].into_iter().filter_map(special).collect();
    let words = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
    let made = json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "},
            {"type": "Lowercase"},
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": words}, "behavior": "Removed", "invert": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        ]},
        "model": {"type": "BPE", "dropout": null, "unk_token": END, "continuing_subword_prefix": "",
                  "end_of_word_suffix": "</w>", "fuse_unk": false, "vocab": known, "merges": pairs},
    });
    Text::open(made.to_string().into_bytes().into(), &file, &weights.control)
}

impl TextTower {
    /// Numbers of a vector.
    pub fn size(&self) -> usize {
        self.projection.len() / self.width
    }

    /// Token ids of a text as the network reads it; what does not fit is cut off.
    fn ids(&self, text: &str) -> Result<Vec<u32>> {
        let longest = self.positions.len() / self.width;
        let mut ids = vec![self.start];
        ids.extend(self.tokenizer.encode(text)?.into_iter().take(longest - 2));
        ids.push(self.end);
        let vocabulary = self.tokens.len() / self.width;
        match ids.iter().find(|&&id| id as usize >= vocabulary) {
            None => Ok(ids),
            Some(id) => {
                let message =
                    format!("gives token {id}, but the network has {vocabulary}; they are not of the same model");
                Err(Error::bad_format(self.tokenizer.file(), message))
            }
        }
    }

    /// The vectors of some texts.
    pub fn encode(&self, texts: &[&str], control: &Control) -> Result<Vec<Vec<f32>>> {
        let width = self.width;
        let ids: Vec<Vec<u32>> = texts.iter().map(|text| self.ids(text)).collect::<Result<_>>()?;
        // Shorter texts are filled up. No token sees what is behind it, so nothing changes for them.
        let tokens = ids.iter().map(Vec::len).max().unwrap_or(0);
        let mut x = zeros(ids.len() * tokens * width);
        for (sequence, ids) in x.chunks_exact_mut((tokens * width).max(1)).zip(&ids) {
            let rows = sequence.chunks_exact_mut(width).zip(self.positions.chunks_exact(width));
            for ((to, position), &id) in rows.zip(ids) {
                let token = &self.tokens[id as usize * width..][..width];
                to.iter_mut().zip(token).zip(position).for_each(|((to, a), b)| *to = a + b);
            }
        }
        let spans: Vec<(u32, u32)> = (0..tokens as u32).map(|t| (0, t + 1)).collect();
        if !ids.is_empty() {
            self.body.run(&mut x, width, &spans, control)?;
        }
        let mut ends = Vec::with_capacity(ids.len() * width);
        for (i, ids) in ids.iter().enumerate() {
            let at = i * tokens + self.place(ids);
            ends.extend_from_slice(&x[at * width..][..width]);
        }
        let mut vectors = zeros(ends.len());
        self.last.apply(&ends, &mut vectors);
        Ok(vectors_of(&vectors, &self.projection, width))
    }

    /// Where in a text its vector is read.
    fn place(&self, ids: &[u32]) -> usize {
        let wanted = match self.read_at {
            ReadAt::Largest => ids.iter().max().copied(),
            ReadAt::First(id) => Some(id),
        };
        ids.iter().position(|&id| Some(id) == wanted).unwrap_or(0)
    }
}
