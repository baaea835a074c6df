//! A picture: eight bits of red, green and blue for each pixel, and everything that happens to it before the first
//! and after the last tensor.
//!
//! The numbers agree with Pillow and PyTorch to the bit wherever a published model was trained on theirs: `crop` and
//! `resample` are what the model saw its training pictures through, and a difference of one grey level there is a
//! different VQ code here. JPEG alone is decoded by another library than Pillow's, and may differ a little.

mod crop;
mod read;
mod resample;
mod write;

pub use crop::{choose_crop, crop_sizes, Crop};
pub use write::read_png_text;

use crate::device::to_host;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use std::path::Path;

/// The most pixels a picture may have, so that a lying header cannot ask for gigabytes.
pub const MAX_PIXELS: u64 = 100_000_000;

/// An RGB picture of eight bits per channel. What was transparent is laid on white, and how far is remembered.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    width: u32,
    height: u32,
    /// Rows top to bottom, pixels left to right, red, green, blue.
    rgb: Vec<u8>,
    /// How opaque each pixel was before it was laid on white, 0 to 255. None if all were.
    alpha: Option<Vec<u8>>,
}

impl std::fmt::Debug for Picture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Picture({}x{})", self.width, self.height)
    }
}

impl Picture {
    /// A picture of `width * height` pixels, three bytes each, row by row from the top.
    pub fn new(width: u32, height: u32, rgb: Vec<u8>) -> Result<Self> {
        check_bytes(width, height, "RGB", rgb.len())?;
        Ok(Picture { width, height, rgb, alpha: None })
    }

