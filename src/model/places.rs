//! Where tokens stand and what they see: rotary positions, spans and masks.

use super::cache::Cache;
use crate::ops::{self, Seen};
use crate::random::Dropout;
use crate::run::Control;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};

/// The slots of the cache, or of the sequence itself, that a token may look at: from the first to before the second.
pub type Span = (u32, u32);

/// What a forward pass needs besides its input.
pub struct Context {
    /// Rotary tables, [B or 1, T, 1, head_dim / 2].
    pub cos: Tensor,
    pub sin: Tensor,
    /// [B or 1, T]
    pub spans: Vec<Span>,
    /// The same on the device. None if all may be seen, or where spans will do.
    pub seen: Option<Seen>,
    /// The slots of the tokens, u32 [B, T] on the device, where the rows of a cache are filled differently and spans will not do.
    pub slots: Option<Tensor>,
    pub dropout: Option<Dropout>,
    pub stop: Control,
}

impl Context {
    /// The passes of this context, forward and backward, end with an error between two layers once `control` is cancelled.
    pub fn stopped_by(self, control: Control) -> Self {
        Context { stop: control, ..self }
    }

    /// The sub-layers' results are thinned out in these passes.
    pub fn with_dropout(self, dropout: Option<Dropout>) -> Self {
        Context { dropout, ..self }
    }

    pub fn rows(&self, one_by_one: bool) -> ops::Rows<'_> {
        ops::Rows { spans: &self.spans, seen: self.seen.as_ref(), one_by_one }
    }
}

/// Rotary positions (half-split: channel j pairs with j + head_dim / 2) of a model, and where its tables are to lie.
#[derive(Clone, Debug)]
pub struct Rotary {
    pub head_dim: usize,
    pub theta: f64,
    /// Of the activations.
    pub dtype: DType,
    pub device: Device,
}

impl Rotary {
    /// Cosine and sine for the positions of each row: [rows, T, 1, head_dim / 2].
    fn tables(&self, positions: &[Vec<u32>]) -> Result<(Tensor, Tensor)> {
        let half = self.head_dim / 2;
        let tokens = positions[0].len();
        let mut angles = Vec::with_capacity(positions.len() * tokens * half);
        for &p in positions.iter().flatten() {
            // PyTorch computes the inverse frequency and the angle in f32.
            angles.extend((0..half).map(|j| p as f32 * (1.0 / self.theta.powf(j as f64 / half as f64)) as f32));
        }
        let table = |of: fn(f32) -> f32| -> Result<Tensor> {
            let values = angles.iter().map(|&angle| of(angle)).collect();
            let table = Tensor::from_vec(values, (positions.len(), tokens, 1, half), &Device::Cpu)?;
            Ok(table.to_dtype(self.dtype)?.to_device(&self.device)?)
        };
        Ok((table(f32::cos)?, table(f32::sin)?))
    }

    /// Whether attention wants what is seen on the device, or spans will do.
    fn masked(&self) -> bool {
        !ops::own_kernels_on(&self.device)
    }

    /// Tables for the positions of each row, and what each token sees of the `slots` slots there are with the new tokens.
    /// `positions` and `spans` have one row per batch row, or a single one for all.
    pub fn context(&self, positions: &[Vec<u32>], spans: &[Vec<Span>], slots: usize) -> Result<Context> {
        let (cos, sin) = self.tables(positions)?;
        Ok(Context {
            cos,
            sin,
            seen: match self.masked() {
                false => None,
                true => Seen::new(&spans.concat(), spans.len(), slots, &self.device)?,
            },
            spans: spans.concat(),
            slots: None,
            dropout: None,
            stop: Control::default(),
        })
    }

    /// The context of whole sequences of `tokens` tokens: positions from 0, each token sees itself and those before.
    pub fn causal(&self, tokens: usize) -> Result<Context> {
        let positions = (0..tokens as u32).collect();
        let spans = (0..tokens as u32).map(|i| (0, i + 1)).collect();
        self.context(&[positions], &[spans], tokens)
    }
}

/// Makes the context of each pass of a drawing without moving a table to the device.
///
/// Row b of the batch begins in slot `first[b]` of the cache, where its positions count from; what stands before is hidden
/// from it.
pub struct Places {
    /// [capacity, head_dim / 2]
    cos: Tensor,
    sin: Tensor,
    first: Vec<u32>,
    /// None where spans will do.
    there: Option<There>,
    stop: Control,
}

