//! A model family that only the tests know: the smallest that does everything. docs/adding-a-model-family.md walks through it.
//!
//! A folder holds `toy.json` with its words and `toy.safetensors`. A code stands for 4 x 4 pixels of one grey. What comes next
//! depends on the piece before it and nothing else: the first code on the last piece of the prompt, where learned vectors stand.

use candle_core::{DType, Device, Tensor};
use sitter::files::checkpoint::Checkpoint;
use sitter::files::Files;
use sitter::model::cache::{Cache, CacheShape};
use sitter::model::family::*;
use sitter::model::footprint::{Drawn, Footprint, Place};
use sitter::model::places::{Context, Rotary};
use sitter::model::words::{self, Stretch, Word};
use sitter::picture::{Crop, Picture};
use sitter::run::{Control, Run, Stage};
use sitter::tokens::Tokens;
use sitter::weights::{Gradients, Part, Spec, Target, Wanted, Weights};
use sitter::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

pub const WIDTH: usize = 32;
pub const CODES: usize = 8;
const LAYERS: usize = 2;
const PATCH: u32 = 4;

pub static TOY: Entry = Entry {
    name: "toy",
    sign: "toy.json (Toy)",
    roles: &["mix", "gain"],
    claims: |files| files.exists("toy.json"),
    draft: |files| Ok(Box::new(ToyDraft { words: read_words(files)?, checkpoint: Checkpoint::open(files, "toy")? })),
};

/// Writes a folder with random weights.
pub fn write(folder: &Path, words: &[&str]) {
    std::fs::write(folder.join("toy.json"), serde_json::to_string(words).unwrap()).unwrap();
    let number = |i: usize| ((i * 2654435761 % 1000003) as f32 / 1000003.0 - 0.5) * 0.5;
    let tensor = |dims: &[usize], salt: usize| {
        let n = dims.iter().product::<usize>();
        Tensor::from_vec((0..n).map(|i| number(i + 7919 * salt)).collect::<Vec<_>>(), dims, &Device::Cpu).unwrap()
    };
    let mut tensors: BTreeMap<String, Tensor> =
        specs().iter().enumerate().map(|(i, spec)| (spec.name.clone(), tensor(&spec.dims, i))).collect();
    tensors.insert("embedding".into(), tensor(&[words.len() + CODES, WIDTH], 100));
    candle_core::safetensors::save(&tensors.into_iter().collect(), folder.join("toy.safetensors")).unwrap();
}

fn read_words(files: &Files) -> Result<Vec<String>> {
    let wrong = |e: serde_json::Error| Error::bad_format(files.path("toy.json"), format!("not a list of words: {e}"));
    serde_json::from_str(&files.text("toy.json")?).map_err(wrong)
}

/// Each layer has a matrix and a vector, x to `gain x + mix x`; the head belongs to no layer and does not learn.
fn specs() -> Vec<Spec> {
    let of_layer = |layer: usize| {
        let spec = |role: &'static str, roles, dims: &[usize], linear| Spec {
            name: format!("layers.{layer}.{role}"),
            layer: Some(layer),
            roles,
            dims: dims.to_vec(),
            linear,
        };
        [spec("mix", &["mix"], &[WIDTH, WIDTH], true), spec("gain", &["gain"], &[WIDTH], false)]
    };
    let head = Spec { name: "head".into(), layer: None, roles: &[], dims: vec![CODES, WIDTH], linear: true };
    (0..LAYERS).flat_map(of_layer).chain([head]).collect()
}

struct ToyDraft {
    words: Vec<String>,
    checkpoint: Checkpoint,
}

impl Draft for ToyDraft {
    fn footprint(&self) -> Arc<dyn Footprint> {
        Arc::new(ToyFootprint(specs()))
    }

    fn is_complete(&self) -> bool {
        true
    }

    fn open(self: Box<Self>, how: &Opening, run: &mut Run) -> Result<Opened> {
        let get = |name: &str, dims: &[usize]| self.checkpoint.get(name, dims, DType::F32, &how.device);
        let mut weights = Weights::default();
        for spec in specs() {
            let tensor = get(&spec.name, &spec.dims)?;
            let weight = if spec.linear { how.format.weight(tensor)? } else { tensor.into() };
            weights.push(spec, weight);
        }
        let embedding = get("embedding", &[self.words.len() + CODES, WIDTH])?;
        run.report(Stage::Open, 1, 1, None)?;
        let facts = Facts {
            parameters: self.checkpoint.count(""),
            vocabulary: self.words.len(),
            codebook: CODES,
            unit: PATCH,
            patch: PATCH,
            width: WIDTH,
            layers: LAYERS,
            can_decode: true,
        };
        let rotary = Rotary { head_dim: 2, theta: 1e4, dtype: DType::F32, device: how.device.clone() };
        let identity = vec![self.checkpoint.fingerprint()?.to_vec()];
        Ok(Opened { family: Arc::new(Toy { facts, words: self.words, weights, embedding, rotary }), identity })
    }
}

