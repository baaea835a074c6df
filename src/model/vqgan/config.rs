//! The shape of a VQ-GAN, from either of the two files that describe one.

use super::yaml;
use crate::{Error, Result};
use serde_json::Value;
use std::path::Path;

/// Hyperparameters, under their names in taming-transformers.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Channels of a code.
    pub embed_dim: usize,
    /// Codes in the codebook.
    pub n_embed: usize,
    /// Channels between encoder and quantiser.
    pub z_channels: usize,
    /// Whether the encoder gives mean and variance; never so in a VQ-GAN.
    pub double_z: bool,
    /// Side of the training pictures. Only says at which levels `attn_resolutions` lie.
    pub resolution: usize,
    pub in_channels: usize,
    pub out_ch: usize,
    /// Channels at full resolution, before the first multiplier.
    pub ch: usize,
    /// Multipliers of `ch`, one per level; each level but the last halves the resolution.
    pub ch_mult: Vec<usize>,
    /// Residual blocks per level of the encoder; the decoder has one more.
    pub num_res_blocks: usize,
    pub attn_resolutions: Vec<usize>,
    /// Of training. Nothing is dropped here.
    pub dropout: f64,
    /// Groups of every group norm. Not in the published files, which all mean 32.
    pub num_groups: usize,
    /// Whether codes are directions: the codebook's rows count with length one, and so does what is quantised.
    pub directions: bool,
}

impl Default for Config {
    /// The image tokenizer of the 7B models.
    fn default() -> Self {
        Config {
            embed_dim: 256,
            n_embed: 8192,
            z_channels: 256,
            double_z: false,
            resolution: 512,
            in_channels: 3,
            out_ch: 3,
            ch: 128,
            ch_mult: vec![1, 1, 2, 2, 4],
            num_res_blocks: 2,
            attn_resolutions: Vec::new(),
            dropout: 0.0,
            num_groups: 32,
            directions: false,
        }
    }
}

impl Config {
    /// Reads a `vqgan.yaml` as taming-transformers and Chameleon have it: `model.params` holds `embed_dim`, `n_embed`
    /// and `ddconfig`. Keys that do not change the network are ignored.
    pub fn from_yaml(text: &str, file: impl AsRef<Path>) -> Result<Self> {
        let file = file.as_ref();
        let root = yaml::parse(text, file)?;
        let params = Keys { file, path: String::new(), value: &root }.below("model")?.below("params")?;
        let dd = params.below("ddconfig")?;
        // Switches of the original code that would make another network.
        params.must_be("remap", &Value::Null)?;
        dd.must_be("attn_type", &"vanilla".into())?;
        dd.must_be("resamp_with_conv", &true.into())?;
        dd.must_be("use_linear_attn", &false.into())?;
        dd.must_be("tanh_out", &false.into())?;
        dd.must_be("give_pre_end", &false.into())?;
        Config {
            embed_dim: params.number("embed_dim", None)?,
            n_embed: params.number("n_embed", None)?,
            z_channels: dd.number("z_channels", None)?,
            double_z: dd.boolean("double_z", None)?,
            resolution: dd.number("resolution", None)?,
            in_channels: dd.number("in_channels", None)?,
            out_ch: dd.number("out_ch", None)?,
            ch: dd.number("ch", None)?,
            ch_mult: dd.numbers("ch_mult", None)?,
            num_res_blocks: dd.number("num_res_blocks", None)?,
            attn_resolutions: dd.numbers("attn_resolutions", None)?,
            dropout: dd.fraction("dropout", Some(0.0))?,
            num_groups: dd.number("num_groups", Some(32))?,
            directions: false,
        }
        .checked(file)
    }

    /// Reads the `vq_config` object of a Hugging Face `config.json`. A key that is absent has the default of
    /// transformers, which is the value of the 7B models.
    pub fn from_vq_config(value: &Value, file: impl AsRef<Path>) -> Result<Self> {
        let file = file.as_ref();
        let keys = Keys { file, path: "vq_config".into(), value };
        if !value.is_object() {
            return Err(keys.error("must be an object"));
        }
        keys.must_be("attn_type", &"vanilla".into())?;
        let default = Config::default();
        let in_channels = keys.number("in_channels", Some(default.in_channels))?;
        Config {
            embed_dim: keys.number("embed_dim", Some(default.embed_dim))?,
            n_embed: keys.number("num_embeddings", Some(default.n_embed))?,
            z_channels: keys.number("latent_channels", Some(default.z_channels))?,
            double_z: keys.boolean("double_latent", Some(default.double_z))?,
            resolution: keys.number("resolution", Some(default.resolution))?,
            in_channels,
            out_ch: keys.number("out_channels", Some(in_channels))?,
            ch: keys.number("base_channels", Some(default.ch))?,
            ch_mult: keys.numbers("channel_multiplier", Some(&default.ch_mult))?,
            num_res_blocks: keys.number("num_res_blocks", Some(default.num_res_blocks))?,
            attn_resolutions: keys.numbers("attn_resolutions", Some(&default.attn_resolutions))?,
            dropout: keys.fraction("dropout", Some(default.dropout))?,
            num_groups: keys.number("num_groups", Some(default.num_groups))?,
            directions: false,
        }
        .checked(file)
    }

