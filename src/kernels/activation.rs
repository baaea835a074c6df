//! Element by element: residual sums, the gated activation of the MLP, and its backward pass.

use super::lanes::Lanes;
use super::matrix::F32;
use super::{level, parallel, vectorised, Out};

/// Numbers that a task takes.
const CHUNK: usize = 1 << 14;

/// Calls `part(begin, length)` for pieces of `n` numbers.
fn pieces(n: usize, part: impl Fn(usize, usize) + Sync) {
    parallel(n.div_ceil(CHUNK), 4 * n, |task| part(task * CHUNK, CHUNK.min(n - task * CHUNK)));
}

/// For what has no kernel of its own: `part(at, piece)` writes the numbers of `y` from `at` on.
pub fn fill<T: Copy + Send>(y: &mut [T], part: impl Fn(usize, &mut [T]) + Sync) {
    let (n, y) = (y.len(), Out::new(y));
    // SAFETY: the pieces lie within y and do not overlap.
    pieces(n, |at, n| part(at, unsafe { std::slice::from_raw_parts_mut(y.at(at), n) }));
}

/// `a += b`
pub fn add(a: &mut [f32], b: &[f32]) {
    assert_eq!(a.len(), b.len(), "sizes");
    let (n, a, b) = (a.len(), Out::new(a), F32(b.as_ptr()));
    // SAFETY: the pieces lie within a and b and do not overlap.
    pieces(n, |at, n| unsafe { add_piece(level(), a, b, at, n) });
}

vectorised! { unsafe fn add_piece(a: Out, b: F32, at: usize, n: usize) = add_any }

#[inline(always)]
unsafe fn add_any<L: Lanes>(a: Out, b: F32, at: usize, n: usize) {
    let (a, b) = (a.at(at), b.0.add(at));
    for i in (0..n).step_by(16) {
        L::load_part(a.add(i), n - i).add(L::load_part(b.add(i), n - i)).store_part(a.add(i), n - i);
    }
}

/// `y = silu(gate) * up`, silu(x) = x / (1 + e^-x)
pub fn silu_mul(gate: &[f32], up: &[f32], y: &mut [f32]) {
    assert!(gate.len() == up.len() && gate.len() == y.len(), "sizes");
    let (n, y, gate, up) = (y.len(), Out::new(y), F32(gate.as_ptr()), F32(up.as_ptr()));
    // SAFETY: the pieces lie within all three and do not overlap.
    pieces(n, |at, n| unsafe { silu_mul_piece(level(), gate, up, y, at, n) });
}

vectorised! { unsafe fn silu_mul_piece(gate: F32, up: F32, y: Out, at: usize, n: usize) = silu_mul_any }

#[inline(always)]
unsafe fn silu_mul_any<L: Lanes>(gate: F32, up: F32, y: Out, at: usize, n: usize) {
    let (gate, up, y) = (gate.0.add(at), up.0.add(at), y.at(at));
    for i in (0..n).step_by(16) {
        let x = L::load_part(gate.add(i), n - i);
        x.mul(sigmoid(x)).mul(L::load_part(up.add(i), n - i)).store_part(y.add(i), n - i);
    }
}

#[inline(always)]
unsafe fn sigmoid<L: Lanes>(x: L) -> L {
    let one = L::splat(1.0);
    one.div(one.add(L::zero().sub(x).exp()))
}

/// In place of `gate` and `up` their gradients, for the gradient `g` of [`silu_mul`].
pub fn silu_mul_backward(g: &[f32], gate: &mut [f32], up: &mut [f32]) {
    assert!(gate.len() == up.len() && gate.len() == g.len(), "sizes");
    let (n, g, gate, up) = (g.len(), F32(g.as_ptr()), Out::new(gate), Out::new(up));
    // SAFETY: the pieces lie within all three and do not overlap.
    pieces(n, |at, n| unsafe { silu_mul_backward_piece(level(), g, gate, up, at, n) });
}

vectorised! { unsafe fn silu_mul_backward_piece(g: F32, gate: Out, up: Out, at: usize, n: usize) = silu_mul_backward_any }

#[inline(always)]
unsafe fn silu_mul_backward_any<L: Lanes>(g: F32, gate: Out, up: Out, at: usize, n: usize) {
    let (g, gate, up) = (g.0.add(at), gate.at(at), up.at(at));
    let one = L::splat(1.0);
    for i in (0..n).step_by(16) {
        let (g, x, u) =
            (L::load_part(g.add(i), n - i), L::load_part(gate.add(i), n - i), L::load_part(up.add(i), n - i));
        let s = sigmoid(x);
        // silu' = s (1 + x (1 - s))
        let slope = s.mul(x.fma(one.sub(s), one));
        g.mul(u).mul(slope).store_part(gate.add(i), n - i);
        g.mul(x.mul(s)).store_part(up.add(i), n - i);
    }
}
