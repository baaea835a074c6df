"""PyTorch's side of the comparison: the same rows, options and protocol as ours.rs, see there.

The row `check` reads what ours printed for it (`--against FILE`) and prints how far its own numbers are from that.
The row `main_job` does the work of `cargo run --example personalize` and ends.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "2")
import torch  # noqa: E402
import torch.nn as nn  # noqa: E402
import torch.nn.functional as F  # noqa: E402

from lumina import Layout, Lumina, draw, open_vqgan  # noqa: E402
from vqgan import to_pictures, to_tensor  # noqa: E402

PROMPT = "a photo of a red fox on the beach"
SUBJECT_PROMPT = "a photo of a [V] fox on the beach"
EMBEDDED = Path(__file__).resolve().parents[2] / "assets" / "embedded"
QKV = ("q_proj", "k_proj", "v_proj")


class Side:
    def __init__(self, arguments, dtype=None):
        self.folder = EMBEDDED if arguments.model == "embedded:" else Path(arguments.model)
        self.mixed = arguments.dtype == "bf16"
        dtype = dtype or (torch.bfloat16 if self.mixed else torch.float32)
        self.vqgan = open_vqgan(self.folder)
        self.unit = 2 ** len(self.vqgan.config["ch_mult"])
        self.layout = Layout(self.folder, self.unit)
        self.model = Lumina.open(self.folder, dtype)

    def grid(self, side):
        return [(i * 7919 + 13) % len(self.layout.codes) for i in range(side * side)]

    def last_logits(self, pieces):
        with torch.inference_mode():
            hidden = self.model(self.model.embed(pieces))[0, -1]
            return F.linear(hidden, self.model.lm_head.weight[self.layout.codes[0] : self.layout.codes[-1] + 1]).float()


def picture(side):
    i = torch.arange(side)
    x, y, c = i[None, :, None], i[:, None, None], torch.arange(3)[None, None]
    return ((x * 3 + y * 5 + c * 80 + x * y // 64) % 256).to(torch.uint8).numpy()


def first_vector(width):
    i = torch.arange(1, width + 1, dtype=torch.int64)
    return ((((i * 2654435761) % 2**32).double() / 2**32 - 0.5) * 0.07).float()[None]


class Lesson:
    """What learns in a stage, and a step of it: autograd and AdamW; in bf16, autocast with f32 copies of what learns."""

    def __init__(self, side, stage, trainable=QKV, weight_decay=0.1, clip=4.0, vectors=None, learning_rate=1e-4):
        self.side, self.clip = side, clip
        vectors = first_vector(self.width()) if vectors is None else vectors
        if stage == "embedding_step":
            self.vectors = nn.Parameter(vectors.clone())
            self.learned = [self.vectors]
            groups = [dict(params=self.learned, lr=0.01, weight_decay=0.0)]
        else:
            self.vectors, self.learned = vectors, []
            for layer in self.layers():
                for name, parameter in list(layer.named_parameters()):
                    if trainable == "all" or any(t in name for t in trainable):
                        owner, leaf = name.rpartition(".")[::2]
                        owner, learned = layer.get_submodule(owner), nn.Parameter(parameter.detach().float().clone())
                        if isinstance(owner, nn.ParameterDict):
                            owner[leaf] = learned
                        else:
                            setattr(owner, leaf, learned)
                        self.learned.append(learned)
            groups = [dict(params=self.learned, lr=learning_rate, weight_decay=weight_decay)]
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), fused=True)

    def layers(self):
        return self.side.model.model["layers"]

    def width(self):
        return self.side.model.config["hidden_size"]

    def loss(self, sequences):
        """Mean over all labelled pieces; each sequence is (pieces, index of the first labelled one)."""
        longest = max(len(p) for p, _ in sequences)
        model = self.side.model
        rows = [model.embed(p + [0] * (longest - len(p)), self.vectors) for p, _ in sequences]
        hidden = model(torch.cat(rows))
        at = [(row, i) for row, (p, start) in enumerate(sequences) for i in range(start, len(p))]
        row, place = torch.tensor(at).T
        target = torch.tensor([sequences[r][0][i] for r, i in at])
        logits = model.lm_head(hidden[row, place - 1]).float()
        return F.cross_entropy(logits, target) + 1e-5 * logits.logsumexp(-1).square().mean()

    def step(self, sequences):
        self.optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.side.mixed):
            loss = self.loss(sequences)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.learned, self.clip)
        self.optimizer.step()
        return loss.item(), norm.item()


def sequence(side, prompt, codes, height, width):
    prompt = side.layout.prompt(prompt, height, width)
    return prompt + side.layout.block(codes, height, width) + [side.layout.separator], len(prompt)


def rows(side, arguments):
    """The measurements by name: each sets itself up and returns what is measured."""
    codes = arguments.pixels * 2 // side.unit

    def timed(call):
        def once():
            started = time.perf_counter()
            call()
            return dict(seconds=time.perf_counter() - started, work=1)
        return once

    def sample():
        def once():
            times = []
            prompt = side.layout.prompt(PROMPT, codes, codes)
            draw(side.model, side.layout, [prompt], codes, codes, drawn=lambda _: times.append(time.perf_counter()))
            return dict(seconds=times[-1] - times[0], work=len(times) - 1)
        return once

    def prefill():
        pieces = side.layout.block(side.grid(codes), codes, codes)
        return timed(lambda: side.last_logits(pieces))

    def step():
        lesson, one = Lesson(side, arguments.row), [sequence(side, SUBJECT_PROMPT, side.grid(codes), codes, codes)]
        return timed(lambda: lesson.step(one))

    @torch.inference_mode()
    def encode():
        pixels = picture(arguments.pixels)
        return timed(torch.inference_mode()(lambda: side.vqgan.encode(to_tensor(pixels[None])).flatten().tolist()))

    def decode():
        grid = torch.tensor(side.grid(codes)).view(1, codes, codes)
        return timed(torch.inference_mode()(lambda: to_pictures(side.vqgan.decode(grid))))

    return dict(sample=sample, prefill=prefill, embedding_step=step, layer_step=step, encode=encode, decode=decode)


def first_token(arguments):
    class Drawn(Exception):
        pass

    def stop(_):
        raise Drawn

    started = time.perf_counter()
    side = Side(arguments)
    settings = json.loads((side.folder / "sitter.json").read_text())["sample"]
    height, width = settings["height"] * 2 // side.unit, settings["width"] * 2 // side.unit
    try:
        draw(side.model, side.layout, [side.layout.prompt(PROMPT, height, width)], height, width, drawn=stop)
    except Drawn:
        return dict(seconds=time.perf_counter() - started, work=1)


def differences(ours, ids, logits, greedy, codes, pixels, lessons):
    """How far these are from ours, relative where they are of numbers: to the size of the largest number where there are many.
    For each of the stages `lessons` has the ids of its sequence, and what makes a lesson and the sequence."""
    found = dict(ids=ids == ours["ids"])
    gap = lambda mine, other: ((mine - torch.tensor(other)).abs().max() / mine.abs().max()).item()
    found["logits"] = max(gap(*pair) for pair in zip(logits, ours["logits"], strict=True))
    for name, mine in (("greedy", greedy), ("codes", codes)):
        found[name] = sum(a == b for a, b in zip(mine, ours[name], strict=True)) / len(mine)
    found["pixels"] = (pixels - torch.tensor(ours["pixels"])).abs().max().item()
    for row, (ids, make) in lessons.items():
        found[row + " ids"] = ids == ours["losses"][row + " ids"]
        lesson, one = make()
        steps = [lesson.step([one]) for _ in range(3)]
        gap = lambda part: max(abs(a[part] / b[part] - 1) for a, b in zip(steps, ours["losses"][row], strict=True))
        found[row + " losses"], found[row + " gradients"] = gap(0), gap(1)
    return found


def check(arguments):
    ours, side = json.loads(Path(arguments.against).read_text()), Side(arguments)
    prompt = side.layout.prompt(PROMPT, 8, 8)
    pieces = prompt + side.layout.block(side.grid(8), 8, 8) + [side.layout.separator]
    with torch.inference_mode():
        codes = side.vqgan.encode(to_tensor(picture(4 * side.unit)[None])).flatten().tolist()
        pixels = to_pictures(side.vqgan.decode(torch.tensor(side.grid(8)).view(1, 8, 8)))
    lessons = {}
    for row in ("embedding_step", "layer_step"):
        one = sequence(side, SUBJECT_PROMPT, side.grid(8), 8, 8)
        lessons[row] = one[0], lambda row=row, one=one: (Lesson(side, row), one)
    return differences(
        ours,
        ids=pieces,
        logits=[side.last_logits(pieces[:end]) for end in (len(pieces) - 40, len(pieces))],
        greedy=draw(side.model, side.layout, [side.layout.prompt(PROMPT, 4, 6)], 4, 6, top_k=1)[0].tolist(),
        codes=codes,
        pixels=torch.from_numpy(pixels).flatten().int(),
        lessons=lessons,
    )


def main_job(arguments):
    """Two stages on the bundled fox as the embedded model's sitter.json says, then the example's twenty pictures."""
    from PIL import Image

    side = Side(arguments)
    settings = json.loads((side.folder / "sitter.json").read_text())
    how, sampling = settings["train"], settings["sample"]
    folder = Path(__file__).resolve().parents[2] / "assets" / "subjects" / "fox"
    size = how["image_size"]
    references = [Image.open(folder / f"{i}.png").convert("RGB").resize((size, size), Image.BICUBIC) for i in range(1, 5)]
    references = torch.cat([to_tensor(torch.frombuffer(bytearray(r.tobytes()), dtype=torch.uint8).view(1, size, size, 3).numpy())
                            for r in references])
    side_codes = size * 2 // side.unit
    patch = size // side_codes
    with torch.inference_mode():
        copies = []
        for reference in references:
            shifted = [torch.roll(reference, (patch * (i % 3 - 1), patch * (i % 4 - 2)), (1, 2)) for i in range(how["augment"])]
            copies.append(side.vqgan.encode(torch.stack([reference] + shifted)).flatten(1).tolist())
    ids = [side.layout.tokenizer.token_to_id(w) for w in how["initial_word"].split()]
    vectors = side.model.model["embed_tokens"].weight[ids].float().mean(0, keepdim=True)
    prompts = ["a photo of a [V] fox", "a rendition of the [V] fox", "a close-up photo of my [V] fox"]
    batch = lambda step: [sequence(side, prompts[(step + i) % 3], copies[i][(7 * step + i) % len(copies[i])], side_codes,
                                   side_codes) for i in range(how["batch_size"])]
    decay = dict(weight_decay=how["weight_decay"], clip=how["clip_norm"])
    first = Lesson(side, "embedding_step", vectors=vectors, **decay)
    for step in range(how["embedding_steps"]):
        first.step(batch(step))
    learned = first.vectors.detach()
    plain_weights = {k: v for k, v in side.model.state_dict().items()}
    second = Lesson(side, "layer_step", trainable=how["trainable"], vectors=learned,
                    learning_rate=how["layer_learning_rate"], **decay)
    for step in range(how["layer_steps"]):
        second.step(batch(step))
    taught = {k: v.clone() for k, v in side.model.state_dict().items()}
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    scenes = ["in the snow", "on the beach", "at night", "in front of a brick wall", "in the forest", "under water",
              "wearing a hat", "wearing a crown"]
    requests = [(plain_weights, ["a photo of a fox"], 4), (plain_weights, ["a photo of a [V] fox"], 4),
                (taught, ["a photo of a [V] fox"], 4), (taught, [f"a photo of a [V] fox {s}" for s in scenes], 1)]
    number = 0
    for weights, texts, count in requests:
        side.model.load_state_dict(weights, strict=False)
        prompts = [side.layout.prompt(t, side_codes, side_codes) for t in texts]
        codes = draw(side.model, side.layout, prompts, side_codes, side_codes, count=count, guidance=sampling["guidance"],
                     top_k=sampling["top_k"], temperature=sampling["temperature"], vectors=learned)
        with torch.inference_mode():
            pictures = to_pictures(side.vqgan.decode(codes.view(-1, side_codes, side_codes)))
        for pixels in pictures:
            Image.fromarray(pixels).save(out / f"{number:03}.png")
            number += 1


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("row")
    parser.add_argument("model")
    parser.add_argument("--dtype", default="f32", choices=["f32", "bf16"])
    parser.add_argument("--pixels", type=int, default=512)
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--against")
    parser.add_argument("--out", default="out")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    if arguments.row == "check":
        return print(json.dumps(check(arguments)))
    if arguments.row == "main_job":
        return main_job(arguments)
    if arguments.row == "open":
        once = lambda: first_token(arguments)
    elif arguments.row == "evaluate":
        from dino_clip import Evaluator

        once = Evaluator(arguments.model).score
    else:
        once = rows(Side(arguments), arguments)[arguments.row]()
    if arguments.once:
        return print(json.dumps(once()))
    print("ready", flush=True)
    for _ in sys.stdin:
        print(json.dumps(once()), flush=True)


if __name__ == "__main__":
    main()
