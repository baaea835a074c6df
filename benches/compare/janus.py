"""transformers' side of the comparison for Janus-Pro: `JanusForConditionalGeneration` as published, by the protocol of ours.rs.

    python benches/compare/janus.py sample FOLDER --dtype bf16 --pixels 384 [--once]

Guided drawing by `generate`, timed from its first code to its last. With `check` in place of `sample` it prints its greedy codes,
to be compared with `ours check`.
"""

import argparse
import json
import os
import sys
import time

os.environ.setdefault("OMP_NUM_THREADS", "2")
import torch  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402
from transformers import JanusForConditionalGeneration, LogitsProcessor, LogitsProcessorList  # noqa: E402

PROMPT = "a photo of a red fox on the beach"


class Clock(LogitsProcessor):
    """Notes when each code's logits are there."""

    def __init__(self):
        self.times = []

    def __call__(self, ids, scores):
        self.times.append(time.perf_counter())
        return scores


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("row", choices=["sample", "check"])
    parser.add_argument("model")
    parser.add_argument("--dtype", default="bf16")
    parser.add_argument("--pixels", type=int, default=384)
    parser.add_argument("--once", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    words = Tokenizer.from_file(os.path.join(arguments.model, "tokenizer.json"))
    dtype = {"bf16": torch.bfloat16, "f32": torch.float32}[arguments.dtype]
    model = JanusForConditionalGeneration.from_pretrained(arguments.model, dtype=dtype).eval()
    word = words.token_to_id
    begin, image = word("<｜begin▁of▁sentence｜>"), word("<begin_of_image>")
    template = f"<|User|>: {PROMPT}\n\n<|Assistant|>:"
    ids = torch.tensor([[begin, *words.encode(template, add_special_tokens=False).ids, image]])
    model.generation_config.update(bos_token_id=begin, pad_token_id=word("<｜▁pad▁｜>"), max_length=2048)
    model.generation_config.generation_kwargs = {"boi_token_id": image}

    def draw(sampled, guidance=5.0):
        clock = Clock()
        with torch.inference_mode():
            codes = model.generate(ids, attention_mask=torch.ones_like(ids), generation_mode="image", do_sample=sampled,
                                   guidance_scale=guidance, logits_processor=LogitsProcessorList([clock]))
        return codes[0].tolist(), dict(seconds=clock.times[-1] - clock.times[0], work=len(clock.times) - 1)

    if arguments.row == "check":
        print(json.dumps(draw(False)[0]))
        return
    if arguments.once:
        print(json.dumps(draw(True)[1]))
        return
    print("ready", flush=True)
    for _ in sys.stdin:
        print(json.dumps(draw(True)[1]), flush=True)


if __name__ == "__main__":
    main()
