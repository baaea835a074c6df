//! The table that Python calls through, made from the same source as the header.

use crate::agree;
use crate::surface::{constants, functions};
use std::fmt::Write;

/// A type as ctypes has it.
fn python(ty: &str) -> String {
    let plain = |t: &str| {
        Some(match t {
            "i32" | "sitter_status" => "c_int32",
            "u32" => "c_uint32",
            "i64" => "c_int64",
            "u64" => "c_uint64",
            "u8" => "c_uint8",
            "f32" => "c_float",
            "f64" => "c_double",
            "usize" => "c_size_t",
            "sitter_event_fn" => "EVENT_FN",
            "sitter_log_fn" => "LOG_FN",
            "sitter_drop_fn" => "DROP_FN",
            "sitter_event" => "Event",
            _ => return None,
        })
    };
    let inner = ty.strip_prefix("*const ").or(ty.strip_prefix("*mut "));
    match (ty, inner) {
        ("", _) => "None".into(),
        (_, Some("c_char")) if ty.starts_with("*const") => "c_char_p".into(),
        // A buffer to be filled: c_char_p would be taken for a string.
        (_, Some("c_char")) => "c_void_p".into(),
        (_, Some("c_void")) => "c_void_p".into(),
        // Handles; which kind, the library checks.
        (_, Some(t)) if t.starts_with("sitter_") && plain(t).is_none() => "c_void_p".into(),
        (_, Some(t)) => format!("POINTER({})", python(t)),
        (t, None) => plain(t).unwrap_or_else(|| panic!("no ctypes type for {t}")).into(),
    }
}

fn python_table() -> String {
    let mut out = String::from(
        "\"\"\"Constants, types and prototypes of the C ABI. Made from src/capi by tests/abi/bindings.rs; do not edit.\"\"\"\n\
         from __future__ import annotations\n\n\
         from ctypes import (CFUNCTYPE, POINTER, Structure, c_char_p, c_double, c_float, c_int32, c_size_t, c_uint8, c_uint32,\n\
         \x20                   c_uint64, c_void_p)\n\
         from typing import Any\n\n",
    );
    for (name, value) in constants() {
        let _ = writeln!(out, "{} = {value}", name.trim_start_matches("SITTER_"));
    }
    out.push_str(
        "\n\nclass Event(Structure):\n    _fields_ = [(\"struct_size\", c_uint32), (\"stage\", c_int32), (\"done\", c_uint64), (\"total\", c_uint64),\n\
         \x20               (\"elapsed_ms\", c_uint64), (\"value\", c_double), (\"item\", c_uint32), (\"item_count\", c_uint32),\n\
         \x20               (\"warnings\", c_uint64)]\n\n\n\
         EVENT_FN = CFUNCTYPE(c_int32, c_void_p, POINTER(Event))\n\
         LOG_FN = CFUNCTYPE(None, c_void_p, c_int32, c_char_p)\n\
         DROP_FN = CFUNCTYPE(None, c_void_p)\n\n\
         # name: (result, arguments)\nPROTOTYPES: dict[str, tuple[Any, list[Any]]] = {\n",
    );
    for f in functions() {
        let arguments: Vec<String> = f.arguments.iter().map(|(_, t)| python(t)).collect();
        let _ = writeln!(out, "    \"{}\": ({}, [{}]),", f.name, python(&f.result), arguments.join(", "));
    }
    out.push_str("}\n");
    out
}

#[test]
fn the_python_table_agrees() {
    agree("bindings/python/src/sitter/_abi.py", &python_table());
}
