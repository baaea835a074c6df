//! Programs in other languages use the shared library. A language whose tools are not installed is skipped with a line that
//! says so; with SITTER_REQUIRE_HOSTS set, as in CI, it fails instead.

// What they are built and run with is Linux's here.
#![cfg(target_os = "linux")]

mod abi_diff;
mod c;
mod comfyui;
mod cpp;
mod cuda;
mod node;
mod null_matrix;
mod python;
mod readme;
mod rust;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// A tiny model that draws scale after scale.
const SCALES: &str = "tests/golden/infinity";

/// A path of the repository.
fn at(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A folder for the files of one test, emptied first.
fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hosts").join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// A folder that holds the shared library under the names that linkers and loaders look for.
fn library_folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        // Cargo puts it beside the test programs.
        let built = std::env::current_exe().unwrap().parent().unwrap().join("libsitter.so");
        assert!(built.is_file(), "{} is missing", built.display());
        let folder = scratch("lib");
        std::fs::hard_link(&built, folder.join("libsitter.so.1")).unwrap();
        std::os::unix::fs::symlink("libsitter.so.1", folder.join("libsitter.so")).unwrap();
        folder
    })
}

/// A program on the path; None, with a visible reason, where the machine lacks it and it is not required.
fn tool(name: &str) -> Option<PathBuf> {
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .map(|folder| folder.join(name))
        .find(|p| p.is_file());
    if found.is_none() {
        assert!(std::env::var_os("SITTER_REQUIRE_HOSTS").is_none(), "{name} is required and is not installed");
        eprintln!("skipped: {name} is not installed");
    }
    found
}

/// Runs a command to its end; fails with all it printed if it does not succeed.
fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}\n{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    output
}
