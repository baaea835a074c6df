//! The lines of code in the READMEs compile without a warning, and do what is said of them. The fake model stands in for the
//! embedded one, whose training takes its time.

use super::c::build;
use crate::{at, library_folder, node, python, run, scratch, tool};
use std::path::Path;
use std::process::Command;

/// The blocks of a language in a Markdown file.
fn blocks(file: &str, language: &str) -> Vec<String> {
    let text = std::fs::read_to_string(at(file)).unwrap();
    let after = format!("```{language}\n");
    let found: Vec<String> = text
        .split(&after)
        .skip(1)
        .map(|rest| rest.split("\n```").next().unwrap().replace("embedded:", "fake:"))
        .collect();
    assert!(!found.is_empty(), "{file} has no {language}");
    found
}

/// A folder with the four pictures that the lines speak of.
fn folder(name: &str) -> std::path::PathBuf {
    let folder = scratch(name);
    for n in 1..=4 {
        let name = format!("{n}.png");
        std::fs::copy(at("assets/subjects/fox").join(&name), folder.join(&name)).unwrap();
    }
    folder
}

fn assert_drawn(folder: &Path) {
    assert!(std::fs::read(folder.join("fox.png")).unwrap().starts_with(b"\x89PNG"));
}

/// Compiles `text` as a program, runs it in a folder with the pictures, and expects a picture from it.
fn draws(compiler: &str, name: &str, text: &str, flags: &[&str]) {
    let Some(compiler) = tool(compiler) else { return };
    let folder = folder(&format!("readme_{compiler}", compiler = compiler.file_name().unwrap().to_string_lossy()));
    std::fs::write(folder.join(name), text).unwrap();
    let program = build(&compiler, &folder.join(name), &folder, flags);
    run(Command::new(program).current_dir(&folder));
    assert_drawn(&folder);
}

#[test]
fn the_lines_of_c_compile_and_draw() {
    let [lines] = &blocks("README.md", "c")[..] else { panic!("one block of C is expected") };
    let handles = ["model", "image", "dataset", "train_options", "run", "subject", "tokens", "image", "error"];
    let names = ["model", "image", "dataset", "options", "run", "subject", "tokens", "picture", "err"];
    let variables = handles.iter().zip(names).map(|(noun, name)| format!("    sitter_{noun} *{name} = NULL;\n"));
    let text = format!(
        "#include \"sitter.h\"\n\nint main(void) {{\n{}    sitter_dataset_new(&dataset, &err);\n{lines}\n    return 0;\n}}\n",
        variables.collect::<String>()
    );
    draws("gcc", "lines.c", &text, &["-std=c99", "-Werror=incompatible-pointer-types"]);
}

#[test]
fn the_lines_of_cpp_compile_and_draw() {
    let [lines] = &blocks("README.md", "cpp")[..] else { panic!("one block of C++ is expected") };
    // Those of the package's own README speak of this model.
    let more = blocks("bindings/cpp/README.md", "cpp")
        .concat()
        .replace("decode(tokens)", "decode(model.sample(\"x\").front())");
    let text =
        format!("#include \"sitter.hpp\"\n#include <iostream>\n\nint main() {{\n{lines}\n{more}\nreturn 0;\n}}\n");
    draws("g++", "lines.cpp", &text, &["-std=c++17"]);
}

#[test]
fn the_lines_of_python_draw() {
    let Some(python) = python::python() else { return };
    for file in ["README.md", "bindings/python/README.md"] {
        let folder = folder("readme_python");
        // A minute is too long here.
        let lines = blocks(file, "python").join("\nimages = [\"1.png\"]\n").replace("Timer(60,", "Timer(1,");
        std::fs::write(folder.join("lines.py"), lines).unwrap();
        run(Command::new(python)
            .args(["-X", "dev", "lines.py"])
            .current_dir(&folder)
            .env("PYTHONPATH", at("bindings/python/src"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("SITTER_LIBRARY", library_folder().join("libsitter.so")));
        let drawn = if file == "README.md" { "fox.png" } else { "fox-1.png" };
        assert!(folder.join(drawn).is_file() && folder.join("fox.safetensors").is_file(), "{file}");
    }
}

#[test]
fn the_lines_of_node_draw() {
    let Some((node_program, npm)) = node::tools() else { return };
    for file in ["README.md", "bindings/node/README.md"] {
        let folder = folder("readme_node");
        let modules = folder.join("node_modules");
        std::fs::create_dir(&modules).unwrap();
        std::os::unix::fs::symlink(at("bindings/node"), modules.join("sitter")).unwrap();
        std::fs::write(folder.join("lines.mjs"), blocks(file, "js").concat()).unwrap();
        run(node::with_library(&node_program, &folder).env("NODE_PATH", node::dependencies(&npm)).arg("lines.mjs"));
        assert_drawn(&folder);
    }
}

/// Markdown files below a folder.
fn pages(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        // What is built, downloaded or hidden is not ours.
        if path.is_dir()
            && !["target", "node_modules", "found", "artifacts"].contains(&&*name)
            && !name.starts_with('.')
        {
            pages(&path, found);
        } else if name.ends_with(".md") {
            found.push(path);
        }
    }
}

#[test]
fn every_link_between_the_pages_leads_to_a_file() {
    let (mut files, mut links, mut dead) = (vec![], 0, vec![]);
    pages(&at(""), &mut files);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap();
            if path.is_empty() || path.contains("://") || path.contains(' ') {
                continue;
            }
            links += 1;
            if !file.parent().unwrap().join(path).exists() {
                dead.push(format!("{}: {link}", file.display()));
            }
        }
    }
    assert!(links > 40, "only {links} links were found");
    assert_eq!(dead, [""; 0]);
}
