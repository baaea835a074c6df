//! C++ programs, and programs outside this tree that find an installed library with CMake and pkg-config.

use super::c::{assert_sanitized, assert_told, build, under_valgrind, SANITIZED};
use crate::{at, library_folder, run, scratch, tool};
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn the_whole_story_is_told_in_cpp() {
    let folder = scratch("cpp_story");
    let Some(compiler) = tool("g++") else { return };
    let story = build(&compiler, &at("examples/cpp/story.cpp"), &folder, &["-std=c++17", "-Wshadow"]);
    run(Command::new(&story).args(["embedded:", "2"]).arg(&folder).current_dir(at("")));
    assert_told(&folder, 128);
    let output = Command::new(&story).arg("/no/such/model").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.starts_with("SITTER_E_NOT_FOUND: ") && text.contains("/no/such/model"), "{text}");
}

#[test]
fn the_cpp_header_owns_throws_and_rethrows() {
    let folder = scratch("cpp_behaviour");
    let Some(compiler) = tool("g++") else { return };
    let another = at("tests/hosts/cpp/another_file.cpp");
    let source = at("tests/hosts/cpp/behaviour.cpp");
    let with = |flags: &[&str]| build(&compiler, &source, &folder, &[flags, &[another.to_str().unwrap()]].concat());
    let plain = with(&["-std=c++17", "-Wshadow"]);
    run(Command::new(&plain).arg(at("")));
    if let Some(mut command) = under_valgrind(&plain) {
        run(&mut command);
    }
    let sanitized = with(&[&["-std=c++20"], &SANITIZED[..]].concat());
    assert_sanitized(&sanitized);
    run(&mut Command::new(&sanitized));
}

#[test]
fn tokens_of_several_grids_go_through_a_model_and_back() {
    let folder = scratch("cpp_scales");
    let Some(compiler) = tool("g++") else { return };
    let program = build(&compiler, &at("tests/hosts/cpp/scales.cpp"), &folder, &["-std=c++17", "-Wshadow"]);
    run(Command::new(&program).arg(at(super::SCALES)));
}

/// The library as a user would install it, in a folder whose name shells and their tools would like to read otherwise.
fn installed(name: &str) -> PathBuf {
    let prefix = scratch(name).join("a & b|c");
    // Cargo puts the libraries that tests link with beside the tests.
    let built = std::env::current_exe().unwrap().parent().unwrap().to_path_buf();
    assert!(built.join("libsitter.a").is_file());
    run(Command::new(at("bindings/cpp/install.sh")).arg(&prefix).arg(&built));
    prefix
}

/// Runs the story outside the tree, on the fake model.
fn tell(program: &Path, folder: &Path) {
    let _ = std::fs::remove_file(folder.join("fox.png"));
    run(Command::new(program).args(["fake:", "2"]).arg(folder).current_dir(at("")));
    assert!(folder.join("fox.png").is_file());
}

