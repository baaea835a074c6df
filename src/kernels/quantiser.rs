//! Numbers to q8_0 and q4_k blocks, with the bits of candle's quantiser, which is that of llama.cpp's first k-quants.
//!
//! The scale and the minimum of each 32 numbers of a q4_k block are searched for in up to five rounds over them, in which every sum
//! is a chain of additions. Here sixteen such parts go through the search side by side, one in each lane: each of them is
//! added up in the order in which one alone would be, so the bits stay.

use super::lanes::Lanes;
use super::matrix::{Bf16, Matrix, Source, F32, Q4K_BYTES, Q8_0_BYTES};
use super::{level, vectorised};
use half::f16;

/// Makes q8_0 blocks of the numbers of `x` from block `first` on, as many as fit `to`. Returns which of those blocks, from 0, are
/// not made: all of them, if a number is not finite.
///
/// # Panics
/// If `x` is quantised or too short, or `to` is not for whole blocks.
pub fn q8_0(x: Matrix, first: usize, to: &mut [u8]) -> Vec<usize> {
    let blocks = count(x, 32 * first, 32, to.len(), Q8_0_BYTES);
    // SAFETY: `x` holds the numbers of these blocks, and `to` has room for them.
    let finite = unsafe {
        match x {
            Matrix::F32(x) => q8_0_f32(level(), F32(x.as_ptr()), first, blocks, to.as_mut_ptr()),
            Matrix::Bf16(x) => q8_0_bf16(level(), Bf16(x.as_ptr().cast()), first, blocks, to.as_mut_ptr()),
            _ => false,
        }
    };
    if finite {
        vec![]
    } else {
        (0..blocks).collect()
    }
}

/// As [`q8_0`] for q4_k. Blocks without a negative number are not made either: whether their minimum is 0 or -0 depends on how
/// candle was compiled.
///
/// # Panics
/// As [`q8_0`].
pub fn q4_k(x: Matrix, first: usize, to: &mut [u8]) -> Vec<usize> {
    let blocks = count(x, 256 * first, 256, to.len(), Q4K_BYTES);
    let mut others = vec![];
    // SAFETY: `x` holds the numbers of these blocks, and `to` has room for them.
    unsafe {
        match x {
            Matrix::F32(x) => q4_k_f32(level(), F32(x.as_ptr()), first, blocks, to.as_mut_ptr(), &mut others),
            Matrix::Bf16(x) => q4_k_bf16(level(), Bf16(x.as_ptr().cast()), first, blocks, to.as_mut_ptr(), &mut others),
            _ => {}
        }
    }
    others
}

/// How many blocks of `size` numbers fit `room` bytes.
fn count(x: Matrix, start: usize, size: usize, room: usize, bytes: usize) -> usize {
    assert!(matches!(x, Matrix::F32(_) | Matrix::Bf16(_)), "plain numbers are quantised");
    assert!(room.is_multiple_of(bytes) && x.len() >= start + room / bytes * size, "sizes");
    room / bytes
}

vectorised! { unsafe fn q8_0_f32(x: F32, first: usize, blocks: usize, to: *mut u8) -> bool = q8_0_any<F32> }
vectorised! { unsafe fn q8_0_bf16(x: Bf16, first: usize, blocks: usize, to: *mut u8) -> bool = q8_0_any<Bf16> }
vectorised! {
    unsafe fn q4_k_f32(x: F32, first: usize, blocks: usize, to: *mut u8, others: &mut Vec<usize>) = q4_k_any<F32>
}
vectorised! {
    unsafe fn q4_k_bf16(x: Bf16, first: usize, blocks: usize, to: *mut u8, others: &mut Vec<usize>) = q4_k_any<Bf16>
}

/// To the nearest whole number from 0 to `most`, at ties the larger; 0 for what is no number.
#[inline(always)]
unsafe fn nearest<L: Lanes>(x: L, most: f32) -> L {
    // The number before a half: with a half itself, the number before it would be rounded up.
    let half = L::splat(0.499_999_97);
    x.max(L::zero()).min(L::splat(most)).add(half).floor()
}

