"""Sitter's nodes for ComfyUI.

Without ComfyUI and torch: options, pictures, places, watch, messages, drawings, preview, wires. With them: host, memory, nodes_*.
"""
