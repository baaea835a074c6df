//! A weight of the transformer: plain numbers or quantised blocks.

use crate::{Error, Result};
use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{DType, Device, Tensor};
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
    fn blocks(self, width: usize) -> Option<GgmlDType> {
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
            Some(dtype) => Weight::Quantised(Arc::new(QTensor::quantize(&tensor.to_dtype(DType::F32)?, dtype)?)),
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

/// A matrix [out, in] or a vector. A clone shares the numbers.
#[derive(Clone)]
pub enum Weight {
    /// f32 or bf16.
    Dense(Tensor),
    /// q8_0 or q4_k; only matrices are.
    Quantised(Arc<QTensor>),
}

impl Weight {
    pub fn dims(&self) -> &[usize] {
        match self {
            Weight::Dense(t) => t.dims(),
            Weight::Quantised(q) => q.shape().dims(),
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
            Weight::Quantised(q) => Ok(q.dequantize(&q.device())?),
        }
    }

    /// Bytes that the numbers take.
    pub fn bytes(&self) -> u64 {
        match self {
            Weight::Dense(t) => (t.elem_count() * t.dtype().size_in_bytes()) as u64,
            Weight::Quantised(q) => q.storage_size_in_bytes() as u64,
        }
    }

    /// These rows of a matrix; shared with it where that costs nothing.
    pub fn rows(&self, ids: &[u32]) -> Result<Weight> {
        let first = *ids.first().unwrap_or(&0);
        let run = ids.iter().zip(first..).all(|(&id, expected)| id == expected);
        match self {
            Weight::Dense(t) if run => Ok(t.narrow(0, first as usize, ids.len())?.into()),
            Weight::Dense(t) => Ok(t.index_select(&Tensor::new(ids, t.device())?, 0)?.into()),
            Weight::Quantised(q) => {
                let (rows, width) = q.shape().dims2()?;
                let data = q.data()?;
                let length = data.len() / rows;
                let mut chosen = Vec::with_capacity(ids.len() * length);
                for &id in ids {
                    let at = id as usize * length;
                    chosen.extend(data.get(at..at + length).ok_or_else(|| Error::internal(format!("no row {id}")))?);
                }
                let storage = QStorage::from_data(Cow::Owned(chosen), &q.device(), q.dtype())?;
                Ok(Weight::Quantised(Arc::new(QTensor::new(storage, (ids.len(), width))?)))
            }
        }
    }
}

impl From<Tensor> for Weight {
    fn from(tensor: Tensor) -> Self {
        Weight::Dense(tensor)
    }
}