#[derive(Clone)]
struct Toy {
    facts: Facts,
    words: Vec<String>,
    weights: Weights,
    /// Rows of words, then of codes.
    embedding: Tensor,
    rotary: Rotary,
}

impl Toy {
    fn row(&self, word: &str) -> Result<u32> {
        let found = self.words.iter().position(|known| known == word);
        found.map(|row| row as u32).ok_or_else(|| Error::invalid("prompt", format!("no word \"{word}\"")))
    }

    /// The result of a layer for x [.., width].
    fn layer(&self, layer: usize, x: &Tensor) -> Result<Tensor> {
        let (mix, gain) = (&self.weights[2 * layer], &self.weights[2 * layer + 1]);
        Ok((x.broadcast_mul(gain.tensor()?)? + mix.forward(x)?)?)
    }
}

impl Family for Toy {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn device(&self) -> &Device {
        &self.rotary.device
    }

    fn footprint(&self) -> Arc<dyn Footprint> {
        Arc::new(ToyFootprint(specs()))
    }

    fn dtype(&self) -> DType {
        DType::F32
    }

    fn weights(&self) -> &Weights {
        &self.weights
    }

    fn with(&self, weights: Weights) -> Arc<dyn Family> {
        Arc::new(Toy { weights, ..self.clone() })
    }

    fn grid(&self, width: u32, height: u32) -> Result<(u32, u32)> {
        for (field, side) in [("width", width), ("height", height)] {
            if side == 0 || side % PATCH != 0 {
                return Err(Error::invalid(field, format!("{side} is not a positive multiple of {PATCH} pixels")));
            }
        }
        Ok((height / PATCH, width / PATCH))
    }

    fn pixels(&self, tokens: &Tokens) -> (u32, u32) {
        (tokens.width() * PATCH, tokens.height() * PATCH)
    }

    fn check_target(&self, target: u32) -> Result<()> {
        self.grid(target, target).map(|_| ()).map_err(|e| Error::invalid("image_size", e.to_string()))
    }

    fn fit(&self, picture: &Picture, target: u32, crop: Crop) -> Result<Picture> {
        picture.fit(target, PATCH, crop)
    }

    /// The mean of each patch in eight steps.
    fn encode(&self, picture: &Picture, _: &Run) -> Result<Tokens> {
        let (height, width) = self.grid(picture.width(), picture.height())?;
        let (row, patch) = (3 * picture.width() as usize, PATCH as usize);
        let mean = |y: usize, x: usize| {
            let lines = (0..patch).map(|line| &picture.rgb()[(patch * y + line) * row + 3 * patch * x..][..3 * patch]);
            lines.flatten().map(|&v| v as usize).sum::<usize>() / (3 * patch * patch)
        };
        let places = (0..height as usize).flat_map(|y| (0..width as usize).map(move |x| (y, x)));
        Tokens::new(height, width, places.map(|(y, x)| (mean(y, x) * CODES / 256) as u32).collect())
    }

