//! What `src/capi/` exports, read from its source.

use crate::at;
use quote::ToTokens;
use std::collections::BTreeMap;
use syn::{Expr, FnArg, Item, ItemFn, ReturnType};

/// One exported function.
pub struct Function {
    pub name: String,
    pub doc: String,
    /// Name and Rust type, without blanks: `*const sitter_model`.
    pub arguments: Vec<(String, String)>,
    /// Rust type; empty for none.
    pub result: String,
    pub body: String,
}

pub fn doc(attributes: &[syn::Attribute]) -> String {
    let lines = attributes.iter().filter_map(|a| match &a.meta {
        syn::Meta::NameValue(nv) if nv.path.is_ident("doc") => match &nv.value {
            Expr::Lit(lit) => match &lit.lit {
                syn::Lit::Str(text) => Some(text.value().trim().to_string()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    });
    lines.collect::<Vec<_>>().join(" ")
}

/// The type as it is written, with a blank only where one is needed.
pub fn text(tokens: &impl ToTokens) -> String {
    let text = tokens.to_token_stream().to_string();
    text.replace("* ", "*")
        .replace(" ::", "::")
        .replace(":: ", "::")
        .replace(" <", "<")
        .replace("< ", "<")
        .replace(" >", ">")
}

/// Every source file of the boundary, by name.
pub fn sources() -> BTreeMap<String, syn::File> {
    let files = std::fs::read_dir(at("src/capi")).unwrap().map(|e| e.unwrap().path());
    files
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, syn::parse_file(&std::fs::read_to_string(&path).unwrap()).unwrap())
        })
        .collect()
}

fn exported(function: &ItemFn) -> bool {
    function.attrs.iter().any(|a| a.to_token_stream().to_string().contains("no_mangle"))
}

/// All exported functions, by name.
pub fn functions() -> Vec<Function> {
    let mut found = Vec::new();
    for parsed in sources().into_values() {
        for item in parsed.items {
            let Item::Fn(function) = item else { continue };
            if !exported(&function) {
                continue;
            }
            let arguments = function.sig.inputs.iter().map(|argument| match argument {
                FnArg::Typed(typed) => (text(&typed.pat), text(&typed.ty)),
                FnArg::Receiver(_) => panic!("an exported method"),
            });
            found.push(Function {
                name: function.sig.ident.to_string(),
                doc: doc(&function.attrs),
                arguments: arguments.collect(),
                result: match &function.sig.output {
                    ReturnType::Default => String::new(),
                    ReturnType::Type(_, ty) => text(ty),
                },
                body: text(&function.block),
            });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// All constants of the header with their values, in the order of the source.
pub fn constants() -> Vec<(String, i64)> {
    let mut found = Vec::new();
    for parsed in sources().into_values() {
        for item in parsed.items {
            let Item::Const(constant) = item else { continue };
            let name = constant.ident.to_string();
            if name.starts_with("SITTER_") && matches!(constant.vis, syn::Visibility::Public(_)) {
                found.push((name, text(&constant.expr).parse().expect("a constant is a plain number")));
            }
        }
    }
    found
}

/// Fields of `sitter_event` and their types, in order.
pub fn event_fields() -> Vec<(String, String)> {
    let items = sources().into_values().flat_map(|parsed| parsed.items);
    let event = items.filter_map(|item| match item {
        Item::Struct(s) if s.ident == "sitter_event" => Some(s.fields),
        _ => None,
    });
    event.flatten().map(|field| (field.ident.unwrap().to_string(), text(&field.ty))).collect()
}

#[test]
fn every_exported_function_has_the_prefix_the_boundary_and_a_version() {
    for f in functions() {
        let name = &f.name;
        assert!(name.starts_with("sitter_"), "{name}");
        assert!(f.doc.contains("Since 1."), "{name} does not say since which ABI version it is there");
        let last = f.arguments.last().map(|(n, t)| (n.as_str(), t.as_str()));
        if f.result == "sitter_status" && name != "sitter_error_status" {
            assert_eq!(last, Some(("err", "*mut *mut sitter_error")), "{name} returns a status, so it takes err last");
            assert!(f.body.starts_with("{ guard (err , |"), "{name} does not pass through the boundary: {}", f.body);
        } else {
            let quick = [
                "handle::",
                "terminated",
                "status::name",
                "text::optional",
                "SITTER_ABI_MAJOR",
                "if let Some (run) = handle::peek",
            ];
            let body = f.body.trim_start_matches("{ ");
            assert!(quick.iter().any(|q| body.starts_with(q) || body.contains(q)), "{name}: {}", f.body);
        }
    }
}

#[test]
fn signatures_use_only_types_that_every_language_has() {
    let plain = ["i32", "u32", "i64", "u64", "u8", "f32", "f64", "usize", "c_char", "c_void"];
    for f in functions() {
        for (argument, ty) in f.arguments.iter().map(|(n, t)| (n.as_str(), t)).chain([("result", &f.result)]) {
            if ty.is_empty() {
                continue;
            }
            let mut inner = ty.as_str();
            while let Some(rest) = inner.strip_prefix("*const ").or(inner.strip_prefix("*mut ")) {
                inner = rest;
            }
            let own = inner.starts_with("sitter_");
            assert!(plain.contains(&inner) || own, "{}: {argument} has type {ty}", f.name);
            let by_value = own && inner == ty && !ty.ends_with("_fn") && ty != "sitter_status";
            assert!(!by_value, "{}: {argument} is a struct by value", f.name);
        }
    }
}
