"""Builds the Rust library and puts it into the package.

Why not maturin or setuptools-rust: the library is a plain cdylib that Python loads with ctypes. maturin ships cdylibs as
extension modules or through cffi, which would be one more dependency at run time; setuptools-rust names and tags what it
builds for one version of Python. Here every wheel serves all of them: py3-none-<platform>.

Environment: SITTER_FEATURES names cargo features to switch on beside the second small model ("cuda");
SITTER_PREBUILT_LIBRARY is a library to be packed instead of building one. The repository's target directory is used, or cargo's
own settings (CARGO_TARGET_DIR).
"""
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

HERE = Path(__file__).resolve().parent
# The crate travels in this folder of a source distribution; else it is the repository around us.
TRAVELLING = HERE / "rust"
CRATE = TRAVELLING if TRAVELLING.is_dir() else HERE.parent.parent
# All that cargo needs to build the library.
SOURCES = ["Cargo.toml", "Cargo.lock", "build.rs", ".cargo/config.toml", "README.md", "LICENSE-MIT", "LICENSE-APACHE", "src",
           "assets/embedded", "assets/embedded-infinity"]
NOTICES = ["LICENSE-MIT", "LICENSE-APACHE", "assets/embedded/CREDITS.md"]
LIBRARY = {"win32": "sitter.dll", "darwin": "libsitter.dylib"}.get(sys.platform, "libsitter.so")


def version() -> str:
    if not (CRATE / "Cargo.toml").is_file():
        raise SystemExit(f"sitter: there is no Cargo.toml in {CRATE}: build from the repository or from a source distribution")
    return re.search(r'^version = "(.+)"', (CRATE / "Cargo.toml").read_text(), re.MULTILINE).group(1)


def build_library() -> Path:
    """Runs cargo and finds what it made: the path depends on its settings."""
    prebuilt = os.environ.get("SITTER_PREBUILT_LIBRARY")
    if prebuilt:
        return Path(prebuilt)
    command = ["cargo", "rustc", "--release", "--lib", "--locked", "--message-format=json-render-diagnostics"]
    command += ["--features", " ".join(["embedded-infinity", os.environ.get("SITTER_FEATURES", "")]).strip()]
    # Names that only a debugger reads are a tenth of the library.
    command += ["--", "-C", "strip=symbols"]
    try:
        messages = subprocess.run(command, cwd=CRATE, stdout=subprocess.PIPE, check=True, text=True).stdout
    except FileNotFoundError:
        raise SystemExit("sitter: cargo was not found; install Rust (rustup.rs) to build the library") from None
    except subprocess.CalledProcessError as e:
        raise SystemExit(f"sitter: {' '.join(command)} in {CRATE} failed; its messages are above") from e
    artifacts = (json.loads(line) for line in messages.splitlines() if line.startswith("{"))
    files = [Path(f) for a in artifacts if a.get("target", {}).get("name") == "sitter" for f in a.get("filenames", [])]
    return next(f for f in files if f.name == LIBRARY)


class BuildWithLibrary(build_py):
    def run(self) -> None:
        # An earlier build may have left modules that are gone since.
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()
        # An editable installation runs from the source folder.
        package = HERE / "src" / "sitter" if self.editable_mode else Path(self.build_lib) / "sitter"
        package.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(build_library(), package / LIBRARY)
        for notice in NOTICES:
            shutil.copy(CRATE / notice, package)


class WheelForEveryPython(bdist_wheel):
    def get_tag(self) -> "tuple[str, str, str]":
        return "py3", "none", super().get_tag()[2]


class SourcesOfBoth(sdist):
    def make_release_tree(self, base_dir: str, files: "list[str]") -> None:
        super().make_release_tree(base_dir, files)
        for name in SOURCES:
            source, target = CRATE / name, Path(base_dir) / "rust" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)


class Binary(Distribution):
    """Not the same on every platform."""

    def has_ext_modules(self) -> bool:
        return True


setup(
    version=version(),
    distclass=Binary,
    cmdclass={"build_py": BuildWithLibrary, "bdist_wheel": WheelForEveryPython, "sdist": SourcesOfBoth},
)
