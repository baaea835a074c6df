//! From vectors to numbers: what one request measures of one subject.

use super::protocols::{class_only, whole_prompt, Protocol, Rules};
use super::{name_of, Evaluator, Info, Vectors};
use crate::picture::Picture;
use crate::run::{Run, Stage};
use crate::{Error, Result};
use serde::Serialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

/// A picture, or the file that it is in, which is read when its turn comes.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    Picture(&'a Picture),
    File(&'a Path),
}

/// A picture with what it was to show.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    pub source: Source<'a>,
    /// The prompt, with `{}` in the place of the identifier: "a {} dog in the snow". Empty if it is not known.
    pub text: &'a str,
}

impl Source<'_> {
    pub(super) fn read(&self) -> Result<Cow<'_, Picture>> {
        match self {
            Source::Picture(picture) => Ok(Cow::Borrowed(picture)),
            Source::File(path) => Picture::load(path).map(Cow::Owned),
        }
    }
}

impl<'a> Item<'a> {
    pub fn picture(picture: &'a Picture, text: &'a str) -> Self {
        Item { source: Source::Picture(picture), text }
    }

    pub fn file(path: &'a Path, text: &'a str) -> Self {
        Item { source: Source::File(path), text }
    }
}

/// What is to be measured of one subject.
#[derive(Clone, Debug, Default)]
pub struct Request<'a> {
    pub protocol: Protocol,
    /// The subject's word in prompts, for the scores that read the whole prompt.
    pub identifier: Option<&'a str>,
    /// Drawn of the subject.
    pub pictures: Vec<Item<'a>>,
    /// What the subject was taught with.
    pub references: Vec<Item<'a>>,
    /// Drawn with the subject applied, of prompts that name only its class.
    pub class_pictures: Vec<Item<'a>>,
    /// The same drawn by the model without the subject.
    pub untouched: Vec<Item<'a>>,
}

/// Scores of one subject. What a network that is not there would say is None.
#[derive(Clone, Debug, Serialize)]
pub struct Scores {
    pub protocol: &'static str,
    pub rules: Rules,
    /// Pictures that could be read, and texts among them that differ.
    pub pictures: usize,
    pub references: usize,
    pub texts: usize,
    #[serde(flatten)]
    pub means: Similarities,
    /// Pictures that are as like a reference as the two references that are most alike, or more. None without two references.
    pub copies: Option<usize>,
    /// How like a reference that is.
    pub copy_threshold: Option<f64>,
    /// The references among themselves, what good pictures come near and only copies exceed; and whether the networks look
    /// as they should: over DreamBooth's folders DINO is 0.774 and CLIP-I 0.885.
    pub real: Option<Real>,
    pub leakage: Option<Leakage>,
    /// How different pictures of the same text look: LPIPS of all pairs, the mean over the texts with several. DreamBooth's DIV.
    pub diversity: Option<f64>,
    pub each: Vec<Scored>,
    pub failed: Vec<Failed>,
    pub networks: Info,
}

/// Cosines of one picture, or their means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Similarities {
    /// DINO, to the references: the mean over them, the first one, the most alike.
    pub dino: Option<f64>,
    pub dino_one: Option<f64>,
    pub dino_max: Option<f64>,
    /// CLIP, to the references, likewise.
    pub clip_i: Option<f64>,
    pub clip_i_one: Option<f64>,
    pub clip_i_max: Option<f64>,
    /// CLIP, to the text that the protocol reads.
    pub clip_t: Option<f64>,
    /// To the text without the identifier, and to the whole prompt if the identifier is known.
    pub clip_t_class: Option<f64>,
    pub clip_t_prompt: Option<f64>,
}

impl Similarities {
    fn fields(&mut self) -> [&mut Option<f64>; 9] {
        [
            &mut self.dino,
            &mut self.dino_one,
            &mut self.dino_max,
            &mut self.clip_i,
            &mut self.clip_i_one,
            &mut self.clip_i_max,
            &mut self.clip_t,
            &mut self.clip_t_class,
            &mut self.clip_t_prompt,
        ]
    }

    /// The mean of each field over those that have it.
    fn mean(all: &[Similarities]) -> Similarities {
        let mut mean = Similarities::default();
        for (i, field) in mean.fields().into_iter().enumerate() {
            let values = all.iter().filter_map(|one| *{ *one }.fields()[i]);
            *field = average(values);
        }
        mean
    }
}

/// One picture's scores.
#[derive(Clone, Debug, Serialize)]
pub struct Scored {
    /// The file, or "picture 3", counted from 1.
    pub name: String,
    pub text: String,
    #[serde(flatten)]
    pub similarities: Similarities,
    /// Which reference it is most like, from 0 among those that could be read.
    pub nearest: Option<usize>,
    pub copy: Option<bool>,
}

