//! What the networks see of a picture: the resize, crop and statistics behind the published scores.

use crate::picture::Picture;

/// How a picture of any shape becomes a square one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// The shorter side to `short` pixels, then the middle square of `side`: torchvision's Resize and CenterCrop on a Pillow
    /// picture.
    Crop { short: u32, side: u32 },
    /// Both sides to `side`, whatever that does to the shape.
    Squash { side: u32 },
    /// Squashed to `first`, and the shorter side of that to `side`.
    Twice { first: u32, side: u32 },
}

impl View {
    pub fn of(self, picture: &Picture) -> Picture {
        match self {
            View::Crop { short, side } => {
                let (w, h) = (u64::from(picture.width()), u64::from(picture.height()));
                // torchvision cuts the longer side's length down to a whole number.
                let long = |long: u64, shorter: u64| (u64::from(short) * long) as f64 / shorter as f64;
                let scaled = match w <= h {
                    true => (u64::from(short), long(h, w) as u64),
                    false => (long(w, h) as u64, u64::from(short)),
                };
                // Halves go to the even number, as Python rounds.
                let offset = |n: u64| (n.saturating_sub(u64::from(side)) as f64 / 2.0).round_ties_even() as u64;
                picture.scaled_part(scaled, (offset(scaled.0), offset(scaled.1)), (side, side))
            }
            View::Squash { side } => picture.scaled_part((u64::from(side), u64::from(side)), (0, 0), (side, side)),
            View::Twice { first, side } => View::Squash { side }.of(&View::Squash { side: first }.of(picture)),
        }
    }

    /// In words, for results.
    pub fn name(self) -> String {
        match self {
            View::Crop { short, side } => format!("shorter side {short} bicubic, centre crop {side}"),
            View::Squash { side } => format!("squashed to {side}x{side} bicubic"),
            View::Twice { first, side } => format!("squashed to {first}x{first}, then {side}x{side}, bicubic"),
        }
    }
}

/// Mean and standard deviation of red, green and blue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Statistics {
    pub mean: [f32; 3],
    pub deviation: [f32; 3],
}

impl Statistics {
    pub const IMAGENET: Self = Statistics { mean: [0.485, 0.456, 0.406], deviation: [0.229, 0.224, 0.225] };
    pub const CLIP: Self = Statistics {
        mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
        deviation: [0.268_629_54, 0.261_302_6, 0.275_777_1],
    };
    /// Pixels from -1 to 1.
    pub const HALF: Self = Statistics { mean: [0.5; 3], deviation: [0.5; 3] };

    /// Numbers of the levels of each channel.
    pub fn levels(&self) -> [[f32; 256]; 3] {
        std::array::from_fn(|c| std::array::from_fn(|v| (v as f32 / 255.0 - self.mean[c]) / self.deviation[c]))
    }

    /// The patches of a square picture, row by row, each [3, patch, patch].
    pub fn patches(&self, picture: &Picture, patch: usize) -> Vec<f32> {
        let levels = self.levels();
        let (side, row) = (picture.width() as usize, picture.width() as usize * 3);
        let grid = side / patch;
        let mut out = Vec::with_capacity(grid * grid * 3 * patch * patch);
        for top in (0..grid).map(|i| i * patch) {
            for left in (0..grid).map(|i| i * patch) {
                for (c, levels) in levels.iter().enumerate() {
                    for y in top..top + patch {
                        let pixels = &picture.rgb()[y * row + left * 3..][..patch * 3];
                        out.extend(pixels.chunks_exact(3).map(|pixel| levels[usize::from(pixel[c])]));
                    }
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: u32, height: u32) -> Picture {
        Picture::new(width, height, (0..width * height * 3).map(|i| (i % 256) as u8).collect()).unwrap()
    }

    #[test]
    fn patches_are_read_row_by_row_channel_by_channel() {
        let statistics = Statistics { mean: [0.0; 3], deviation: [1.0 / 255.0; 3] };
        let patches = statistics.patches(&picture(4, 4), 2);
        let whole: Vec<i64> = patches.iter().map(|v| v.round() as i64).collect();
        assert_eq!(whole[..12], [0, 3, 12, 15, 1, 4, 13, 16, 2, 5, 14, 17]);
        assert_eq!(whole[12..16], [6, 9, 18, 21]);
        assert_eq!(whole.len(), 48);
    }

    #[test]
    fn a_line_of_pixels_is_cropped_without_gigabytes() {
        let line = Picture::new(1, 100_000, vec![7; 300_000]).unwrap();
        let seen = View::Crop { short: 256, side: 224 }.of(&line);
        assert_eq!((seen.width(), seen.height()), (224, 224));
        assert!(seen.rgb().iter().all(|&v| v == 7));
    }
}
