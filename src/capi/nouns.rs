//! What the host gets handles to, and what lies behind them.

use super::backend::{Backend, Measure};
use super::engine::Engine;
use super::handle::Noun;
use super::memory::GiveBack;
use crate::evaluate::{self, Protocol};
use crate::model::subject::Subject;
use crate::model::OpenOptions;
use crate::picture::Picture;
use crate::tokens::Tokens;
use crate::{personalize, sample};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// An RGB picture of eight bits per channel. Shared handle; never changes.
pub struct sitter_image {
    _opaque: [u8; 0],
}

impl Noun for sitter_image {
    const NAME: &'static str = "sitter_image";
    type Value = Arc<Image>;
}

pub struct Image {
    pub picture: Picture,
    /// What made it, for a decoded picture: JSON.
    pub provenance: Option<String>,
}

/// The grid of image tokens of one picture: indices into the codebook. Shared handle; never changes.
pub struct sitter_tokens {
    _opaque: [u8; 0],
}

impl Noun for sitter_tokens {
    const NAME: &'static str = "sitter_tokens";
    type Value = Arc<Grid>;
}

pub struct Grid {
    pub tokens: Tokens,
    /// What drew it: JSON.
    pub provenance: Option<String>,
}

/// A pretrained model. Shared handle; never changes.
pub struct sitter_model {
    _opaque: [u8; 0],
}

impl Noun for sitter_model {
    const NAME: &'static str = "sitter_model";
    type Value = Arc<OpenModel>;
}

pub struct OpenModel {
    pub engine: Arc<Engine>,
    pub backend: Box<dyn Backend>,
    // Dropped last.
    pub(super) _memory: GiveBack,
}

/// Reference pictures of one subject, three to five as a rule, with a caption for each or for none. Builder handle.
pub struct sitter_dataset {
    _opaque: [u8; 0],
}

impl Noun for sitter_dataset {
    const NAME: &'static str = "sitter_dataset";
    type Value = Arc<Mutex<Vec<Entry>>>;
}

#[derive(Clone)]
pub struct Entry {
    pub image: Arc<Image>,
    pub caption: Option<String>,
}

/// What training learned about one subject. It belongs to the model it was trained on. Shared handle; never changes.
pub struct sitter_subject {
    _opaque: [u8; 0],
}

impl Noun for sitter_subject {
    const NAME: &'static str = "sitter_subject";
    type Value = Arc<Subject>;
}

/// How to open a model. Builder handle.
pub struct sitter_model_options {
    _opaque: [u8; 0],
}

/// How to draw. Builder handle.
pub struct sitter_sample_options {
    _opaque: [u8; 0],
}

/// How to teach a subject. Builder handle.
pub struct sitter_train_options {
    _opaque: [u8; 0],
}

impl Noun for sitter_model_options {
    const NAME: &'static str = "sitter_model_options";
    type Value = Arc<Mutex<OpenOptions>>;
}

impl Noun for sitter_sample_options {
    const NAME: &'static str = "sitter_sample_options";
    type Value = Arc<Mutex<sample::Options>>;
}

impl Noun for sitter_train_options {
    const NAME: &'static str = "sitter_train_options";
    type Value = Arc<Mutex<personalize::Options>>;
}

/// Networks that measure pictures as the papers do: DINO, CLIP, LPIPS. Shared handle; never changes.
pub struct sitter_evaluator {
    _opaque: [u8; 0],
}

impl Noun for sitter_evaluator {
    const NAME: &'static str = "sitter_evaluator";
    type Value = Arc<OpenEvaluator>;
}

pub struct OpenEvaluator {
    pub engine: Arc<Engine>,
    pub networks: Box<dyn Measure>,
    // Dropped last.
    pub(super) _memory: GiveBack,
}

/// Pictures of one subject that are to be measured, with what they are compared with. Builder handle.
pub struct sitter_evaluation {
    _opaque: [u8; 0],
}

impl Noun for sitter_evaluation {
    const NAME: &'static str = "sitter_evaluation";
    type Value = Arc<Mutex<Evaluation>>;
}

#[derive(Clone, Default)]
pub struct Evaluation {
    pub protocol: Protocol,
    pub identifier: Option<String>,
    pub pictures: Vec<Measured>,
    pub references: Vec<Measured>,
    pub class_pictures: Vec<Measured>,
    pub untouched: Vec<Measured>,
}

/// A picture of an evaluation.
#[derive(Clone)]
pub struct Measured {
    pub content: Content,
    pub text: String,
}

#[derive(Clone)]
pub enum Content {
    Image(Arc<Image>),
    File(PathBuf),
}

/// Scores of one evaluation. Shared handle; never changes.
pub struct sitter_scores {
    _opaque: [u8; 0],
}

impl Noun for sitter_scores {
    const NAME: &'static str = "sitter_scores";
    /// A JSON object.
    type Value = Arc<String>;
}

/// Where the networks of an evaluator are. Builder handle.
pub struct sitter_evaluator_options {
    _opaque: [u8; 0],
}

impl Noun for sitter_evaluator_options {
    const NAME: &'static str = "sitter_evaluator_options";
    type Value = Arc<Mutex<evaluate::OpenOptions>>;
}
