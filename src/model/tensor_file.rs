//! The library's own files: safetensors with one JSON text in the header that says what the file is.

use super::checkpoint::Checkpoint;
use super::files::Files;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use safetensors::SafeTensors;
use serde::de::DeserializeOwned;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A kind of file.
pub struct Kind {
    /// The key of the header's text.
    pub key: &'static str,
    /// What messages call it.
    pub name: &'static str,
    /// The newest version that this library reads, and the one that it writes.
    pub version: u64,
}

/// The text in the header around what the kind itself has to say.
#[derive(Serialize, serde::Deserialize)]
struct Header<T> {
    version: u64,
    #[serde(flatten)]
    content: T,
}

/// Writes a file beside `path` and renames it, so that nobody ever sees half a file and a failure leaves what was there.
/// The same content gives the same bytes.
pub fn save(path: &Path, kind: &Kind, content: &impl Serialize, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let Some(name) = path.file_name() else {
        return Err(Error::invalid("path", format!("{} does not name a file", path.display())));
    };
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return Err(Error::NotFound { path: path.to_owned(), message: "its folder does not exist".into() });
    }
    let header = serde_json::to_string(&Header { version: kind.version, content })
        .map_err(|e| Error::Internal { message: format!("cannot write the header of {}: {e}", path.display()) })?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}.{}.tmp", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed)));
    let temporary = path.with_file_name(temporary);

    // safetensors makes a file that its owner alone may read; this one is to be as any new file of the process.
    let permissions = std::fs::File::create_new(&temporary)
        .and_then(|file| file.metadata())
        .map_err(|e| Error::io(path, e))?
        .permissions();
    let info = HashMap::from([(kind.key.to_string(), header)]);
    let written = safetensors::serialize_to_file(tensors, Some(info), &temporary)
        .map_err(|e| match e {
            safetensors::SafeTensorError::IoError(e) => Error::io(path, e),
            e => Error::Internal { message: format!("cannot write {}: {e}", path.display()) },
        })
        .and_then(|()| {
            let finish = || {
                std::fs::set_permissions(&temporary, permissions)?;
                std::fs::File::open(&temporary)?.sync_all()?;
                std::fs::rename(&temporary, path)
            };
            finish().map_err(|e| Error::io(path, e))
        });
    if written.is_err() {
        // The first error is the one to report.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

/// An opened file: its header's content, and its tensors on demand.
pub struct Opened<T> {
    pub content: T,
    path: PathBuf,
    tensors: Checkpoint,
}

/// Opens a file of this kind. Every error names the file.
pub fn open<T: DeserializeOwned>(path: &Path, kind: &Kind) -> Result<Opened<T>> {
    let bad = |message: String| Error::bad_format(path, message);
    let Some(name) = path.file_name().and_then(|n| n.to_str()) else {
        return Err(Error::invalid("path", format!("{} does not name a file", path.display())));
    };
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let files = Files::Folder(folder.to_owned());
    // Checks the whole header, so that what follows meets no surprise.
    let tensors = Checkpoint::open_file(&files, name)?;
    let bytes = files.bytes(name)?;
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|e| bad(format!("not a safetensors file: {e}")))?;
    let foreign = || bad(format!("is a safetensors file, but not {} made by sitter", kind.name));
    let text = metadata.metadata().as_ref().and_then(|m| m.get(kind.key)).ok_or_else(foreign)?;
    let value: serde_json::Value =
        serde_json::from_str(text).map_err(|e| bad(format!("its header does not describe {}: {e}", kind.name)))?;
    match value.get("version").and_then(|v| v.as_u64()) {
        Some(version) if version > kind.version => {
            return Err(bad(format!(
                "is {} of version {version}, but this library reads versions up to {}; use a newer library",
                kind.name, kind.version
            )))
        }
        Some(_) => {}
        None => return Err(bad(format!("its header does not say which version of {} it is", kind.name))),
    }
    let header: Header<T> =
        serde_json::from_value(value).map_err(|e| bad(format!("its header does not describe {}: {e}", kind.name)))?;
    Ok(Opened { content: header.content, path: path.to_owned(), tensors })
}

impl<T> Opened<T> {
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.names()
    }

    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains(name)
    }

    /// A tensor in the dtype that it is stored in, on the CPU; all its numbers are finite.
    pub fn get(&self, name: &str) -> Result<Tensor> {
        let dtype = self.tensors.dtype(name).unwrap_or(DType::F32);
        self.tensors.get_any(name, dtype, &Device::Cpu)
    }

    /// A tensor that must have this shape.
    pub fn get_shaped(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let dtype = self.tensors.dtype(name).unwrap_or(DType::F32);
        self.tensors.get(name, shape, dtype, &Device::Cpu)
    }

    pub fn bad(&self, message: impl Into<String>) -> Error {
        Error::bad_format(&self.path, message)
    }
}
