//! Vectors of AVX-512, and of AVX2 with FMA.

use super::Lanes;
use std::arch::x86_64::*;

/// One register.
#[derive(Clone, Copy)]
pub struct Avx512(pub __m512);

impl Lanes for Avx512 {
    const TILE: (usize, usize) = (14, 2);

    #[inline(always)]
    unsafe fn prefetch(at: *const f32) {
        _mm_prefetch::<_MM_HINT_T0>(at.cast())
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Avx512(_mm512_set1_ps(value))
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Avx512(_mm512_loadu_ps(from))
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        _mm512_storeu_ps(to, self.0)
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self {
        from_bf16(_mm256_loadu_si256(from.cast()))
    }
    #[inline(always)]
    unsafe fn load_bf16_part(from: *const u16, n: usize) -> Self {
        // Not by way of a copy: a call would move the sums of a loop around it out of their registers.
        let mask = if n >= 16 { 0xffff } else { (1u32 << n) - 1 };
        from_bf16(_mm512_castsi512_si256(_mm512_maskz_loadu_epi16(mask, from.cast())))
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Self {
        Avx512(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()))))
    }
    #[inline(always)]
    unsafe fn load_nibbles(from: *const u8, upper: bool, scale: f32, minimum: f32) -> Self {
        // There are sixteen values they can have: a register's worth, from which lanes are picked by their lower four bits.
        let all = _mm512_set_ps(15., 14., 13., 12., 11., 10., 9., 8., 7., 6., 5., 4., 3., 2., 1., 0.);
        let values = _mm512_fmadd_ps(all, _mm512_set1_ps(scale), _mm512_set1_ps(minimum));
        let bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast()));
        let shift = _mm512_set1_epi32(if upper { 4 } else { 0 });
        Avx512(_mm512_permutexvar_ps(_mm512_srlv_epi32(bytes, shift), values))
    }
    #[inline(always)]
    unsafe fn load_part(from: *const f32, n: usize) -> Self {
        let mask = if n >= 16 { !0 } else { (1u16 << n) - 1 };
        Avx512(_mm512_maskz_loadu_ps(mask, from))
    }
    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, n: usize) {
        let mask = if n >= 16 { !0 } else { (1u16 << n) - 1 };
        _mm512_mask_storeu_ps(to, mask, self.0)
    }
    #[inline(always)]
    unsafe fn fma(self, by: Self, plus: Self) -> Self {
        Avx512(_mm512_fmadd_ps(self.0, by.0, plus.0))
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Avx512(_mm512_add_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        Avx512(_mm512_sub_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        Avx512(_mm512_mul_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        Avx512(_mm512_div_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        Avx512(_mm512_max_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        Avx512(_mm512_min_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        Avx512(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0))
    }
    #[inline(always)]
    unsafe fn floor(self) -> Self {
        Avx512(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC }>(self.0))
    }
    #[inline(always)]
    unsafe fn power_of_two(self) -> Self {
        let n = _mm512_add_epi32(_mm512_cvtps_epi32(self.0), _mm512_set1_epi32(127));
        Avx512(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(n)))
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let upper = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(self.0)));
        sum8(_mm256_add_ps(_mm512_castps512_ps256(self.0), upper))
    }
    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        _mm512_reduce_max_ps(self.0)
    }
    #[inline(always)]
    unsafe fn half(bits: u16) -> f32 {
        _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(bits))))
    }
    #[inline(always)]
    unsafe fn splat_half(bits: u16) -> Self {
        Avx512(_mm512_cvtph_ps(_mm256_set1_epi16(bits as i16)))
    }
    #[inline(always)]
    unsafe fn transpose(rows: &mut [Self; 16]) {
        // Pairs of 32 bits, then of 64, then of 128 and 256.
        let mut a = [_mm512_setzero_ps(); 16];
        for i in 0..8 {
            a[2 * i] = _mm512_unpacklo_ps(rows[2 * i].0, rows[2 * i + 1].0);
            a[2 * i + 1] = _mm512_unpackhi_ps(rows[2 * i].0, rows[2 * i + 1].0);
        }
        let mut b = [_mm512_setzero_ps(); 16];
        for i in 0..4 {
            let pd = |x: __m512| _mm512_castps_pd(x);
            let (p, q, r, s) = (pd(a[4 * i]), pd(a[4 * i + 1]), pd(a[4 * i + 2]), pd(a[4 * i + 3]));
            b[4 * i] = _mm512_castpd_ps(_mm512_unpacklo_pd(p, r));
            b[4 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(p, r));
            b[4 * i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(q, s));
            b[4 * i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(q, s));
        }
        // b[4 i + j] holds column 4 l + j of rows 4 i to 4 i + 3 in its 128-bit part l.
        for j in 0..4 {
            let (p, q, r, s) = (b[j], b[4 + j], b[8 + j], b[12 + j]);
            let even_low = _mm512_shuffle_f32x4::<0x88>(p, q); // parts 0, 2 of p, then of q
            let odd_low = _mm512_shuffle_f32x4::<0xdd>(p, q);
            let even_high = _mm512_shuffle_f32x4::<0x88>(r, s);
            let odd_high = _mm512_shuffle_f32x4::<0xdd>(r, s);
            rows[j] = Avx512(_mm512_shuffle_f32x4::<0x88>(even_low, even_high));
            rows[8 + j] = Avx512(_mm512_shuffle_f32x4::<0xdd>(even_low, even_high));
            rows[4 + j] = Avx512(_mm512_shuffle_f32x4::<0x88>(odd_low, odd_high));
            rows[12 + j] = Avx512(_mm512_shuffle_f32x4::<0xdd>(odd_low, odd_high));
        }
    }
    #[inline(always)]
    unsafe fn keep_above(self, of: Self, limit: f32) -> Self {
        let above = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(of.0, _mm512_set1_ps(limit));
        Avx512(_mm512_maskz_mov_ps(above, self.0))
    }
    #[inline(always)]
    unsafe fn pick(self, other: Self, of: Self, limit: f32) -> Self {
        let above = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(of.0, _mm512_set1_ps(limit));
        Avx512(_mm512_mask_blend_ps(above, other.0, self.0))
    }
}

