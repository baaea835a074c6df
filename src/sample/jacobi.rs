//! Speculative decoding: several drafts are verified in one pass, and the result is exactly what drawing one after the other
//! gives, token for token or in distribution.
//!
//! A pass feeds the last known symbol and drafts for the places behind it, and draws each of these places anew from the scores
//! that the pass gives (Jacobi iteration). As long as what is drawn equals the draft that stood there, the scores of the next
//! place were the true ones, so its draw is known; the first that differs is known too, and later ones are the drafts of the
//! next pass (Teng et al., arXiv 2410.01699).
//!
//! How a place is drawn anew makes the two modes. *Shared noise*: by the Gumbel noise of its seed and position, the same in
//! every pass. What becomes known is then what sequential decoding draws. *Coupled*: by the rule of [`Coupling`], which keeps
//! a draft more often. What a draft was drawn from depends on nothing but earlier places, so each known symbol has the
//! model's own distribution given those before it (An et al., arXiv 2510.24211).

use super::coupling::Coupling;
use super::decoder::{Decoder, Raster};
use super::noise::Noise;
use crate::ops::fused::{Asked, Of};
use crate::random::coupling;
use crate::Result;
use candle_core::Tensor;

/// One picture's symbols.
struct Line {
    seed: u64,
    /// Those that are settled.
    known: Vec<u32>,
    /// Guesses at those that follow, as many as the window is wide; none before the first pass.
    drafts: Vec<u32>,
    /// Symbols that the last pass settled.
    settled: usize,
}

/// How places are drawn.
enum Rule {
    Shared(Noise),
    Coupled {
        coupling: Coupling,
        /// What the last pass drew its places from, [pictures, n, codes].
        last: Option<Tensor>,
    },
}

/// Pictures being drawn with a window.
pub struct Jacobi {
    lines: Vec<Line>,
    rule: Rule,
    window: usize,
    raster: Raster,
    /// Passes so far.
    round: u32,
}

impl Jacobi {
    /// Slots that the cache needs: drafts may stand behind the last symbol.
    pub fn room(raster: &Raster, window: usize) -> usize {
        raster.places() + window
    }

    /// For pictures with these seeds. With `shared` noise the result is that of sequential decoding; otherwise draws are coupled.
    pub fn new(decoder: &Decoder, seeds: &[u64], raster: Raster, window: usize, shared: bool) -> Result<Self> {
        let line = |&seed: &u64| Line { seed, known: vec![], drafts: vec![], settled: 0 };
        let (link, codes) = (&decoder.link, decoder.codes());
        let rule = match shared {
            // The places of the window, and as many guesses behind it.
            true => Rule::Shared(Noise::new(link, seeds, 2 * window, codes)?),
            false => Rule::Coupled { coupling: Coupling::new(link, codes)?, last: None },
        };
        Ok(Jacobi { lines: seeds.iter().map(line).collect(), rule, window, raster, round: 0 })
    }

    /// Symbols of a picture that have to be known: all but the last newline.
    fn places(&self) -> usize {
        self.raster.places() - usize::from(self.raster.closes_rows())
    }

