//! Reference pictures on their way to a training.

use super::boundary::guard;
use super::buffer::Out;
use super::engine::lock;
use super::error::sitter_error;
use super::failure::Failure;
use super::handle;
use super::nouns::{sitter_dataset, sitter_image, Entry};
use super::status::*;
use super::text;
use crate::personalize::{Dataset, MAX_PICTURES};
use std::ffi::c_char;
use std::sync::{Arc, Mutex};

/// The dataset as the training takes it.
pub fn build(entries: &[Entry]) -> Result<Dataset, Failure> {
    let dataset = Dataset::new(entries.iter().map(|e| e.image.picture.clone()).collect())?;
    let captions: Vec<String> = entries.iter().filter_map(|e| e.caption.clone()).collect();
    match captions.len() {
        0 => Ok(dataset),
        _ => Ok(dataset.with_captions(captions)?),
    }
}

/// An empty dataset. The caller owns it; free it with `sitter_dataset_free`. Any thread. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_dataset_new(
    out: *mut *mut sitter_dataset,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let out = Out::handle(out, "out")?;
        out.set(handle::new(Arc::new(Mutex::new(Vec::new()))));
        Ok(())
    })
}

/// Adds a picture; the dataset keeps a reference of its own. `caption` may be NULL: the picture is learned under the
/// templates of the options. A caption contains the identifier; either all pictures have one or none. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_dataset_add(
    dataset: *mut sitter_dataset,
    image: *const sitter_image,
    caption: *const c_char,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let (dataset, image) = (handle::get(dataset)?, handle::get(image)?);
        let caption = text::optional(caption, "caption")?;
        let mut entries = lock(&dataset);
        if entries.len() >= MAX_PICTURES {
            return Err(Failure::invalid("dataset", format!("it holds {MAX_PICTURES} pictures, the most allowed")));
        }
        entries.push(Entry { image, caption });
        Ok(())
    })
}

/// Pictures in it so far. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_dataset_count(
    dataset: *const sitter_dataset,
    count: *mut usize,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let dataset = handle::get(dataset)?;
        Out::value(count, "count")?.set(lock(&dataset).len());
        Ok(())
    })
}

/// Frees a dataset. NULL does nothing. Any thread. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_dataset_free(dataset: *mut sitter_dataset) {
    handle::free(dataset);
}
