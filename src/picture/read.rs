//! Picture files: decoding, upright, transparency laid on white. Everything here is handed bytes from strangers.

use super::{check_size, Picture, MAX_PIXELS};
use crate::device::memory;
use crate::{Error, Result};
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat};
use std::io::{Cursor, Read};
use std::path::Path;

/// The most bytes a picture file may have.
const MAX_FILE: u64 = 512 << 20;

/// The most memory a decoder may take. A hundred million pixels of eight bits per channel fit; of sixteen bits, half.
const MAX_MEMORY: u64 = 512 << 20;

pub(super) fn load(path: &Path) -> Result<Picture> {
    let found = std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
    // Looked at before opening, because opening a named pipe would wait for its writer.
    if !found.is_file() {
        let what = if found.is_dir() { "a folder" } else { "a device or a pipe" };
        return Err(Error::bad_format(path, format!("is {what}; a picture file is needed")));
    }
    let file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
    let mut bytes = Vec::new();
    // One byte over the limit tells; a length from the file system would not, for a growing file.
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|e| match e.kind() {
        std::io::ErrorKind::OutOfMemory => memory::none(path, found.len()),
        _ => Error::io(path, e),
    })?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(Error::bad_format(path, format!("larger than the {} MiB allowed for a picture", MAX_FILE >> 20)));
    }
    decode(&bytes, path)
}

pub(super) fn decode(bytes: &[u8], name: &Path) -> Result<Picture> {
    let bad = |e: ImageError| Error::bad_format(name, format!("cannot be decoded: {e}"));
    // By content, not by name: many a .png is a JPEG.
    let format = image::guess_format(bytes).ok();
    let mut decoder: Box<dyn ImageDecoder + '_> = match format {
        Some(ImageFormat::Png) => {
            let limits = limits();
            Box::new(image::codecs::png::PngDecoder::with_limits(Cursor::new(bytes), limits).map_err(bad)?)
        }
        Some(ImageFormat::Jpeg) => {
            if !jpeg_is_whole(bytes) {
                return Err(Error::bad_format(name, "the JPEG file is truncated: it has no end marker"));
            }
            Box::new(image::codecs::jpeg::JpegDecoder::new(Cursor::new(bytes)).map_err(bad)?)
        }
        Some(ImageFormat::WebP) => Box::new(image::codecs::webp::WebPDecoder::new(Cursor::new(bytes)).map_err(bad)?),
        other => {
            let found = match other {
                Some(format) => format!("a {format:?} file"),
                None if bytes.is_empty() => "an empty file".into(),
                None => "a file of unknown format".into(),
            };
            return Err(Error::bad_format(name, format!("{found}; supported pictures are PNG, JPEG and WebP")));
        }
    };
    let (width, height) = decoder.dimensions();
    check_size(width, height).map_err(|m| Error::bad_format(name, m))?;
    if decoder.total_bytes() > MAX_MEMORY {
        let m =
            format!("{width}x{height} pixels of {:?} need more than {} MiB", decoder.color_type(), MAX_MEMORY >> 20);
        return Err(Error::bad_format(name, m));
    }
    memory::room(name, peak(format, bytes.len(), &*decoder))?;
    decoder.set_limits(limits()).map_err(bad)?;
    // A damaged EXIF block is no reason to refuse the picture.
    let orientation = decoder.orientation().unwrap_or(image::metadata::Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(bad)?;
    image.apply_orientation(orientation);

    // Pillow opens an RGB file with one transparent colour as plain RGB, so no model that learned from it saw that transparency.
    let colour_key = format == Some(ImageFormat::Png) && png_colour_type(bytes) == Some(2);
    let (width, height) = if swaps_sides(orientation) { (height, width) } else { (width, height) };
    let picture = match to_eight_bits(image) {
        DynamicImage::ImageRgb8(rgb) => Picture::new(width, height, rgb.into_raw()),
        other if colour_key => Picture::new(width, height, other.into_rgb8().into_raw()),
        other => Picture::from_rgba(width, height, &other.into_rgba8().into_raw()),
    };
    picture.map_err(|e| Error::bad_format(name, e.to_string()))
}

/// A bound for what reading a picture takes at its worst, in bytes: the decoders ask nobody.
fn peak(format: Option<ImageFormat>, file: usize, decoder: &dyn ImageDecoder) -> u64 {
    let (width, height) = decoder.dimensions();
    let (pixels, image) = (u64::from(width) * u64::from(height), decoder.total_bytes());
    let decoding = match format {
        // A copy of the file; of a progressive picture all coefficients, in 16 bits; the picture.
        Some(ImageFormat::Jpeg) => file as u64 + 4 * image,
        Some(ImageFormat::Png) => 2 * image,
        // The planes or the pixels with their transparency, then the picture.
        _ => 4 * pixels + 2 * image,
    };
    // The picture, turned or with eight bits, and with transparency on its way to RGB and kept beside it.
    let changing = 2 * image + 8 * pixels;
    (1 << 20) + decoding.max(changing)
}

