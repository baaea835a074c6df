//! Reads the numbers of a tensor as they lie in the file: are all finite, and do they stay so when converted?

use crate::device::memory::Zero;
use crate::{Error, Result};
use candle_core::{DType, WithDType};
use half::{bf16, f16};
use rayon::prelude::*;
use std::ops::Range;

/// How many bytes one thread looks through at a time.
const SCAN: usize = 1 << 20;

/// The bits, without the sign, of the largest number of `stored` that is still finite as a `dtype`.
pub fn limit(stored: DType, dtype: DType) -> Result<u64> {
    // What rounds to infinity begins half a step above the largest number: 65520 in f16. From f64, conversions go through
    // f32, so the limit is that of f32.
    let f32_to_f16 = 65520f32.to_bits() - 1;
    let f32_to_bf16 = 0x7f7f_7fff;
    Ok(match (stored, dtype) {
        (DType::F16, DType::F16 | DType::BF16 | DType::F32 | DType::F64) => f16::MAX.to_bits().into(),
        (DType::BF16, DType::F16) => bf16::from_f32(65280.0).to_bits().into(),
        (DType::BF16, DType::BF16 | DType::F32 | DType::F64) => bf16::MAX.to_bits().into(),
        (DType::F32, DType::F16) => f32_to_f16.into(),
        (DType::F32, DType::BF16) => f32_to_bf16.into(),
        (DType::F32, DType::F32 | DType::F64) => f32::MAX.to_bits().into(),
        (DType::F64, DType::F16) => f64::from(f32::from_bits(f32_to_f16)).to_bits(),
        (DType::F64, DType::BF16) => f64::from(f32::from_bits(f32_to_bf16)).to_bits(),
        (DType::F64, DType::F32) => f64::from(f32::MAX).to_bits(),
        (DType::F64, DType::F64) => f64::MAX.to_bits(),
        _ => return Err(Error::invalid("dtype", format!("is {dtype:?}; weights are read as f16, bf16, f32 or f64"))),
    })
}

/// The index of the first number whose bits without the sign exceed `limit`, and how many such there are.
pub fn offenders(stored: DType, bytes: &[u8], limit: u64) -> Option<(usize, usize)> {
    match stored {
        DType::F32 => offenders_by(bytes, |b| u32::from_le_bytes(b) & 0x7fff_ffff > limit as u32),
        DType::F64 => offenders_by(bytes, |b| u64::from_le_bytes(b) & 0x7fff_ffff_ffff_ffff > limit),
        _ => offenders_by(bytes, |b| u16::from_le_bytes(b) & 0x7fff > limit as u16),
    }
}

fn offenders_by<const N: usize>(bytes: &[u8], exceeds: impl Fn([u8; N]) -> bool + Sync) -> Option<(usize, usize)> {
    let number = |b: &[u8]| b.try_into().map(&exceeds).unwrap_or(false);
    // Without a branch per number, so that the compiler uses vector instructions.
    let any = |bytes: &[u8]| bytes.chunks_exact(N).fold(false, |any, b| any | number(b));
    let found = if bytes.len() > SCAN { bytes.par_chunks(SCAN).any(any) } else { any(bytes) };
    if !found {
        return None;
    }
    let mut at = bytes.chunks_exact(N).enumerate().filter(|(_, b)| number(b)).map(|(i, _)| i);
    let first = at.next()?;
    Some((first, 1 + at.count()))
}

/// What weights are kept in on the CPU.
pub trait Number: WithDType + Zero {
    fn of(number: f32) -> Self;
    fn from_bytes(bytes: &[u8]) -> Self;
}

impl Number for f32 {
    fn of(number: f32) -> Self {
        number
    }
    fn from_bytes(bytes: &[u8]) -> Self {
        bytes.try_into().map(f32::from_le_bytes).unwrap_or_default()
    }
}

impl Number for bf16 {
    fn of(number: f32) -> Self {
        bf16::from_f32(number)
    }
    fn from_bytes(bytes: &[u8]) -> Self {
        bytes.try_into().map(bf16::from_le_bytes).unwrap_or_default()
    }
}

/// All numbers as `T` in their place; false if the bits of one, without the sign, exceed `limit`. Says which bytes were read, a
/// few at a time, so that a large tensor need not be there as it is in the file and converted, both as a whole.
pub fn convert<T: Number>(
    stored: DType,
    bytes: &[u8],
    limit: u64,
    all: &mut [T],
    was_read: impl Fn(Range<usize>) + Sync,
) -> bool {
    let size = stored.size_in_bytes();
    let pieces = all.par_chunks_mut(SCAN / size).zip(bytes.par_chunks(SCAN)).enumerate();
    pieces.all(|(number, (to, from))| {
        let sound = offenders(stored, from, limit).is_none();
        if sound {
            read(stored, from, to);
        }
        was_read(number * SCAN..number * SCAN + from.len());
        sound
    })
}

fn read<T: Number>(stored: DType, from: &[u8], to: &mut [T]) {
    fn each<T: Number, const N: usize>(from: &[u8], to: &mut [T], number: impl Fn([u8; N]) -> f32) {
        for (to, from) in to.iter_mut().zip(from.chunks_exact(N)) {
            *to = T::of(from.try_into().map(&number).unwrap_or_default());
        }
    }
    match stored {
        _ if stored == T::DTYPE => {
            for (to, from) in to.iter_mut().zip(from.chunks_exact(stored.size_in_bytes())) {
                *to = T::from_bytes(from);
            }
        }
        DType::F64 => each(from, to, |b| f64::from_le_bytes(b) as f32),
        DType::F32 => each(from, to, f32::from_le_bytes),
        DType::F16 => each(from, to, |b| f16::from_le_bytes(b).to_f32()),
        _ => each(from, to, |b| bf16::from_le_bytes(b).to_f32()),
    }
}
