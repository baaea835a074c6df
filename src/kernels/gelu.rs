//! The activation x Φ(x) in its tanh form (Hendrycks and Gimpel, arXiv 1606.08415): 0.5 x (1 + tanh u) = x sigmoid(2 u) with
//! u = sqrt(2 / pi) (x + 0.044715 x^3).

use super::lanes::Lanes;
use super::matrix::F32;
use super::{level, parallel, vectorised, Out};

/// Numbers that a task takes.
const CHUNK: usize = 1 << 14;
/// 2 sqrt(2 / pi)
const A: f32 = 1.595_769;
const B: f32 = 0.044_715;

/// `y = gelu(x)`, or `gelu(x) * up`.
pub fn gelu_tanh(x: &[f32], up: Option<&[f32]>, y: &mut [f32]) {
    assert!(x.len() == y.len() && up.is_none_or(|up| up.len() == x.len()), "sizes");
    let (n, x, up, y) = (x.len(), F32(x.as_ptr()), up.map(|up| F32(up.as_ptr())), Out::new(y));
    // SAFETY: the pieces lie within all of them and do not overlap.
    pieces(n, |at, n| unsafe { piece(level(), x, up, y, at, n) });
}

/// Calls `part(begin, length)` for pieces of `n` numbers.
fn pieces(n: usize, part: impl Fn(usize, usize) + Sync) {
    parallel(n.div_ceil(CHUNK), 16 * n, |task| part(task * CHUNK, CHUNK.min(n - task * CHUNK)));
}

vectorised! { unsafe fn piece(x: F32, up: Option<F32>, y: Out, at: usize, n: usize) = piece_any }

#[inline(always)]
unsafe fn piece_any<L: Lanes>(x: F32, up: Option<F32>, y: Out, at: usize, n: usize) {
    let (from, y) = (x.0.add(at), y.at(at));
    for i in (0..n).step_by(16) {
        let x = L::load_part(from.add(i), n - i);
        let value = x.mul(share(x));
        let value = match up {
            Some(up) => value.mul(L::load_part(up.0.add(at + i), n - i)),
            None => value,
        };
        value.store_part(y.add(i), n - i);
    }
}

/// sigmoid(2 u)
#[inline(always)]
unsafe fn share<L: Lanes>(x: L) -> L {
    let one = L::splat(1.0);
    let v = x.mul(L::splat(A)).mul(x.mul(x).fma(L::splat(B), one));
    one.div(one.add(L::zero().sub(v).exp()))
}

/// In place of `x` its gradient, for the gradient `g` of `gelu(x)`.
pub fn gelu_tanh_backward(g: &[f32], x: &mut [f32]) {
    assert_eq!(g.len(), x.len(), "sizes");
    let (n, g, x) = (g.len(), F32(g.as_ptr()), Out::new(x));
    // SAFETY: the pieces lie within both and do not overlap.
    pieces(n, |at, n| unsafe { backward_piece(level(), g, x, at, n) });
}

vectorised! { unsafe fn backward_piece(g: F32, x: Out, at: usize, n: usize) = backward_piece_any }

#[inline(always)]
unsafe fn backward_piece_any<L: Lanes>(g: F32, x: Out, at: usize, n: usize) {
    let (g, place) = (g.0.add(at), x.at(at));
    let one = L::splat(1.0);
    for i in (0..n).step_by(16) {
        let x = L::load_part(place.add(i), n - i);
        let s = share(x);
        // (x s)' = s + x s (1 - s) v', v' = A (1 + 3 B x^2)
        let slope = x.mul(x).fma(L::splat(3.0 * B), one).mul(L::splat(A));
        let slope = x.mul(s).mul(one.sub(s)).fma(slope, s);
        L::load_part(g.add(i), n - i).mul(slope).store_part(place.add(i), n - i);
    }
}
