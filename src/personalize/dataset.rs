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
/// Copies that `random_crop` makes where `augment` does not say how many.
const RANDOM_CROPS: u32 = 8;

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
                tokens.push(model.encode(copy, run)?);
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
    let crops = match (options.random_crop, options.augment) {
        (true, 0) => RANDOM_CROPS,
        (_, n) => n,
    };
    let plain = to.fit(picture, options.image_size, Crop::Centre)?;
    let mut copies = Vec::new();
    for copy in 0..crops {
        run.check()?;
        let mut random = Stream::new(options.seed, Purpose::Augment, (index as u64) << 16 | copy as u64);
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
