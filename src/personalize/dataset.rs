//! The reference pictures of a subject: read, varied and encoded once, before training begins.

use super::options::Options;
use crate::model::Model;
use crate::picture::{Crop, Picture};
use crate::random::{Purpose, Stream};
use crate::run::{Run, Stage};
use crate::tokens::Tokens;
use crate::{Error, Result};
use std::path::Path;

/// The most pictures of one subject.
pub const MAX_PICTURES: usize = 1000;
/// Range of the zoom of varied copies.
pub const ZOOM: (f32, f32) = (0.8, 1.12);
/// Varied copies are shifted by up to this share of each side.
pub const SHIFT: f32 = 0.125;
/// Copies that `random_crop` and other backgrounds make where `augment` does not say how many.
const COPIES: u32 = 8;
/// From this on a pixel is part of what a cut-out shows; less is the blur around it.
const OPAQUE: u8 = 26;
/// Share of its part of the picture that a code of a coarse grid shows of the subject, to be learned.
const HALF: f32 = 0.5;

/// Reference pictures of one subject, three to five as a rule, with a caption for each or for none.
#[derive(Clone, Debug)]
pub struct Dataset {
    pictures: Vec<Picture>,
    captions: Option<Vec<String>>,
}

impl Dataset {
    pub fn new(pictures: Vec<Picture>) -> Result<Self> {
        match pictures.len() {
            1..=MAX_PICTURES => Ok(Dataset { pictures, captions: None }),
            n => Err(Error::invalid("pictures", format!("{n} were given; allowed are 1 to {MAX_PICTURES}"))),
        }
    }

    /// Reads picture files.
    pub fn load(paths: &[impl AsRef<Path>]) -> Result<Self> {
        Dataset::new(paths.iter().map(Picture::load).collect::<Result<_>>()?)
    }

    /// Captions, one for each picture, to be learned as they are instead of the templates. Each must contain the identifier.
    pub fn with_captions(self, captions: Vec<String>) -> Result<Self> {
        if captions.len() != self.pictures.len() {
            let message =
                format!("{} were given for {} pictures; give one for each", captions.len(), self.pictures.len());
            return Err(Error::invalid("captions", message));
        }
        Ok(Dataset { captions: Some(captions), ..self })
    }

    /// Pictures in it.
    pub fn len(&self) -> usize {
        self.pictures.len()
    }

    pub fn is_empty(&self) -> bool {
        self.pictures.is_empty()
    }

    pub fn pictures(&self) -> &[Picture] {
        &self.pictures
    }

    pub fn captions(&self) -> Option<&[String]> {
        self.captions.as_deref()
    }

    /// The tokens of every picture and of its varied copies.
    pub(super) fn encode(&self, model: &Model, options: &Options, run: &mut Run) -> Result<Vec<Vec<Tokens>>> {
        let (mut all, mut done) = (Vec::new(), 0);
        for (index, picture) in self.pictures.iter().enumerate() {
            let copies = varied(picture, index, model, options, run)?;
            // Each picture has as many.
            let total = (copies.len() * self.pictures.len()) as u64;
            let mut tokens = Vec::new();
            run.at_item(index as u32, self.pictures.len() as u32);
            for copy in &copies {
                let codes = model.encode(copy, run)?;
                tokens.push(match copy.alpha().filter(|_| options.masked_training) {
                    None => codes,
                    Some(alpha) => {
                        let finest = (codes.height(), codes.width());
                        // What little of the subject a coarse code shows tells less than the backdrop that it shows.
                        let least = |grid| if grid == finest { 0.0 } else { HALF };
                        let grids = codes.grids().into_iter();
                        let shown = grids.flat_map(|grid| shown(alpha, copy.width(), grid, least(grid))).collect();
                        codes.with_shown(shown)
                    }
                });
                done += 1;
                // Finishing early here still teaches one step, so that there is something to return.
                run.report(Stage::Encode, done, total, None)?;
            }
            all.push(tokens);
        }
        run.at_item(0, 1);
        Ok(all)
    }
}

