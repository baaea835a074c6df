"""PyTorch's side of the row `evaluate`: DINO ViT-S/16 and CLIP ViT-B/32 over picture files, as one would write it for speed.

    python dino_clip.py FOLDER      makes the random networks and the pictures that both sides measure
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden" / "evaluate"
TEXT = "a {} dog in the snow"
PICTURES, REFERENCES, BATCH = 48, 4, 16
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def names(prefix, style, i):
    """Norm, query, key, value, output, norm, MLP up and down of a layer."""
    if style == "vit":
        at = f"{prefix}encoder.layer.{i}."
        return [at + n for n in ("layernorm_before", "attention.attention.query", "attention.attention.key",
                                 "attention.attention.value", "attention.output.dense", "layernorm_after", "intermediate.dense",
                                 "output.dense")]
    at = f"{prefix}.encoder.layers.{i}."
    return [at + n for n in ("layer_norm1", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj",
                             "layer_norm2", "mlp.fc1", "mlp.fc2")]


def random_layers(state, prefix, style, width, layers=12):
    for i in range(layers):
        norm1, q, k, v, out, norm2, up, down = names(prefix, style, i)
        for name in (norm1, norm2):
            state[name + ".weight"], state[name + ".bias"] = 1 + 0.1 * torch.randn(width), 0.1 * torch.randn(width)
        for name, outputs, inputs in [(n, width, width) for n in (q, k, v, out)] + [(up, 4 * width, width), (down, width, 4 * width)]:
            state[name + ".weight"] = torch.randn(outputs, inputs) / inputs**0.5
            state[name + ".bias"] = 0.1 * torch.randn(outputs)


def make(folder):
    torch.manual_seed(0)
    (folder / "dino").mkdir(parents=True, exist_ok=True)
    (folder / "clip").mkdir(exist_ok=True)
    (folder / "pictures").mkdir(exist_ok=True)
    dino = {"embeddings.cls_token": torch.randn(1, 1, 384), "embeddings.position_embeddings": torch.randn(1, 197, 384),
            "embeddings.patch_embeddings.projection.weight": torch.randn(384, 3, 16, 16) / 768**0.5,
            "embeddings.patch_embeddings.projection.bias": torch.randn(384),
            "layernorm.weight": torch.ones(384), "layernorm.bias": torch.zeros(384)}
    random_layers(dino, "", "vit", 384)
    save_file(dino, folder / "dino" / "model.safetensors")
    (folder / "dino" / "config.json").write_text(json.dumps({"num_attention_heads": 6}))
    vocabulary = 550
    clip = {"vision_model.embeddings.class_embedding": torch.randn(768),
            "vision_model.embeddings.patch_embedding.weight": torch.randn(768, 3, 32, 32) / 3072**0.5,
            "vision_model.embeddings.position_embedding.weight": torch.randn(50, 768),
            "text_model.embeddings.token_embedding.weight": torch.randn(vocabulary, 512),
            "text_model.embeddings.position_embedding.weight": torch.randn(77, 512),
            "visual_projection.weight": torch.randn(512, 768) / 768**0.5, "text_projection.weight": torch.randn(512, 512) / 512**0.5}
    for name, width in (("vision_model.pre_layrnorm", 768), ("vision_model.post_layernorm", 768), ("text_model.final_layer_norm", 512)):
        clip[name + ".weight"], clip[name + ".bias"] = torch.ones(width), torch.zeros(width)
    random_layers(clip, "vision_model", "clip", 768)
    random_layers(clip, "text_model", "clip", 512)
    save_file(clip, folder / "clip" / "model.safetensors")
    (folder / "clip" / "config.json").write_text(json.dumps({"text_config": {"vocab_size": vocabulary}, "vision_config": {}}))
    (folder / "clip" / "tokenizer.json").write_bytes((GOLDEN / "clip" / "tokenizer.json").read_bytes())
    random = np.random.default_rng(0)
    for i in range(PICTURES + REFERENCES):
        small = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        small.resize((640, 480), Image.BICUBIC).save(folder / "pictures" / f"{i:03}.png")


class Tower:
    def __init__(self, state, prefix, style, heads, eps, activation, layers=12):
        self.layers, self.heads, self.eps, self.activation = [], heads, eps, activation
        for i in range(layers):
            norm1, q, k, v, out, norm2, up, down = names(prefix, style, i)
            both = lambda n: (state[n + ".weight"], state[n + ".bias"])
            qkv = tuple(torch.cat([state[f"{n}.{kind}"] for n in (q, k, v)]) for kind in ("weight", "bias"))
            self.layers.append((both(norm1), qkv, both(out), both(norm2), both(up), both(down)))

    def __call__(self, x, causal=False):
        b, n, width = x.shape
        for norm1, qkv, out, norm2, up, down in self.layers:
            q, k, v = F.linear(F.layer_norm(x, (width,), *norm1, self.eps), *qkv).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            a = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
            x = x + F.linear(a.transpose(1, 2).reshape(b, n, width), *out)
            x = x + F.linear(self.activation(F.linear(F.layer_norm(x, (width,), *norm2, self.eps), *up)), *down)
        return x


def quick_gelu(x):
    return x * torch.sigmoid(1.702 * x)


def cropped(image, short, side):
    w, h = image.size
    size = (short, int(short * h / w)) if w <= h else (int(short * w / h), short)
    left, top = (round((n - side) / 2) for n in size)
    return image.resize(size, Image.BICUBIC).crop((left, top, left + side, top + side))


def tensor(image, statistics):
    mean, deviation = (torch.tensor(s).view(3, 1, 1) for s in statistics)
    return (torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div_(255) - mean) / deviation


class Evaluator:
    def __init__(self, folder):
        from tokenizers import Tokenizer

        self.folder = Path(folder)
        self.d, self.c = (load_file(self.folder / n / "model.safetensors") for n in ("dino", "clip"))
        self.dino = Tower(self.d, "", "vit", 6, 1e-6, F.gelu)
        self.vision = Tower(self.c, "vision_model", "clip", 12, 1e-5, quick_gelu)
        self.text = Tower(self.c, "text_model", "clip", 8, 1e-5, quick_gelu)
        self.words = Tokenizer.from_file(str(self.folder / "clip" / "tokenizer.json"))

    def both(self, x, y):
        """Vectors of pictures as DINO and as CLIP see them."""
        d, c = self.d, self.c
        patches = F.conv2d(x, d["embeddings.patch_embeddings.projection.weight"], d["embeddings.patch_embeddings.projection.bias"],
                           stride=16).flatten(2).transpose(1, 2)
        first = d["embeddings.cls_token"].expand(len(x), -1, -1)
        x = self.dino(torch.cat([first, patches], 1) + d["embeddings.position_embeddings"])[:, 0]
        x = F.layer_norm(x, (384,), d["layernorm.weight"], d["layernorm.bias"], 1e-6)
        norm = lambda v, n: F.layer_norm(v, (768,), c[f"vision_model.{n}.weight"], c[f"vision_model.{n}.bias"], 1e-5)
        patches = F.conv2d(y, c["vision_model.embeddings.patch_embedding.weight"], stride=32).flatten(2).transpose(1, 2)
        first = c["vision_model.embeddings.class_embedding"].expand(len(y), 1, -1)
        y = torch.cat([first, patches], 1) + c["vision_model.embeddings.position_embedding.weight"]
        y = norm(self.vision(norm(y, "pre_layrnorm"))[:, 0], "post_layernorm")
        return F.normalize(x, dim=1), F.normalize(F.linear(y, c["visual_projection.weight"]), dim=1)

    def of_text(self, text):
        ids = torch.tensor([self.words.encode(text).ids])
        c = self.c
        x = c["text_model.embeddings.token_embedding.weight"][ids] + c["text_model.embeddings.position_embedding.weight"][: ids.shape[1]]
        x = self.text(x, causal=True)[:, ids[0].argmax()]
        x = F.layer_norm(x, (512,), c["text_model.final_layer_norm.weight"], c["text_model.final_layer_norm.bias"], 1e-5)
        return F.normalize(F.linear(x, c["text_projection.weight"]), dim=1)

    def see(self, path):
        image = Image.open(path).convert("RGB")
        return tensor(cropped(image, 256, 224), IMAGENET), tensor(cropped(image, 224, 224), CLIP)

    def score(self):
        started = time.perf_counter()
        files = sorted((self.folder / "pictures").iterdir())
        made = []
        with torch.inference_mode(), ThreadPoolExecutor(2) as pool:
            for i in range(0, len(files), BATCH):
                seen = list(pool.map(self.see, files[i : i + BATCH]))
                made.append(self.both(*(torch.stack(part) for part in zip(*seen))))
            dino, clip = (torch.cat(part) for part in zip(*made))
            similar = [(v[:PICTURES] @ v[PICTURES:].T).mean().item() for v in (dino, clip)]
            similar.append((clip[:PICTURES] @ self.of_text(TEXT.replace("{} ", "")).T).mean().item())
        return dict(seconds=time.perf_counter() - started, work=len(files), scores=similar)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
