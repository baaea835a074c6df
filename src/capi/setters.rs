//! Setters of the option objects. Generated from the fields of the Rust options by tests/abi/setters.rs; do not edit:
//! `SITTER_UPDATE=1 cargo test --test abi`.

use super::boundary::guard;
use super::buffer::array;
use super::error::sitter_error;
use super::nouns::{sitter_evaluator_options, sitter_model_options, sitter_sample_options, sitter_train_options};
use super::options::{change, flag};
use super::status::sitter_status;
use super::text;
use crate::model::family::Teacher;
use crate::model::TextEncoder;
use crate::personalize::{Adaptation, OptimizerDevice, Recompute, StateFormat, Trainable};
use crate::sample::Decoding;
use std::ffi::c_char;

/// DINO, ViT-S/16 in the papers: a folder, or the authors' .pth file. NULL for none. SITTER_E_INVALID_ARGUMENT. Since
/// 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_evaluator_options_set_dino(
    options: *mut sitter_evaluator_options,
    dino: *const c_char,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.dino = text::optional(dino, "dino")?.map(Into::into);
            Ok(())
        })
    })
}

/// CLIP, ViT-B/32 in the papers: a folder. NULL for none. SITTER_E_INVALID_ARGUMENT. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_evaluator_options_set_clip(
    options: *mut sitter_evaluator_options,
    clip: *const c_char,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.clip = text::optional(clip, "clip")?.map(Into::into);
            Ok(())
        })
    })
}

/// LPIPS on AlexNet, for the diversity of pictures of one prompt: a folder with torchvision's weights of AlexNet and
/// the alex.pth of LPIPS, or a file with both. NULL for none. SITTER_E_INVALID_ARGUMENT. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_evaluator_options_set_lpips(
    options: *mut sitter_evaluator_options,
    lpips: *const c_char,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.lpips = text::optional(lpips, "lpips")?.map(Into::into);
            Ok(())
        })
    })
}

/// "auto", "cpu", "cuda" or "cuda:N". SITTER_E_INVALID_ARGUMENT. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_model_options_set_device(
    options: *mut sitter_model_options,
    device: *const c_char,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.device = text::required(device, "device")?;
            Ok(())
        })
    })
}

/// "auto", "f32", "bf16", "q8_0" or "q4_k". The image tokenizer always runs in f32. SITTER_E_INVALID_ARGUMENT. Since
/// 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_model_options_set_dtype(
    options: *mut sitter_model_options,
    dtype: *const c_char,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.dtype = text::required(dtype, "dtype")?;
            Ok(())
        })
    })
}

/// Whether quantised weights are kept in a file of the model's folder, "sitter.q8_0.safetensors" or
/// "sitter.q4_k.safetensors": written when the model is opened so for the first time, read from then on.
/// SITTER_E_INVALID_ARGUMENT. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_model_options_set_keep_quantised(
    options: *mut sitter_model_options,
    keep_quantised: i32,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.keep_quantised = flag(keep_quantised, "keep_quantised")?;
            Ok(())
        })
    })
}

/// Of models whose text encoder is a network of its own: "keep" it in memory, or "unload" it when it has read the texts
/// of a call, which are remembered. "auto" keeps it where all weights together take at most half of the memory that is
/// free. Other models take "auto" only. SITTER_E_INVALID_ARGUMENT. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_model_options_set_text_encoder(
    options: *mut sitter_model_options,
    text_encoder: *const c_char,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.text_encoder = TextEncoder::parse(&text::required(text_encoder, "text_encoder")?)?;
            Ok(())
        })
    })
}

/// Pixels; a multiple of the model's grid unit. SITTER_E_INVALID_ARGUMENT. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_sample_options_set_width(
    options: *mut sitter_sample_options,
    width: u32,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.width = width;
            Ok(())
        })
    })
}

/// Pixels; a multiple of the model's grid unit. SITTER_E_INVALID_ARGUMENT. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_sample_options_set_height(
    options: *mut sitter_sample_options,
    height: u32,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.height = height;
            Ok(())
        })
    })
}

