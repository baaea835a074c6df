"""llama.cpp's side of the comparison: drawing codes with a random model of the layers of a Lumina folder.

`llama_cpp.py sample MODEL [--dtype NAME] [--pixels N] [--once]` follows the protocol of ours.rs. llama.cpp has no Lumina, so what it runs
has the same shapes, not the same weights: its `llama` layers (without norms of queries and keys) with a vocabulary that is no larger than
what our side scores, the codes and some symbols. A step feeds one token of each of two sequences, as guidance does, and fetches the
scores of both; nothing is drawn from them, which our side does. Each dtype's file is made once, beside the model's.

Needs PyPI's llama-cpp-python and gguf.
"""

import argparse
import ctypes
import json
import os
import sys
import time
from pathlib import Path

import gguf
import llama_cpp
import numpy as np

THREADS = int(os.environ.get("OMP_NUM_THREADS", "2"))
PROMPT_TOKENS = 20
CODES = 8192
VOCABULARY = CODES + 16
FORMATS = {"q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, "q4_k": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_S}


def model_file(folder, dtype):
    """The random model in this dtype."""
    path = folder / f"llama-cpp-{dtype}.gguf"
    if not path.exists():
        part = path.with_suffix(".part")
        if dtype == "bf16":
            write(json.loads((folder / "config.json").read_text()), part)
        else:
            how = llama_cpp.llama_model_quantize_default_params()
            how.ftype, how.nthread, how.pure = FORMATS[dtype], THREADS, False
            source = str(model_file(folder, "bf16")).encode()
            if llama_cpp.llama_model_quantize(source, str(part).encode(), ctypes.byref(how)):
                raise SystemExit(f"{path} could not be made")
        part.replace(path)
    return path


def write(config, path):
    rng = np.random.default_rng(0)
    hidden, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    heads, groups = config["num_attention_heads"], config.get("num_key_value_heads", config["num_attention_heads"])
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(8192)
    writer.add_embedding_length(hidden)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(groups)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(hidden // heads)
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("none")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)

    def matrix(name, rows, columns):
        values = rng.standard_normal((rows, columns), dtype=np.float32) * 0.02
        writer.add_tensor(name, gguf.quants.quantize(values, gguf.GGMLQuantizationType.BF16), raw_dtype=gguf.GGMLQuantizationType.BF16)

    matrix("token_embd.weight", VOCABULARY, hidden)
    for layer in range(layers):
        for name, rows, columns in (
            ("attn_q", hidden, hidden), ("attn_k", groups * hidden // heads, hidden), ("attn_v", groups * hidden // heads, hidden),
            ("attn_output", hidden, hidden), ("ffn_gate", inner, hidden), ("ffn_up", inner, hidden), ("ffn_down", hidden, inner),
        ):
            matrix(f"blk.{layer}.{name}.weight", rows, columns)
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", np.ones(hidden, np.float32))
    writer.add_tensor("output_norm.weight", np.ones(hidden, np.float32))
    matrix("output.weight", VOCABULARY, hidden)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Drawing:
    def __init__(self, path, tokens):
        quiet = llama_cpp.llama_log_callback(lambda *_: None)
        self.quiet = quiet
        llama_cpp.llama_log_set(quiet, None)
        llama_cpp.llama_backend_init()
        how = llama_cpp.llama_model_default_params()
        # Its own layouts of weights, where they run: `--plain` takes the file's.
        how.use_extra_bufts = "--plain" not in sys.argv
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), how)
        how = llama_cpp.llama_context_default_params()
        how.n_ctx, how.n_batch, how.n_seq_max = 2 * (tokens + 64), 512, 2
        how.n_threads = how.n_threads_batch = THREADS
        self.context = llama_cpp.llama_init_from_model(self.model, how)
        if not self.model or not self.context:
            raise SystemExit(f"{path} could not be opened")
        self.batch = llama_cpp.llama_batch_init(512, 0, 1)
        self.memory = llama_cpp.llama_get_memory(self.context)

    def feed(self, tokens):
        """Tokens as (sequence, position, token, whether its scores are wanted)."""
        self.batch.n_tokens = len(tokens)
        for i, (sequence, position, token, wanted) in enumerate(tokens):
            self.batch.token[i], self.batch.pos[i], self.batch.n_seq_id[i] = token, position, 1
            self.batch.seq_id[i][0], self.batch.logits[i] = sequence, wanted
        if llama_cpp.llama_decode(self.context, self.batch):
            raise SystemExit("a step failed")

    def picture(self, tokens):
        llama_cpp.llama_memory_clear(self.memory, True)
        last = PROMPT_TOKENS - 1
        self.feed([(s, i, 7 * i % CODES, i == last) for s in range(2) for i in range(PROMPT_TOKENS)])
        started = time.perf_counter()
        for position in range(PROMPT_TOKENS, PROMPT_TOKENS + tokens):
            self.feed([(s, position, (position * 7919 + 13) % CODES, True) for s in range(2)])
            scores = llama_cpp.llama_get_logits(self.context)
        assert np.isfinite(np.ctypeslib.as_array(scores, (2, VOCABULARY))).all()
        return time.perf_counter() - started


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", choices=["sample"])
    parser.add_argument("model", type=Path)
    parser.add_argument("--dtype", default="bf16", choices=["bf16", *FORMATS])
    parser.add_argument("--pixels", type=int, default=256)
    parser.add_argument("--plain", action="store_true", help="weights as the file has them")
    parser.add_argument("--once", action="store_true")
    arguments = parser.parse_args()
    side = arguments.pixels // 16
    # Rows end with a newline, which is fed too.
    codes, tokens = side * side, side * (side + 1)
    drawing = Drawing(model_file(arguments.model, arguments.dtype), tokens)

    def once():
        return json.dumps(dict(seconds=drawing.picture(tokens), work=codes))

    if arguments.once:
        print(once())
        return
    print("ready", flush=True)
    for _ in sys.stdin:
        print(once(), flush=True)


if __name__ == "__main__":
    main()
