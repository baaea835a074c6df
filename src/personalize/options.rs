//! Everything that can be set about a training. Defaults are the paper's; a model family and a model may recommend their own.
//!
//! "Paper" is arXiv 2504.13162, "ARBooth" the code released with 2504.02612, "Lumina" the fine-tuning recipe of Lumina-mGPT; what none
//! of them says is our choice and marked so.

use super::method::Method;
use super::optimizer::{OptimizerDevice, StateFormat};
use super::trainable::{Adaptation, Trainable};
use crate::error::by_name;
use crate::model::family::{ByScale, Teacher};
use crate::model::recommended::Recommendable;
use crate::weights::Spec;
use crate::Result;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Whether the backward pass computes each layer anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recompute {
    /// If what the layers need would take more than half of the memory that is free.
    #[default]
    Auto,
    /// Only what each layer was given is kept: a third more work, and by far the least memory.
    Always,
    /// All that the backward pass needs is kept.
    Never,
}

impl Recompute {
    /// Whether layers are computed anew where `layers` of them go backward, each needs `kept` bytes, and so much is free.
    pub fn decide(self, layers: u128, kept: u128, free: Option<u128>) -> bool {
        match self {
            Recompute::Always => true,
            Recompute::Never => false,
            Recompute::Auto => free.is_none_or(|free| layers * kept > free / 2),
        }
    }

    pub const ALL: [Recompute; 3] = [Recompute::Auto, Recompute::Always, Recompute::Never];

    /// As it is written in options and files.
    pub fn name(self) -> &'static str {
        match self {
            Recompute::Auto => "auto",
            Recompute::Always => "always",
            Recompute::Never => "never",
        }
    }

    /// By the name that [`Recompute::name`] gives.
    pub fn parse(name: &str) -> Result<Self> {
        by_name("recompute", name, Self::ALL, Self::name)
    }
}

