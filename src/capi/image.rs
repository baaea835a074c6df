//! Pictures in and out.

use super::boundary::guard;
use super::buffer::{copy_out, Out};
use super::error::sitter_error;
use super::failure::Failure;
use super::handle;
use super::job::perform;
use super::nouns::{sitter_image, sitter_model, sitter_tokens, Image};
use super::run::sitter_run;
use super::status::*;
use super::text;
use crate::picture::Picture;
use crate::run::Stage;
use std::ffi::c_char;
use std::sync::Arc;

/// A host's pixels of a byte per channel, as they are.
fn from_bytes(pixels: *const u8, size: (u32, u32), row_stride_bytes: usize, channels: usize) -> Result<Image, Failure> {
    from_rows(pixels, size, row_stride_bytes, channels, |pixel, bytes| {
        bytes.extend_from_slice(pixel);
        Ok(())
    })
}

/// Channels of a host's pixels, three or with their opacity four, and how they become bytes.
fn from_rows<T: Copy>(
    pixels: *const T,
    (width, height): (u32, u32),
    row_stride_bytes: usize,
    channels: usize,
    convert: impl Fn(&[T], &mut Vec<u8>) -> Result<(), Failure>,
) -> Result<Image, Failure> {
    if pixels.is_null() {
        return Err(Failure::null("pixels"));
    }
    if width == 0 || height == 0 || u64::from(width).saturating_mul(height.into()) > crate::picture::MAX_PIXELS {
        let most = crate::picture::MAX_PIXELS;
        return Err(Failure::invalid("width, height", format!("{width}x{height} pixels; allowed are 1 to {most}")));
    }
    let row = (width as usize).saturating_mul(channels).saturating_mul(size_of::<T>());
    let stride = if row_stride_bytes == 0 { row } else { row_stride_bytes };
    if stride < row || !stride.is_multiple_of(size_of::<T>()) || !pixels.is_aligned() {
        let message = format!("{stride} bytes; a row of {width} pixels takes {row}, and rows begin at whole numbers");
        return Err(Failure::invalid("row_stride_bytes", message));
    }
    if stride.checked_mul(height as usize).is_none_or(|b| b > isize::MAX as usize) {
        return Err(Failure::invalid(
            "row_stride_bytes",
            format!("{height} rows of {stride} bytes do not fit in memory"),
        ));
    }
    let mut kept = Vec::new();
    let needed = (width as usize).saturating_mul(height as usize).saturating_mul(channels);
    kept.try_reserve_exact(needed)
        .map_err(|_| Failure::new(SITTER_E_RESOURCE_EXHAUSTED, format!("no memory for {needed} bytes of pixels")))?;
    for y in 0..height as usize {
        // SAFETY: the host promises `height` rows, `stride` bytes apart, of `width` pixels each; all products were checked.
        let row = unsafe {
            let start = pixels.cast::<u8>().add(y.saturating_mul(stride)).cast::<T>();
            std::slice::from_raw_parts(start, (width as usize).saturating_mul(channels))
        };
        for pixel in row.chunks_exact(channels) {
            convert(pixel, &mut kept)?;
        }
    }
    let picture = match channels {
        4 => Picture::from_rgba(width, height, &kept)?,
        _ => Picture::new(width, height, kept)?,
    };
    Ok(Image { picture, provenance: None })
}

/// Reads a PNG, JPEG or WebP file: EXIF orientation applied, transparency laid on white and remembered for `masked_training`. The
/// caller owns the result; free it with `sitter_image_free`. Any thread. SITTER_E_NOT_FOUND, SITTER_E_IO, SITTER_E_BAD_FORMAT,
/// SITTER_E_RESOURCE_EXHAUSTED. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_image_open(
    path: *const c_char,
    out: *mut *mut sitter_image,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let out = Out::handle(out, "out")?;
        let picture = Picture::load(text::required(path, "path")?)?;
        out.set(handle::new(Arc::new(Image { picture, provenance: None })));
        Ok(())
    })
}

/// An image of RGB pixels, three bytes each, rows top to bottom, `row_stride_bytes` apart; 0 for rows without gaps. The
/// pixels are copied. At most 100 000 000. The caller owns the result; free it with `sitter_image_free`. Any thread. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_image_from_rgb8(
    pixels: *const u8,
    width: u32,
    height: u32,
    row_stride_bytes: usize,
    out: *mut *mut sitter_image,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let out = Out::handle(out, "out")?;
        out.set(handle::new(Arc::new(from_bytes(pixels, (width, height), row_stride_bytes, 3)?)));
        Ok(())
    })
}

