//! A weight of the transformer: plain numbers or quantised blocks.

use super::files::Bytes;
use super::ops;
use crate::{Error, Result};
use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{DType, Device, Tensor};
use half::f16;
use rayon::prelude::*;
use std::borrow::Cow;
use std::sync::Arc;

/// What weights are kept in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    F32,
    Bf16,
    /// 8 bits a number and a scale for each 32.
    Q8_0,
    /// 4 bits a number and scales for each 32 and 256.
    Q4K,
}

impl Format {
    pub const ALL: [Format; 4] = [Format::F32, Format::Bf16, Format::Q8_0, Format::Q4K];

    /// As it is written in options.
    pub fn name(self) -> &'static str {
        match self {
            Format::F32 => "f32",
            Format::Bf16 => "bf16",
            Format::Q8_0 => "q8_0",
            Format::Q4K => "q4_k",
        }
    }

    /// What weights that are not quantised are kept in: of quantised models the vocabulary's rows and the norms.
    pub fn dense(self) -> DType {
        match self {
            Format::F32 => DType::F32,
            _ => DType::BF16,
        }
    }

    /// The format of the head: half a byte is too little where probabilities are made.
    pub fn head(self) -> Self {
        match self {
            Format::Q4K => Format::Q8_0,
            other => other,
        }
    }

    /// The blocks that rows of `width` numbers are kept in: where they are not whole blocks of 4 bits, 8 are taken, and where
    /// they are not whole blocks of those either, plain numbers (none).
    pub fn blocks(self, width: usize) -> Option<GgmlDType> {
        let tried: &[GgmlDType] = match self {
            Format::F32 | Format::Bf16 => &[],
            Format::Q8_0 => &[GgmlDType::Q8_0],
            Format::Q4K => &[GgmlDType::Q4K, GgmlDType::Q8_0],
        };
        tried.iter().copied().find(|d| width.is_multiple_of(d.block_size()))
    }

    /// A matrix in this format.
    pub fn weight(self, tensor: Tensor) -> Result<Weight> {
        Ok(match self.blocks(tensor.dims()[tensor.rank() - 1]) {
            Some(dtype) => Weight::Quantised(Blocks::quantise(&tensor, dtype)?),
            None => Weight::Dense(tensor.to_dtype(self.dense())?),
        })
    }

    /// Bytes of a matrix of so many numbers, `width` in a row.
    pub fn bytes(self, numbers: u128, width: usize) -> u128 {
        match self.blocks(width) {
            Some(dtype) => numbers / dtype.block_size() as u128 * dtype.type_size() as u128,
            None => numbers * self.dense().size_in_bytes() as u128,
        }
    }
}

/// The format of the weights by name: `auto`, `f32`, `bf16`, `q8_0` or `q4_k`. `auto` is bf16 on a GPU and f32 on the CPU.
/// Activations are bf16 on a GPU (beside f32 weights f32) and always f32 on the CPU, where they are rounded to bf16 for a product with bf16
/// weights if the processor multiplies bf16, and beside weights that are not f32 to be kept for the way back.
///
/// f16 is not offered: activations of the 7B model exceed its range.
pub fn parse_dtype(name: &str, device: &Device) -> Result<Format> {
    match Format::ALL.into_iter().find(|f| f.name() == name) {
        Some(format) => Ok(format),
        None if name == "auto" && device.is_cuda() => Ok(Format::Bf16),
        None if name == "auto" => Ok(Format::F32),
        None => Err(Error::invalid("dtype", format!("\"{name}\" is not one of auto, f32, bf16, q8_0, q4_k"))),
    }
}

/// A matrix [out, in] or a vector. A clone shares the numbers.
#[derive(Clone)]
pub enum Weight {
    /// f32 or bf16.
    Dense(Tensor),
    /// q8_0 or q4_k; only matrices are.
    Quantised(Blocks),
}

impl Weight {
    pub fn dims(&self) -> &[usize] {
        match self {
            Weight::Dense(t) => t.dims(),
            Weight::Quantised(q) => &q.dims,
        }
    }

    pub fn device(&self) -> Device {
        match self {
            Weight::Dense(t) => t.device().clone(),
            Weight::Quantised(q) => q.device(),
        }
    }

    /// The number format in which changed values of this weight are kept: its own, of quantised ones bf16.
    pub fn dense_dtype(&self) -> DType {
        match self {
            Weight::Dense(t) => t.dtype(),
            Weight::Quantised(_) => DType::BF16,
        }
    }

    /// The numbers as f32.
    pub fn to_f32(&self) -> Result<Tensor> {
        match self {
            Weight::Dense(t) => Ok(t.to_dtype(DType::F32)?),
            Weight::Quantised(q) => Ok(q.tensor()?.dequantize(&q.device())?),
        }
    }

    /// These rows of a matrix; shared with it where that costs nothing.
    pub fn rows(&self, ids: &[u32]) -> Result<Weight> {
        let first = *ids.first().unwrap_or(&0);
        let run = ids.iter().zip(first..).all(|(&id, expected)| id == expected);
        Ok(match self {
            Weight::Dense(t) if run => t.narrow(0, first as usize, ids.len())?.into(),
            Weight::Dense(t) => t.index_select(&Tensor::new(ids, t.device())?, 0)?.into(),
            Weight::Quantised(q) => Weight::Quantised(q.rows(ids, run)?),
        })
    }
}