/// Classifier-free guidance scale; 1 switches it off and halves the work. SITTER_E_INVALID_ARGUMENT. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_sample_options_set_guidance(
    options: *mut sitter_sample_options,
    guidance: f64,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.guidance = guidance as f32;
            Ok(())
        })
    })
}

/// Only the k likeliest codes can be drawn; 0 allows all. SITTER_E_INVALID_ARGUMENT. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_sample_options_set_top_k(
    options: *mut sitter_sample_options,
    top_k: u32,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.top_k = top_k;
            Ok(())
        })
    })
}

/// Above 0; smaller is safer and duller. SITTER_E_INVALID_ARGUMENT. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_sample_options_set_temperature(
    options: *mut sitter_sample_options,
    temperature: f64,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.temperature = temperature as f32;
            Ok(())
        })
    })
}

/// The same seed gives the same picture. SITTER_E_INVALID_ARGUMENT. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_sample_options_set_seed(
    options: *mut sitter_sample_options,
    seed: u64,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.seed = seed;
            Ok(())
        })
    })
}

/// "sequential" draws code by code; "speculative" verifies several guesses in one pass and gives the same picture;
/// "speculative_distribution" needs fewer passes and gives another picture from the same distribution, which "window"
/// changes too. Default "sequential"; which is faster depends on model and machine, see docs/decoding.md.
/// SITTER_E_INVALID_ARGUMENT. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_sample_options_set_decoding(
    options: *mut sitter_sample_options,
    decoding: *const c_char,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.decoding = Decoding::parse(&text::required(decoding, "decoding")?)?;
            Ok(())
        })
    })
}

/// Places that a pass of speculative decoding verifies, 2 to 256; 0, the default, leaves it to the library: 16, but for
/// "speculative" on a CPU as many as pay there. SITTER_E_INVALID_ARGUMENT. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_sample_options_set_window(
    options: *mut sitter_sample_options,
    window: u32,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.window = window;
            Ok(())
        })
    })
}

/// Guidance of each scale instead of one for all, coarse to fine, of models that draw scale after scale; 0 to 100 each.
/// The last one counts for the scales behind, too; more than the picture has scales are an error. Default none. (NULL,
/// 0) for none. SITTER_E_INVALID_ARGUMENT. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_sample_options_set_guidance_by_scale(
    options: *mut sitter_sample_options,
    guidance_by_scale: *const f32,
    count: usize,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.guidance_by_scale = array(guidance_by_scale, count, "guidance_by_scale")?;
            Ok(())
        })
    })
}

/// Temperature of each scale instead of one for all, as "guidance_by_scale"; 0.01 to 100 each. Default none. (NULL, 0)
/// for none. SITTER_E_INVALID_ARGUMENT. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_sample_options_set_temperature_by_scale(
    options: *mut sitter_sample_options,
    temperature_by_scale: *const f32,
    count: usize,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.temperature_by_scale = array(temperature_by_scale, count, "temperature_by_scale")?;
            Ok(())
        })
    })
}

/// Of each bit, the less likely value is never drawn if its probability is at most 1 less this; 0 to 1, and 1 allows
/// all. Of models that draw bits, which recommend less (0.97). SITTER_E_INVALID_ARGUMENT. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_sample_options_set_top_p(
    options: *mut sitter_sample_options,
    top_p: f64,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.top_p = top_p as f32;
            Ok(())
        })
    })
}

/// The word that stands for the subject in prompts. No blanks, at most 64 bytes. Default "[V]".
/// SITTER_E_INVALID_ARGUMENT. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_identifier(
    options: *mut sitter_train_options,
    identifier: *const c_char,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.identifier = text::required(identifier, "identifier")?;
            Ok(())
        })
    })
}

/// What the subject is, in a word or a few: "dog". Needed unless "use_class_word" is false. SITTER_E_INVALID_ARGUMENT.
/// Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_class_word(
    options: *mut sitter_train_options,
    class_word: *const c_char,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.class_word = text::required(class_word, "class_word")?;
            Ok(())
        })
    })
}

