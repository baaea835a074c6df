//! Binary spherical quantisation over scales (arXiv 2412.04431, sections 3.2 and 3.4): a latent becomes bits, coarse to fine, each
//! scale what the ones before it leave, and back.

use super::schedule::Grid;
use crate::random::Stream;
use crate::{Error, Result};

/// A map of `d` channels, [d, height, width].
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    pub d: usize,
    pub grid: Grid,
    pub data: Vec<f32>,
}

impl Map {
    pub fn zeros(d: usize, grid: Grid) -> Self {
        Map { d, grid, data: vec![0.0; d * grid.0 * grid.1] }
    }

    /// Means over the input cells that each output cell touches.
    pub fn shrunk(&self, grid: Grid) -> Map {
        if grid == self.grid {
            return self.clone();
        }
        let ((h, w), (rows, columns)) = (self.grid, grid);
        let range = |i: usize, n: usize, from: usize| i * from / n..((i + 1) * from).div_ceil(n);
        let mut out = Map::zeros(self.d, grid);
        for (from, to) in self.data.chunks_exact(h * w).zip(out.data.chunks_exact_mut(rows * columns)) {
            for r in 0..rows {
                for c in 0..columns {
                    let (ys, xs) = (range(r, rows, h), range(c, columns, w));
                    let count = (ys.len() * xs.len()) as f32;
                    let sum: f32 = ys.flat_map(|y| xs.clone().map(move |x| from[y * w + x])).sum();
                    to[r * columns + c] = sum / count;
                }
            }
        }
        out
    }

    /// Bilinear, with centres at half cells and the border continued; what gets smaller is sampled, not averaged.
    pub fn resized(&self, grid: Grid) -> Map {
        if grid == self.grid {
            return self.clone();
        }
        let ((h, w), (rows, columns)) = (self.grid, grid);
        let (ys, xs) = (taps(h, rows), taps(w, columns));
        let mut out = Map::zeros(self.d, grid);
        for (from, to) in self.data.chunks_exact(h * w).zip(out.data.chunks_exact_mut(rows * columns)) {
            for (to, &(top, bottom, v)) in to.chunks_exact_mut(columns).zip(&ys) {
                for (to, &(left, right, u)) in to.iter_mut().zip(&xs) {
                    let line = |y: usize| (1.0 - u) * from[y * w + left] + u * from[y * w + right];
                    *to = (1.0 - v) * line(top) + v * line(bottom);
                }
            }
        }
        out
    }

    fn add(&mut self, other: &Map) {
        self.data.iter_mut().zip(&other.data).for_each(|(a, b)| *a += b);
    }

    /// The channels of each cell side by side, [cells, d], or of 2x2 cells, [cells / 4, 4 d]: channel c of the cell in row y and
    /// column x of the four is channel 4 c + 2 y + x.
    pub fn rows(&self, folded: bool) -> Vec<f32> {
        let (h, w) = self.grid;
        let mut out = vec![0.0; self.data.len()];
        for c in 0..self.d {
            for y in 0..h {
                for x in 0..w {
                    out[place(self.d, w, folded, (c, y, x))] = self.data[(c * h + y) * w + x];
                }
            }
        }
        out
    }
}

/// Where channel c of the cell (y, x) stands among the rows.
fn place(d: usize, w: usize, folded: bool, (c, y, x): (usize, usize, usize)) -> usize {
    match folded {
        false => (y * w + x) * d + c,
        true => (y / 2 * (w / 2) + x / 2) * 4 * d + 4 * c + 2 * (y % 2) + x % 2,
    }
}

/// For each of `n` places: the two of `from` between which it lies, and how near the second.
fn taps(from: usize, n: usize) -> Vec<(usize, usize, f32)> {
    let step = from as f32 / n as f32;
    let tap = |i: usize| {
        let at = ((i as f32 + 0.5) * step - 0.5).max(0.0);
        let low = (at as usize).min(from - 1);
        (low, (low + 1).min(from - 1), at - low as f32)
    };
    (0..n).map(tap).collect()
}

/// How latents of one model become bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bsq {
    /// Channels of a latent, bits of a cell; at most 32.
    pub d: usize,
    /// Whether the transformer sees 2x2 cells as one (the 8B's spatial patchify); latents then have twice the scales' resolution.
    pub folded: bool,
    /// Whether next inputs are shrunk by averaging, as ARBooth's code does at inference; upstream samples bilinearly.
    pub area: bool,
}

