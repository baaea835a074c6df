//! What drawing code after code asks of the transformer.

use super::Janus;
use crate::model::cache::Cache;
use crate::model::family::{Condition, NextToken, Piece};
use crate::model::llama::Head;
use crate::model::places::{Context, Rotary};
use crate::ops;
use crate::{Error, Result};
use candle_core::Tensor;

impl Janus {
    /// Input embeddings [N, hidden] of codes, u32 [N].
    pub(super) fn embed_codes(&self, codes: &Tensor) -> Result<Tensor> {
        let vectors = self.code_vectors.index_select(codes, 0)?.to_dtype(self.transformer.dtype())?;
        self.aligner().forward(&vectors)
    }
}

impl NextToken for Janus {
    fn codes(&self) -> usize {
        self.facts.codebook
    }

    fn closes_rows(&self) -> bool {
        false
    }

    fn opening(&self, condition: &Condition, _: (u32, u32)) -> Result<Vec<Piece>> {
        Ok(condition.pieces.clone())
    }

    fn filler(&self) -> Piece {
        self.prompts.padding()
    }

    fn embed(&self, rows: &[&[Piece]], vectors: Option<&Tensor>) -> Result<Tensor> {
        let device = self.transformer.device();
        let (mut words, mut learned, mut codes) = (vec![], vec![], vec![]);
        for piece in rows.iter().copied().flatten() {
            match *piece {
                Piece::Token(id) => words.push(id),
                Piece::Vector(row) => learned.push(row),
                Piece::Code(code) => codes.push(code),
            }
        }
        // One behind the other, then each to its place.
        let mut next = [0, words.len() as u32, (words.len() + learned.len()) as u32];
        let place = |piece: &Piece| {
            let kind = match piece {
                Piece::Token(_) => 0,
                Piece::Vector(_) => 1,
                Piece::Code(_) => 2,
            };
            next[kind] += 1;
            next[kind] - 1
        };
        let places: Vec<u32> = rows.iter().copied().flatten().map(place).collect();
        let mut parts = Vec::new();
        if !words.is_empty() {
            let ids = Tensor::from_vec(words.clone(), (1, words.len()), device)?;
            parts.push(self.transformer.embed(&ids)?.squeeze(0)?);
        }
        if !learned.is_empty() {
            let table = vectors.ok_or_else(|| Error::internal("a prompt with learned vectors that are not there"))?;
            let rows = table.index_select(&Tensor::new(learned, device)?, 0)?;
            parts.push(rows.to_dtype(self.transformer.dtype())?);
        }
        if !codes.is_empty() {
            parts.push(self.embed_codes(&Tensor::new(codes, device)?)?);
        }
        let x = Tensor::cat(&parts, 0)?.index_select(&Tensor::new(places, device)?, 0)?;
        Ok(x.reshape((rows.len(), (), self.transformer.shape.hidden))?)
    }

    fn embed_symbols(&self, symbols: &Tensor, times: usize) -> Result<Tensor> {
        let vectors = ops::rows(&self.code_vectors, symbols, None, times)?.to_dtype(self.transformer.dtype())?;
        self.aligner().forward(&vectors)
    }

    fn rotary(&self) -> &Rotary {
        &self.transformer.rotary
    }

    fn new_cache(&self, rows: usize, capacity: usize) -> Result<Cache> {
        self.transformer.new_cache(rows, capacity)
    }

    fn forward(&self, x: &Tensor, context: &Context, cache: Option<&mut Cache>) -> Result<Tensor> {
        self.transformer.forward(x, context, cache)
    }

    fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        self.head().logits(&hidden.contiguous()?)
    }
}
