//! PNG files with text in them: what a picture was drawn from travels with the picture.

use super::Picture;
use crate::{Error, Result};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

pub(super) fn save_png(picture: &Picture, path: &Path, text: &[(&str, &str)]) -> Result<()> {
    for (key, value) in text {
        check_key(key)?;
        if value.contains('\0') {
            return Err(Error::invalid("text", format!("the text of {key:?} contains a NUL character")));
        }
    }
    write_whole(path, |file| {
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

/// Writes a file beside `path` and renames it: nobody ever sees half a file, and a failure leaves what was there.
fn write_whole(path: &Path, write: impl FnOnce(&std::fs::File) -> Result<()>) -> Result<()> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let Some(name) = path.file_name() else {
        return Err(Error::invalid("path", format!("{} does not name a file", path.display())));
    };
    let mut temporary_name = std::ffi::OsString::from(".");
    temporary_name.push(name);
    temporary_name.push(format!(".{}.{}.tmp", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed)));
    let temporary: PathBuf = path.with_file_name(temporary_name);

    let file =
        std::fs::OpenOptions::new().write(true).create_new(true).open(&temporary).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                Error::NotFound { path: path.to_owned(), message: "its folder does not exist".into() }
            }
            _ => Error::io(path, e),
        })?;
    let result = write(&file)
        .and_then(|()| file.sync_all().map_err(|e| Error::io(path, e)))
        .and_then(|()| std::fs::rename(&temporary, path).map_err(|e| Error::io(path, e)));
    if result.is_err() {
        // The first error is the one to report.
        let _ = std::fs::remove_file(&temporary);
    }
    result
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
