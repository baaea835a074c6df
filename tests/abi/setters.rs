//! `src/capi/setters.rs`: one setter for each field of the Rust options, with its documentation.

use crate::agree;
use crate::at;
use crate::surface::{doc, text};
use std::fmt::Write;

/// The options, where they are defined, and fields that C sets otherwise.
const OPTIONS: [(&str, &str, &str, &[&str]); 4] = [
    ("evaluator", "src/evaluate/mod.rs", "OpenOptions", &[]),
    ("model", "src/model/mod.rs", "OpenOptions", &[]),
    ("sample", "src/sample/mod.rs", "Options", &["count"]),
    ("train", "src/personalize/options.rs", "Options", &["method"]),
];

/// A field that has a setter.
pub struct Field {
    /// Whose: "evaluator", "model", "sample" or "train".
    pub noun: &'static str,
    pub name: String,
    /// Rust type, without blanks.
    pub ty: String,
    pub doc: String,
}

/// All fields that have setters, in the order of the source.
pub fn fields() -> Vec<Field> {
    let of_struct = |(noun, file, name, skipped): (&'static str, &str, &str, &'static [&'static str])| {
        let parsed = syn::parse_file(&std::fs::read_to_string(at(file)).unwrap()).unwrap();
        let fields = parsed.items.into_iter().find_map(|item| match item {
            syn::Item::Struct(s) if s.ident == name => Some(s.fields),
            _ => None,
        });
        fields.unwrap().into_iter().filter_map(move |field| {
            let name = field.ident?.to_string();
            let wanted = !skipped.contains(&name.as_str());
            wanted.then(|| Field { noun, name, ty: text(&field.ty), doc: doc(&field.attrs) })
        })
    };
    OPTIONS.into_iter().flat_map(of_struct).collect()
}

/// Parameters of the setter and the statement that sets the field.
fn forms(field: &str, ty: &str) -> (String, String) {
    let one = |c: &str, value: &str| (format!("{field}: {c}"), format!("o.{field} = {value}"));
    match ty {
        "u32" | "u64" | "f64" => one(ty, field),
        "f32" => one("f64", &format!("{field} as f32")),
        "bool" => one("i32", &format!("flag({field}, \"{field}\")?")),
        "String" => one("*const c_char", &format!("text::required({field}, \"{field}\")?")),
        "Option<String>" => one("*const c_char", &format!("text::optional({field}, \"{field}\")?")),
        "Option<PathBuf>" => one("*const c_char", &format!("text::optional({field}, \"{field}\")?.map(Into::into)")),
        "Trainable" | "Adaptation" | "Teacher" | "StateFormat" | "OptimizerDevice" | "Recompute" | "Decoding"
        | "TextEncoder" => one("*const c_char", &format!("{ty}::parse(&text::required({field}, \"{field}\")?)?")),
        "Vec<u32>" => (
            format!("{field}: *const u32,\n    count: usize"),
            format!("o.{field} = array({field}, count, \"{field}\")?"),
        ),
        "Vec<f32>" => (
            format!("{field}: *const f32,\n    count: usize"),
            format!("o.{field} = array({field}, count, \"{field}\")?"),
        ),
        "Option<Vec<f32>>" => (
            format!("{field}: *const f32,\n    count: usize"),
            format!("o.{field} = Some(array({field}, count, \"{field}\")?).filter(|v| !v.is_empty())"),
        ),
        "Vec<String>" => (
            format!("{field}: *const *const c_char,\n    count: usize"),
            format!("o.{field} = text::list({field}, count, \"{field}\")?"),
        ),
        _ => panic!("no setter form for {field} of type {ty}"),
    }
}

fn wrap(text: &str) -> String {
    let mut lines = vec![String::from("///")];
    for word in text.split_whitespace() {
        if lines.last().unwrap().len() + word.len() + 1 > 120 {
            lines.push("///".into());
        }
        let _ = write!(lines.last_mut().unwrap(), " {word}");
    }
    lines.join("\n")
}

fn generate() -> String {
    let mut out = String::from(
        "//! Setters of the option objects. Generated from the fields of the Rust options by tests/abi/setters.rs; do not edit:\n\
         //! `SITTER_UPDATE=1 cargo test --test abi`.\n\n\
         use super::boundary::guard;\nuse super::buffer::array;\nuse super::error::sitter_error;\n\
         use super::nouns::{sitter_evaluator_options, sitter_model_options, sitter_sample_options, sitter_train_options};\n\
         use super::options::{change, flag};\n\
         use super::status::sitter_status;\nuse super::text;\nuse crate::model::family::Teacher;\nuse crate::model::TextEncoder;\nuse crate::personalize::{Adaptation, OptimizerDevice, Recompute, StateFormat, Trainable};\nuse crate::sample::Decoding;\nuse std::ffi::c_char;\n",
    );
    let first = std::fs::read_to_string(at("abi/v1.0/sitter.h")).unwrap();
    for Field { noun, name: ident, ty, doc } in fields() {
        let (parameters, statement) = forms(&ident, &ty);
        // Rust's own marks mean nothing in a header.
        let doc = doc.replace('`', "\"");
        let nullable = match ty.as_str() {
            "Option<String>" | "Option<PathBuf>" => " NULL for none.",
            "Vec<u32>" | "Vec<f32>" | "Vec<String>" | "Option<Vec<f32>>" => " (NULL, 0) for none.",
            _ => "",
        };
        let since = if first.contains(&format!("sitter_{noun}_options_set_{ident}(")) { "1.0" } else { "1.1" };
        let doc = wrap(&format!("{doc}{nullable} SITTER_E_INVALID_ARGUMENT. Since {since}."));
        let _ = write!(
            out,
            "\n{doc}\n#[no_mangle]\npub unsafe extern \"C\" fn sitter_{noun}_options_set_{ident}(\n    \
             options: *mut sitter_{noun}_options,\n    {parameters},\n    err: *mut *mut sitter_error,\n) -> sitter_status {{\n    \
             guard(err, || {{\n        change(options, |o| {{\n            {statement};\n            Ok(())\n        }})\n    }})\n}}\n"
        );
    }
    out
}

#[test]
fn every_option_has_its_setter() {
    agree("src/capi/setters.rs", &generate());
}