/// What is on a device that has no use for spans.
struct There {
    /// The tables for the slots of each row, or of one for all: [B or 1, capacity, 1, head_dim / 2].
    cos: Tensor,
    sin: Tensor,
    /// 0, 1, ..., u32 [1, capacity].
    slots: Tensor,
    /// Where each row begins, u32 [rows, 1].
    first: Tensor,
}

impl Places {
    /// Tables for caches of `capacity` slots, whose rows begin in these slots.
    pub fn new(rotary: &Rotary, first: &[u32], capacity: usize, stop: Control) -> Result<Self> {
        let slots = 0..capacity as u32;
        let (cos, sin) = rotary.tables(&[slots.clone().collect()])?;
        let there = match rotary.masked() {
            false => None,
            true => {
                let differ = first.windows(2).any(|pair| pair[0] != pair[1]);
                let rows = if differ { first } else { &first[..1] };
                let positions: Vec<Vec<u32>> =
                    rows.iter().map(|&first| slots.clone().map(|slot| slot.saturating_sub(first)).collect()).collect();
                let (cos, sin) = rotary.tables(&positions)?;
                Some(There {
                    cos,
                    sin,
                    slots: Tensor::arange(0, capacity as u32, &rotary.device)?.unsqueeze(0)?,
                    first: Tensor::from_slice(first, (first.len(), 1), &rotary.device)?,
                })
            }
        };
        let flat = |t: Tensor| t.reshape((capacity, t.elem_count() / capacity.max(1)));
        Ok(Places { cos: flat(cos)?, sin: flat(sin)?, first: first.to_vec(), there, stop })
    }

    /// The context of a pass that puts `new` tokens behind what each row of the cache is filled with. `on_device` are the numbers
    /// of filled slots, u32 [rows, 1]; it may be left out if all rows are filled equally far.
    pub fn behind(&self, cache: &Cache, on_device: Option<&Tensor>, new: usize) -> Result<Context> {
        let filled = cache.filled();
        let span = |first: u32, filled: usize| (0..new).map(move |i| (first, (filled + i + 1) as u32));
        let spans = self.first.iter().zip(filled).flat_map(|(&first, &filled)| span(first, filled)).collect();
        let context = |cos: Tensor, sin: Tensor, seen: Option<Seen>, slots: Option<Tensor>| {
            Ok(Context { cos, sin, spans, seen, slots, dropout: None, stop: self.stop.clone() })
        };
        let at = |positions: &Tensor, table: &Tensor| -> Result<Tensor> {
            let rows = table.index_select(positions, 0)?;
            Ok(rows.reshape((positions.elem_count() / new.max(1), new, 1, table.dim(1)?))?)
        };
        let Some(there) = &self.there else {
            // On the CPU no table has to be moved, and no operator between tensors is to be used, see `ops::sum`.
            let position = |(&first, &filled): (&u32, &usize)| (0..new).map(move |i| (filled + i) as u32 - first);
            let positions: Vec<u32> = self.first.iter().zip(filled).flat_map(position).collect();
            let n = positions.len();
            let positions = Tensor::from_vec(positions, n, self.cos.device())?;
            return context(at(&positions, &self.cos)?, at(&positions, &self.sin)?, None, None);
        };
        if filled.windows(2).all(|pair| pair[0] == pair[1]) {
            let slots = |table: &Tensor| table.narrow(1, filled[0], new);
            let last = if new == 1 { None } else { Some(slots(&there.slots)?) };
            return context(slots(&there.cos)?, slots(&there.sin)?, self.seen(there, last), None);
        }
        let Some(on_device) = on_device else {
            return Err(Error::Internal { message: "rows filled differently need their numbers".into() });
        };
        let slots = on_device.broadcast_add(&there.slots.narrow(1, 0, new)?)?;
        let positions = slots.broadcast_sub(&there.first)?.flatten_all()?;
        let seen = self.seen(there, Some(slots.clone()));
        context(at(&positions, &self.cos)?, at(&positions, &self.sin)?, seen, Some(slots))
    }

    /// What new tokens see that have these slots, or of which each sees all that there are.
    fn seen(&self, there: &There, last: Option<Tensor>) -> Option<Seen> {
        let first = self.first.iter().any(|&first| first > 0).then(|| there.first.clone());
        (first.is_some() || last.is_some()).then_some(Seen { first, last })
    }
}