    /// A picture of `width * height` pixels, four bytes each: red, green, blue, and how opaque it is. Laid on white.
    pub fn from_rgba(width: u32, height: u32, rgba: &[u8]) -> Result<Self> {
        check_bytes(width, height, "RGBA", rgba.len())?;
        let alpha: Vec<u8> = rgba.chunks_exact(4).map(|p| p[3]).collect();
        let opaque = alpha.iter().all(|&a| a == 255);
        let rgb = match opaque {
            true => rgba.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect(),
            false => rgba.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]].map(|v| on_white(v, p[3]))).collect(),
        };
        Ok(Picture { width, height, rgb, alpha: (!opaque).then_some(alpha) })
    }

    /// Reads a PNG, JPEG or WebP file. See [`Picture::from_bytes`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        read::load(path.as_ref())
    }

    /// Decodes a PNG, JPEG or WebP file held in memory; `name` stands in error messages.
    ///
    /// The EXIF orientation is applied. Transparent pixels are laid on white. Sixteen-bit channels
    /// keep their high byte. Colour profiles are ignored. Of an animation the first frame is taken.
    pub fn from_bytes(bytes: &[u8], name: impl AsRef<Path>) -> Result<Self> {
        read::decode(bytes, name.as_ref())
    }

    /// Writes a PNG with one text chunk per `(key, text)`. The file appears whole or not at all, and replaces an older
    /// one of that name.
    pub fn save_png(&self, path: impl AsRef<Path>, text: &[(&str, &str)]) -> Result<()> {
        write::save_png(self, path.as_ref(), text)
    }

    pub fn width(&self) -> u32 {
        self.width
    }

    pub fn height(&self) -> u32 {
        self.height
    }

    /// The pixels: rows top to bottom, three bytes per pixel.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// How opaque each pixel was before it was laid on white, 0 to 255; None if all were. A subject that was cut out shows
    /// where it is so.
    pub fn alpha(&self) -> Option<&[u8]> {
        self.alpha.as_deref()
    }

    /// The picture laid on `colour(x, y)` instead of white. How opaque it was stays known.
    pub(crate) fn laid_on(&self, colour: impl Fn(u32, u32) -> [u8; 3]) -> Picture {
        let Some(alpha) = &self.alpha else { return self.clone() };
        let mut rgb = self.rgb.clone();
        for (i, (pixel, &a)) in rgb.chunks_exact_mut(3).zip(alpha).enumerate() {
            let (x, y) = (i as u32 % self.width, i as u32 / self.width);
            for (v, behind) in pixel.iter_mut().zip(colour(x, y)) {
                // White is taken away as far as it shines through.
                let through = (255 - i32::from(a)) * (255 - i32::from(behind));
                *v = (i32::from(*v) - (through + 127) / 255).clamp(0, 255) as u8;
            }
        }
        Picture { rgb, alpha: self.alpha.clone(), ..*self }
    }

    pub fn into_rgb(self) -> Vec<u8> {
        self.rgb
    }

    /// The picture as the VQ encoder wants it: `[1, 3, H, W]`, f32 in [-1, 1].
    pub fn to_tensor(&self, device: &Device) -> Result<Tensor> {
        // f64 inside, as numpy computes it for the original.
        let levels: Vec<f32> = (0..256).map(|v| (f64::from(v) / 255.0 * 2.0 - 1.0) as f32).collect();
        let pixels = self.width as usize * self.height as usize;
        let mut chw = vec![0f32; pixels * 3];
        for (i, pixel) in self.rgb.chunks_exact(3).enumerate() {
            for (c, &v) in pixel.iter().enumerate() {
                chw[c * pixels + i] = levels[v as usize];
            }
        }
        Ok(Tensor::from_vec(chw, (1, 3, self.height as usize, self.width as usize), device)?)
    }

    /// The picture in a decoded tensor, `[3, H, W]` or `[1, 3, H, W]`: clamped to [-1, 1] and **truncated** to eight
    /// bits, as the original does. Not the exact inverse of [`Picture::to_tensor`]: a level may come back one darker.
    pub fn from_tensor(tensor: &Tensor) -> Result<Self> {
        let (height, width) = match *tensor.dims() {
            [3, h, w] | [1, 3, h, w] => (h, w),
            _ => {
                let message = format!("expected a tensor of shape [3, H, W], found {:?}", tensor.dims());
                return Err(Error::invalid("tensor", message));
            }
        };
        let size = |n: usize| u32::try_from(n).map_err(|_| Error::invalid("tensor", format!("{n} pixels on one side")));
        let (w, h) = (size(width)?, size(height)?);
        let chw = to_host(&tensor.to_dtype(DType::F32)?.flatten_all()?)?.to_vec1::<f32>()?;
        let pixels = width * height;
        let mut rgb = vec![0u8; chw.len()];
        for (i, v) in chw.into_iter().enumerate() {
            if v.is_nan() {
                return Err(Error::Overflow {
                    message: "the image tokenizer's decoder gives numbers that are not finite".into(),
                });
            }
            // `as` truncates.
            rgb[i % pixels * 3 + i / pixels] = ((v.clamp(-1.0, 1.0) + 1.0) / 2.0 * 255.0) as u8;
        }
        Picture::new(w, h, rgb)
    }

    /// The picture as a model was trained to see it: of all sizes that fill at most `(target / patch)²` patches, the
    /// one whose shape is nearest; scaled to cover it, and cut at `crop`.
    ///
    /// `target` is the side of the square that the model's budget allows, 512, 768 or 1024, and `patch` the unit that
    /// both sides are multiples of (`Info::grid_unit_px`).
    pub fn fit(&self, target: u32, patch: u32, crop: Crop) -> Result<Picture> {
        crop::fit(self, target, patch, crop)
    }

    /// The part of `size` at `(left, top)` of this picture scaled to `scaled`, by Pillow's bicubic. The part must lie inside.
    pub(crate) fn scaled_part(&self, scaled: (u64, u64), at: (u64, u64), size: (u32, u32)) -> Picture {
        crop::scaled_part(self, scaled, at, size)
    }

    /// The picture scaled as little as it takes to cover `width` x `height` pixels, and cut to them; as [`Picture::fit`] does it with
    /// the size that it has chosen.
    pub fn cover(&self, width: u32, height: u32, crop: Crop) -> Result<Picture> {
        check_size(width, height).map_err(|m| Error::invalid("size", m))?;
        crop::cover(self, (width, height), crop)
    }

    /// The mirror image, left and right exchanged.
    pub fn flip_horizontal(&self) -> Picture {
        let row = self.width as usize * 3;
        let mut rgb = Vec::with_capacity(self.rgb.len());
        for line in self.rgb.chunks_exact(row) {
            line.chunks_exact(3).rev().for_each(|pixel| rgb.extend_from_slice(pixel));
        }
        let flipped =
            |a: &Vec<u8>| a.chunks_exact(self.width as usize).flat_map(|line| line.iter().rev().copied()).collect();
        Picture { rgb, alpha: self.alpha.as_ref().map(flipped), ..*self }
    }

    /// The picture magnified `zoom` times about its centre and moved right by `dx` widths and down by `dy` heights, in
    /// a frame of the same size. What comes into the frame from outside repeats the edge.
    ///
    /// Interpolation is the bicubic of [`Picture::fit`]. `zoom` must lie in [1/16, 16], `dx` and `dy` in [-1, 1].
    pub fn zoom_shift(&self, zoom: f32, dx: f32, dy: f32) -> Result<Picture> {
        if !(1.0 / 16.0..=16.0).contains(&zoom) {
            return Err(Error::invalid("zoom", format!("{zoom} is not in [0.0625, 16]")));
        }
        for (field, v) in [("dx", dx), ("dy", dy)] {
            if !(-1.0..=1.0).contains(&v) {
                return Err(Error::invalid(field, format!("{v} is not in [-1, 1]")));
            }
        }
        let columns = resample::Taps::zoomed(self.width, f64::from(zoom), f64::from(dx));
        let rows = resample::Taps::zoomed(self.height, f64::from(zoom), f64::from(dy));
        Ok(resample::apply(self, Some(&columns), Some(&rows)))
    }
}

