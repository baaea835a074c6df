//! The image tokenizer: pictures to latents and back (arXiv 2412.04431, section 3.2). A VQ-GAN without attention and without the 1x1
//! convolutions around the codes; its layers are those of the VQ-GAN.
//!
//! Always in f32. Every size comes from the shapes of the tensors.

use super::bsq::Map;
use crate::device::to_host;
use crate::files::checkpoint::Checkpoint;
use crate::model::vqgan::layers::{Conv3x3, GroupNorm, ResBlock, Source};
use crate::model::vqgan::Config as Groups;
use crate::run::Run;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};

/// The shape of an image tokenizer.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// Channels of a latent.
    pub d: usize,
    /// Channels at full resolution.
    pub base: usize,
    /// Channels of each level; each but the last halves the resolution.
    pub levels: Vec<usize>,
    /// Residual blocks of a level of the encoder and of the decoder.
    pub blocks: [usize; 2],
    /// Of the group norms.
    pub groups: usize,
}

/// The weights by flat names, which may be nested one level deeper in the file: `conv1.conv.weight` for `conv1.weight`.
pub struct Weights<'a> {
    pub checkpoint: &'a Checkpoint,
    /// What stands before each name.
    pub prefix: &'a str,
}

impl Weights<'_> {
    fn name(&self, flat: &str) -> String {
        let own = format!("{}{flat}", self.prefix);
        let nested = flat.rsplit_once('.').map(|(place, number)| {
            let inner = if place.rsplit('.').next().is_some_and(|p| p.starts_with("norm")) { "norm" } else { "conv" };
            format!("{}{place}.{inner}.{number}", self.prefix)
        });
        match nested {
            Some(nested) if !self.checkpoint.contains(&own) && self.checkpoint.contains(&nested) => nested,
            _ => own,
        }
    }

    fn dims(&self, flat: &str) -> Option<&[usize]> {
        self.checkpoint.shape(&self.name(flat))
    }

    /// Whether this is an image tokenizer of this family.
    pub fn are_there(&self) -> bool {
        self.dims("encoder.conv_in.weight").is_some() && self.dims("decoder.conv_in.weight").is_some()
    }

    /// The shape that the tensors have; `groups` of the norms is not among them.
    pub fn shape(&self, groups: Option<usize>) -> Result<Shape> {
        let need = |name: &str| {
            self.dims(name).filter(|d| d.len() == 4).ok_or_else(|| Error::Tensor {
                file: self.checkpoint.path().to_owned(),
                tensor: name.into(),
                expected: "the weight of a convolution".into(),
                found: "none".into(),
            })
        };
        let base = need("encoder.conv_in.weight")?[0];
        let d = need("encoder.conv_out.weight")?[0];
        let channels = |half: &str, level: usize, block: usize| {
            self.dims(&format!("{half}.{level}.block.{block}.conv1.weight")).map(|dims| dims[0])
        };
        let levels: Vec<usize> = (0..).map_while(|i| channels("encoder.down", i, 0)).collect();
        let blocks =
            ["encoder.down", "decoder.up"].map(|half| (0..).take_while(|&b| channels(half, 0, b).is_some()).count());
        // As upstream: 32 where that divides the channels, else 24.
        let groups = groups.unwrap_or(if base.is_multiple_of(32) { 32 } else { 24 });
        if let Some(odd) = levels.iter().chain([&base]).find(|c| groups == 0 || !c.is_multiple_of(groups)) {
            let message = format!(
                "the image tokenizer has {odd} channels, which are no {groups} groups; sitter.json may say how many there are, \
                 as {{\"infinity\": {{\"groups\": 8}}}}"
            );
            return Err(Error::bad_format(self.checkpoint.path(), message));
        }
        if d == 0 || d > 32 || levels.is_empty() || blocks.contains(&0) {
            let message = format!(
                "the image tokenizer has latents of {d} channels (1 to 32 are read), {} levels and {blocks:?} blocks in each",
                levels.len()
            );
            return Err(Error::bad_format(self.checkpoint.path(), message));
        }
        Ok(Shape { d, base, levels, blocks, groups })
    }
}

impl Shape {
    /// Pixels along the side of a latent's cell.
    pub fn stride(&self) -> u32 {
        1 << (self.levels.len() - 1)
    }
}

/// The residual blocks of one resolution, and the convolution that halves or doubles it behind them.
struct Level {
    blocks: Vec<ResBlock>,
    resample: Option<Conv3x3>,
}

impl Level {
    fn load(w: &Source, blocks: usize, from: usize, to: usize, resample: Option<&str>) -> Result<Self> {
        let block = |i: usize| ResBlock::load(&w.at(&format!("block.{i}")), if i == 0 { from } else { to }, to);
        let blocks = (0..blocks).map(block).collect::<Result<_>>()?;
        let resample = resample.map(|n| Conv3x3::load(&w.at(n).at("conv"), to, to)).transpose()?;
        Ok(Level { blocks, resample })
    }