    /// One pass: the codes that it settled of each picture. `first` are the scores of the first place, for the first pass.
    pub fn pass(&mut self, decoder: &mut Decoder, first: Option<&Tensor>) -> Result<Vec<Vec<u32>>> {
        let left = self.lines.iter().map(|line| self.places() - line.known.len()).max().unwrap_or(0);
        let n = if first.is_some() { 1 } else { self.window.min(left) };
        let pictures = self.lines.len();
        let asked: Vec<_> = (0..pictures).map(|picture| self.ask(decoder, picture, n)).collect();
        if let Rule::Shared(noise) = &mut self.rule {
            let until = |line: &Line| self.raster.codes_before(line.known.len() + n + self.window) as u32;
            let until: Vec<u32> = self.lines.iter().map(until).collect();
            noise.reach(&decoder.link, &until)?;
        }
        // The slots for each row of the batch; then all that is asked of one kind, picture after picture, so that each lies together.
        let slots = (0..decoder.branches() * pictures).map(|row| asked[row % pictures].0);
        let kinds = asked.first().map_or(0, |(_, kinds)| kinds.len());
        let rest = (0..kinds).flat_map(|kind| asked.iter().flat_map(move |(_, kinds)| kinds[kind].iter().copied()));
        let all: Vec<u32> = slots.chain(rest).collect();
        let length = all.len();
        let all = decoder.link.upload(all, length)?;
        let mut at = 0;
        let mut part = |rows: usize, count: usize| {
            at += rows * count;
            all.narrow(0, at - rows * count, rows * count)?.reshape((rows, count))
        };
        let (slots, symbols) = (part(decoder.branches() * pictures, 1)?, part(pictures, n)?);
        let scores = match first {
            Some(scores) => scores.clone(),
            None => {
                let filled = |line: &Line| decoder.slot(line.known.len() - 1);
                let filled: Vec<usize> = self.lines.iter().map(filled).collect();
                decoder.feed_at(&filled, &slots, &symbols)?
            }
        };
        let drawn = match &mut self.rule {
            // A place behind the window is guessed at by its own noise, and what the last place was drawn from.
            Rule::Shared(noise) => {
                let of = part(pictures, n + self.window)?;
                decoder.scorer.draw(&scores, noise, &Of::Rows(&of), n + self.window)?
            }
            Rule::Coupled { coupling, last } => {
                let (drafts, from, keep) = (part(pictures, n)?, part(pictures, n)?, part(pictures, n)?);
                let (anew, behind) = (part(pictures, n)?, part(pictures, self.window)?);
                let asked = Asked { drafts: &drafts, from: &from, keep: &keep, anew: &anew, behind: &behind };
                let (drawn, p) = coupling.places(&scores, last.as_ref(), &asked, &decoder.scorer)?;
                *last = Some(p);
                drawn
            }
        };
        self.round += 1;
        let drawn = decoder.download(&drawn)?;
        Ok(drawn.iter().enumerate().map(|(picture, drawn)| self.settle(decoder, picture, drawn, n)).collect())
    }

    /// What the device needs to know of a picture for a pass over `n` places: the slot of the first symbol fed; and the symbols, and
    /// what the rule needs, one kind after the other.
    fn ask(&self, decoder: &Decoder, picture: usize, n: usize) -> (u32, Vec<Vec<u32>>) {
        let line = &self.lines[picture];
        let known = line.known.len();
        let guesses = || line.drafts.iter().copied().chain(std::iter::repeat(decoder.newline()));
        let symbol = line.known.last().copied().unwrap_or(decoder.newline());
        let symbols = std::iter::once(symbol).chain(guesses()).take(n).collect();
        let (places, behind) = (known..known + n, known + n..known + n + self.window);
        let rest = match &self.rule {
            Rule::Shared(noise) => {
                // Where nothing is drawn, any noise will do.
                let row = |place: usize| noise.row(picture, self.raster.position(place).unwrap_or(0));
                vec![(known..behind.end).map(row).collect()]
            }
            Rule::Coupled { last, .. } => {
                let code = |symbol: u32| if symbol < decoder.codes() as u32 { symbol } else { 0 };
                let before = last.as_ref().map_or(1, |last| last.dims()[1]);
                let from = |i: usize| (picture * before + (i + line.settled).min(before - 1)) as u32;
                let numbers = |which: usize| move |place: usize| coupling(line.seed, place as u32, self.round)[which];
                vec![
                    guesses().take(n).map(code).collect(),
                    (0..n).map(from).collect(),
                    places.clone().map(numbers(0)).collect(),
                    places.map(numbers(1)).collect(),
                    behind.map(numbers(2)).collect(),
                ]
            }
        };
        (decoder.slot(known.saturating_sub(1)) as u32, [vec![symbols], rest].concat())
    }

