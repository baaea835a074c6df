//! One function per parser of files from strangers: whatever the bytes are, the answer is a value or a typed error that
//! names the file, without a panic and without memory that only a claim in the file asks for.

use candle_core::{DType, Device};
use sitter::files::checkpoint::Checkpoint;
use sitter::files::Files;
use sitter::model::lumina::config::Config;
use sitter::model::lumina::layout::Layout;
use sitter::model::subject::Subject;
use sitter::model::text::Text;
use sitter::model::vqgan;
use sitter::picture::{Crop, Picture};
use sitter::{Error, Result};
use std::path::Path;

/// Gives the value, or nothing for an error that says what it must.
fn judged<T>(result: Result<T>, file: &str) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            let text = error.to_string();
            assert!(!matches!(error, Error::Internal { .. } | Error::Io { .. } | Error::Cancelled), "{error:?}");
            assert!(text.contains(file), "the error does not name {file}: {text}");
            assert!(text.len() < 4000, "an error of {} bytes", text.len());
            None
        }
    }
}

/// Calls `f` with a model's files in memory. Nothing made from them may leave it.
fn with_files(files: &[(&str, &[u8])], f: impl FnOnce(&Files)) {
    // SAFETY: `Files` wants what is compiled into a program; these live until `f` is over, and all it makes of them ends
    // with it.
    let files: &'static [(&'static str, &'static [u8])] = unsafe { std::mem::transmute(files) };
    f(&Files::Embedded("embedded:", files));
}

/// Reads every tensor that can be read.
fn read_all(checkpoint: &Checkpoint, file: &str) {
    let _ = checkpoint.fingerprint();
    for name in checkpoint.names().filter(|n| checkpoint.dtype(n).is_some()) {
        let shape = checkpoint.shape(name).expect("a listed tensor has a shape");
        // A view may repeat its numbers; a reader of models asks for the shape it expects.
        if shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size)).is_some_and(|n| n <= 1 << 20) {
            judged(checkpoint.get(name, shape, DType::F32, &Device::Cpu), file);
        }
    }
    let absent = checkpoint.get("model.norm.weight", &[1 << 40], DType::F32, &Device::Cpu);
    judged(absent, if checkpoint.contains("model.norm.weight") { file } else { "" });
}

pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(config) = judged(Config::from_json(text, Path::new("config.json")), "config.json") {
        config.parameters();
        assert!(config.heads * config.head_dim == config.hidden_size && config.heads.is_multiple_of(config.kv_heads));
    }
}

pub fn safetensors(data: &[u8]) {
    with_files(&[("model.safetensors", data)], |files| {
        if let Some(checkpoint) = judged(Checkpoint::open(files, "model"), "model.safetensors") {
            read_all(&checkpoint, "model.safetensors");
        }
    });
}

/// A right safetensors file with one number called `name`.
fn shard(name: &str) -> Vec<u8> {
    let header = format!("{{\"{name}\":{{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}}}");
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 4]].concat()
}

pub fn index(data: &[u8]) {
    let (a, b) = (shard("x"), shard("y"));
    let names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    let files = [("model.safetensors.index.json", data), (names[0], &a[..]), (names[1], &b)];
    with_files(&files, |files| {
        if let Some(checkpoint) = judged(Checkpoint::open(files, "model"), "embedded:") {
            read_all(&checkpoint, "embedded:");
        }
    });
}

pub fn tokenizer(data: &[u8]) {
    let Some(text) = judged(Text::from_bytes(data, Path::new("tokenizer.json")), "tokenizer.json") else { return };
    for words in ["", "a photo of a [V] fox", "8x8 \u{0}\u{301}\u{1f98a}\t\u{fffd} <s>IMGIMGAZ"] {
        judged(text.encode(words), "tokenizer.json");
    }
    judged(Layout::new(&text, 16, 2, 128), "tokenizer.json");
}

pub fn pickle(data: &[u8]) {
    for key in [None, Some("state_dict")] {
        with_files(&[("vqgan.ckpt", data)], |files| {
            if let Some(checkpoint) = judged(Checkpoint::open_pickle(files, "vqgan.ckpt", key), "vqgan.ckpt") {
                read_all(&checkpoint, "vqgan.ckpt");
            }
        });
    }
}

pub fn yaml(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(config) = judged(vqgan::Config::from_yaml(text, "vqgan.yaml"), "vqgan.yaml") {
        assert!(config.downsampling().is_power_of_two());
    }
}

pub fn subject(data: &[u8]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (file, copy) = (folder.path().join("subject.safetensors"), folder.path().join("copy.safetensors"));
    std::fs::write(&file, data).expect("a temporary file");
    if let Some(subject) = judged(Subject::load(&file), "subject.safetensors") {
        // What can be read can be written, and comes back the same.
        subject.save(&copy).expect("a subject that was read can be written");
        let again = Subject::load(&copy).expect("a subject that was written can be read");
        assert_eq!(format!("{:?}", subject.info()), format!("{:?}", again.info()));
        assert!(std::fs::read_dir(folder.path()).expect("the folder").count() == 2, "a half-written file is left");
    }
}

pub fn picture(data: &[u8]) {
    if let Some(picture) = judged(Picture::from_bytes(data, "picture"), "picture") {
        assert_eq!(picture.rgb().len(), picture.width() as usize * picture.height() as usize * 3);
        if picture.rgb().len() < 1 << 20 {
            let fitted = picture.fit(64, 16, Crop::Centre).expect("every picture fits");
            assert!(fitted.width() % 16 == 0 && fitted.height() % 16 == 0);
        }
    }
}
