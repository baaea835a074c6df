//! Attention, and its backward pass from the log-normalisers that the forward pass leaves (after Dao et al., arXiv
//! 2205.14135): scores of a block of queries are held at a time, never all.

use super::buffer::Scratch;
use super::gemm::{gemm_here, Left};
use super::lanes::Lanes;
use super::matrix::{Bf16, Matrix, Source, F32};
use super::softmax::{softmax_here, softmax_row};
use super::{level, parallel, vectorised, Out};

/// Queries whose scores are held at a time.
const BLOCK: usize = 112;

/// Sizes and memory order of queries, keys and values.
///
/// Queries and the result are [batch, tokens, heads, d], dense. Keys and values are [batch, kv_heads, slots, d] with strides
/// between batch rows, heads and slots; `heads / kv_heads` consecutive heads share one.
#[derive(Clone, Copy)]
pub struct Attention<'a> {
    pub batch: usize,
    pub tokens: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub d: usize,
    /// Slots that hold keys; spans end there at the latest.
    pub slots: usize,
    /// Batch row, head, slot, in numbers.
    pub strides: [usize; 3],
    /// What each token sees, from slot to before slot: [batch or 1, tokens]. Not empty.
    pub spans: &'a [(u32, u32)],
}

impl Attention<'_> {
    fn check(&self, q: &[f32], keys: Matrix, o: &[f32]) {
        let n = self.batch * self.tokens * self.heads * self.d;
        assert!(q.len() == n && o.len() == n && self.heads.is_multiple_of(self.kv_heads), "sizes");
        assert!(self.spans.len() == self.tokens || self.spans.len() == self.batch * self.tokens, "sizes");
        let last = (self.batch - 1) * self.strides[0]
            + (self.kv_heads - 1) * self.strides[1]
            + (self.slots - 1) * self.strides[2]
            + self.d;
        assert!(keys.len() >= last, "too few keys or values");
        assert!(self.spans.iter().all(|&(from, to)| from < to && to as usize <= self.slots), "spans");
    }

    fn span(&self, row: usize, token: usize) -> (usize, usize) {
        let at = if self.spans.len() == self.tokens { token } else { row * self.tokens + token };
        (self.spans[at].0 as usize, self.spans[at].1 as usize)
    }

    fn scale(&self) -> f32 {
        (self.d as f32).powf(-0.5)
    }

    /// First number of the keys of a batch row's head.
    fn keys_at(&self, row: usize, head: usize) -> usize {
        row * self.strides[0] + head / (self.heads / self.kv_heads) * self.strides[1]
    }

    /// Many queries: products of matrices. Leaves log-normalisers [batch, heads, tokens] if `normalisers` is not empty.
    pub fn forward(&self, q: &[f32], k: Matrix, v: Matrix, o: &mut [f32], normalisers: &mut [f32]) {
        self.check(q, k, o);
        self.check(q, v, o);
        let Attention { batch, tokens, heads, d, .. } = *self;
        assert!(normalisers.is_empty() || normalisers.len() == batch * heads * tokens, "sizes");
        let blocks = tokens.div_ceil(BLOCK);
        let keep = !normalisers.is_empty();
        let (out, norms) = (Out::new(o), Out::new(normalisers));
        parallel(batch * heads * blocks, 2 * batch * heads * tokens * self.slots * d, |task| {
            let (row, head, block) = (task / blocks / heads, task / blocks % heads, task % blocks);
            let first = block * BLOCK;
            let count = BLOCK.min(tokens - first);
            let at = ((row * tokens + first) * heads + head) * d;
            let (from, to) = self.reach(row, first, count);
            let base = self.keys_at(row, head) + from * self.strides[2];
            let width = to - from;
            let mut scores = Scratch::of(count * width);
            // SAFETY: `scores` holds `count` rows of `width`.
            unsafe {
                gemm_here(
                    (count, width, d),
                    Left { data: &q[at..], row: heads * d, column: 1 },
                    (k.from(base), self.strides[2], true),
                    (Out::new(&mut scores), width),
                    false,
                )
            };
            for i in 0..count {
                let (begin, end) = self.span(row, first + i);
                let scores = &mut scores[i * width..(i + 1) * width];
                scores[..begin - from].fill(0.0);
                scores[end - from..].fill(0.0);
                let part = &mut scores[begin - from..end - from];
                // SAFETY: `part` is read and written in its length.
                let normaliser = unsafe { softmax_row(level(), Out::new(part), part.len(), self.scale()) };
                if keep {
                    // SAFETY: this token's place; no other task writes it.
                    unsafe { *norms.at((row * heads + head) * tokens + first + i) = normaliser };
                }
            }
            let left = Left { data: &scores, row: width, column: 1 };
            // SAFETY: the d numbers of this head in rows `first..first + count`, which are this task's alone.
            unsafe {
                let to = (out.from(at), heads * d);
                gemm_here((count, d, width), left, (v.from(base), self.strides[2], false), to, false)
            }
        });
    }

    /// Slots that any of some tokens sees.
    fn reach(&self, row: usize, first: usize, count: usize) -> (usize, usize) {
        (first..first + count).map(|t| self.span(row, t)).fold((usize::MAX, 0), |r, s| (r.0.min(s.0), r.1.max(s.1)))
    }

    /// Few queries against many keys, one query at a time: what a query gets does not depend on the others, to the bit.
    pub fn rows(&self, q: &[f32], k: Matrix, v: Matrix, o: &mut [f32]) {
        self.check(q, k, o);
        self.check(q, v, o);
        let alike = matches!((k, v), (Matrix::F32(_), Matrix::F32(_)) | (Matrix::Bf16(_), Matrix::Bf16(_)));
        assert!(alike, "keys and values are both f32 or both bf16");
        let Attention { batch, tokens, heads, d, .. } = *self;
        let out = Out::new(o);
        parallel(batch * heads, 2 * batch * heads * tokens * self.slots * d, |task| {
            let (row, head) = (task / heads, task % heads);
            let base = self.keys_at(row, head);
            let mut scores = Scratch::of(self.slots.next_multiple_of(16));
            for token in 0..tokens {
                let (begin, end) = self.span(row, token);
                let at = ((row * tokens + token) * heads + head) * d;
                let keys = base + begin * self.strides[2];
                let q = F32(q[at..at + d].as_ptr());
                let sizes = (d, end - begin, self.strides[2]);
                let scores = Out::new(&mut scores);
                // SAFETY: the spans lie within keys and values (checked above), `scores` has a place for each slot, and the
                // d numbers of this head of this token are written by this task only.
                unsafe {
                    let o = out.from(at);
                    match (k.from(keys), v.from(keys)) {
                        (Matrix::F32(k), Matrix::F32(v)) => {
                            query_f32(level(), (q, F32(k.as_ptr()), F32(v.as_ptr())), scores, o, sizes, self.scale())
                        }
                        (Matrix::Bf16(k), Matrix::Bf16(v)) => {
                            let (k, v) = (Bf16(k.as_ptr().cast()), Bf16(v.as_ptr().cast()));
                            query_bf16(level(), (q, k, v), scores, o, sizes, self.scale())
                        }
                        _ => unreachable!("checked above"),
                    }
                }
            }
        });
    }

    /// Gradients of queries, keys and values for the gradient `g` of the result `o`. Keys, values and their gradients must
    /// lie alike; what is there of `dk` and `dv` is added to.
    #[allow(clippy::too_many_arguments)]
    pub fn backward(
        &self,
        g: &[f32],
        (q, k, v): (&[f32], &[f32], &[f32]),
        o: &[f32],
        normalisers: &[f32],
        dq: &mut [f32],
        dk: &mut [f32],
        dv: &mut [f32],
    ) {
        self.check(q, Matrix::F32(k), o);
        self.check(g, Matrix::F32(v), dq);
        let Attention { batch, tokens, heads, kv_heads, d, .. } = *self;
        assert!(dk.len() == k.len() && dv.len() == v.len() && k.len() == v.len(), "sizes");
        assert_eq!(normalisers.len(), batch * heads * tokens, "sizes");
        let share = heads / kv_heads;
        let (dq, dk, dv) = (Out::new(dq), Out::new(dk), Out::new(dv));
        let pitch = self.strides[2];
        parallel(batch * kv_heads, 5 * batch * heads * tokens * self.slots * d, |task| {
            let (row, kv) = (task / kv_heads, task % kv_heads);
            let (mut p, mut ds) = (Vec::new(), Vec::new());
            for head in kv * share..(kv + 1) * share {
                for first in (0..tokens).step_by(BLOCK) {
                    let count = BLOCK.min(tokens - first);
                    let at = ((row * tokens + first) * heads + head) * d;
                    let (from, to) = self.reach(row, first, count);
                    let width = to - from;
                    let base = self.keys_at(row, head) + from * pitch;
                    p.resize(count * width, 0f32);
                    ds.resize(count * width, 0f32);
                    let rows = |data| Left { data, row: heads * d, column: 1 };
                    let (keys, values) = (Matrix::F32(&k[base..]), Matrix::F32(&v[base..]));
                    // SAFETY: p and ds hold `count` rows of `width`.
                    unsafe {
                        let sizes = (count, width, d);
                        gemm_here(sizes, rows(&q[at..]), (keys, pitch, true), (Out::new(&mut p), width), false);
                        gemm_here(sizes, rows(&g[at..]), (values, pitch, true), (Out::new(&mut ds), width), false);
                    }
                    for i in 0..count {
                        let (begin, end) = self.span(row, first + i);
                        let (p, ds) = (&mut p[i * width..(i + 1) * width], &mut ds[i * width..(i + 1) * width]);
                        for x in [&mut *p, &mut *ds] {
                            x[..begin - from].fill(0.0);
                            x[end - from..].fill(0.0);
                        }
                        let here = at + i * heads * d;
                        let parts = (F32(g[here..here + d].as_ptr()), F32(o[here..here + d].as_ptr()));
                        let normaliser = normalisers[(row * heads + head) * tokens + first + i];
                        let (inner, n) = (begin - from, end - begin);
                        // SAFETY: the part of both rows within the span, and d numbers of g and o.
                        unsafe {
                            scores_backward(
                                level(),
                                parts,
                                d,
                                Out::new(&mut p[inner..]),
                                Out::new(&mut ds[inner..]),
                                n,
                                self.scale(),
                                normaliser,
                            )
                        }
                    }
                    let across = |data| Left { data, row: 1, column: width };
                    let left = Left { data: &ds, row: width, column: 1 };
                    // SAFETY: dk and dv: d numbers of `width` slots of this kv head of this batch row, which are this task's
                    // alone; dk and dv are as long as k and v, which hold those slots. dq: this head of these rows, likewise.
                    unsafe {
                        let (dk, dv, dq) = ((dk.from(base), pitch), (dv.from(base), pitch), (dq.from(at), heads * d));
                        gemm_here((width, d, count), across(&p), (Matrix::F32(&g[at..]), heads * d, false), dv, true);
                        gemm_here((width, d, count), across(&ds), (Matrix::F32(&q[at..]), heads * d, false), dk, true);
                        gemm_here((count, d, width), left, (keys, pitch, false), dq, false);
                    }
                }
            }
        });
    }
}