    /// Takes in what was drawn for the `n` places behind a picture's known symbols, and guesses for the places behind those.
    /// Returns the codes that are known now and were not.
    fn settle(&mut self, decoder: &Decoder, picture: usize, drawn: &[u32], n: usize) -> Vec<u32> {
        let (known, places) = (self.lines[picture].known.len(), self.places());
        let symbol = |i: usize| if self.raster.position(known + i).is_some() { drawn[i] } else { decoder.newline() };
        let symbols: Vec<u32> = (0..drawn.len()).map(symbol).collect();
        let line = &mut self.lines[picture];
        let limit = n.min(places - known);
        // Each draw that meets its draft was made before the right symbols, and so was the next.
        let met = symbols.iter().zip(&line.drafts).take_while(|(drawn, draft)| drawn == draft).count();
        line.settled = (met + 1).min(limit);
        line.known.extend(&symbols[..line.settled]);
        line.drafts = symbols[line.settled..].iter().copied().take(self.window).collect();
        let settled = line.settled;
        (0..settled).filter(|&i| self.raster.position(known + i).is_some()).map(|i| drawn[i]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::family::{Condition, NextToken, Piece, Prediction};
    use crate::model::personalized::Personalized;
    use crate::model::{Model, OpenOptions};
    use crate::random::picture_seed;
    use crate::run::{Control, Run};
    use crate::sample::decoder::Prompts;
    use crate::sample::Options;
    use std::collections::BTreeMap;

    const GRID: (usize, usize) = (2, 2);
    const PROMPT: &str = "a fox";

    fn model() -> Model {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/plain");
        Model::open(
            folder,
            &OpenOptions { device: "cpu".into(), dtype: "f32".into(), keep_quantised: false, ..Default::default() },
            &mut Run::new(),
        )
        .unwrap()
    }

    /// Settings under which a picture of four codes is one of 256.
    fn options() -> Options {
        Options { width: 4, height: 4, guidance: 4.0, top_k: 4, ..Options::default() }
    }

    fn next_token<'a>(view: &'a Personalized) -> &'a dyn NextToken {
        let Prediction::NextToken(model) = view.family.prediction() else { panic!("draws code by code") };
        model
    }

    /// The prompt's condition, and the other one of guidance.
    fn conditions(view: &Personalized) -> (Condition, Condition) {
        let asked = view.condition(PROMPT, options().width, options().height).unwrap();
        let unguided = view.family.unguided(&asked).unwrap();
        (asked, unguided)
    }

    /// The probability of each picture, by plain passes over whole sequences.
    fn exact(view: &Personalized) -> BTreeMap<Vec<u32>, f64> {
        let (model, options) = (next_token(view), options());
        let (asked, unguided) = conditions(view);
        let logits = |before: &Condition, pictures: &[&Vec<u32>]| -> Vec<Vec<f32>> {
            let opening = model.opening(before, (GRID.0 as u32, GRID.1 as u32)).unwrap();
            let opening: Vec<&[Piece]> = vec![&opening; pictures.len()];
            let mut x = model.embed(&opening, None).unwrap();
            let symbols = |codes: &&Vec<u32>| {
                let mut symbols = Vec::new();
                for (i, &code) in codes.iter().enumerate() {
                    symbols.push(code);
                    if (i + 1).is_multiple_of(GRID.1) {
                        symbols.push(model.codes() as u32);
                    }
                }
                symbols
            };
            let symbols: Vec<Vec<u32>> = pictures.iter().map(symbols).collect();
            if !symbols[0].is_empty() {
                let symbols = Tensor::new(symbols, &candle_core::Device::Cpu).unwrap();
                x = Tensor::cat(&[x, model.embed_symbols(&symbols, 1).unwrap()], 1).unwrap();
            }
            let tokens = x.dim(1).unwrap();
            let hidden = model.forward(&x, &model.rotary().causal(tokens).unwrap(), None).unwrap();
            let last = hidden.narrow(1, tokens - 1, 1).unwrap().contiguous().unwrap();
            model.logits(&last).unwrap().squeeze(1).unwrap().to_vec2().unwrap()
        };
        let mut level = BTreeMap::from([(vec![], 1f64)]);
        for _ in 0..GRID.0 * GRID.1 {
            let pictures: Vec<&Vec<u32>> = level.keys().collect();
            let (with, without) = (logits(&asked, &pictures), logits(&unguided, &pictures));
            let mut next = BTreeMap::new();
            for ((picture, probability), (with, without)) in level.iter().zip(with.iter().zip(&without)) {
                let guided = with.iter().zip(without).map(|(c, u)| (u + options.guidance * (c - u)) as f64);
                let mut scored: Vec<(f64, u32)> = guided.zip(0..).collect();
                scored.sort_by(|a, b| b.0.total_cmp(&a.0));
                scored.truncate(options.top_k as usize);
                let weights: Vec<f64> = scored.iter().map(|s| (s.0 / options.temperature as f64).exp()).collect();
                for (weight, &(_, code)) in weights.iter().zip(&scored) {
                    let share = weight / weights.iter().sum::<f64>();
                    next.insert([picture.as_slice(), &[code]].concat(), probability * share);
                }
            }
            level = next;
        }
        level
    }

