//! The weights that making pictures needs, and what the two published forms call them. Here they have the names of Hugging Face's.

use crate::files::checkpoint::Checkpoint;
use crate::model::llama::Shape;
use crate::model::vqgan::vq16::Naming;
use crate::weights::{Spec, WeightId};

/// Before the names of the transformer's weights.
pub const TRANSFORMER: &str = "model.language_model.";
/// Before the names of the image tokenizer's.
pub const VQ: &str = "model.vqmodel.";
/// The vectors of codes.
pub const CODES: &str = "model.generation_embeddings.weight";

const HEAD: [&str; 2] = ["model.generation_head.proj_out", "model.generation_head.vision_head"];
const ALIGNER: [&str; 2] = ["model.generation_aligner.fc1", "model.generation_aligner.hidden_layers.0"];
/// An aligner with more layers has this, too.
pub const DEEPER: &str = "model.generation_aligner.hidden_layers.1.weight";

/// Number of the head's first weight behind those of the layers.
pub fn head(shape: &Shape) -> WeightId {
    shape.layers * shape.layer_weights()
}

/// Number of the aligner's first weight.
pub fn aligner(shape: &Shape) -> WeightId {
    head(shape) + 4
}

/// The weights behind those of the layers: the head's, which learn with the last layer, and the aligner's, which learn with
/// the first.
pub fn around(shape: &Shape, head_width: usize, codes: usize, code_width: usize) -> Vec<Spec> {
    let two = |[first, second]: [&str; 2], layer, roles, [from, middle, to]: [usize; 3]| {
        [(first, middle, from), (second, to, middle)].map(|(name, out, inner)| {
            let spec = |part: &str, dims, linear| Spec {
                name: format!("{name}.{part}"),
                layer: Some(layer),
                roles,
                dims,
                linear,
            };
            [spec("weight", vec![out, inner], true), spec("bias", vec![out], false)]
        })
    };
    let head = two(HEAD, shape.layers - 1, &["head"], [shape.hidden, head_width, codes]);
    let aligner = two(ALIGNER, 0, &["aligner"], [code_width, shape.hidden, shape.hidden]);
    head.into_iter().chain(aligner).flatten().collect()
}

/// How the files call things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// transformers' own.
    HuggingFace,
    /// The release of Janus's authors.
    Original,
}

impl Form {
    pub fn of(checkpoint: &Checkpoint) -> Self {
        match checkpoint.names().any(|name| name.starts_with("gen_") || name.starts_with("language_model.model.")) {
            true => Form::Original,
            false => Form::HuggingFace,
        }
    }

    /// Whether making pictures needs a tensor that the files call so. Pictures are read by other parts, and texts are written by
    /// another head.
    pub fn serves(self, called: &str) -> bool {
        let parts: &[&str] = match self {
            Form::HuggingFace => &[TRANSFORMER, "model.generation_", VQ],
            Form::Original => {
                &["language_model.model.", "gen_embed.", "gen_aligner.", "gen_head.", "gen_vision_model."]
            }
        };
        parts.iter().any(|part| called.starts_with(part)) && !called.ends_with("quantize.codebook_used")
    }

    /// How the files call the parts of the image tokenizer.
    pub fn naming(self) -> Naming {
        match self {
            Form::HuggingFace => Naming::Transformers,
            Form::Original => Naming::LlamaGen,
        }
    }

    /// Before the names that the files give the image tokenizer's parts.
    pub fn vq(self) -> &'static str {
        match self {
            Form::HuggingFace => VQ,
            Form::Original => "gen_vision_model.",
        }
    }

    /// What the files call a weight, with an image tokenizer of so many levels.
    pub fn file_name(self, name: &str, levels: usize) -> String {
        if let Some(part) = name.strip_prefix(VQ) {
            return format!("{}{}", self.vq(), self.naming().file_name(part, levels));
        }
        if self == Form::HuggingFace {
            return name.to_owned();
        }
        let parts = [
            (TRANSFORMER, "language_model.model."),
            ("model.generation_embeddings.", "gen_embed."),
            ("model.generation_aligner.fc1.", "gen_aligner.layers.0."),
            ("model.generation_aligner.hidden_layers.0.", "gen_aligner.layers.2."),
            ("model.generation_aligner.hidden_layers.1.", "gen_aligner.layers.4."),
            ("model.generation_head.proj_out.", "gen_head.output_mlp_projector."),
            ("model.generation_head.vision_head.", "gen_head.vision_head."),
        ];
        let found = parts.iter().find_map(|(ours, theirs)| Some((theirs, name.strip_prefix(ours)?)));
        found.map_or_else(|| name.to_owned(), |(theirs, rest)| format!("{theirs}{rest}"))
    }
}
