from . import model_management


class ProgressBar:
    shown = []

    def __init__(self, total, node_id=None):
        self.node_id = node_id

    def update_absolute(self, value, total=None, preview=None):
        # As ComfyUI's own hook does.
        model_management.throw_exception_if_processing_interrupted()
        self.shown.append((value, total, preview))
