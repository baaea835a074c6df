//! The crop rule of models that draw within a budget of pixels: which picture sizes the model knows, which of them suits a
//! picture, and how the picture is brought to that size.

use super::resample::{self, Filter, Taps};
use super::Picture;
use crate::{Error, Result};

/// The longer side of a crop is at most this many times the shorter one.
const MAX_ASPECT: f64 = 4.0;

/// A square budget of 256 by 256 patches is far beyond any model and keeps the size list short.
const MAX_PATCHES_PER_SIDE: u32 = 256;

/// Where the crop is cut out of the scaled picture, which is larger than it along one side.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Crop {
    /// In the middle.
    #[default]
    Centre,
    /// At a place along each side, from 0 (left, top) up to but excluding 1 (right, bottom). Uniform random numbers
    /// give the uniform random crop that the model was trained with.
    At(f64, f64),
}

impl Crop {
    /// The offsets for `(spare columns, spare rows)`.
    fn offset(self, spare: (u64, u64)) -> Result<(u64, u64)> {
        let at = |f: f64, spare: u64| ((f * (spare as f64 + 1.0)) as u64).min(spare);
        match self {
            Crop::Centre => Ok((spare.0 / 2, spare.1 / 2)),
            Crop::At(x, y) if (0.0..=1.0).contains(&x) && (0.0..=1.0).contains(&y) => {
                Ok((at(x, spare.0), at(y, spare.1)))
            }
            Crop::At(x, y) => Err(Error::invalid("crop", format!("({x}, {y}) is not within [0, 1]"))),
        }
    }
}

/// All `(width, height)` in pixels that the model knows: multiples of `patch`, at most `(target / patch)²` patches and
/// no more oblong than 4 to 1, widest first.
pub fn crop_sizes(target: u32, patch: u32) -> Result<Vec<(u32, u32)>> {
    if patch == 0 || target < patch || !target.is_multiple_of(patch) {
        return Err(Error::invalid("target", format!("{target} is not a positive multiple of the patch size {patch}")));
    }
    if target / patch > MAX_PATCHES_PER_SIDE {
        let limit = patch.saturating_mul(MAX_PATCHES_PER_SIDE);
        return Err(Error::invalid("target", format!("{target} pixels are more than the {limit} allowed")));
    }
    let budget = (target / patch).pow(2);
    let mut sizes = Vec::new();
    let (mut w, mut h) = (budget, 1);
    while w > 0 {
        if f64::from(w.max(h)) / f64::from(w.min(h)) <= MAX_ASPECT {
            sizes.push((w * patch, h * patch));
        }
        if (h + 1) * w <= budget {
            h += 1;
        } else {
            w -= 1;
        }
    }
    Ok(sizes)
}

/// The size of `sizes` whose shape is nearest to that of a picture of `(width, height)`: the one that loses least when
/// the picture is scaled to cover it. Of equals the largest width, then the largest height. None if `sizes` is empty.
pub fn choose_crop(size: (u32, u32), sizes: &[(u32, u32)]) -> Option<(u32, u32)> {
    let score = |&(w, h): &(u32, u32)| {
        let (x, y) = (f64::from(w) / f64::from(size.0), f64::from(h) / f64::from(size.1));
        x.min(y) / x.max(y)
    };
    sizes.iter().copied().max_by(|a, b| score(a).total_cmp(&score(b)).then(a.cmp(b)))
}

pub(super) fn fit(picture: &Picture, target: u32, patch: u32, crop: Crop) -> Result<Picture> {
    let sizes = crop_sizes(target, patch)?;
    let chosen = choose_crop((picture.width, picture.height), &sizes);
    cover(picture, chosen.ok_or_else(|| Error::Internal { message: "the crop size list is empty".into() })?, crop)
}

