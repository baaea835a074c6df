//! How much memory a model takes, from its shape alone: what [`estimate`](crate::estimate) adds up.

use crate::ops::COLUMNS;
use crate::weight::Format;
use crate::weights::Spec;
use candle_core::Device;

/// Bytes of an activation or a gradient on the CPU.
pub const F32: u128 = 4;

/// What an image tokenizer of convolutions with so many channels at full resolution takes for a picture of so many pixels: three
/// states there and the columns of a convolution's tile; on a GPU five states and the columns of a band.
pub fn convolved(pixels: u128, channels: usize, at: &Place) -> u128 {
    let state = pixels * channels as u128 * F32;
    match at.on_gpu {
        true => 5 * state + (9 * state).min(COLUMNS as u128 * F32),
        false => state * 7 / 2,
    }
}

/// Where and in what numbers a model runs, as far as memory goes.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub format: Format,
    /// Whether to count as on a GPU: activations in the dtype of the weights, optimizer states in the memory of the host.
    pub on_gpu: bool,
}

impl Place {
    pub fn new(format: Format, device: &Device) -> Self {
        Place { format, on_gpu: !device.is_cpu() }
    }

    /// Bytes of an activation.
    pub fn activation(&self) -> u128 {
        if self.on_gpu {
            self.dense()
        } else {
            F32
        }
    }

    /// Logits of a drawn place that are there at once: in rows of the batch, and as scores, probabilities and their like in pictures.
    pub fn drawn(&self, rows: u128, pictures: u128) -> u128 {
        if self.on_gpu {
            rows + 3 * pictures
        } else {
            3 * rows + pictures
        }
    }

    /// Logits of a chunk that are there at once in the loss: on a GPU with their exponentials and gradients, which lie apart.
    pub fn logits(&self) -> u128 {
        if self.on_gpu {
            4
        } else {
            1
        }
    }

    /// What candle's kernels for quantised weights write between, once for a device.
    pub fn scratch(&self) -> u128 {
        match (self.on_gpu, self.format) {
            (true, Format::Q8_0 | Format::Q4K) => 20 << 20,
            _ => 0,
        }
    }

    /// Bytes of a weight that is not quantised.
    pub fn dense(&self) -> u128 {
        self.format.dense().size_in_bytes() as u128
    }
}

/// Pictures that are drawn in one batch.
#[derive(Clone, Copy, Debug)]
pub struct Drawn {
    /// Pixels.
    pub width: u128,
    pub height: u128,
    pub prompts: u128,
    /// Of all prompts.
    pub pictures: u128,
    pub guided: bool,
    /// Places that a pass predicts.
    pub places: u128,
    /// Numbers that decide on the codes of a picture, for each code of the codebook.
    pub noise: u128,
}

/// The sizes of a model's parts. All are bytes unless they say something else.
pub trait Footprint: Send + Sync {
    /// What has a name, as [`Weights`](crate::weights::Weights) will have it.
    fn specs(&self) -> &[Spec];

    fn layers(&self) -> usize;

    /// Codes of the image tokenizer, and pixels that one of them has along each side.
    fn codebook(&self) -> (usize, u32);

    /// All weights, the image tokenizer's included.
    fn weights(&self, at: &Place) -> u128;

    /// What encoding a picture of so many pixels takes.
    fn encoding(&self, pixels: u128, at: &Place) -> u128;

    /// What decoding one takes.
    fn decoding(&self, pixels: u128, at: &Place) -> u128 {
        self.encoding(pixels, at)
    }

    /// Whether the examples of a group go through the layers one by one.
    fn apart(&self) -> bool {
        false
    }

    /// Bytes of a number of the state between two layers.
    fn state(&self, at: &Place) -> u128 {
        at.activation()
    }

    /// What drawing takes beside the weights.
    fn drawing(&self, drawn: &Drawn, at: &Place) -> u128;

    /// Tokens of a picture of so many pixels with a usual prompt before it.
    fn tokens(&self, width: u128, height: u128) -> u128;

    /// Numbers of the state of a token between two layers.
    fn hidden(&self) -> u128;

    /// What the backward pass needs of a layer for so many tokens.
    fn kept(&self, tokens: u128, at: &Place) -> u128;

    /// What a layer's backward pass holds for so many tokens, but for the layer's input.
    fn backward(&self, tokens: u128, at: &Place) -> u128;

    /// What the loss of a group of so many tokens and its gradient take.
    fn loss(&self, tokens: u128, at: &Place) -> u128;
}