/// Whether the class word follows the identifier in the templates. Default true (paper). SITTER_E_INVALID_ARGUMENT.
/// Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_use_class_word(
    options: *mut sitter_train_options,
    use_class_word: i32,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.use_class_word = flag(use_class_word, "use_class_word")?;
            Ok(())
        })
    })
}

/// Steps of the embedding stage; 0 leaves it out. 0 to 1 000 000, default 1500 (paper). SITTER_E_INVALID_ARGUMENT.
/// Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_embedding_steps(
    options: *mut sitter_train_options,
    embedding_steps: u32,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.embedding_steps = embedding_steps;
            Ok(())
        })
    })
}

/// Learning rate of the vectors, in both stages. 0 to 10, default 0.01 (paper), "arbooth" 2.34375e-5 (ARBooth).
/// SITTER_E_INVALID_ARGUMENT. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_embedding_learning_rate(
    options: *mut sitter_train_options,
    embedding_learning_rate: f64,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.embedding_learning_rate = embedding_learning_rate;
            Ok(())
        })
    })
}

/// Vectors that stand for the identifier. 1 to 64, default 1 (paper). SITTER_E_INVALID_ARGUMENT. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_embedding_vectors(
    options: *mut sitter_train_options,
    embedding_vectors: u32,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.embedding_vectors = embedding_vectors;
            Ok(())
        })
    })
}

/// The first values of the vectors: "hidden" numbers for all of them, or "embedding_vectors x hidden". Default none.
/// (NULL, 0) for none. SITTER_E_INVALID_ARGUMENT. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_initial_embedding(
    options: *mut sitter_train_options,
    initial_embedding: *const f32,
    count: usize,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.initial_embedding = Some(array(initial_embedding, count, "initial_embedding")?).filter(|v| !v.is_empty());
            Ok(())
        })
    })
}

/// A word whose rows of the vocabulary the vectors start from: a single vector from their mean, several each from a
/// row, in turn. Without this and "initial_embedding" (not both) they start as normal noise. Default none. NULL for
/// none. SITTER_E_INVALID_ARGUMENT. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_initial_word(
    options: *mut sitter_train_options,
    initial_word: *const c_char,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.initial_word = text::optional(initial_word, "initial_word")?;
            Ok(())
        })
    })
}

/// The size of that noise, as a multiple of the size that rows of the vocabulary have (paper: random, its size not
/// said). 0 to 10, default 1, "arbooth" 0: they start at zero. SITTER_E_INVALID_ARGUMENT. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_initial_noise(
    options: *mut sitter_train_options,
    initial_noise: f64,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.initial_noise = initial_noise;
            Ok(())
        })
    })
}

/// Steps of the layers stage; 0 leaves it out. 0 to 1 000 000, default 70 (paper), "lora" 150 (paper: 100 to 170),
/// "arbooth" 500 (ARBooth). SITTER_E_INVALID_ARGUMENT. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_layer_steps(
    options: *mut sitter_train_options,
    layer_steps: u32,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.layer_steps = layer_steps;
            Ok(())
        })
    })
}

/// Learning rate of the transformer's weights. 0 to 10, default 5e-6 (paper), "lora" 1e-4 (ours), "arbooth" 2.34375e-5
/// (ARBooth). SITTER_E_INVALID_ARGUMENT. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_layer_learning_rate(
    options: *mut sitter_train_options,
    layer_learning_rate: f64,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.layer_learning_rate = layer_learning_rate;
            Ok(())
        })
    })
}

/// Which weights learn in the layers stage: "qkv", "attention", "mlp", "all" (norms included) or another role that the
/// model has, or names of weights separated by commas, in which "*" stands for anything. "lora" is an older name for
/// "qkv" with the adaptation "low_rank". Default "qkv" (the paper's count of weights fits no other set).
/// SITTER_E_INVALID_ARGUMENT. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_trainable(
    options: *mut sitter_train_options,
    trainable: *const c_char,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.trainable = Trainable::parse(&text::required(trainable, "trainable")?)?;
            Ok(())
        })
    })
}

