"""Inputs and outputs keep what they were given; nothing is checked but that the names exist."""
import enum


class Slot:
    def __init__(self, io_type, id, **given):
        self.io_type, self.id, self.given = io_type, id, given
        self.optional, self.tooltip = given.get("optional", False), given.get("tooltip")
        options = given.get("options")
        self.widget = io_type in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO") and not given.get("force_input")
        self.options = options


def Custom(io_type):
    class Type:
        @staticmethod
        def Input(id, options=None, **given):
            return Slot(io_type, id, options=options, **given)

        @staticmethod
        def Output(id, **given):
            return Slot(io_type, id, **given)

    return Type


Image, String, Int, Float, Combo, LossMap = map(Custom, ("IMAGE", "STRING", "INT", "FLOAT", "COMBO", "LOSS_MAP"))


class Hidden(enum.Enum):
    unique_id = "UNIQUE_ID"


class Schema:
    def __init__(self, node_id, display_name, category, description, inputs, outputs, hidden=(), is_input_list=False,
                 is_output_node=False):
        self.node_id, self.display_name, self.category, self.description = node_id, display_name, category, description
        self.inputs, self.outputs, self.is_input_list, self.is_output_node = inputs, outputs, is_input_list, is_output_node
        ids = [slot.id for slot in [*inputs, *outputs]]
        assert len(set(ids)) == len(ids), f"{node_id}: {ids}"


class ComfyNode:
    class hidden:
        unique_id = "7"


class NodeOutput:
    def __init__(self, *args, ui=None):
        self.args, self.ui = args, ui