/// References against each other, each pair once.
#[derive(Clone, Debug, Serialize)]
pub struct Real {
    pub pairs: usize,
    pub dino: Option<f64>,
    pub clip_i: Option<f64>,
}

/// How far the subject has taken over its class: what prompts draw that do not name it.
#[derive(Clone, Debug, Serialize)]
pub struct Leakage {
    pub pictures: usize,
    pub untouched_pictures: usize,
    /// DINO of class pictures to the references: DreamBooth's PRES.
    pub pres: Option<f64>,
    /// The same for pictures by the model without the subject.
    pub untouched: Option<f64>,
    /// Of the way from there to the subject's own pictures, how much the class has gone: 0, the class is what it was; 1, every
    /// member of the class is the subject. Above 0.3 teach less, or with prior preservation. None unless the subject's
    /// pictures are more like the references than the untouched ones.
    pub share: Option<f64>,
}

/// A picture that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failed {
    /// "picture", "reference", "class_picture" or "untouched".
    pub role: &'static str,
    pub name: String,
    pub message: String,
}

const ROLES: [&str; 4] = ["picture", "reference", "class_picture", "untouched"];

pub(super) fn score(evaluator: &Evaluator, request: &Request, run: &mut Run) -> Result<Scores> {
    let protocol = request.protocol;
    let groups = [&request.pictures, &request.references, &request.class_pictures, &request.untouched];
    for (group, what) in groups.iter().zip(["pictures", "references"]) {
        if group.is_empty() {
            return Err(Error::invalid(what, "there are none"));
        }
    }
    if protocol == Protocol::C && request.references.len() != 1 {
        let found = request.references.len();
        let message =
            format!("protocol C compares pictures with the one that they were made of; {found} are given, give one");
        return Err(Error::invalid("references", message));
    }

    let eyes = evaluator.eyes(protocol);
    let looks = if evaluator.lpips.is_some() { request.pictures.len() } else { 0 };
    let total = (groups.iter().map(|g| g.len()).sum::<usize>() + looks) as u64;
    let (mut done, mut failed, mut read) = (0, vec![], vec![]);
    for (group, role) in groups.into_iter().zip(ROLES) {
        let sources: Vec<Source> = group.iter().map(|item| item.source).collect();
        let made = evaluator.vectors(&sources, eyes, run, (done, total))?;
        done += group.len() as u64;
        read.push(sort(group, role, made, &mut failed)?);
    }
    let [pictures, references, class_pictures, untouched] = <[Vec<Seen>; 4]>::try_from(read).unwrap_or_default();

    let wanted = Texts::of(&pictures, request);
    let texts = evaluator.texts(&wanted.all(), &run.control())?;
    let real = Real::of(&references);
    let copy_threshold =
        pairs(&references).filter_map(|(a, b)| cosine(&a.vectors.dino, &b.vectors.dino)).reduce(f64::max);
    let each: Vec<Scored> = pictures
        .iter()
        .zip(&wanted.0)
        .map(|(picture, wanted)| compare(picture, &references, wanted, &texts, copy_threshold, protocol))
        .collect();
    let means = mean(&each, protocol);
    let copies = copy_threshold.map(|_| each.iter().filter(|s| s.copy == Some(true)).count());
    let leakage = Leakage::of(&class_pictures, &untouched, &references, means.dino);
    let mut by_text: BTreeMap<&str, Vec<Source>> = BTreeMap::new();
    for picture in &pictures {
        by_text.entry(picture.item.text).or_default().push(picture.item.source);
    }
    let mut diversities = vec![];
    for sources in by_text.values() {
        diversities.extend(evaluator.diversity(sources, run, (done, total))?);
        done += if looks > 0 { sources.len() as u64 } else { 0 };
    }
    run.report(Stage::Score, total, total, None)?;
    let side = |n: &Option<super::NetworkInfo>| n.as_ref().map_or(224, |n| n.side as u32);
    let networks = evaluator.info().clone();
    Ok(Scores {
        protocol: protocol.name(),
        rules: protocol.rules(side(&networks.dino), side(&networks.clip)),
        pictures: pictures.len(),
        references: references.len(),
        texts: by_text.len(),
        means,
        copies,
        copy_threshold,
        real,
        leakage,
        diversity: average(diversities.into_iter()),
        each,
        failed,
        networks,
    })
}

/// A picture that could be read.
struct Seen<'a> {
    name: String,
    item: Item<'a>,
    vectors: Vectors,
}

