//! The transformer in the middle of drawing: symbols go in, scores for the places behind them come out.

use super::link::Link;
use super::logits::{Scorer, UNSOUND};
use super::Options;
use crate::model::cache::Cache;
use crate::model::family::{Condition, NextToken, Piece};
use crate::model::places::{Context, Places, Span};
use crate::ops::together;
use crate::run::Control;
use crate::{Error, Result};
use candle_core::Tensor;

/// What the pictures of one call share: one batch, in which the rows of all pictures under their prompts come first, then,
/// under guidance, their rows without a prompt.
///
/// All pictures begin in the same slot of the cache. A row whose prompt is shorter than the longest, or that has none, begins
/// later: the slots before its first token are hidden from it, and its positions count from there.
///
/// A *place* is where a symbol stands in a picture; in families that close the rows of a picture, the newlines have places.
pub struct Decoder<'v> {
    model: &'v dyn NextToken,
    pub link: Link,
    pub scorer: Scorer,
    pub pictures: usize,
    /// The slot of every picture's first code.
    start: usize,
    cache: Cache,
    places: Places,
}

/// The places of a picture: rows of codes, each closed by a newline in families that do so.
#[derive(Clone, Copy, Debug)]
pub struct Raster {
    pub height: usize,
    pub width: usize,
    /// Symbols of a row.
    columns: usize,
}

impl Raster {
    pub fn new(model: &dyn NextToken, (height, width): (u32, u32)) -> Self {
        let (height, width) = (height as usize, width as usize);
        Raster { height, width, columns: width + usize::from(model.closes_rows()) }
    }

    pub fn closes_rows(&self) -> bool {
        self.columns > self.width
    }

    pub fn codes(&self) -> usize {
        self.height * self.width
    }

    /// All places, that of the last newline included.
    pub fn places(&self) -> usize {
        self.height * self.columns
    }

    /// The number of the code at a place: how many codes stand before it. None where a row ends, and behind the picture.
    pub fn position(&self, place: usize) -> Option<u32> {
        let (row, column) = (place / self.columns, place % self.columns);
        (column < self.width && row < self.height).then(|| (row * self.width + column) as u32)
    }

    /// Codes that stand before a place.
    pub fn codes_before(&self, place: usize) -> usize {
        let (row, column) = (place / self.columns, place % self.columns);
        (row * self.width + column.min(self.width)).min(self.codes())
    }
}

/// What is read before the pictures: for each prompt its condition, and what stands there in the other branch of guidance.
pub struct Prompts<'v> {
    pub conditions: Vec<(Condition, Condition)>,
    /// The learned vectors in them.
    pub vectors: Option<&'v Tensor>,
}

impl<'v> Decoder<'v> {
    /// Reads the prompts, `options.count` pictures of each; `room` is for how many symbols the cache has slots. Also returns the
    /// scores of the pictures' first place, [pictures, 1, codes].
    pub fn new(
        model: &'v dyn NextToken,
        prompts: &Prompts,
        grid: (u32, u32),
        room: usize,
        options: &Options,
        stop: Control,
    ) -> Result<(Self, Tensor)> {
        let link = Link::new(&model.rotary().device);
        let scorer = Scorer::new(&link, options)?;

        // One row for each prompt, and one for each thing that stands in place of some: they are multiplied when they are read.
        let mut read: Vec<Vec<Piece>> = Vec::new();
        let mut row_of = |condition: &Condition, shared: bool| -> Result<u32> {
            let opening = model.opening(condition, grid)?;
            let known = if shared { read.iter().position(|row| *row == opening) } else { None };
            Ok(known.unwrap_or_else(|| {
                read.push(opening);
                read.len() - 1
            }) as u32)
        };
        let conditions = &prompts.conditions;
        let mut rows = conditions.iter().map(|(asked, _)| row_of(asked, false)).collect::<Result<Vec<u32>>>()?;
        if scorer.guided() {
            for (_, unguided) in conditions {
                rows.push(row_of(unguided, true)?);
            }
        }
        let start = read.iter().map(Vec::len).max().unwrap_or(0);
        let begin: Vec<u32> = read.iter().map(|row| (start - row.len()) as u32).collect();
        let filled = |row: Vec<Piece>| [&vec![model.filler(); start - row.len()], row.as_slice()].concat();
        let read: Vec<Vec<Piece>> = read.into_iter().map(filled).collect();
        let mut prefix = link.buffer(|_| model.new_cache(read.len(), start))?;
        let context = opening_context(model, &begin, start)?.stopped_by(stop.clone());
        let read: Vec<&[Piece]> = read.iter().map(Vec::as_slice).collect();
        link.pass();
        let hidden = model.forward(&model.embed(&read, prompts.vectors)?, &context, Some(&mut prefix))?;

        let pictures = conditions.len() * options.count as usize;
        let source: Vec<u32> = rows.iter().flat_map(|&row| vec![row; options.count as usize]).collect();
        let first: Vec<u32> = source.iter().map(|&row| begin[row as usize]).collect();
        let mut cache = link.buffer(|_| model.new_cache(source.len(), start + room))?;
        cache.begin_with(&prefix, &source)?;
        let places = link.buffer(|_| Places::new(model.rotary(), &first, start + room, stop))?;
        let decoder = Decoder { model, pictures, start, cache, places, link, scorer };
        let source = decoder.link.upload(source, first.len())?;
        let scores = decoder.scores(&hidden.narrow(1, start - 1, 1)?.contiguous()?.index_select(&source, 0)?)?;
        Ok((decoder, scores))
    }