const PROJECT: &str = "cmake_minimum_required(VERSION 3.15)
project(outside C CXX)
foreach(wrong 0.1 1.99 2)
  find_package(sitter ${wrong} QUIET)
  if(sitter_FOUND)
    message(FATAL_ERROR \"${wrong} was accepted\")
  endif()
endforeach()
find_package(sitter 1.0 REQUIRED)
find_package(sitter 1 REQUIRED)
add_executable(story_c story.c)
target_link_libraries(story_c PRIVATE sitter::sitter)
add_executable(story_static story.c)
target_link_libraries(story_static PRIVATE sitter::sitter_static)
add_executable(story_cpp story.cpp)
target_compile_features(story_cpp PRIVATE cxx_std_17)
target_link_libraries(story_cpp PRIVATE sitter::sitter)
";

#[test]
fn a_project_outside_the_tree_finds_the_library_with_cmake() {
    let (Some(cmake), Some(_), Some(readelf)) = (tool("cmake"), tool("g++"), tool("readelf")) else { return };
    let prefix = installed("cpp_cmake");
    let project = scratch("cpp_cmake_project");
    std::fs::write(project.join("CMakeLists.txt"), PROJECT).unwrap();
    std::fs::copy(at("examples/c/story.c"), project.join("story.c")).unwrap();
    std::fs::copy(at("examples/cpp/story.cpp"), project.join("story.cpp")).unwrap();
    // The package is found wherever the whole prefix is.
    let moved = prefix.with_file_name("another place");
    std::fs::rename(prefix, &moved).unwrap();
    run(Command::new(&cmake)
        .args(["-S", ".", "-B", "build"])
        .arg(format!("-DCMAKE_PREFIX_PATH={}", moved.display()))
        .current_dir(&project));
    run(Command::new(&cmake).args(["--build", "build"]).current_dir(&project));
    let needed = |name: &str| {
        let output = run(Command::new(&readelf).arg("-d").arg(project.join("build").join(name)));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().any(|l| l.contains("(NEEDED)") && l.contains("[libsitter.so.1]"))
    };
    assert!(needed("story_c") && needed("story_cpp") && !needed("story_static"));
    for name in ["story_c", "story_static", "story_cpp"] {
        tell(&project.join("build").join(name), &project);
    }
}

#[test]
fn a_project_outside_the_tree_finds_the_library_with_pkg_config() {
    let (Some(pkg_config), Some(compiler)) = (tool("pkg-config"), tool("gcc")) else { return };
    let prefix = installed("cpp_pkg_config");
    let ask = |arguments: &[&str]| {
        let output = run(Command::new(&pkg_config)
            .args(arguments)
            .arg("sitter")
            .env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig")));
        String::from_utf8(output.stdout).unwrap().trim().to_string()
    };
    assert_eq!(ask(&["--modversion"]), abi_version());
    ask(&["--atleast-version=1"]);
    // What it says is meant for a shell.
    let compile = |name: &str, flags: &str| {
        let program = prefix.join(name);
        let line = format!("\"$0\" -std=c99 \"$1\" -o \"$2\" {flags}");
        run(Command::new("sh").args(["-c", &line]).arg(&compiler).arg(at("examples/c/story.c")).arg(&program));
        program
    };
    let shared = compile("shared", &ask(&["--cflags", "--libs"]));
    run(Command::new(&shared)
        .args(["fake:", "2"])
        .arg(&prefix)
        .current_dir(at(""))
        .env("LD_LIBRARY_PATH", prefix.join("lib")));
    // Where only the static library is, it is linked with what it needs.
    std::fs::remove_file(prefix.join("lib/libsitter.so")).unwrap();
    std::fs::remove_file(prefix.join("lib/libsitter.so.1")).unwrap();
    tell(&compile("static", &ask(&["--static", "--cflags", "--libs"])), &prefix);
}

/// Libraries that a static library made by this compiler wants, and what the packages say.
#[test]
fn static_programs_are_told_what_to_link() {
    let rustc = std::env::var_os("RUSTC").unwrap_or("rustc".into());
    let folder = scratch("cpp_static_libraries");
    std::fs::write(folder.join("empty.rs"), "").unwrap();
    let output = run(Command::new(rustc)
        .args(["--crate-type", "staticlib", "--print", "native-static-libs", "empty.rs"])
        .current_dir(&folder));
    let text = String::from_utf8(output.stderr).unwrap();
    let wanted = text.split_once("native-static-libs: ").expect("rustc prints the list").1.lines().next().unwrap();
    let read = |path: &str| std::fs::read_to_string(at(path)).unwrap();
    assert!(read("bindings/cpp/sitter.pc.in").contains(&format!("Libs.private: {wanted}\n")), "{wanted}");
    let listed = wanted.split_whitespace().map(|l| l.trim_start_matches("-l")).collect::<Vec<_>>().join(";");
    assert!(read("bindings/cpp/sitterConfig.cmake").contains(&format!("\"{listed}\"")), "{listed}");
}

/// That of the interface, which is what a program depends on.
fn abi_version() -> String {
    let header = std::fs::read_to_string(at("include/sitter.h")).unwrap();
    let number = |name: &str| {
        let line = header.lines().find_map(|l| l.strip_prefix(&format!("#define SITTER_ABI_{name} ")));
        line.unwrap().to_string()
    };
    format!("{}.{}.0", number("MAJOR"), number("MINOR"))
}

#[test]
fn the_packages_have_the_version_of_the_interface() {
    let text = std::fs::read_to_string(at("bindings/cpp/sitterConfigVersion.cmake")).unwrap();
    assert!(text.contains(&format!("set(PACKAGE_VERSION \"{}\")", abi_version())));
    let manifest = std::fs::read_to_string(at("Cargo.toml")).unwrap();
    assert!(manifest.contains(&format!("[package.metadata.capi.pkg_config]\nversion = \"{}\"\n", abi_version())));
}

/// After `cargo build` alone a program starts that was linked with the library in cargo's folder.
#[test]
fn the_library_that_cargo_built_is_found_by_its_name() {
    let Some(compiler) = tool("gcc") else { return };
    // target/PROFILE/deps is where tests lie.
    let tests = std::env::current_exe().unwrap().parent().unwrap().to_path_buf();
    let link = tests.parent().unwrap().join("libsitter.so.1");
    assert_eq!(std::fs::read_link(link).unwrap(), Path::new("libsitter.so"));
    let folder = scratch("cpp_built");
    std::fs::hard_link(tests.join("libsitter.so"), folder.join("libsitter.so")).unwrap();
    std::os::unix::fs::symlink("libsitter.so", folder.join("libsitter.so.1")).unwrap();
    let program = folder.join("story");
    run(Command::new(compiler)
        .arg("-I")
        .arg(at("include"))
        .arg(at("examples/c/story.c"))
        .arg("-o")
        .arg(&program)
        .args([format!("-L{0}", folder.display()), format!("-Wl,-rpath,{}", folder.display()), "-lsitter".into()]));
    tell(&program, &folder);
}

/// Only the major version is in the name: a program finds every later library of the same major version.
#[test]
fn the_shared_library_is_named_after_its_major_version() {
    let Some(readelf) = tool("readelf") else { return };
    let output = run(Command::new(readelf).arg("-d").arg(library_folder().join("libsitter.so.1")));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("Library soname: [libsitter.so.1]") && text.contains("NODELETE"), "{text}");
    let header = std::fs::read_to_string(at("include/sitter.h")).unwrap();
    assert!(header.contains("#define SITTER_ABI_MAJOR 1\n"));
}