    /// Pearson's statistic of `batches` x 8192 pictures drawn with a window against the exact distribution, as a number of
    /// standard deviations from what is expected (Wilson and Hilferty's cube root). Pictures expected less than ten times are
    /// counted as one.
    fn deviation(window: usize, batches: u64, broken: bool) -> f64 {
        let model = model();
        let view = Personalized::new(&model, &[]).unwrap();
        let mut options = Options { count: 8192, ..options() };
        let prompts = Prompts { conditions: vec![conditions(&view)], vectors: None };
        let grid = (GRID.0 as u32, GRID.1 as u32);
        let raster = Raster::new(next_token(&view), grid);
        let mut counts: BTreeMap<Vec<u32>, f64> = BTreeMap::new();
        for batch in 0..batches {
            options.seed = batch;
            let (room, stop) = (Jacobi::room(&raster, window), Control::default());
            let (mut decoder, first) = Decoder::new(next_token(&view), &prompts, grid, room, &options, stop).unwrap();
            let seeds: Vec<u64> = (0..options.count).map(|i| picture_seed(options.seed, i)).collect();
            let mut jacobi = Jacobi::new(&decoder, &seeds, raster, window, false).unwrap();
            if let Rule::Coupled { coupling, .. } = &mut jacobi.rule {
                coupling.broken = broken;
            }
            let mut pictures = jacobi.pass(&mut decoder, Some(&first)).unwrap();
            while pictures.iter().any(|codes| codes.len() < GRID.0 * GRID.1) {
                let drawn = jacobi.pass(&mut decoder, None).unwrap();
                pictures.iter_mut().zip(drawn).for_each(|(codes, drawn)| codes.extend(drawn));
            }
            for picture in pictures {
                *counts.entry(picture).or_default() += 1.0;
            }
        }
        let total: f64 = counts.values().sum();
        let (mut statistic, mut cells, mut rare) = (0.0, 0.0, (0.0, 0.0));
        for (picture, probability) in exact(&view) {
            let (found, expected) = (counts.remove(&picture).unwrap_or(0.0), probability * total);
            if expected < 10.0 {
                rare = (rare.0 + found, rare.1 + expected);
            } else {
                statistic += (found - expected).powi(2) / expected;
                cells += 1.0;
            }
        }
        assert!(counts.is_empty(), "{} pictures that cannot be were drawn", counts.len());
        if rare.1 > 0.0 {
            statistic += (rare.0 - rare.1).powi(2) / rare.1;
            cells += 1.0;
        }
        let free: f64 = cells - 1.0;
        let spread = 2.0 / (9.0 * free);
        let deviation = ((statistic / free).cbrt() - (1.0 - spread)) / spread.sqrt();
        println!("window {window}: {total} pictures, {cells} cells, statistic {statistic}, {deviation} deviations");
        deviation
    }

    #[test]
    fn coupled_draws_have_the_models_own_distribution_over_whole_pictures() {
        // 106 496 pictures; 3.1 standard deviations are exceeded once in a thousand.
        assert!(deviation(3, 13, false) < 3.1);
    }

    #[test]
    fn a_rule_that_forgets_what_drafts_were_drawn_from_is_noticed() {
        assert!(deviation(3, 3, true) > 10.0);
    }
}