/// What is asked of a model: the sizes that it knows.
trait Size {
    fn fit(&self, picture: &Picture, target: u32, crop: Crop) -> Result<Picture>;

    /// Pixels along each side that one code stands for.
    fn patch(&self) -> u32;
}

impl Size for Model {
    fn fit(&self, picture: &Picture, target: u32, crop: Crop) -> Result<Picture> {
        Model::fit(self, picture, target, crop)
    }

    fn patch(&self) -> u32 {
        self.facts().patch
    }
}

/// A picture brought to the model's size, and its varied copies.
fn varied(picture: &Picture, index: usize, to: &impl Size, options: &Options, run: &Run) -> Result<Vec<Picture>> {
    let plain = to.fit(picture, options.image_size, Crop::Centre)?;
    let cut_out = options.masked_training && plain.alpha().is_some();
    if cut_out && !shows_something(&plain) {
        return Err(Error::invalid("pictures", format!("picture {index} is transparent everywhere")));
    }
    let crops = match options.augment {
        0 if options.random_crop || cut_out => COPIES,
        n => n,
    };
    let mut copies = Vec::new();
    for number in 0..crops {
        run.check()?;
        let key = (index as u64) << 16 | u64::from(number);
        let mut random = Stream::new(options.seed, Purpose::Augment, key);
        // Every number is drawn whether it is used or not, so that one option does not change what another draws.
        let at = Crop::At(random.uniform().into(), random.uniform().into());
        let mut zoom = ZOOM.0 + (ZOOM.1 - ZOOM.0) * random.uniform();
        let mut shift = || SHIFT * (2.0 * random.uniform() - 1.0);
        let (mut dx, mut dy) = (shift(), shift());
        if options.augment_aligned {
            let whole = |share: f32, side: u32| {
                let patches = (side / to.patch()) as f32;
                (share * patches).round() / patches
            };
            (zoom, dx, dy) = (1.0, whole(dx, plain.width()), whole(dy, plain.height()));
        }
        let mirrored = random.chance(0.5);
        let mut copy = match options.random_crop {
            true => to.fit(picture, options.image_size, at)?,
            false => plain.clone(),
        };
        if options.augment > 0 {
            copy = copy.zoom_shift(zoom, dx, dy)?;
        }
        if cut_out {
            // One that was moved out of the frame shows the plain one instead.
            let shown = if shows_something(&copy) { &copy } else { &plain };
            copy = on_backdrop(shown, to.patch(), options.seed, key);
        }
        copies.push(if options.flip && mirrored { copy.flip_horizontal() } else { copy });
    }
    if options.flip {
        copies.push(plain.flip_horizontal());
    }
    // With random crops alone, the middle is just one more place.
    if !options.random_crop || options.augment > 0 {
        copies.insert(0, plain);
    }
    Ok(copies)
}

fn shows_something(picture: &Picture) -> bool {
    picture.alpha().is_none_or(|alpha| alpha.iter().any(|&a| a >= OPAQUE))
}

/// Of each code of a grid (height, width) 1 if some pixels of its part of the picture show something, at least that share of them,
/// else 0.
fn shown(alpha: &[u8], width: u32, (rows, columns): (u32, u32), least: f32) -> Vec<f32> {
    let (width, height) = (width as usize, alpha.len() / width as usize);
    let (rows, columns) = (rows as usize, columns as usize);
    let (mut shown, mut all) = (vec![0; rows * columns], vec![0; rows * columns]);
    for (y, line) in alpha.chunks_exact(width).enumerate() {
        for (x, &a) in line.iter().enumerate() {
            let code = y * rows / height * columns + x * columns / width;
            all[code] += 1;
            shown[code] += u32::from(a >= OPAQUE);
        }
    }
    let shows = |(shown, all)| shown > 0 && shown as f32 >= least * all as f32;
    shown.into_iter().zip(all).map(|pair| f32::from(u8::from(shows(pair)))).collect()
}

