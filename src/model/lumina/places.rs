//! Where the tokens of pictures that are being drawn stand, and what they see: tables made once, on the device.

use super::transformer::{Context, Transformer};
use crate::model::ops;
use crate::run::Control;
use crate::{Error, Result};
use candle_core::{DType, Tensor};

/// Makes the context of each pass of a drawing without moving a table to the device.
///
/// Row b of the batch begins in slot `first[b]` of the cache, where its positions count from; what stands before is hidden
/// from it.
pub struct Places {
    /// [capacity, head_dim / 2]
    cos: Tensor,
    sin: Tensor,
    /// 0, 1, ..., u32 [capacity].
    slots: Tensor,
    first: Vec<u32>,
    /// The same, u32 [rows, 1].
    first_on_device: Tensor,
    /// Whether attention wants a mask, or spans will do.
    masked: bool,
    stop: Control,
}

impl Places {
    /// Tables for caches of `capacity` slots, whose rows begin in these slots.
    pub fn new(transformer: &Transformer, first: &[u32], capacity: usize, stop: Control) -> Result<Self> {
        let (cos, sin) = transformer.rotary(&[(0..capacity as u32).collect()])?;
        let flat = |t: Tensor| t.reshape((capacity, t.elem_count() / capacity.max(1)));
        Ok(Places {
            cos: flat(cos)?,
            sin: flat(sin)?,
            slots: Tensor::arange(0, capacity as u32, transformer.device())?,
            first: first.to_vec(),
            first_on_device: Tensor::from_slice(first, (first.len(), 1), transformer.device())?,
            masked: !ops::own_kernels(&transformer.embed_tokens),
            stop,
        })
    }

    /// The context of a pass that puts `new` tokens behind the `filled` slots of each row. `on_device` are the same numbers,
    /// u32 [rows, 1]; it may be left out if all rows are filled equally far.
    pub fn at(&self, filled: &[usize], on_device: Option<&Tensor>, new: usize) -> Result<Context<'static>> {
        let end = filled.iter().max().unwrap_or(&0) + new;
        let even = filled.windows(2).all(|pair| pair[0] == pair[1]);
        // The slots of the new tokens, [rows or 1, new].
        let slots = match on_device {
            _ if even => self.slots.narrow(0, end - new, new)?.unsqueeze(0)?,
            Some(filled) => filled.broadcast_add(&self.slots.narrow(0, 0, new)?.unsqueeze(0)?)?,
            None => return Err(Error::Internal { message: "rows filled differently need their numbers".into() }),
        };
        let positions = slots.broadcast_sub(&self.first_on_device)?;
        let (rows, half) = (positions.dim(0)?, self.cos.dim(1)?);
        let positions = positions.flatten_all()?;
        let rotary = |table: &Tensor| table.index_select(&positions, 0)?.reshape((rows, new, 1, half));
        let mask = if self.masked { self.mask(&slots, end, even && new == 1)? } else { None };
        let span = |first: u32, filled: usize| (0..new).map(move |i| (first, (filled + i + 1) as u32));
        let spans = self.first.iter().zip(filled).flat_map(|(&first, &filled)| span(first, filled));
        Ok(Context {
            cos: rotary(&self.cos)?,
            sin: rotary(&self.sin)?,
            mask,
            spans: spans.collect(),
            dropout: None,
            stop: self.stop.clone(),
        })
    }

    /// What is added to the scores of new tokens in these slots, [rows or 1, new], for each of the slots before `end`. They see
    /// `all` of them that their row has, or those up to their own.
    fn mask(&self, slots: &Tensor, end: usize, all: bool) -> Result<Option<Tensor>> {
        let (rows, new) = slots.dims2()?;
        let each = self.slots.narrow(0, 0, end)?.reshape((1, 1, 1, end))?;
        let hides = self.first.iter().any(|&first| first > 0);
        let begun = || each.broadcast_ge(&self.first_on_device.reshape((self.first.len(), 1, 1, 1))?);
        let reached = || each.broadcast_le(&slots.reshape((rows, 1, new, 1))?);
        let seen = match (hides, all) {
            (false, true) => return Ok(None),
            (true, true) => begun()?,
            (false, false) => reached()?,
            (true, false) => begun()?.broadcast_mul(&reached()?)?,
        };
        // ln 1 = 0 for what is seen, ln 0 = minus infinity for the rest.
        Ok(Some(seen.to_dtype(DType::F32)?.log()?.to_dtype(self.cos.dtype())?))
    }
}
