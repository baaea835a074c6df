//! Infinity as the library sees a model family.
//!
//! A condition's pieces are the tokens that the text encoder reads, and behind the token of a subject's word its vectors, which take
//! the place of what the encoder makes of that token. Tokens behind the encoder's vocabulary are rows of the unconditional text. An
//! example's pieces are its condition, height and width of its last grid, and the codes of all its grids.

use super::bsq::{Bsq, Map};
use super::drawing::{Codes, Drawing, Settings as Choosing};
use super::encoder::Encoder;
use super::footprint::InfinityFootprint;
use super::lesson::InfinityPass;
use super::schedule::Schedule;
use super::settings::Settings;
use super::text::{Prompt, Text};
use super::transformer::Transformer;
use super::vae::Vae;
use crate::device::to_host;
use crate::model::family::{
    Condition, Example, Facts, Family, Mode, NextScale, Pass, Piece, Prediction, Scales, Teacher,
};
use crate::model::footprint::Footprint;
use crate::model::words::Word;
use crate::picture::{Crop, Picture};
use crate::run::{Control, Run};
use crate::tokens::{Beside, Tokens};
use crate::weights::Weights;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor, D};
use std::sync::Arc;

/// An opened model. A clone shares everything.
#[derive(Clone)]
pub struct Infinity {
    pub transformer: Transformer,
    pub bsq: Bsq,
    pub facts: Facts,
    vae: Arc<Vae>,
    text: Arc<Text>,
    encoder: Arc<Encoder>,
    footprint: Arc<InfinityFootprint>,
}

/// What stands before a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    Prompt(Prompt),
    /// So many rows of the unconditional text.
    Unguided(usize),
}

impl Infinity {
    pub fn new(
        mut transformer: Transformer,
        vae: Vae,
        (text, encoder): (Text, Encoder),
        rows: usize,
        settings: &Settings,
        footprint: Arc<InfinityFootprint>,
    ) -> Self {
        let config = &transformer.config;
        let folded = config.bits == 4 * vae.shape().d;
        let stride = vae.shape().stride();
        let facts = Facts {
            parameters: config.parameters(),
            vocabulary: rows,
            codebook: footprint.codebook().0,
            unit: stride * if folded { 2 } else { 1 },
            patch: stride,
            width: config.text,
            layers: config.blocks.len(),
            can_decode: true,
        };
        let bsq = Bsq { d: vae.shape().d, folded, area: settings.next_input == "area" };
        let each_chunk = settings.level_embedding == "each_chunk";
        transformer.each_chunk = each_chunk;
        Infinity {
            transformer,
            bsq,
            facts,
            vae: Arc::new(vae),
            text: Arc::new(text),
            encoder: Arc::new(encoder),
            footprint,
        }
    }

    /// The schedule whose pictures have this last grid of codes, (height, width).
    pub fn schedule_of(&self, (h, w): (u32, u32)) -> Result<Schedule> {
        let fold = if self.bsq.folded { 2 } else { 1 };
        let grid = (h as usize / fold, w as usize / fold);
        Schedule::of_grid(grid).filter(|s| self.bsq.grid(s.last()) == (h as usize, w as usize)).ok_or_else(|| {
            Error::invalid("tokens", format!("{h}x{w} codes are no grid that the model's pictures end with"))
        })
    }

    /// The schedule of tokens, all of whose grids must be there.
    fn whole(&self, tokens: &Tokens) -> Result<Schedule> {
        let schedule = self.schedule_of((tokens.height(), tokens.width()))?;
        match tokens.grids() == self.grids_of(&schedule) {
            true => Ok(schedule),
            false => {
                let message =
                    format!("{} grids; a picture of this model has {}", tokens.grids().len(), schedule.scales().len());
                Err(Error::invalid("tokens", message))
            }
        }
    }

    fn grids_of(&self, schedule: &Schedule) -> Vec<(u32, u32)> {
        schedule.scales().iter().map(|&s| self.bsq.grid(s)).map(|(h, w)| (h as u32, w as u32)).collect()
    }

    pub fn reading(&self, pieces: &[Piece]) -> Result<Reading> {
        match pieces.first() {
            Some(Piece::Token(first)) if *first as usize >= self.facts.vocabulary => {
                Ok(Reading::Unguided(pieces.len()))
            }
            Some(_) => Ok(Reading::Prompt(Prompt::of_pieces(pieces)?)),
            None => Err(Error::internal("a picture without a text")),
        }
    }

    /// What the encoder makes of prompts; of the unconditional text nothing.
    fn read_texts(&self, texts: &[Reading]) -> Result<Vec<Tensor>> {
        let prompts = texts.iter().filter_map(|text| match text {
            Reading::Prompt(prompt) => Some(prompt.ids.as_slice()),
            Reading::Unguided(_) => None,
        });
        self.encoder.features(&prompts.collect::<Vec<_>>())
    }

