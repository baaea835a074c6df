//! What the tensors of a model cannot tell, with upstream's values; `sitter.json` may say otherwise under `infinity`.

use super::teacher::Teacher;
use crate::error::by_name;
use crate::model::recommended::Recommendable;
use crate::{Error, Result};
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
    /// Weight of each scale in the loss of a training; the last one counts for the scales behind, too.
    pub scale_weights: Vec<f32>,
    /// `correct`, or `reference` as in ARBooth's code; see [`Teacher`].
    pub teacher: String,
    /// In a training, up to this share of a scale's bits is turned over in what later scales see, so that they learn to mend it.
    pub self_correction: f32,
}

impl Default for Settings {
    /// ARBooth's where upstream says nothing.
    fn default() -> Self {
        Settings {
            groups: 0,
            level_embedding: "once".into(),
            next_input: "bilinear".into(),
            scale_weights: vec![1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5],
            teacher: "correct".into(),
            self_correction: 0.3,
        }
    }
}

impl Settings {
    pub fn teacher(&self) -> Teacher {
        match self.teacher.as_str() {
            "reference" => Teacher::Reference,
            _ => Teacher::Correct,
        }
    }
}

impl Recommendable for Settings {
    const HARMLESS: &'static [&'static str] =
        &["groups", "level_embedding", "next_input", "scale_weights", "teacher", "self_correction"];
    const USERS: &'static [&'static str] = &[];

    fn check_ranges(&self) -> Result<()> {
        let one_of =
            |field: &str, value: &str, names: [&'static str; 2]| by_name(field, value, names, |name| name).map(|_| ());
        one_of("level_embedding", &self.level_embedding, ["once", "each_chunk"])?;
        one_of("next_input", &self.next_input, ["bilinear", "area"])?;
        one_of("teacher", &self.teacher, ["correct", "reference"])?;
        let within = |field: &str, value: f32| match (0.0..=1.0).contains(&value) {
            true => Ok(()),
            false => Err(Error::invalid(field, format!("{value} is outside 0 to 1"))),
        };
        within("self_correction", self.self_correction)?;
        match self.scale_weights.iter().find(|w| !(0.0..=1000.0).contains(*w)) {
            Some(w) => Err(Error::invalid("scale_weights", format!("{w} is outside 0 to 1000"))),
            None => Ok(()),
        }
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
        assert!(odd(Settings { self_correction: 2.0, ..Default::default() }).contains("self_correction"));
        assert!(odd(Settings { level_embedding: "twice".into(), ..Default::default() }).contains("each_chunk"));
    }
}