/// Whether all numbers were finite.
#[inline(always)]
unsafe fn q8_0_any<L: Lanes, B: Source>(x: B, first: usize, blocks: usize, to: *mut u8) -> bool {
    let mut zeros = L::zero();
    for block in 0..blocks {
        let [low, high] = x.read_at::<L>(32 * (first + block), 32);
        zeros = low.fma(L::zero(), high.fma(L::zero(), zeros));
        let (minus_low, minus_high) = (L::zero().sub(low), L::zero().sub(high));
        let most = low.max(minus_low).max(high.max(minus_high)).largest();
        let scale = most / 127.0;
        let inverse = L::splat(if scale != 0.0 { 1.0 / scale } else { 0.0 });
        let mut levels = [0f32; 32];
        for (i, (x, minus)) in [(low, minus_low), (high, minus_high)].into_iter().enumerate() {
            // Halves are rounded away from zero.
            let level = nearest(x.mul(inverse), 127.0).sub(nearest(minus.mul(inverse), 128.0));
            level.store(levels.as_mut_ptr().add(16 * i));
        }
        let to = to.add(block * Q8_0_BYTES);
        to.cast::<[u8; 2]>().write_unaligned(f16::from_f32(scale).to_le_bytes());
        for (i, level) in levels.iter().enumerate() {
            // From -128 to 127.
            *to.add(2 + i) = level.to_int_unchecked::<i32>() as u8;
        }
    }
    zeros.sum() == 0.0
}

#[inline(always)]
unsafe fn q4_k_any<L: Lanes, B: Source>(x: B, first: usize, blocks: usize, to: *mut u8, others: &mut Vec<usize>) {
    for pair in (0..blocks).step_by(2) {
        // Lane p of vector i is number i of part p. Behind the last block, it is there twice.
        let mut numbers = [L::zero(); 32];
        let (low, high) = numbers.split_at_mut(16);
        for part in 0..16 {
            let block = first + (pair + part / 8).min(blocks - 1);
            let [a, b] = x.read_at::<L>(256 * block + part % 8 * 32, 32);
            low[part] = a;
            high[part] = b;
        }
        for half in [low, high] {
            let half: &mut [L; 16] = &mut *half.as_mut_ptr().cast();
            L::transpose(half);
        }
        let mut zeros = L::zero();
        for x in &numbers {
            zeros = x.fma(L::zero(), zeros);
        }
        let finite = zeros.sum() == 0.0;
        let (scale, minimum) = search(&numbers);
        let (mut scales, mut minima) = ([0f32; 16], [0f32; 16]);
        scale.store(scales.as_mut_ptr());
        minimum.store(minima.as_mut_ptr());
        for block in pair..blocks.min(pair + 2) {
            let parts = 8 * (block - pair);
            let (scales, minima) = (scales.as_ptr().add(parts).cast(), minima.as_ptr().add(parts).cast());
            let to = to.add(block * Q4K_BYTES);
            if !finite || !pack::<L, B>(x, 256 * (first + block), &*scales, &*minima, to) {
                others.push(block);
            }
        }
    }
}

