//! The setters inside `include/sitter.hpp`, made from the same source as the header.

use crate::surface::{functions, Function};
use crate::{agree, at};

/// Parameters of the method, and what stands for them in the call of the C function.
fn forms(name: &str, ty: &str) -> (String, String) {
    let plain = |t: &str| (format!("{t} {name}"), name.to_string());
    match ty {
        // The only numbers of this type are log levels and flags.
        "i32" if name == "level" => plain("std::int32_t"),
        "i32" => (format!("bool {name}"), format!("{name} ? 1 : 0")),
        "u32" => plain("std::uint32_t"),
        "u64" => plain("std::uint64_t"),
        "f64" => plain("double"),
        "*const c_char" => (format!("const std::string &{name}"), format!("{name}.c_str()")),
        "*const u32" => (format!("const std::vector<std::uint32_t> &{name}"), format!("{name}.data(), {name}.size()")),
        "*const f32" => (format!("const std::vector<float> &{name}"), format!("{name}.data(), {name}.size()")),
        "*const *const c_char" => {
            (format!("const std::vector<std::string> &{name}"), "list.data(), list.size()".to_string())
        }
        _ => panic!("no C++ form for {name} of type {ty}"),
    }
}

fn setter(f: &Function, class: &str, prefix: &str) -> String {
    let method = f.name.strip_prefix(prefix).unwrap();
    // Between the options and the error; a count goes with its array.
    let (name, ty) = &f.arguments[1];
    let (parameter, argument) = forms(name, ty);
    let list = match ty.as_str() {
        "*const *const c_char" => format!(
            "        std::vector<const char *> list;\n        for (const std::string &entry : {name}) {{\n            \
             list.push_back(entry.c_str());\n        }}\n"
        ),
        _ => String::new(),
    };
    format!(
        "    {class} &{method}({parameter}) {{\n{list}        detail::check([&](sitter_error **err) {{\n            \
         return {}(get(), {argument}, err);\n        }});\n        return *this;\n    }}\n",
        f.name
    )
}

fn with_setters(header: &str) -> String {
    let mut out = header.to_string();
    let classes = [
        ("engine", "EngineOptions"),
        ("evaluator", "EvaluatorOptions"),
        ("model", "ModelOptions"),
        ("sample", "SampleOptions"),
        ("train", "TrainOptions"),
    ];
    for (noun, class) in classes {
        let begin = format!("    // Setters of sitter_{noun}_options, made by tests/abi from src/capi.\n");
        let prefix = format!("sitter_{noun}_options_set_");
        let start = out.find(&begin).expect("the mark is there") + begin.len();
        let end = start + out[start..].find("    // End of setters.").expect("the end is marked");
        // A function is not a value: the log has a method of its own.
        let setters = functions().into_iter().filter(|f| f.name.starts_with(&prefix) && !f.name.ends_with("_set_log"));
        out.replace_range(start..end, &setters.map(|f| setter(&f, class, &prefix)).collect::<String>());
    }
    out
}

#[test]
fn the_cpp_header_has_a_method_for_each_setter() {
    let path = "include/sitter.hpp";
    agree(path, &with_setters(&std::fs::read_to_string(at(path)).unwrap()));
}