/// How they learn: "full", every number of them, or "low_rank", two factors for each matrix whose product is added to
/// it. Default "full", method "lora" "low_rank". SITTER_E_INVALID_ARGUMENT. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_adaptation(
    options: *mut sitter_train_options,
    adaptation: *const c_char,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.adaptation = Adaptation::parse(&text::required(adaptation, "adaptation")?)?;
            Ok(())
        })
    })
}

/// Rank of low-rank changes, at most the sides of the matrix. 1 to 1024, default 64 (paper: 16 to 256).
/// SITTER_E_INVALID_ARGUMENT. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_lora_rank(
    options: *mut sitter_train_options,
    lora_rank: u32,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.lora_rank = lora_rank;
            Ok(())
        })
    })
}

/// Low-rank changes count this much divided by their rank. 0 for as much as the rank, so that they count once; at most
/// 10 000, default 0. SITTER_E_INVALID_ARGUMENT. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_lora_alpha(
    options: *mut sitter_train_options,
    lora_alpha: f64,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.lora_alpha = lora_alpha;
            Ok(())
        })
    })
}

/// Of the layers that may learn only every n-th does, the first among them. 1 to 1000, default 1 (paper: 1, 2, 4).
/// SITTER_E_INVALID_ARGUMENT. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_layer_stride(
    options: *mut sitter_train_options,
    layer_stride: u32,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.layer_stride = layer_stride;
            Ok(())
        })
    })
}

/// The layers that may learn, by their number from 0. Default empty: all. (NULL, 0) for none.
/// SITTER_E_INVALID_ARGUMENT. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_layers(
    options: *mut sitter_train_options,
    layers: *const u32,
    count: usize,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.layers = array(layers, count, "layers")?;
            Ok(())
        })
    })
}

/// Whether the vectors go on learning in the layers stage. Default false (ours), "dreambooth" true.
/// SITTER_E_INVALID_ARGUMENT. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_train_embedding_in_layer_stage(
    options: *mut sitter_train_options,
    train_embedding_in_layer_stage: i32,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.train_embedding_in_layer_stage = flag(train_embedding_in_layer_stage, "train_embedding_in_layer_stage")?;
            Ok(())
        })
    })
}

/// Pictures with their prompts in one step. 1 to 256, default 1 (paper). SITTER_E_INVALID_ARGUMENT. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_batch_size(
    options: *mut sitter_train_options,
    batch_size: u32,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.batch_size = batch_size;
            Ok(())
        })
    })
}

/// Groups that the pictures of a step are split into on a GPU; each goes through a layer by itself. On the CPU each
/// picture is a group of its own. The result is the same but for rounding. 1 to "batch_size", default 1.
/// SITTER_E_INVALID_ARGUMENT. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_accumulation(
    options: *mut sitter_train_options,
    accumulation: u32,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.accumulation = accumulation;
            Ok(())
        })
    })
}

/// AdamW's decay per step, times the learning rate, of the transformer's weights; the vectors have none. 0 to 10,
/// default 0.1 (Lumina). SITTER_E_INVALID_ARGUMENT. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_weight_decay(
    options: *mut sitter_train_options,
    weight_decay: f64,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.weight_decay = weight_decay;
            Ok(())
        })
    })
}

/// 0 to below 1, default 0.9 (Lumina). SITTER_E_INVALID_ARGUMENT. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_beta1(
    options: *mut sitter_train_options,
    beta1: f64,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.beta1 = beta1;
            Ok(())
        })
    })
}

/// 0 to below 1, default 0.95 (Lumina). SITTER_E_INVALID_ARGUMENT. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_beta2(
    options: *mut sitter_train_options,
    beta2: f64,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.beta2 = beta2;
            Ok(())
        })
    })
}

/// Gradients are scaled down to this norm, taken over all that learns. 0 switches it off. Default 4.0 (Lumina).
/// SITTER_E_INVALID_ARGUMENT. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_clip_norm(
    options: *mut sitter_train_options,
    clip_norm: f64,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.clip_norm = clip_norm;
            Ok(())
        })
    })
}

