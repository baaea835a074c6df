//! The weights of a model: tensors by name, from safetensors files or PyTorch checkpoints.
//!
//! Opening reads and checks only the headers. [`Checkpoint::get`] then goes from the memory map to the device, and gives a
//! tensor only if it has the expected shape and all its numbers are finite: a model whose weights were loaded has no
//! surprise left in its files. The bytes of all files count as hostile.

mod contents;
mod header;
mod scaled;
mod shards;
mod source;
mod values;

use self::contents::length;
use self::header::{clip, header, header_memory, Index};
use self::shards::shards_without_index;
pub use self::source::check_sum;
use self::source::Source;
use super::entry::{Entry, Storage, Stored};
use super::pickle;
use super::{is_inside, Bytes, Files};
use crate::device::memory;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use safetensors::tensor::Metadata;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

#[cfg(target_endian = "big")]
compile_error!("checkpoints are little-endian and are used in place; big-endian machines are not supported");

/// How much of a tensor goes into the fingerprint, at each of three places.
const SAMPLE: usize = 4096;

/// The tensors of one or several files, by name.
pub struct Checkpoint {
    /// What messages name when no single file is to blame.
    path: PathBuf,
    sources: Vec<Source>,
    storages: Vec<Storage>,
    entries: BTreeMap<String, Entry>,
}

impl Checkpoint {
    /// Opens the weights called `stem` (of a model: `model`): `STEM.safetensors`, or else the shards that
    /// `STEM.safetensors.index.json` names, or else the complete set of shards `STEM-00001-of-000NN.safetensors`.
    ///
    /// The files must not be changed while the checkpoint is open.
    pub fn open(files: &Files, stem: &str) -> Result<Checkpoint> {
        let single = format!("{stem}.safetensors");
        if files.exists(&single) {
            return Self::open_file(files, &single);
        }
        let index = format!("{stem}.safetensors.index.json");
        if files.exists(&index) {
            return Self::open_index(files, &index, "safetensors");
        }
        let shards = shards_without_index(files, stem)?;
        let mut checkpoint = Self::empty(files.path(&shards[0]));
        for shard in &shards {
            checkpoint.add_safetensors(files, shard)?;
        }
        Ok(checkpoint)
    }

    /// Opens one safetensors file.
    pub fn open_file(files: &Files, name: &str) -> Result<Checkpoint> {
        let mut checkpoint = Self::empty(files.path(name));
        checkpoint.add_safetensors(files, name)?;
        Ok(checkpoint)
    }

    /// Opens one safetensors file that is read tensor by tensor instead of mapped; nobody has to promise that it stays as it
    /// is. Returns with it the file's bytes up to the end of its header.
    pub fn read_file(path: &Path) -> Result<(Checkpoint, Vec<u8>)> {
        let mut checkpoint = Self::empty(path.to_owned());
        let (source, mut head, length) = Source::open(path)?;
        let (start, metadata) = header(&head, length).map_err(|message| Error::bad_format(path, message))?;
        checkpoint.add(source, start, metadata)?;
        head.truncate(start);
        Ok((checkpoint, head))
    }

    /// Has each tensor checked when it is read: the sums of all, as they lie in the file one after the other.
    pub fn expect_sums(&mut self, sums: &[u32]) {
        let mut entries: Vec<&mut Entry> = self.entries.values_mut().collect();
        entries.sort_by_key(|e| (e.range.start, e.range.end));
        for (entry, &sum) in entries.into_iter().zip(sums) {
            entry.storage = Some(self.storages.len());
            self.storages.push(Storage::new(entry.range.clone(), sum));
        }
    }

    /// Opens a file made by `torch.save`: the tensors of the dict `key` in it, or of the file itself if that is the dict.
    /// Nothing in the file is executed; what is not a tensor is ignored.
    pub fn open_pickle(files: &Files, name: &str, key: Option<&str>) -> Result<Checkpoint> {
        let mut checkpoint = Self::empty(files.path(name));
        checkpoint.add_pickle(files, name, key)?;
        Ok(checkpoint)
    }

