//! Keys and values of tokens that were read, so that those behind them need not read them again.

use crate::ops::fused;
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
        let seen = || Ok((self.keys.narrow(2, 0, end)?, self.values.narrow(2, 0, end)?));
        let mut row = 0;
        if fused::serve(&k) {
            let (k, v) = (k.transpose(1, 2)?, v.transpose(1, 2)?);
            for run in filled.chunk_by(|a, b| a == b) {
                let of = |t: &Tensor| t.narrow(0, row, run.len());
                fused::put([&of(&self.keys)?, &of(&self.values)?], [&of(&k)?, &of(&v)?], run[0])?;
                row += run.len();
            }
            return seen();
        }
        let (k, v) = (k.contiguous()?, v.contiguous()?);
        // Rows filled equally far are written at once.
        for run in filled.chunk_by(|a, b| a == b) {
            for (all, new) in [(&self.keys, &k), (&self.values, &v)] {
                all.narrow(0, row, run.len())?.slice_set(&new.narrow(0, row, run.len())?, 2, run[0])?;
            }
            row += run.len();
        }
        seen()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::plainly;
    use crate::ops::testing::random;

    #[test]
    fn the_kernel_for_gpus_puts_keys_and_values_where_the_cpu_puts_them() {
        let shape = CacheShape { layers: 1, rows: 3, kv_heads: 2, capacity: 7, head_dim: 6 };
        let (k, v) = (random(&[3, 2, 2, 6]), random(&[3, 2, 2, 6]));
        let put = || {
            let mut cache = Cache::new(&shape, DType::F32, &Device::Cpu).unwrap();
            cache.filled = vec![1, 1, 4];
            let view = |t: &Tensor| t.transpose(1, 2).unwrap();
            let (layer, filled) = cache.layer(0);
            let (keys, values) = layer.append(&view(&k), &view(&v), filled).unwrap();
            [keys, values].map(|t| t.flatten_all().unwrap().to_vec1::<f32>().unwrap())
        };
        let expected = put();
        crate::device::twin::with_kernels(|| assert_eq!(plainly(put), expected));
    }
}
