#!/usr/bin/env python3
"""Makes tests/golden/evaluate/: small random DINO and CLIP checkpoints as they are published, and what PyTorch, transformers
and Pillow make of pictures and texts with them.

Run by hand:  python tools/golden/evaluate.py
The committed files were made with PyTorch 2.15.0, transformers 5.23.0 and Pillow 13.0.0.

Hugging Face's networks are those of transformers. DINO in its authors' names is written here from the description of its
layers, and compared with transformers' where both can be had. Pictures are those of pictures.py's formula.
"""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer, ViTConfig, ViTModel

from pictures import formula

OUT = Path(__file__).resolve().parents[2] / "tests" / "golden" / "evaluate"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALF = ((0.5,) * 3, (0.5,) * 3)

REFERENCES = [(300, 200), (200, 450), (640, 480)]
PICTURES = [(64, 64), (224, 224), (1000, 700), (223, 517), (31, 400), (257, 256)]
TEMPLATES = ["a {} dog in the snow", "a {} cat with the Eiffel Tower in the background", "a red {} dog", "a {} dog in the snow",
             "a {} cat on a cobblestone street", "a red {} dog"]
TEXTS = ["a dog in the snow", "A Photo  of a DOG's red\that, in 2024!", "don't", "naïve café — 日本 🐕", "", "cat" * 60,
         "the dog and the cat " * 30]


def randomise(model, seed):
    """Weights of a size that lets every part be felt, rounded to the f16 that they are kept in."""
    torch.manual_seed(seed)
    for name, p in model.named_parameters():
        with torch.no_grad():
            if p.dim() > 1:
                p.normal_(0, 1.5 / math.sqrt(p[0].numel()) if "embedding" not in name or "patch" in name else 0.5)
            elif name.endswith("weight"):
                p.normal_(1, 0.2)
            else:
                p.normal_(0, 0.3)
            p.copy_(p.half().float())
    return model.eval()


def cropped(image, short, side):
    """torchvision's Resize(short, bicubic) and CenterCrop(side) on a Pillow picture."""
    w, h = image.size
    size = (short, int(short * h / w)) if w <= h else (int(short * w / h), short)
    image = image.resize(size, Image.BICUBIC)
    left, top = (int(round((n - side) / 2.0)) for n in size)
    return image.crop((left, top, left + side, top + side))


def squashed(image, side):
    return image.resize((side, side), Image.BICUBIC)


def tensor(image, statistics):
    mean, deviation = (torch.tensor(s).view(3, 1, 1) for s in statistics)
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255.0
    return ((x - mean) / deviation)[None]


