//! The options of the Python package, with their types for checkers and their meanings for `help`.

use crate::agree;
use crate::choices::{choices, methods};
use crate::setters::{fields, Field};
use std::fmt::Write;

/// What the methods of the package take as arguments of their own.
const NAMED: [&str; 3] = ["class_word", "identifier", "seed"];

/// The type of an option in Python.
fn python(field: &Field) -> String {
    if choices(field).is_some() {
        return alias(&field.name);
    }
    let plain = match field.ty.as_str() {
        "u32" | "u64" => "int",
        "f32" | "f64" => "float",
        "bool" => "bool",
        "String" | "Trainable" => "str",
        "Option<String>" => "Optional[str]",
        "Option<PathBuf>" => "Optional[Union[str, \"os.PathLike[str]\"]]",
        "Vec<u32>" => "Optional[Sequence[int]]",
        "Vec<f32>" => "Optional[Sequence[float]]",
        "Option<Vec<f32>>" => "Optional[npt.ArrayLike]",
        "Vec<String>" => "Optional[Sequence[str]]",
        ty => panic!("no Python type for {}: {ty}", field.name),
    };
    plain.into()
}

/// `optimizer_state` is `OptimizerState`.
fn alias(name: &str) -> String {
    name.split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect()
}

fn literal(name: &str, names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|n| format!("\"{n}\"")).collect();
    format!("{} = Literal[{}]\n", alias(name), quoted.join(", "))
}

fn table() -> String {
    let mut out = String::from(
        "\"\"\"Options by name, with their types and meanings. Made from the Rust options by tests/abi/python_options.rs; do not edit.\"\"\"\n\
         from __future__ import annotations\n\n\
         import os\n\
         from typing import Literal, Optional, Sequence, TypedDict, Union\n\n\
         import numpy.typing as npt\n\n",
    );
    let all = fields();
    out += &literal("method", &methods());
    for field in &all {
        if let Some(names) = choices(field) {
            out += &literal(&field.name, &names);
        }
    }
    let mut class = |name: &str, base: &str, doc: &str, wanted: &dyn Fn(&Field) -> bool, first: &str| {
        let _ = write!(out, "\n\nclass {name}({base}, total=False):\n    \"\"\"{doc}\"\"\"\n\n{first}");
        for field in all.iter().filter(|f| wanted(f)) {
            let _ = writeln!(out, "    {}: {}", field.name, python(field));
        }
    };
    let own = |f: &Field| NAMED.contains(&f.name.as_str());
    class("SampleOptions", "TypedDict", "How tokens are drawn.", &|f| f.noun == "sample", "");
    class(
        "TrainOptions",
        "TypedDict",
        "What `Model.train` takes by name besides its own arguments.",
        &|f| f.noun == "train" && !own(f),
        "",
    );
    class(
        "AllTrainOptions",
        "TrainOptions",
        "How a subject is taught.",
        &|f| f.noun == "train" && own(f),
        "    method: Method\n",
    );
    out += "\n\n# What each option means.\nMEANINGS: dict[str, dict[str, str]] = {\n";
    for noun in ["evaluator", "model", "sample", "train"] {
        let _ = writeln!(out, "    \"{noun}\": {{");
        for field in all.iter().filter(|f| f.noun == noun) {
            let doc = field.doc.split_whitespace().collect::<Vec<_>>().join(" ");
            let _ = writeln!(out, "        \"{}\": {},", field.name, wrapped(&doc));
        }
        out += "    },\n";
    }
    out + "}\n"
}

/// A string in Python, in lines of one after the other.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        if lines.last().unwrap().len() + word.len() > 100 {
            lines.push(String::new());
        }
        let line = lines.last_mut().unwrap();
        *line += word;
        line.push(' ');
    }
    let escaped = |line: &str| format!("\"{}\"", line.replace('\\', "\\\\").replace('"', "\\\""));
    let last = lines.len() - 1;
    lines[last] = lines[last].trim_end().to_string();
    match lines.len() {
        1 => escaped(&lines[0]),
        _ => format!("(\n            {})", lines.iter().map(|l| escaped(l)).collect::<Vec<_>>().join("\n            ")),
    }
}

#[test]
fn the_python_options_agree() {
    agree("bindings/python/src/sitter/_options.py", &table());
}
