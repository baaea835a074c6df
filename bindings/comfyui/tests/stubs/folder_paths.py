import os
import tempfile

base = tempfile.mkdtemp(prefix="sitter-stub-")
models_dir = os.path.join(base, "models")
_folders = {}


def add_model_folder_path(name, path, is_default=False):
    if path not in _folders.setdefault(name, []):
        _folders[name].insert(0 if is_default else len(_folders[name]), path)


def get_folder_paths(name):
    return list(_folders.get(name, []))


def get_output_directory():
    return os.path.join(base, "output")
