//! What is going to be drawn, checked before a training that may take hours.

use crate::arguments::Arguments;
use sitter::model::family::Piece;
use sitter::model::personalized::Personalized;
use sitter::model::subject::Subject;
use sitter::model::words::Word;
use sitter::model::Model;
use sitter::personalize::TEMPLATES;
use sitter::sample;
use sitter::{Error, Result};

/// Scenes, colours and accessories that the references do not show.
const NEW_SCENES: [&str; 8] = [
    "a photo of a {} in the snow",
    "a photo of a {} on the beach",
    "a photo of a {} at night",
    "a photo of a {} in front of a brick wall",
    "a photo of a blue {}",
    "a photo of a red {} in the forest",
    "a photo of a {} wearing a hat",
    "a photo of a {} wearing a crown underwater",
];

pub struct Plan {
    identifier: String,
    /// With the class word alone.
    pub plain: String,
    /// With the subject.
    pub named: String,
    /// The prompts that were asked for, or the new scenes.
    pub scenes: Vec<String>,
}

impl Plan {
    /// For a subject that is there already, or the one that is going to be taught.
    pub fn new(arguments: &Arguments, subject: Option<&Subject>) -> Result<Self> {
        let (identifier, class) = match subject {
            Some(subject) => (subject.identifier.as_str(), subject.class_word.as_str()),
            None => (arguments.identifier.as_str(), arguments.class.trim()),
        };
        let both = format!("{identifier} {class}").trim_end().to_string();
        if subject.is_none() && TEMPLATES.iter().any(|t| t.split(' ').any(|word| word == identifier)) {
            let message = format!("\"{identifier}\" is a word of ordinary prompts; take one that is not, such as [V]");
            return Err(Error::invalid("--identifier", message));
        }
        if let Some(prompt) = arguments.prompts.iter().find(|p| !p.contains(identifier)) {
            return Err(nameless(prompt, identifier));
        }
        let scenes = match arguments.prompts.is_empty() {
            false => arguments.prompts.clone(),
            true => NEW_SCENES.iter().map(|p| p.replace("{}", &both)).collect(),
        };
        let plain = format!("a photo of a {class}").trim_end().to_string();
        Ok(Plan { identifier: identifier.into(), plain, named: format!("a photo of a {both}"), scenes })
    }

    /// Errors if the model could not draw it, once the subject is there.
    pub fn check(&self, model: &Model, count: u32) -> Result<()> {
        if !model.info().can_decode {
            let message =
                "the model came without the decoder of its image tokenizer, so that nothing can be drawn with it";
            return Err(Error::NotSupported { message: message.into() });
        }
        let options = sample::Options { count, ..sample::Options::for_model(model)? };
        options.check_ranges()?;
        // As if the subject were there.
        let mut view = Personalized::new(model, &[])?;
        view.words.push(Word { identifier: self.identifier.clone(), vectors: 0..1 });
        view.condition(&self.plain, options.width, options.height)?;
        for prompt in self.scenes.iter().chain([&self.named]) {
            let pieces = view.condition(prompt, options.width, options.height)?.pieces;
            if !pieces.iter().any(|piece| matches!(piece, Piece::Vector(_))) {
                return Err(nameless(prompt, &self.identifier));
            }
        }
        Ok(())
    }
}

fn nameless(prompt: &str, identifier: &str) -> Error {
    let message = format!("\"{prompt}\" does not name the subject: write {identifier} there, as a word of its own");
    Error::invalid("--prompt", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sitter::model::OpenOptions;
    use sitter::run::Run;

    fn checked(line: &[&str]) -> String {
        let arguments = match Arguments::from(line) {
            Ok(arguments) => arguments,
            Err(e) => return e.to_string(),
        };
        let plan = Plan::new(&arguments, None).and_then(|plan| {
            let model = Model::open("embedded:", &OpenOptions::default(), &mut Run::new())?;
            plan.check(&model, arguments.count)?;
            // A training begins with it.
            arguments.options(&model)?.check(&model)
        });
        plan.map_or_else(|e| e.to_string(), |()| "fine".into())
    }

    #[test]
    fn prompts_identifiers_and_counts_are_checked_before_training() {
        assert_eq!(checked(&[]), "fine");
        assert_eq!(checked(&["--prompt", "my [V] fox", "--prompt", "[V]", "--count", "256"]), "fine");
        assert_eq!(checked(&["--identifier", "sks", "--prompt", "a sks dog", "--class", "dog"]), "fine");
        for (line, word) in [
            (&["--prompt", "a fox"][..], "\"a fox\" does not name the subject"),
            (&["--prompt", "[V]", "--prompt", "a fox"], "\"a fox\""),
            (&["--prompt", "asks", "--identifier", "sks"], "write sks there"),
            (&["--prompt", "a [V] and a [W] fox"], "[W]"),
            (&["--prompt", " "], "--prompt"),
            (&["--count", "0"], "--count: is 0; allowed are 1 to 256"),
            (&["--count", "257"], "--count: is 257"),
            (&["--identifier", "photo"], "ordinary"),
            (&["--identifier", "two words"], "identifier"),
            (&["--identifier", ""], "identifier"),
            (&["--class", " "], "--class: is empty"),
            (&["--identifier", "fox"], "part of the class word"),
        ] {
            let said = checked(line);
            assert!(said.contains(word), "{line:?}: {said}");
        }
    }
}
