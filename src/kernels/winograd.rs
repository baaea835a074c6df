//! Minimal filtering: tiles of a 3x3 convolution from fewer products (Winograd; Lavin and Gray, *Fast Algorithms for Convolutional
//! Neural Networks*, CVPR 2016).
//!
//! A tile's inputs d and the weights g are transformed along both sides, multiplied number by number, summed over the channels, and
//! transformed to the tile's outputs: `A^T ((B^T d B) * (G g G^T)) A`. A scheme says what these three matrices do to one side.

use super::lanes::Lanes;

/// # Safety
/// As of [`Lanes`].
#[allow(clippy::missing_safety_doc)]
pub(super) trait Scheme: Copy + Send + Sync {
    /// Pixels of the picture from one tile to the next.
    const STEP: usize;
    /// Pixels of the picture that a tile reads, from one before its first on.
    const REACH: usize;
    /// Products of a side.
    const SIDE: usize;
    /// Outputs of a side.
    const OUT: usize;
    /// `B^T d` of the first `REACH` vectors.
    unsafe fn inputs<L: Lanes>(d: [L; 6]) -> [L; 6];
    /// `G g`
    unsafe fn weights<L: Lanes>(g: [L; 3]) -> [L; 6];
    /// `A^T m` of the first `SIDE` vectors.
    unsafe fn outputs<L: Lanes>(m: [L; 6]) -> [L; 4];
}

/// F(4x4, 3x3): 36 products for 16 outputs, where the plain sum takes 144. The polynomials behind it are evaluated at 0, infinity and
/// the points ±1/√2, ±√2: with them the errors of rounding are a fifth of those with the usual ±1, ±2, and no larger than those of the
/// plain sum (128 channels of random numbers: 1.2e-6 of the largest output, against 6.0e-6 and 1.0e-6).
#[derive(Clone, Copy)]
pub(super) struct Four;

/// Points a = 1/√2 and b = √2.
const A: f32 = std::f32::consts::FRAC_1_SQRT_2;
const B: f32 = std::f32::consts::SQRT_2;

impl Scheme for Four {
    const STEP: usize = 4;
    const REACH: usize = 6;
    const SIDE: usize = 6;
    const OUT: usize = 4;

    #[inline(always)]
    unsafe fn inputs<L: Lanes>([d0, d1, d2, d3, d4, d5]: [L; 6]) -> [L; 6] {
        let (even_a, odd_a) = (d2.fma(L::splat(-2.0), d4), d1.fma(L::splat(-2.0), d3));
        let (even_b, odd_b) = (d2.fma(L::splat(-0.5), d4), d1.fma(L::splat(-0.5), d3));
        [
            d2.fma(L::splat(-2.5), d0.add(d4)),
            odd_a.fma(L::splat(A), even_a),
            odd_a.fma(L::splat(-A), even_a),
            odd_b.fma(L::splat(B), even_b),
            odd_b.fma(L::splat(-B), even_b),
            d3.fma(L::splat(-2.5), d1.add(d5)),
        ]
    }

    #[inline(always)]
    unsafe fn weights<L: Lanes>([g0, g1, g2]: [L; 3]) -> [L; 6] {
        let even_a = g0.mul(L::splat(-2.0 / 3.0)).add(g2.mul(L::splat(-1.0 / 3.0)));
        let even_b = g0.mul(L::splat(1.0 / 6.0)).add(g2.mul(L::splat(1.0 / 3.0)));
        let (odd_a, odd_b) = (g1.mul(L::splat(-2.0 / 3.0 * A)), g1.mul(L::splat(B / 6.0)));
        [g0, even_a.add(odd_a), even_a.sub(odd_a), even_b.add(odd_b), even_b.sub(odd_b), g2]
    }

    #[inline(always)]
    unsafe fn outputs<L: Lanes>([m0, m1, m2, m3, m4, m5]: [L; 6]) -> [L; 4] {
        let (even_a, odd_a) = (m1.add(m2), m1.sub(m2));
        let (even_b, odd_b) = (m3.add(m4), m3.sub(m4));
        [
            m0.add(even_a).add(even_b),
            odd_b.fma(L::splat(B), odd_a.mul(L::splat(A))),
            even_b.fma(L::splat(2.0), even_a.mul(L::splat(0.5))),
            odd_b.fma(L::splat(2.0 * B), odd_a.fma(L::splat(0.5 * A), m5)),
        ]
    }
}

/// F(2x2, 3x3) of a picture whose pixels count twice in each direction. A tile reads a, b, b, c, of which the points 0, 1, -1 and
/// infinity make a - b, 2 b, 0 and b - c: 9 products for 4 outputs.
#[derive(Clone, Copy)]
pub(super) struct Doubled;

impl Scheme for Doubled {
    const STEP: usize = 1;
    const REACH: usize = 3;
    const SIDE: usize = 3;
    const OUT: usize = 2;

    #[inline(always)]
    unsafe fn inputs<L: Lanes>([a, b, c, ..]: [L; 6]) -> [L; 6] {
        let zero = L::zero();
        [a.sub(b), b.add(b), b.sub(c), zero, zero, zero]
    }

    #[inline(always)]
    unsafe fn weights<L: Lanes>([g0, g1, g2]: [L; 3]) -> [L; 6] {
        let zero = L::zero();
        [g0, g0.add(g2).add(g1).mul(L::splat(0.5)), g2, zero, zero, zero]
    }

    #[inline(always)]
    unsafe fn outputs<L: Lanes>([m0, m1, m2, ..]: [L; 6]) -> [L; 4] {
        [m0.add(m1), m1.sub(m2), L::zero(), L::zero()]
    }
}