/// A matrix in quantised blocks, row by row. A clone shares them.
#[derive(Clone)]
pub struct Blocks {
    dtype: GgmlDType,
    dims: [usize; 2],
    data: Data,
}

#[derive(Clone)]
enum Data {
    /// Where the CPU's kernels read them; perhaps in a file.
    Host(Bytes),
    Device(Arc<QTensor>),
}

impl Blocks {
    fn quantise(matrix: &Tensor, dtype: GgmlDType) -> Result<Self> {
        let (rows, width) = matrix.dims2()?;
        let data = match matrix.device().is_cpu() {
            true => Data::Host(ops::quantise(matrix, dtype)?.into()),
            false => {
                // Numbers of their own: `quantize` reads all of a tensor's storage.
                let own = matrix.to_dtype(DType::F32)?.force_contiguous()?;
                Data::Device(Arc::new(QTensor::quantize(&own, dtype)?))
            }
        };
        Ok(Blocks { dtype, dims: [rows, width], data })
    }

    /// Of blocks as they lie in memory, on the CPU where they are, to other devices sent. None if their number is not right, or
    /// one has a scale that is not finite.
    pub fn read(bytes: Bytes, dims: [usize; 2], dtype: GgmlDType, device: &Device) -> Result<Option<Self>> {
        /// What one thread looks through at a time, in blocks.
        const SCAN: usize = 1 << 12;
        let (block, size) = (dtype.block_size(), dtype.type_size());
        let numbers = dims[0].checked_mul(dims[1]).filter(|_| dims[1].is_multiple_of(block));
        if numbers.and_then(|n| (n / block).checked_mul(size)) != Some(bytes.len()) {
            return Ok(None);
        }
        let finite = |scale: &[u8]| f16::from_le_bytes([scale[0], scale[1]]).is_finite();
        let sound = |block: &[u8]| finite(block) && (dtype != GgmlDType::Q4K || finite(&block[2..]));
        if !bytes.par_chunks(SCAN * size).all(|blocks| blocks.chunks_exact(size).all(sound)) {
            return Ok(None);
        }
        let data = match device.is_cpu() {
            true => Data::Host(bytes),
            false => {
                let storage = QStorage::from_data(Cow::Borrowed(&bytes), device, dtype)?;
                Data::Device(Arc::new(QTensor::new(storage, (dims[0], dims[1]))?))
            }
        };
        Ok(Some(Blocks { dtype, dims, data }))
    }

    /// Bytes of a row.
    pub fn row_bytes(&self) -> usize {
        self.dims[1] / self.dtype.block_size() * self.dtype.type_size()
    }

    pub fn dtype(&self) -> GgmlDType {
        self.dtype
    }

    pub fn dims(&self) -> [usize; 2] {
        self.dims
    }

    fn device(&self) -> Device {
        match &self.data {
            Data::Host(_) => Device::Cpu,
            Data::Device(q) => q.device(),
        }
    }

    /// The blocks; read from the device if they are there.
    pub fn bytes(&self) -> Result<Cow<'_, [u8]>> {
        match &self.data {
            Data::Host(bytes) => Ok(Cow::Borrowed(bytes)),
            Data::Device(q) => Ok(q.data()?),
        }
    }

    /// The same for candle's operations, for which what is on the CPU is copied.
    pub fn tensor(&self) -> Result<Arc<QTensor>> {
        match &self.data {
            Data::Host(bytes) => {
                let storage = QStorage::from_data(Cow::Borrowed(bytes), &Device::Cpu, self.dtype)?;
                Ok(Arc::new(QTensor::new(storage, (self.dims[0], self.dims[1]))?))
            }
            Data::Device(q) => Ok(q.clone()),
        }
    }

    /// Some rows; `run` says that each is the one behind the one before it.
    fn rows(&self, ids: &[u32], run: bool) -> Result<Blocks> {
        let length = self.row_bytes();
        if let Some(id) = ids.iter().find(|&&id| id as usize >= self.dims[0]) {
            return Err(Error::internal(format!("no row {id}")));
        }
        let dims = [ids.len(), self.dims[1]];
        if let (Data::Host(bytes), true, Some(&first)) = (&self.data, run, ids.first()) {
            let start = first as usize * length;
            let data = Data::Host(bytes.part(start..start + ids.len() * length));
            return Ok(Blocks { dtype: self.dtype, dims, data });
        }
        let data = self.bytes()?;
        let mut chosen = Vec::with_capacity(ids.len() * length);
        for &id in ids {
            chosen.extend_from_slice(&data[id as usize * length..][..length]);
        }
        let data = match &self.data {
            Data::Host(_) => Data::Host(chosen.into()),
            Data::Device(q) => {
                let storage = QStorage::from_data(Cow::Owned(chosen), &q.device(), self.dtype)?;
                Data::Device(Arc::new(QTensor::new(storage, (dims[0], dims[1]))?))
            }
        };
        Ok(Blocks { dtype: self.dtype, dims, data })
    }
}

impl From<Tensor> for Weight {
    fn from(tensor: Tensor) -> Self {
        Weight::Dense(tensor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_formats_are_checked() {
        assert_eq!(parse_dtype("auto", &Device::Cpu).unwrap(), Format::F32);
        assert_eq!(parse_dtype("q4_k", &Device::Cpu).unwrap(), Format::Q4K);
        assert!(parse_dtype("f16", &Device::Cpu).is_err());
    }
}
