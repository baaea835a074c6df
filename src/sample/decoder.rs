//! The transformer in the middle of drawing: symbols go in, scores for the places behind them come out.

use super::link::Link;
use super::logits::{Scorer, UNSOUND};
use super::Options;
use crate::kernels::together;
use crate::model::lumina::places::Places;
use crate::model::lumina::transformer::{Cache, Context, Span};
use crate::model::ops;
use crate::model::personalized::{Personalized, Piece};
use crate::model::weight::Weight;
use crate::run::Control;
use crate::{Error, Result};
use candle_core::{DType, Tensor};

/// What the pictures of one call share: one batch, in which the rows of all pictures under their prompts come first, then,
/// under guidance, their rows without a prompt.
///
/// All pictures begin in the same slot of the cache. A row whose prompt is shorter than the longest, or that has none, begins
/// later: the slots before its first token are hidden from it, and its positions count from there.
///
/// A *symbol* is a code or, behind the last code, the newline; a *place* is where a symbol stands in a picture, rows closed by
/// their newlines.
pub struct Decoder<'v> {
    view: &'v Personalized<'v>,
    pub link: Link,
    pub scorer: Scorer,
    pub pictures: usize,
    /// The slot of every picture's first code.
    start: usize,
    cache: Cache,
    places: Places,
    /// The head's rows for codes.
    head: Weight,
    /// The token of each symbol, u32 [symbols].
    tokens: Tensor,
}

impl<'v> Decoder<'v> {
    /// Reads the prompts, `options.count` pictures of each; `room` is for how many symbols the cache has slots. Also returns the
    /// scores of the pictures' first place, [pictures, 1, codes].
    pub fn new(
        view: &'v Personalized,
        prompts: &[Vec<Piece>],
        (height, width): (u32, u32),
        room: usize,
        options: &Options,
        stop: Control,
    ) -> Result<(Self, Tensor)> {
        let (transformer, layout) = (&view.transformer, view.model.layout());
        let link = Link::new(transformer.device());
        let scorer = Scorer::new(&link, options)?;
        let opening = layout.image_head(height, width)?.map(Piece::Token);
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let start = longest + opening.len();

        // One row per prompt, and one without: they are multiplied when the prompts are read.
        let unconditional: &[Piece] = &[];
        let read = prompts.iter().map(Vec::as_slice).chain(scorer.guided().then_some(unconditional));
        let padded =
            |prompt: &[Piece]| [&vec![Piece::Token(layout.bos); longest - prompt.len()], prompt, &opening].concat();
        let (rows, begin): (Vec<_>, Vec<_>) = read.map(|p| (padded(p), (longest - p.len()) as u32)).unzip();
        // Slots before the first token see themselves, so that no softmax is empty; nothing else sees them.
        let span = |slot: u32, first: u32| if slot < first { (slot, slot + 1) } else { (first, slot + 1) };
        let slots = 0..start as u32;
        let spans: Vec<Vec<Span>> = begin.iter().map(|&b| slots.clone().map(|slot| span(slot, b)).collect()).collect();
        let positions: Vec<Vec<u32>> =
            begin.iter().map(|&b| slots.clone().map(|slot| slot.saturating_sub(b)).collect()).collect();
        let mut prefix = link.buffer(|_| transformer.new_cache(rows.len(), start))?;
        let context = transformer.context(&positions, &spans, start, None)?.stopped_by(stop.clone());
        let rows: Vec<&[Piece]> = rows.iter().map(Vec::as_slice).collect();
        link.pass();
        let hidden = transformer.forward(&view.embed(&rows)?, &context, Some(&mut prefix))?;

        let pictures = prompts.len() * options.count as usize;
        let mut source: Vec<u32> = (0..pictures as u32).map(|picture| picture / options.count).collect();
        if scorer.guided() {
            source.extend(vec![prompts.len() as u32; pictures]);
        }
        let first: Vec<u32> = source.iter().map(|&row| begin[row as usize]).collect();
        let tokens = [layout.code_tokens(), &[layout.newline]].concat();
        let mut cache = link.buffer(|_| transformer.new_cache(source.len(), start + room))?;
        cache.begin_with(&prefix, &source)?;
        let decoder = Decoder {
            view,
            pictures,
            start,
            cache,
            places: link.buffer(|_| Places::new(transformer, &first, start + room, stop))?,
            head: transformer.head_rows(layout.code_tokens())?,
            tokens: link.upload(tokens, layout.code_tokens().len() + 1)?,
            link,
            scorer,
        };
        let source = decoder.link.upload(source, first.len())?;
        let scores = decoder.scores(&hidden.narrow(1, start - 1, 1)?.contiguous()?.index_select(&source, 0)?)?;
        Ok((decoder, scores))
    }

    /// How many codes there are.
    pub fn codes(&self) -> usize {
        self.tokens.dims()[0] - 1
    }

    /// The symbol that closes a row.
    pub fn newline(&self) -> u32 {
        self.codes() as u32
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
        let places = self.places.at(self.cache.filled(), None, symbols.dim(1)?)?;
        together(|| {
            let hidden = self.pass(symbols, &places)?;
            self.scores(&hidden.narrow(1, hidden.dim(1)? - 1, 1)?)
        })
    }

    /// The slot of the cache where a picture's symbol of this place stands.
    pub fn slot(&self, place: usize) -> usize {
        self.start + place
    }

    /// Feeds symbols, u32 [pictures, n], from these slots of each picture's rows on, forgetting what was there; `on_device` are
    /// the same numbers, u32 [pictures, 1]. Returns the scores behind each symbol, [pictures, n, codes].
    pub fn feed_at(&mut self, slots: &[usize], on_device: &Tensor, symbols: &Tensor) -> Result<Tensor> {
        let branches = if self.scorer.guided() { 2 } else { 1 };
        self.cache.truncate(&slots.repeat(branches));
        let on_device = Tensor::cat(&vec![on_device; branches], 0)?;
        let places = self.places.at(self.cache.filled(), Some(&on_device), symbols.dim(1)?)?;
        together(|| {
            let hidden = self.pass(symbols, &places)?;
            self.scores(&hidden)
        })
    }

    /// Hidden states [rows, n, hidden] of symbols [pictures, n].
    fn pass(&mut self, symbols: &Tensor, context: &Context) -> Result<Tensor> {
        let tokens = self.tokens.index_select(&symbols.flatten_all()?, 0)?.reshape(symbols.shape())?;
        let tokens = if self.scorer.guided() { Tensor::cat(&[&tokens, &tokens], 0)? } else { tokens };
        self.link.pass();
        let transformer = &self.view.transformer;
        transformer.forward(&transformer.embed(&tokens)?, context, Some(&mut self.cache))
    }

    /// What codes are drawn from behind hidden states [rows, n, hidden]: f32 whatever the model runs in.
    fn scores(&self, hidden: &Tensor) -> Result<Tensor> {
        self.scorer.scores(&ops::linear(&hidden.contiguous()?, &self.head)?.to_dtype(DType::F32)?)
    }
}
