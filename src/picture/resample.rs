//! Pillow's resampling of 8-bit pictures, to the bit: two passes with weights in 22-bit fixed point and an 8-bit picture
//! between them. Which pass comes first is Pillow 13's choice, see [`apply`].

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
pub(super) struct Taps {
    pixels: Vec<(usize, Vec<i32>)>,
    /// By how many pixels the whole axis shrinks, also where only a part of it is made.
    shrinks: i64,
}

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
        Taps { pixels: taps.collect(), shrinks: i64::from(len) - scaled as i64 }
    }

    /// Pixels `first .. first + count` as they are.
    pub(super) fn copied(first: u32, count: u32) -> Self {
        Taps { pixels: (first..first + count).map(|i| (i as usize, vec![1 << PRECISION_BITS])).collect(), shrinks: 0 }
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
        Taps { pixels: taps.collect(), shrinks: 0 }
    }

    /// The source pixels that are needed: first and one past the last.
    fn range(&self) -> (usize, usize) {
        let first = self.pixels.iter().map(|(at, _)| *at).min().unwrap_or(0);
        let end = self.pixels.iter().map(|(at, w)| at + w.len()).max().unwrap_or(0);
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
///
/// The passes round to eight bits each, so their order shows. Pillow up to 12 made the columns first; Pillow 13 makes the rows
/// first where that leaves the second pass clearly less to do: if the height shrinks, and by more than twice as many pixels
/// as the width.
pub(super) fn apply(p: &Picture, columns: Option<&Taps>, rows: Option<&Taps>) -> Picture {
    let (mut resampled, grey) =
        (colours(p, columns, rows), p.alpha().map(|a| a.iter().flat_map(|&a| [a; 3]).collect()));
    resampled.alpha = grey.map(|rgb| {
        let alpha = colours(&Picture { rgb, alpha: None, ..*p }, columns, rows);
        alpha.rgb.into_iter().step_by(3).collect()
    });
    resampled
}

/// Of a picture whose transparency is left aside.
fn colours(p: &Picture, columns: Option<&Taps>, rows: Option<&Taps>) -> Picture {
    let width = columns.map_or(p.width as usize, |t| t.pixels.len());
    let height = rows.map_or(p.height as usize, |t| t.pixels.len());
    let source = p.width as usize * 3;
    let rgb = match (columns, rows) {
        (None, None) => p.rgb.clone(),
        (Some(columns), None) => make_columns(&p.rgb, source, columns),
        (None, Some(rows)) => make_rows(&p.rgb, source, 0, rows),
        (Some(columns), Some(rows)) if rows.shrinks > 0 && rows.shrinks > 2 * columns.shrinks => {
            make_columns(&make_rows(&p.rgb, source, 0, rows), source, columns)
        }
        (Some(columns), Some(rows)) => {
            // Only the rows that the second pass reads.
            let (first, end) = rows.range();
            make_rows(&make_columns(&p.rgb[first * source..end * source], source, columns), width * 3, first, rows)
        }
    };
    Picture { width: width as u32, height: height as u32, rgb, alpha: None }
}

/// Each line of `source` bytes resampled.
fn make_columns(rgb: &[u8], source: usize, columns: &Taps) -> Vec<u8> {
    let row = columns.pixels.len() * 3;
    let mut narrow = vec![0u8; row * (rgb.len() / source)];
    narrow.par_chunks_exact_mut(row).zip(rgb.par_chunks_exact(source)).for_each(|(out, line)| {
        for (pixel, (at, weights)) in out.chunks_exact_mut(3).zip(&columns.pixels) {
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
    });
    narrow
}

/// Lines of `row` bytes, of which `rgb` has those from line `first` of the picture on, resampled into others.
fn make_rows(rgb: &[u8], row: usize, first: usize, rows: &Taps) -> Vec<u8> {
    let mut short = vec![0u8; row * rows.pixels.len()];
    short.par_chunks_exact_mut(row).zip(&rows.pixels).for_each_init(
        || vec![0i32; row],
        |sums, (out, (at, weights))| {
            sums.fill(HALF);
            for (line, &w) in rgb[(at - first) * row..].chunks_exact(row).zip(weights) {
                for (sum, &v) in sums.iter_mut().zip(line) {
                    *sum += i32::from(v) * w;
                }
            }
            for (v, &sum) in out.iter_mut().zip(sums.iter()) {
                *v = clip(sum);
            }
        },
    );
    short
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
            for (at, weights) in &taps.pixels {
                let sum: i64 = weights.iter().map(|&w| i64::from(w)).sum();
                assert!((sum - (1 << PRECISION_BITS)).abs() <= weights.len() as i64, "{at} {sum}");
            }
        }
    }

    #[test]
    fn a_window_of_the_result_is_the_result_cut() {
        let all = Taps::resized(200, 77, 0, 77, Filter::Bicubic);
        let window = Taps::resized(200, 77, 30, 20, Filter::Bicubic);
        assert_eq!(all.pixels[30..50], window.pixels[..]);
        assert_eq!(all.shrinks, window.shrinks);
    }
}
