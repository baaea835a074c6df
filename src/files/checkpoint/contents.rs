//! What a tensor holds: its bytes in order, checked, as numbers on a device.

use super::source::check_sum;
use super::values::{convert, limit, offenders, Number};
use super::Checkpoint;
use crate::device::memory;
use crate::files::entry::{Entry, View};
use crate::files::Bytes;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use half::bf16;
use std::ops::Range;
use std::sync::atomic::Ordering;

impl Checkpoint {
    /// A tensor's values in the order of its shape: as they lie in the file, or gathered where a view reorders them.
    pub(super) fn contents(&self, entry: &Entry, lying: Bytes) -> Result<Bytes> {
        let Some(view) = &entry.view else { return Ok(lying) };
        let mut gathered = memory::reserved(&self.sources[entry.file].path, length(entry))?;
        gather(&lying, entry, view, 0..entry.shape.iter().product(), &mut gathered);
        Ok(gathered.into())
    }

    /// A few of these bytes.
    pub(super) fn part(&self, entry: &Entry, range: Range<usize>) -> Result<Bytes> {
        let source = &self.sources[entry.file];
        let Some(view) = &entry.view else {
            let start = entry.range.start;
            return source.bytes(start + range.start..start + range.end);
        };
        let size = entry.stored.size().unwrap_or(1);
        let mut gathered = Vec::new();
        let first = range.start / size;
        let elements = first..range.end.div_ceil(size);
        gather(&source.bytes(entry.range.clone())?, entry, view, elements, &mut gathered);
        gathered.drain(..range.start - first * size);
        gathered.truncate(range.len());
        Ok(gathered.into())
    }

    /// The bytes of an entry, of which the file's check sum, if it has one, is right.
    pub(super) fn checked(&self, name: &str, entry: &Entry) -> Result<Bytes> {
        let source = &self.sources[entry.file];
        let bytes = source.bytes(entry.range.clone())?;
        let Some(storage) = entry.storage.map(|s| &self.storages[s]) else { return Ok(bytes) };
        if storage.verified.load(Ordering::Relaxed) {
            return Ok(bytes);
        }
        let sum = match storage.range == entry.range {
            true => check_sum(&bytes),
            false => check_sum(&source.bytes(storage.range.clone())?),
        };
        if sum != storage.crc {
            let message = format!("tensor {name}: the check sum is wrong: the file is damaged, get it again");
            return Err(Error::Corrupt { file: source.path.clone(), message });
        }
        // What is read anew may be another the next time.
        storage.verified.store(source.is_whole(), Ordering::Relaxed);
        Ok(bytes)
    }

    pub(super) fn load(&self, name: &str, entry: &Entry, dtype: DType, device: &Device) -> Result<Tensor> {
        if let Some(scales) = self.scales(name, entry) {
            return self.load_scaled(name, entry, scales, dtype, device);
        }
        let Some(stored) = entry.stored.dtype() else {
            return Err(self.wrong(entry, name, "one of F16, BF16, F32, F64", entry.stored.name()));
        };
        let lying = self.checked(name, entry)?;
        let values = self.contents(entry, lying.clone())?;
        let bytes = &*values;
        let loaded = match dtype {
            DType::F32 if device.is_cpu() => self.convert::<f32>(name, entry, stored, &values),
            DType::BF16 if device.is_cpu() => self.convert::<bf16>(name, entry, stored, &values),
            _ => match offenders(stored, bytes, limit(stored, dtype)?) {
                None => Tensor::from_raw_buffer(bytes, stored, &entry.shape, device)
                    .and_then(|t| t.to_dtype(dtype))
                    .map_err(Error::from),
                Some(_) => Err(self.offence(name, entry, stored, bytes, dtype)),
            },
        };
        lying.forget(0..lying.len());
        loaded
    }

    pub(super) fn convert<T: Number>(&self, name: &str, entry: &Entry, stored: DType, bytes: &Bytes) -> Result<Tensor> {
        let was_read = |part: Range<usize>| {
            if entry.view.is_none() {
                bytes.forget(part);
            }
        };
        let count = bytes.len() / stored.size_in_bytes();
        let mut numbers = memory::zeros::<T>(&self.sources[entry.file].path, count)?;
        match convert(stored, bytes, limit(stored, T::DTYPE)?, &mut numbers, was_read) {
            true => Ok(Tensor::from_vec(numbers, entry.shape.as_slice(), &Device::Cpu)?),
            false => Err(self.offence(name, entry, stored, bytes, T::DTYPE)),
        }
    }

    /// What is wrong with the numbers of a tensor, of which one is, or becomes, infinite or NaN.
    pub(super) fn offence(&self, name: &str, entry: &Entry, stored: DType, bytes: &[u8], dtype: DType) -> Error {
        let total = bytes.len() / stored.size_in_bytes();
        // `limit` of a dtype in itself is its largest finite number.
        let of = |dtype| limit(stored, dtype).ok().and_then(|limit| offenders(stored, bytes, limit));
        if let Some((first, count)) = of(stored) {
            let message = format!(
                "tensor {name}: {count} of {total} values are NaN or infinite, the first at index {first}; \
                 the file is damaged, or its training diverged"
            );
            return Error::Corrupt { file: self.sources[entry.file].path.clone(), message };
        }
        let (first, count) = of(dtype).unwrap_or_default();
        let expected = format!("values that {} can hold", dtype.as_str());
        let found = format!("{count} of {total} too large, the first at index {first}; use bf16 or f32");
        self.wrong(entry, name, expected, found)
    }
}

/// How many bytes the values of a tensor have.
pub(super) fn length(entry: &Entry) -> usize {
    match entry.view {
        None => entry.range.len(),
        Some(_) => entry.shape.iter().product::<usize>() * entry.stored.size().unwrap_or(1),
    }
}

/// Appends some of the elements of a view, one after the other. Its bounds were checked when the checkpoint was opened.
pub(super) fn gather(storage: &[u8], entry: &Entry, view: &View, elements: Range<usize>, bytes: &mut Vec<u8>) {
    let size = entry.stored.size().unwrap_or(1);
    let mut index = vec![0; entry.shape.len()];
    let (mut at, mut first) = (view.offset, elements.start);
    for axis in (0..index.len()).rev() {
        index[axis] = first % entry.shape[axis];
        at += view.strides[axis] * index[axis];
        first /= entry.shape[axis];
    }
    for _ in elements {
        bytes.extend_from_slice(&storage[at * size..(at + 1) * size]);
        for axis in (0..index.len()).rev() {
            index[axis] += 1;
            at += view.strides[axis];
            if index[axis] < entry.shape[axis] {
                break;
            }
            at -= view.strides[axis] * entry.shape[axis];
            index[axis] = 0;
        }
    }
}