    /// How many codes there are.
    pub fn codes(&self) -> usize {
        self.model.codes()
    }

    /// The symbol that closes a row; where nothing does, one that may stand where nobody looks.
    pub fn newline(&self) -> u32 {
        if self.model.closes_rows() {
            self.codes() as u32
        } else {
            0
        }
    }

    /// Reads drawn symbols, [pictures, n]. Errors if the model gave no numbers to draw them from.
    pub fn download(&self, drawn: &Tensor) -> Result<Vec<Vec<u32>>> {
        let drawn = self.link.download(drawn)?;
        match drawn.iter().flatten().any(|&code| code == UNSOUND) {
            false => Ok(drawn),
            true => Err(Error::Overflow { message: "the transformer gives numbers that are not finite".into() }),
        }
    }

    /// Feeds symbols, u32 [pictures, n], behind all that were fed before.
    pub fn feed(&mut self, symbols: &Tensor) -> Result<Tensor> {
        let places = self.places.behind(&self.cache, None, symbols.dim(1)?)?;
        together(&self.model.rotary().device, || {
            let hidden = self.pass(symbols, &places)?;
            self.scores(&hidden.narrow(1, hidden.dim(1)? - 1, 1)?)
        })
    }

    /// The slot of the cache where a picture's symbol of this place stands.
    pub fn slot(&self, place: usize) -> usize {
        self.start + place
    }

    /// Rows of the batch for each picture.
    pub fn branches(&self) -> usize {
        if self.scorer.guided() {
            2
        } else {
            1
        }
    }

    /// Feeds symbols, u32 [pictures, n], from these slots of each picture's rows on, forgetting what was there; `on_device` are
    /// the same numbers for each row of the batch, u32 [rows, 1]. Returns the scores behind each symbol, [pictures, n, codes].
    pub fn feed_at(&mut self, slots: &[usize], on_device: &Tensor, symbols: &Tensor) -> Result<Tensor> {
        self.cache.truncate(&slots.repeat(self.branches()));
        let places = self.places.behind(&self.cache, Some(on_device), symbols.dim(1)?)?;
        together(&self.model.rotary().device, || {
            let hidden = self.pass(symbols, &places)?;
            self.scores(&hidden)
        })
    }

    /// Hidden states [rows, n, hidden] of symbols [pictures, n].
    fn pass(&mut self, symbols: &Tensor, context: &Context) -> Result<Tensor> {
        self.link.pass();
        let x = self.model.embed_symbols(symbols, self.branches())?;
        self.model.forward(&x, context, Some(&mut self.cache))
    }

    /// What codes are drawn from behind hidden states [rows, n, hidden]: f32 whatever the model runs in.
    fn scores(&self, hidden: &Tensor) -> Result<Tensor> {
        self.scorer.scores(&self.model.logits(hidden)?)
    }
}

/// What openings of `tokens` pieces see that begin in these slots: slots before the first piece see themselves, so that no
/// softmax is empty; nothing else sees them.
fn opening_context(model: &dyn NextToken, begin: &[u32], tokens: usize) -> Result<Context> {
    let span = |slot: u32, first: u32| if slot < first { (slot, slot + 1) } else { (first, slot + 1) };
    let slots = 0..tokens as u32;
    let spans: Vec<Vec<Span>> = begin.iter().map(|&b| slots.clone().map(|slot| span(slot, b)).collect()).collect();
    let positions: Vec<Vec<u32>> =
        begin.iter().map(|&b| slots.clone().map(|slot| slot.saturating_sub(b)).collect()).collect();
    model.rotary().context(&positions, &spans, tokens)
}
