//! PNG files with text in them: what a picture was drawn from travels with the picture.

use super::Picture;
use crate::{save, Error, Result};
use std::io::{BufWriter, Write};
use std::path::Path;

pub(super) fn save_png(picture: &Picture, path: &Path, text: &[(&str, &str)]) -> Result<()> {
    for (key, value) in text {
        check_key(key)?;
        if value.contains('\0') {
            return Err(Error::invalid("text", format!("the text of {key:?} contains a NUL character")));
        }
    }
    save::save(path, |file| {
        let mut out = BufWriter::new(file);
        encode(picture, &mut out, text).map_err(|e| match e {
            png::EncodingError::IoError(e) => Error::io(path, e),
            e => Error::Internal { message: format!("PNG encoder: {e}") },
        })?;
        out.flush().map_err(|e| Error::io(path, e))
    })
}

fn encode(
    picture: &Picture,
    out: &mut impl Write,
    text: &[(&str, &str)],
) -> std::result::Result<(), png::EncodingError> {
    let mut encoder = png::Encoder::new(out, picture.width(), picture.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    for (key, value) in text {
        // iTXt: the other kinds of text chunk hold Latin-1 only, and prompts do not.
        encoder.add_itxt_chunk((*key).into(), (*value).into())?;
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(picture.rgb())?;
    writer.finish()
}

/// The rules of the PNG standard, narrowed to ASCII.
fn check_key(key: &str) -> Result<()> {
    let printable = key.bytes().all(|b| (0x20..0x7f).contains(&b));
    if key.is_empty() || key.len() > 79 || !printable || key.trim() != key || key.contains("  ") {
        let m = format!("{key:?} is not a PNG keyword: 1 to 79 printable ASCII characters, single spaces inside only");
        return Err(Error::invalid("key", m));
    }
    Ok(())
}

/// The text chunks of a PNG file, in the order of the file within each kind: UTF-8 ones first.
pub fn read_png_text(path: impl AsRef<Path>) -> Result<Vec<(String, String)>> {
    let path = path.as_ref();
    let file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
    let bad = |e: png::DecodingError| match e {
        png::DecodingError::IoError(e) if e.kind() != std::io::ErrorKind::UnexpectedEof => Error::io(path, e),
        e => Error::bad_format(path, format!("not a readable PNG: {e}")),
    };
    let mut reader = png::Decoder::new(std::io::BufReader::new(file)).read_info().map_err(bad)?;
    // Text may also stand after the pixels.
    reader.finish().map_err(bad)?;
    let info = reader.info();
    let mut text = Vec::new();
    for chunk in &info.utf8_text {
        // Decompression is bounded by the png crate here; `get_text` alone is not.
        let mut chunk = chunk.clone();
        chunk.decompress_text().map_err(bad)?;
        text.push((chunk.keyword.clone(), chunk.get_text().map_err(bad)?));
    }
    for chunk in &info.uncompressed_latin1_text {
        text.push((chunk.keyword.clone(), chunk.text.clone()));
    }
    for chunk in &info.compressed_latin1_text {
        let mut chunk = chunk.clone();
        chunk.decompress_text().map_err(bad)?;
        text.push((chunk.keyword.clone(), chunk.get_text().map_err(bad)?));
    }
    Ok(text)
}