/// Those of a group that could be read; the others go to `failed`. An error if pictures or references are needed and none
/// could be.
fn sort<'a>(
    group: &[Item<'a>],
    role: &'static str,
    made: Vec<Result<Vectors>>,
    failed: &mut Vec<Failed>,
) -> Result<Vec<Seen<'a>>> {
    let (mut seen, mut first) = (vec![], None);
    for ((i, item), made) in group.iter().enumerate().zip(made) {
        let name = match item.source {
            Source::File(path) => name_of(path),
            Source::Picture(_) => format!("{} {}", role.replace('_', " "), i + 1),
        };
        match made {
            Ok(vectors) => seen.push(Seen { name, item: *item, vectors }),
            Err(error) => {
                failed.push(Failed { role, name, message: error.to_string() });
                first.get_or_insert(error);
            }
        }
    }
    match first {
        Some(error) if seen.is_empty() && (role == ROLES[0] || role == ROLES[1]) => Err(error),
        _ => Ok(seen),
    }
}

/// What CLIP reads for each picture.
struct Texts(Vec<Wanted>);

struct Wanted {
    class: Option<String>,
    prompt: Option<String>,
    braces: Option<String>,
}

impl Texts {
    fn of(pictures: &[Seen], request: &Request) -> Self {
        let wanted = |picture: &Seen| {
            let text = Some(picture.item.text).filter(|t| !t.trim().is_empty());
            Wanted {
                class: text.map(class_only),
                prompt: text.zip(request.identifier).map(|(text, word)| whole_prompt(text, word)),
                braces: text.filter(|_| request.protocol.keeps_braces()).map(str::to_owned),
            }
        };
        Texts(pictures.iter().map(wanted).collect())
    }

    fn all(&self) -> Vec<&str> {
        self.0.iter().flat_map(|w| [&w.class, &w.prompt, &w.braces]).filter_map(|t| t.as_deref()).collect()
    }
}

fn compare(
    picture: &Seen,
    references: &[Seen],
    wanted: &Wanted,
    texts: &BTreeMap<&str, Vec<f32>>,
    copy_threshold: Option<f64>,
    protocol: Protocol,
) -> Scored {
    let to_references = |of: fn(&Vectors) -> &[f32]| -> Vec<f64> {
        references.iter().filter_map(|r| cosine(of(&picture.vectors), of(&r.vectors))).collect()
    };
    let (dino, clip) = (to_references(|v| &v.dino), to_references(|v| &v.clip));
    let to_text = |text: &Option<String>| {
        let vector = texts.get(text.as_deref()?)?;
        cosine(&picture.vectors.clip, vector)
    };
    let most = |all: &[f64]| all.iter().copied().reduce(f64::max);
    let clip_t_class = to_text(&wanted.class);
    let similarities = Similarities {
        dino: average(dino.iter().copied()),
        dino_one: dino.first().copied(),
        dino_max: most(&dino),
        clip_i: average(clip.iter().copied()),
        clip_i_one: clip.first().copied(),
        clip_i_max: most(&clip),
        clip_t: if protocol.keeps_braces() { to_text(&wanted.braces) } else { clip_t_class },
        clip_t_class,
        clip_t_prompt: to_text(&wanted.prompt),
    };
    let by_network = if dino.is_empty() { &clip } else { &dino };
    Scored {
        name: picture.name.clone(),
        text: picture.item.text.into(),
        similarities,
        nearest: by_network.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(i, _)| i),
        copy: copy_threshold.zip(similarities.dino_max).map(|(threshold, found)| found >= threshold),
    }
}

/// Means over pictures; of protocol D over the pictures of each prompt first.
fn mean(each: &[Scored], protocol: Protocol) -> Similarities {
    if protocol != Protocol::D {
        return Similarities::mean(&each.iter().map(|s| s.similarities).collect::<Vec<_>>());
    }
    let mut by_text: BTreeMap<&str, Vec<Similarities>> = BTreeMap::new();
    for scored in each {
        by_text.entry(&scored.text).or_default().push(scored.similarities);
    }
    Similarities::mean(&by_text.values().map(|all| Similarities::mean(all)).collect::<Vec<_>>())
}

impl Real {
    fn of(references: &[Seen]) -> Option<Real> {
        let mean = |of: fn(&Vectors) -> &[f32]| {
            average(pairs(references).filter_map(|(a, b)| cosine(of(&a.vectors), of(&b.vectors))))
        };
        let pairs = pairs(references).count();
        (pairs > 0).then(|| Real { pairs, dino: mean(|v| &v.dino), clip_i: mean(|v| &v.clip) })
    }
}

