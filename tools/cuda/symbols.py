#!/usr/bin/env python3
"""Writes src/device/shim/symbols/*.h: the functions of each NVIDIA library that the crate cudarc may call.

    tools/cuda/symbols.py            after an update of cudarc
    tools/cuda/symbols.py --check    fails if that was forgotten
"""
import json
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
LISTS = REPOSITORY / "src/device/shim/symbols"
# Module of cudarc -> library.
LIBRARIES = {"driver": "cuda", "cublas": "cublas", "cublaslt": "cublasLt", "curand": "curand", "nvrtc": "nvrtc", "cudnn": "cudnn"}
# A declaration inside an `extern` block: it has a semicolon where a definition has a body.
DECLARATION = re.compile(r"\bfn (\w+)\s*\([^;{]*?\)\s*(?:->\s*([^;{]+?))?\s*;", re.DOTALL)


def cudarc() -> Path:
    command = ["cargo", "metadata", "--format-version=1", "--locked", "--features=cuda"]
    metadata = json.loads(subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, check=True).stdout)
    [manifest] = [p["manifest_path"] for p in metadata["packages"] if p["name"] == "cudarc"]
    return Path(manifest).parent


def symbols(source: str) -> str:
    """A line for each function: TEXT for those that return a text, CODE for the rest, which return a number."""
    returns = dict(DECLARATION.findall(source))
    return "".join(f"{'TEXT' if 'c_char' in returns[name] else 'CODE'}({name})\n" for name in sorted(returns))


def main() -> None:
    root, check = cudarc(), sys.argv[1:] == ["--check"]
    LISTS.mkdir(exist_ok=True)
    for module, library in LIBRARIES.items():
        path, text = LISTS / f"{library}.h", symbols((root / "src" / module / "sys" / "mod.rs").read_text())
        if not text:
            raise SystemExit(f"no declarations were found in module {module} of {root}")
        if not check:
            path.write_text(text)
        elif path.read_text() != text:
            raise SystemExit(f"{path} is not what {root.name} declares; run tools/cuda/symbols.py")
        print(f"{library}: {text.count(chr(10))} functions")


if __name__ == "__main__":
    main()
