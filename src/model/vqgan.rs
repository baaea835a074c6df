//! The VQ-GAN of Chameleon and Lumina-mGPT (that of taming-transformers), and with other names and codes of length one that of
//! LlamaGen and Janus (`vq16`): pictures to grids of codes and back.
//!
//! Always in f32: which of two near codes wins must not depend on a coarser dtype. Tensor names are those of the published
//! files.

mod config;
mod cpu;
pub(super) mod layers;
mod plain;
pub mod vq16;
mod yaml;

pub use config::Config;

use crate::device::to_host;
use crate::ops;
use crate::picture::Picture;
use crate::run::Run;
use crate::tokens::Tokens;
use crate::{Error, Result};
use candle_core::{DType, Tensor, D};
use layers::{Attention, Conv1x1, Conv3x3, GroupNorm, ResBlock, Source};

/// How weights come in: a tensor by its name, of exactly this shape.
pub(super) type Get<'a> = dyn Fn(&str, &[usize]) -> Result<Tensor> + 'a;

/// Pixels whose distances to all codes are computed at once; bounds the memory to 32 MiB for 8192 codes.
const PIXELS_AT_ONCE: usize = 1024;

/// The residual blocks of one resolution, each followed by an attention block where the configuration says so.
struct Level {
    blocks: Vec<(ResBlock, Option<Attention>)>,
    /// The convolution that halves or doubles the resolution after the blocks.
    resample: Option<Conv3x3>,
}

impl Level {
    /// `from` and `to` are the channels before and after; `name` is `down.2` or `up.2`.
    fn load(w: &Source, name: &str, at: usize, blocks: usize, from: usize, resample: Option<&str>) -> Result<Self> {
        let (w, c) = (w.at(name), w.config);
        let to = c.channels(at);
        let load_block = |i: usize| {
            let block = ResBlock::load(&w.at(&format!("block.{i}")), if i == 0 { from } else { to }, to)?;
            let attention = match c.has_attention(at) {
                true => Some(Attention::load(&w.at(&format!("attn.{i}")), to)?),
                false => None,
            };
            Ok((block, attention))
        };
        let blocks = (0..blocks).map(load_block).collect::<Result<_>>()?;
        let resample = resample.map(|n| Conv3x3::load(&w.at(n).at("conv"), to, to)).transpose()?;
        Ok(Level { blocks, resample })
    }

    fn forward(&self, mut x: Tensor, run: &Run) -> Result<Tensor> {
        for (block, attention) in &self.blocks {
            run.check()?;
            x = block.forward(x)?;
            if let Some(attention) = attention {
                x = attention.forward(&x)?;
            }
        }
        Ok(x)
    }
}

/// Two residual blocks around an attention block, at the lowest resolution.
struct Middle {
    block_1: ResBlock,
    attn_1: Attention,
    block_2: ResBlock,
}

impl Middle {
    fn load(w: &Source, channels: usize) -> Result<Self> {
        Ok(Middle {
            block_1: ResBlock::load(&w.at("mid.block_1"), channels, channels)?,
            attn_1: Attention::load(&w.at("mid.attn_1"), channels)?,
            block_2: ResBlock::load(&w.at("mid.block_2"), channels, channels)?,
        })
    }

    fn forward(&self, x: Tensor) -> Result<Tensor> {
        self.block_2.forward(self.attn_1.forward(&self.block_1.forward(x)?)?)
    }
}

/// An image tokenizer, with or without the half that decodes.
pub struct Vqgan {
    config: Config,
    /// [n_embed, embed_dim]
    codebook: Tensor,
    /// The squared length of each code: [n_embed].
    codebook_sq: Tensor,
    encoder: Encoder,
    decoder: Option<Decoder>,
}

