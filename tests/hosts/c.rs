//! C programs: the example, and what they may and may not do at the boundary, under gcc's sanitizers and Valgrind.

use crate::{at, library_folder, run, scratch, tool};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const WARNINGS: [&str; 5] = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-g"];
pub const SANITIZED: [&str; 2] = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];

/// Compiles a program and links it with the library; the program lies in `folder`.
pub fn build(compiler: &Path, source: &Path, folder: &Path, flags: &[&str]) -> PathBuf {
    let program = folder.join(source.file_stem().unwrap());
    let library = library_folder().display();
    run(Command::new(compiler)
        .args(WARNINGS)
        .args(flags)
        .arg("-I")
        .arg(at("include"))
        .arg("-I")
        .arg(at("tests/hosts/c"))
        .arg(source)
        .arg("-o")
        .arg(&program)
        .args([format!("-L{library}"), format!("-Wl,-rpath,{library}")])
        .args(["-lsitter", "-pthread"]));
    program
}

fn build_c(source: &Path, folder: &Path, flags: &[&str]) -> Option<PathBuf> {
    let flags = [&["-std=c11", "-D_POSIX_C_SOURCE=200809L"], flags].concat();
    Some(build(&tool("gcc")?, source, folder, &flags))
}

fn program(name: &str) -> PathBuf {
    at("tests/hosts/c").join(name)
}

/// A command for a program under Valgrind: any error and any lost memory fails it.
pub fn under_valgrind(program: &Path) -> Option<Command> {
    let mut command = Command::new(tool("valgrind")?);
    command
        .args(["-q", "--error-exitcode=99", "--leak-check=full", "--num-callers=40"])
        .args(["--show-leak-kinds=definite,indirect", "--errors-for-leak-kinds=definite,indirect"])
        .arg(program);
    Some(command)
}

/// Runs a program as it is, with sanitizers, and under Valgrind.
fn check(source: &Path, folder: &str, arguments: &[&str]) {
    let folder = scratch(folder);
    let Some(plain) = build_c(source, &folder, &[]) else { return };
    run(Command::new(&plain).args(arguments).current_dir(at("")));
    if let Some(mut command) = under_valgrind(&plain) {
        let output = run(command.args(arguments).current_dir(at("")));
        // What a forked child did wrong is not in the exit status.
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{} under Valgrind", source.display());
    }
    check_sanitized(source, &folder, arguments);
}

fn check_sanitized(source: &Path, folder: &Path, arguments: &[&str]) {
    let folder = folder.join("sanitized");
    std::fs::create_dir_all(&folder).unwrap();
    let Some(sanitized) = build_c(source, &folder, &SANITIZED) else { return };
    assert_sanitized(&sanitized);
    run(Command::new(&sanitized).args(arguments).current_dir(at("")));
}

/// The sanitizer is really there.
pub fn assert_sanitized(program: &Path) {
    let binary = std::fs::read(program).unwrap();
    let name = b"__asan_init";
    assert!(binary.windows(name.len()).any(|w| w == name), "{} has no sanitizer in it", program.display());
}

#[test]
fn the_header_compiles_alone_and_twice_in_every_standard() {
    let folder = scratch("c_header");
    for (source, compiler, standards) in [
        ("once.c", "gcc", ["c99", "c11"]),
        ("twice.c", "gcc", ["c99", "c11"]),
        ("twice.cpp", "g++", ["c++11", "c++17"]),
    ] {
        let Some(compiler) = tool(compiler) else { return };
        let line = "#include \"sitter.h\"\n";
        let text = if source.starts_with("once") { line.to_string() } else { line.repeat(2) };
        std::fs::write(folder.join(source), text).unwrap();
        for standard in standards {
            run(Command::new(&compiler)
                .args(WARNINGS)
                .arg(format!("-std={standard}"))
                .args(["-Wstrict-prototypes", "-c", "-o", "/dev/null"].iter().skip(usize::from(standard.contains('+'))))
                .arg("-I")
                .arg(at("include"))
                .arg(folder.join(source)));
        }
    }
}

