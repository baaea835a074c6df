//! What must not change within a major version: names may be added, nothing may go or move.

use crate::surface::{constants, functions};
use crate::{agree, at};

/// Fails if a line of the committed file is no longer among `lines`.
fn only_grows(path: &str, lines: &[String]) {
    let committed = std::fs::read_to_string(at(path)).unwrap_or_default();
    for line in committed.lines() {
        assert!(lines.iter().any(|l| l == line), "{path}: {line} is gone; programs depend on it");
    }
    agree(path, &(lines.join("\n") + "\n"));
}

#[test]
fn no_symbol_is_lost() {
    only_grows("abi/symbols.txt", &functions().into_iter().map(|f| f.name).collect::<Vec<_>>());
}

#[test]
fn no_signature_changes() {
    let signature = |f: crate::surface::Function| {
        let arguments: Vec<String> = f.arguments.into_iter().map(|(_, t)| t).collect();
        format!("{}({}) -> {}", f.name, arguments.join(", "), if f.result.is_empty() { "()" } else { &f.result })
    };
    only_grows("abi/signatures.txt", &functions().into_iter().map(signature).collect::<Vec<_>>());
}

#[test]
fn no_constant_is_renumbered() {
    let lines: Vec<String> = constants().into_iter().map(|(name, value)| format!("{name} {value}")).collect();
    // The minor version is there to be raised.
    only_grows(
        "abi/constants.txt",
        &lines.into_iter().filter(|l| !l.starts_with("SITTER_ABI_MINOR")).collect::<Vec<_>>(),
    );
}