/// All options of a training. Get them from [`Options::for_model`] and change what you want to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// The preset that the other values came from. Changing it here changes nothing but the subject's record.
    pub method: Method,
    /// The word that stands for the subject in prompts. No blanks, at most 64 bytes. Default `[V]`.
    pub identifier: String,
    /// What the subject is, in a word or a few: `dog`. Needed unless `use_class_word` is false.
    pub class_word: String,
    /// Whether the class word follows the identifier in the templates. Default true (paper).
    pub use_class_word: bool,

    /// Steps of the embedding stage; 0 leaves it out. 0 to 1 000 000, default 1500 (paper).
    pub embedding_steps: u32,
    /// Learning rate of the vectors, in both stages. 0 to 10, default 0.01 (paper), `arbooth` 2.34375e-5 (ARBooth).
    pub embedding_learning_rate: f64,
    /// Vectors that stand for the identifier. 1 to 64, default 1 (paper).
    pub embedding_vectors: u32,
    /// The first values of the vectors: `hidden` numbers for all of them, or `embedding_vectors x hidden`. Default none.
    pub initial_embedding: Option<Vec<f32>>,
    /// A word whose rows of the vocabulary the vectors start from: a single vector from their mean, several each from a
    /// row, in turn. Without this and `initial_embedding` (not both) they start as normal noise. Default none.
    pub initial_word: Option<String>,
    /// The size of that noise, as a multiple of the size that rows of the vocabulary have (paper: random, its size not said). 0 to
    /// 10, default 1, `arbooth` 0: they start at zero.
    pub initial_noise: f64,

    /// Steps of the layers stage; 0 leaves it out. 0 to 1 000 000, default 70 (paper), `lora` 150 (paper: 100 to 170), `arbooth`
    /// 500 (ARBooth).
    pub layer_steps: u32,
    /// Learning rate of the transformer's weights. 0 to 10, default 5e-6 (paper), `lora` 1e-4 (ours),
    /// `arbooth` 2.34375e-5 (ARBooth).
    pub layer_learning_rate: f64,
    /// Which weights learn in the layers stage: `qkv`, `attention`, `mlp`, `all` (norms included) or another role that the model
    /// has, or names of weights separated by commas, in which `*` stands for anything. `lora` is an older name for `qkv` with
    /// the adaptation `low_rank`. Default `qkv` (the paper's count of weights fits no other set).
    pub trainable: Trainable,
    /// How they learn: `full`, every number of them, or `low_rank`, two factors for each matrix whose product is added to it.
    /// Default `full`, method `lora` `low_rank`.
    pub adaptation: Adaptation,
    /// Rank of low-rank changes, at most the sides of the matrix. 1 to 1024, default 64 (paper: 16 to 256).
    pub lora_rank: u32,
    /// Low-rank changes count this much divided by their rank. 0 for as much as the rank, so that they count once; at most 10 000,
    /// default 0.
    pub lora_alpha: f64,
    /// Of the layers that may learn only every n-th does, the first among them. 1 to 1000, default 1 (paper: 1, 2, 4).
    pub layer_stride: u32,
    /// The layers that may learn, by their number from 0. Default empty: all.
    pub layers: Vec<u32>,
    /// Whether the vectors go on learning in the layers stage. Default false (ours), `dreambooth` true.
    pub train_embedding_in_layer_stage: bool,

    /// Pictures with their prompts in one step. 1 to 256, default 1 (paper).
    pub batch_size: u32,
    /// Groups that the pictures of a step are split into on a GPU; each goes through a layer by itself. On the CPU each
    /// picture is a group of its own. The result is the same but for rounding. 1 to `batch_size`, default 1.
    pub accumulation: u32,
    /// AdamW's decay per step, times the learning rate, of the transformer's weights; the vectors have none. 0 to 10,
    /// default 0.1 (Lumina).
    pub weight_decay: f64,
    /// 0 to below 1, default 0.9 (Lumina).
    pub beta1: f64,
    /// 0 to below 1, default 0.95 (Lumina).
    pub beta2: f64,
    /// Gradients are scaled down to this norm, taken over all that learns. 0 switches it off. Default 4.0 (Lumina).
    pub clip_norm: f64,
    /// Whether gradients are kept until their norm is known. If not, each step goes back twice, once for the norm and once to
    /// update each layer as soon as its gradient is there: more than half more work, 4 bytes less for each number that learns.
    /// Without `clip_norm` nothing is kept anyway. Default true.
    pub keep_gradients: bool,
    /// What the optimizer's two running means are kept in: `f32` (8 bytes for each number that learns), `bf16` (4) or `int8`
    /// (2). Default `f32`.
    pub optimizer_state: StateFormat,
    /// Where these and the values that learn are, and updates are made: `device`, that of the model, or `host`. `device` needs
    /// `optimizer_state` `f32` and `master_weights`. Default `auto`: the device if it is a GPU on which they fit. The numbers are the
    /// same but for rounding.
    pub optimizer_device: OptimizerDevice,
    /// Whether what learns is kept in f32 whatever the model runs in. If not, updates of a bf16 model are rounded at random, and
    /// 2 bytes fewer are taken for each number that learns. Default true.
    pub master_weights: bool,
    /// Whether the backward pass computes each layer anew (`always`), or keeps what it needs of all (`never`). Default `auto`:
    /// by the memory that is free. The result is the same.
    pub recompute: Recompute,
    /// Weight of the squared log-normaliser in the loss. 0 to 1, default 1e-5 (Lumina).
    pub z_loss: f64,
    /// Probability of zeroing an output of attention or MLP, in both stages. 0 to below 1, default 0.05 (Lumina's script;
    /// its paper has 0.1).
    pub dropout: f32,
    /// Probability, in the layers stage, that a picture is learned without its prompt, so that guidance keeps something to
    /// push off from. In the embedding stage such a picture would teach nothing. 0 to 1, default 0.1 (Lumina-mGPT 2.0).
    pub guidance_dropout: f32,
    /// Steps over which the learning rate rises from 0 at the start of each stage. Default 0 (Lumina: a hundredth of an epoch).
    pub warmup_steps: u32,
    /// Last steps of the layers stage, over which its learning rate falls to 0 in a line; more than there are: all. What the last
    /// pictures taught by chance is averaged away. Default 0: the rate stays (both papers).
    pub cooldown_steps: u32,
    /// Whether each picture gets a vector of its own, which stands at the end of half of its prompts, learns with the
    /// identifier's and is dropped at the end: it takes up what is particular to the picture. Default true (paper),
    /// `textual_inversion` and `dreambooth` false.
    pub per_image_tokens: bool,
    /// Prompts, each with one `{}` for the subject. Default empty: the 27 of Textual Inversion (paper).
    pub templates: Vec<String>,

    /// Side of the square whose area the pictures are brought to, in pixels: the target of the crop-size list; a multiple
    /// of the model's grid unit. Default 768.
    pub image_size: u32,
    /// Crops at random places instead of the middle (Lumina). Without `augment` this makes eight crops of each picture.
    /// Default false (ours).
    pub random_crop: bool,
    /// Adds the mirror image of each picture. Default false (ours: subjects may hold writing).
    pub flip: bool,
    /// Varied copies of each picture that are learned beside it: zoomed by 0.8 to 1.12, shifted by up to an eighth of each
    /// side (edges repeated), mirrored half of the time if `flip`, cropped anew if `random_crop`. Default 0 (paper); worth
    /// having for small models, which else learn the pictures by heart.
    pub augment: u32,
    /// Varied copies are not zoomed, and shifted by whole patches of the image tokenizer only, so that their tokens are
    /// those of the picture, moved. For models whose own pictures are drawn on that grid. Default false.
    pub augment_aligned: bool,

    /// Whether of a reference picture that is transparent in places only what shows the subject is learned: codes whose pixels are
    /// all transparent, or in a coarse grid more than half of them, stand before others and teach nothing, and its varied copies
    /// lie on a background of their own each. Without `augment` this makes eight copies of such a picture. Without transparency,
    /// or if false, transparent pixels are white ones. Default true (ours).
    pub masked_training: bool,

    /// Weight of the loss on pictures of the plain class that the untouched model drew (DreamBooth); as many of them as
    /// pictures of the subject are in each step of the layers stage. 0 switches it off. 0 to 100, default 0 (paper: none).
    pub prior_weight: f64,
    /// Class pictures to draw. 1 to 10 000, default 32 (ours).
    pub prior_count: u32,
    /// Whether class pictures teach what the untouched model predicts of them, and not what they show (prior distillation, ARBooth
    /// section 3.3): in each step the model draws new ones, as many as pictures of the subject, and they make an update of their own
    /// behind the subject's, as in the released code. `prior_count` has no meaning then. For families that draw scale after scale.
    /// Default false, `arbooth` true.
    pub prior_distillation: bool,
    /// What the untouched model predicts: `correct`, as it does when it draws, compared bit by bit, or `reference`, as the released
    /// code of ARBooth computes it: each grid by itself, without those before it and at their places, compared by one softmax over
    /// all numbers of a token. Default `correct`.
    pub teacher: Teacher,
    /// What each grid counts in the loss, coarse to fine; the last number counts for the grids behind, too. For families that draw
    /// scale after scale. Each 0 to 1000. Default empty: all count 1; `arbooth` 1 for the first eight, then 0.5 (ARBooth).
    pub scale_weights: Vec<f32>,
    /// Up to this share of the bits of each grid is turned over in what later grids see, so that they learn to mend it (bitwise
    /// self-correction, Infinity, arXiv 2412.04431, section 3.3). For families that draw scale after scale. 0 to 1, default 0, for
    /// Infinity 0.3 (Infinity).
    pub self_correction: f32,

    /// Steps, of both stages together, between two pictures of the subject that are drawn for people to look at while it is
    /// learned; each takes as long as drawing a picture does, and changes nothing about the result. 0 for none, at most
    /// 1 000 000, default 0.
    pub sample_every: u32,
    /// What these pictures are to show; the subject is named by its identifier. Default none: the first template.
    pub sample_prompt: Option<String>,

    /// Ends the embedding stage when the mean loss of the last N steps is not at least 0.2% below that of the N steps
    /// before. 0 switches it off. Default 0 (ours).
    pub early_stop: u32,
    /// Steps between two checkpoints; 0 for none. Default 0.
    pub checkpoint_every: u32,
    /// The file that checkpoints are written to. If it is there when training begins, training goes on from it, to the
    /// same result; a training that came to its end removes it. Default none.
    pub checkpoint_path: Option<PathBuf>,
    /// The same seed, pictures and options give the same subject.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            method: Method::TwoStage,
            identifier: "[V]".into(),
            class_word: String::new(),
            use_class_word: true,
            embedding_steps: 1500,
            embedding_learning_rate: 0.01,
            embedding_vectors: 1,
            initial_embedding: None,
            initial_word: None,
            initial_noise: 1.0,
            layer_steps: 70,
            layer_learning_rate: 5e-6,
            trainable: Trainable::QKV,
            adaptation: Adaptation::Full,
            lora_rank: 64,
            lora_alpha: 0.0,
            layer_stride: 1,
            layers: vec![],
            train_embedding_in_layer_stage: false,
            batch_size: 1,
            accumulation: 1,
            weight_decay: 0.1,
            beta1: 0.9,
            beta2: 0.95,
            clip_norm: 4.0,
            keep_gradients: true,
            optimizer_state: StateFormat::F32,
            optimizer_device: OptimizerDevice::Auto,
            master_weights: true,
            recompute: Recompute::Auto,
            z_loss: 1e-5,
            dropout: 0.05,
            guidance_dropout: 0.1,
            warmup_steps: 0,
            cooldown_steps: 0,
            per_image_tokens: true,
            templates: vec![],
            image_size: 768,
            random_crop: false,
            flip: false,
            augment: 0,
            augment_aligned: false,
            masked_training: true,
            prior_weight: 0.0,
            prior_count: 32,
            prior_distillation: false,
            teacher: Teacher::Correct,
            scale_weights: vec![],
            self_correction: 0.0,
            sample_every: 0,
            sample_prompt: None,
            early_stop: 0,
            checkpoint_every: 0,
            checkpoint_path: None,
            seed: 0,
        }
    }
}

