//! Random models whose memory is measured: small, but not so small that what is not numbers counts.

use crate::random_model;
use std::path::Path;

pub struct Size {
    pub preset: &'static str,
    pub hidden: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub intermediate: usize,
    pub dtype: &'static str,
    /// Pixels along a side of pictures.
    pub side: u32,
}

impl Size {
    pub fn write(&self, folder: &Path) {
        let mut shape = random_model::shape::Shape::preset(self.preset).unwrap();
        (shape.hidden, shape.layers, shape.heads) = (self.hidden, self.layers, self.heads);
        (shape.kv_heads, shape.intermediate) = (self.kv_heads, self.intermediate);
        random_model::write(&shape, folder).unwrap();
    }
}