    fn decode(&self, tokens: &Tokens, _: &Run) -> Result<Picture> {
        let (width, height) = self.pixels(tokens);
        let code = |y: u32, x: u32| tokens.codes()[(y / PATCH * tokens.width() + x / PATCH) as usize];
        let pixel = |y, x| [(code(y, x) * 256 / CODES as u32 + 16) as u8; 3];
        Picture::new(width, height, (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(y, x))).collect())
    }

    /// The words, and behind them the learned vectors.
    fn condition(&self, prompt: &str, words: &[Word], _: u32, _: u32) -> Result<Condition> {
        let (mut pieces, mut vectors) = (vec![], vec![]);
        for stretch in words::split(prompt, words)? {
            match stretch {
                Stretch::Text(text) => {
                    for word in text.split_whitespace() {
                        pieces.push(Piece::Token(self.row(word)?));
                    }
                }
                Stretch::Word(word) => vectors.extend(word.vectors.clone().map(Piece::Vector)),
            }
        }
        pieces.extend(vectors);
        Ok(Condition { pieces })
    }

    fn knows(&self, word: &str) -> Result<bool> {
        Ok(self.row(word).is_ok())
    }

    /// The first word of the vocabulary.
    fn unguided(&self, _: &Condition) -> Result<Condition> {
        Ok(Condition { pieces: vec![Piece::Token(0)] })
    }

    fn word_rows(&self, text: &str) -> Result<Tensor> {
        let rows: Result<Vec<u32>> = text.split_whitespace().map(|word| self.row(word)).collect();
        Ok(self.embedding.index_select(&Tensor::new(rows?, self.device())?, 0)?)
    }

    fn usual_size(&self, texts: &[String]) -> Result<f32> {
        let rows = self.word_rows(&texts.join(" "))?;
        Ok(rows.sqr()?.mean_all()?.sqrt()?.to_scalar()?)
    }

    fn example(&self, condition: &Condition, tokens: &Tokens) -> Result<Example> {
        let codes = tokens.codes().iter().map(|&code| Piece::Token(self.words.len() as u32 + code));
        let pieces: Vec<Piece> = condition.pieces.iter().copied().chain(codes).collect();
        Ok(Example { labelled: condition.pieces.len()..pieces.len(), pieces, ..Default::default() })
    }

    fn pass<'a>(
        &'a self,
        group: &[(&Example, f32)],
        vectors: Option<&Tensor>,
        how: &Mode,
    ) -> Result<Box<dyn Pass + 'a>> {
        // One row: no piece sees another, so examples need not be told apart.
        let pieces: Vec<Piece> = group.iter().flat_map(|(example, _)| example.pieces.clone()).collect();
        let (mut start, mut labels, mut learned) = (0, vec![], vec![]);
        for (example, weight) in group {
            for place in example.labelled.clone() {
                let Piece::Token(row) = example.pieces[place] else { return Err(Error::invalid("tokens", "a vector")) };
                labels.push((start + place - 1, row as usize - self.words.len(), *weight));
            }
            start += example.pieces.len();
        }
        for (place, piece) in pieces.iter().enumerate() {
            if let Piece::Vector(row) = piece {
                learned.push((place as u32, *row));
            }
        }
        let x = self.embed(&[&pieces], vectors)?.squeeze(0)?;
        let vectors = vectors.map_or(Ok(0), |v| v.dim(0))?;
        Ok(Box::new(ToyPass { toy: self, x, inputs: vec![], labels, learned, vectors, stop: how.stop.clone() }))
    }

    fn prediction(&self) -> Prediction<'_> {
        Prediction::NextToken(self)
    }
}

struct ToyPass<'a> {
    toy: &'a Toy,
    /// States [T, width], on the way back their gradients.
    x: Tensor,
    /// Of the layers that go backward.
    inputs: Vec<Tensor>,
    /// Where each is predicted, its code, its weight.
    labels: Vec<(usize, usize, f32)>,
    /// Where learned vectors stand, and which.
    learned: Vec<(u32, u32)>,
    vectors: usize,
    stop: Control,
}

impl Pass for ToyPass<'_> {
    fn tokens(&self) -> usize {
        self.x.dims()[0]
    }

    fn forward(&mut self, layer: usize, keep: Keep) -> Result<()> {
        self.stop.check()?;
        if keep != Keep::Nothing {
            self.inputs.push(self.x.clone());
        }
        self.x = self.toy.layer(layer, &self.x)?;
        Ok(())
    }

    /// Squared distance of the logits from 1 for the right code and 0 for the others.
    fn loss(&mut self, objective: &Objective) -> Result<Loss> {
        let logits = self.toy.logits(&self.x)?.to_vec2::<f32>()?;
        let mut loss = Loss { total: 0.0, nats: vec![] };
        let mut gradient = vec![0f32; logits.len() * CODES];
        for &(place, code, weight) in &self.labels {
            let gap = |c: usize| logits[place][c] - f32::from(u8::from(c == code));
            let distance: f32 = (0..CODES).map(|c| gap(c).powi(2)).sum();
            loss.total += f64::from(weight * distance);
            loss.nats.push(distance);
            (0..CODES).for_each(|c| gradient[place * CODES + c] = 2.0 * weight * gap(c));
        }
        if objective.with_gradient {
            let gradient = Tensor::from_vec(gradient, (logits.len(), CODES), self.x.device())?;
            let head = &self.toy.weights[2 * LAYERS];
            self.x = head.backward(2 * LAYERS, &gradient, None, None, &Wanted::default(), &mut vec![])?;
        }
        Ok(loss)
    }

    fn backward(&mut self, layer: usize, wanted: &Wanted) -> Result<Gradients> {
        let (mix, gain) = (2 * layer, 2 * layer + 1);
        let (weights, g) = (&self.toy.weights, self.x.clone());
        let x = self.inputs.pop().ok_or_else(|| Error::invalid("layer", "kept nothing"))?;
        let mut found = Gradients::new();
        let straight = g.broadcast_mul(weights[gain].tensor()?)?;
        self.x = weights[mix].backward(mix, &g, Some(&x), Some(straight), wanted, &mut found)?;
        if wanted.whole(gain) {
            found.push((Target { part: Part::Whole, weight: gain }, (g * x)?.sum(0)?));
        }
        found.sort_by_key(|(target, _)| *target);
        Ok(found)
    }

    fn vectors(&mut self) -> Result<Tensor> {
        let sum = Tensor::zeros((self.vectors, WIDTH), DType::F32, self.x.device())?;
        let (places, rows): (Vec<u32>, Vec<u32>) = self.learned.iter().copied().unzip();
        if rows.is_empty() {
            return Ok(sum);
        }
        let there = self.x.index_select(&Tensor::new(places, self.x.device())?, 0)?;
        Ok(sum.index_add(&Tensor::new(rows, self.x.device())?, &there, 0)?)
    }
}