/// A level laid on white, in f64 and truncated, in the order of operations of the original.
fn on_white(v: u8, alpha: u8) -> u8 {
    let alpha = f64::from(alpha) / 255.0;
    ((1.0 - alpha) * 255.0 + alpha * f64::from(v)) as u8
}

/// Errors unless a picture of this size may be, and has so many bytes of these channels, a letter each.
fn check_bytes(width: u32, height: u32, channels: &str, found: usize) -> Result<()> {
    check_size(width, height).map_err(|m| Error::invalid("picture", m))?;
    let expected = width as usize * height as usize * channels.len();
    match found == expected {
        true => Ok(()),
        false => {
            let message = format!("{width}x{height} {channels} pixels are {expected} bytes, but {found} were given");
            Err(Error::invalid("picture", message))
        }
    }
}

/// Says what is wrong with a picture of this size, if anything.
fn check_size(width: u32, height: u32) -> std::result::Result<(), String> {
    if width == 0 || height == 0 {
        return Err(format!("a picture of {width}x{height} pixels has no content"));
    }
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(format!("{width}x{height} pixels are more than the {MAX_PIXELS} allowed"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: u32, height: u32) -> Picture {
        Picture::new(width, height, (0..width * height * 3).map(|i| (i * 37 % 251) as u8).collect()).unwrap()
    }

    #[test]
    fn the_pixels_must_be_as_many_as_the_size_says() {
        assert!(Picture::new(2, 2, vec![0; 12]).is_ok());
        let error = Picture::new(2, 2, vec![0; 11]).unwrap_err().to_string();
        assert!(error.contains("12 bytes") && error.contains("11"), "{error}");
        assert!(Picture::new(0, 2, vec![]).is_err());
        assert!(Picture::new(u32::MAX, u32::MAX, vec![]).is_err());
    }

    /// A square of 4 x 4 opaque blue pixels in the middle of 8 x 8 transparent ones.
    fn cut_out() -> Picture {
        let inside = |i: usize| (2..6).contains(&(i % 8)) && (2..6).contains(&(i / 8));
        let rgba: Vec<u8> = (0..64).flat_map(|i| [0, 0, 200, if inside(i) { 255 } else { 0 }]).collect();
        Picture::from_rgba(8, 8, &rgba).unwrap()
    }

    #[test]
    fn transparency_is_laid_on_white_and_remembered() {
        let p = Picture::from_rgba(3, 1, &[10, 20, 30, 255, 10, 20, 30, 0, 0, 100, 255, 128]).unwrap();
        assert_eq!(p.rgb(), [10, 20, 30, 255, 255, 255, 127, 177, 255]);
        assert_eq!(p.alpha(), Some(&[255, 0, 128][..]));
        let opaque = Picture::from_rgba(1, 1, &[1, 2, 3, 255]).unwrap();
        assert_eq!(opaque, Picture::new(1, 1, vec![1, 2, 3]).unwrap());
        assert!(Picture::from_rgba(2, 1, &[0; 7]).unwrap_err().to_string().contains("8 bytes"));
    }

    #[test]
    fn a_picture_can_be_laid_on_another_colour() {
        let p = Picture::from_rgba(3, 1, &[10, 20, 30, 255, 10, 20, 30, 0, 0, 100, 255, 128]).unwrap();
        let laid = p.laid_on(|x, _| [[9, 9, 9], [40, 50, 60], [0, 0, 0]][x as usize]);
        assert_eq!(laid.rgb(), [10, 20, 30, 40, 50, 60, 0, 50, 128]);
        assert_eq!(laid.alpha(), p.alpha());
        assert_eq!(picture(3, 3).laid_on(|_, _| [0; 3]), picture(3, 3));
    }

    #[test]
    fn transparency_goes_wherever_the_pixels_go() {
        let p = cut_out();
        let follows = |p: &Picture| {
            let alpha = p.alpha().unwrap();
            assert_eq!(alpha.len(), p.rgb().len() / 3);
            // Blue where it is opaque, white where it is not.
            assert!(p.rgb().chunks_exact(3).zip(alpha).all(|(v, &a)| v[0].abs_diff(255 - a) <= 1), "{alpha:?}");
            alpha.iter().filter(|&&a| a > 127).count()
        };
        assert_eq!(follows(&p.flip_horizontal().zoom_shift(1.0, 0.25, 0.0).unwrap()), 16);
        assert_eq!(follows(&p.zoom_shift(1.5, 0.0, 0.0).unwrap()), 36);
        assert_eq!(follows(&p.fit(16, 4, Crop::Centre).unwrap()), 64);
        assert_eq!(follows(&p.fit(4, 4, Crop::Centre).unwrap()), 4);
        let moved = p.zoom_shift(1.0, 0.25, 0.0).unwrap();
        assert_eq!(moved.alpha().unwrap()[2 * 8..3 * 8], [0, 0, 0, 0, 255, 255, 255, 255]);
        assert_eq!(moved.flip_horizontal().alpha().unwrap()[2 * 8..3 * 8], [255, 255, 255, 255, 0, 0, 0, 0]);
    }

    #[test]
    fn tensors_are_chw_between_minus_one_and_one() {
        let p = Picture::new(2, 1, vec![0, 255, 51, 1, 2, 3]).unwrap();
        let t = p.to_tensor(&Device::Cpu).unwrap();
        assert_eq!(t.dims(), [1, 3, 1, 2]);
        let v = t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(v[..3], [-1.0, (1.0 / 255.0 * 2.0 - 1.0f64) as f32, 1.0]);
        assert_eq!(v[4], (51.0 / 255.0 * 2.0 - 1.0f64) as f32);
    }

    #[test]
    fn tensors_are_clamped_and_truncated_not_rounded() {
        let t = Tensor::from_vec(vec![-7f32, 9.0, 0.999], (3, 1, 1), &Device::Cpu).unwrap();
        assert_eq!(Picture::from_tensor(&t).unwrap().rgb(), [0, 255, 254]);
        let all = picture(16, 16);
        let back = Picture::from_tensor(&all.to_tensor(&Device::Cpu).unwrap()).unwrap();
        assert!(all.rgb().iter().zip(back.rgb()).all(|(a, b)| a.abs_diff(*b) <= 1));
    }

    #[test]
    fn tensors_of_another_shape_or_with_nan_are_refused() {
        let t = Tensor::zeros((2, 3, 4, 4), DType::F32, &Device::Cpu).unwrap();
        assert!(Picture::from_tensor(&t).unwrap_err().to_string().contains("[2, 3, 4, 4]"));
        let t = Tensor::full(f32::NAN, (3, 2, 2), &Device::Cpu).unwrap();
        assert!(Picture::from_tensor(&t).is_err());
        let t = Tensor::zeros((3, 0, 2), DType::F32, &Device::Cpu).unwrap();
        assert!(Picture::from_tensor(&t).is_err());
    }

    #[test]
    fn flipping_twice_is_the_identity() {
        let p = picture(5, 3);
        assert_ne!(p.flip_horizontal(), p);
        assert_eq!(p.flip_horizontal().flip_horizontal(), p);
        assert_eq!(p.flip_horizontal().rgb()[..3], p.rgb()[12..15]);
    }

    #[test]
    fn no_zoom_and_no_shift_change_nothing() {
        let p = picture(9, 7);
        assert_eq!(p.zoom_shift(1.0, 0.0, 0.0).unwrap(), p);
    }

    #[test]
    fn a_shift_by_whole_pixels_moves_pixels_and_repeats_the_edge() {
        let p = picture(8, 2);
        let moved = p.zoom_shift(1.0, 0.25, 0.0).unwrap();
        for y in 0..2usize {
            for x in 0..8usize {
                let from = (y * 8 + x.saturating_sub(2)) * 3;
                assert_eq!(moved.rgb()[(y * 8 + x) * 3..][..3], p.rgb()[from..from + 3], "{x},{y}");
            }
        }
    }

    #[test]
    fn zoom_magnifies_about_the_centre() {
        // A white square in the middle third grows to fill the frame.
        let mut rgb = vec![0u8; 12 * 12 * 3];
        for y in 4..8 {
            rgb[(y * 12 + 4) * 3..(y * 12 + 8) * 3].fill(255);
        }
        let p = Picture::new(12, 12, rgb).unwrap();
        let white = |p: &Picture| p.rgb().iter().filter(|&&v| v > 128).count() / 3;
        assert_eq!(white(&p), 16);
        // The four corners lie between black and white in both directions.
        assert_eq!(white(&p.zoom_shift(3.0, 0.0, 0.0).unwrap()), 140);
        assert_eq!(white(&p.zoom_shift(0.5, 0.0, 0.0).unwrap()), 4);
    }

    #[test]
    fn impossible_zooms_and_shifts_are_refused() {
        let p = picture(4, 4);
        for (zoom, dx, dy) in [(0.0, 0.0, 0.0), (f32::NAN, 0.0, 0.0), (1.0, f32::NAN, 0.0), (1.0, 0.0, 2.0)] {
            assert!(p.zoom_shift(zoom, dx, dy).is_err());
        }
    }
}
