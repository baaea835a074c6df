#!/usr/bin/env python3
"""Checks a library built with CUDA: it loads anywhere, works on the CPU, and says what keeps a GPU from being used.

    tools/cuda/verify.py LIBRARY [cuda|cudnn]

Needs Python and binutils alone. On a machine with a GPU see tools/gpu_check.
"""
import ctypes
import json
import re
import subprocess
import sys
from typing import Any, Callable

SYSTEM = {"libc.so.6", "libm.so.6", "libgcc_s.so.1", "libstdc++.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1",
          "ld-linux-x86-64.so.2"}
NVIDIA = re.compile(r"\b(cu[A-Z]|cuda|cublas|curand|cudnn|nvrtc|sitter_shim)\w*")
DEVICE, NOT_SUPPORTED = 204, 501


def lines(*command: str) -> "list[str]":
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines()


def linked(path: str) -> None:
    """Nothing of NVIDIA's is asked for, by name or by symbol, and nothing of it is offered to others."""
    needed = {name for line in lines("readelf", "-d", path) for name in re.findall(r"NEEDED.*\[(.+)\]", line)}
    assert needed <= SYSTEM, f"needs {sorted(needed - SYSTEM)}"
    strangers = [name for line in lines("nm", "-D", path) for name in NVIDIA.findall(line)]
    assert not strangers, f"dynamic symbols {strangers[:5]}"
    versions = {tuple(map(int, v.split("."))) for line in lines("readelf", "-V", path) for v in re.findall(r"GLIBC_([\d.]+)", line)}
    print(f"needs {', '.join(sorted(needed))}; glibc {'.'.join(map(str, max(versions)))} or newer")


class Library:
    """As much of the C interface as is needed here."""

    def __init__(self, path: str) -> None:
        self.dll = ctypes.CDLL(path)
        self.dll.sitter_error_message.restype = ctypes.c_char_p

    def call(self, name: str, *arguments: Any) -> "tuple[int, str]":
        """Status and message of a function."""
        error = ctypes.c_void_p()
        status = getattr(self.dll, name)(*arguments, ctypes.byref(error))
        message = self.dll.sitter_error_message(error).decode()
        self.dll.sitter_error_free(error)
        return status, message

    def make(self, make: Callable[[Any], "tuple[int, str]"]) -> ctypes.c_void_p:
        """A handle that must succeed."""
        handle = ctypes.c_void_p()
        status, message = make(ctypes.byref(handle))
        assert status == 0, message
        return handle

    def devices(self) -> "list[dict[str, Any]]":
        needed = ctypes.c_size_t()
        self.call("sitter_devices_json", None, ctypes.c_size_t(0), ctypes.byref(needed))
        buffer = ctypes.create_string_buffer(needed.value)
        status, message = self.call("sitter_devices_json", buffer, needed, ctypes.byref(needed))
        assert status == 0, message
        found: "list[dict[str, Any]]" = json.loads(buffer.value)
        return found

    def open(self, device: str, out: Any) -> "tuple[int, str]":
        """The embedded model on a device."""
        options = self.make(lambda o: self.call("sitter_model_options_new", o))
        status, message = self.call("sitter_model_options_set_device", options, device.encode())
        assert status == 0, message
        return self.call("sitter_model_open", None, b"embedded:", options, None, out)

    def draw(self, model: ctypes.c_void_p) -> None:
        prompt = b"a photo of a fox in the snow"
        tokens = self.make(lambda o: self.call("sitter_tokens_sample", model, prompt, None, ctypes.c_size_t(0), None, None, o,
                                               ctypes.c_size_t(1)))
        self.make(lambda o: self.call("sitter_image_decode", model, tokens, None, o))


def main(path: str, feature: str = "cuda") -> None:
    linked(path)
    library = Library(path)
    assert library.dll.sitter_has_feature(feature.encode()) == 1, f"built without {feature}"
    devices = library.devices()
    print("devices:", json.dumps(devices))
    assert devices[0]["name"] == "cpu" and 0 < devices[0]["memory_free_bytes"] <= devices[0]["memory_bytes"]
    for device in ("cpu", "auto"):
        library.draw(library.make(lambda o: library.open(device, o)))
        print(f"device {device}: opened, sampled and decoded")
    if len(devices) == 1:
        status, message = library.open("cuda", ctypes.byref(ctypes.c_void_p()))
        print(f"device cuda: status {status}: {message}")
        assert status in (DEVICE, NOT_SUPPORTED) and "use device cpu" in message
    print("all well")


if __name__ == "__main__":
    main(*sys.argv[1:])
