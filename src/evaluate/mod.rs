//! Measures a subject as the papers do: how much drawn pictures are like the reference pictures (DINO, CLIP-I), how much they
//! show what the prompt says (CLIP-T), whether they are copies, and how far the subject leaked into the plain class word.
//!
//! | file | what it is for |
//! |---|---|
//! | `protocols` | what the published protocols look at, compare and average |
//! | `preprocess` | what the networks see of a picture |
//! | `vit` | the transformer of all networks |
//! | `dino`, `clip`, `lpips` | the networks, from their published files |
//! | `weights` | where the files are, and which they were |
//! | `scores` | from vectors to numbers |
//!
//! candle-transformers has CLIP and parts of a vision transformer. They are not used: its vision transformer has no class for
//! DINO's weights, none of its networks takes other sizes than one, and its products do not run on our kernels.

mod clip;
mod dino;
mod lpips;
mod preprocess;
pub mod protocols;
pub mod scores;
mod vit;
mod weights;

pub use protocols::Protocol;
pub use scores::{Item, Request, Scores, Source};
pub use weights::Fingerprint;

use crate::picture::Picture;
use crate::run::{Control, Run, Stage};
use crate::{Error, Result};
use clip::Clip;
use lpips::Lpips;
use preprocess::{Statistics, View};
use rayon::prelude::*;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use vit::Vision;
use weights::Weights;

/// The largest side of the pictures that a network is for, in pixels.
const MAX_SIDE: usize = 1024;
/// Pictures that go through a network together.
const BATCH: usize = 16;

/// Where the networks are: folders in Hugging Face layout, or files of weights.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct OpenOptions {
    /// DINO, ViT-S/16 in the papers: a folder, or the authors' .pth file.
    pub dino: Option<PathBuf>,
    /// CLIP, ViT-B/32 in the papers: a folder.
    pub clip: Option<PathBuf>,
    /// LPIPS on AlexNet, for the diversity of pictures of one prompt: a folder with torchvision's weights of AlexNet and the
    /// alex.pth of LPIPS, or a file with both.
    pub lpips: Option<PathBuf>,
}

impl OpenOptions {
    /// Paths are looked at when they are opened.
    pub fn check_ranges(&self) -> Result<()> {
        Ok(())
    }
}

/// What is known about an evaluator.
#[derive(Clone, Debug, Serialize)]
pub struct Info {
    pub dino: Option<NetworkInfo>,
    pub clip: Option<NetworkInfo>,
    /// LPIPS's files.
    pub lpips: Option<Vec<Fingerprint>>,
}

/// What is known about one network.
#[derive(Clone, Debug, Serialize)]
pub struct NetworkInfo {
    /// Numbers of a vector.
    pub size: usize,
    /// Sides of the pictures it was trained on, in pixels.
    pub side: usize,
    pub patch: usize,
    pub layers: usize,
    pub files: Vec<Fingerprint>,
}

impl NetworkInfo {
    fn of(vision: &Vision, files: Vec<Fingerprint>) -> Self {
        let (size, layers) = (vision.size(), vision.body.blocks.len());
        NetworkInfo { size, side: vision.side, patch: vision.patch, layers, files }
    }
}

/// The networks, opened. It never changes; several threads may use it at once.
pub struct Evaluator {
    dino: Option<Vision>,
    clip: Option<Clip>,
    lpips: Option<Lpips>,
    info: Info,
}

/// What the networks are given of one picture: patches.
#[derive(Default)]
struct Seen {
    dino: Vec<f32>,
    clip: Vec<f32>,
}

/// What the networks made of one picture; empty for a network that is not there or was not asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vectors {
    pub dino: Vec<f32>,
    pub clip: Vec<f32>,
}

/// How the networks that are asked look at a picture.
#[derive(Clone, Copy, Default)]
struct Eyes {
    dino: Option<(View, Statistics)>,
    clip: Option<(View, Statistics)>,
}