impl NextToken for Toy {
    fn codes(&self) -> usize {
        CODES
    }

    fn closes_rows(&self) -> bool {
        false
    }

    fn opening(&self, condition: &Condition, _: (u32, u32)) -> Result<Vec<Piece>> {
        Ok(condition.pieces.clone())
    }

    fn filler(&self) -> Piece {
        Piece::Token(0)
    }

    fn embed(&self, rows: &[&[Piece]], vectors: Option<&Tensor>) -> Result<Tensor> {
        let row = |piece: &Piece| -> Result<Tensor> {
            match (piece, vectors) {
                (Piece::Token(row), _) => Ok(self.embedding.get(*row as usize)?),
                (Piece::Vector(row), Some(vectors)) => Ok(vectors.get(*row as usize)?),
                (Piece::Vector(_), None) => Err(Error::invalid("prompt", "has a vector that is not there")),
                (Piece::Code(code), _) => Ok(self.embedding.get(self.words.len() + *code as usize)?),
            }
        };
        let all = rows.iter().flat_map(|r| r.iter()).map(row).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::stack(&all, 0)?.reshape((rows.len(), rows[0].len(), WIDTH))?)
    }

    fn embed_symbols(&self, symbols: &Tensor, times: usize) -> Result<Tensor> {
        let (b, t) = symbols.dims2()?;
        let codes = self.embedding.narrow(0, self.words.len(), CODES)?;
        let rows = codes.index_select(&symbols.flatten_all()?, 0)?.reshape((b, t, WIDTH))?;
        Ok(Tensor::cat(&vec![rows; times], 0)?)
    }

    fn rotary(&self) -> &Rotary {
        &self.rotary
    }

    fn new_cache(&self, rows: usize, capacity: usize) -> Result<Cache> {
        let shape = CacheShape { layers: 0, rows, kv_heads: 1, capacity, head_dim: 2 };
        Cache::new(&shape, DType::F32, self.device())
    }

    fn forward(&self, x: &Tensor, context: &Context, cache: Option<&mut Cache>) -> Result<Tensor> {
        context.stop.check()?;
        if let Some(cache) = cache {
            cache.grow(x.dims()[1]);
        }
        (0..LAYERS).try_fold(x.clone(), |x, layer| self.layer(layer, &x))
    }

    fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        self.weights[2 * LAYERS].forward(hidden)
    }
}

struct ToyFootprint(Vec<Spec>);

impl Footprint for ToyFootprint {
    fn specs(&self) -> &[Spec] {
        &self.0
    }

    fn layers(&self) -> usize {
        LAYERS
    }

    fn codebook(&self) -> (usize, u32) {
        (CODES, PATCH)
    }

    fn weights(&self, at: &Place) -> u128 {
        self.0.iter().map(|spec| spec.numbers() as u128).sum::<u128>() * at.activation()
    }

    fn encoding(&self, pixels: u128, _at: &Place) -> u128 {
        4 * pixels
    }

    fn drawing(&self, drawn: &Drawn, _: &Place) -> u128 {
        drawn.pictures * drawn.places * (WIDTH as u128 + drawn.noise * CODES as u128) * 4
    }

    fn tokens(&self, width: u128, height: u128) -> u128 {
        8 + (width / 4) * (height / 4)
    }

    fn hidden(&self) -> u128 {
        WIDTH as u128
    }

    fn kept(&self, tokens: u128, at: &Place) -> u128 {
        tokens * self.hidden() * at.activation()
    }

    fn backward(&self, tokens: u128, at: &Place) -> u128 {
        3 * self.kept(tokens, at)
    }

    fn loss(&self, tokens: u128, at: &Place) -> u128 {
        tokens * CODES as u128 * 2 * at.activation()
    }
}
