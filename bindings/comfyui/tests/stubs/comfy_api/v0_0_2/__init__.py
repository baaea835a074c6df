from . import io, ui


class ComfyExtension:
    pass


__all__ = ["ComfyExtension", "io", "ui"]
