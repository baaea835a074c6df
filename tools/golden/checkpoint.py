"""Writes tests/golden/checkpoint/: small PyTorch checkpoints and the values that PyTorch reads from them.

Run from the repository's root:  python tools/golden/checkpoint.py
Made with Python 3.11, torch 2.15.0, numpy. The values are counted out, not random: any version makes the same ones.
"""

import argparse
import collections
import json
import pathlib
import sys
import types
import zipfile

import numpy
import torch

out = pathlib.Path("tests/golden/checkpoint")
out.mkdir(parents=True, exist_ok=True)

# Classes of a library that the reader does not have, as in checkpoints of PyTorch Lightning.
lightning = types.ModuleType("pytorch_lightning_stand_in")


class ModelCheckpoint:
    pass


class AttributeDict(dict):
    pass


for cls in (ModelCheckpoint, AttributeDict):
    cls.__module__ = lightning.__name__
    cls.__qualname__ = cls.__name__
    setattr(lightning, cls.__name__, cls)
sys.modules[lightning.__name__] = lightning


def numbers(*shape):
    count = int(numpy.prod(shape))
    return (torch.arange(count, dtype=torch.float64) * 37 % 101 / 8 - 6).reshape(shape)


shared = numbers(6, 5).float()
cube = numbers(3, 4, 5).float()
state = collections.OrderedDict()
state["encoder.conv_in.weight"] = torch.nn.Parameter(numbers(4, 3, 3, 3).float())
state["encoder.conv_in.bias"] = torch.nn.Parameter(numbers(4).float(), requires_grad=False)
state["quantize.embedding.weight"] = numbers(8, 4).half()
state["decoder.bf16"] = numbers(7, 3).bfloat16()
state["decoder.f64"] = numbers(2, 3)
state["decoder.transposed"] = numbers(5, 4).float().t()
state["decoder.transposed_parameter"] = torch.nn.Parameter(numbers(3, 2).half().t())
state["decoder.shared_whole"] = shared
state["decoder.shared_rows"] = shared[2:5]
state["decoder.shared_column"] = shared[:, 3]
state["decoder.every_second"] = cube[::2, 1:3, ::2]
state["decoder.permuted"] = cube.permute(2, 0, 1)
state["decoder.scalar"] = torch.tensor(1.5)
state["decoder.empty"] = torch.zeros(0, 3)
state["decoder.expanded"] = torch.zeros(3).expand(2, 3)[:1]
state["loss.discriminator.main.0.weight"] = numbers(2, 3).float()
state["loss.discriminator.main.1.num_batches_tracked"] = torch.tensor(7)
state["loss.mask"] = torch.tensor([True, False])
state["loss.steps16"] = torch.arange(3).to(torch.uint16)
state._metadata = collections.OrderedDict(version=1)

callback = ModelCheckpoint()
callback.best = numpy.float64(0.25)
checkpoint = {
    "epoch": 3,
    "global_step": 2**40,
    "pytorch-lightning_version": "1.0.8",
    "callbacks": {ModelCheckpoint: {"best_model_score": torch.tensor(0.5), "object": callback}},
    "optimizer_states": [{"state": {0: {"exp_avg": numbers(4).float()}}, "param_groups": [{"lr": 4.5e-06, "params": [0]}]}],
    "lr_schedulers": [],
    "state_dict": state,
    "hyper_parameters": AttributeDict(
        config=argparse.Namespace(path=pathlib.PurePosixPath("a/b"), seeds={1, 2}, frozen=frozenset([3]), big=2**200),
        raw=b"\x00\x01",
        parts=[(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), None, True, False, -5, 70000, 3.5],
    ),
}
checkpoint["itself"] = checkpoint

torch.save(checkpoint, out / "lightning.ckpt")
torch.save(checkpoint, out / "protocol5.ckpt", pickle_protocol=5)
torch.save(checkpoint, out / "legacy.ckpt", _use_new_zipfile_serialization=False)
torch.save(dict(state), out / "flat.ckpt")
torch.serialization.set_crc32_options(False)
torch.save(checkpoint, out / "no_checksum.ckpt")
torch.serialization.set_crc32_options(True)
with zipfile.ZipFile(out / "flat.ckpt") as plain, zipfile.ZipFile(out / "compressed.ckpt", "w", zipfile.ZIP_DEFLATED) as packed:
    for name in plain.namelist():
        packed.writestr(name, plain.read(name))

loaded = torch.load(out / "lightning.ckpt", weights_only=False)["state_dict"]
expected = {}
for name, tensor in loaded.items():
    if tensor.is_floating_point():
        dtype = str(tensor.dtype).removeprefix("torch.")
        expected[name] = {"dtype": dtype, "shape": list(tensor.shape), "values": tensor.double().flatten().tolist()}
(out / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
