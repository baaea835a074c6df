//! The small model that `sitter` opens as `embedded:infinity`, a model folder like any other, compiled in: Infinity's transformer, its
//! image tokenizer over scales, and a T5 that knows a few hundred words.
//!
//! How it was made and what it draws is told in `docs/embedded-infinity.md` of Sitter's repository; whose art it has seen, in
//! `CREDITS.md`.

macro_rules! files {
    ($($name:literal),* $(,)?) => { &[$(($name, include_bytes!($name))),*] };
}

/// The folder's files by name.
pub static FILES: &[(&str, &[u8])] = files![
    "infinity.safetensors",
    "sitter.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "text_encoder/tokenizer.json",
    "vae.safetensors",
];
