//! Which scales a picture is drawn in, and where their cells are (arXiv 2412.04431, section 3.4 and the released table).
//!
//! A schedule is a list of grids, from one cell to the grid that is decoded. Each of fifteen ratios of height and width has one
//! list of 13 grids; smaller pictures are made of its first 7, 10 or 12.

use crate::{Error, Result};
use candle_core::{Device, Tensor};

/// Height and width of the scales; the reciprocal ratios have them turned around.
const TABLE: [[(u8, u8); 13]; 8] = [
    [
        (1, 1),
        (2, 2),
        (4, 4),
        (6, 6),
        (8, 8),
        (12, 12),
        (16, 16),
        (20, 20),
        (24, 24),
        (32, 32),
        (40, 40),
        (48, 48),
        (64, 64),
    ],
    [
        (1, 1),
        (2, 2),
        (3, 3),
        (5, 4),
        (10, 8),
        (15, 12),
        (20, 16),
        (25, 20),
        (30, 24),
        (35, 28),
        (45, 36),
        (55, 44),
        (70, 56),
    ],
    [
        (1, 1),
        (2, 2),
        (4, 3),
        (8, 6),
        (12, 9),
        (16, 12),
        (20, 15),
        (24, 18),
        (28, 21),
        (36, 27),
        (48, 36),
        (60, 45),
        (72, 54),
    ],
    [
        (1, 1),
        (2, 2),
        (3, 2),
        (6, 4),
        (9, 6),
        (15, 10),
        (21, 14),
        (27, 18),
        (33, 22),
        (39, 26),
        (48, 32),
        (63, 42),
        (78, 52),
    ],
    [
        (1, 1),
        (2, 2),
        (3, 3),
        (7, 4),
        (11, 6),
        (14, 8),
        (21, 12),
        (28, 16),
        (35, 20),
        (42, 24),
        (56, 32),
        (70, 40),
        (84, 48),
    ],
    [
        (1, 1),
        (2, 2),
        (4, 2),
        (6, 3),
        (10, 5),
        (16, 8),
        (22, 11),
        (30, 15),
        (38, 19),
        (46, 23),
        (60, 30),
        (74, 37),
        (90, 45),
    ],
    [
        (1, 1),
        (2, 2),
        (5, 2),
        (10, 4),
        (15, 6),
        (20, 8),
        (25, 10),
        (30, 12),
        (40, 16),
        (50, 20),
        (65, 26),
        (80, 32),
        (100, 40),
    ],
    [
        (1, 1),
        (2, 2),
        (6, 2),
        (9, 3),
        (15, 5),
        (21, 7),
        (27, 9),
        (36, 12),
        (45, 15),
        (54, 18),
        (72, 24),
        (90, 30),
        (111, 37),
    ],
];
/// How many scales the published sizes have: 0.06, 0.25, 0.6 and 1 million pixels.
const LENGTHS: [usize; 4] = [7, 10, 12, 13];
/// Base of the rotary frequencies.
const THETA: f32 = 10000.0;

/// A grid's rows and columns.
pub type Grid = (usize, usize);

/// The scales of pictures of one size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    scales: Vec<Grid>,
    /// The last grid of the whole list: positions count on it, whatever the size.
    full: Grid,
}

impl Schedule {
    /// All schedules, small pictures first, of one size from the widest to the highest.
    pub fn all() -> Vec<Schedule> {
        let turned = |row: &[(u8, u8); 13], turn: bool| -> Vec<Grid> {
            row.iter().map(|&(h, w)| if turn { (w.into(), h.into()) } else { (h.into(), w.into()) }).collect()
        };
        let wide = TABLE[1..].iter().rev().map(|row| turned(row, true));
        let lists: Vec<Vec<Grid>> = wide.chain(TABLE.iter().map(|row| turned(row, false))).collect();
        let of = |length: usize| {
            lists.iter().map(move |list| Schedule { scales: list[..length].to_vec(), full: list[list.len() - 1] })
        };
        LENGTHS.into_iter().flat_map(of).collect()
    }

    /// The schedule of pictures of this size in pixels, `unit` pixels along the side of a cell. Where there is none the error names the
    /// nearest two.
    pub fn of_size(width: u32, height: u32, unit: u32) -> Result<Schedule> {
        let pixels = |s: &Schedule| (s.last().1 as u32 * unit, s.last().0 as u32 * unit);
        let mut all = Schedule::all();
        if let Some(found) = all.iter().find(|s| pixels(s) == (width, height)) {
            return Ok(found.clone());
        }
        let log = |a: u32, b: u32| (f64::from(a.max(1)) / f64::from(b)).ln().powi(2);
        let far = |s: &Schedule| log(width, pixels(s).0) + log(height, pixels(s).1);
        all.sort_by(|a, b| far(a).total_cmp(&far(b)));
        let near: Vec<String> = all[..2].iter().map(|s| format!("{}x{}", pixels(s).0, pixels(s).1)).collect();
        let message = format!(
            "the model draws no pictures of {width}x{height} pixels; the nearest sizes are {}",
            near.join(" and ")
        );
        Err(Error::invalid("width and height", message))
    }