    /// The features of texts with learned vectors in their places, [n, text] each.
    pub fn features(&self, texts: &[Reading], vectors: Option<&Tensor>) -> Result<Vec<Tensor>> {
        let mut read = self.read_texts(texts)?.into_iter();
        let of = |text: &Reading| match text {
            Reading::Unguided(n) => self.transformer.conditioner.unguided(*n),
            Reading::Prompt(prompt) => {
                let own = read.next().ok_or_else(|| Error::internal("a text that was not read"))?;
                prompt.placed(&own, vectors)
            }
        };
        texts.iter().map(of).collect()
    }

    /// The sizes of pictures, by the sides of their squares in pixels, and the scales of each.
    fn targets(&self) -> Vec<(u32, usize)> {
        let squares = Schedule::all().into_iter().filter(|s| s.last().0 == s.last().1);
        squares.map(|s| (s.last().0 as u32 * self.facts.unit, s.scales().len())).collect()
    }

    /// Scales of pictures whose square has this side.
    fn length(&self, target: u32) -> Result<usize> {
        let targets = self.targets();
        targets.iter().find(|(side, _)| *side == target).map(|(_, length)| *length).ok_or_else(|| {
            let sides = targets.iter().map(|(side, _)| side.to_string()).collect::<Vec<_>>().join(", ");
            Error::invalid("image_size", format!("is {target}; expected one of {sides}"))
        })
    }
}

impl Family for Infinity {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn device(&self) -> &Device {
        self.transformer.device()
    }

    fn footprint(&self) -> Arc<dyn Footprint> {
        self.footprint.clone()
    }

    fn dtype(&self) -> DType {
        DType::F32
    }

    fn weights(&self) -> &Weights {
        &self.transformer.weights
    }

    fn with(&self, weights: Weights) -> Arc<dyn Family> {
        let mut changed = self.clone();
        changed.transformer.weights = weights;
        Arc::new(changed)
    }

    fn grid(&self, width: u32, height: u32) -> Result<(u32, u32)> {
        let (h, w) = self.bsq.grid(Schedule::of_size(width, height, self.facts.unit)?.last());
        Ok((h as u32, w as u32))
    }

    fn pixels(&self, tokens: &Tokens) -> (u32, u32) {
        (tokens.width() * self.facts.patch, tokens.height() * self.facts.patch)
    }

    fn check_target(&self, target: u32) -> Result<()> {
        self.length(target).map(drop)
    }

    /// Of the sizes of this target the one whose ratio is nearest.
    fn fit(&self, picture: &Picture, target: u32, crop: Crop) -> Result<Picture> {
        let length = self.length(target)?;
        let (h, w) = Schedule::near_ratio(f64::from(picture.height()) / f64::from(picture.width()), length).last();
        picture.cover(w as u32 * self.facts.unit, h as u32 * self.facts.unit, crop)
    }

    fn encode(&self, picture: &Picture, run: &Run) -> Result<Tokens> {
        let schedule = Schedule::of_size(picture.width(), picture.height(), self.facts.unit)?;
        let latent = self.vae.encode(&picture.to_tensor(self.device())?, run)?;
        let codes = self.bsq.quantise(&latent, schedule.scales(), None).codes;
        Ok(Tokens::of_grids(&self.grids_of(&schedule), codes.concat())?.with_latent(latent.data))
    }

    /// The picture of tokens. If the grids of a picture are not all there, as small a picture as the last of them.
    fn decode(&self, tokens: &Tokens, run: &Run) -> Result<Picture> {
        let fold = if self.bsq.folded { 2 } else { 1 };
        let grids = tokens.grids();
        if !Schedule::all().iter().any(|schedule| self.grids_of(schedule).starts_with(&grids)) {
            let shown: Vec<String> = grids.iter().map(|(h, w)| format!("{h}x{w}")).collect();
            let message = format!(
                "has grids (height x width) {}; a picture of this model begins with one code and has all grids of its size, or \
                 the first of them",
                shown.join(", ")
            );
            return Err(Error::invalid("tokens", message));
        }
        let scales: Vec<(usize, usize)> =
            grids.iter().map(|(h, w)| ((h / fold) as usize, (w / fold) as usize)).collect();
        let mut rest = tokens.codes();
        let codes = grids.iter().map(|(h, w)| {
            let (own, behind) = rest.split_at((h * w) as usize);
            rest = behind;
            own.to_vec()
        });
        let codes = codes.collect();
        let latent: Map = self.bsq.dequantise(codes, &scales)?.latent;
        Picture::from_tensor(&self.vae.decode(&latent, run)?.squeeze(0)?)
    }

    fn condition(&self, prompt: &str, words: &[Word], _width: u32, _height: u32) -> Result<Condition> {
        let prompt = self.text.prompt(prompt, words)?;
        // The other branch of guidance is as long.
        self.transformer.conditioner.unguided(prompt.length())?;
        Ok(Condition { pieces: prompt.pieces() })
    }

    fn knows(&self, word: &str) -> Result<bool> {
        self.text.knows(word)
    }

    /// As many rows of the unconditional text.
    fn unguided(&self, of: &Condition) -> Result<Condition> {
        let n = match self.reading(&of.pieces)? {
            Reading::Prompt(prompt) => prompt.length(),
            Reading::Unguided(n) => n,
        };
        let first = self.facts.vocabulary as u32;
        Ok(Condition { pieces: (first..first + n as u32).map(Piece::Token).collect() })
    }

