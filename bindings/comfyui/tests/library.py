"""The library that was built with debug assertions, for tests; it holds a fake model. Skips the module that imports this where
there is none."""
import os
import unittest

from . import REPOSITORY, need

need("numpy", "PIL")

FOUND = [os.path.join(REPOSITORY, "target", *path) for path in (("debug", "deps", "libsitter.so"), ("debug", "libsitter.so"))]
if "SITTER_LIBRARY" not in os.environ:
    os.environ.update({"SITTER_LIBRARY": path for path in FOUND if os.path.isfile(path)})
if "SITTER_LIBRARY" not in os.environ:
    raise unittest.SkipTest("the library was not built with debug assertions, and SITTER_LIBRARY is not set")
