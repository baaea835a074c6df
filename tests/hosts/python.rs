//! The Python package: its own tests, and the wheel in a fresh environment.

use super::*;
use std::sync::OnceLock;

/// A Python with numpy and Pillow: the system's, or a virtual environment that is made once and kept.
pub(super) fn python() -> Option<&'static Path> {
    static PYTHON: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = PYTHON.get_or_init(|| {
        let system = tool("python3")?;
        if has_packages(&system) {
            return Some(system);
        }
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python");
        let python = folder.join("bin/python");
        if !has_packages(&python) {
            run(Command::new(&system).args(["-m", "venv", "--clear"]).arg(&folder));
            run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "numpy", "pillow"]));
        }
        Some(python)
    });
    found.as_deref()
}

fn has_packages(python: &Path) -> bool {
    let output = Command::new(python).args(["-c", "import numpy, PIL"]).output();
    output.is_ok_and(|o| o.status.success())
}

/// Runs one file of tests, in Python's development mode and with a trace of a crash.
fn passes(module: &str) {
    let Some(python) = python() else { return };
    let output = run(Command::new(python)
        .args(["-X", "dev", "-X", "faulthandler", "-m", "unittest", module])
        .current_dir(at("bindings/python/tests"))
        .env("PYTHONPATH", at("bindings/python/src"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("SITTER_LIBRARY", library_folder().join("libsitter.so")));
    let report = String::from_utf8_lossy(&output.stderr);
    assert!(!report.contains("Ran 0 tests") && !report.contains("Warning"), "{report}");
}

#[test]
fn its_surface_has_the_names_errors_and_options() {
    passes("test_surface");
}

#[test]
fn pictures_of_every_form_arrive() {
    passes("test_images");
}

#[test]
fn long_calls_report_and_stop() {
    passes("test_run");
}

#[test]
fn long_calls_can_be_awaited() {
    passes("test_async");
}

#[test]
fn processes_end_and_fork_without_harm() {
    passes("test_process");
}

#[test]
fn pictures_are_measured() {
    passes("test_evaluator");
}

#[test]
fn a_benchmark_run_goes_on_where_it_was_and_reports() {
    passes("test_dreambench");
}

#[test]
fn jobs_are_given_out_in_order_and_on_a_cluster_where_ray_is_installed() {
    passes("test_cluster");
}

#[test]
fn tokens_of_several_grids_go_through_a_model_and_back() {
    passes("test_scales");
}

#[test]
fn the_embedded_model_is_taught_and_draws() {
    passes("test_embedded");
}

#[test]
fn the_wheel_serves_every_python_and_the_example_runs_from_it() {
    let Some(python) = python() else { return };
    let folder = scratch("python-wheel");
    // Packs the library of these tests: a release build would take minutes.
    run(Command::new(python)
        .args(["-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir"])
        .arg(&folder)
        .arg(at("bindings/python"))
        .env("SITTER_PREBUILT_LIBRARY", library_folder().join("libsitter.so").canonicalize().unwrap()));
    let wheel = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    let name = wheel.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with(concat!("sitter-", env!("CARGO_PKG_VERSION"), "-py3-none-linux_")), "{name}");

    let site = folder.join("site");
    run(Command::new(python).args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"]).arg(&site).arg(&wheel));
    // The example with the fewest steps that go through both stages.
    let story = "import runpy, sitter, sys\n\
        full = sitter.Model.train\n\
        def quick(*a, **k): return full(*a, **k, embedding_steps=2, layer_steps=2, batch_size=1, augment=0)\n\
        sitter.Model.train = quick\n\
        runpy.run_path(sys.argv[1])";
    let empty = folder.join("empty");
    std::fs::create_dir(&empty).unwrap();
    let output = run(Command::new(python)
        .args(["-X", "dev", "-c", story])
        .arg(at("examples/python/story.py"))
        .current_dir(&empty)
        .env("PYTHONPATH", &site)
        .env_remove("SITTER_LIBRARY"));
    assert!(String::from_utf8_lossy(&output.stdout).contains("wrote fox-0.png"));
    assert!(empty.join("fox-1.png").is_file() && empty.join("fox.safetensors").is_file());
}