/// The scale and the minimum of 32 numbers in each lane such that `scale level - minimum`, for levels from 0 to 15, is near them.
/// Both are 0 where all numbers are the same.
#[inline(always)]
unsafe fn search<L: Lanes>(x: &[L; 32]) -> (L, L) {
    const ROUNDS: usize = 5;
    let (zero, one) = (L::zero(), L::splat(1.0));
    let (mut min, mut max) = (x[0], x[0]);
    for &x in &x[1..] {
        min = min.min(x);
        max = max.max(x);
    }
    let differ = max.sub(min);
    min = min.min(zero);
    let mut inverse = L::splat(15.0).div(max.sub(min));
    let mut scale = one.div(inverse);
    let mut levels = [zero; 32];
    // 1 in lanes that are not at their end: the round before changed a level.
    let mut active = one;
    for _ in 0..ROUNDS {
        let (mut products, mut squares, mut changes) = (zero, zero, zero);
        for i in 0..32 {
            let above = x[i].sub(min);
            let level = nearest(inverse.mul(above), 15.0);
            // Whole numbers, and so exact; not the products.
            let change = level.sub(levels[i]);
            changes = change.fma(change, changes);
            squares = level.fma(level, squares);
            products = products.add(above.mul(level));
            levels[i] = level;
        }
        let fitting = products.div(squares);
        let mut sum = zero;
        for i in 0..32 {
            sum = sum.add(x[i].sub(fitting.mul(levels[i])));
        }
        let mean = sum.mul(L::splat(1.0 / 32.0));
        scale = fitting.pick(scale, active, 0.5);
        min = zero.pick(mean, mean, 0.0).pick(min, active, 0.5);
        inverse = one.div(fitting).pick(inverse, active, 0.5);
        active = active.keep_above(changes, 0.0);
        if active.largest() == 0.0 {
            break;
        }
    }
    (scale.keep_above(differ, 0.0), zero.sub(min).keep_above(differ, 0.0))
}

/// Writes the block of 256 numbers from `at` on, unless its minimum is 0.
#[inline(always)]
unsafe fn pack<L: Lanes, B: Source>(x: B, at: usize, scales: &[f32; 8], minima: &[f32; 8], to: *mut u8) -> bool {
    let (mut scale, mut minimum) = (0f32, 0f32);
    for part in 0..8 {
        scale = scales[part].max(scale);
        minimum = minima[part].max(minimum);
    }
    if minimum <= 0.0 {
        return false;
    }
    let to_six = [if scale > 0.0 { 63.0 / scale } else { 0.0 }, 63.0 / minimum];
    let halves = [f16::from_f32(scale / 63.0), f16::from_f32(minimum / 63.0)];
    let [scale, minimum] = [L::half(halves[0].to_bits()), L::half(halves[1].to_bits())];
    to.cast::<[[u8; 2]; 2]>().write_unaligned([halves[0].to_le_bytes(), halves[1].to_le_bytes()]);
    // Six bits each: those of the first four parts have a byte, those of the others half of one and the rest of those bytes.
    let mut six = [0u8; 12];
    let mut levels = [L::zero(); 4];
    for part in 0..8 {
        let s = ((to_six[0] * scales[part]).round() as i32).min(63) as u8;
        let m = ((to_six[1] * minima[part]).round() as i32).min(63) as u8;
        if part < 4 {
            six[part] = s;
            six[part + 4] = m;
        } else {
            six[part + 4] = (s & 15) | (m & 15) << 4;
            six[part - 4] |= s >> 4 << 6;
            six[part] |= m >> 4 << 6;
        }
        let (scale, minimum) = (scale * f32::from(s), L::splat(minimum * f32::from(m)));
        let numbers = x.read_at::<L>(at + 32 * part, 32);
        for i in 0..2 {
            levels[part % 2 * 2 + i] = match scale != 0.0 {
                true => nearest(numbers[i].add(minimum).div(L::splat(scale)), 15.0),
                false => L::zero(),
            };
        }
        if part % 2 == 1 {
            let mut bytes = [0f32; 32];
            for i in 0..2 {
                levels[2 + i].fma(L::splat(16.0), levels[i]).store(bytes.as_mut_ptr().add(16 * i));
            }
            let to = to.add(16 + part / 2 * 32);
            for (i, byte) in bytes.iter().enumerate() {
                // From 0 to 255.
                *to.add(i) = byte.to_int_unchecked::<i32>() as u8;
            }
        }
    }
    to.add(4).cast::<[u8; 12]>().write_unaligned(six);
    true
}
