//! Where a layer puts what its backward pass will need.

use super::cpu::{change, dense, floats, Numbers};
use super::own_kernels;
use crate::kernels::{self, zero_bits, zeros, Matrix};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use half::bf16;
use half::vec::HalfBitsVecExt;

/// Room for what a layer keeps. On the CPU numbers in f32 are rounded to bf16 if that is what they are kept in: into one piece of
/// memory, taken before the layer is computed and given back as a whole. Pieces of a size of their own would be scattered over what the
/// layer takes and gives back while it is computed, and leave gaps that nothing fits into.
pub struct Room {
    dtype: DType,
    /// None where things are kept as they are.
    all: Option<Tensor>,
    filled: usize,
}

impl Room {
    /// For so many numbers, of tensors such as `x`.
    pub fn new(numbers: usize, dtype: DType, x: &Tensor) -> Result<Self> {
        let rounds = own_kernels(x) && (x.dtype(), dtype) == (DType::F32, DType::BF16);
        let room = || Tensor::from_vec(zero_bits(numbers).reinterpret_into::<bf16>(), numbers, &Device::Cpu);
        Ok(Room { dtype, all: rounds.then(room).transpose()?, filled: 0 })
    }

    /// What is to be kept of a tensor.
    pub fn keep(&mut self, x: Tensor) -> Result<Tensor> {
        let Some(all) = &self.all else { return Ok(x.to_dtype(self.dtype)?) };
        let x = x.contiguous()?;
        let place = all.narrow(0, self.filled, x.elem_count())?;
        self.filled += x.elem_count();
        let values = floats(&x)?;
        change(&place, |numbers| match numbers {
            Numbers::Bf16(to) => {
                kernels::to_bf16(&values, to);
                Ok(())
            }
            Numbers::F32(_) => Err(Error::internal("room of f32")),
        })?;
        Ok(place.reshape(x.dims())?)
    }
}

/// What was kept, in the dtype that is computed with; bf16 only becomes f32.
pub fn widened(x: Tensor, dtype: DType) -> Result<Tensor> {
    if x.dtype() == dtype {
        return Ok(x);
    }
    let mut wide = zeros(x.elem_count());
    dense(&x, |numbers| match numbers {
        Matrix::Bf16(numbers) if dtype == DType::F32 => {
            kernels::from_bf16(numbers, &mut wide);
            Ok(())
        }
        _ => Err(Error::internal(format!("{:?} was kept of {dtype:?}", x.dtype()))),
    })??;
    Ok(Tensor::from_vec(wide, x.dims(), &Device::Cpu)?)
}
