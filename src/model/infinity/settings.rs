//! What the tensors of a model cannot tell, with upstream's values; `sitter.json` may say otherwise under `infinity`.

use crate::error::by_name;
use crate::model::recommended::Recommendable;
use crate::Result;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Groups of the image tokenizer's norms; 0 is 32 where that divides its channels, else 24.
    pub groups: usize,
    /// `once`, or `each_chunk` as in ARBooth's code.
    pub level_embedding: String,
    /// How what is drawn becomes the next scale's input: `bilinear`, or `area` as in ARBooth's code.
    pub next_input: String,
}

impl Default for Settings {
    /// ARBooth's where upstream says nothing.
    fn default() -> Self {
        Settings { groups: 0, level_embedding: "once".into(), next_input: "bilinear".into() }
    }
}

impl Recommendable for Settings {
    const HARMLESS: &'static [&'static str] = &["groups", "level_embedding", "next_input"];
    const USERS: &'static [&'static str] = &[];

    fn check_ranges(&self) -> Result<()> {
        let one_of =
            |field: &str, value: &str, names: [&'static str; 2]| by_name(field, value, names, |name| name).map(|_| ());
        one_of("level_embedding", &self.level_embedding, ["once", "each_chunk"])?;
        one_of("next_input", &self.next_input, ["bilinear", "area"])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::recommended::undecided;

    #[test]
    fn whether_a_model_may_set_it_is_decided_for_every_value() {
        assert_eq!(undecided(&Settings::default()), Vec::<String>::new());
        let odd = |settings: Settings| settings.check_ranges().unwrap_err().to_string();
        assert!(odd(Settings { next_input: "nearest".into(), ..Default::default() }).contains("bilinear"));
        assert!(odd(Settings { level_embedding: "twice".into(), ..Default::default() }).contains("each_chunk"));
    }
}
