//! PyTorch checkpoints (`torch.save`, zip format), read without running anything in them.
//!
//! Not `candle_core::pickle`: version 0.11.1 panics on short argument tuples (`Vec::remove`), allocates what a string
//! length or a shape claims, copies a shared value for each reference to it, and refuses views that are neither
//! contiguous nor transposed. (Its storage offsets are right.) Here [`machine`] builds inert values, [`archive`] finds
//! the bytes, and this file turns the tensors among the values into places in the archive.

mod archive;
mod machine;
mod value;

use super::entry::{Entry, Storage, Stored, View};
use super::foreign;
use crate::device::memory;
use crate::{Error, Result};
use archive::Member;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use value::{Id, Value, Values};

/// Structure only: the numbers lie in other members of the archive.
const MAX_PICKLE: usize = 16 << 20;

/// The tensors of a dict in a checkpoint.
#[derive(Debug)]
pub(super) struct Contents {
    pub entries: BTreeMap<String, Entry>,
    pub storages: Vec<Storage>,
}

/// Reads the table of tensors in the dict `key` of the checkpoint, or in the checkpoint itself if it is such a dict.
pub(super) fn read(file: &Path, bytes: &[u8], key: Option<&str>) -> Result<Contents> {
    let wrong = |message: String| Error::bad_format(file, message);
    if let Some(message) = other_format(bytes) {
        return Err(wrong(message));
    }
    let members = archive::members(bytes).map_err(wrong)?;
    let mut roots =
        members.keys().filter_map(|name| name.strip_suffix("data.pkl")).filter(|r| r.matches('/').count() < 2);
    let root = match (roots.next(), roots.next()) {
        (Some(root), None) => root,
        (None, _) => return Err(wrong("is a zip archive, but not one of torch.save: it has no data.pkl".into())),
        _ => return Err(wrong("is a zip archive with more than one data.pkl".into())),
    };
    if members.contains_key(format!("{root}constants.pkl").as_str()) {
        return Err(wrong("is a TorchScript archive; save the module's state_dict() with torch.save".into()));
    }
    if let Some(order) = members.get(format!("{root}byteorder").as_str()) {
        if &bytes[order.range.clone()] != b"little" {
            return Err(wrong("was saved on a big-endian machine; load and save it again on another one".into()));
        }
    }
    let program = &members[format!("{root}data.pkl").as_str()];
    let pickle = &bytes[program.range.clone()];
    if pickle.len() > MAX_PICKLE {
        let message =
            format!("its data.pkl has {} bytes, at most {MAX_PICKLE} are read; save only the tensors", pickle.len());
        return Err(wrong(message));
    }
    if program.crc != 0 && crc32fast::hash(pickle) != program.crc {
        return Err(Error::Corrupt {
            file: file.to_owned(),
            message: "the check sum of data.pkl is wrong: the file is damaged, get it again".into(),
        });
    }
    /// What each byte of a pickle can become: a value, its place in a list, on the stack and in the memo.
    const TIMES: u64 = 100;
    memory::room(file, pickle.len() as u64 * TIMES)?;
    let values = machine::run(pickle).map_err(wrong)?;
    let items = dict(&values, key).map_err(wrong)?;
    let mut reader = Reader { values: &values, members: &members, root, storages: Vec::new(), known: HashMap::new() };
    let mut entries = BTreeMap::new();
    for &(name, value) in items {
        let Some(name) = values.text(name) else { continue };
        let entry = reader.tensor(value).map_err(|what| wrong(format!("tensor {name}: {what}")))?;
        if let Some(entry) = entry {
            // As in Python, the last of two equal keys counts.
            entries.insert(name.to_owned(), entry);
        }
    }
    let storages = reader.storages;
    Ok(Contents { entries, storages })
}