impl Vqgan {
    /// Loads the encoder and the codebook, and if `decoder` the decoder too. `get` gives a tensor by its name, of
    /// exactly the shape asked for; where it lies decides on which device this runs.
    pub fn load(config: &Config, decoder: bool, get: impl Fn(&str, &[usize]) -> Result<Tensor>) -> Result<Self> {
        let w = Source::new(config, &get);
        let codebook = w.at("quantize.embedding").get("weight", &[config.n_embed, config.embed_dim])?;
        let codebook = if config.directions { directions(&codebook)? } else { codebook };
        Ok(Vqgan {
            config: config.clone(),
            codebook_sq: ops::square(&codebook)?.sum(1)?,
            codebook,
            encoder: Encoder::load(&w)?,
            decoder: if decoder { Some(Decoder::load(&w)?) } else { None },
        })
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn can_decode(&self) -> bool {
        self.decoder.is_some()
    }

    /// The code grids of pictures `[B, 3, H, W]` in [-1, 1]. H and W are multiples of the downsampling, 16 for Lumina.
    pub fn encode(&self, pictures: &Tensor, run: &Run) -> Result<Vec<Tokens>> {
        let z = self.latents(pictures, run)?; // [B, E, h, w]
        let (b, e, h, w) = z.dims4()?;
        let flat = z.permute((0, 2, 3, 1))?.reshape((b * h * w, e))?;
        let mut codes: Vec<u32> = Vec::with_capacity(b * h * w);
        for start in (0..b * h * w).step_by(PIXELS_AT_ONCE) {
            run.check()?;
            let rows = flat.narrow(0, start, PIXELS_AT_ONCE.min(b * h * w - start))?;
            codes.extend(self.nearest(&rows)?);
        }
        codes.chunks_exact(h * w).map(|grid| Tokens::new(h as u32, w as u32, grid.to_vec())).collect()
    }

    /// What is quantised: `[B, embed_dim, H / downsampling, W / downsampling]`.
    pub fn latents(&self, pictures: &Tensor, run: &Run) -> Result<Tensor> {
        let d = self.config.downsampling() as usize;
        match *pictures.dims() {
            [b, 3, h, w] if b > 0 && h > 0 && w > 0 && h % d == 0 && w % d == 0 => {}
            ref dims => {
                let m = format!("expected [B, 3, H, W] with H and W positive multiples of {d}, found {dims:?}");
                return Err(Error::invalid("pictures", m));
            }
        }
        self.encoder.forward(&pictures.to_device(self.codebook.device())?.to_dtype(DType::F32)?, run)
    }

    /// The pictures of code grids of one size: `[B, 3, H, W]`, about -1 to 1, not clamped.
    pub fn decode(&self, grids: &[Tokens], run: &Run) -> Result<Tensor> {
        let Some(decoder) = &self.decoder else {
            let message =
                "the model's files hold no decoder of the image tokenizer (decoder.*), so its tokens cannot become \
                           pictures; put Meta's vqgan.ckpt beside them";
            return Err(Error::NotSupported { message: message.into() });
        };
        let Some(first) = grids.first() else {
            return Err(Error::invalid("tokens", "there is no grid to decode"));
        };
        let (n, e) = self.codebook.dims2()?;
        let mut codes = Vec::new();
        for grid in grids {
            if (grid.height(), grid.width()) != (first.height(), first.width()) {
                let sizes = [first, grid].map(|g| format!("{}x{}", g.height(), g.width()));
                return Err(Error::invalid("tokens", format!("grids of different size, {}", sizes.join(" and "))));
            }
            if let Some(code) = grid.codes().iter().find(|&&c| c as usize >= n) {
                return Err(Error::invalid("tokens", format!("code {code} is not one of the {n} of the codebook")));
            }
            codes.extend_from_slice(grid.codes());
        }
        let (b, h, w) = (grids.len(), first.height() as usize, first.width() as usize);
        let codes = Tensor::new(codes, self.codebook.device())?;
        let z = self.codebook.index_select(&codes, 0)?.reshape((b, h, w, e))?.permute((0, 3, 1, 2))?;
        decoder.forward(&z.contiguous()?, run)
    }

    /// The code grid of a picture.
    pub fn encode_one(&self, picture: &Picture, run: &Run) -> Result<Tokens> {
        let mut tokens = self.encode(&picture.to_tensor(self.codebook.device())?, run)?;
        tokens.pop().ok_or_else(|| Error::internal("the image tokenizer gave nothing"))
    }

    /// The picture of a code grid.
    pub fn decode_one(&self, tokens: &Tokens, run: &Run) -> Result<Picture> {
        Picture::from_tensor(&self.decode(std::slice::from_ref(tokens), run)?.squeeze(0)?)
    }

    /// The index of the nearest code for each row of z `[N, E]`, the lowest of equals.
    fn nearest(&self, z: &Tensor) -> Result<Vec<u32>> {
        let z = &if self.config.directions { directions(z)? } else { z.clone() };
        // |z|² + |e|² - 2 z·e, in this form and order, so that near-ties fall as in the original.
        let z_sq = ops::square(z)?.sum_keepdim(1)?; // [N, 1]
        let dots = ops::matmul(z, &self.codebook.t()?)?; // [N, n_embed]
        let distances = ops::difference(&ops::sum(&z_sq, &self.codebook_sq)?, &(dots * 2.0)?)?;
        let smallest = distances.min_keepdim(D::Minus1)?; // [N, 1]
        if to_host(&smallest.flatten_all()?)?.to_vec1::<f32>()?.iter().any(|d| !d.is_finite()) {
            return Err(Error::Overflow {
                message: "the image tokenizer's encoder gives numbers that are not finite".into(),
            });
        }
        match ops::own_kernels(&distances) {
            true => Ok(to_host(&distances.argmin(D::Minus1)?)?.to_vec1()?),
            false => first_equal(&distances, &smallest),
        }
    }
}

/// Rows [N, E] brought to length one; a row of zeros stays.
fn directions(rows: &Tensor) -> Result<Tensor> {
    /// What a length counts as at least.
    const LEAST: f32 = 1e-12;
    let squares: Vec<f32> = to_host(&ops::square(rows)?.sum(1)?)?.to_vec1()?;
    let lengths: Vec<f32> = squares.into_iter().map(|square| square.sqrt().max(LEAST)).collect();
    ops::quotient(rows, &Tensor::new(lengths, rows.device())?.unsqueeze(1)?)
}

/// In each row of `values` `[N, M]`, the first place that equals the one in `wanted` `[N, 1]`. The argmin of a GPU may be
/// any of several equal minima.
fn first_equal(values: &Tensor, wanted: &Tensor) -> Result<Vec<u32>> {
    let (shape, device) = (values.dims2()?, values.device());
    let place = Tensor::arange(0, shape.1 as u32, device)?.broadcast_as(shape)?.contiguous()?;
    let beyond = Tensor::full(shape.1 as u32, shape, device)?.contiguous()?;
    let first = values.broadcast_eq(wanted)?.where_cond(&place, &beyond)?.min(D::Minus1)?;
    Ok(to_host(&first)?.to_vec1()?)
}

/// Pictures to what is quantised.
struct Encoder {
    conv_in: Conv3x3,
    down: Vec<Level>,
    mid: Middle,
    norm_out: GroupNorm,
    conv_out: Conv3x3,
    quant_conv: Conv1x1,
}

impl Encoder {
    fn load(root: &Source) -> Result<Self> {
        let (w, config) = (root.at("encoder"), root.config);
        let last = config.ch_mult.len() - 1;
        let deepest = config.channels(last);
        let level = |i: usize| {
            let from = if i == 0 { config.ch } else { config.channels(i - 1) };
            let resample = (i < last).then_some("downsample");
            Level::load(&w, &format!("down.{i}"), i, config.num_res_blocks, from, resample)
        };
        Ok(Encoder {
            conv_in: Conv3x3::load(&w.at("conv_in"), config.in_channels, config.ch)?,
            down: (0..=last).map(level).collect::<Result<_>>()?,
            mid: Middle::load(&w, deepest)?,
            norm_out: GroupNorm::load(&w.at("norm_out"), deepest)?,
            conv_out: Conv3x3::load(&w.at("conv_out"), deepest, config.z_channels)?,
            quant_conv: Conv1x1::load(&root.at("quant_conv"), config.z_channels, config.embed_dim)?,
        })
    }