/// Whether gradients are kept until their norm is known. If not, each step goes back twice, once for the norm and once
/// to update each layer as soon as its gradient is there: more than half more work, 4 bytes less for each number that
/// learns. Without "clip_norm" nothing is kept anyway. Default true. SITTER_E_INVALID_ARGUMENT. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_keep_gradients(
    options: *mut sitter_train_options,
    keep_gradients: i32,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.keep_gradients = flag(keep_gradients, "keep_gradients")?;
            Ok(())
        })
    })
}

/// What the optimizer's two running means are kept in: "f32" (8 bytes for each number that learns), "bf16" (4) or
/// "int8" (2). Default "f32". SITTER_E_INVALID_ARGUMENT. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_optimizer_state(
    options: *mut sitter_train_options,
    optimizer_state: *const c_char,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.optimizer_state = StateFormat::parse(&text::required(optimizer_state, "optimizer_state")?)?;
            Ok(())
        })
    })
}

/// Where these and the values that learn are, and updates are made: "device", that of the model, or "host". "device"
/// needs "optimizer_state" "f32" and "master_weights". Default "auto": the device if it is a GPU on which they fit. The
/// numbers are the same but for rounding. SITTER_E_INVALID_ARGUMENT. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_optimizer_device(
    options: *mut sitter_train_options,
    optimizer_device: *const c_char,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.optimizer_device = OptimizerDevice::parse(&text::required(optimizer_device, "optimizer_device")?)?;
            Ok(())
        })
    })
}

/// Whether what learns is kept in f32 whatever the model runs in. If not, updates of a bf16 model are rounded at
/// random, and 2 bytes fewer are taken for each number that learns. Default true. SITTER_E_INVALID_ARGUMENT. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_master_weights(
    options: *mut sitter_train_options,
    master_weights: i32,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.master_weights = flag(master_weights, "master_weights")?;
            Ok(())
        })
    })
}

/// Whether the backward pass computes each layer anew ("always"), or keeps what it needs of all ("never"). Default
/// "auto": by the memory that is free. The result is the same. SITTER_E_INVALID_ARGUMENT. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_recompute(
    options: *mut sitter_train_options,
    recompute: *const c_char,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.recompute = Recompute::parse(&text::required(recompute, "recompute")?)?;
            Ok(())
        })
    })
}

/// Weight of the squared log-normaliser in the loss. 0 to 1, default 1e-5 (Lumina). SITTER_E_INVALID_ARGUMENT. Since
/// 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_z_loss(
    options: *mut sitter_train_options,
    z_loss: f64,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.z_loss = z_loss;
            Ok(())
        })
    })
}

/// Probability of zeroing an output of attention or MLP, in both stages. 0 to below 1, default 0.05 (Lumina's script;
/// its paper has 0.1). SITTER_E_INVALID_ARGUMENT. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_dropout(
    options: *mut sitter_train_options,
    dropout: f64,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.dropout = dropout as f32;
            Ok(())
        })
    })
}

/// Probability, in the layers stage, that a picture is learned without its prompt, so that guidance keeps something to
/// push off from. In the embedding stage such a picture would teach nothing. 0 to 1, default 0.1 (Lumina-mGPT 2.0).
/// SITTER_E_INVALID_ARGUMENT. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_guidance_dropout(
    options: *mut sitter_train_options,
    guidance_dropout: f64,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.guidance_dropout = guidance_dropout as f32;
            Ok(())
        })
    })
}

/// Steps over which the learning rate rises from 0 at the start of each stage. Default 0 (Lumina: a hundredth of an
/// epoch). SITTER_E_INVALID_ARGUMENT. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_warmup_steps(
    options: *mut sitter_train_options,
    warmup_steps: u32,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.warmup_steps = warmup_steps;
            Ok(())
        })
    })
}

/// Last steps of the layers stage, over which its learning rate falls to 0 in a line; more than there are: all. What
/// the last pictures taught by chance is averaged away. Default 0: the rate stays (both papers).
/// SITTER_E_INVALID_ARGUMENT. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_cooldown_steps(
    options: *mut sitter_train_options,
    cooldown_steps: u32,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.cooldown_steps = cooldown_steps;
            Ok(())
        })
    })
}

