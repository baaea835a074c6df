//! The transformer that DINO and both towers of CLIP are, and the network that looks at pictures through it.
//!
//! Plain numbers on our own kernels, f32 throughout. A picture's vector does not depend on what is beside it in a batch.

use crate::kernels::{self, zeros, Attention, Left, Matrix};
use crate::run::Control;
use crate::Result;

/// `x W^T + b`.
pub struct Linear {
    /// [outputs, inputs]
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
}

impl Linear {
    fn outputs(&self) -> usize {
        self.bias.len()
    }

    fn inputs(&self) -> usize {
        self.weight.len() / self.bias.len()
    }

    /// Writes the rows' results to `y`.
    fn apply(&self, x: &[f32], y: &mut [f32]) {
        kernels::fill_rows(y, &self.bias);
        self.multiply(x, y);
    }

    /// Adds the rows' results to `y`.
    fn apply_more(&self, x: &[f32], y: &mut [f32]) {
        kernels::add_to_rows(y, &self.bias);
        self.multiply(x, y);
    }

    fn multiply(&self, x: &[f32], y: &mut [f32]) {
        project(x, &self.weight, (self.outputs(), self.inputs()), y);
    }
}

/// Adds `x W^T` to `y` for W [outputs, inputs].
fn project(x: &[f32], weight: &[f32], (outputs, inputs): (usize, usize), y: &mut [f32]) {
    let left = Left { data: x, row: inputs, column: 1 };
    kernels::gemm((x.len() / inputs, outputs, inputs), left, (Matrix::F32(weight), inputs, true), (y, outputs), true);
}

/// Layer norm.
pub struct Norm {
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
    pub eps: f32,
}

impl Norm {
    pub fn apply(&self, x: &[f32], y: &mut [f32]) {
        kernels::layer_norm(x, self.weight.len(), &self.weight, &self.bias, self.eps, y);
    }
}

/// What stands between the two products of the MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// By the error function.
    Gelu,
    /// `x sigmoid(1.702 x)`: OpenAI's CLIP.
    QuickGelu,
}

/// One layer: attention and MLP, each behind a norm and added to what it was given.
pub struct Block {
    pub before: Norm,
    pub query: Linear,
    pub key: Linear,
    pub value: Linear,
    pub out: Linear,
    pub after: Norm,
    pub up: Linear,
    pub down: Linear,
}

pub struct Transformer {
    pub blocks: Vec<Block>,
    pub heads: usize,
    pub activation: Activation,
}

impl Transformer {
    /// Runs sequences of as many tokens as there are spans, x [sequences * tokens, width], through all layers, in place.
    /// `spans` say what each token sees, from token to before token. Looks at the control before each layer.
    pub fn run(&self, x: &mut [f32], width: usize, spans: &[(u32, u32)], control: &Control) -> Result<()> {
        self.through(&self.blocks, x, width, spans, control)
    }

    /// The same, and gives the first token of each sequence, [sequences, width]: the last layer asks for nothing else.
    pub fn run_for_first(
        &self,
        mut x: Vec<f32>,
        width: usize,
        spans: &[(u32, u32)],
        control: &Control,
    ) -> Result<Vec<f32>> {
        let every = spans.len() * width;
        let firsts = |x: &[f32]| -> Vec<f32> { x.chunks_exact(every).flat_map(|all| &all[..width]).copied().collect() };
        let Some((last, blocks)) = self.blocks.split_last() else { return Ok(firsts(&x)) };
        self.through(blocks, &mut x, width, spans, control)?;
        control.check()?;
        let mut wanted = firsts(&x);
        let mut h = zeros(x.len());
        last.before.apply(&x, &mut h);
        let asking = firsts(&h);
        let mut room = Room::new(h.len(), wanted.len(), last);
        self.layer(last, &h, &asking, &mut wanted, &spans[..1], &mut room);
        Ok(wanted)
    }

    fn through(
        &self,
        blocks: &[Block],
        x: &mut [f32],
        width: usize,
        spans: &[(u32, u32)],
        control: &Control,
    ) -> Result<()> {
        let Some(block) = blocks.first() else { return Ok(()) };
        debug_assert!(x.len().is_multiple_of(spans.len() * width));
        let (mut h, mut room) = (zeros(x.len()), Room::new(x.len(), x.len(), block));
        for block in blocks {
            control.check()?;
            block.before.apply(x, &mut h);
            self.layer(block, &h, &h, x, spans, &mut room);
        }
        Ok(())
    }

    /// Adds to `x` what a layer makes of the tokens `asking`, which look at the tokens `seen`; both behind the first norm. Each of
    /// the tokens that a sequence asks for has its span.
    fn layer(&self, block: &Block, seen: &[f32], asking: &[f32], x: &mut [f32], spans: &[(u32, u32)], room: &mut Room) {
        let width = block.out.outputs();
        let (tokens, d) = (spans.len(), width / self.heads);
        let batch = asking.len() / width / tokens;
        let slots = seen.len() / width / batch;
        let strides = [slots * width, d, width];
        let attention = Attention { batch, tokens, heads: self.heads, kv_heads: self.heads, d, slots, strides, spans };
        block.query.apply(asking, &mut room.q);
        block.key.apply(seen, &mut room.k);
        block.value.apply(seen, &mut room.v);
        attention.forward(&room.q, Matrix::F32(&room.k), Matrix::F32(&room.v), &mut room.h, &mut []);
        block.out.apply_more(&room.h, x);

        block.after.apply(x, &mut room.h);
        block.up.apply(&room.h, &mut room.wide);
        match self.activation {
            Activation::Gelu => kernels::gelu(&mut room.wide),
            Activation::QuickGelu => kernels::quick_gelu(&mut room.wide),
        }
        block.down.apply_more(&room.wide, x);
    }
}

