"""Unit tests: `python -m unittest discover -s bindings/comfyui/tests -t bindings/comfyui`. They need no ComfyUI and no torch."""
import os
import sys

PACK = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
REPOSITORY = os.path.dirname(os.path.dirname(PACK))
STUBS = os.path.join(PACK, "tests", "stubs")

for folder in (os.path.join(REPOSITORY, "bindings", "python", "src"), PACK, STUBS):
    if folder not in sys.path:
        sys.path.insert(0, folder)


def need(*modules: str) -> None:
    """Skips a test module, with the reason, where Python has no numpy or Pillow."""
    import importlib
    import unittest

    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise unittest.SkipTest(f"needs {module}: {error}")
