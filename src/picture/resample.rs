//! Pillow's resampling of 8-bit pictures, to the bit: two passes, columns first, with weights in 22-bit fixed point and
//! an 8-bit picture between the passes.

use super::Picture;
use rayon::prelude::*;

/// 32 bits less 8 for the pixel and 2 for weights beyond 1 and negative ones.
const PRECISION_BITS: u32 = 32 - 8 - 2;

#[derive(Clone, Copy)]
pub(super) enum Filter {
    Box,
    Bicubic,
}

impl Filter {
    /// How far from the centre the filter reaches at scale 1.
    fn support(self) -> f64 {
        match self {
            Filter::Box => 0.5,
            Filter::Bicubic => 2.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        match self {
            Filter::Box => f64::from(u8::from(x > -0.5 && x <= 0.5)),
            Filter::Bicubic => {
                const A: f64 = -0.5;
                let x = x.abs();
                // In the order of Pillow's operations.
                if x < 1.0 {
                    ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
                } else if x < 2.0 {
                    (((x - 5.0) * x + 8.0) * x - 4.0) * A
                } else {
                    0.0
                }
            }
        }
    }
}

/// For each pixel of the result, along one axis: the first source pixel it is made of, and the weights of that pixel
/// and the ones after it.
pub(super) struct Taps(Vec<(usize, Vec<i32>)>);

impl Taps {
    /// Pixels `first .. first + count` of a line of `len` pixels that is scaled to `scaled` pixels.
    pub(super) fn resized(len: u32, scaled: u64, first: u64, count: u32, filter: Filter) -> Self {
        let scale = f64::from(len) / scaled as f64;
        let filter_scale = scale.max(1.0);
        let support = filter.support() * filter_scale;
        let inverse = 1.0 / filter_scale;
        let taps = (first..first + u64::from(count)).map(|i| {
            let centre = (i as f64 + 0.5) * scale;
            // `as` truncates towards zero, as the casts of the C code do, and stops at zero.
            let low = (centre - support + 0.5) as u64;
            let high = ((centre + support + 0.5) as u64).min(u64::from(len));
            let weights: Vec<f64> = (low..high).map(|x| filter.weight((x as f64 - centre + 0.5) * inverse)).collect();
            (low as usize, fixed_point(weights))
        });
        Taps(taps.collect())
    }

    /// Pixels `first .. first + count` as they are.
    pub(super) fn copied(first: u32, count: u32) -> Self {
        Taps((first..first + count).map(|i| (i as usize, vec![1 << PRECISION_BITS])).collect())
    }

    /// A line of `len` pixels magnified about its middle and moved by `shift` times its length. What lies beyond the
    /// ends repeats the end pixel.
    pub(super) fn zoomed(len: u32, zoom: f64, shift: f64) -> Self {
        let n = f64::from(len);
        let last = i64::from(len) - 1;
        let filter_scale = (1.0 / zoom).max(1.0);
        let support = Filter::Bicubic.support() * filter_scale;
        let taps = (0..len).map(|i| {
            let centre = (f64::from(i) + 0.5 - n / 2.0 - shift * n) / zoom + n / 2.0;
            let low = (centre - support + 0.5).floor() as i64;
            let high = (centre + support + 0.5).floor() as i64;
            let first = low.clamp(0, last);
            let mut weights = vec![0.0; ((high - 1).clamp(first, last) - first) as usize + 1];
            for x in low..high {
                let w = Filter::Bicubic.weight((x as f64 - centre + 0.5) / filter_scale);
                weights[(x.clamp(first, last) - first) as usize] += w;
            }
            (first as usize, fixed_point(weights))
        });
        Taps(taps.collect())
    }

    /// The source pixels that are needed: first and one past the last.
    fn range(&self) -> (usize, usize) {
        let first = self.0.iter().map(|(at, _)| *at).min().unwrap_or(0);
        let end = self.0.iter().map(|(at, w)| at + w.len()).max().unwrap_or(0);
        (first, end)
    }
}

/// The weights, made to add up to one, as Pillow rounds them: halves away from zero.
fn fixed_point(weights: Vec<f64>) -> Vec<i32> {
    let sum: f64 = weights.iter().sum();
    let one = f64::from(1u32 << PRECISION_BITS);
    weights
        .into_iter()
        .map(|w| if sum != 0.0 { w / sum } else { w })
        .map(|w| if w < 0.0 { (w * one - 0.5) as i32 } else { (w * one + 0.5) as i32 })
        .collect()
}

/// A weighted sum of pixels, rounded and clamped to eight bits.
fn clip(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// Half a unit of the result: rounding by truncation.
const HALF: i32 = 1 << (PRECISION_BITS - 1);

/// Resamples both axes. `None` leaves an axis as it is.
pub(super) fn apply(p: &Picture, columns: Option<&Taps>, rows: Option<&Taps>) -> Picture {
    let source_row = p.width as usize * 3;
    let (first, end) = rows.map_or((0, p.height as usize), Taps::range);
    let width = columns.map_or(p.width as usize, |t| t.0.len());
    let row = width * 3;

    // Columns, and only the rows that the second pass reads.
    let mut narrow = vec![0u8; row * (end - first)];
    let lines = p.rgb[first * source_row..end * source_row].par_chunks_exact(source_row);
    narrow.par_chunks_exact_mut(row).zip(lines).for_each(|(out, line)| match columns {
        None => out.copy_from_slice(line),
        Some(columns) => {
            for (pixel, (at, weights)) in out.chunks_exact_mut(3).zip(&columns.0) {
                let mut sums = [HALF; 3];
                for (source, &w) in line[at * 3..].chunks_exact(3).zip(weights) {
                    for c in 0..3 {
                        sums[c] += i32::from(source[c]) * w;
                    }
                }
                for c in 0..3 {
                    pixel[c] = clip(sums[c]);
                }
            }
        }
    });

    let height = rows.map_or(p.height as usize, |t| t.0.len());
    let rgb = match rows {
        None => narrow,
        Some(rows) => {
            let mut rgb = vec![0u8; row * height];
            rgb.par_chunks_exact_mut(row).zip(&rows.0).for_each_init(
                || vec![0i32; row],
                |sums, (out, (at, weights))| {
                    sums.fill(HALF);
                    for (line, &w) in narrow[(at - first) * row..].chunks_exact(row).zip(weights) {
                        for (sum, &v) in sums.iter_mut().zip(line) {
                            *sum += i32::from(v) * w;
                        }
                    }
                    for (v, &sum) in out.iter_mut().zip(sums.iter()) {
                        *v = clip(sum);
                    }
                },
            );
            rgb
        }
    };
    Picture { width: width as u32, height: height as u32, rgb }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_add_up_to_one_within_rounding() {
        for taps in [
            Taps::resized(100, 37, 0, 37, Filter::Bicubic),
            Taps::resized(37, 100, 0, 100, Filter::Bicubic),
            Taps::resized(101, 50, 0, 50, Filter::Box),
            Taps::zoomed(50, 0.3, 0.9),
            Taps::zoomed(50, 7.0, -1.0),
        ] {
            for (at, weights) in &taps.0 {
                let sum: i64 = weights.iter().map(|&w| i64::from(w)).sum();
                assert!((sum - (1 << PRECISION_BITS)).abs() <= weights.len() as i64, "{at} {sum}");
            }
        }
    }

    #[test]
    fn a_window_of_the_result_is_the_result_cut() {
        let all = Taps::resized(200, 77, 0, 77, Filter::Bicubic);
        let window = Taps::resized(200, 77, 30, 20, Filter::Bicubic);
        assert_eq!(all.0[30..50], window.0[..]);
    }
}