class Dino:
    """DINO in its authors' names: state dict to class token."""

    def __init__(self, state, heads, patch=16):
        self.s, self.heads, self.patch = state, heads, patch

    def positions(self, grid):
        all_ = self.s["pos_embed"]
        own = int(math.sqrt(all_.shape[1] - 1))
        if grid == own:
            return all_
        square = all_[:, 1:].reshape(1, own, own, -1).permute(0, 3, 1, 2)
        scale = (grid + 0.1) / own
        square = F.interpolate(square, scale_factor=(scale, scale), mode="bicubic")
        assert square.shape[-1] == grid
        return torch.cat([all_[:, :1], square.permute(0, 2, 3, 1).reshape(1, grid * grid, -1)], 1)

    def norm(self, x, name):
        return F.layer_norm(x, x.shape[-1:], self.s[name + ".weight"], self.s[name + ".bias"], 1e-6)

    def linear(self, x, name):
        return F.linear(x, self.s[name + ".weight"], self.s[name + ".bias"])

    def __call__(self, x):
        x = F.conv2d(x, self.s["patch_embed.proj.weight"], self.s["patch_embed.proj.bias"], stride=self.patch)
        grid = x.shape[-1]
        x = torch.cat([self.s["cls_token"], x.flatten(2).transpose(1, 2)], 1) + self.positions(grid)
        for i in range(sum(k.endswith("norm1.weight") for k in self.s)):
            at = f"blocks.{i}."
            n, width = x.shape[1:]
            qkv = self.linear(self.norm(x, at + "norm1"), at + "attn.qkv").view(1, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            x = x + self.linear(F.scaled_dot_product_attention(*qkv).transpose(1, 2).reshape(1, n, width), at + "attn.proj")
            x = x + self.linear(F.gelu(self.linear(self.norm(x, at + "norm2"), at + "mlp.fc1")), at + "mlp.fc2")
        return self.norm(x, "norm")[0, 0]


def original_names(hf):
    """The same weights as their authors name them."""
    s = {"cls_token": hf["embeddings.cls_token"], "pos_embed": hf["embeddings.position_embeddings"],
         "patch_embed.proj.weight": hf["embeddings.patch_embeddings.projection.weight"],
         "patch_embed.proj.bias": hf["embeddings.patch_embeddings.projection.bias"],
         "norm.weight": hf["layernorm.weight"], "norm.bias": hf["layernorm.bias"]}
    pairs = {"norm1": "layernorm_before", "norm2": "layernorm_after", "attn.proj": "attention.o_proj", "mlp.fc1": "mlp.fc1",
             "mlp.fc2": "mlp.fc2"}
    for i in range(sum(k.endswith("layernorm_before.weight") for k in hf)):
        for kind in ("weight", "bias"):
            for ours, theirs in pairs.items():
                s[f"blocks.{i}.{ours}.{kind}"] = hf[f"layers.{i}.{theirs}.{kind}"]
            s[f"blocks.{i}.attn.qkv.{kind}"] = torch.cat([hf[f"layers.{i}.attention.{n}_proj.{kind}"] for n in "qkv"])
    return s


def bytes_as_letters():
    """The letters that byte-level tokenizers write bytes as."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    return [chr(b) for b in plain] + [chr(256 + i) for i in range(len(others))]


def tokenizer():
    words = ["the", "dog", "cat", "snow", "in", "with", "red", "on", "photo", "of", "tower", "background", "and"]
    merges = []
    for word in words:
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            pair = (parts[0], parts[1])
            if pair not in merges:
                merges.append(pair)
            parts = [parts[0] + parts[1], *parts[2:]]
    letters = bytes_as_letters()
    tokens = letters + [c + "</w>" for c in letters] + ["".join(m) for m in merges] + ["<|startoftext|>", "<|endoftext|>"]
    return {t: i for i, t in enumerate(dict.fromkeys(tokens))}, merges


def pseudo(seed, *shape):
    """Random-looking numbers from -1 to 1; tests/evaluate.rs computes the same ones."""
    i = np.arange(math.prod(shape), dtype=np.uint32)
    h = (i * np.uint32(73856093)) ^ np.uint32(seed * 19349663 & 0xFFFFFFFF)
    h = h ^ (h >> np.uint32(13))
    h = h * np.uint32(0x5BD1E995)
    h = h ^ (h >> np.uint32(15))
    numbers = (h & np.uint32(0xFFFF)).astype(np.float32) / np.float32(32767.5) - np.float32(1)
    return torch.from_numpy(numbers.reshape(shape))


def looks(x):
    """LPIPS's view of a picture in [-1, 1]: AlexNet's activations, each pixel of length 1. Written from its description."""
    shift, scale = (torch.tensor(v).view(1, 3, 1, 1) for v in ((-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)))
    x, found = (x - shift) / scale, []
    layers = [(64, 3, 11, 4, 2, False), (192, 64, 5, 1, 2, True), (384, 192, 3, 1, 1, True), (256, 384, 3, 1, 1, False),
              (256, 256, 3, 1, 1, False)]
    for i, (outputs, inputs, kernel, stride, padding, pooled) in enumerate(layers):
        weight = pseudo(i, outputs, inputs, kernel, kernel) * (2.0 / math.sqrt(inputs * kernel * kernel))
        x = F.max_pool2d(x, 3, 2) if pooled else x
        x = F.relu(F.conv2d(x, weight, pseudo(i + 10, outputs) * 0.1, stride=stride, padding=padding))
        found.append(x / (x.pow(2).sum(1, keepdim=True).sqrt() + 1e-10))
    return found


def lpips(a, b):
    shares = [pseudo(i + 20, x.shape[1]).view(1, -1, 1, 1) * 0.5 + 0.5 for i, x in enumerate(a)]
    return sum(float(((x - y).pow(2) * s).sum(1).mean()) for x, y, s in zip(a, b, shares))


def diversity():
    seen = [looks(tensor(squashed(Image.fromarray(formula(*s)), 256), HALF)) for s in PICTURES]
    groups = [[x for x, t in zip(seen, TEMPLATES) if t == u] for u in dict.fromkeys(TEMPLATES)]
    return float(np.mean([np.mean([lpips(a, b) for i, a in enumerate(g) for b in g[:i]]) for g in groups if len(g) > 1]))


def cosine(a, b):
    return float(F.cosine_similarity(a.double(), b.double(), dim=0))


def scores(dino, clip_image, clip_text, eyes_dino, eyes_clip, references, pictures, braces):
    """Means as src/evaluate/scores.rs defines them, from the vectors here."""
    see = lambda sizes, network, eyes: [network(eyes(Image.fromarray(formula(*s)))) for s in sizes]
    rd, rc = see(references, dino, eyes_dino), see(references, clip_image, eyes_clip)
    pd, pc = see(pictures, dino, eyes_dino), see(pictures, clip_image, eyes_clip)
    class_only = lambda t: " ".join(t.replace("{}", " ").split())
    rows = []
    for d, c, template in zip(pd, pc, TEMPLATES):
        to_d, to_c = [cosine(d, r) for r in rd], [cosine(c, r) for r in rc]
        t_class = cosine(c, clip_text(class_only(template)))
        rows.append({"dino": np.mean(to_d), "dino_one": to_d[0], "dino_max": max(to_d), "clip_i": np.mean(to_c),
                     "clip_i_one": to_c[0], "clip_i_max": max(to_c), "clip_t_class": t_class,
                     "clip_t": cosine(c, clip_text(template)) if braces else t_class,
                     "clip_t_prompt": cosine(c, clip_text(template.replace("{}", "sks")))})
    if braces:
        groups = [[r for r, t in zip(rows, TEMPLATES) if t == u] for u in dict.fromkeys(TEMPLATES)]
        means = {k: np.mean([np.mean([r[k] for r in g]) for g in groups]) for k in rows[0]}
    else:
        means = {k: np.mean([r[k] for r in rows]) for k in rows[0]}
    pairs = [(i, j) for i in range(len(rd)) for j in range(i)]
    real = {"dino": np.mean([cosine(rd[i], rd[j]) for i, j in pairs]), "clip_i": np.mean([cosine(rc[i], rc[j]) for i, j in pairs]),
            "dino_max": max(cosine(rd[i], rd[j]) for i, j in pairs)} if pairs else None
    rounded = lambda d: {k: round(float(v), 7) for k, v in d.items()}
    return {"means": rounded(means), "each": [rounded(r) for r in rows], "real": real and rounded(real)}


@torch.no_grad()
def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    golden = {"torch": torch.__version__}

    # DINO. The file says 1e-12, as Hugging Face's conversion does; the network that is meant has 1e-6.
    config = ViTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48)
    vit = randomise(ViTModel(config, add_pooling_layer=False), 1)
    vit.half().save_pretrained(OUT / "dino")
    vit.float()
    for module in vit.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-6
    hub = Dino(original_names(vit.state_dict()), 2)

    def dino(x):
        found = vit(x).last_hidden_state[0, 0]
        assert (found - hub(x)).abs().max() < 2e-6
        return found

    # The authors' heads have 64 numbers each.
    wide = randomise(ViTModel(ViTConfig(hidden_size=128, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
                                        image_size=64, patch_size=8), add_pooling_layer=False), 2)
    state = original_names(wide.state_dict())
    torch.save({k: v.half() for k, v in state.items()}, OUT / "dino.pth")
    small = Dino(state, 2, 8)

    vocabulary, merges = tokenizer()
    end = vocabulary["<|endoftext|>"]
    size = dict(num_hidden_layers=2, num_attention_heads=2)
    parts = dict(text_config=dict(hidden_size=24, intermediate_size=40, vocab_size=len(vocabulary), bos_token_id=end - 1,
                                  eos_token_id=end, **size),
                 vision_config=dict(hidden_size=16, intermediate_size=40, **size), projection_dim=20)
    clip = randomise(CLIPModel(CLIPConfig(**parts)), 3)
    clip.half().save_pretrained(OUT / "clip")
    clip.float()
    words = CLIPTokenizer(vocab=vocabulary, merges=merges)
    words.backend_tokenizer.save(str(OUT / "clip" / "tokenizer.json"))

    # The older form: a pickle, no tokenizer.json, an end token called 2, another size and activation.
    parts["text_config"].update(num_hidden_layers=1, eos_token_id=2, hidden_act="gelu")
    parts["vision_config"].update(num_hidden_layers=1, image_size=48, patch_size=16, hidden_act="gelu")
    old = randomise(CLIPModel(CLIPConfig(**parts)), 4)
    (OUT / "clip_old").mkdir()
    torch.save({k: v.half() for k, v in old.state_dict().items()}, OUT / "clip_old" / "pytorch_model.bin")
    (OUT / "clip_old" / "config.json").write_text(json.dumps(
        {"projection_dim": 20, "text_config": parts["text_config"], "vision_config": parts["vision_config"]}, indent=1) + "\n")
    (OUT / "clip_old" / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False) + "\n")
    (OUT / "clip_old" / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(m) for m in merges) + "\n")

    def ids(text):
        return words(text, truncation=True, max_length=77)["input_ids"]

    def image_vector(model, x):
        return model.visual_projection(model.vision_model(x).pooler_output)[0]

    def text_vector(model, text):
        return model.text_projection(model.text_model(torch.tensor([ids(text)])).pooler_output)[0]

    image = lambda s: Image.fromarray(formula(*s))
    eyes = {"dino": lambda i: tensor(cropped(i, 256, 224), IMAGENET), "clip": lambda i: tensor(cropped(i, 224, 224), CLIP),
            "dino_d": lambda i: tensor(squashed(i, 256), HALF),
            "clip_d": lambda i: tensor(squashed(squashed(i, 256), 224), CLIP)}
    numbers = lambda t: [round(float(v), 7) for v in t]
    golden["pictures"] = [
        {"size": s, "dino": numbers(dino(eyes["dino"](image(s)))), "clip": numbers(image_vector(clip, eyes["clip"](image(s)))),
         "dino_original": numbers(small(tensor(cropped(image(s), 64 * 8 // 7, 64), IMAGENET))),
         "clip_old": numbers(image_vector(old, tensor(cropped(image(s), 48, 48), CLIP)))}
        for s in REFERENCES + PICTURES]
    golden["texts"] = [{"text": t, "ids": ids(t), "clip": numbers(text_vector(clip, t)), "clip_old": numbers(text_vector(old, t))}
                       for t in TEXTS]
    ask = lambda eyes_dino, eyes_clip, network, references, braces: scores(
        network, lambda x: image_vector(clip, x), lambda t: text_vector(clip, t), eyes[eyes_dino], eyes[eyes_clip], references,
        PICTURES, braces)
    golden["references"], golden["drawn"], golden["templates"] = REFERENCES, PICTURES, TEMPLATES
    golden["B"] = ask("dino", "clip", dino, REFERENCES, False)
    golden["C"] = ask("dino", "clip", dino, REFERENCES[:1], False)
    golden["D"] = ask("dino_d", "clip_d", hub, REFERENCES, True)
    golden["diversity"] = diversity()
    text = json.dumps(golden, ensure_ascii=False)
    (OUT / "expected.json").write_text(text.replace('{"size"', '\n{"size"').replace('{"text"', '\n{"text"') + "\n")
    print(sum(p.stat().st_size for p in OUT.rglob("*") if p.is_file()), "bytes")


if __name__ == "__main__":
    main()