    fn forward(&self, mut x: Tensor, run: &Run) -> Result<Tensor> {
        for block in &self.blocks {
            run.check()?;
            x = block.forward(x)?;
        }
        Ok(x)
    }
}

/// Half of the tokenizer: levels and the middle, between a first and a last convolution.
struct Half {
    conv_in: Conv3x3,
    levels: Vec<Level>,
    middle: [ResBlock; 2],
    norm_out: GroupNorm,
    conv_out: Conv3x3,
}

impl Half {
    fn load(w: &Source, ends: [usize; 4], deepest: usize, levels: Vec<Level>) -> Result<Self> {
        let [input, first, last, output] = ends;
        Ok(Half {
            conv_in: Conv3x3::load(&w.at("conv_in"), input, first)?,
            levels,
            middle: [
                ResBlock::load(&w.at("mid.block_1"), deepest, deepest)?,
                ResBlock::load(&w.at("mid.block_2"), deepest, deepest)?,
            ],
            norm_out: GroupNorm::load(&w.at("norm_out"), last)?,
            conv_out: Conv3x3::load(&w.at("conv_out"), last, output)?,
        })
    }

    fn middle(&self, x: Tensor) -> Result<Tensor> {
        self.middle[1].forward(self.middle[0].forward(x)?)
    }

    fn end(&self, x: &Tensor) -> Result<Tensor> {
        self.conv_out.behind(&self.norm_out, x, None)
    }
}

/// An image tokenizer.
pub struct Vae {
    shape: Shape,
    encoder: Half,
    decoder: Half,
    device: Device,
}

impl Vae {
    pub fn load(weights: &Weights, shape: Shape, device: &Device) -> Result<Self> {
        let config = Groups { num_groups: shape.groups, ..Groups::default() };
        let get = |name: &str, dims: &[usize]| weights.checkpoint.get(&weights.name(name), dims, DType::F32, device);
        let root = Source::new(&config, &get);
        let (encoder, decoder) = (root.at("encoder"), root.at("decoder"));
        let (levels, last) = (&shape.levels, shape.levels.len() - 1);
        let deepest = levels[last];
        let down = |i: usize| {
            let from = if i == 0 { shape.base } else { levels[i - 1] };
            let resample = (i < last).then_some("downsample");
            Level::load(&encoder.at(&format!("down.{i}")), shape.blocks[0], from, levels[i], resample)
        };
        let up = |i: usize| {
            let from = levels[(i + 1).min(last)];
            let resample = (i > 0).then_some("upsample");
            Level::load(&decoder.at(&format!("up.{i}")), shape.blocks[1], from, levels[i], resample)
        };
        let (down, up) = ((0..=last).map(down).collect::<Result<_>>()?, (0..=last).map(up).collect::<Result<_>>()?);
        Ok(Vae {
            encoder: Half::load(&encoder, [3, shape.base, deepest, shape.d], deepest, down)?,
            decoder: Half::load(&decoder, [shape.d, deepest, levels[0], 3], deepest, up)?,
            shape,
            device: device.clone(),
        })
    }

    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The latent of a picture [1, 3, H, W] in [-1, 1], sides multiples of the stride.
    pub fn encode(&self, picture: &Tensor, run: &Run) -> Result<Map> {
        let stride = self.shape.stride() as usize;
        let (_, _, h, w) = picture.dims4()?;
        if h % stride != 0 || w % stride != 0 || h == 0 || w == 0 {
            let message = format!("{w}x{h} pixels: both sides must be multiples of {stride}");
            return Err(Error::invalid("picture", message));
        }
        let mut x = self.encoder.conv_in.forward(&picture.to_device(&self.device)?.to_dtype(DType::F32)?)?;
        for level in &self.encoder.levels {
            x = level.forward(x, run)?;
            if let Some(conv) = &level.resample {
                x = conv.halve(&x)?;
            }
        }
        let z = self.encoder.end(&self.encoder.middle(x)?)?;
        let data = to_host(&z.flatten_all()?)?.to_vec1::<f32>()?;
        if data.iter().any(|x| !x.is_finite()) {
            return Err(Error::internal("the image tokenizer's latent is not finite"));
        }
        Ok(Map { d: self.shape.d, grid: (h / stride, w / stride), data })
    }

    /// The picture of a latent, [1, 3, H, W], clamped to [-1, 1].
    pub fn decode(&self, latent: &Map, run: &Run) -> Result<Tensor> {
        let shape = (1, latent.d, latent.grid.0, latent.grid.1);
        let z = Tensor::from_slice(&latent.data, shape, &Device::Cpu)?.to_device(&self.device)?;
        let mut x = self.decoder.middle(self.decoder.conv_in.forward(&z)?)?;
        for level in self.decoder.levels.iter().rev() {
            x = level.forward(x, run)?;
            if let Some(conv) = &level.resample {
                x = conv.double(&x)?;
            }
        }
        Ok(self.decoder.end(&x)?.clamp(-1f32, 1f32)?)
    }
}
