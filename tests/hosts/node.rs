//! The Node package: its own tests, and the example in a project that has installed it.

use crate::{at, library_folder, run, scratch, tool};
use std::path::{Path, PathBuf};
use std::process::Command;

/// node and npm, if both are there.
pub fn tools() -> Option<(PathBuf, PathBuf)> {
    Some((tool("node")?, tool("npm")?))
}

/// npm in a folder, with nobody's install scripts: ours would build the library a second time.
fn npm(npm: &Path, folder: &Path, arguments: &[&str]) -> String {
    let output = run(Command::new(npm).current_dir(folder).args(arguments).args([
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--prefer-offline",
        "--loglevel=error",
    ]));
    String::from_utf8_lossy(&output.stdout).trim().to_string()
}

pub fn with_library(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).env("SITTER_LIBRARY", library_folder().join("libsitter.so"));
    command
}

/// A folder with koffi in it, kept between runs as long as the package asks for the same.
pub fn dependencies(npm_program: &Path) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("node-dependencies");
    let wanted = std::fs::read(at("bindings/node/package.json")).unwrap();
    let manifest = folder.join("package.json");
    if std::fs::read(&manifest).ok().as_ref() != Some(&wanted) {
        std::fs::create_dir_all(&folder).unwrap();
        let _ = std::fs::remove_file(&manifest);
        let fresh = scratch("node-dependencies");
        std::fs::write(fresh.join("package.json"), &wanted).unwrap();
        npm(npm_program, &fresh, &["install", "--no-package-lock"]);
        let _ = std::fs::remove_dir_all(folder.join("node_modules"));
        std::fs::rename(fresh.join("node_modules"), folder.join("node_modules")).unwrap();
        std::fs::write(&manifest, &wanted).unwrap();
    }
    folder.join("node_modules")
}

#[test]
fn the_packages_own_tests_pass() {
    let Some((node, npm)) = tools() else { return };
    let package = at("bindings/node");
    let tests = std::fs::read_dir(package.join("test")).unwrap().map(|e| e.unwrap().path());
    let tests: Vec<PathBuf> = tests.filter(|p| p.to_string_lossy().ends_with(".test.mjs")).collect();
    assert!(tests.len() >= 4, "{tests:?}");
    run(with_library(&node, &package).env("NODE_PATH", dependencies(&npm)).arg("--test").args(tests));
}

#[test]
fn the_example_draws_a_picture_in_a_project_that_installed_the_packed_package() {
    let Some((node, npm_program)) = tools() else { return };
    let project = scratch("node-project");
    let packed = npm(&npm_program, &at("bindings/node"), &["pack", "--pack-destination", project.to_str().unwrap()]);
    std::fs::write(project.join("package.json"), "{}").unwrap();
    npm(&npm_program, &project, &["install", &format!("./{packed}")]);
    std::fs::copy(at("examples/node/story.mjs"), project.join("story.mjs")).unwrap();
    std::fs::create_dir(project.join("pictures")).unwrap();
    for n in 1..=4 {
        let name = format!("{n}.png");
        std::fs::copy(at("assets/subjects/fox").join(&name), project.join("pictures").join(&name)).unwrap();
    }
    let output = run(with_library(&node, &project).args(["story.mjs", "embedded:", "2", ".", "pictures"]));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("layers: 1 of 1 (loss ") && text.contains("wrote fox.safetensors"), "{text}");
    assert!(std::fs::read(project.join("fox.png")).unwrap().starts_with(b"\x89PNG"));
}
