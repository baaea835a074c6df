//! The small model that ships inside the library: a model folder like any other, compiled in.

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/embedded/", $name)))),*]
    };
}

/// The folder's files by name.
pub static FILES: &[(&str, &[u8])] =
    files!["config.json", "model.safetensors", "sitter.json", "tokenizer.json", "vqgan.safetensors", "vqgan.yaml",];