#[inline(always)]
unsafe fn from_bf16(numbers: __m256i) -> Avx512 {
    Avx512(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(numbers))))
}

#[inline(always)]
unsafe fn sum8(x: __m256) -> f32 {
    let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps::<1>(x, x)))
}

/// Two registers.
#[derive(Clone, Copy)]
pub struct Avx2(__m256, __m256);

impl Avx2 {
    #[inline(always)]
    unsafe fn zip(self, other: Self, f: impl Fn(__m256, __m256) -> __m256) -> Self {
        Avx2(f(self.0, other.0), f(self.1, other.1))
    }
}

impl Lanes for Avx2 {
    const TILE: (usize, usize) = (6, 1);
    const COLUMNS: usize = 2;

    #[inline(always)]
    unsafe fn prefetch(at: *const f32) {
        _mm_prefetch::<_MM_HINT_T0>(at.cast())
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Avx2(_mm256_set1_ps(value), _mm256_set1_ps(value))
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Avx2(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8)))
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        _mm256_storeu_ps(to, self.0);
        _mm256_storeu_ps(to.add(8), self.1)
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self {
        let half = |from: *const u16| {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        };
        Avx2(half(from), half(from.add(8)))
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Self {
        let half = |from: *const i8| _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast())));
        Avx2(half(from), half(from.add(8)))
    }
    #[inline(always)]
    unsafe fn load_nibbles(from: *const u8, upper: bool, scale: f32, minimum: f32) -> Self {
        let half = |from: *const u8| {
            let bytes = _mm_loadl_epi64(from.cast());
            let bytes = if upper { _mm_srli_epi16::<4>(bytes) } else { bytes };
            _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_and_si128(bytes, _mm_set1_epi8(15))))
        };
        Avx2(half(from), half(from.add(8))).fma(Self::splat(scale), Self::splat(minimum))
    }
    #[inline(always)]
    unsafe fn fma(self, by: Self, plus: Self) -> Self {
        Avx2(_mm256_fmadd_ps(self.0, by.0, plus.0), _mm256_fmadd_ps(self.1, by.1, plus.1))
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| _mm256_add_ps(a, b))
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| _mm256_sub_ps(a, b))
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| _mm256_mul_ps(a, b))
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| _mm256_div_ps(a, b))
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| _mm256_max_ps(a, b))
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| _mm256_min_ps(a, b))
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        Avx2(_mm256_round_ps::<NEAREST>(self.0), _mm256_round_ps::<NEAREST>(self.1))
    }
    #[inline(always)]
    unsafe fn floor(self) -> Self {
        Avx2(_mm256_floor_ps(self.0), _mm256_floor_ps(self.1))
    }
    #[inline(always)]
    unsafe fn power_of_two(self) -> Self {
        let half = |x: __m256| {
            let n = _mm256_add_epi32(_mm256_cvtps_epi32(x), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(n))
        };
        Avx2(half(self.0), half(self.1))
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        sum8(_mm256_add_ps(self.0, self.1))
    }
    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        let mut lanes = [0f32; 8];
        _mm256_storeu_ps(lanes.as_mut_ptr(), _mm256_max_ps(self.0, self.1));
        lanes.into_iter().fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a })
    }
    #[inline(always)]
    unsafe fn half(bits: u16) -> f32 {
        half::f16::from_bits(bits).to_f32()
    }
    #[inline(always)]
    unsafe fn transpose(rows: &mut [Self; 16]) {
        let mut from = [0f32; 256];
        let mut to = [0f32; 256];
        for (i, row) in rows.iter().enumerate() {
            row.store(from.as_mut_ptr().add(16 * i));
        }
        for i in 0..16 {
            for j in 0..16 {
                to[16 * i + j] = from[16 * j + i];
            }
        }
        for (i, row) in rows.iter_mut().enumerate() {
            *row = Self::load(to.as_ptr().add(16 * i));
        }
    }
    #[inline(always)]
    unsafe fn keep_above(self, of: Self, limit: f32) -> Self {
        let limit = _mm256_set1_ps(limit);
        self.zip(of, |a, b| _mm256_and_ps(a, _mm256_cmp_ps::<_CMP_GT_OQ>(b, limit)))
    }
    #[inline(always)]
    unsafe fn pick(self, other: Self, of: Self, limit: f32) -> Self {
        let limit = _mm256_set1_ps(limit);
        let above = (_mm256_cmp_ps::<_CMP_GT_OQ>(of.0, limit), _mm256_cmp_ps::<_CMP_GT_OQ>(of.1, limit));
        Avx2(_mm256_blendv_ps(other.0, self.0, above.0), _mm256_blendv_ps(other.1, self.1, above.1))
    }
}