impl Evaluator {
    pub fn open(options: &OpenOptions, run: &mut Run) -> Result<Self> {
        let OpenOptions { dino, clip, lpips } = options;
        let total = [dino, clip, lpips].into_iter().flatten().count() as u64;
        if total == 0 {
            return Err(Error::invalid("dino, clip", "none is given; name the folder of at least one network"));
        }
        let info = Info { dino: None, clip: None, lpips: None };
        let (mut evaluator, mut done) = (Evaluator { dino: None, clip: None, lpips: None, info }, 0..=total);
        let mut report = |run: &mut Run| run.report(Stage::Open, done.next().unwrap_or(total), total, None);
        report(run)?;
        if let Some(path) = dino {
            let weights = Weights::open(path, "DINO", &run.control())?;
            let (network, files) = rayon::join(|| dino::load(&weights), || weights.fingerprints(&[]));
            let network = evaluator.dino.insert(network?);
            evaluator.info.dino = Some(NetworkInfo::of(network, files?));
            report(run)?;
        }
        if let Some(path) = clip {
            let weights = Weights::open(path, "CLIP", &run.control())?;
            let (network, files) = rayon::join(|| clip::load(&weights), || weights.fingerprints(&clip::TOKENIZER));
            let network = evaluator.clip.insert(network?);
            evaluator.info.clip = Some(NetworkInfo::of(&network.vision, files?));
            report(run)?;
        }
        if let Some(path) = lpips {
            let (network, files) = Lpips::open(path, &run.control())?;
            (evaluator.lpips, evaluator.info.lpips) = (Some(network), Some(files));
            report(run)?;
        }
        Ok(evaluator)
    }

    pub fn info(&self) -> &Info {
        &self.info
    }

    fn dino_network(&self) -> Result<&Vision> {
        self.dino.as_ref().ok_or_else(|| missing("DINO", "dino"))
    }

    fn clip_network(&self) -> Result<&Clip> {
        self.clip.as_ref().ok_or_else(|| missing("CLIP", "clip"))
    }

    /// Numbers of a DINO vector.
    pub fn dino_size(&self) -> Result<usize> {
        Ok(self.dino_network()?.size())
    }

    /// Numbers of a CLIP vector, of a picture or a text.
    pub fn clip_size(&self) -> Result<usize> {
        let clip = self.clip_network()?;
        debug_assert_eq!(clip.vision.size(), clip.text.size());
        Ok(clip.vision.size())
    }

    /// DINO's vectors of some pictures, as the network gives them, seen as protocols A to C do.
    pub fn dino(&self, pictures: &[&Picture], run: &mut Run) -> Result<Vec<Vec<f32>>> {
        let view = Protocol::default().dino(self.dino_network()?.side as u32);
        let eyes = Eyes { dino: Some(view), clip: None };
        Ok(self.all_of(pictures, eyes, run)?.into_iter().map(|v| v.dino).collect())
    }

    /// CLIP's vectors of some pictures, as the network gives them, seen as protocols A to C do.
    pub fn clip_image(&self, pictures: &[&Picture], run: &mut Run) -> Result<Vec<Vec<f32>>> {
        let view = Protocol::default().clip(self.clip_network()?.vision.side as u32);
        let eyes = Eyes { dino: None, clip: Some(view) };
        Ok(self.all_of(pictures, eyes, run)?.into_iter().map(|v| v.clip).collect())
    }

    /// CLIP's vectors of some texts, as the network gives them.
    pub fn clip_text(&self, texts: &[&str], run: &mut Run) -> Result<Vec<Vec<f32>>> {
        let clip = self.clip_network()?;
        let (total, mut vectors) = (texts.len() as u64, Vec::with_capacity(texts.len()));
        for batch in texts.chunks(BATCH) {
            vectors.extend(clip.text.encode(batch, &run.control())?);
            run.report(Stage::Score, vectors.len() as u64, total, None)?;
        }
        Ok(vectors)
    }

    /// Measures pictures of one subject.
    pub fn score(&self, request: &Request, run: &mut Run) -> Result<Scores> {
        scores::score(self, request, run)
    }

    fn all_of(&self, pictures: &[&Picture], eyes: Eyes, run: &mut Run) -> Result<Vec<Vectors>> {
        let total = pictures.len() as u64;
        let sources: Vec<Source> = pictures.iter().map(|p| Source::Picture(p)).collect();
        self.vectors(&sources, eyes, run, (0, total))?.into_iter().collect()
    }

    /// The eyes of a protocol, for all networks that there are.
    fn eyes(&self, protocol: Protocol) -> Eyes {
        Eyes {
            dino: self.dino.as_ref().map(|n| protocol.dino(n.side as u32)),
            clip: self.clip.as_ref().map(|n| protocol.clip(n.vision.side as u32)),
        }
    }

