//! Keys and values of tokens that were read, so that those behind them need not read them again.

use super::places::Context;
use crate::ops::fused::{self, New};
use crate::Result;
use candle_core::{DType, Device, Tensor};

/// Keys and values of one layer, [B, kv_heads, capacity, head_dim].
pub struct LayerCache {
    keys: Tensor,
    values: Tensor,
}

/// Keys and values of all layers. Each row is filled from the front, and need not be filled as far as the others.
pub struct Cache {
    layers: Vec<LayerCache>,
    filled: Vec<usize>,
}

/// The size of a cache.
pub struct CacheShape {
    pub layers: usize,
    pub rows: usize,
    pub kv_heads: usize,
    /// Slots of each row.
    pub capacity: usize,
    pub head_dim: usize,
}

impl Cache {
    pub fn new(shape: &CacheShape, dtype: DType, device: &Device) -> Result<Self> {
        let of_layer = (shape.rows, shape.kv_heads, shape.capacity, shape.head_dim);
        let zeros = || Tensor::zeros(of_layer, dtype, device);
        let layers = (0..shape.layers).map(|_| Ok(LayerCache { keys: zeros()?, values: zeros()? }));
        Ok(Cache { layers: layers.collect::<Result<_>>()?, filled: vec![0; shape.rows] })
    }

    /// Slots filled so far, of each row.
    pub fn filled(&self) -> &[usize] {
        &self.filled
    }

    /// To be told when a pass has put `new` tokens into every layer.
    pub fn grow(&mut self, new: usize) {
        self.filled.iter_mut().for_each(|filled| *filled += new);
    }

    /// A layer's part, with the slots of each row that are filled.
    pub fn layer(&mut self, index: usize) -> (&mut LayerCache, &[usize]) {
        (&mut self.layers[index], &self.filled)
    }

    /// Forgets what stands behind the first `filled` slots of each row.
    pub fn truncate(&mut self, filled: &[usize]) {
        self.filled.iter_mut().zip(filled).for_each(|(now, &keep)| *now = keep.min(*now));
    }

    /// Begins each row with what `from` has of the row given for it. This one has at least as many slots.
    pub fn begin_with(&mut self, from: &Cache, rows: &[u32]) -> Result<()> {
        self.filled = rows.iter().map(|&row| from.filled[row as usize]).collect();
        let Some(device) = from.layers.first().map(|l| l.keys.device()) else { return Ok(()) };
        let index = Tensor::new(rows, device)?;
        for (to, from) in self.layers.iter().zip(&from.layers) {
            for (to, from) in [(&to.keys, &from.keys), (&to.values, &from.values)] {
                to.slice_set(&from.index_select(&index, 0)?, 2, 0)?;
            }
        }
        Ok(())
    }
}

impl LayerCache {
    /// Puts each row's new keys and values, [B, kv_heads, T, head_dim], behind its `filled` old ones; returns all slots up to the
    /// last one filled.
    pub fn append(&mut self, k: &Tensor, v: &Tensor, filled: &[usize]) -> Result<(Tensor, Tensor)> {
        let dtype = self.keys.dtype();
        let (k, v) = (k.to_dtype(dtype)?, v.to_dtype(dtype)?);
        let end = filled.iter().max().map_or(0, |filled| filled + k.dims()[2]);
        let (k, v) = (k.contiguous()?, v.contiguous()?);
        // Rows filled equally far are written at once.
        let mut row = 0;
        for run in filled.chunk_by(|a, b| a == b) {
            for (all, new) in [(&self.keys, &k), (&self.values, &v)] {
                all.narrow(0, row, run.len())?.slice_set(&new.narrow(0, row, run.len())?, 2, run[0])?;
            }
            row += run.len();
        }
        Ok((self.keys.narrow(2, 0, end)?, self.values.narrow(2, 0, end)?))
    }