/// What a layer works in, for so many numbers seen and asked for.
struct Room {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    h: Vec<f32>,
    wide: Vec<f32>,
}

impl Room {
    fn new(seen: usize, asking: usize, block: &Block) -> Self {
        let wide = zeros(asking / block.out.outputs() * block.up.outputs());
        Room { q: zeros(asking), k: zeros(seen), v: zeros(seen), h: zeros(asking), wide }
    }
}

/// A network that makes one vector of a picture.
pub struct Vision {
    /// Sides of a patch and of the pictures it was trained on, in pixels.
    pub patch: usize,
    pub side: usize,
    /// [width, 3 * patch * patch]; the bias is 0 where the network has none.
    pub patches: Linear,
    pub class_token: Vec<f32>,
    /// [1 + patches of a picture, width]
    pub positions: Vec<f32>,
    /// CLIP's norm in front of the layers.
    pub first: Option<Norm>,
    pub body: Transformer,
    pub last: Norm,
    /// CLIP's, [size of the vector, width].
    pub projection: Option<Vec<f32>>,
}

impl Vision {
    fn width(&self) -> usize {
        self.class_token.len()
    }

    /// Numbers of a vector.
    pub fn size(&self) -> usize {
        self.projection.as_ref().map_or(self.width(), |p| p.len() / self.width())
    }

    /// The vectors of square pictures of one size, given as their patches row by row, [patches, 3 * patch * patch] each.
    pub fn encode(&self, pictures: &[&[f32]], control: &Control) -> Result<Vec<Vec<f32>>> {
        let Some(first) = pictures.first() else { return Ok(vec![]) };
        let (width, inputs) = (self.width(), self.patches.inputs());
        let grid = ((first.len() / inputs) as f64).sqrt() as usize;
        let positions = self.positions_for(grid);
        let (count, tokens) = (grid * grid, grid * grid + 1);

        let together = pictures.concat();
        let mut patches = zeros(pictures.len() * count * width);
        self.patches.apply(&together, &mut patches);
        let mut x = zeros(pictures.len() * tokens * width);
        for (sequence, patches) in x.chunks_exact_mut(tokens * width).zip(patches.chunks_exact(count * width)) {
            let (class, rest) = sequence.split_at_mut(width);
            class.copy_from_slice(&self.class_token);
            rest.copy_from_slice(patches);
        }
        kernels::add_to_rows(&mut x, &positions);
        if let Some(norm) = &self.first {
            let from = std::mem::replace(&mut x, zeros(pictures.len() * tokens * width));
            norm.apply(&from, &mut x);
        }
        let class = self.body.run_for_first(x, width, &vec![(0, tokens as u32); tokens], control)?;
        let mut vectors = zeros(class.len());
        self.last.apply(&class, &mut vectors);
        Ok(match &self.projection {
            None => vectors.chunks_exact(width).map(<[f32]>::to_vec).collect(),
            Some(projection) => vectors_of(&vectors, projection, width),
        })
    }

    /// The positions for a picture of `grid` x `grid` patches, resized as DINO's own code does it: bicubic with a = -0.75, and
    /// a scale that is a tenth of a patch too large.
    fn positions_for(&self, grid: usize) -> std::borrow::Cow<'_, [f32]> {
        let own = self.side / self.patch;
        if grid == own {
            return self.positions.as_slice().into();
        }
        let width = self.width();
        let scale = ((grid as f64 + 0.1) / own as f64).recip() as f32;
        let (class, patches) = self.positions.split_at(width);
        let taps: Vec<[(usize, f32); 4]> = (0..grid).map(|i| cubic_taps(i, scale, own)).collect();
        let mut resized = class.to_vec();
        for rows in &taps {
            for columns in &taps {
                let start = resized.len();
                resized.resize(start + width, 0.0);
                for (y, by_row) in rows {
                    for (x, by_column) in columns {
                        let from = &patches[(y * own + x) * width..][..width];
                        resized[start..].iter_mut().zip(from).for_each(|(to, from)| *to += by_row * by_column * from);
                    }
                }
            }
        }
        resized.into()
    }
}

/// Rows [n, width] times the projection [size, width], a vector each.
pub fn vectors_of(rows: &[f32], projection: &[f32], width: usize) -> Vec<Vec<f32>> {
    let size = projection.len() / width;
    let mut vectors = zeros(rows.len() / width * size);
    project(rows, projection, (size, width), &mut vectors);
    vectors.chunks_exact(size).map(<[f32]>::to_vec).collect()
}

/// The four numbers of `own` that number `i` of the resized ones is made of, and their weights, as PyTorch interpolates.
fn cubic_taps(i: usize, scale: f32, own: usize) -> [(usize, f32); 4] {
    const A: f32 = -0.75;
    let at = (i as f32 + 0.5) * scale - 0.5;
    let (floor, t) = (at.floor(), at - at.floor());
    let near = |x: f32| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f32| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    let weights = [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)];
    let place = |offset: usize| (floor as i64 - 1 + offset as i64).clamp(0, own as i64 - 1) as usize;
    std::array::from_fn(|k| (place(k), weights[k]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weights_of_an_interpolation_add_up_to_one_and_stay_inside() {
        for i in 0..16 {
            let taps = cubic_taps(i, 14.0 / 16.1, 14);
            assert!((taps.iter().map(|t| t.1).sum::<f32>() - 1.0).abs() < 1e-6);
            assert!(taps.iter().all(|t| t.0 < 14));
        }
    }
}