impl Recommendable for Options {
    /// How something is learned, and in which shape.
    const HARMLESS: &'static [&'static str] = &[
        "identifier",
        "use_class_word",
        "embedding_steps",
        "embedding_learning_rate",
        "embedding_vectors",
        "initial_word",
        "initial_noise",
        "layer_steps",
        "layer_learning_rate",
        "trainable",
        "adaptation",
        "lora_rank",
        "lora_alpha",
        "layer_stride",
        "layers",
        "train_embedding_in_layer_stage",
        "batch_size",
        "accumulation",
        "weight_decay",
        "beta1",
        "beta2",
        "clip_norm",
        "optimizer_state",
        "master_weights",
        "z_loss",
        "dropout",
        "guidance_dropout",
        "warmup_steps",
        "cooldown_steps",
        "per_image_tokens",
        "templates",
        "image_size",
        "random_crop",
        "flip",
        "augment",
        "augment_aligned",
        "masked_training",
        "prior_weight",
        "prior_count",
        "prior_distillation",
        "teacher",
        "scale_weights",
        "self_correction",
        "early_stop",
        "seed",
    ];
    /// What is learned, what is looked at meanwhile, what is written where, and how this machine's memory is used.
    const USERS: &'static [&'static str] = &[
        "method",
        "class_word",
        "initial_embedding",
        "keep_gradients",
        "optimizer_device",
        "recompute",
        "sample_every",
        "sample_prompt",
        "checkpoint_every",
        "checkpoint_path",
    ];

    fn check_ranges(&self) -> Result<()> {
        Options::check_ranges(self)
    }
}

