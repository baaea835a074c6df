//! LPIPS on AlexNet: how different two pictures look. Its mean over pictures of one prompt is their diversity (DIV).

use super::preprocess::{Statistics, View};
use super::weights::{Fingerprint, Weights};
use crate::kernels::{self, zeros, Left, Matrix};
use crate::picture::Picture;
use crate::run::Control;
use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// One convolution with what stands in front of it.
struct Layer {
    /// Its number in AlexNet's list, also of names.
    number: usize,
    inputs: usize,
    outputs: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
    /// Whether the largest of each 3x3 pixels, two apart, are taken first.
    pooled: bool,
}

const LAYERS: [Layer; 5] = [
    Layer { number: 0, inputs: 3, outputs: 64, kernel: 11, stride: 4, padding: 2, pooled: false },
    Layer { number: 3, inputs: 64, outputs: 192, kernel: 5, stride: 1, padding: 2, pooled: true },
    Layer { number: 6, inputs: 192, outputs: 384, kernel: 3, stride: 1, padding: 1, pooled: true },
    Layer { number: 8, inputs: 384, outputs: 256, kernel: 3, stride: 1, padding: 1, pooled: false },
    Layer { number: 10, inputs: 256, outputs: 256, kernel: 3, stride: 1, padding: 1, pooled: false },
];

/// The network's own scaling of pixels from -1 to 1, as if they were from 0 to 1.
const STATISTICS: Statistics = Statistics {
    mean: [(1.0 - 0.030) / 2.0, (1.0 - 0.088) / 2.0, (1.0 - 0.188) / 2.0],
    deviation: [0.458 / 2.0, 0.448 / 2.0, 0.450 / 2.0],
};
/// What ARBooth compares.
pub const VIEW: View = View::Squash { side: 256 };

pub struct Lpips {
    /// [outputs, inputs * kernel * kernel] and a bias for each layer.
    layers: Vec<(Vec<f32>, Vec<f32>)>,
    /// How much each channel of each layer counts.
    shares: Vec<Vec<f32>>,
}

/// What the network makes of a picture: for each layer pixels of channels, each pixel of length 1.
pub struct Look(Vec<Vec<f32>>);

/// Pixels row by row, channels last.
struct Plane {
    side: usize,
    channels: usize,
    values: Vec<f32>,
}

impl Lpips {
    /// A folder with AlexNet's weights as torchvision has them and those of LPIPS (`alex.pth`), or a file with both.
    pub fn open(path: &Path, control: &Control) -> Result<(Self, Vec<Fingerprint>)> {
        let mut files: Vec<PathBuf> = vec![path.into()];
        if path.is_dir() {
            let entries = std::fs::read_dir(path).map_err(|e| Error::io(path, e))?;
            let found = entries.map(|e| e.map(|e| e.path())).collect::<std::io::Result<Vec<_>>>();
            files = found.map_err(|e| Error::io(path, e))?;
            let ends =
                |p: &PathBuf| ["pth", "pt", "bin", "safetensors"].iter().any(|e| p.extension() == Some(e.as_ref()));
            files.retain(ends);
            files.sort();
        }
        let parts = files.iter().map(|file| Weights::open(file, "LPIPS", control)).collect::<Result<Vec<_>>>()?;
        // As the package's whole network, torchvision's AlexNet, or the package's part behind it name them.
        let find = |names: &[String], shape: &[usize]| {
            for (weights, name) in parts.iter().flat_map(|w| names.iter().map(move |n| (w, n))) {
                if weights.checkpoint.contains(name) {
                    return weights.vector(name, shape);
                }
            }
            let message =
                format!("has no {}; AlexNet's weights of torchvision and LPIPS's alex.pth are needed", names[0]);
            Err(Error::NotFound { path: path.into(), message })
        };
        let (mut layers, mut shares) = (vec![], vec![]);
        for (i, layer) in LAYERS.iter().enumerate() {
            let names = |kind: &str| {
                let number = layer.number;
                [format!("features.{number}.{kind}"), format!("net.slice{}.{number}.{kind}", i + 1)]
            };
            let shape = [layer.outputs, layer.inputs, layer.kernel, layer.kernel];
            layers.push((find(&names("weight"), &shape)?, find(&names("bias"), &[layer.outputs])?));
            let names = [format!("lin{i}.model.1.weight"), format!("lins.{i}.model.1.weight")];
            shares.push(find(&names, &[1, layer.outputs, 1, 1])?);
        }
        let mut fingerprints = vec![];
        for weights in &parts {
            fingerprints.extend(weights.fingerprints(&[])?);
        }
        Ok((Lpips { layers, shares }, fingerprints))
    }

