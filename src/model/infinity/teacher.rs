//! Distillation against forgetting (arXiv 2504.02612, section 3.3): the untouched model draws a picture of the plain class, and what it
//! predicted at each scale is what the student should go on predicting.
//!
//! | | `Correct` | `Reference`, as the published code has it |
//! |---|---|---|
//! | a scale of the teacher sees | itself and those before it | itself alone |
//! | its rotary positions are | its own | those of the first cells of the sequence |
//! | what the next scale is given is | sampled bilinearly, as in training | averaged |
//! | student and teacher are compared | bit by bit | by one softmax over all numbers of a token |
//!
//! The student sees what comes before and has its own positions in both.

use super::bsq::Bsq;
use super::drawing::{Drawing, Settings};
use super::loss::Likeness;
use super::schedule::Schedule;
use super::transformer::Transformer;
use crate::model::family::Teacher;
use crate::run::Control;
use crate::Result;
use candle_core::Tensor;

/// What a student learns from.
pub struct Taught {
    /// Codes of each scale.
    pub codes: Vec<Vec<u32>>,
    /// What the student is given of all scales but the first, [tokens - 1, bits].
    pub inputs: Vec<f32>,
    /// Of all tokens, before the temperature, [tokens, 2 bits].
    pub logits: Vec<f32>,
}

impl Teacher {
    pub fn likeness(self) -> Likeness {
        match self {
            Teacher::Correct => Likeness::Bits,
            Teacher::Reference => Likeness::Joint,
        }
    }

    /// How the released scripts draw: no guidance, temperature 0.5.
    pub fn settings() -> Settings {
        Settings { guidance: vec![1.0], temperature: vec![0.5], top_p: 0.97 }
    }

    /// Draws a picture of a text's features [n, text] and keeps what was predicted.
    pub fn teach(
        self,
        transformer: &Transformer,
        bsq: Bsq,
        schedule: &Schedule,
        features: &Tensor,
        seed: u64,
        stop: &Control,
    ) -> Result<Taught> {
        let bsq = Bsq { area: bsq.area || self == Teacher::Reference, ..bsq };
        let settings = Teacher::settings();
        let features = [features.clone()];
        let drawing = Drawing {
            transformer,
            bsq,
            schedule,
            features: &features,
            unguided: None,
            guidance: &settings.guidance,
            apart: self == Teacher::Reference,
            stop: stop.clone(),
        };
        let mut logits = Vec::new();
        let mut choose = drawing.chooser(&settings, vec![seed]);
        let mut kept = |s: usize, picture: usize, own: &[f32]| {
            logits.extend_from_slice(own);
            choose(s, picture, own)
        };
        let codes = drawing.run(&mut kept, &mut |_| Ok(()))?.swap_remove(0);
        let inputs = bsq.dequantise(codes.clone(), schedule.scales())?.inputs.concat();
        Ok(Taught { codes, inputs, logits })
    }
}
