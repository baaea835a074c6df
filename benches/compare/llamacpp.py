#!/usr/bin/env python3
"""llama.cpp's side of the comparison, on a random model with the layers of the folder's: `compare.py` runs it and says how.

    llamacpp.py sample FOLDER --dtype bf16|q8_0|q4_k [--pixels N] [--once]

Needs llama-cpp-python and gguf, both from PyPI; the first is best built on the machine (`pip install --no-binary`). The model is of its
architecture `llama`, made once beside the folder: the same width, layers, heads and MLP, the vocabulary as long as the codes that may
be drawn, without the norms of queries and keys. Two sequences go in with every step, guided and not, and what comes out is guided and
drawn from as ours is, the best code being taken.
"""

import argparse
import ctypes
import json
import os
import sys
import time
from pathlib import Path

import gguf
import llama_cpp as llama
import numpy as np

CODES, ROWS, GUIDANCE, PROMPT = 8192, 8208, 3.0, 24


def write(path, config):
    """The model in bf16."""
    d, ff, layers, heads = (config[k] for k in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"))
    random = np.random.default_rng(0)
    w = gguf.GGUFWriter(str(path) + ".part", "llama")
    w.add_context_length(2048)
    w.add_embedding_length(d)
    w.add_block_count(layers)
    w.add_feed_forward_length(ff)
    w.add_head_count(heads)
    w.add_head_count_kv(heads)
    w.add_layer_norm_rms_eps(config["rms_norm_eps"])
    w.add_rope_dimension_count(d // heads)
    w.add_vocab_size(ROWS)
    w.add_tokenizer_model("none")
    w.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)

    def matrix(name, out, inner):
        values = (random.standard_normal((out, inner), dtype=np.float32) * inner**-0.5).astype(np.float32)
        w.add_tensor(name, gguf.quants.quantize(values, gguf.GGMLQuantizationType.BF16), raw_dtype=gguf.GGMLQuantizationType.BF16)

    norm = lambda name: w.add_tensor(name, np.ones(d, np.float32))
    matrix("token_embd.weight", ROWS, d)
    norm("output_norm.weight")
    matrix("output.weight", ROWS, d)
    for i in range(layers):
        norm(f"blk.{i}.attn_norm.weight")
        norm(f"blk.{i}.ffn_norm.weight")
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"blk.{i}.{name}.weight", d, d)
        matrix(f"blk.{i}.ffn_gate.weight", ff, d)
        matrix(f"blk.{i}.ffn_up.weight", ff, d)
        matrix(f"blk.{i}.ffn_down.weight", d, ff)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    os.replace(str(path) + ".part", path)


def made(folder, dtype):
    config = json.loads((folder / "config.json").read_text())
    plain = folder.parent / f"{folder.name}-llama.bf16.gguf"
    if not plain.exists():
        write(plain, config)
    if dtype == "bf16":
        return plain
    path = folder.parent / f"{folder.name}-llama.{dtype}.gguf"
    if not path.exists():
        how = llama.llama_model_quantize_default_params()
        how.ftype = {"q8_0": llama.LLAMA_FTYPE_MOSTLY_Q8_0, "q4_k": llama.LLAMA_FTYPE_MOSTLY_Q4_K_S}[dtype]
        how.pure, how.nthread = True, 2
        if llama.llama_model_quantize(str(plain).encode(), (str(path) + ".part").encode(), ctypes.byref(how)):
            raise SystemExit(f"llama.cpp could not quantise {plain}")
        os.replace(str(path) + ".part", path)
    return path


class Model:
    def __init__(self, path, threads):
        llama.llama_backend_init()
        how = llama.llama_model_default_params()
        how.n_gpu_layers = 0
        self.model = llama.llama_model_load_from_file(str(path).encode(), how)
        if not self.model:
            raise SystemExit(f"llama.cpp could not open {path}")
        how = llama.llama_context_default_params()
        how.n_ctx, how.n_batch, how.n_ubatch, how.n_seq_max = 4096, 128, 128, 2
        how.n_threads = how.n_threads_batch = threads
        self.context = llama.llama_init_from_model(self.model, how)
        self.batch = llama.llama_batch_init(128, 0, 2)

    def step(self, tokens):
        """Of (token, place, sequence, whether logits are wanted): the logits that are."""
        self.batch.n_tokens = len(tokens)
        for i, (token, place, sequence, wanted) in enumerate(tokens):
            self.batch.token[i], self.batch.pos[i], self.batch.n_seq_id[i] = token, place, 1
            self.batch.seq_id[i][0], self.batch.logits[i] = sequence, wanted
        if llama.llama_decode(self.context, self.batch):
            raise SystemExit("llama.cpp could not decode")
        return [np.ctypeslib.as_array(llama.llama_get_logits_ith(self.context, i), (ROWS,)) for i, t in enumerate(tokens) if t[3]]

    def sample(self, pixels):
        """Codes of a picture, a newline after each row, as the layout of Lumina-mGPT has them."""
        llama.llama_memory_clear(llama.llama_get_memory(self.context), True)
        side, times = pixels // 8, []
        guided = [(i, i, 0, i == PROMPT - 1) for i in range(PROMPT)]
        plain = [(i, i, 1, i == 2) for i in range(3)]
        logits = self.step(guided + plain)
        place = [PROMPT, 3]
        for i in range(side * side):
            token = int(np.argmax(logits[1][:CODES] + GUIDANCE * (logits[0][:CODES] - logits[1][:CODES])))
            times.append(time.perf_counter())
            for token in [token] + [CODES] * (i % side == side - 1):
                logits = self.step([(token, place[0], 0, True), (token, place[1], 1, True)])
                place = [p + 1 for p in place]
        return dict(seconds=times[-1] - times[0], work=len(times) - 1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("row", choices=["sample"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtype", choices=["bf16", "q8_0", "q4_k"], default="bf16")
    parser.add_argument("--pixels", type=int, default=256)
    parser.add_argument("--once", action="store_true")
    arguments = parser.parse_args()
    quiet = llama.llama_log_callback(lambda level, text, data: None)
    llama.llama_log_set(quiet, None)
    model = Model(made(arguments.folder, arguments.dtype), int(os.environ.get("OMP_NUM_THREADS", os.cpu_count())))
    if arguments.once:
        print(json.dumps(model.sample(arguments.pixels)))
        return
    print("ready", flush=True)
    for _ in sys.stdin:
        print(json.dumps(model.sample(arguments.pixels)), flush=True)


main()
