"""The entry point that ComfyUI calls. Needs neither the library nor a network: what is missing is said by the node that needs it."""
from .sitter_nodes.extension import comfy_entrypoint

# ComfyUI serves the help pages in web/docs to the editor. Said here, not in pyproject.toml, so that the folder may have any name.
WEB_DIRECTORY = "./web"

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
