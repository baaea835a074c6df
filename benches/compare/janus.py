"""transformers' side of the comparison for Janus-Pro: `JanusForConditionalGeneration` as published, by the protocol of ours.rs.

    python benches/compare/janus.py sample FOLDER --dtype bf16 --pixels 384 [--once]

Guided drawing by `generate`, timed from its first code to its last. The row `check` reads what ours printed for it
(`--against FILE`) and prints how far its own numbers are from that, as theirs.py does.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "2")
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402
from transformers import JanusForConditionalGeneration, LogitsProcessor, LogitsProcessorList, logging  # noqa: E402

from theirs import PROMPT, SUBJECT_PROMPT, Lesson, differences, picture  # noqa: E402


# The random model has no part that reads pictures, of which transformers would list every tensor.
logging.set_verbosity_error()
logging.disable_progress_bar()


class Clock(LogitsProcessor):
    """Notes when each code's logits are there."""

    def __init__(self):
        self.times = []

    def __call__(self, ids, scores):
        self.times.append(time.perf_counter())
        return scores


class Side:
    def __init__(self, arguments):
        self.mixed = arguments.dtype == "bf16"
        self.words = Tokenizer.from_file(os.path.join(arguments.model, "tokenizer.json"))
        dtype = torch.bfloat16 if self.mixed else torch.float32
        self.model = JanusForConditionalGeneration.from_pretrained(arguments.model, dtype=dtype).eval().requires_grad_(False)
        # What ours keeps, too.
        self.vq = self.model.model.vqmodel.float()
        word = self.words.token_to_id
        self.begin, self.image = word("<｜begin▁of▁sentence｜>"), word("<begin_of_image>")
        self.model.generation_config.update(bos_token_id=self.begin, pad_token_id=word("<｜▁pad▁｜>"))
        self.model.generation_config.generation_kwargs = {"boi_token_id": self.image}
        self.side = arguments.pixels // 2 ** (len(self.model.config.vq_config.channel_multiplier) - 1)

    def ids(self, text):
        return self.words.encode(text, add_special_tokens=False).ids if text else []

    def prompt(self, text):
        """`[V]` in the text becomes None."""
        before, *after = f"<|User|>: {text}\n\n<|Assistant|>:".split("[V]")
        before = self.ids(before.removesuffix(" ") if after else before)
        return [self.begin, *before, *([None] + self.ids(after[0]) if after else []), self.image]

    def grid(self):
        codes = self.model.config.vq_config.num_embeddings
        return [(i * 7919 + 13) % codes for i in range(self.side**2)]

    def draw(self, sampled, guidance=5.0):
        """The codes of a picture, and the time from the first of them to the last."""
        clock, ids = Clock(), torch.tensor([self.prompt(PROMPT)])
        # The cache is as long as it has to be: all of it is looked at for every code.
        self.model.generation_config.max_length = ids.shape[1] + self.side**2
        with torch.inference_mode():
            codes = self.model.generate(ids, attention_mask=torch.ones_like(ids), generation_mode="image", do_sample=sampled,
                                        guidance_scale=guidance, logits_processor=LogitsProcessorList([clock]))
        return codes[0].tolist(), dict(seconds=clock.times[-1] - clock.times[0], work=len(clock.times) - 1)

    def hidden(self, prompt, codes, vectors=None):
        """States behind the last norm, [T, hidden]."""
        x = self.model.get_input_embeddings()(torch.tensor([[0 if p is None else p for p in prompt]]))
        if None in prompt:
            x = x.index_copy(1, torch.tensor([prompt.index(None)]), vectors.to(x.dtype)[None])
        if codes:
            x = torch.cat([x, self.model.prepare_embeddings_for_image_generation(torch.tensor([codes]))], 1)
        return self.model.model.language_model(inputs_embeds=x, use_cache=False).last_hidden_state[0]

    def head(self, states):
        return self.model.model.generation_head(states).float()

    @torch.inference_mode()
    def last_logits(self, prompt, codes):
        return self.head(self.hidden(prompt, codes)[-1:])[0]

    @torch.inference_mode()
    def encode(self, pixels):
        """By the original's rule, codes and latents of length one, which is not that of `vqmodel.encode`."""
        z = self.vq.quant_conv(self.vq.encoder(torch.from_numpy(pixels)[None].permute(0, 3, 1, 2) / 127.5 - 1))
        z = F.normalize(z[0].flatten(1).T, dim=1)
        return (z @ F.normalize(self.vq.quantize.embedding.weight, dim=1).T).argmax(1).tolist()

    @torch.inference_mode()
    def decode(self, codes):
        pixels = self.vq.decode(torch.tensor([codes]))[0].permute(1, 2, 0)
        return ((pixels.clamp(-1, 1) + 1) * 127.5).round().int()


class JanusLesson(Lesson):
    """The same steps; all codes are labelled, the first of them by what the last piece of the prompt predicts."""

    def layers(self):
        return self.side.model.model.language_model.layers

    def width(self):
        return self.side.model.config.text_config.hidden_size

    def loss(self, sequences):
        [(prompt, codes)] = sequences
        states = self.side.hidden(prompt, codes[:-1], self.vectors)[len(prompt) - 1 :]
        logits = self.side.head(states)
        return F.cross_entropy(logits, torch.tensor(codes)) + 1e-5 * logits.logsumexp(-1).square().mean()


def check(arguments):
    ours, side = json.loads(Path(arguments.against).read_text()), Side(arguments)
    codes, prompt = side.grid(), side.prompt(PROMPT)
    known = lambda prompt: prompt + [None] * len(codes)
    lessons = {}
    for row in ("embedding_step", "layer_step"):
        one = side.prompt(SUBJECT_PROMPT), codes
        lessons[row] = known(one[0]), lambda row=row, one=one: (JanusLesson(side, row), one)
    return differences(
        ours,
        ids=known(prompt),
        logits=[side.last_logits(prompt, codes[: len(codes) - 40]), side.last_logits(prompt, codes)],
        greedy=side.draw(False)[0],
        codes=side.encode(picture(arguments.pixels)),
        pixels=side.decode(codes).flatten(),
        lessons=lessons,
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("row", choices=["sample", "check"])
    parser.add_argument("model")
    parser.add_argument("--dtype", default="bf16", choices=["f32", "bf16"])
    parser.add_argument("--pixels", type=int, default=384)
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--against")
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    if arguments.row == "check":
        return print(json.dumps(check(arguments)))
    side = Side(arguments)
    once = lambda: print(json.dumps(side.draw(True)[1]), flush=True)
    if arguments.once:
        return once()
    print("ready", flush=True)
    for _ in sys.stdin:
        once()


if __name__ == "__main__":
    main()
