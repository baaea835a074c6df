//! What learns in the layers stage, and how.

use crate::error::by_name;
use crate::model;
use crate::weights::Spec;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// Which weights learn: a role of the model's family, `all`, or names of weights separated by commas, in which `*` stands for
/// anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Trainable(Cow<'static, str>);

impl Trainable {
    /// The projections to queries, keys and values.
    pub const QKV: Trainable = Trainable(Cow::Borrowed("qkv"));
    /// All that attention computes with, output projection included.
    pub const ATTENTION: Trainable = Trainable(Cow::Borrowed("attention"));
    /// The matrices of the MLP.
    pub const MLP: Trainable = Trainable(Cow::Borrowed("mlp"));
    /// Every weight of the layers, norms included.
    pub const ALL: Trainable = Trainable(Cow::Borrowed("all"));
    /// Cross-attention and MLP, what ARBooth teaches (arXiv 2504.02612, section 3.2).
    pub const ARBOOTH: Trainable = Trainable(Cow::Borrowed("arbooth"));
    /// An older name for `qkv` with the adaptation `low_rank`.
    pub const LORA: Trainable = Trainable(Cow::Borrowed("lora"));

    /// Those that have names of their own here.
    pub const SETS: [Trainable; 5] =
        [Trainable::QKV, Trainable::ATTENTION, Trainable::MLP, Trainable::ALL, Trainable::LORA];

    /// As it is written in options and files.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// By its name. Whether a model has such weights is seen when it meets one.
    pub fn parse(name: &str) -> Result<Self> {
        let roles = [model::roles(), vec!["all", "lora"]].concat();
        let possible = |c: char| c.is_ascii_alphanumeric() || "_.*-".contains(c);
        // Names of weights have dots in them; what has none is a role.
        let is_name = |part: &str| part.contains(['.', '*']) && part.chars().all(possible);
        if let Some(part) = name.split(',').find(|part| !roles.contains(part) && !is_name(part)) {
            let message = format!(
                "\"{part}\" is not one of {}, nor the name of a weight or a pattern of names such as *.q_proj.weight",
                roles.join(", ")
            );
            return Err(Error::invalid("trainable", message));
        }
        Ok(Trainable(Cow::Owned(name.to_string())))
    }

    /// Whether a weight learns.
    pub fn includes(&self, weight: &Spec) -> bool {
        let role = |name: &str| match name {
            "all" => true,
            "lora" => weight.roles.contains(&"qkv"),
            _ => weight.roles.contains(&name),
        };
        weight.layer.is_some() && self.0.split(',').any(|part| role(part) || matches(part, &weight.name))
    }
}

impl TryFrom<String> for Trainable {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        Trainable::parse(&name)
    }
}

impl From<Trainable> for String {
    fn from(trainable: Trainable) -> String {
        trainable.0.into_owned()
    }
}

/// Whether the pattern, in which `*` stands for anything, is the whole name.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut left) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match left.find(part) {
            Some(at) => left = &left[at + part.len()..],
            None => return false,
        }
    }
    left.ends_with(last)
}

/// How a weight learns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Adaptation {
    /// Every number of it.
    #[default]
    Full,
    /// Two factors whose product is added to it (LoRA); matrices only.
    LowRank,
}

impl Adaptation {
    pub const ALL: [Adaptation; 2] = [Adaptation::Full, Adaptation::LowRank];

    /// As it is written in options and files.
    pub fn name(self) -> &'static str {
        match self {
            Adaptation::Full => "full",
            Adaptation::LowRank => "low_rank",
        }
    }

    /// By the name that [`Adaptation::name`] gives.
    pub fn parse(name: &str) -> Result<Self> {
        by_name("adaptation", name, Self::ALL, Self::name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, roles: &'static [&'static str], layer: Option<usize>) -> Spec {
        Spec { name: name.into(), layer, roles, dims: vec![2, 2], linear: true }
    }

    #[test]
    fn weights_are_chosen_by_role_by_name_and_by_pattern() {
        let q = spec("model.layers.1.self_attn.q_proj.weight", &["qkv", "attention"], Some(1));
        let up = spec("model.layers.0.mlp.up_proj.weight", &["mlp"], Some(0));
        let head = spec("lm_head.weight", &[], None);
        let chosen = |name: &str| [&q, &up, &head].map(|s| Trainable::parse(name).unwrap().includes(s));
        assert_eq!(chosen("qkv"), [true, false, false]);
        assert_eq!(chosen("lora"), [true, false, false]);
        assert_eq!(chosen("all"), [true, true, false]);
        assert_eq!(chosen("attention,mlp"), [true, true, false]);
        assert_eq!(chosen("*.q_proj.weight"), [true, false, false]);
        assert_eq!(chosen("model.layers.0.*"), [false, true, false]);
        assert_eq!(chosen("model.layers.0.mlp.up_proj.weight"), [false, true, false]);
        assert_eq!(chosen("*layers*up*"), [false, true, false]);
        assert_eq!(chosen("*"), [true, true, false]);
        assert_eq!(chosen("self_attn.q_proj"), [false, false, false]);
    }

    #[test]
    fn what_can_be_no_name_is_refused() {
        for name in ["", "everything", "q k v", "../x", "qkv;", "qkv,"] {
            let error = Trainable::parse(name).unwrap_err().to_string();
            assert!(error.contains("trainable") && error.contains("qkv"), "{error}");
        }
    }
}
