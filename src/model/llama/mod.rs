//! What transformers of Llama's kind have in common, whatever their family puts around them: a table of word vectors, layers of
//! attention with rotary positions and of a gated MLP, root-mean-square norms.
//!
//! Pre-norm layers without norms of queries and keys are Llama's own (Janus-Pro); Chameleon's (Lumina-mGPT) norm queries and
//! keys, those of its largest model also what the sub-layers gave instead of what they get.

mod footprint;
mod layer;
mod load;
mod pass;
mod transformer;

pub use load::Source;
pub use pass::{labels, padded, Head, Labels, Sequences, CHUNK};
pub use transformer::Transformer;

/// The numbers that fix the shape of a transformer.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// Before the names of all its weights.
    pub prefix: &'static str,
    /// Rows of the table of word vectors.
    pub vocabulary: usize,
    pub hidden: usize,
    pub intermediate: usize,
    pub layers: usize,
    pub heads: usize,
    /// Fewer than `heads` if several queries share a key.
    pub kv_heads: usize,
    pub head_dim: usize,
    pub norm_eps: f64,
    pub rope_theta: f64,
    /// Whether the output of each sub-layer is normed instead of its input.
    pub post_norm: bool,
    /// Whether queries and keys have a layer norm.
    pub head_norms: bool,
}

impl Shape {
    /// Numbers of the layers, the table of word vectors and the last norm.
    pub fn numbers(&self) -> u64 {
        let (h, i, d) = (self.hidden as u64, self.intermediate as u64, self.head_dim as u64);
        let kv = self.kv_heads as u64 * d;
        let head_norms = if self.head_norms { 4 * d } else { 0 };
        let layer = 2 * h * h + 2 * h * kv + 3 * h * i + 2 * h + head_norms;
        self.vocabulary as u64 * h + self.layers as u64 * layer + h
    }
}