fn limits() -> image::Limits {
    let mut limits = image::Limits::default();
    limits.max_image_width = u32::try_from(MAX_PIXELS).ok();
    limits.max_image_height = limits.max_image_width;
    limits.max_alloc = Some(2 * MAX_MEMORY);
    limits
}

fn swaps_sides(orientation: image::metadata::Orientation) -> bool {
    orientation.to_exif() >= 5
}

/// Sixteen-bit channels keep their high byte, as Pillow reads 16-bit colour. (Pillow turns 16-bit *grey* into all but
/// white when it is made RGB, which nobody wants.)
fn to_eight_bits(image: DynamicImage) -> DynamicImage {
    fn high<P, Q>(from: image::ImageBuffer<P, Vec<u16>>) -> Option<image::ImageBuffer<Q, Vec<u8>>>
    where
        P: image::Pixel<Subpixel = u16>,
        Q: image::Pixel<Subpixel = u8>,
    {
        let (w, h) = from.dimensions();
        image::ImageBuffer::from_raw(w, h, from.into_raw().into_iter().map(|v| (v >> 8) as u8).collect())
    }
    let eight = match image {
        DynamicImage::ImageLuma16(i) => high(i).map(DynamicImage::ImageLuma8),
        DynamicImage::ImageLumaA16(i) => high(i).map(DynamicImage::ImageLumaA8),
        DynamicImage::ImageRgb16(i) => high(i).map(DynamicImage::ImageRgb8),
        DynamicImage::ImageRgba16(i) => high(i).map(DynamicImage::ImageRgba8),
        other => return other,
    };
    // Same size and same number of channels, so `from_raw` cannot refuse; an empty picture is refused by the caller.
    eight.unwrap_or_default()
}

/// The colour type byte of a PNG header: 2 is RGB.
fn png_colour_type(bytes: &[u8]) -> Option<u8> {
    bytes.get(25).copied()
}

/// Whether a JPEG file's first picture has an end. The decoder would quietly fill a missing rest with grey.
fn jpeg_is_whole(bytes: &[u8]) -> bool {
    // Walk the segments up to the first scan, stepping over thumbnails hidden in them; then look for the end marker,
    // which cannot occur inside a scan.
    let mut at = 2;
    while let Some(&[0xff, kind]) = bytes.get(at..at + 2) {
        match kind {
            0xff => at += 1,
            0x01 | 0xd0..=0xd8 => at += 2,
            0xda => return bytes[at..].windows(2).any(|w| w == [0xff, 0xd9]),
            _ => match bytes.get(at + 2..at + 4) {
                Some(&[high, low]) => at += 2 + usize::from(u16::from_be_bytes([high, low])),
                _ => return false,
            },
        }
    }
    // Not a marker where one must be: the decoder will say what is wrong, unless the file ends here.
    at + 2 <= bytes.len()
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::device::memory::tests::with_memory;

    fn encoded(format: ImageFormat, color: image::ColorType, side: u32) -> Vec<u8> {
        let image = DynamicImage::new(side, side, color);
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    /// A large picture is read, or there is an error that names it, whatever memory there is.
    #[test]
    fn a_picture_that_does_not_fit_in_memory_is_an_error_that_names_it() {
        use image::ColorType::{La8, Rgb8, Rgba16, L8};
        let cases = [
            (ImageFormat::Png, Rgb8),
            (ImageFormat::Png, L8),
            (ImageFormat::Png, Rgba16),
            (ImageFormat::Png, La8),
            (ImageFormat::Jpeg, Rgb8),
            (ImageFormat::WebP, Rgb8),
        ];
        let pictures = cases.map(|(format, color)| encoded(format, color, 3000));
        let Some(refused) =
            with_memory("a_picture_that_does_not_fit_in_memory_is_an_error_that_names_it", |megabytes| {
                let mut refused = 0;
                for (bytes, case) in pictures.iter().zip(cases) {
                    match decode(bytes, Path::new("large.png")) {
                        Ok(picture) => assert_eq!(picture.rgb().len(), 27_000_000),
                        Err(Error::NoMemory { file, bytes }) => {
                            assert!(file == Path::new("large.png") && bytes > 27_000_000, "{bytes}");
                            refused += 1;
                        }
                        Err(other) => panic!("{case:?} with {megabytes} MB: {other}"),
                    }
                }
                refused
            })
        else {
            return;
        };
        assert!(refused.first() == Some(&cases.len()) && refused.last() == Some(&0), "{refused:?}");
    }
}
