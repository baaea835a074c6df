//! The ComfyUI node pack: its unit tests, and the real ComfyUI where there is one.

use super::*;

#[test]
fn the_packs_unit_tests_pass() {
    let Some(python) = python::python() else { return };
    let output = run(Command::new(python)
        .args(["-m", "unittest", "discover", "-s", "tests", "-t", "."])
        .current_dir(at("bindings/comfyui"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("SITTER_LIBRARY", library_folder().join("libsitter.so")));
    let report = String::from_utf8_lossy(&output.stderr);
    assert!(!report.contains("Ran 0 tests") && !report.contains("skipped"), "{report}");
}

/// COMFYUI_DIR is a source tree of ComfyUI, COMFYUI_PYTHON a Python with its requirements and websocket-client.
#[test]
fn the_pack_works_in_the_real_comfyui() {
    let Some(comfyui) = std::env::var_os("COMFYUI_DIR") else {
        eprintln!("skipped: COMFYUI_DIR is not set");
        return;
    };
    let python = std::env::var_os("COMFYUI_PYTHON").unwrap_or_else(|| "python3".into());
    run(Command::new(python)
        .arg(at("bindings/comfyui/tests/real_host.py"))
        .arg("--comfyui")
        .arg(comfyui)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("SITTER_LIBRARY", library_folder().join("libsitter.so")));
}
