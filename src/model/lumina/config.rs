//! `config.json` of a Chameleon-type checkpoint.

use crate::model::llama::Shape;
use crate::{Error, Result};
use serde::Deserialize;
use std::path::Path;

/// The numbers that fix the transformer's shape. Fields that only matter elsewhere are ignored.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub layers: usize,
    pub heads: usize,
    /// Fewer than `heads` in grouped-query models (34B).
    pub kv_heads: usize,
    pub head_dim: usize,
    pub rms_norm_eps: f64,
    pub rope_theta: f64,
    /// Post-norm variant (34B): the output of each sub-layer is normalised instead of its input.
    pub swin_norm: bool,
    pub tie_word_embeddings: bool,
}

#[derive(Deserialize)]
struct Raw {
    model_type: Option<String>,
    vocab_size: Option<usize>,
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    num_key_value_heads: Option<usize>,
    rms_norm_eps: Option<f64>,
    rope_theta: Option<f64>,
    rope_scaling: Option<serde_json::Value>,
    swin_norm: Option<bool>,
    tie_word_embeddings: Option<bool>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    hidden_act: Option<String>,
}

impl Config {
    /// Reads and checks `config.json`; `file` is named in errors.
    pub fn from_json(text: &str, file: &Path) -> Result<Self> {
        let raw: Raw = serde_json::from_str(text)
            .map_err(|e| Error::bad_format(file, format!("not a model configuration: {e}")))?;
        let unsupported = |message: String| Error::UnsupportedModel { file: file.to_owned(), message };
        match raw.model_type.as_deref() {
            Some("chameleon") => {}
            Some(other) => {
                return Err(unsupported(format!(
                    "model_type is \"{other}\"; this library knows \"chameleon\" (Lumina-mGPT)"
                )))
            }
            None => return Err(Error::bad_format(file, "field model_type is missing; expected \"chameleon\"")),
        }
        let need = |name: &str, value: Option<usize>| match value {
            Some(0) => Err(Error::bad_format(file, format!("field {name} is 0"))),
            // No published model comes near; a product of two such numbers still fits 64 bits.
            Some(n) if n > 1 << 24 => {
                Err(Error::bad_format(file, format!("field {name} is {n}, which is not plausible")))
            }
            Some(n) => Ok(n),
            None => Err(Error::bad_format(file, format!("field {name} is missing"))),
        };
        let hidden_size = need("hidden_size", raw.hidden_size)?;
        let heads = need("num_attention_heads", raw.num_attention_heads)?;
        let kv_heads = need("num_key_value_heads", raw.num_key_value_heads.or(Some(heads)))?;
        if !hidden_size.is_multiple_of(heads) || !(hidden_size / heads).is_multiple_of(2) {
            return Err(Error::bad_format(
                file,
                format!("hidden_size {hidden_size} does not split into num_attention_heads {heads} heads of even size"),
            ));
        }
        if !heads.is_multiple_of(kv_heads) {
            return Err(Error::bad_format(
                file,
                format!("num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}"),
            ));
        }
        if raw.attention_bias == Some(true) || raw.mlp_bias == Some(true) {
            return Err(unsupported("attention_bias or mlp_bias is true; Lumina-mGPT has no biases".into()));
        }
        if let Some(act) = raw.hidden_act.filter(|a| a != "silu") {
            return Err(unsupported(format!("hidden_act is \"{act}\"; expected \"silu\"")));
        }
        if raw.rope_scaling.is_some_and(|v| !v.is_null()) {
            return Err(unsupported("rope_scaling is set; Lumina-mGPT uses plain rotary positions".into()));
        }
        let positive = |name: &str, value: f64, most: f64| {
            if value > 0.0 && value <= most {
                Ok(value)
            } else {
                Err(Error::bad_format(file, format!("field {name} is {value}; expected above 0 and at most {most}")))
            }
        };
        // A hundred times that of any model; with the limit of the others the count of parameters fits 64 bits.
        let layers = need("num_hidden_layers", raw.num_hidden_layers)?;
        if layers > 1 << 12 {
            return Err(Error::bad_format(
                file,
                format!("field num_hidden_layers is {layers}, which is not plausible"),
            ));
        }
        Ok(Config {
            vocab_size: need("vocab_size", raw.vocab_size)?,
            hidden_size,
            intermediate_size: need("intermediate_size", raw.intermediate_size)?,
            layers,
            heads,
            kv_heads,
            head_dim: hidden_size / heads,
            rms_norm_eps: positive("rms_norm_eps", raw.rms_norm_eps.unwrap_or(1e-5), 1.0)?,
            rope_theta: positive("rope_theta", raw.rope_theta.unwrap_or(10000.0), 1e12)?,
            swin_norm: raw.swin_norm.unwrap_or(false),
            tie_word_embeddings: raw.tie_word_embeddings.unwrap_or(false),
        })
    }

    pub fn shape(&self) -> Shape {
        Shape {
            prefix: "model.",
            vocabulary: self.vocab_size,
            hidden: self.hidden_size,
            intermediate: self.intermediate_size,
            layers: self.layers,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            norm_eps: self.rms_norm_eps,
            rope_theta: self.rope_theta,
            post_norm: self.swin_norm,
            head_norms: true,
        }
    }

    /// Parameters of the transformer, the image tokenizer not counted.
    pub fn parameters(&self) -> u64 {
        let head = self.vocab_size as u64 * self.hidden_size as u64;
        self.shape().numbers() + if self.tie_word_embeddings { 0 } else { head }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEVEN_B: &str = r#"{"model_type": "chameleon", "vocab_size": 65536, "hidden_size": 4096, "intermediate_size": 11008,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32, "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0, "swin_norm": false, "model_parallel_size": 1}"#;

    #[test]
    fn the_7b_configuration_has_the_published_parameter_count() {
        let config = Config::from_json(SEVEN_B, Path::new("config.json")).unwrap();
        assert_eq!(config.parameters(), 7_013_158_912);
        assert_eq!(config.head_dim, 128);
    }

    #[test]
    fn wrong_configurations_are_refused_by_field() {
        for (from, to, word) in [
            ("\"chameleon\"", "\"llama\"", "llama"),
            ("\"vocab_size\": 65536,", "", "vocab_size"),
            ("4096", "4097", "hidden_size"),
            ("\"num_key_value_heads\": 32", "\"num_key_value_heads\": 5", "num_key_value_heads"),
            ("\"num_hidden_layers\": 32", "\"num_hidden_layers\": 0", "num_hidden_layers"),
            ("11008", "99999999999", "intermediate_size"),
            ("1e-05", "-1", "rms_norm_eps"),
            ("1e-05", "1e300", "rms_norm_eps"),
            ("10000.0", "1e300", "rope_theta"),
            ("\"num_hidden_layers\": 32", "\"num_hidden_layers\": 16000000", "num_hidden_layers"),
            ("{", "[", "configuration"),
        ] {
            let text = SEVEN_B.replace(from, to);
            let error = Config::from_json(&text, Path::new("config.json")).unwrap_err().to_string();
            assert!(error.starts_with("config.json") && error.contains(word), "{error}");
        }
    }
}
