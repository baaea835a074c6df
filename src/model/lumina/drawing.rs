//! What drawing code after code asks of the transformer.

use super::Lumina;
use crate::model::cache::Cache;
use crate::model::family::{Condition, NextToken, Piece};
use crate::model::places::{Context, Rotary};
use crate::ops;
use crate::{Error, Result};
use candle_core::Tensor;

impl NextToken for Lumina {
    fn codes(&self) -> usize {
        self.layout.code_tokens().len()
    }

    fn closes_rows(&self) -> bool {
        true
    }

    fn opening(&self, condition: &Condition, (height, width): (u32, u32)) -> Result<Vec<Piece>> {
        let head = self.layout.image_head(height, width)?.map(Piece::Token);
        Ok([condition.pieces.as_slice(), &head].concat())
    }

    fn filler(&self) -> Piece {
        Piece::Token(self.layout.bos)
    }

    /// Where a learned vector stands, it takes the place of the vocabulary's row.
    fn embed(&self, rows: &[&[Piece]], vectors: Option<&Tensor>) -> Result<Tensor> {
        let longest = rows.iter().map(|r| r.len()).max().unwrap_or(0);
        let (mut ids, mut which, mut learned) = (Vec::new(), Vec::new(), Vec::new());
        for piece in rows.iter().copied().flatten() {
            let (id, row, is_learned) = match *piece {
                Piece::Token(id) => (id, 0, 0f32),
                Piece::Vector(row) => (0, row, 1f32),
                Piece::Code(_) => return Err(Error::internal("codes are words of this family's vocabulary")),
            };
            ids.push(id);
            which.push(row);
            learned.push(is_learned);
        }
        let device = self.transformer.device();
        let ids = Tensor::from_vec(ids, (rows.len(), longest), device)?;
        let x = self.transformer.embed(&ids)?;
        let Some(table) = vectors else { return Ok(x) };
        let (b, t, h) = x.dims3()?;
        let which = Tensor::from_vec(which, b * t, device)?;
        let learned = Tensor::from_vec(learned, (b, t, 1), device)?.broadcast_as((b, t, h))?.contiguous()?;
        let there = table.to_dtype(x.dtype())?.index_select(&which, 0)?.reshape((b, t, h))?;
        let learned = learned.to_dtype(x.dtype())?;
        let frozen = ops::product(&x, &(1.0 - &learned)?)?;
        ops::add(frozen, &ops::product(&there, &learned)?)
    }

    fn embed_symbols(&self, symbols: &Tensor, times: usize) -> Result<Tensor> {
        let rows = ops::rows(&self.transformer.embed_tokens, symbols, Some(&self.symbol_tokens), times)?;
        Ok(rows.to_dtype(self.transformer.dtype())?)
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
        ops::linear_f32(&hidden.contiguous()?, &self.code_head)
    }
}
