//! Numbers on their way between a GPU and the memory of the host, while the GPU goes on with its work.
//!
//! Memory that the system may move is copied by way of a small buffer of the driver's, and whoever asked for it waits. From and to
//! memory that stays where it is (pinned) a GPU copies by itself, in the order of its other work. Such memory takes longer to get
//! than to fill, so it is used again.

use super::to_host;
#[cfg(feature = "cuda")]
use super::{kernel, pinned::Pinned};
use crate::ops::floats;
use crate::{Error, Result};
use candle_core::{CpuStorage, DType, Device, Storage, Tensor};
use half::bf16;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// Numbers that are copied by one thread at a time.
const PIECE: usize = 1 << 16;

/// Memory of the host for some f32, where those of a tensor land, and leave from again.
pub struct Landing(Memory);

enum Memory {
    #[cfg(feature = "cuda")]
    Pinned(Pinned),
    /// On the CPU, and where the system has no memory to give that stays in place.
    Plain(Vec<f32>),
}

/// Landings that nobody uses, by their size.
#[derive(Default)]
pub struct Landings(BTreeMap<usize, Vec<Landing>>);

impl Landings {
    /// Begins to copy a tensor's numbers, f32, to the host.
    pub fn fetch(&mut self, t: &Tensor) -> Result<Landing> {
        let (t, n) = (t.contiguous()?, t.elem_count());
        if t.dtype() != DType::F32 {
            return Err(Error::internal(format!("a landing for {:?}", t.dtype())));
        }
        let free = self.0.get_mut(&n).and_then(Vec::pop);
        let mut landing = free.unwrap_or_else(|| Landing(Memory::new(t.device(), n)));
        match &mut landing.0 {
            #[cfg(feature = "cuda")]
            // SAFETY: the tensor has so many numbers.
            Memory::Pinned(pinned) => unsafe { pinned.fetch(kernel::address(&t)?)? },
            Memory::Plain(numbers) => numbers.copy_from_slice(&floats(&to_host(&t)?)?),
        }
        Ok(landing)
    }

    /// For the next tensor of its size. What was sent from it may be still under way: the GPU keeps the order.
    pub fn give_back(&mut self, landing: Landing) {
        self.0.entry(landing.len()).or_default().push(landing);
    }
}

impl Landing {
    fn len(&self) -> usize {
        match &self.0 {
            #[cfg(feature = "cuda")]
            Memory::Pinned(pinned) => pinned.len(),
            Memory::Plain(numbers) => numbers.len(),
        }
    }

    /// The numbers; waits until they are there.
    pub fn numbers(&mut self) -> Result<&mut [f32]> {
        match &mut self.0 {
            #[cfg(feature = "cuda")]
            Memory::Pinned(pinned) => pinned.numbers(),
            Memory::Plain(numbers) => Ok(numbers),
        }
    }

    /// Writes a value of the host, as many numbers, over those that have landed, and begins to copy it into a contiguous tensor
    /// of a GPU, in whose dtype it is written.
    pub fn send(&mut self, value: &Tensor, to: &Tensor) -> Result<()> {
        let (n, dtype) = (self.len(), to.dtype());
        if [value.elem_count(), to.elem_count()] != [n; 2] || !to.is_contiguous() {
            return Err(Error::internal(format!("{n} numbers for {:?}", to.shape())));
        }
        let numbers = self.numbers()?;
        match dtype {
            DType::F32 => each(value, numbers, |v| v, bf16::to_f32)?,
            DType::BF16 => each(value, halves(numbers), bf16::from_f32, |v| v)?,
            other => return Err(Error::internal(format!("a value as {other:?}"))),
        }
        match &mut self.0 {
            #[cfg(feature = "cuda")]
            // SAFETY: the tensor has so many numbers of that dtype.
            Memory::Pinned(pinned) => unsafe { pinned.send(kernel::address(to)?, n * dtype.size_in_bytes())? },
            Memory::Plain(numbers) => {
                let host = match dtype {
                    DType::F32 => Tensor::from_slice(numbers, to.shape(), &Device::Cpu)?,
                    _ => Tensor::from_slice(halves(numbers), to.shape(), &Device::Cpu)?,
                };
                to.slice_set(&host.to_device(to.device())?, 0, 0)?;
            }
        }
        Ok(())
    }
}