/// Recognises what is not a zip archive.
fn other_format(bytes: &[u8]) -> Option<String> {
    const CONVERT: &str = "in Python: torch.save(torch.load('OLD', map_location='cpu', weights_only=True), 'NEW')";
    if bytes.starts_with(b"PK\x03\x04") {
        return None;
    }
    if let Some(message) = foreign(bytes) {
        return Some(message);
    }
    if bytes.first() == Some(&0x80) || bytes.get(257..262) == Some(b"ustar") {
        return Some(format!("is in PyTorch's format from before version 1.6; convert it, {CONVERT}"));
    }
    if bytes.get(8) == Some(&b'{') {
        return Some("looks like a safetensors file; give it a name that ends in .safetensors".into());
    }
    Some("is not a PyTorch checkpoint (a zip archive made by torch.save)".into())
}

/// The items of the dict that holds the tensors. `key` may be several, one in the other, with `/` between them.
fn dict<'a>(values: &'a Values<'_>, key: Option<&str>) -> std::result::Result<&'a [(Id, Id)], String> {
    let Value::Dict(root) = values.get(values.root()) else {
        return Err("does not hold a dict; save a dict of tensors, as a module's state_dict() is".into());
    };
    let mut items: &[(Id, Id)] = root;
    for key in key.into_iter().flat_map(|key| key.split('/')) {
        match items.iter().rev().find(|(name, _)| values.text(*name) == Some(key)) {
            Some(&(_, value)) => match values.get(value) {
                Value::Dict(inner) => items = inner,
                _ => return Err(format!("its '{key}' is not a dict of tensors")),
            },
            None => {
                let mut found: Vec<_> = items.iter().filter_map(|(name, _)| values.text(*name)).take(8).collect();
                let more = items.len().saturating_sub(found.len());
                found.sort_unstable();
                let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
                return Err(format!("has no '{key}'; it has: {}{rest}", found.join(", ")));
            }
        }
    }
    Ok(items)
}

struct Reader<'a> {
    values: &'a Values<'a>,
    members: &'a HashMap<&'a str, Member>,
    root: &'a str,
    storages: Vec<Storage>,
    /// The number in `storages` of each key that was met.
    known: HashMap<&'a str, usize>,
}

type Read<T> = std::result::Result<T, String>;

