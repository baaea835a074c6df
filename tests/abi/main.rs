//! The C ABI's source of truth is `src/capi/`; everything made from it is committed, and compared here with what it would
//! be made anew. To bring it up to date: `SITTER_UPDATE=1 cargo test --test abi`.

mod bindings;
mod choices;
mod cpp;
mod header;
mod node;
mod python_options;
mod setters;
mod snapshots;
mod surface;

use std::path::{Path, PathBuf};

/// A path of the repository.
fn at(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Fails if the committed file is not what it would be made anew; with SITTER_UPDATE set, writes it.
fn agree(path: &str, made: &str) {
    let file = at(path);
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    if committed == made {
        return;
    }
    if std::env::var_os("SITTER_UPDATE").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        return std::fs::write(&file, made).unwrap();
    }
    let line = committed.lines().zip(made.lines()).position(|(a, b)| a != b);
    let line = line.unwrap_or(committed.lines().count().min(made.lines().count()));
    panic!(
        "{path} is out of date from line {} on: it says\n{}\nand should say\n{}\nBring it up to date with SITTER_UPDATE=1 cargo test --test abi",
        line + 1,
        committed.lines().nth(line).unwrap_or("(nothing)"),
        made.lines().nth(line).unwrap_or("(nothing)"),
    );
}