    pub fn look(&self, picture: &Picture, control: &Control) -> Result<Look> {
        let seen = VIEW.of(picture);
        let mut plane = Plane::of(&seen);
        let mut looks = vec![];
        for (layer, (weight, bias)) in LAYERS.iter().zip(&self.layers) {
            control.check()?;
            if layer.pooled {
                plane = plane.pooled();
            }
            plane = plane.convolved(layer, weight, bias);
            let mut unit = plane.values.clone();
            for pixel in unit.chunks_exact_mut(plane.channels) {
                let length = pixel.iter().map(|v| v * v).sum::<f32>().sqrt() + 1e-10;
                pixel.iter_mut().for_each(|v| *v /= length);
            }
            looks.push(unit);
        }
        Ok(Look(looks))
    }

    /// The distance of two pictures.
    pub fn distance(&self, a: &Look, b: &Look) -> f64 {
        let of_layer = |((a, b), shares): ((&Vec<f32>, &Vec<f32>), &Vec<f32>)| {
            let pixels = a.chunks_exact(shares.len()).zip(b.chunks_exact(shares.len()));
            let sum: f64 = pixels
                .map(|(a, b)| {
                    let channels = a.iter().zip(b).zip(shares);
                    channels.map(|((a, b), share)| f64::from((a - b) * (a - b) * share)).sum::<f64>()
                })
                .sum();
            sum / (a.len() / shares.len()) as f64
        };
        a.0.iter().zip(&b.0).zip(&self.shares).map(of_layer).sum()
    }
}

impl Plane {
    fn of(picture: &Picture) -> Self {
        let levels = STATISTICS.levels();
        let channels = |pixel: &[u8]| [0, 1, 2].map(|c| levels[c][usize::from(pixel[c])]);
        let values = picture.rgb().chunks_exact(3).flat_map(channels).collect();
        Plane { side: picture.width() as usize, channels: 3, values }
    }

    fn pooled(&self) -> Plane {
        let (side, channels) = ((self.side - 3) / 2 + 1, self.channels);
        let mut values = vec![f32::NEG_INFINITY; side * side * channels];
        for (i, to) in values.chunks_exact_mut(channels).enumerate() {
            let (y, x) = (i / side * 2, i % side * 2);
            for from in (y..y + 3).flat_map(|y| (x..x + 3).map(move |x| y * self.side + x)) {
                let from = &self.values[from * channels..][..channels];
                to.iter_mut().zip(from).for_each(|(to, v)| *to = to.max(*v));
            }
        }
        Plane { side, channels, values }
    }

    /// The convolution with its bias, and nothing below 0.
    fn convolved(&self, layer: &Layer, weight: &[f32], bias: &[f32]) -> Plane {
        let Layer { kernel, stride, padding, outputs, inputs, .. } = *layer;
        let side = (self.side + 2 * padding - kernel) / stride + 1;
        let width = inputs * kernel * kernel;
        // What each pixel of the result is made of, a row each, in the order of the weights.
        let mut rows = zeros(side * side * width);
        for (i, row) in rows.chunks_exact_mut(width).enumerate() {
            let (top, left) = (i / side * stride, i % side * stride);
            for (ky, kx) in (0..kernel).flat_map(|y| (0..kernel).map(move |x| (y, x))) {
                // Beside the picture there is nothing: 0, as it is already.
                let (y, x) = ((top + ky).wrapping_sub(padding), (left + kx).wrapping_sub(padding));
                if y < self.side && x < self.side {
                    let from = &self.values[(y * self.side + x) * inputs..][..inputs];
                    for (channel, v) in from.iter().enumerate() {
                        row[channel * kernel * kernel + ky * kernel + kx] = *v;
                    }
                }
            }
        }
        let mut values = zeros(side * side * outputs);
        kernels::fill_rows(&mut values, bias);
        let left = Left { data: &rows, row: width, column: 1 };
        let right = (Matrix::F32(weight), width, true);
        kernels::gemm((side * side, outputs, width), left, right, (&mut values, outputs), true);
        values.iter_mut().for_each(|v| *v = v.max(0.0));
        Plane { side, channels: outputs, values }
    }
}
