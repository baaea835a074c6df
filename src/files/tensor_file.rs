//! The library's own files: safetensors with one JSON text in the header that says what the file is.
//!
//! The text also holds check sums: CRC-32 of the header, and of each tensor as it is read. No bit that flips, no two bits
//! within 512 MB, and no damage of up to 32 bits in a row escapes it, other damage once in four thousand million times; it
//! costs some tenth of reading. It is no protection against somebody who means to deceive.

use super::checkpoint::{check_sum, Checkpoint};
use crate::run::Control;
use crate::{save, Error, Result};
use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::View;
use serde::de::DeserializeOwned;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::io::{Seek, Write};
use std::ops::Range;
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
    /// Eight hexadecimal digits for the header, these being zeros, and for each tensor as they lie in the file. Files of
    /// early versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    checks: Option<String>,
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
    let broken =
        |e: &dyn std::fmt::Display| Error::internal(format!("cannot write the header of {}: {e}", path.display()));
    let mut header = header(kind, content, &tensors).map_err(|e| broken(&e))?;
    let place = checks_in(&header).ok_or_else(|| broken(&"no place for check sums"))?;
    let mut sums = vec![check_sum(&header)];
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
            let mut sum = crc32fast::Hasher::new();
            for piece in data.chunks(PIECE) {
                stop.check()?;
                sum.update(piece);
                file.write_all(piece).map_err(failed)?;
                if piece.len() == PIECE {
                    file.sync_data().map_err(failed)?;
                }
            }
            sums.push(sum.finalize());
        }
        let digits: String = sums.iter().map(|sum| format!("{sum:08x}")).collect();
        header[place].copy_from_slice(digits.as_bytes());
        file.rewind().and_then(|()| file.write_all(&header)).map_err(failed)
    })
}

/// Where the check sums of a header are.
fn checks_in(header: &[u8]) -> Option<Range<usize>> {
    // As it stands in a text within a text; the first such place, since what the kind itself has to say comes behind it.
    const BEFORE: &[u8] = br#"\"checks\":\""#;
    let start = header.windows(BEFORE.len()).position(|w| w == BEFORE)? + BEFORE.len();
    let length = header[start..].iter().position(|b| !matches!(b, b'0'..=b'9' | b'a'..=b'f'))?;
    Some(start..start + length)
}

/// The check sums of the tensors, if the header's own is right.
fn checked_sums(header: &mut [u8], tensors: usize) -> Option<Vec<u32>> {
    let place = checks_in(header)?;
    let digits = std::str::from_utf8(&header[place.clone()]).ok()?.to_owned();
    let sums = digits.as_bytes().chunks(8).map(|d| u32::from_str_radix(std::str::from_utf8(d).ok()?, 16).ok());
    let sums = sums.collect::<Option<Vec<u32>>>()?;
    header[place].fill(b'0');
    let (own, sums) = sums.split_first()?;
    (*own == check_sum(header) && sums.len() == tensors && digits.len() == 8 * (1 + tensors)).then(|| sums.to_vec())
}