    /// What the networks make of each picture; of one that cannot be read, why. Fails only if the run is cancelled, or a network
    /// fails. Reports the pictures done: from `progress.0` on, of `progress.1`.
    fn vectors(
        &self,
        sources: &[Source],
        eyes: Eyes,
        run: &mut Run,
        (mut done, total): (u64, u64),
    ) -> Result<Vec<Result<Vectors>>> {
        let mut all = Vec::with_capacity(sources.len());
        for batch in sources.chunks(BATCH) {
            let control = run.control();
            let seen: Vec<Result<Seen>> = batch.par_iter().map(|source| self.look(*source, eyes, &control)).collect();
            if let Some(Err(Error::Cancelled)) = seen.iter().find(|s| matches!(s, Err(Error::Cancelled))) {
                return Err(Error::Cancelled);
            }
            let good: Vec<&Seen> = seen.iter().filter_map(|s| s.as_ref().ok()).collect();
            let through = |network: Option<&Vision>, eye: Option<_>, part: fn(&Seen) -> &[f32]| match (network, eye) {
                (Some(network), Some(_)) => network.encode(&good.iter().map(|s| part(s)).collect::<Vec<_>>(), &control),
                _ => Ok(vec![Vec::new(); good.len()]),
            };
            let dino = through(self.dino.as_ref(), eyes.dino, |s| &s.dino)?;
            let clip = through(self.clip.as_ref().map(|c| &c.vision), eyes.clip, |s| &s.clip)?;
            let mut made = dino.into_iter().zip(clip).map(|(dino, clip)| Vectors { dino, clip });
            for seen in seen {
                all.push(seen.and_then(|_| made.next().ok_or_else(|| Error::internal("a picture lost its vectors"))));
            }
            done += batch.len() as u64;
            run.report(Stage::Score, done, total, None)?;
        }
        Ok(all)
    }

    /// Reads a picture and takes its patches.
    fn look(&self, source: Source, eyes: Eyes, control: &Control) -> Result<Seen> {
        control.check()?;
        let picture = source.read()?;
        let patches = |network: Option<&Vision>, eye: Option<(View, Statistics)>| match (network, eye) {
            (Some(network), Some((view, statistics))) => statistics.patches(&view.of(&picture), network.patch),
            _ => vec![],
        };
        Ok(Seen {
            dino: patches(self.dino.as_ref(), eyes.dino),
            clip: patches(self.clip.as_ref().map(|c| &c.vision), eyes.clip),
        })
    }

    /// How different pictures look, two and two, on average; None without LPIPS or with fewer than two pictures. Reports the
    /// pictures done as [`vectors`](Self::vectors) does.
    fn diversity(&self, sources: &[Source], run: &mut Run, (done, total): (u64, u64)) -> Result<Option<f64>> {
        let Some(lpips) = self.lpips.as_ref().filter(|_| sources.len() > 1) else { return Ok(None) };
        let mut looks = vec![];
        for (source, done) in sources.iter().zip(done + 1..) {
            looks.push(lpips.look(&*source.read()?, &run.control())?);
            run.report(Stage::Score, done, total, None)?;
        }
        let pairs: Vec<_> =
            looks.iter().enumerate().flat_map(|(i, a)| looks[..i].iter().map(move |b| (a, b))).collect();
        let sum: f64 = pairs.par_iter().map(|(a, b)| lpips.distance(a, b)).collect::<Vec<_>>().iter().sum();
        Ok(Some(sum / pairs.len() as f64))
    }

    /// CLIP's vectors of texts by text, each made once; none without CLIP.
    fn texts<'a>(&self, texts: &[&'a str], control: &Control) -> Result<BTreeMap<&'a str, Vec<f32>>> {
        let Some(clip) = &self.clip else { return Ok(BTreeMap::new()) };
        let mut different: Vec<&str> = texts.to_vec();
        different.sort_unstable();
        different.dedup();
        let mut vectors = BTreeMap::new();
        for batch in different.chunks(BATCH) {
            vectors.extend(batch.iter().copied().zip(clip.text.encode(batch, control)?));
        }
        Ok(vectors)
    }
}

fn missing(network: &str, option: &str) -> Error {
    Error::invalid(
        option,
        format!("the evaluator was opened without {network}; give its folder as {option} to open it"),
    )
}

/// The path of a picture for messages and results.
fn name_of(path: &Path) -> String {
    path.display().to_string()
}