impl Leakage {
    fn of(class: &[Seen], untouched: &[Seen], references: &[Seen], subject: Option<f64>) -> Option<Leakage> {
        if class.is_empty() {
            return None;
        }
        let mean = |pictures: &[Seen]| {
            let all =
                pictures.iter().flat_map(|p| references.iter().map(move |r| cosine(&p.vectors.dino, &r.vectors.dino)));
            average(all.flatten())
        };
        let (pres, before) = (mean(class), mean(untouched));
        let share = pres
            .zip(before)
            .zip(subject)
            .and_then(|((pres, before), subject)| (subject > before).then(|| (pres - before) / (subject - before)));
        Some(Leakage { pictures: class.len(), untouched_pictures: untouched.len(), pres, untouched: before, share })
    }
}

/// Each two of them once.
fn pairs<'a, 'b>(all: &'a [Seen<'b>]) -> impl Iterator<Item = (&'a Seen<'b>, &'a Seen<'b>)> {
    all.iter().enumerate().flat_map(move |(i, a)| all[i + 1..].iter().map(move |b| (a, b)))
}

fn average(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, n) = values.fold((0.0, 0u64), |(sum, n), v| (sum + v, n + 1));
    (n > 0).then(|| sum / n as f64)
}

/// None if there is no vector of one of them.
fn cosine(a: &[f32], b: &[f32]) -> Option<f64> {
    if a.is_empty() || a.len() != b.len() {
        return None;
    }
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let sizes = (dot(a, a) * dot(b, b)).sqrt();
    Some(if sizes > 0.0 { dot(a, b) / sizes } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(text: &'static str, dino: &[f32]) -> Seen<'static> {
        let vectors = Vectors { dino: dino.to_vec(), clip: vec![] };
        Seen { name: text.into(), item: Item { source: Source::File(Path::new("x")), text }, vectors }
    }

    fn scored(text: &str, dino: f64) -> Scored {
        let similarities = Similarities { dino: Some(dino), ..Default::default() };
        Scored { name: text.into(), text: text.into(), similarities, nearest: None, copy: None }
    }

    #[test]
    fn a_picture_as_like_a_reference_as_the_references_are_alike_is_a_copy() {
        let references = [seen("", &[1.0, 0.0]), seen("", &[1.0, 1.0])];
        let threshold =
            pairs(&references).filter_map(|(a, b)| cosine(&a.vectors.dino, &b.vectors.dino)).reduce(f64::max);
        let (none, texts) = (Wanted { class: None, prompt: None, braces: None }, BTreeMap::new());
        let copy = |dino: &[f32]| compare(&seen("", dino), &references, &none, &texts, threshold, Protocol::B).copy;
        assert_eq!(copy(&[1.0, 0.1]), Some(true));
        assert_eq!(copy(&[0.0, -1.0]), Some(false));
        let alone = compare(&seen("", &[1.0, 0.0]), &references[..1], &none, &texts, None, Protocol::B);
        assert_eq!((alone.copy, alone.similarities.dino), (None, Some(1.0)));
    }

    #[test]
    fn only_protocol_d_takes_the_mean_of_each_prompt_first() {
        let each = [scored("a", 1.0), scored("a", 1.0), scored("b", 0.4)];
        assert!((mean(&each, Protocol::A).dino.unwrap() - 0.8).abs() < 1e-12);
        assert!((mean(&each, Protocol::D).dino.unwrap() - 0.7).abs() < 1e-12);
    }

    #[test]
    fn leakage_is_how_far_the_class_has_gone_towards_the_subject() {
        let reference = [seen("", &[1.0, 0.0])];
        let at = |cosine: f32| seen("", &[cosine, (1.0 - cosine * cosine).sqrt()]);
        let of = |class: f32, before: f32, subject| Leakage::of(&[at(class)], &[at(before)], &reference, Some(subject));
        assert!((of(0.5, 0.2, 0.8).unwrap().share.unwrap() - 0.5).abs() < 1e-6);
        assert!(of(0.2, 0.2, 0.8).unwrap().share.unwrap().abs() < 1e-6);
        assert_eq!(of(0.2, 0.2, 0.1).unwrap().share, None);
        assert!(Leakage::of(&[], &[at(0.5)], &reference, Some(0.8)).is_none());
        assert_eq!(Leakage::of(&[at(0.5)], &[], &reference, Some(0.8)).unwrap().share, None);
    }

    #[test]
    fn what_no_network_says_is_none() {
        assert_eq!(cosine(&[], &[]), None);
        assert_eq!(cosine(&[0.0], &[1.0]), Some(0.0));
        assert_eq!(Similarities::mean(&[Similarities::default()]), Similarities::default());
    }
}
