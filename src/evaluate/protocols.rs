//! The protocols that scores are published under. They differ in what the networks see, what is compared with what, and how
//! means are taken, so their numbers cannot stand side by side.

use super::preprocess::{Statistics, View};
use crate::error::by_name;
use crate::Result;
use serde::Serialize;

/// How pictures are drawn, compared and averaged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// DreamBooth: 30 subjects, 25 prompts, 4 pictures of each.
    A,
    /// Personalized autoregressive generation (arXiv 2504.13162): as A, one picture of each prompt.
    #[default]
    B,
    /// Kosmos-G, OmniGen, UNO: pictures made of one reference are compared with that one only.
    C,
    /// ARBooth, ViCo: pictures squashed to 256 pixels, texts with the braces left in.
    D,
}

/// What a protocol says, in words, for whoever reads a result.
#[derive(Clone, Debug, Serialize)]
pub struct Rules {
    /// Who publishes under it.
    pub used_by: &'static str,
    pub dino_view: String,
    pub clip_view: String,
    /// What a picture is compared with.
    pub references: &'static str,
    /// What CLIP reads.
    pub text: &'static str,
    /// Over what means are taken, from the inside out.
    pub average: &'static str,
    /// Pictures that the protocol draws of each prompt.
    pub per_prompt: u32,
}

impl Protocol {
    pub const ALL: [Protocol; 4] = [Protocol::A, Protocol::B, Protocol::C, Protocol::D];

    pub fn name(self) -> &'static str {
        match self {
            Protocol::A => "A",
            Protocol::B => "B",
            Protocol::C => "C",
            Protocol::D => "D",
        }
    }

    pub fn parse(name: &str) -> Result<Self> {
        by_name("protocol", name, Self::ALL, Self::name)
    }

    /// What a DINO that was trained on squares of `side` pixels sees, and in which numbers.
    pub fn dino(self, side: u32) -> (View, Statistics) {
        match self {
            Protocol::D => (View::Squash { side: 256 }, Statistics::HALF),
            // 256 for 224.
            _ => (View::Crop { short: side * 8 / 7, side }, Statistics::IMAGENET),
        }
    }

    /// What CLIP sees.
    pub fn clip(self, side: u32) -> (View, Statistics) {
        match self {
            // Near the original, which resizes the second time in floats and by a version of torchvision that it does not name.
            Protocol::D => (View::Twice { first: 256, side }, Statistics::CLIP),
            _ => (View::Crop { short: side, side }, Statistics::CLIP),
        }
    }

    /// Whether CLIP reads the text as it is written, with `{}` in it, instead of the class alone.
    pub fn keeps_braces(self) -> bool {
        self == Protocol::D
    }

    pub fn rules(self, dino_side: u32, clip_side: u32) -> Rules {
        Rules {
            used_by: match self {
                Protocol::A => "DreamBooth, BLIP-Diffusion",
                Protocol::B => "arXiv 2504.13162",
                Protocol::C => "Kosmos-G, OmniGen, UNO",
                Protocol::D => "ARBooth, ViCo",
            },
            dino_view: self.dino(dino_side).0.name(),
            clip_view: self.clip(clip_side).0.name(),
            references: match self {
                Protocol::C => "the one that the picture was made of",
                _ => "mean over all",
            },
            text: match self {
                Protocol::D => "the template with {} in it",
                _ => "the class without the identifier",
            },
            average: match self {
                Protocol::A | Protocol::B => "pictures of a subject, then subjects",
                Protocol::C => "all pictures at once",
                Protocol::D => "pictures of a prompt, then prompts, then subjects",
            },
            per_prompt: match self {
                Protocol::A | Protocol::C => 4,
                Protocol::B => 1,
                Protocol::D => 8,
            },
        }
    }
}

/// The text without the identifier: "a {} dog in the snow" becomes "a dog in the snow".
pub fn class_only(template: &str) -> String {
    template.replace("{}", " ").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The text with an identifier in the place of the braces.
pub fn whole_prompt(template: &str, identifier: &str) -> String {
    template.replace("{}", identifier)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_stands_alone_without_its_identifier() {
        assert_eq!(class_only("a {} dog in the snow"), "a dog in the snow");
        assert_eq!(class_only("a photo of {}"), "a photo of");
        assert_eq!(class_only("a dog"), "a dog");
        assert_eq!(whole_prompt("a {} dog", "[V]"), "a [V] dog");
    }

    #[test]
    fn an_unknown_protocol_is_refused_with_those_there_are() {
        let error = Protocol::parse("E").unwrap_err().to_string();
        assert!(error.contains("A, B, C, D"), "{error}");
        assert_eq!(Protocol::parse("C").unwrap(), Protocol::C);
    }

    #[test]
    fn a_protocol_says_what_the_networks_see() {
        let rules = Protocol::B.rules(224, 224);
        assert!(rules.dino_view.contains("256") && rules.dino_view.contains("crop 224"), "{rules:?}");
        assert!(rules.clip_view.contains("shorter side 224"), "{rules:?}");
        assert!(Protocol::D.rules(224, 224).dino_view.contains("256x256"));
    }
}