    fn read(&self, conditions: &[Condition]) -> Result<()> {
        let readings =
            conditions.iter().map(|condition| self.reading(&condition.pieces)).collect::<Result<Vec<_>>>()?;
        self.read_texts(&readings).map(drop)
    }

    /// What the encoder makes of the text, the end left out.
    fn word_rows(&self, text: &str) -> Result<Tensor> {
        let Some(mut ids) = self.text.known(text)? else {
            return Err(Error::invalid("initial_word", format!("the model's vocabulary does not know \"{text}\"")));
        };
        let n = ids.len();
        ids.push(self.text.end());
        Ok(self.encoder.features(&[&ids])?.swap_remove(0).narrow(0, 0, n)?)
    }

    fn usual_size(&self, texts: &[String]) -> Result<f32> {
        let (mut squares, mut rows) = (0.0, 0);
        let prompts = texts.iter().map(|text| self.text.prompt(text, &[])).collect::<Result<Vec<_>>>()?;
        let ids: Vec<&[u32]> = prompts.iter().map(|prompt| prompt.ids.as_slice()).collect();
        for features in self.encoder.features(&ids)? {
            let means = to_host(&features.sqr()?.mean(D::Minus1)?)?.to_vec1::<f32>()?;
            rows += means.len();
            squares += means.into_iter().map(f64::from).sum::<f64>();
        }
        match rows {
            0 => Err(Error::internal("the tokenizer makes nothing of the prompts")),
            n => Ok((squares / n as f64).sqrt() as f32),
        }
    }

    fn example(&self, condition: &Condition, tokens: &Tokens) -> Result<Example> {
        self.whole(tokens)?;
        let mut pieces = condition.pieces.clone();
        pieces.extend([Piece::Token(tokens.height()), Piece::Token(tokens.width())]);
        let start = pieces.len();
        pieces.extend(tokens.codes().iter().map(|&code| Piece::Code(code)));
        let labelled = start..pieces.len();
        let (latent, learned) = (tokens.latent().clone(), tokens.shown().clone());
        Ok(Example { pieces, labelled, latent, learned, teacher: Beside::default() })
    }

    fn teach(
        &self,
        condition: &Condition,
        (width, height): (u32, u32),
        seed: u64,
        teacher: Teacher,
        stop: &Control,
    ) -> Result<Option<Example>> {
        let schedule = Schedule::of_size(width, height, self.facts.unit)?;
        let features = self.features(&[self.reading(&condition.pieces)?], None)?.swap_remove(0);
        let taught = teacher.teach(&self.transformer, self.bsq, &schedule, &features, seed, stop)?;
        let tokens = Tokens::of_grids(&self.grids_of(&schedule), taught.codes.concat())?;
        Ok(Some(Example { teacher: Beside(Some(Arc::new(taught.logits))), ..self.example(condition, &tokens)? }))
    }

    fn pass<'a>(
        &'a self,
        group: &[(&Example, f32)],
        vectors: Option<&Tensor>,
        how: &Mode,
    ) -> Result<Box<dyn Pass + 'a>> {
        Ok(Box::new(InfinityPass::new(self, group, vectors, how)?))
    }

    fn prediction(&self) -> Prediction<'_> {
        Prediction::NextScale(self)
    }
}

impl NextScale for Infinity {
    fn grids(&self, last: (u32, u32)) -> Result<Vec<(u32, u32)>> {
        Ok(self.grids_of(&self.schedule_of(last)?))
    }

    fn draw(&self, what: &Scales, seen: &mut dyn FnMut(&[Tokens]) -> Result<()>) -> Result<Vec<Tokens>> {
        let schedule = self.schedule_of(what.grid)?;
        let grids = self.grids_of(&schedule);
        let readings = |of: fn(&(Condition, Condition)) -> &Condition| {
            what.conditions.iter().map(|both| self.reading(&of(both).pieces)).collect::<Result<Vec<_>>>()
        };
        let features = self.features(&readings(|both| &both.0)?, what.vectors)?;
        let against = self.features(&readings(|both| &both.1)?, what.vectors)?;
        let drawing = Drawing {
            transformer: &self.transformer,
            bsq: self.bsq,
            schedule: &schedule,
            features: &features,
            unguided: Some(&against),
            guidance: what.guidance,
            apart: false,
            stop: what.stop.clone(),
        };
        let choosing =
            Choosing { guidance: what.guidance.to_vec(), temperature: what.temperature.to_vec(), top_p: what.top_p };
        let tokens = |codes: &[Vec<u32>]| Tokens::of_grids(&grids[..codes.len()], codes.concat());
        let mut watch = |codes: &[Codes]| -> Result<()> {
            seen(&codes.iter().map(|codes| tokens(codes)).collect::<Result<Vec<_>>>()?)
        };
        let drawn = drawing.draw(&choosing, what.seeds, &mut watch)?;
        drawn.iter().map(|codes| tokens(codes)).collect()
    }
}
