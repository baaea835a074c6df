//! The text at the head of safetensors files and of their indexes, read with bounds and without silent repairs.

use crate::files::foreign;
use safetensors::tensor::{Dtype, Metadata, SafeTensorError, TensorInfo};
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::Deserialize;
use std::collections::{BTreeMap, HashSet};
use std::fmt;

/// Headers of real checkpoints have some hundred KB. Reading one takes a few times its size.
pub const MAX_HEADER: u64 = 16 << 20;
/// Tensors of models have at most 5 dimensions.
const MAX_RANK: usize = 16;

/// No tensor has a longer name; keeps messages readable.
const MAX_NAME: usize = 1024;

/// `model.safetensors.index.json`: which shard holds which tensor.
#[derive(Deserialize)]
pub struct Index {
    #[serde(deserialize_with = "unique_map")]
    pub weight_map: BTreeMap<String, String>,
}

/// How much memory reading the header may take, in bytes.
pub fn header_memory(bytes: &[u8]) -> u64 {
    /// A name and a shape in a table, in a list and in an index, for some dozen letters.
    const TIMES: u64 = 16;
    let length = bytes.first_chunk::<8>().map_or(0, |length| u64::from_le_bytes(*length));
    length.min(MAX_HEADER).min(bytes.len() as u64) * TIMES
}

/// The header of a safetensors file, and where the data behind it start. `bytes` are those of the file, or its first ones: as
/// many as its header has, and 64 if there are so many. `length` is how many the file has.
///
/// The crate's own `SafeTensors::read_metadata` lets the last of two equal names win, takes many times the header's size
/// in memory, and does not name the tensor whose size is wrong. So the text is read here; the crate's `Metadata` then
/// checks that the tensors cover the data without holes or overlaps.
pub fn header(bytes: &[u8], length: usize) -> std::result::Result<(usize, Metadata), String> {
    const NOT: &str = "is not a safetensors file";
    if let Some(message) = foreign(bytes) {
        return Err(message);
    }
    if bytes.starts_with(b"PK\x03\x04") {
        return Err(format!(
            "{NOT} but a zip archive, perhaps a PyTorch checkpoint; its name should end in .ckpt or .pt"
        ));
    }
    let Some((len, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(format!("{NOT}: it has only {} bytes", bytes.len()));
    };
    let len = u64::from_le_bytes(*len);
    if rest.first().is_some_and(|&b| b != b'{') {
        return Err(format!("{NOT}: no header at byte 8; get the file again"));
    }
    if len > MAX_HEADER {
        return Err(format!("{NOT}: it claims a header of {len} bytes, at most {MAX_HEADER} are read"));
    }
    let Some(text) = rest.get(..len as usize) else {
        return Err(format!(
            "is truncated: its header should have {len} bytes, {} are there; get the file again",
            rest.len()
        ));
    };
    let text = std::str::from_utf8(text).map_err(|_| "its header is not UTF-8; get the file again".to_string())?;
    let Header(mut tensors) = serde_json::from_str(text).map_err(|e| format!("its header is broken: {}", clip(&e)))?;
    for (name, info) in &tensors {
        let (start, end) = info.data_offsets;
        let bits = info.shape.iter().try_fold(info.dtype.bitsize(), |bits, &size| bits.checked_mul(size));
        match (bits, end.checked_sub(start)) {
            (Some(bits), Some(len)) if bits % 8 == 0 && bits / 8 == len => {}
            _ => {
                let (dtype, shape) = (info.dtype, &info.shape);
                let wrong = format!("shape {shape:?} of {dtype} does not fit its place in the file, {start} to {end}");
                return Err(format!("tensor {name}: its {wrong}"));
            }
        }
    }
    tensors.sort_unstable_by(|(a, x), (b, y)| (x.data_offsets, a).cmp(&(y.data_offsets, b)));
    let metadata = Metadata::new(None, tensors).map_err(|e| match e {
        SafeTensorError::InvalidOffset(name) => {
            format!("tensor {name} overlaps the one before it, or leaves a gap; the file is broken, get it again")
        }
        e => format!("its header is broken: {e}"),
    })?;
    match (metadata.data_len(), length.saturating_sub(8 + len as usize)) {
        (announced, found) if announced > found => {
            Err(format!("is truncated: its tensors have {announced} bytes, {found} are there; get the file again"))
        }
        (announced, found) if announced < found => {
            Err(format!("has {} bytes behind its last tensor; it is damaged, get it again", found - announced))
        }
        _ => Ok((8 + len as usize, metadata)),
    }
}

/// What is wrong with a text; short, even where the message cites the text.
pub fn clip(error: &serde_json::Error) -> String {
    let message = error.to_string();
    match message.char_indices().nth(300) {
        Some((end, _)) => format!("{}... (line {}, column {})", &message[..end], error.line(), error.column()),
        None => message,
    }
}

/// The tensors of a safetensors header, in the order of the text.
struct Header(Vec<(String, TensorInfo)>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Header, A::Error> {
                let (mut tensors, mut seen) = (Vec::new(), HashSet::new());
                while let Some(name) = map.next_key::<String>()? {
                    if name.len() > MAX_NAME {
                        return Err(serde::de::Error::custom(format!("a name of {} bytes", name.len())));
                    }
                    if !seen.insert(name.clone()) {
                        return Err(serde::de::Error::custom(format!("{name} stands in it twice")));
                    }
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    let Info { dtype, shape: Sizes(shape), data_offsets } = map.next_value()?;
                    tensors.push((name, TensorInfo { dtype, shape, data_offsets }));
                }
                Ok(Header(tensors))
            }
        }
        deserializer.deserialize_map(V)
    }
}

#[derive(Deserialize)]
struct Info {
    dtype: Dtype,
    shape: Sizes,
    data_offsets: (usize, usize),
}

/// A shape of limited rank.
struct Sizes(Vec<usize>);

impl<'de> Deserialize<'de> for Sizes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Sizes;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                write!(f, "a shape of at most {MAX_RANK} sizes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Sizes, A::Error> {
                let mut sizes = Vec::new();
                while let Some(size) = seq.next_element()? {
                    if sizes.len() == MAX_RANK {
                        return Err(serde::de::Error::invalid_length(MAX_RANK + 1, &self));
                    }
                    sizes.push(size);
                }
                Ok(Sizes(sizes))
            }
        }
        deserializer.deserialize_seq(V)
    }
}

/// A map of text to text in which no key stands twice.
fn unique_map<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<BTreeMap<String, String>, D::Error> {
    struct V;
    impl<'de> Visitor<'de> for V {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("an object of file names")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
            let mut all = BTreeMap::new();
            while let Some((key, value)) = map.next_entry::<String, String>()? {
                if key.len() > MAX_NAME || value.len() > MAX_NAME {
                    return Err(serde::de::Error::custom(format!("a name of {} bytes", key.len().max(value.len()))));
                }
                if all.contains_key(&key) {
                    return Err(serde::de::Error::custom(format!("{key} stands in it twice")));
                }
                all.insert(key, value);
            }
            Ok(all)
        }
    }
    deserializer.deserialize_map(V)
}