    /// The schedule whose last grid is this one.
    pub fn of_grid(grid: Grid) -> Option<Schedule> {
        Schedule::all().into_iter().find(|s| s.last() == grid)
    }

    /// Of the sizes whose pictures have at most `length` scales the one that is nearest in ratio (as upstream picks it, by the
    /// difference of height over width), with as many scales as fit.
    pub fn near_ratio(height_over_width: f64, length: usize) -> Schedule {
        let length = LENGTHS.into_iter().rev().find(|&l| l <= length).unwrap_or(LENGTHS[0]);
        let gap = |s: &Schedule| (s.full.0 as f64 / s.full.1 as f64 - height_over_width).abs();
        let mut all: Vec<Schedule> = Schedule::all().into_iter().filter(|s| s.scales.len() == length).collect();
        all.sort_by(|a, b| gap(a).total_cmp(&gap(b)));
        all.swap_remove(0)
    }

    pub fn scales(&self) -> &[Grid] {
        &self.scales
    }

    /// The grid that is decoded.
    pub fn last(&self) -> Grid {
        self.scales[self.scales.len() - 1]
    }

    /// Cells of a scale.
    pub fn cells(&self, scale: usize) -> usize {
        self.scales[scale].0 * self.scales[scale].1
    }

    /// Cells of all scales before this one.
    pub fn before(&self, scale: usize) -> usize {
        (0..scale).map(|s| self.cells(s)).sum()
    }

    /// Cells of all scales: the length of the sequence.
    pub fn total(&self) -> usize {
        self.before(self.scales.len())
    }

    /// What each token of the whole sequence sees: its own scale and those before it.
    pub fn spans(&self) -> Vec<(u32, u32)> {
        let of = |s| std::iter::repeat_n((0, self.before(s + 1) as u32), self.cells(s));
        (0..self.scales.len()).flat_map(of).collect()
    }

    /// Row and column of each cell of a scale on the full grid, to the nearest whole number, even at ties.
    pub fn positions(&self, scale: usize) -> Vec<(u32, u32)> {
        let (h, w) = self.scales[scale];
        // In f32: the published tables are, and other digits would fall to other sides of ties.
        let place =
            |i: usize, n: usize, full: usize| (i as f32 * (full as f64 / n as f64) as f32).round_ties_even() as u32;
        let (full_h, full_w) = self.full;
        (0..h).flat_map(|r| (0..w).map(move |c| (place(r, h, full_h), place(c, w, full_w)))).collect()
    }

    /// Cosine and sine of the rotary positions of some scales, [cells, head_dim / 2] each: the first half of the pairs turns by the
    /// row, the second by the column.
    pub fn rotary(&self, scales: std::ops::Range<usize>, head_dim: usize, device: &Device) -> Result<(Tensor, Tensor)> {
        let quarter = head_dim / 4;
        let frequency: Vec<f32> =
            (0..quarter).map(|j| 1.0 / THETA.powf((2 * j) as f32 / (2 * quarter) as f32)).collect();
        let mut angles = Vec::new();
        for (row, column) in scales.flat_map(|s| self.positions(s)) {
            for place in [row, column] {
                angles.extend(frequency.iter().map(|f| place as f32 * f));
            }
        }
        let shape = (angles.len() / (2 * quarter), 2 * quarter);
        let table = |f: fn(f32) -> f32| -> Result<Tensor> {
            let values: Vec<f32> = angles.iter().map(|&a| f(a)).collect();
            Ok(Tensor::from_vec(values, shape, &Device::Cpu)?.to_device(device)?)
        };
        Ok((table(f32::cos)?, table(f32::sin)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_sixty_schedules_told_apart_by_their_last_grid() {
        let all = Schedule::all();
        assert_eq!(all.len(), 60);
        let last: std::collections::BTreeSet<_> = all.iter().map(|s| s.last()).collect();
        assert_eq!(last.len(), 60);
        let square = Schedule::of_size(1024, 1024, 16).unwrap();
        let totals: Vec<usize> = (0..=13).map(|s| square.before(s)).collect();
        assert_eq!(totals, [0, 1, 5, 21, 57, 121, 265, 521, 921, 1497, 2521, 4121, 6425, 10521]);
        assert_eq!(Schedule::of_size(592, 1776, 16).unwrap().total(), 11123);
        assert_eq!(Schedule::of_size(1776, 592, 16).unwrap().total(), 11123);
    }

    #[test]
    fn a_size_that_is_none_names_the_nearest_two() {
        let error = Schedule::of_size(1000, 1024, 16).unwrap_err().to_string();
        assert!(error.contains("1024x1024") && error.contains("896x1120"), "{error}");
        assert_eq!(Schedule::near_ratio(0.52, 13).last(), (45, 90));
        assert_eq!(Schedule::near_ratio(1.0, 11).last(), (32, 32));
    }
}