/// A picture in bits.
pub struct Quantised {
    /// The cells' codes of each scale: bit c of channel c is the (d - 1 - c)th of the number, as in upstream's integer labels.
    pub codes: Vec<Vec<u32>>,
    /// What the transformer is given for each scale but the first, [cells, channels].
    pub inputs: Vec<Vec<f32>>,
    /// What the decoder is given.
    pub latent: Map,
}

impl Bsq {
    /// The grid of latents for a scale of the transformer.
    pub fn grid(&self, scale: Grid) -> Grid {
        match self.folded {
            true => (2 * scale.0, 2 * scale.1),
            false => scale,
        }
    }

    /// Bits of a token of the transformer.
    pub fn bits(&self) -> usize {
        self.d * if self.folded { 4 } else { 1 }
    }

    fn of_codes(&self, codes: &[u32], grid: Grid) -> Map {
        let (size, cells) = (1.0 / (self.d as f32).sqrt(), grid.0 * grid.1);
        let mut map = Map::zeros(self.d, grid);
        for (c, plane) in map.data.chunks_exact_mut(cells).enumerate() {
            let bit = 1 << (self.d - 1 - c);
            plane.iter_mut().zip(codes).for_each(|(to, code)| *to = if code & bit != 0 { size } else { -size });
        }
        map
    }

    /// What the transformer is given for the scale behind those that `total` is the sum of.
    pub fn input(&self, total: &Map, scale: Grid) -> Vec<f32> {
        let grid = self.grid(scale);
        let map = if self.area { total.shrunk(grid) } else { total.resized(grid) };
        map.rows(self.folded)
    }

    /// Adds the codes of one scale to the sum of those before it.
    pub fn add(&self, total: &mut Map, codes: &[u32], scale: Grid) {
        total.add(&self.of_codes(codes, self.grid(scale)).resized(total.grid));
    }

    /// The bits of a latent of the last scale's size. With `flips`, bits of what the later scales see are turned over: a mask for each
    /// scale and cell. The labels stay those of the latent, but later ones mend what was turned (section 3.3).
    pub fn quantise(&self, latent: &Map, scales: &[Grid], flips: Option<&[Vec<u32>]>) -> Quantised {
        let mut out = Quantised { codes: vec![], inputs: vec![], latent: Map::zeros(self.d, latent.grid) };
        for (s, &scale) in scales.iter().enumerate() {
            let mut rest = latent.clone();
            rest.data.iter_mut().zip(&out.latent.data).for_each(|(rest, total)| *rest -= total);
            let rest = if s + 1 < scales.len() { rest.shrunk(self.grid(scale)) } else { rest };
            let cells = rest.grid.0 * rest.grid.1;
            let mut codes = vec![0u32; cells];
            for plane in rest.data.chunks_exact(cells) {
                codes.iter_mut().zip(plane).for_each(|(code, &x)| *code = *code << 1 | u32::from(x > 0.0));
            }
            let seen = match flips {
                Some(flips) => codes.iter().zip(&flips[s]).map(|(code, flip)| code ^ flip).collect(),
                None => codes.clone(),
            };
            self.add(&mut out.latent, &seen, scale);
            if let Some(&next) = scales.get(s + 1) {
                out.inputs.push(self.input(&out.latent, next));
            }
            out.codes.push(codes);
        }
        out
    }

    /// Inputs and decoder's latent of given codes.
    pub fn dequantise(&self, codes: Vec<Vec<u32>>, scales: &[Grid]) -> Result<Quantised> {
        let Some(&last) = scales.last() else { return Err(Error::invalid("tokens", "no scales")) };
        let mut out = Quantised { codes, inputs: vec![], latent: Map::zeros(self.d, self.grid(last)) };
        for (s, &scale) in scales.iter().enumerate() {
            let (h, w) = self.grid(scale);
            let found = out.codes.get(s).map_or(0, Vec::len);
            if found != h * w || out.codes.len() != scales.len() {
                let message = format!("scale {s} of {} has {h}x{w} cells, found {found} codes", scales.len());
                return Err(Error::invalid("tokens", message));
            }
            if let Some(code) = out.codes[s].iter().find(|&&c| self.d < 32 && c >> self.d != 0) {
                return Err(Error::invalid("tokens", format!("code {code} has more than {} bits", self.d)));
            }
            self.add(&mut out.latent, &out.codes[s], scale);
            if let Some(&next) = scales.get(s + 1) {
                out.inputs.push(self.input(&out.latent, next));
            }
        }
        Ok(out)
    }