vectorised! {
    unsafe fn query_f32(parts: (F32, F32, F32), scores: Out, o: Out, sizes: (usize, usize, usize), scale: f32) = query<F32>
}
vectorised! {
    unsafe fn query_bf16(parts: (F32, Bf16, Bf16), scores: Out, o: Out, sizes: (usize, usize, usize), scale: f32) = query<Bf16>
}

/// One query against n keys with `pitch` numbers between them.
#[inline(always)]
unsafe fn query<L: Lanes, S: Source>(
    (q, k, v): (F32, S, S),
    scores: Out,
    o: Out,
    (d, n, pitch): (usize, usize, usize),
    scale: f32,
) {
    let s = scores.at(0);
    let mut j = 0;
    while j < n {
        let (keys, s) = (j * pitch, s.add(j));
        j += match n - j {
            4.. => dots::<L, S, 4>(q, k, keys, s, d, pitch),
            _ => dots::<L, S, 1>(q, k, keys, s, d, pitch),
        };
    }
    softmax_here::<L>(scores, n, scale);
    for i in (0..d).step_by(32 * PARTS) {
        let mut sums = [[L::zero(); 2]; PARTS];
        for j in 0..n {
            let p = L::splat(*s.add(j));
            for (c, sums) in sums.iter_mut().enumerate() {
                let at = i + 32 * c;
                if at < d {
                    let values: [L; 2] = v.read_at(j * pitch + at, (d - at).min(32));
                    sums[0] = p.fma(values[0], sums[0]);
                    sums[1] = p.fma(values[1], sums[1]);
                }
            }
        }
        for (c, sum) in sums.into_iter().flatten().enumerate() {
            let to = i + 16 * c;
            if to < d {
                sum.store_part(o.at(to), d - to);
            }
        }
    }
}