    /// Opens weights made by `torch.save`, called `stem` (of a model: `pytorch_model`): `STEM.bin`, or else the shards that
    /// `STEM.bin.index.json` names.
    pub fn open_pickles(files: &Files, stem: &str) -> Result<Checkpoint> {
        let index = format!("{stem}.bin.index.json");
        match files.exists(&index) {
            true => Self::open_index(files, &index, "bin"),
            false => Self::open_pickle(files, &format!("{stem}.bin"), None),
        }
    }

    /// Forgets the tensors that are not asked for: they are not read, counted, or part of the fingerprint.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.entries.retain(|name, _| keep(name));
    }

    /// One checkpoint of several files, such as shards: each tensor must be in one of them only.
    pub fn joined(parts: Vec<Checkpoint>) -> Result<Checkpoint> {
        let mut parts = parts.into_iter();
        let Some(mut all) = parts.next() else { return Err(Error::internal("a checkpoint of no files")) };
        for part in parts {
            let (files, storages) = (all.sources.len(), all.storages.len());
            all.sources.extend(part.sources);
            all.storages.extend(part.storages);
            for (tensor, mut entry) in part.entries {
                entry.file += files;
                entry.storage = entry.storage.map(|s| s + storages);
                if let Some(other) = all.entries.get(&tensor) {
                    let found = format!("it also in {}; remove one", all.sources[other.file].path.display());
                    let file = all.sources[entry.file].path.clone();
                    return Err(Error::Tensor { file, tensor, expected: "it in one file only".into(), found });
                }
                all.entries.insert(tensor, entry);
            }
        }
        Ok(all)
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Whether there is a tensor `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// The shape of the tensor `name`, if it is there.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(|entry| &entry.shape[..])
    }

    /// The dtype that the tensor `name` is stored in, if it is there and of one of those that [`get`](Self::get) reads.
    pub fn dtype(&self, name: &str) -> Option<DType> {
        self.entries.get(name).and_then(|entry| entry.stored.dtype())
    }

    /// All files that it was opened from.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.sources.iter().map(|source| source.path.as_path())
    }

    /// The file that messages name: the only file, the index, or the first shard.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tensor `name` as `dtype` on `device`. Fails unless it is there, has exactly this shape, is stored as F16, BF16,
    /// F32 or F64, or as I8 with a tensor `NAME.scales`, and all its values are finite and stay so in `dtype`.
    pub fn get(&self, name: &str, shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
        let entry = self.find(name, || format!("a tensor of shape {shape:?}"))?;
        if entry.shape != shape {
            let found = format!("shape {:?}; the weights and the configuration are not of the same model", entry.shape);
            return Err(self.wrong(entry, name, format!("shape {shape:?}"), found));
        }
        self.load(name, entry, dtype, device)
    }

    /// As [`get`](Self::get), in whatever shape it has.
    pub fn get_any(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let entry = self.find(name, || "a tensor of any shape".into())?;
        self.load(name, entry, dtype, device)
    }

    /// The bytes of the tensor `name`, if it is there and stored as U8.
    pub fn raw(&self, name: &str) -> Result<Option<Bytes>> {
        let entry = self.entries.get(name).filter(|e| e.stored == Stored::Other("U8".into()) && e.view.is_none());
        entry.map(|entry| self.checked(name, entry)).transpose()
    }

    /// A SHA-256 that tells checkpoints apart: over name, dtype, shape and up to 3 x 4 KiB of the bytes (start, middle and
    /// end) of each tensor, in the order of names. It is the same however the tensors are spread over files, and takes
    /// milliseconds for any size; it does not see every change of a single number.
    pub fn fingerprint(&self) -> Result<[u8; 32]> {
        self.fingerprint_as(&self.names().map(|name| (name, name)).collect())
    }

    /// The same of the tensors under other names: the key is what counts as a tensor's name, the value what the files call it.
    pub fn fingerprint_as(&self, names: &BTreeMap<&str, &str>) -> Result<[u8; 32]> {
        let mut hash = Sha256::new();
        for (name, called) in names {
            let entry = self.find(called, || "a tensor of any shape".into())?;
            let mut text = |text: &str| {
                hash.update((text.len() as u64).to_le_bytes());
                hash.update(text);
            };
            text(name);
            text(entry.stored.name());
            hash.update((entry.shape.len() as u64).to_le_bytes());
            for &size in &entry.shape {
                hash.update((size as u64).to_le_bytes());
            }
            let length = length(entry);
            if length <= 3 * SAMPLE {
                hash.update(&*self.part(entry, 0..length)?);
            } else {
                for start in [0, (length - SAMPLE) / 2, length - SAMPLE] {
                    hash.update(&*self.part(entry, start..start + SAMPLE)?);
                }
            }
            self.sources[entry.file].forget(entry.range.clone());
        }
        Ok(hash.finalize().into())
    }

    fn empty(path: PathBuf) -> Self {
        Checkpoint { path, sources: Vec::new(), storages: Vec::new(), entries: BTreeMap::new() }
    }

    fn open_index(files: &Files, name: &str, kind: &str) -> Result<Checkpoint> {
        let mut checkpoint = Self::empty(files.path(name));
        let path = checkpoint.path.clone();
        let Index { weight_map } = serde_json::from_str(&files.text(name)?).map_err(|e| {
            Error::bad_format(&path, format!("is not an index of {kind} shards ({}); get the file again", clip(&e)))
        })?;
        let shards: BTreeSet<&str> = weight_map.values().map(String::as_str).collect();
        if shards.is_empty() {
            return Err(Error::bad_format(&path, "names no tensors in its weight_map; get the file again"));
        }
        for shard in shards {
            if !is_inside(shard) || shard.rsplit_once('.').is_none_or(|(_, end)| end != kind) {
                let message = format!("names '{shard}', which is not a {kind} file of this model; get the file again");
                return Err(Error::bad_format(&path, message));
            }
            if !files.exists(shard) {
                let count = weight_map.values().filter(|s| *s == shard).count();
                let message =
                    format!("{name} says that it holds {count} tensors, but it is not there; copy this file, too");
                return Err(Error::NotFound { path: files.path(shard), message });
            }
            match kind {
                "bin" => checkpoint.add_pickle(files, shard, None)?,
                _ => checkpoint.add_safetensors(files, shard)?,
            }
        }
        for (tensor, shard) in &weight_map {
            let found = match checkpoint.entries.get(tensor) {
                Some(entry) if checkpoint.sources[entry.file].path == files.path(shard) => continue,
                Some(entry) => format!("it in {}", checkpoint.sources[entry.file].path.display()),
                None => "no such tensor".into(),
            };
            return Err(Error::Tensor {
                file: files.path(shard),
                tensor: tensor.clone(),
                expected: format!("it in this shard, as {name} says"),
                found: format!("{found}; shards and index are not of the same download, get all of them again"),
            });
        }
        Ok(checkpoint)
    }

    fn add_safetensors(&mut self, files: &Files, name: &str) -> Result<()> {
        let path = files.path(name);
        let bytes = files.bytes(name)?;
        memory::room(&path, header_memory(&bytes))?;
        let (start, metadata) = header(&bytes, bytes.len()).map_err(|message| Error::bad_format(&path, message))?;
        self.add(Source::whole(path, bytes), start, metadata)
    }

    fn add_pickle(&mut self, files: &Files, name: &str, key: Option<&str>) -> Result<()> {
        let (path, bytes) = (files.path(name), files.bytes(name)?);
        let pickle::Contents { entries, storages } = pickle::read(&path, &bytes, key)?;
        if entries.is_empty() {
            return Err(Error::bad_format(&path, "has no tensors where they are expected"));
        }
        let (file, before) = (self.sources.len(), self.storages.len());
        for (tensor, entry) in entries {
            self.check_new(&tensor, &path)?;
            self.entries.insert(tensor, Entry { file, storage: entry.storage.map(|s| s + before), ..entry });
        }
        self.sources.push(Source::whole(path, bytes));
        self.storages.extend(storages);
        Ok(())
    }

    /// Errors if a tensor of the file `path` is there already.
    fn check_new(&self, tensor: &str, path: &Path) -> Result<()> {
        let Some(other) = self.entries.get(tensor) else { return Ok(()) };
        Err(Error::Tensor {
            file: path.to_owned(),
            tensor: tensor.to_owned(),
            expected: "it in one shard only".into(),
            found: format!("it also in {}; remove one of the two files", self.sources[other.file].path.display()),
        })
    }

    fn add(&mut self, source: Source, start: usize, metadata: Metadata) -> Result<()> {
        let file = self.sources.len();
        for (tensor, info) in metadata.tensors().into_iter().collect::<BTreeMap<_, _>>() {
            self.check_new(&tensor, &source.path)?;
            let entry = Entry {
                file,
                stored: Stored::from_safetensors(info.dtype),
                shape: info.shape.clone(),
                range: start + info.data_offsets.0..start + info.data_offsets.1,
                view: None,
                storage: None,
            };
            self.entries.insert(tensor, entry);
        }
        self.sources.push(source);
        Ok(())
    }

    fn find(&self, name: &str, expected: impl Fn() -> String) -> Result<&Entry> {
        self.entries.get(name).ok_or_else(|| {
            let similar = self.similar(name);
            let found = match similar.len() {
                0 => "no such tensor".to_string(),
                _ => format!("no such tensor; similar names: {}", similar.join(", ")),
            };
            Error::Tensor { file: self.path.clone(), tensor: name.to_owned(), expected: expected(), found }
        })
    }

    /// Names that `name` may have been meant for: those that differ in a prefix, or else in a few letters.
    fn similar(&self, name: &str) -> Vec<&str> {
        const SHOWN: usize = 3;
        let dotted = format!(".{name}");
        let is_prefixed = |other: &&str| other.ends_with(&dotted) || name.ends_with(&format!(".{other}"));
        let prefixed: Vec<_> = self.names().filter(is_prefixed).take(SHOWN).collect();
        if !prefixed.is_empty() {
            return prefixed;
        }
        let near = self.names().take(10_000).filter(|other| other.len().abs_diff(name.len()) <= 8 && other.len() < 256);
        let mut near: Vec<_> = near.map(|other| (distance(name, other), other)).collect();
        near.retain(|(distance, _)| *distance <= 3.max(name.len() / 8));
        near.sort_unstable();
        near.into_iter().map(|(_, other)| other).take(SHOWN).collect()
    }

    fn wrong(&self, entry: &Entry, name: &str, expected: impl Into<String>, found: impl Into<String>) -> Error {
        Error::Tensor {
            file: self.sources[entry.file].path.clone(),
            tensor: name.to_owned(),
            expected: expected.into(),
            found: found.into(),
        }
    }

    /// Numbers in all tensors whose names begin so.
    pub fn count(&self, prefix: &str) -> u64 {
        let chosen = self.entries.iter().filter(|(name, _)| name.starts_with(prefix));
        chosen.map(|(_, entry)| entry.shape.iter().map(|&n| n as u64).product::<u64>()).sum()
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checkpoint({}, {} tensors)", self.path.display(), self.entries.len())
    }
}

/// How many letters one must change, add or remove to get from one name to the other.
fn distance(a: &str, b: &str) -> usize {
    let b = b.as_bytes();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (diagonal + usize::from(x != y)).min(above + 1).min(row[j] + 1);
            diagonal = above;
        }
    }
    row[b.len()]
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::device::memory::tests::with_memory;

    #[test]
    fn a_tensor_that_does_not_fit_in_memory_is_an_error_that_names_its_file() {
        let numbers = 20usize << 20;
        let header = format!(r#"{{"x":{{"dtype":"F32","shape":[{numbers}],"data_offsets":[0,{}]}}}}"#, 4 * numbers);
        let mut bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
        bytes.resize(bytes.len() + 4 * numbers, 0);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
        let files = Files::Folder(folder.path().to_owned());
        let name = "a_tensor_that_does_not_fit_in_memory_is_an_error_that_names_its_file";
        let refused = with_memory(name, |_| {
            // Mapping the file takes addresses, too.
            let read = Checkpoint::open(&files, "model").and_then(|c| c.get("x", &[numbers], DType::F32, &Device::Cpu));
            match read {
                Ok(_) => 0,
                Err(Error::NoMemory { file, .. }) if file.ends_with("model.safetensors") => 1,
                Err(other) => panic!("{other}"),
            }
        });
        let Some(refused) = refused else { return };
        assert!(refused.first() == Some(&1) && refused.last() == Some(&0), "{refused:?}");
    }
}