/// What stands before the tensors' bytes, which lie in this order.
fn header<V: View>(
    kind: &Kind,
    content: &impl Serialize,
    tensors: &[(&String, &V)],
) -> std::result::Result<Vec<u8>, Box<dyn std::error::Error>> {
    let checks = "0".repeat(8 * (1 + tensors.len()));
    let text = serde_json::to_string(&Header { version: kind.version, checks: Some(checks), content })?;
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

/// The texts of a safetensors header.
#[derive(serde::Deserialize)]
struct Texts {
    #[serde(default, rename = "__metadata__")]
    texts: HashMap<String, String>,
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
    if path.file_name().is_none() {
        return Err(Error::invalid("path", format!("{} does not name a file", path.display())));
    }
    let found = std::fs::metadata(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::NotFound {
            path: path.to_owned(),
            message: format!("there is no such file; {} is needed", kind.name),
        },
        _ => Error::io(path, e),
    })?;
    if found.is_file() && found.len() == 0 {
        return Err(bad(format!("is empty (0 bytes), and so not {}; delete it, or give another file", kind.name)));
    }
    // Checks the whole header, so that what follows meets no surprise.
    let (mut tensors, mut head) = Checkpoint::read_file(path)?;
    let Texts { texts } = serde_json::from_slice(&head[8..]).map_err(|e| bad(format!("its header is broken: {e}")))?;
    let foreign = || bad(format!("is a safetensors file, but not {} made by sitter", kind.name));
    let text = texts.get(kind.key).ok_or_else(foreign)?;
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
    if header.checks.is_some() {
        let sums = checked_sums(&mut head, tensors.names().count()).ok_or_else(|| {
            let message = "the check sum of its header is wrong: the file is damaged, get or make it again";
            Error::Corrupt { file: path.to_owned(), message: message.into() }
        })?;
        tensors.expect_sums(&sums);
    }
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
        let written = std::fs::read(&path).unwrap();
        // The sums that Python's zlib.crc32 gives.
        let check = |bytes: &[u8]| format!("{:08x}", crc32fast::hash(bytes));
        let data = &written[written.len() - 21..];
        let sums = [&data[..8], &data[8..14], &data[14..16], &data[16..]].map(check).concat();
        let info = |own: &str| {
            let text = format!(r#"{{"version":1,"checks":"{own}{sums}","what":"numbers"}}"#);
            safetensors::serialize(&tensors, Some(HashMap::from([(FILE.key.to_string(), text)]))).unwrap()
        };
        let zeros = String::from_utf8_lossy(&info("00000000")).replace(&sums, &"0".repeat(sums.len())).into_bytes();
        assert_eq!(written, info(&check(&zeros[..written.len() - 21])));
    }

    #[derive(Serialize, serde::Deserialize)]
    struct Content {
        what: String,
    }

    fn saved(path: &Path) {
        let content = Content { what: r#"\"checks\":\"00"#.into() };
        let made = |n: usize| Tensor::arange(1f32, n as f32 + 1.0, &Device::Cpu).unwrap();
        let tensors = BTreeMap::from([("a".to_string(), made(40)), ("b".to_string(), made(0)), ("c".into(), made(3))]);
        save(path, &FILE, &content, &tensors, &Control::default()).unwrap();
    }

    /// Reads all of a file.
    fn read(path: &Path) -> Result<()> {
        let file = open::<Content>(path, &FILE)?;
        for name in file.names() {
            file.get(name)?;
        }
        Ok(())
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        saved(&path);
        read(&path).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let key = whole.windows(6).position(|w| w == b"checks").unwrap();
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut damaged = whole.clone();
                damaged[at] ^= 1 << bit;
                std::fs::write(&path, &damaged).unwrap();
                let found = read(&path);
                // A header that has no sums for want of their name is that of an early version, and says the same as before.
                assert!(found.is_err() || (key..key + 6).contains(&at), "bit {bit} of byte {at} of {}", whole.len());
                if let Err(error) = found {
                    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
                }
            }
        }
        let mut damaged = whole.clone();
        damaged[whole.len() - 1] ^= 1;
        std::fs::write(&path, &damaged).unwrap();
        let error = read(&path).unwrap_err();
        assert!(matches!(&error, Error::Corrupt { message, .. } if message.contains("tensor c")), "{error}");
    }

    #[test]
    fn files_without_sums_open_as_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let tensors = BTreeMap::from([("x".to_string(), Tensor::new(&[1f32, 2.0], &Device::Cpu).unwrap())]);
        let info = HashMap::from([(FILE.key.to_string(), r#"{"version":1,"what":"numbers"}"#.to_string())]);
        std::fs::write(&path, safetensors::serialize(&tensors, Some(info)).unwrap()).unwrap();
        read(&path).unwrap();
    }

    #[test]
    fn a_file_that_is_cut_off_while_it_is_open_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        saved(&path);
        let file = open::<Content>(&path, &FILE).unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_len(100).unwrap();
        let error = file.get("c").unwrap_err().to_string();
        assert!(error.contains("cut off") && error.contains(path.to_str().unwrap()), "{error}");
    }
}
