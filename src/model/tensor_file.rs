//! The library's own files: safetensors with one JSON text in the header that says what the file is.

use super::checkpoint::Checkpoint;
use super::files::Files;
use crate::run::Control;
use crate::{save, Error, Result};
use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{SafeTensors, View};
use serde::de::DeserializeOwned;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};

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

/// Writes the file `path`, see [`save`](save::save).
/// The same content gives the same bytes. Ends with an error soon after `stop` is cancelled.
pub fn save<V: View>(
    path: &Path,
    kind: &Kind,
    content: &impl Serialize,
    tensors: &BTreeMap<String, V>,
    stop: &Control,
) -> Result<()> {
    // Widest numbers first, as the format's own library has them, so that every tensor is aligned.
    let mut tensors: Vec<(&String, &V)> = tensors.iter().collect();
    tensors.sort_by(|(a, x), (b, y)| y.dtype().cmp(&x.dtype()).then(a.cmp(b)));
    let header = header(kind, content, &tensors)
        .map_err(|e| Error::Internal { message: format!("cannot write the header of {}: {e}", path.display()) })?;
    save::save(path, |file| {
        /// What is brought to the disk between two looks at `stop`.
        const PIECE: usize = 32 << 20;
        let failed = |e| Error::io(path, e);
        file.write_all(&header).map_err(failed)?;
        for (name, tensor) in tensors {
            let data = tensor.data();
            if data.len() != tensor.data_len() {
                return Err(Error::internal(format!("{} bytes of tensor {name} were to be written", data.len())));
            }
            for piece in data.chunks(PIECE) {
                stop.check()?;
                file.write_all(piece).map_err(failed)?;
                if piece.len() == PIECE {
                    file.sync_data().map_err(failed)?;
                }
            }
        }
        Ok(())
    })
}

/// What stands before the tensors' bytes, which lie in this order.
fn header<V: View>(
    kind: &Kind,
    content: &impl Serialize,
    tensors: &[(&String, &V)],
) -> std::result::Result<Vec<u8>, Box<dyn std::error::Error>> {
    let text = serde_json::to_string(&Header { version: kind.version, content })?;
    let mut end = 0;
    let place = |(name, tensor): &(&String, &V)| {
        let start = end;
        end += tensor.data_len();
        let info = TensorInfo { dtype: tensor.dtype(), shape: tensor.shape().to_vec(), data_offsets: (start, end) };
        (name.to_string(), info)
    };
    let places = tensors.iter().map(place).collect();
    let mut text = serde_json::to_vec(&Metadata::new(Some(HashMap::from([(kind.key.to_string(), text)])), places)?)?;
    text.resize(text.len().next_multiple_of(8), b' ');
    Ok([&(text.len() as u64).to_le_bytes(), &text[..]].concat())
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
    /// The tensors, for those who read other kinds than numbers.
    pub fn into_checkpoint(self) -> Checkpoint {
        self.tensors
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: Kind = Kind { key: "sitter_test", name: "a test", version: 1 };

    #[test]
    fn writing_that_is_cancelled_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let tensors = |n: f32| BTreeMap::from([("x".to_string(), Tensor::new(&[n, n], &Device::Cpu).unwrap())]);
        let content = BTreeMap::from([("what", "first")]);
        save(&path, &FILE, &content, &tensors(1.0), &Control::default()).unwrap();
        let written = std::fs::read(&path).unwrap();
        let stop = Control::default();
        stop.cancel();
        assert!(matches!(save(&path, &FILE, &content, &tensors(2.0), &stop), Err(Error::Cancelled)));
        assert_eq!(std::fs::read(&path).unwrap(), written);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    }

    #[test]
    fn files_are_those_of_the_formats_own_library() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let made = |dtype, n: usize| Tensor::ones(n, dtype, &Device::Cpu).unwrap();
        let tensors = BTreeMap::from([
            ("a".to_string(), made(DType::BF16, 3)),
            ("b".to_string(), made(DType::F32, 2)),
            ("c".to_string(), made(DType::U8, 5)),
            ("d".to_string(), made(DType::BF16, 1)),
        ]);
        let content = BTreeMap::from([("what", "numbers")]);
        save(&path, &FILE, &content, &tensors, &Control::default()).unwrap();
        let info = HashMap::from([(FILE.key.to_string(), r#"{"version":1,"what":"numbers"}"#.to_string())]);
        assert_eq!(std::fs::read(&path).unwrap(), safetensors::serialize(&tensors, Some(info)).unwrap());
    }
}