    fn forward(&self, x: &Tensor, run: &Run) -> Result<Tensor> {
        let mut x = self.conv_in.forward(x)?;
        for level in &self.down {
            x = level.forward(x, run)?;
            if let Some(conv) = &level.resample {
                x = conv.halve(&x)?;
            }
        }
        self.quant_conv.forward(&self.conv_out.behind(&self.norm_out, &self.mid.forward(x)?, None)?)
    }
}

/// Vectors of codes to pictures.
struct Decoder {
    post_quant_conv: Conv1x1,
    conv_in: Conv3x3,
    mid: Middle,
    /// By resolution, the full one first; they run from the last to the first.
    up: Vec<Level>,
    norm_out: GroupNorm,
    conv_out: Conv3x3,
}

impl Decoder {
    fn load(root: &Source) -> Result<Self> {
        let (w, config) = (root.at("decoder"), root.config);
        let last = config.ch_mult.len() - 1;
        let deepest = config.channels(last);
        let level = |i: usize| {
            let from = config.channels((i + 1).min(last));
            let resample = (i > 0).then_some("upsample");
            Level::load(&w, &format!("up.{i}"), i, config.num_res_blocks + 1, from, resample)
        };
        Ok(Decoder {
            post_quant_conv: Conv1x1::load(&root.at("post_quant_conv"), config.embed_dim, config.z_channels)?,
            conv_in: Conv3x3::load(&w.at("conv_in"), config.z_channels, deepest)?,
            mid: Middle::load(&w, deepest)?,
            up: (0..=last).map(level).collect::<Result<_>>()?,
            norm_out: GroupNorm::load(&w.at("norm_out"), config.channels(0))?,
            conv_out: Conv3x3::load(&w.at("conv_out"), config.channels(0), config.out_ch)?,
        })
    }

    fn forward(&self, z: &Tensor, run: &Run) -> Result<Tensor> {
        let x = self.conv_in.forward(&self.post_quant_conv.forward(z)?)?;
        let mut x = self.mid.forward(x)?;
        for level in self.up.iter().rev() {
            x = level.forward(x, run)?;
            if let Some(conv) = &level.resample {
                x = conv.double(&x)?;
            }
        }
        self.conv_out.behind(&self.norm_out, &x, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn both_ways_to_find_the_nearest_code_take_the_first_of_equals() {
        let values = [[3f32, 1.0, 2.0, 1.0], [0.0, 0.0, 0.0, 0.0], [4.0, 3.0, 2.0, -1.0]];
        let values = Tensor::new(&values, &Device::Cpu).unwrap();
        let smallest = values.min_keepdim(D::Minus1).unwrap();
        assert_eq!(first_equal(&values, &smallest).unwrap(), [1, 0, 3]);
        assert_eq!(values.argmin(D::Minus1).unwrap().to_vec1::<u32>().unwrap(), [1, 0, 3]);
    }
}