impl<'a> Reader<'a> {
    /// The tensor that a value stands for; `None` if it is something else.
    fn tensor(&mut self, mut value: Id) -> Read<Option<Entry>> {
        // A parameter wraps a tensor, a subclass may wrap a parameter; nothing wraps more.
        for _ in 0..4 {
            let &Value::Call { function, arguments } = self.values.get(value) else { return Ok(None) };
            let Some((module, name)) = self.values.global(function) else { return Ok(None) };
            let short = || format!("{module}.{name} lacks arguments");
            let Value::Tuple(arguments) = self.values.get(arguments) else { return Ok(None) };
            match (module, name) {
                ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
                    value = *arguments.first().ok_or_else(short)?;
                }
                ("torch._tensor", "_rebuild_from_type_v2") => {
                    let (&[function, _, inner, ..], Value::Tuple(_)) =
                        (&arguments[..], arguments.get(2).map_or(&Value::None, |&a| self.values.get(a)))
                    else {
                        return Err(short());
                    };
                    return self.rebuild(function, inner);
                }
                ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2" | "_rebuild_tensor_v3") => {
                    return self.rebuild_tensor(name, arguments).map(Some);
                }
                _ => {
                    let stored = Stored::Other(format!("something made by {module}.{name}"));
                    return Ok(Some(Entry {
                        file: 0,
                        stored,
                        shape: Vec::new(),
                        range: 0..0,
                        view: None,
                        storage: None,
                    }));
                }
            }
        }
        Err("it is wrapped too often".into())
    }

    fn rebuild(&mut self, function: Id, arguments: Id) -> Read<Option<Entry>> {
        match (self.values.global(function), self.values.get(arguments)) {
            (Some(("torch._utils", name)), Value::Tuple(arguments)) if name.starts_with("_rebuild_tensor") => {
                self.rebuild_tensor(name, arguments).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// `(storage, offset, shape, strides, ...)`, in version 3 with the dtype at place 6.
    fn rebuild_tensor(&mut self, function: &str, arguments: &[Id]) -> Read<Entry> {
        let values = self.values;
        let &[storage, offset, shape, strides, ..] = arguments else {
            return Err(format!("torch._utils.{function} lacks arguments"));
        };
        let dtype = match function {
            "_rebuild_tensor_v3" => match arguments.get(6).and_then(|&d| values.global(d)) {
                Some(("torch", dtype)) => Some(dtype),
                _ => return Err("it has no dtype".into()),
            },
            _ => None,
        };
        let (stored, storage) = self.storage(storage, dtype)?;
        let range = self.storages[storage].range.clone();
        let offset = values.count(offset).ok_or("its storage offset is not a number")?;
        let shape = values.counts(shape).ok_or("its shape is not a tuple of up to 16 sizes")?;
        let strides = values.counts(strides).ok_or("its strides are not a tuple of up to 16 numbers")?;
        if shape.len() != strides.len() {
            return Err(format!("it has {} sizes and {} strides", shape.len(), strides.len()));
        }
        let Some(size) = stored.size() else {
            return Ok(Entry { file: 0, stored, shape, range, view: None, storage: Some(storage) });
        };

        let available = range.len() / size;
        // Where there is no next element, the way to it does not matter; Python leaves any number there.
        let strides = shape.iter().zip(strides).map(|(&size, stride)| if size == 1 { 0 } else { stride }).collect();
        let view = View { offset, strides };
        let outside = || {
            format!(
                "its shape {shape:?}, strides {:?} and offset {offset} reach beyond the {available} values stored",
                view.strides
            )
        };
        let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).ok_or_else(outside)?;
        // Also bounds what is allocated later: expanded tensors (stride 0) could claim any shape.
        if count > available {
            return Err(outside());
        }
        if count > 0 {
            let last = shape
                .iter()
                .zip(&view.strides)
                .try_fold(offset, |last, (&d, &s)| last.checked_add((d - 1).checked_mul(s)?));
            last.filter(|&last| last < available).ok_or_else(outside)?;
        }
        if count == 0 || view.is_contiguous(&shape) {
            let start = if count == 0 { range.start } else { range.start + offset * size };
            let range = start..start + count * size;
            return Ok(Entry { file: 0, stored, shape, range, view: None, storage: Some(storage) });
        }
        Ok(Entry { file: 0, stored, shape, range, view: Some(view), storage: Some(storage) })
    }

    /// `("storage", class, key, device, count)`: what kind of numbers, and which member of the archive has them.
    fn storage(&mut self, value: Id, dtype: Option<&str>) -> Read<(Stored, usize)> {
        let values = self.values;
        let Value::Persistent(id) = values.get(value) else { return Err("it has no storage".into()) };
        let fields = match values.get(*id) {
            Value::Tuple(fields) => &fields[..],
            _ => &[],
        };
        let &[tag, class, key, _, count, ..] = fields else { return Err("its storage is not described".into()) };
        let (Some("storage"), Some((_, class)), Some(key), Some(count)) =
            (values.text(tag), values.global(class), values.text(key), values.count(count))
        else {
            return Err("its storage is not described".into());
        };
        // Untyped storages count bytes.
        let (stored, unit) = match (class, dtype) {
            ("UntypedStorage", Some(dtype)) => (Stored::from_torch(dtype), Some(1)),
            (class, Some(dtype)) => (Stored::from_torch(dtype), Stored::from_torch(class).size()),
            (class, None) => {
                let stored = Stored::from_torch(class);
                let unit = stored.size();
                (stored, unit)
            }
        };
        let number = match self.known.get(key) {
            Some(&number) => number,
            None => {
                let name = format!("{}data/{key}", self.root);
                let member =
                    self.members.get(name.as_str()).ok_or_else(|| format!("its storage {name} is not in the file"))?;
                self.storages.push(Storage::new(member.range.clone(), member.crc));
                self.known.insert(key, self.storages.len() - 1);
                self.storages.len() - 1
            }
        };
        let found = self.storages[number].range.len();
        match unit.map(|unit| count.checked_mul(unit)) {
            Some(expected) if expected != Some(found) => {
                Err(format!("its storage {key} has {found} bytes where {count} values of {class} were announced"))
            }
            _ => Ok((stored, number)),
        }
    }
}