/// Whether each picture gets a vector of its own, which stands at the end of half of its prompts, learns with the
/// identifier's and is dropped at the end: it takes up what is particular to the picture. Default true (paper),
/// "textual_inversion" and "dreambooth" false. SITTER_E_INVALID_ARGUMENT. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_per_image_tokens(
    options: *mut sitter_train_options,
    per_image_tokens: i32,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.per_image_tokens = flag(per_image_tokens, "per_image_tokens")?;
            Ok(())
        })
    })
}

/// Prompts, each with one "{}" for the subject. Default empty: the 27 of Textual Inversion (paper). (NULL, 0) for none.
/// SITTER_E_INVALID_ARGUMENT. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_templates(
    options: *mut sitter_train_options,
    templates: *const *const c_char,
    count: usize,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.templates = text::list(templates, count, "templates")?;
            Ok(())
        })
    })
}

/// Side of the square whose area the pictures are brought to, in pixels: the target of the crop-size list; a multiple
/// of the model's grid unit. Default 768. SITTER_E_INVALID_ARGUMENT. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_image_size(
    options: *mut sitter_train_options,
    image_size: u32,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.image_size = image_size;
            Ok(())
        })
    })
}

/// Crops at random places instead of the middle (Lumina). Without "augment" this makes eight crops of each picture.
/// Default false (ours). SITTER_E_INVALID_ARGUMENT. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_random_crop(
    options: *mut sitter_train_options,
    random_crop: i32,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.random_crop = flag(random_crop, "random_crop")?;
            Ok(())
        })
    })
}

/// Adds the mirror image of each picture. Default false (ours: subjects may hold writing). SITTER_E_INVALID_ARGUMENT.
/// Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_flip(
    options: *mut sitter_train_options,
    flip: i32,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.flip = flag(flip, "flip")?;
            Ok(())
        })
    })
}

/// Varied copies of each picture that are learned beside it: zoomed by 0.8 to 1.12, shifted by up to an eighth of each
/// side (edges repeated), mirrored half of the time if "flip", cropped anew if "random_crop". Default 0 (paper); worth
/// having for small models, which else learn the pictures by heart. SITTER_E_INVALID_ARGUMENT. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_augment(
    options: *mut sitter_train_options,
    augment: u32,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.augment = augment;
            Ok(())
        })
    })
}

/// Varied copies are not zoomed, and shifted by whole patches of the image tokenizer only, so that their tokens are
/// those of the picture, moved. For models whose own pictures are drawn on that grid. Default false.
/// SITTER_E_INVALID_ARGUMENT. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_augment_aligned(
    options: *mut sitter_train_options,
    augment_aligned: i32,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.augment_aligned = flag(augment_aligned, "augment_aligned")?;
            Ok(())
        })
    })
}

/// Whether of a reference picture that is transparent in places only what shows the subject is learned: codes whose
/// pixels are all transparent, or in a coarse grid more than half of them, stand before others and teach nothing, and
/// its varied copies lie on a background of their own each. Without "augment" this makes eight copies of such a
/// picture. Without transparency, or if false, transparent pixels are white ones. Default true (ours).
/// SITTER_E_INVALID_ARGUMENT. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_masked_training(
    options: *mut sitter_train_options,
    masked_training: i32,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.masked_training = flag(masked_training, "masked_training")?;
            Ok(())
        })
    })
}

/// Weight of the loss on pictures of the plain class that the untouched model drew (DreamBooth); as many of them as
/// pictures of the subject are in each step of the layers stage. 0 switches it off. 0 to 100, default 0 (paper: none).
/// SITTER_E_INVALID_ARGUMENT. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_prior_weight(
    options: *mut sitter_train_options,
    prior_weight: f64,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.prior_weight = prior_weight;
            Ok(())
        })
    })
}

/// Class pictures to draw. 1 to 10 000, default 32 (ours). SITTER_E_INVALID_ARGUMENT. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_prior_count(
    options: *mut sitter_train_options,
    prior_count: u32,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.prior_count = prior_count;
            Ok(())
        })
    })
}

