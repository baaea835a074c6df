//! What the Node package is made of from the same source as the header: `abi.json`, which it calls through, and the
//! TypeScript of the options.

use crate::agree;
use crate::choices::{choices, methods};
use crate::setters::{fields, Field};
use crate::surface::{constants, event_fields, functions, Function};
use serde_json::{json, Map, Value};
use std::fmt::Write;

/// A prototype as koffi reads it. `_Out_` takes a JavaScript array that receives the values; buffers, which the wrapper
/// passes as typed arrays, and handles, which are BigInt, are `void *`.
fn koffi(f: &Function) -> String {
    let argument = |(name, ty): &(String, String)| match ty.as_str() {
        "*const c_char" => format!("const char *{name}"),
        "*const *const c_char" => format!("const char **{name}"),
        t if t.starts_with("*mut *mut sitter_") => format!("_Out_ void **{name}"),
        t if t.starts_with("*const *const sitter_") => format!("void **{name}"),
        "*mut usize" => format!("_Out_ size_t *{name}"),
        "*mut u32" if ["width", "height"].contains(&name.as_str()) => format!("_Out_ uint32_t *{name}"),
        // Never given: koffi's functions cannot be called safely from a thread of the pool when the process ends.
        "sitter_event_fn" | "sitter_log_fn" | "sitter_drop_fn" => format!("void *{name}"),
        t if t.starts_with('*') => format!("void *{name}"),
        t => format!("{} {name}", c_type(t)),
    };
    let result = match f.result.as_str() {
        "" => "void",
        "*const c_char" => "const char *",
        t if t.starts_with('*') => "void *",
        t => c_type(t),
    };
    let arguments: Vec<String> = f.arguments.iter().map(argument).collect();
    format!("{result} {}({})", f.name, arguments.join(", "))
}

fn c_type(ty: &str) -> &'static str {
    match ty {
        "sitter_status" | "i32" => "int32_t",
        "u32" => "uint32_t",
        "u64" => "uint64_t",
        "f64" => "double",
        "f32" => "float",
        "usize" => "size_t",
        _ => panic!("no C type for {ty}"),
    }
}

/// How the wrapper converts an option's value; `?` marks what may be null.
fn kind(ty: &str) -> &'static str {
    match ty {
        "u32" => "u32",
        "u64" => "u64",
        "f32" | "f64" => "number",
        "bool" => "boolean",
        "String" | "Trainable" | "Adaptation" | "Teacher" | "StateFormat" | "OptimizerDevice" | "Recompute"
        | "Decoding" | "TextEncoder" => "string",
        "Option<String>" => "string?",
        "Option<PathBuf>" => "path?",
        "Vec<u32>" => "u32[]",
        "Vec<f32>" => "f32[]",
        "Option<Vec<f32>>" => "f32[]?",
        "Vec<String>" => "string[]",
        _ => panic!("no kind for an option of type {ty}"),
    }
}

/// The type of an option in TypeScript.
fn typescript(field: &Field) -> String {
    if let Some(names) = choices(field) {
        return union(&names);
    }
    let plain = match kind(&field.ty) {
        "u32" | "number" => "number",
        "u64" => "number | bigint",
        "boolean" => "boolean",
        "string" => "string",
        "string?" => "string | null",
        "path?" => "string | URL | null",
        "u32[]" => "Uint32Array | readonly number[]",
        "f32[]" => "Float32Array | readonly number[]",
        "f32[]?" => "Float32Array | readonly number[] | null",
        "string[]" => "readonly string[]",
        kind => panic!("no TypeScript for {}: {kind}", field.name),
    };
    plain.into()
}

fn union(names: &[&str]) -> String {
    names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(" | ")
}

fn camel(name: &str) -> String {
    let mut words = name.split('_');
    let mut out = words.next().unwrap_or_default().to_string();
    for word in words {
        let (first, rest) = word.split_at(1);
        out += &(first.to_uppercase() + rest);
    }
    out
}

fn table() -> String {
    let constants: Map<String, Value> =
        constants().into_iter().map(|(n, v)| (n.trim_start_matches("SITTER_").to_string(), v.into())).collect();
    let mut options = Map::new();
    for field in fields() {
        let of_noun = options.entry(field.noun).or_insert_with(|| json!({}));
        of_noun[&field.name] = kind(&field.ty).into();
    }
    let event: Vec<[String; 2]> = event_fields().into_iter().map(|(n, t)| [n, c_type(&t).into()]).collect();
    let table = json!({
        "//": "Made from src/capi by tests/abi/node.rs; do not edit.",
        "constants": constants,
        "event": event,
        "options": options,
        "prototypes": functions().iter().map(koffi).collect::<Vec<_>>(),
    });
    serde_json::to_string_pretty(&table).unwrap() + "\n"
}

fn wrapped(doc: &str) -> String {
    let mut lines = vec![String::from("   *")];
    for word in doc.split_whitespace() {
        if lines.last().unwrap().len() + word.len() + 1 > 116 {
            lines.push("   *".into());
        }
        let _ = write!(lines.last_mut().unwrap(), " {word}");
    }
    format!("  /**\n{}\n   */", lines.join("\n"))
}

/// Names of options in the words of the documentation become JavaScript's.
fn in_javascript(doc: &str, names: &[String]) -> String {
    names.iter().fold(doc.to_string(), |doc, name| doc.replace(&format!("`{name}`"), &format!("`{}`", camel(name))))
}

fn types() -> String {
    let mut out = String::from(
        "// Made from the Rust options by tests/abi/node.rs; do not edit: `SITTER_UPDATE=1 cargo test --test abi`.\n",
    );
    let fields = fields();
    let names: Vec<String> = fields.iter().map(|f| f.name.clone()).collect();
    let interfaces = [
        ("evaluator", "EvaluatorFields", "Where the networks of an evaluator are; at least one has to be given."),
        ("model", "OpenFields", "How a model is opened."),
        ("sample", "SampleFields", "How tokens are drawn."),
        (
            "train",
            "TrainFields",
            "How a subject is taught. Defaults depend on the method and the model: see `Model.trainOptions`.",
        ),
    ];
    for (noun, interface, doc) in interfaces {
        let _ = write!(out, "\n/** {doc} */\nexport interface {interface} {{\n");
        for field in fields.iter().filter(|f| f.noun == noun) {
            let doc = wrapped(&in_javascript(&field.doc, &names));
            let _ = writeln!(out, "{doc}\n  {}?: {};", camel(&field.name), typescript(field));
        }
        out.push_str("}\n");
    }
    let _ =
        writeln!(out, "\n/** How a subject is taught, in one word. */\nexport type Method = {};", union(&methods()));
    out
}

#[test]
fn the_node_table_agrees() {
    agree("bindings/node/src/abi.json", &table());
}

#[test]
fn the_typescript_options_agree() {
    agree("bindings/node/src/options.d.ts", &types());
}