    /// Pixels per code along each side.
    pub fn downsampling(&self) -> u32 {
        1 << (self.ch_mult.len() - 1)
    }

    /// Channels of a level, 0 being full resolution.
    pub(super) fn channels(&self, level: usize) -> usize {
        self.ch * self.ch_mult[level]
    }

    pub(super) fn has_attention(&self, level: usize) -> bool {
        self.attn_resolutions.contains(&(self.resolution >> level))
    }

    /// Refuses what this library cannot run, and sizes that are nonsense before they become allocations.
    pub(super) fn checked(self, file: &Path) -> Result<Self> {
        let unsupported = |message: String| Err(Error::UnsupportedModel { file: file.to_owned(), message });
        if self.double_z {
            return unsupported("double_z is true: this is a variational autoencoder and has no discrete codes".into());
        }
        if self.in_channels != 3 || self.out_ch != 3 {
            let m =
                format!("{} channels in and {} out; only RGB pictures are supported", self.in_channels, self.out_ch);
            return unsupported(m);
        }
        const CHANNELS: usize = 1 << 16;
        let limits = [
            ("embed_dim", self.embed_dim, CHANNELS),
            ("n_embed", self.n_embed, 1 << 24),
            ("z_channels", self.z_channels, CHANNELS),
            ("resolution", self.resolution, 1 << 20),
            ("ch", self.ch, CHANNELS),
            ("number of ch_mult", self.ch_mult.len(), 10),
            ("largest ch_mult", self.ch_mult.iter().copied().max().unwrap_or(0), 1 << 10),
            ("smallest ch_mult", self.ch_mult.iter().copied().min().unwrap_or(0), 1 << 10),
            ("num_res_blocks", self.num_res_blocks, 64),
            ("num_groups", self.num_groups, CHANNELS),
        ];
        for (what, found, most) in limits {
            if !(1..=most).contains(&found) {
                return Err(Error::bad_format(file, format!("{what} is {found}, expected 1 to {most}")));
            }
        }
        let ungrouped = (0..self.ch_mult.len()).map(|i| self.channels(i)).chain([self.ch]);
        if let Some(channels) = ungrouped.into_iter().find(|c| c % self.num_groups != 0) {
            let m = format!("{channels} channels do not divide into {} groups (num_groups)", self.num_groups);
            return Err(Error::bad_format(file, m));
        }
        Ok(self)
    }
}

/// A mapping in a file, for errors that name the full key.
struct Keys<'a> {
    file: &'a Path,
    path: String,
    value: &'a Value,
}

impl<'a> Keys<'a> {
    fn error(&self, message: &str) -> Error {
        Error::bad_format(self.file, format!("{} {message}", self.path))
    }

    fn full(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.into()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    fn below(&self, key: &str) -> Result<Keys<'a>> {
        static NOTHING: Value = Value::Null;
        let value = self.value.get(key).unwrap_or(&NOTHING);
        let keys = Keys { file: self.file, path: self.full(key), value };
        match value {
            Value::Object(_) => Ok(keys),
            Value::Null => Err(keys.error("is missing")),
            _ => Err(keys.error("must be a mapping")),
        }
    }

    /// The value of `key`; none if it is absent or null.
    fn find(&self, key: &str) -> Option<&'a Value> {
        self.value.get(key).filter(|v| !v.is_null())
    }

    fn read<T>(&self, key: &str, kind: &str, default: Option<T>, read: impl Fn(&Value) -> Option<T>) -> Result<T> {
        let bad = |found: &str| Error::bad_format(self.file, format!("{} {found}, expected {kind}", self.full(key)));
        match (self.find(key), default) {
            (Some(value), _) => read(value).ok_or_else(|| bad(&format!("is {}", abbreviated(value)))),
            (None, Some(default)) => Ok(default),
            (None, None) => Err(bad("is missing")),
        }
    }

    fn number(&self, key: &str, default: Option<usize>) -> Result<usize> {
        self.read(key, "a whole number", default, whole)
    }

    fn numbers(&self, key: &str, default: Option<&[usize]>) -> Result<Vec<usize>> {
        let list = |v: &Value| v.as_array()?.iter().map(whole).collect();
        self.read(key, "a list of whole numbers", default.map(<[_]>::to_vec), list)
    }

    fn boolean(&self, key: &str, default: Option<bool>) -> Result<bool> {
        self.read(key, "true or false", default, Value::as_bool)
    }

    fn fraction(&self, key: &str, default: Option<f64>) -> Result<f64> {
        let kind = "a number from 0 to below 1";
        self.read(key, kind, default, |v| v.as_f64().filter(|f| (0.0..1.0).contains(f)))
    }

    /// An optional switch of which only one position is supported.
    fn must_be(&self, key: &str, wanted: &Value) -> Result<()> {
        match self.value.get(key) {
            Some(found) if found != wanted => {
                let m = format!("{} is {}; only {wanted} is supported", self.full(key), abbreviated(found));
                Err(Error::UnsupportedModel { file: self.file.to_owned(), message: m })
            }
            _ => Ok(()),
        }
    }
}