/// Whether class pictures teach what the untouched model predicts of them, and not what they show (prior distillation,
/// ARBooth section 3.3): in each step the model draws new ones, as many as pictures of the subject, and they make an
/// update of their own behind the subject's, as in the released code. "prior_count" has no meaning then. For families
/// that draw scale after scale. Default false, "arbooth" true. SITTER_E_INVALID_ARGUMENT. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_prior_distillation(
    options: *mut sitter_train_options,
    prior_distillation: i32,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.prior_distillation = flag(prior_distillation, "prior_distillation")?;
            Ok(())
        })
    })
}

/// What the untouched model predicts: "correct", as it does when it draws, compared bit by bit, or "reference", as the
/// released code of ARBooth computes it: each grid by itself, without those before it and at their places, compared by
/// one softmax over all numbers of a token. Default "correct". SITTER_E_INVALID_ARGUMENT. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_teacher(
    options: *mut sitter_train_options,
    teacher: *const c_char,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.teacher = Teacher::parse(&text::required(teacher, "teacher")?)?;
            Ok(())
        })
    })
}

/// What each grid counts in the loss, coarse to fine; the last number counts for the grids behind, too. For families
/// that draw scale after scale. Each 0 to 1000. Default empty: all count 1; "arbooth" 1 for the first eight, then 0.5
/// (ARBooth). (NULL, 0) for none. SITTER_E_INVALID_ARGUMENT. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_scale_weights(
    options: *mut sitter_train_options,
    scale_weights: *const f32,
    count: usize,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.scale_weights = array(scale_weights, count, "scale_weights")?;
            Ok(())
        })
    })
}

/// Up to this share of the bits of each grid is turned over in what later grids see, so that they learn to mend it
/// (bitwise self-correction, Infinity, arXiv 2412.04431, section 3.3). For families that draw scale after scale. 0 to
/// 1, default 0, for Infinity 0.3 (Infinity). SITTER_E_INVALID_ARGUMENT. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_self_correction(
    options: *mut sitter_train_options,
    self_correction: f64,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.self_correction = self_correction as f32;
            Ok(())
        })
    })
}

/// Steps, of both stages together, between two pictures of the subject that are drawn for people to look at while it is
/// learned; each takes as long as drawing a picture does, and changes nothing about the result. 0 for none, at most 1
/// 000 000, default 0. SITTER_E_INVALID_ARGUMENT. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_sample_every(
    options: *mut sitter_train_options,
    sample_every: u32,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.sample_every = sample_every;
            Ok(())
        })
    })
}

/// What these pictures are to show; the subject is named by its identifier. Default none: the first template. NULL for
/// none. SITTER_E_INVALID_ARGUMENT. Since 1.1.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_sample_prompt(
    options: *mut sitter_train_options,
    sample_prompt: *const c_char,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.sample_prompt = text::optional(sample_prompt, "sample_prompt")?;
            Ok(())
        })
    })
}

/// Ends the embedding stage when the mean loss of the last N steps is not at least 0.2% below that of the N steps
/// before. 0 switches it off. Default 0 (ours). SITTER_E_INVALID_ARGUMENT. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_early_stop(
    options: *mut sitter_train_options,
    early_stop: u32,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.early_stop = early_stop;
            Ok(())
        })
    })
}

/// Steps between two checkpoints; 0 for none. Default 0. SITTER_E_INVALID_ARGUMENT. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_checkpoint_every(
    options: *mut sitter_train_options,
    checkpoint_every: u32,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.checkpoint_every = checkpoint_every;
            Ok(())
        })
    })
}

/// The file that checkpoints are written to. If it is there when training begins, training goes on from it, to the same
/// result; a training that came to its end removes it. Default none. NULL for none. SITTER_E_INVALID_ARGUMENT. Since
/// 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_checkpoint_path(
    options: *mut sitter_train_options,
    checkpoint_path: *const c_char,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.checkpoint_path = text::optional(checkpoint_path, "checkpoint_path")?.map(Into::into);
            Ok(())
        })
    })
}

/// The same seed, pictures and options give the same subject. SITTER_E_INVALID_ARGUMENT. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_train_options_set_seed(
    options: *mut sitter_train_options,
    seed: u64,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        change(options, |o| {
            o.seed = seed;
            Ok(())
        })
    })
}