    /// Whether [`LayerCache::take`] can stand for norm, rotation and [`LayerCache::append`].
    pub fn takes(&self, projected: &[Tensor; 3], filled: &[usize], context: &Context) -> bool {
        let even = filled.windows(2).all(|pair| pair[0] == pair[1]);
        fused::serve(&projected[0]) && projected[0].dtype() == self.keys.dtype() && (even || context.slots.is_some())
    }

    /// Puts the keys, behind norm and rotation, and values of new tokens behind each row's `filled` old ones: to `slots`, u32 [B, T], where
    /// rows are filled differently. Returns the queries [B, T, heads, d] behind the same, and all keys and values up to the last slot
    /// filled.
    pub fn take(&mut self, new: &New, filled: &[usize], slots: Option<&Tensor>) -> Result<[Tensor; 3]> {
        let last = filled.iter().max().copied().unwrap_or(0);
        let queries = fused::turn_and_put(new, [&self.keys, &self.values], last, slots)?;
        let end = last + queries.dims()[1];
        Ok([queries, self.keys.narrow(2, 0, end)?, self.values.narrow(2, 0, end)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::plainly;
    use crate::ops::testing::random;

    /// Rows filled equally far and not, projections that lie together and apart, with norms and without.
    #[test]
    fn the_kernel_for_gpus_turns_and_puts_what_the_cpu_turns_and_puts() {
        let (b, t, heads, kv, d) = (3, 2, 4, 2, 6);
        let shape = CacheShape { layers: 1, rows: b, kv_heads: kv, capacity: 7, head_dim: d };
        let all = random(&[b, t, heads + 2 * kv, d]);
        let part = |first: usize, count: usize| all.narrow(2, first, count).unwrap();
        let together = [part(0, heads), part(heads, kv), part(heads + kv, kv)];
        let apart = together.clone().map(|t| t.contiguous().unwrap());
        let norms: Vec<Tensor> = [2, 2, 1, 1].map(|rows| random(&[rows, d])).into();
        // As a table for more tokens lies.
        let table = |rows: usize| random(&[rows, t + 3, 1, d / 2]).narrow(1, 1, t).unwrap();
        let tables = [[table(b), table(b)], [table(1), table(1)]];
        for filled in [vec![3, 3, 3], vec![1, 1, 4]] {
            let slots: Vec<u32> = filled.iter().flat_map(|&n| (0..t).map(move |i| (n + i) as u32)).collect();
            let slots = Tensor::from_vec(slots, (b, t), &Device::Cpu).unwrap();
            let differ = filled[0] != filled[2];
            for (projected, [cos, sin], with_norms) in [(&together, &tables[0], true), (&apart, &tables[1], false)] {
                let norms = with_norms.then(|| [0, 1, 2, 3].map(|i| &norms[i]));
                let numbers = |t: Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                let [q, k, v] = projected;
                let turned = |x: &Tensor, at: usize| match norms {
                    Some(n) => {
                        let of = crate::ops::Heads { weight: n[at], bias: n[at + 1], eps: 1e-5, cos, sin };
                        crate::ops::norm_and_rotate(x, &of).unwrap()
                    }
                    None => crate::ops::rotate(x, cos, sin).unwrap(),
                };
                let mut cache = Cache::new(&shape, DType::F32, &Device::Cpu).unwrap();
                let (keys, values) = plainly(|| {
                    let view = |t: &Tensor| t.transpose(1, 2).unwrap();
                    cache.layers[0].append(&view(&turned(k, 2)), &view(v), &filled).unwrap()
                });
                let expected = [plainly(|| turned(q, 0)), keys, values].map(numbers);
                crate::device::twin::with_each(|| {
                    let new = New { projected, norms, eps: 1e-5, cos, sin };
                    let mut cache = Cache::new(&shape, DType::F32, &Device::Cpu).unwrap();
                    let found = plainly(|| cache.layers[0].take(&new, &filled, differ.then_some(&slots)).unwrap());
                    for (found, expected) in found.map(numbers).iter().zip(&expected) {
                        let gap = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
                        assert!(found.len() == expected.len() && gap < 1e-5, "{filled:?} {with_norms}: {gap}");
                    }
                });
            }
        }
    }
}