fn whole(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|n| usize::try_from(n).ok())
}

fn abbreviated(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const YAML: &str = "
# as Chameleon's
model:
  base_learning_rate: 4.5e-06
  target: taming.models.vqgan.VQModel
  params:
    embed_dim: 256
    n_embed: 8192
    ddconfig:
      double_z: false
      z_channels: 256
      resolution: 512
      in_channels: 3
      out_ch: 3
      ch: 128
      ch_mult:
      - 1
      - 1
      - 2
      - 2
      - 4
      num_res_blocks: 2
      attn_resolutions: []
      dropout: 0.0
    lossconfig:
      target: taming.modules.losses.vqperceptual.VQLPIPSWithDiscriminator
      params: {disc_start: 100001, disc_weight: 0.8}
";

    fn edited(from: &str, to: &str) -> Result<Config> {
        assert!(YAML.contains(from));
        Config::from_yaml(&YAML.replacen(from, to, 1), "vqgan.yaml")
    }

    #[test]
    fn both_files_describe_the_same_7b_model() {
        let yaml = Config::from_yaml(YAML, "vqgan.yaml").unwrap();
        assert_eq!(yaml.downsampling(), 16);
        assert_eq!(yaml.ch_mult, [1, 1, 2, 2, 4]);
        assert_eq!(yaml, Config::default());
        assert_eq!(Config::from_vq_config(&json!({}), "config.json").unwrap(), yaml);
        let full = json!({
            "attn_resolutions": null, "attn_type": "vanilla", "base_channels": 128, "double_latent": false,
            "channel_multiplier": [1, 1, 2, 2, 4], "dropout": 0.0, "embed_dim": 256, "in_channels": 3,
            "latent_channels": 256, "num_embeddings": 8192, "num_res_blocks": 2, "resolution": 512,
            "model_type": "chameleon_vqgan",
        });
        assert_eq!(Config::from_vq_config(&full, "config.json").unwrap(), yaml);
    }

    #[test]
    fn attention_lies_at_the_levels_of_its_resolutions() {
        let config = edited("attn_resolutions: []", "attn_resolutions: [64, 32]").unwrap();
        assert_eq!([0, 1, 2, 3, 4].map(|l| config.has_attention(l)), [false, false, false, true, true]);
    }

    #[test]
    fn a_missing_or_wrong_key_is_named_in_full() {
        for (from, to, wanted) in [
            ("    embed_dim: 256\n", "", "model.params.embed_dim is missing"),
            ("      ch: 128\n", "", "model.params.ddconfig.ch is missing"),
            ("ddconfig:", "other:", "model.params.ddconfig is missing"),
            ("      ch: 128", "      ch: 12.5", "model.params.ddconfig.ch is 12.5, expected a whole number"),
            ("      ch: 128", "      ch: -1", "model.params.ddconfig.ch is -1, expected a whole number"),
            ("attn_resolutions: []", "attn_resolutions: 16", "expected a list of whole numbers"),
            ("      ch: 128", "      ch: 100", "do not divide into 32 groups"),
            ("num_res_blocks: 2", "num_res_blocks: 0", "num_res_blocks is 0"),
            ("n_embed: 8192", "n_embed: 99999999999", "n_embed is 99999999999"),
            ("dropout: 0.0", "dropout: .nan", "dropout"),
        ] {
            let error = edited(from, to).unwrap_err();
            assert!(matches!(error, Error::BadFormat { .. }), "{error:?}");
            assert!(error.to_string().starts_with("vqgan.yaml: ") && error.to_string().contains(wanted), "{error}");
        }
    }

    #[test]
    fn networks_of_another_kind_are_unsupported() {
        for (from, to) in [
            ("double_z: false", "double_z: true"),
            ("out_ch: 3", "out_ch: 1"),
            ("dropout: 0.0", "dropout: 0.0\n      resamp_with_conv: false"),
            ("dropout: 0.0", "dropout: 0.0\n      attn_type: linear"),
            ("n_embed: 8192", "n_embed: 8192\n    remap: used.npy"),
        ] {
            let error = edited(from, to).unwrap_err();
            assert!(matches!(error, Error::UnsupportedModel { .. }), "{error:?}");
        }
        let error = Config::from_vq_config(&json!({"attn_type": null}), "config.json").unwrap_err();
        assert!(matches!(error, Error::UnsupportedModel { .. }), "{error:?}");
    }

    #[test]
    fn a_vq_config_that_is_no_object_is_refused() {
        for value in
            [json!(null), json!([]), json!("x"), json!({"embed_dim": "256"}), json!({"ch_mult": 3, "dropout": 2})]
        {
            assert!(Config::from_vq_config(&value, "config.json").is_err(), "{value}");
        }
    }
}
