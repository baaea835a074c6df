//! The small model that `sitter` opens as `embedded:`, a model folder like any other, compiled in.
//!
//! It is a crate of its own because both together are more than the 10 MiB that the registry takes. How it was made and what it
//! draws is told in `docs/embedded-model.md` of Sitter's repository; whose art it has seen, in `CREDITS.md`.

macro_rules! files {
    ($($name:literal),* $(,)?) => { &[$(($name, include_bytes!($name))),*] };
}

/// The folder's files by name.
pub static FILES: &[(&str, &[u8])] =
    files!["config.json", "model.safetensors", "sitter.json", "tokenizer.json", "vqgan.safetensors", "vqgan.yaml"];