impl Options {
    /// How grids are learned.
    pub fn by_scale(&self) -> ByScale {
        ByScale { weights: self.scale_weights.clone(), self_correction: self.self_correction, teacher: self.teacher }
    }

    /// Whether pictures of the class are drawn beforehand, to be learned beside the subject's.
    pub fn draws_class(&self) -> bool {
        self.prior_weight > 0.0 && !self.prior_distillation
    }

    /// Whether a step of the layers stage has an update for the class behind that of the subject.
    pub fn distils(&self) -> bool {
        self.prior_distillation && self.prior_weight > 0.0
    }

    /// Whether values, states and updates are on the model's device; `auto` counts as `host`, see
    /// [`optimizer_device`](crate::estimate::optimizer_device).
    pub fn on_device(&self) -> bool {
        self.optimizer_device == OptimizerDevice::Device
    }

    /// Whether they could be.
    pub fn fits_device(&self) -> bool {
        self.optimizer_state == StateFormat::F32 && self.master_weights
    }

    /// Whether a weight learns in the layers stage, if its layer does.
    pub fn learns(&self, weight: &Spec) -> bool {
        self.trainable.includes(weight) && (weight.linear || !self.is_low_rank())
    }

    /// Whether low-rank changes are learned instead of the weights themselves.
    pub fn is_low_rank(&self) -> bool {
        self.adaptation == Adaptation::LowRank || self.trainable == Trainable::LORA
    }

    /// What a low-rank change of this rank counts.
    pub fn low_rank_scale(&self, rank: usize) -> f64 {
        match self.lora_alpha {
            0.0 => 1.0,
            alpha => alpha / rank as f64,
        }
    }

    /// The numbers of the layers that learn in the layers stage, of a model with so many.
    pub fn trained_layers(&self, depth: usize) -> Vec<usize> {
        let allowed = |l: &usize| self.layers.is_empty() || self.layers.contains(&(*l as u32));
        (0..depth).filter(allowed).step_by(self.layer_stride.max(1) as usize).collect()
    }
}
