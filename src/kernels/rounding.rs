//! Numbers rounded to bf16, and back: what waits for a later piece of work takes half the memory so.

use super::activation::fill;
use super::lanes::Lanes;
use super::{level, vectorised};
use half::bf16;

/// Each number as the nearest bf16, of two equally near ones the even one: the same with any vectors.
pub fn to_bf16(x: &[f32], y: &mut [bf16]) {
    assert_eq!(x.len(), y.len(), "sizes");
    fill(y, |at, y| {
        let x = &x[at..at + y.len()];
        // SAFETY: both pieces are as long as `y`, which no other task writes.
        unsafe { round_piece(level(), x.as_ptr(), y.as_mut_ptr().cast(), y.len()) }
    });
}

vectorised! { unsafe fn round_piece(x: *const f32, y: *mut u16, n: usize) = round_any }

#[inline(always)]
unsafe fn round_any<L: Lanes>(x: *const f32, y: *mut u16, n: usize) {
    for i in (0..n).step_by(16) {
        L::load_part(x.add(i), n - i).store_bf16_part(y.add(i), n - i);
    }
}

pub fn from_bf16(x: &[bf16], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "sizes");
    fill(y, |at, y| {
        let x = &x[at..at + y.len()];
        // SAFETY: both pieces are as long as `y`, which no other task writes.
        unsafe { widen_piece(level(), x.as_ptr().cast(), y.as_mut_ptr(), y.len()) }
    });
}

vectorised! { unsafe fn widen_piece(x: *const u16, y: *mut f32, n: usize) = widen_any }

#[inline(always)]
unsafe fn widen_any<L: Lanes>(x: *const u16, y: *mut f32, n: usize) {
    for i in (0..n).step_by(16) {
        L::load_bf16_part(x.add(i), n - i).store_part(y.add(i), n - i);
    }
}