/// Parts of 32 numbers of the result that are summed side by side: as many sums as hide how long an addition takes.
const PARTS: usize = 4;

/// The products of a query with C keys from number `at` of `k` on, summed side by side for the same reason; returns C.
#[inline(always)]
unsafe fn dots<L: Lanes, S: Source, const C: usize>(
    q: F32,
    k: S,
    at: usize,
    scores: *mut f32,
    d: usize,
    pitch: usize,
) -> usize {
    let mut sums = [L::zero(); C];
    for i in (0..d).step_by(32) {
        let some = (d - i).min(32);
        let [q, q_next]: [L; 2] = q.read_at(i, some);
        for c in 0..C {
            let [key, next]: [L; 2] = k.read_at(at + c * pitch + i, some);
            sums[c] = q_next.fma(next, q.fma(key, sums[c]));
        }
    }
    for c in 0..C {
        *scores.add(c) = sums[c].sum();
    }
    C
}

vectorised! {
    unsafe fn scores_backward(
        parts: (F32, F32), d: usize, p: Out, ds: Out, n: usize, scale: f32, normaliser: f32,
    ) = scores_backward_any
}

/// Scores become probabilities in `p`; their gradients become those of the scores before scaling in `ds`.
#[inline(always)]
unsafe fn scores_backward_any<L: Lanes>(
    (g, o): (F32, F32),
    d: usize,
    p: Out,
    ds: Out,
    n: usize,
    scale: f32,
    normaliser: f32,
) {
    let mut along = L::zero();
    for i in (0..d).step_by(16) {
        along = L::load_part(g.0.add(i), d - i).fma(L::load_part(o.0.add(i), d - i), along);
    }
    let along = L::splat(along.sum());
    let (p, ds) = (p.at(0), ds.at(0));
    let (s, shift) = (L::splat(scale), L::splat(-normaliser));
    for i in (0..n).step_by(16) {
        let e = L::load_part(p.add(i), n - i).fma(s, shift).exp();
        e.store_part(p.add(i), n - i);
        e.mul(L::load_part(ds.add(i), n - i).sub(along)).mul(s).store_part(ds.add(i), n - i);
    }
}
