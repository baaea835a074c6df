//! `include/sitter.h`, made by cbindgen.

use crate::surface::sources;
use crate::{agree, at};

const PREAMBLE: &str = include_str!("preamble.h");

fn generate() -> String {
    let mut builder = cbindgen::Builder::new().with_config(cbindgen::Config {
        language: cbindgen::Language::C,
        cpp_compat: true,
        no_includes: true,
        sys_includes: vec!["stddef.h".into(), "stdint.h".into()],
        include_guard: Some("SITTER_H".into()),
        header: Some(PREAMBLE.trim_end().into()),
        after_includes: Some(
            "/* Windows users of the shared library define SITTER_DLL; nobody else has to do anything. */\n\
             #if defined(_WIN32) && defined(SITTER_DLL)\n#define SITTER_API __declspec(dllimport)\n#else\n\
             #define SITTER_API\n#endif"
                .into(),
        ),
        usize_is_size_t: true,
        line_length: 120,
        documentation_style: cbindgen::DocumentationStyle::C,
        function: cbindgen::FunctionConfig {
            prefix: Some("SITTER_API".into()),
            sort_by: Some(cbindgen::SortKey::Name),
            ..Default::default()
        },
        constant: cbindgen::ConstantConfig { sort_by: Some(cbindgen::SortKey::None), ..Default::default() },
        ..Default::default()
    });
    // cbindgen follows the modules of mod.rs by itself.
    for name in sources().keys().filter(|n| *n != "mod.rs") {
        builder = builder.with_src(at("src/capi").join(name));
    }
    let mut bytes = Vec::new();
    builder.generate().unwrap().write(&mut bytes);
    String::from_utf8(bytes).unwrap()
}

#[test]
fn the_committed_header_is_the_one_made_from_the_source() {
    agree("include/sitter.h", &generate());
}