#[test]
fn the_whole_story_is_told_in_c() {
    let folder = scratch("c_story");
    let source = at("examples/c/story.c");
    assert!(std::fs::read_to_string(&source).unwrap().lines().count() < 150);
    let Some(gcc) = tool("gcc") else { return };
    let story = build(&gcc, &source, &folder, &["-std=c99"]);
    run(Command::new(&story).args(["embedded:", "2"]).arg(&folder).current_dir(at("")));
    assert_told(&folder, 128);
}

/// The story left a picture and a subject that this library's Rust side can read.
pub fn assert_told(folder: &Path, side: u32) {
    let picture = sitter::picture::Picture::load(folder.join("fox.png")).unwrap();
    assert_eq!((picture.width(), picture.height()), (side, side));
    let colours: std::collections::BTreeSet<&[u8]> = picture.rgb().chunks(3).collect();
    assert!(colours.len() > 10, "a picture of {} colours", colours.len());
    let subject = sitter::model::subject::Subject::load(folder.join("fox.safetensors")).unwrap();
    assert_eq!((subject.identifier.as_str(), subject.class_word.as_str()), ("[V]", "fox"));
    assert_eq!(subject.losses.len(), 2);
}

#[test]
fn the_story_neither_leaks_nor_reads_what_is_not_its_own() {
    let folder = scratch("c_story_checked_results");
    check(&at("examples/c/story.c"), "c_story_checked", &["fake:", "2", folder.to_str().unwrap()]);
}

#[test]
fn the_story_says_what_is_wrong() {
    let folder = scratch("c_story_wrong");
    let Some(story) = build_c(&at("examples/c/story.c"), &folder, &[]) else { return };
    let output = Command::new(&story).arg("/no/such/model").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.starts_with("SITTER_E_NOT_FOUND: ") && text.contains("/no/such/model"), "{text}");
}

#[test]
fn handles_runs_and_callbacks_behave_in_every_order() {
    check(&program("lifecycle.c"), "c_lifecycle", &[]);
}

#[test]
fn threads_may_cancel_poll_share_and_free() {
    check(&program("threads.c"), "c_threads", &[]);
}

#[test]
fn a_forked_child_is_told_so() {
    check(&program("fork.c"), "c_fork", &[]);
}

/// Candle is offered threads, so that it would be seen to start them wherever it has a processor.
#[cfg(target_os = "linux")]
#[test]
fn a_forked_child_can_do_with_a_model_of_its_own_what_the_parent_did() {
    let folder = scratch("c_fork_embedded");
    let Some(program) = build_c(&program("fork_embedded.c"), &folder, &[]) else { return };
    run(Command::new(program).arg(folder.join("subject")).env("CANDLE_NUM_THREADS", "3").current_dir(at("")));
}

#[test]
fn tokens_of_several_grids_go_through_a_model_and_back() {
    let folder = scratch("c_scales");
    let Some(plain) = build_c(&program("scales.c"), &folder, &[]) else { return };
    run(Command::new(&plain).arg(at(super::SCALES)));
    check_sanitized(&program("scales.c"), &folder, &[at(super::SCALES).to_str().unwrap()]);
}

#[test]
fn the_event_has_the_layout_it_had() {
    check(&program("event_layout.c"), "c_event_layout", &[]);
}

#[test]
fn a_leak_would_be_noticed() {
    let folder = scratch("c_leak");
    let source = folder.join("leak.c");
    let text = "#include \"check.h\"\nint main(void) { return open_model(NULL, \"fake:\") == NULL; }\n";
    std::fs::write(&source, text).unwrap();
    let Some(leaking) = build_c(&source, &folder, &[]) else { return };
    if let Some(mut command) = under_valgrind(&leaking) {
        assert_eq!(command.output().unwrap().status.code(), Some(99));
    }
    let Some(leaking) = build_c(&source, &folder, &SANITIZED) else { return };
    let output = Command::new(leaking).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("LeakSanitizer"), "{text}");
}