    /// The bits of a scale's codes as the transformer has them, 0 or 1, [tokens, bits].
    pub fn labels(&self, codes: &[u32], scale: Grid) -> Vec<u32> {
        let (h, w) = self.grid(scale);
        let mut labels = vec![0; codes.len() * self.d];
        for (i, code) in codes.iter().enumerate() {
            for c in 0..self.d {
                labels[place(self.d, w, self.folded, (c, i / w, i % w))] = code >> (self.d - 1 - c) & 1;
            }
        }
        debug_assert_eq!(codes.len(), h * w);
        labels
    }

    /// For each cell of a scale the mean over its bits of what is given for each bit in the order of [`Bsq::labels`].
    pub fn means(&self, bits: &[f32], scale: Grid) -> Vec<f32> {
        let (h, w) = self.grid(scale);
        let mean = |i: usize| {
            let of = |c: usize| bits[place(self.d, w, self.folded, (c, i / w, i % w))];
            (0..self.d).map(of).sum::<f32>() / self.d as f32
        };
        (0..h * w).map(mean).collect()
    }

    /// The codes of a scale's bits, given as by [`Bsq::labels`].
    pub fn codes(&self, labels: &[u32], scale: Grid) -> Vec<u32> {
        let (h, w) = self.grid(scale);
        let code = |i: usize| {
            let bit = |code: u32, c: usize| code << 1 | labels[place(self.d, w, self.folded, (c, i / w, i % w))];
            (0..self.d).fold(0, bit)
        };
        (0..h * w).map(code).collect()
    }

    /// Which bits self-correction turns over: for each scale each bit with a probability of its own, drawn from 0, 0.01 .. `strength`.
    /// (Upstream draws one for all pictures of a batch, this one for each.)
    pub fn flips(&self, scales: &[Grid], strength: f32, random: &mut Stream) -> Vec<Vec<u32>> {
        let steps = (100.0 * strength).round().max(0.0) as usize + 1;
        let mut of = |&scale: &Grid| {
            let probability = random.below(steps) as f32 * 0.01;
            let (h, w) = self.grid(scale);
            (0..h * w)
                .map(|_| (0..self.d).fold(0, |mask, _| mask << 1 | u32::from(random.chance(probability))))
                .collect()
        };
        scales.iter().map(&mut of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Purpose;

    #[test]
    fn bits_and_codes_are_the_same_in_two_orders() {
        for folded in [false, true] {
            let bsq = Bsq { d: 5, folded, area: false };
            let mut random = Stream::new(1, Purpose::Augment, 0);
            let (h, w) = bsq.grid((3, 2));
            let codes: Vec<u32> = (0..h * w).map(|_| random.below(32) as u32).collect();
            let labels = bsq.labels(&codes, (3, 2));
            assert_eq!(bsq.codes(&labels, (3, 2)), codes);
            let expected = bsq.of_codes(&codes, (h, w)).rows(folded);
            assert!(labels.iter().zip(expected).all(|(&bit, x)| (x > 0.0) == (bit == 1)));
        }
    }

    #[test]
    fn each_scale_brings_the_sum_nearer_to_a_latent() {
        let bsq = Bsq { d: 4, folded: false, area: false };
        let mut random = Stream::new(2, Purpose::Augment, 0);
        let scales = [(1, 1), (2, 2), (4, 4), (8, 8), (8, 8), (8, 8)];
        let data = (0..4 * 64).map(|_| 0.6 * random.normal()).collect();
        let latent = Map { d: 4, grid: (8, 8), data };
        let far = |n: usize| -> f32 {
            let q = bsq.quantise(&latent, &scales, None);
            let mut total = Map::zeros(4, (8, 8));
            (0..n).for_each(|s| bsq.add(&mut total, &q.codes[s], scales[s]));
            total.data.iter().zip(&latent.data).map(|(a, b)| (a - b).powi(2)).sum()
        };
        assert!(far(6) < 0.5 * far(0), "{} {}", far(6), far(0));
        let q = bsq.quantise(&latent, &scales, None);
        let again = bsq.dequantise(q.codes.clone(), &scales).unwrap();
        assert_eq!((again.inputs, again.latent), (q.inputs, q.latent));
    }
}