impl Memory {
    fn new(device: &Device, n: usize) -> Self {
        #[cfg(feature = "cuda")]
        if let Device::Cuda(gpu) = device {
            match Pinned::new(gpu, n) {
                Ok(pinned) => return Memory::Pinned(pinned),
                Err(e) => log::warn!("training is slower: no memory that stays in place for {n} numbers ({e})"),
            }
        }
        let _ = device;
        Memory::Plain(vec![0.0; n])
    }
}

/// The first half of the memory, as numbers of half the size.
fn halves(numbers: &mut [f32]) -> &mut [bf16] {
    // SAFETY: a bf16 is 16 bits of any kind, which lie in any place for a number of 32 bits; the slice is not used meanwhile.
    unsafe { std::slice::from_raw_parts_mut(numbers.as_mut_ptr().cast(), numbers.len()) }
}

/// Writes a contiguous tensor of the CPU, on all threads.
fn each<T: Send>(
    value: &Tensor,
    to: &mut [T],
    from_f32: impl Fn(f32) -> T + Sync,
    from_bf16: impl Fn(bf16) -> T + Sync,
) -> Result<()> {
    let (storage, layout) = value.storage_and_layout();
    let (Storage::Cpu(numbers), Some((start, end))) = (&*storage, layout.contiguous_offsets()) else {
        return Err(Error::internal("a value that does not lie in the memory of the host"));
    };
    fn copy<F: Copy + Sync, T: Send>(from: &[F], to: &mut [T], f: impl Fn(F) -> T + Sync) {
        let pieces = to.par_chunks_mut(PIECE).zip(from.par_chunks(PIECE));
        pieces.for_each(|(to, from)| to.iter_mut().zip(from).for_each(|(to, &v)| *to = f(v)));
    }
    match numbers {
        CpuStorage::F32(all) => copy(&all[start..end], to, from_f32),
        CpuStorage::BF16(all) => copy(&all[start..end], to, from_bf16),
        _ => return Err(Error::internal(format!("a value of {:?}", value.dtype()))),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lands_leaves_again_in_the_dtype_of_its_target() {
        let cpu = &Device::Cpu;
        let gradient = Tensor::new(&[[1f32, -2.], [3., 4.]], cpu).unwrap().t().unwrap();
        let mut landings = Landings::default();
        let mut landing = landings.fetch(&gradient).unwrap();
        assert_eq!(landing.numbers().unwrap(), [1., 3., -2., 4.]);
        // 1 + 2^-9 lies between two bf16 and is rounded to the even one, as candle does.
        let value = Tensor::new(&[[1.0 + 1.0f32 / 512.0, -7.5], [0.1, 1e30]], cpu).unwrap();
        for dtype in [DType::F32, DType::BF16] {
            for value in [value.clone(), value.to_dtype(DType::BF16).unwrap()] {
                let to = Tensor::zeros((2, 2), dtype, cpu).unwrap();
                landing.send(&value, &to).unwrap();
                let expected = value.to_dtype(dtype).unwrap().to_dtype(DType::F32).unwrap().to_vec2::<f32>().unwrap();
                assert_eq!(to.to_dtype(DType::F32).unwrap().to_vec2::<f32>().unwrap(), expected);
            }
        }
        let other = Tensor::zeros(3, DType::F32, cpu).unwrap();
        assert!(landing.send(&other, &other).is_err());
        landings.give_back(landing);
        assert!(landings.fetch(&other).unwrap().numbers().unwrap() == [0.; 3]);
        assert_eq!(landings.fetch(&gradient).unwrap().numbers().unwrap(), [1., 3., -2., 4.]);
    }
}