/// A cut-out on a background of its own: of one colour, of one that fades into another downward, or with another below a horizon
/// between patches.
fn on_backdrop(picture: &Picture, patch: u32, seed: u64, key: u64) -> Picture {
    let mut random = Stream::new(seed, Purpose::Backdrop, key);
    let mut colour = || [0; 3].map(|_: u8| (random.uniform() * 256.0) as u8);
    let (above, below) = (colour(), colour());
    let (kind, patches) = (random.below(3), (picture.height() / patch).max(1) as usize);
    let horizon = random.below(patches) as u32 * patch;
    let last = (picture.height() - 1).max(1) as f32;
    picture.laid_on(|_, y| match kind {
        0 => above,
        1 => std::array::from_fn(|c| {
            let share = y as f32 / last;
            (f32::from(above[c]) * (1.0 - share) + f32::from(below[c]) * share) as u8
        }),
        _ if y < horizon => above,
        _ => below,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes in units of two patches of 4 pixels.
    struct Units;

    impl Size for Units {
        fn fit(&self, picture: &Picture, target: u32, crop: Crop) -> Result<Picture> {
            picture.fit(target, 8, crop)
        }

        fn patch(&self) -> u32 {
            4
        }
    }

    fn picture() -> Picture {
        Picture::new(24, 16, (0..24 * 16 * 3).map(|i| (i * 37 % 251) as u8).collect()).unwrap()
    }

    fn count(options: Options) -> usize {
        varied(&picture(), 0, &Units, &Options { image_size: 16, ..options }, &Run::new()).unwrap().len()
    }

    #[test]
    fn copies_are_as_many_as_the_options_say() {
        assert_eq!(count(Options::default()), 1);
        assert_eq!(count(Options { flip: true, ..Options::default() }), 2);
        assert_eq!(count(Options { augment: 5, ..Options::default() }), 6);
        assert_eq!(count(Options { augment: 5, flip: true, ..Options::default() }), 7);
        assert_eq!(count(Options { random_crop: true, ..Options::default() }), 8);
    }

    /// A red square of 8 x 8 pixels at (4, 2) of 16 x 16.
    fn cut_out() -> Picture {
        let inside = |i: u32| (4..12).contains(&(i % 16)) && (2..10).contains(&(i / 16));
        let rgba: Vec<u8> = (0..256).flat_map(|i| [200, 0, 0, if inside(i) { 255 } else { 0 }]).collect();
        Picture::from_rgba(16, 16, &rgba).unwrap()
    }

    #[test]
    fn a_cut_out_lies_on_white_and_on_another_background_in_each_copy() {
        let options = Options { augment: 6, image_size: 16, ..Options::default() };
        let copies = |options: &Options| varied(&cut_out(), 0, &Units, options, &Run::new()).unwrap();
        let found = copies(&options);
        assert_eq!(found.len(), 7);
        assert_eq!(found[0], cut_out());
        let corner = |p: &Picture| [p.rgb()[0], p.rgb()[1], p.rgb()[2]];
        for (i, copy) in found.iter().enumerate() {
            assert!(found[..i].iter().all(|other| corner(other) != corner(copy)), "copy {i}");
            let shown = copy.rgb().chunks_exact(3).zip(copy.alpha().unwrap()).filter(|(_, &a)| a == 255);
            assert!(shown.clone().count() > 20 && shown.map(|(v, _)| v).all(|v| v[0].abs_diff(200) < 30), "copy {i}");
        }
        assert!(copies(&options) == found);
        assert!(copies(&Options { seed: 1, ..options.clone() })[1] != found[1]);
        // Without copies there are some of the picture as it stands.
        let still = copies(&Options { augment: 0, ..options.clone() });
        assert_eq!(still.len(), 9);
        assert!(still.iter().all(|copy| copy.alpha() == cut_out().alpha()));
        // As if it had been white there.
        let white = Picture::new(16, 16, cut_out().rgb().to_vec()).unwrap();
        let masked_training = false;
        for (cut, plain) in copies(&Options { masked_training, ..options.clone() })
            .iter()
            .zip(varied(&white, 0, &Units, &options, &Run::new()).unwrap())
        {
            assert_eq!(cut.rgb(), plain.rgb());
        }
    }

    #[test]
    fn codes_show_the_subject_where_enough_pixels_of_theirs_do() {
        let alpha = cut_out().alpha().unwrap().to_vec();
        assert_eq!(shown(&alpha, 16, (1, 1), 0.0), [1.0]);
        assert_eq!(shown(&alpha, 16, (1, 1), 0.5), [0.0]);
        assert_eq!(shown(&alpha, 16, (2, 2), 0.375), [1.0, 1.0, 0.0, 0.0]);
        assert_eq!(shown(&alpha, 16, (2, 2), 0.376), [0.0; 4]);
        #[rustfmt::skip]
        assert_eq!(shown(&alpha, 16, (4, 4), 0.0), [
            0.0, 1.0, 1.0, 0.0,
            0.0, 1.0, 1.0, 0.0,
            0.0, 1.0, 1.0, 0.0,
            0.0, 0.0, 0.0, 0.0,
        ]);
        assert_eq!(shown(&[0, 255, 25, 26, 0, 0, 0, 0], 4, (2, 4), 0.0), [0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn a_picture_that_is_transparent_everywhere_is_refused_by_number() {
        let nothing = Picture::from_rgba(16, 16, &[0; 1024]).unwrap();
        let options = Options { image_size: 16, ..Options::default() };
        let error = varied(&nothing, 2, &Units, &options, &Run::new()).unwrap_err().to_string();
        assert!(error.contains("picture 2") && error.contains("transparent"), "{error}");
    }

    #[test]
    fn copies_are_varied_have_one_size_and_come_again_with_the_seed() {
        let options = Options { augment: 6, flip: true, image_size: 16, seed: 3, ..Options::default() };
        let copies = varied(&picture(), 1, &Units, &options, &Run::new()).unwrap();
        for (i, a) in copies.iter().enumerate() {
            assert_eq!((a.width(), a.height()), (copies[0].width(), copies[0].height()));
            assert!(copies[..i].iter().all(|b| a != b), "copy {i}");
        }
        assert!(copies == varied(&picture(), 1, &Units, &options, &Run::new()).unwrap());
        assert!(copies[1] != varied(&picture(), 1, &Units, &Options { seed: 4, ..options }, &Run::new()).unwrap()[1]);
    }

    #[test]
    fn aligned_copies_hold_the_picture_moved_by_whole_patches() {
        let picture = Picture::new(64, 64, (0..64 * 64 * 3).map(|i| (i * 37 % 251) as u8).collect()).unwrap();
        let options = Options { augment: 8, augment_aligned: true, image_size: 64, seed: 2, ..Options::default() };
        let copies = varied(&picture, 0, &Units, &options, &Run::new()).unwrap();
        let pixel = |p: &Picture, x: i32, y: i32| p.rgb()[((y * 64 + x) * 3) as usize];
        for copy in &copies[1..] {
            // The middle, which no shift pushes out, is there again some patches of 4 pixels away.
            let found = (-2..=2).flat_map(|dy| (-2..=2).map(move |dx| (4 * dx, 4 * dy))).any(|(dx, dy)| {
                (24..40).all(|y| (24..40).all(|x| pixel(copy, x + dx, y + dy) == pixel(&copies[0], x, y)))
            });
            assert!(found);
        }
    }

    #[test]
    fn captions_must_be_as_many_as_pictures() {
        let dataset = Dataset::new(vec![picture(), picture()]).unwrap();
        let error = dataset.with_captions(vec!["a [V]".into()]).unwrap_err().to_string();
        assert!(error.contains("1 were given for 2 pictures"), "{error}");
        assert!(Dataset::new(vec![]).is_err());
    }
}
