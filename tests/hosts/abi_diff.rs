//! abidiff on the frozen header and today's: libabigail sees in the debug information of C what a program is compiled
//! against, prototypes and the event's layout included. It is given libraries without content made from the headers,
//! because Rust's debug information does not have C's types.

use super::null_matrix::functions;
use crate::{at, run, scratch, tool};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A shared library with every function of a header and nothing in them.
fn hollow(gcc: &Path, folder: &Path, name: &str, header: &str) -> PathBuf {
    let folder = folder.join(name);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("sitter.h"), header).unwrap();
    let mut source = String::from("#include \"sitter.h\"\n");
    for f in functions(header) {
        let arguments: Vec<String> = f.arguments.iter().map(|a| format!("{} {}", a.ty, a.name)).collect();
        let arguments = if arguments.is_empty() { "void".to_string() } else { arguments.join(", ") };
        let result = if f.result == "void" { "" } else { " return 0; " };
        source += &format!("{} {}({arguments}) {{{result}}}\n", f.result, f.name);
    }
    std::fs::write(folder.join("hollow.c"), source).unwrap();
    let library = folder.join("libsitter.so");
    run(Command::new(gcc).args(["-g", "-shared", "-fPIC", "hollow.c", "-o"]).arg(&library).current_dir(&folder));
    library
}

#[test]
fn abidiff_finds_nothing_but_additions() {
    let (Some(gcc), Some(abidiff)) = (tool("gcc"), tool("abidiff")) else { return };
    let folder = scratch("abi_diff");
    // Fields may be appended to the event.
    let appended = "[suppress_type]\n  name = sitter_event\n  has_data_member_inserted_at = end\n";
    std::fs::write(folder.join("allowed"), appended).unwrap();
    let frozen = std::fs::read_to_string(at("abi/v1.0/sitter.h")).unwrap();
    let today = std::fs::read_to_string(at("include/sitter.h")).unwrap();
    let old = hollow(&gcc, &folder, "old", &frozen);
    let same = |name: &str, header: &str| {
        let new = hollow(&gcc, &folder, name, header);
        let mut command = Command::new(&abidiff);
        command.arg("--no-added-syms").arg("--suppressions").arg(folder.join("allowed")).arg(&old).arg(new);
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (same_today, report) = same("new", &today);
    assert!(same_today, "{report}");
    // It does see what would break programs.
    let change = |from: &str, to: &str| {
        assert!(today.contains(from), "{from}");
        today.replacen(from, to, 1)
    };
    let breaks = [
        change("uint32_t max_jobs,", "uint64_t max_jobs,"),
        change("  uint64_t done;", "  uint32_t stage_number;\n  uint64_t done;"),
        change("typedef int32_t (*sitter_event_fn)", "typedef int64_t (*sitter_event_fn)"),
        change("sitter_image_size(", "sitter_image_extent("),
        change("typedef int32_t sitter_status;", "typedef int64_t sitter_status;"),
    ];
    for (i, header) in breaks.iter().enumerate() {
        assert!(!same(&format!("broken{i}"), header).0, "change {i} was not noticed");
    }
    // And what does not.
    let added = change(
        "SITTER_API const char *sitter_version_string(void);",
        "SITTER_API const char *sitter_version_string(void);\nSITTER_API int32_t sitter_new_in_1_1(void);",
    );
    let grown = change("  uint32_t item_count;", "  uint32_t item_count;\n  uint64_t new_in_1_1;");
    for (name, header) in [("added", &added), ("grown", &grown)] {
        let (fine, report) = same(name, header);
        assert!(fine, "{name}: {report}");
    }
}