/// As `sitter_image_from_rgb8` with a fourth byte for each pixel: how opaque it is, 0 to 255, its colour not multiplied with it. Laid
/// on white like the transparency of files, and remembered: of references that are transparent in places a training learns what
/// shows the subject only (`masked_training`). Any thread. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_image_from_rgba8(
    pixels: *const u8,
    width: u32,
    height: u32,
    row_stride_bytes: usize,
    out: *mut *mut sitter_image,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let out = Out::handle(out, "out")?;
        out.set(handle::new(Arc::new(from_bytes(pixels, (width, height), row_stride_bytes, 4)?)));
        Ok(())
    })
}

/// As `sitter_image_from_rgb8` of float pixels, 0 to 1 (values outside are brought to the nearer end), rounded to eight bits.
/// NaN is SITTER_E_INVALID_ARGUMENT. Any thread. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_image_from_f32(
    pixels: *const f32,
    width: u32,
    height: u32,
    row_stride_bytes: usize,
    out: *mut *mut sitter_image,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let out = Out::handle(out, "out")?;
        let image = from_rows(pixels, (width, height), row_stride_bytes, 3, |pixel, rgb| {
            for &v in pixel {
                if v.is_nan() {
                    return Err(Failure::invalid("pixels", "contain NaN"));
                }
                rgb.push((v.clamp(0.0, 1.0) * 255.0).round() as u8);
            }
            Ok(())
        })?;
        out.set(handle::new(Arc::new(image)));
        Ok(())
    })
}

/// The picture of a grid of tokens. `run` may be NULL. The caller owns the result; free it with `sitter_image_free`. Any
/// thread. SITTER_E_INVALID_ARGUMENT for a token that is not in the codebook, SITTER_E_NOT_SUPPORTED for a model without the
/// image tokenizer's decoder, SITTER_E_CANCELLED. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_image_decode(
    model: *const sitter_model,
    tokens: *const sitter_tokens,
    run: *mut sitter_run,
    out: *mut *mut sitter_image,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let out = Out::handle(out, "out")?;
        let (model, tokens, run) = (handle::get(model)?, handle::get(tokens)?, handle::get_optional(run)?);
        let engine = model.engine.clone();
        let provenance = tokens.provenance.clone();
        let picture = perform(&engine, run, Stage::Decode, move |run| model.backend.decode(&tokens.tokens, run))?;
        out.set(handle::new(Arc::new(Image { picture, provenance })));
        Ok(())
    })
}

/// Width and height in pixels. Any thread. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_image_size(
    image: *const sitter_image,
    width: *mut u32,
    height: *mut u32,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let image = handle::get(image)?;
        let (to_width, to_height) = (Out::value(width, "width")?, Out::value(height, "height")?);
        to_width.set(image.picture.width());
        to_height.set(image.picture.height());
        Ok(())
    })
}

/// Copies the pixels out: height x width x 3 bytes, rows top to bottom. `capacity` and `needed` count bytes; `(NULL, 0)` asks
/// for the size. SITTER_E_BUFFER_TOO_SMALL. Any thread. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_image_copy_rgb8(
    image: *const sitter_image,
    buffer: *mut u8,
    capacity: usize,
    needed: *mut usize,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || copy_out(handle::get(image)?.picture.rgb(), buffer, capacity, needed))
}

/// Copies the pixels out as float, 0 to 1: height x width x 3 numbers. `capacity` and `needed` count numbers; `(NULL, 0)` asks
/// for the size. SITTER_E_BUFFER_TOO_SMALL. Any thread. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_image_copy_f32(
    image: *const sitter_image,
    buffer: *mut f32,
    capacity: usize,
    needed: *mut usize,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let image = handle::get(image)?;
        let values: Vec<f32> = image.picture.rgb().iter().map(|&v| f32::from(v) / 255.0).collect();
        copy_out(&values, buffer, capacity, needed)
    })
}

/// Writes a PNG file, with a text chunk `sitter` that says what made a decoded picture. The file appears whole or not at all.
/// Any thread. SITTER_E_IO, SITTER_E_NOT_FOUND for a folder that is not there. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_image_save_png(
    image: *const sitter_image,
    path: *const c_char,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let image = handle::get(image)?;
        let text: Vec<(&str, &str)> = image.provenance.iter().map(|p| ("sitter", p.as_str())).collect();
        Ok(image.picture.save_png(text::required(path, "path")?, &text)?)
    })
}

/// One more reference to the same image; returns it. NULL gives NULL. Any thread. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_image_ref(image: *const sitter_image) -> *mut sitter_image {
    handle::add_reference(image)
}

/// Gives a reference back. NULL does nothing. Any thread. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_image_free(image: *mut sitter_image) {
    handle::free(image);
}
