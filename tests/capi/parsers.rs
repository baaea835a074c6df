//! The fuzz targets over their committed corpus: a short look at what `cargo fuzz` looks at for long.

#[path = "../../fuzz/src/api.rs"]
mod api;
#[path = "../../fuzz/src/parsers.rs"]
mod targets;

use std::path::Path;

/// The files of a target's corpus.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let files: Vec<Vec<u8>> = files.map(|f| std::fs::read(f.unwrap().path()).unwrap()).collect();
    assert!(!files.is_empty(), "{target} has no corpus");
    files
}

/// Runs a target over its corpus, over nothing, and over every file cut in half.
fn smoke(target: &str, run: fn(&[u8])) {
    run(b"");
    for file in corpus(target) {
        run(&file);
        run(&file[..file.len() / 2]);
    }
}

#[test]
fn every_fuzz_target_survives_its_corpus() {
    let manifest = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/Cargo.toml")).unwrap();
    type Target = (&'static str, fn(&[u8]));
    let all: [Target; 9] = [
        ("config", targets::config),
        ("safetensors", targets::safetensors),
        ("index", targets::index),
        ("tokenizer", targets::tokenizer),
        ("pickle", targets::pickle),
        ("yaml", targets::yaml),
        ("subject", targets::subject),
        ("picture", targets::picture),
        ("api_sequence", api::sequence),
    ];
    assert_eq!(manifest.matches("[[bin]]").count(), all.len());
    for (target, run) in all {
        assert!(manifest.contains(&format!("name = \"{target}\"")), "{target}");
        smoke(target, run);
    }
}