#[test]
fn nothing_is_written_to_the_standard_streams() {
    let folder = scratch("c_output");
    let Some(program) = build_c(&program("output.c"), &folder, &[]) else { return };
    let file = |name: &str| std::fs::File::create(folder.join(name)).unwrap();
    let status = Command::new(&program).stdout(file("stdout")).stderr(file("stderr")).status().unwrap();
    let written = ["stdout", "stderr"].map(|name| std::fs::read_to_string(folder.join(name)).unwrap());
    assert!(status.success(), "{written:?}");
    assert_eq!(written, ["", ""]);
    // Nor does it fail where there is nothing to write to.
    let closed = Command::new(&program).arg("closed").stdin(Stdio::null()).status().unwrap();
    assert!(closed.success(), "with closed streams: {closed}");
}

/// The macros of the header with their values, as C sees them.
#[test]
fn every_constant_has_its_value_in_c() {
    let header = std::fs::read_to_string(at("include/sitter.h")).unwrap();
    let named = |line: &str| {
        let rest = line.strip_prefix("#define SITTER_")?;
        let (name, value) = rest.split_once(' ')?;
        value.parse::<i64>().ok().map(|value| (format!("SITTER_{name}"), value))
    };
    let constants: Vec<(String, i64)> = header.lines().filter_map(named).collect();
    assert!(constants.len() > 30);
    let mut source = String::from("#include \"sitter.h\"\n#include <stdio.h>\nint main(void) {\n");
    for (name, _) in &constants {
        source += &format!("    printf(\"{name} %lld\\n\", (long long)({name}));\n");
        // Usable where the preprocessor decides.
        source += &format!("#if {name} < 0\n#error {name}\n#endif\n");
        if name.starts_with("SITTER_E_") || name == "SITTER_OK" {
            source += &format!("    printf(\"{name} is called %s\\n\", sitter_status_name({name}));\n");
        }
    }
    source += "    printf(\"version %lu\\n\", (unsigned long)sitter_abi_version());\n    return 0;\n}\n";
    let folder = scratch("c_constants");
    std::fs::write(folder.join("constants.c"), source).unwrap();
    let Some(program) = build_c(&folder.join("constants.c"), &folder, &[]) else { return };
    let output = run(&mut Command::new(program));
    let printed = String::from_utf8(output.stdout).unwrap();
    let frozen = std::fs::read_to_string(at("abi/constants.txt")).unwrap();
    for line in frozen.lines() {
        assert!(printed.lines().any(|l| l == line), "{line} is not what C sees");
    }
    for (name, value) in &constants {
        assert!(printed.contains(&format!("{name} {value}\n")));
        let status = name.starts_with("SITTER_E_") || name == "SITTER_OK";
        assert!(!status || printed.contains(&format!("{name} is called {name}\n")), "{name} has another name");
    }
    let value = |wanted: &str| constants.iter().find(|(name, _)| name == wanted).unwrap().1;
    let version = value("SITTER_ABI_MAJOR") << 16 | value("SITTER_ABI_MINOR");
    assert!(printed.ends_with(&format!("version {version}\n")), "{printed}");
}

#[test]
fn no_null_and_no_wrong_handle_gets_through() {
    let folder = scratch("c_null_matrix");
    let source = folder.join("null_matrix.c");
    std::fs::write(&source, super::null_matrix::source()).unwrap();
    check(&source, "c_null_matrix_built", &[]);
}

/// A program of version 1.0, compiled with its header, on today's library.
#[test]
fn a_program_of_version_1_0_still_works() {
    let Some(gcc) = tool("gcc") else { return };
    let folder = scratch("c_v1_0");
    let library = library_folder().display();
    let program = folder.join("smoke");
    run(Command::new(gcc)
        .args(WARNINGS)
        .arg("-std=c99")
        .arg("-I")
        .arg(at("abi/v1.0"))
        .arg(at("abi/v1.0/smoke.c"))
        .arg("-o")
        .arg(&program)
        .args([format!("-L{library}"), format!("-Wl,-rpath,{library}"), "-lsitter".into()]));
    let output = run(Command::new(&program).arg("fake:").arg(&folder).current_dir(&folder));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "all as in 1.0\n");
    run(Command::new(&program).arg("embedded:").arg(&folder).current_dir(&folder));
}
