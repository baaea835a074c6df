//! The Chameleon transformer as Lumina-mGPT uses it (fact sheet, section 1.2): what it has besides any of Llama's kind.

use super::config::Config;
use crate::model::llama::{Source, Transformer};
use crate::weights::Spec;
use crate::Result;

pub const HEAD: &str = "lm_head.weight";

/// The weights that have names: those of the layers, and the head.
pub fn specs(config: &Config) -> Vec<Spec> {
    let shape = config.shape();
    (0..shape.layers).flat_map(|index| shape.layer_specs(index)).chain([head(config)]).collect()
}

fn head(config: &Config) -> Spec {
    let dims = vec![config.vocab_size, config.hidden_size];
    Spec { name: HEAD.into(), layer: None, roles: &[], dims, linear: true }
}

/// Loads and checks every weight. `progress` is called with (done, total) after each layer.
pub fn load(config: &Config, source: &Source, mut progress: impl FnMut(u64, u64) -> Result<()>) -> Result<Transformer> {
    let total = config.layers as u64 + 2;
    let mut transformer = Transformer::load(&config.shape(), source, |done| progress(done, total))?;
    let spec = head(config);
    let weight = match config.tie_word_embeddings {
        true => transformer.embed_tokens.clone().into(),
        false => source.matrix(&spec, source.format.head())?,
    };
    transformer.weights.push(spec, weight);
    progress(total, total)?;
    Ok(transformer)
}