/// The picture scaled so that it covers a size, and cut to it.
pub(super) fn cover(picture: &Picture, (cw, ch): (u32, u32), crop: Crop) -> Result<Picture> {
    // Averaging 2x2 pixels first is what the original does; one bicubic step alone would give other pixels.
    let mut halved: Option<Picture> = None;
    let source = loop {
        let p = halved.as_ref().unwrap_or(picture);
        if p.width / 2 < cw || p.height / 2 < ch {
            break p;
        }
        let columns = Taps::resized(p.width, u64::from(p.width / 2), 0, p.width / 2, Filter::Box);
        let rows = Taps::resized(p.height, u64::from(p.height / 2), 0, p.height / 2, Filter::Box);
        halved = Some(resample::apply(p, Some(&columns), Some(&rows)));
    };

    let (w, h) = (f64::from(source.width), f64::from(source.height));
    let scale = (f64::from(cw) / w).max(f64::from(ch) / h);
    // Python's round(). At least the crop: 683 * (608 / 683) may fall a hair short of 608, never below after rounding.
    let scaled_w = ((w * scale).round_ties_even() as u64).max(u64::from(cw));
    let scaled_h = ((h * scale).round_ties_even() as u64).max(u64::from(ch));
    let (left, top) = crop.offset((scaled_w - u64::from(cw), scaled_h - u64::from(ch)))?;

    Ok(scaled_part(source, (scaled_w, scaled_h), (left, top), (cw, ch)))
}

/// The part of `size` at `(left, top)` of the picture scaled to `scaled`, bicubic. Only that part is computed: a picture one
/// pixel wide may be scaled to any length.
pub(super) fn scaled_part(picture: &Picture, scaled: (u64, u64), at: (u64, u64), size: (u32, u32)) -> Picture {
    let taps = |len: u32, scaled: u64, first: u64, count: u32| match u64::from(len) == scaled {
        true => Taps::copied(first as u32, count),
        false => Taps::resized(len, scaled, first, count, Filter::Bicubic),
    };
    let columns = taps(picture.width, scaled.0, at.0, size.0);
    let rows = taps(picture.height, scaled.1, at.1, size.1);
    resample::apply(picture, Some(&columns), Some(&rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_lists_are_those_of_the_published_models() {
        for (target, count, first) in [(512, 49, (1024, 256)), (768, 73, (1536, 384)), (1024, 97, (2048, 512))] {
            let sizes = crop_sizes(target, 32).unwrap();
            assert_eq!((sizes.len(), sizes[0]), (count, first));
            assert!(sizes.contains(&(target, target)));
        }
    }

    #[test]
    fn the_nearest_shape_is_chosen() {
        let at = |target, w, h| choose_crop((w, h), &crop_sizes(target, 32).unwrap()).unwrap();
        assert_eq!(at(768, 1000, 1000), (768, 768));
        assert_eq!(at(768, 1024, 683), (896, 608));
        assert_eq!(at(768, 4000, 3000), (864, 640));
        assert_eq!(at(768, 2048, 1152), (1024, 576));
        assert_eq!(at(512, 1024, 683), (608, 416));
        assert_eq!(at(512, 4000, 3000), (576, 448));
        assert_eq!(choose_crop((5, 5), &[]), None);
    }

    #[test]
    fn of_equally_good_shapes_the_larger_is_chosen() {
        assert_eq!(choose_crop((10, 10), &[(32, 32), (64, 64), (96, 96), (64, 32)]), Some((96, 96)));
    }

    #[test]
    fn targets_that_make_no_grid_are_refused() {
        for (target, patch) in [(768, 0), (0, 32), (16, 32), (500, 32), (u32::MAX, 1)] {
            assert!(crop_sizes(target, patch).is_err(), "{target} {patch}");
        }
    }

    #[test]
    fn offsets_reach_both_ends_and_nothing_beyond() {
        assert_eq!(Crop::Centre.offset((5, 0)).unwrap(), (2, 0));
        assert_eq!(Crop::At(0.0, 0.999).offset((5, 5)).unwrap(), (0, 5));
        assert_eq!(Crop::At(1.0, 0.5).offset((5, 5)).unwrap(), (5, 3));
        assert!(Crop::At(f64::NAN, 0.0).offset((5, 5)).is_err());
        assert!(Crop::At(0.0, -0.1).offset((5, 5)).is_err());
    }

    #[test]
    fn a_picture_one_pixel_wide_fits_without_gigabytes() {
        let line = Picture::new(1, 100_000, vec![7; 300_000]).unwrap();
        let fitted = line.fit(768, 32, Crop::At(0.5, 0.9)).unwrap();
        assert_eq!((fitted.width(), fitted.height()), (384, 1536));
        assert!(fitted.rgb().iter().all(|&v| v == 7));
    }
}
