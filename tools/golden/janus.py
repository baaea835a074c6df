#!/usr/bin/env python3
"""Makes tests/golden/janus: a tiny random Janus-Pro under the original names, and what transformers' Janus makes of it.

    python tools/golden/janus.py

transformers (`JanusForConditionalGeneration`) is the reference for logits, guided greedy codes, decoded pictures, encoding by
its own rule, and by autograd for losses and gradients; the original's rule of encoding (codes and latents of length one) is
stated here. Names are mapped by the rules below, which the library does not share.

To be small, `pytorch_model.bin` holds four storages of which all tensors are views; the tests make the safetensors of Hugging
Face's form from it by `names.json`. It also holds tensors that making pictures must not touch: NaN, or no numbers for weights.
The committed files were made with torch 2.15.0, transformers 5.23.0 and seed 11; numbers in f64 where transformers computes so.
"""

import json
import re
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, trainers
from torch.func import functional_call
from transformers import JanusConfig, JanusForConditionalGeneration, LlamaConfig
from transformers.models.janus.configuration_janus import JanusVisionConfig, JanusVQVAEConfig

from training import uniform

OUT = Path(__file__).resolve().parents[2] / "tests" / "golden" / "janus"
HIDDEN, LAYERS, HEADS, MIDDLE, ROWS = 32, 2, 4, 64, 336
CODES, WIDTH, GRID = 64, 8, 4
SPECIAL = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>", "<begin_of_image>", "<image_placeholder>",
           "<end_of_image>", "<|User|>", "<|Assistant|>"]
PROMPT = "a photo of a red fox"
SAMPLE = 40


def tokenizer():
    """Pieces as DeepSeek's tokenizer makes them, with a tiny vocabulary."""
    t = Tokenizer(models.BPE())
    split = lambda pattern: pre_tokenizers.Split(Regex(pattern), "isolated")
    t.pre_tokenizer = pre_tokenizers.Sequence([
        split("[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split("[一-龥]+"),
        pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    text = ["a photo of a red fox", "the photo of a dog in the snow", "a rendition of my cool cat", "a small photo of one dog"]
    trainer = trainers.BpeTrainer(vocab_size=320, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    t.train_from_iterator(text * 9, trainer)
    t.add_tokens([AddedToken(name, special=i < 3, normalized=False) for i, name in enumerate(SPECIAL)])
    return t


def configuration(t):
    text = LlamaConfig(vocab_size=ROWS, hidden_size=HIDDEN, intermediate_size=MIDDLE, num_hidden_layers=LAYERS,
                       num_attention_heads=HEADS, num_key_value_heads=HEADS, max_position_embeddings=256)
    vision = JanusVisionConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=64, patch_size=16,
                               num_image_tokens=GRID**2, projection_dim=HIDDEN)
    vq = JanusVQVAEConfig(embed_dim=WIDTH, num_embeddings=CODES, latent_channels=32, base_channels=32,
                          channel_multiplier=[1, 1, 1, 1, 2], num_res_blocks=1, projection_dim=HIDDEN,
                          image_token_embed_dim=HIDDEN)
    return JanusConfig(text_config=text, vision_config=vision, vq_config=vq, image_token_id=t.token_to_id("<image_placeholder>"))


# What the library does not need.
UNUSED = re.compile(r"model\.(vision_model|aligner)\.|lm_head\.|.*\.(inv_freq|position_ids)$")


def original(name):
    """The original's name of a tensor of transformers'."""
    rules = [
        (r"model\.language_model\.(.*)", r"language_model.model.\1"),
        (r"model\.generation_embeddings\.(.*)", r"gen_embed.\1"),
        (r"model\.generation_aligner\.fc1\.(.*)", r"gen_aligner.layers.0.\1"),
        (r"model\.generation_aligner\.hidden_layers\.0\.(.*)", r"gen_aligner.layers.2.\1"),
        (r"model\.generation_head\.proj_out\.(.*)", r"gen_head.output_mlp_projector.\1"),
        (r"model\.generation_head\.vision_head\.(.*)", r"gen_head.vision_head.\1"),
        (r"model\.vqmodel\.(encoder|decoder)\.mid\.block_1\.(.*)", r"gen_vision_model.\1.mid.0.\2"),
        (r"model\.vqmodel\.(encoder|decoder)\.mid\.attn_1\.(.*)", r"gen_vision_model.\1.mid.1.\2"),
        (r"model\.vqmodel\.(encoder|decoder)\.mid\.block_2\.(.*)", r"gen_vision_model.\1.mid.2.\2"),
        (r"model\.vqmodel\.(encoder|decoder)\.(?:down|up)\.(\d+)\.block\.(.*)", r"gen_vision_model.\1.conv_blocks.\2.res.\3"),
        (r"model\.vqmodel\.(encoder|decoder)\.(?:down|up)\.(\d+)\.(.*)", r"gen_vision_model.\1.conv_blocks.\2.\3"),
        (r"model\.vqmodel\.(.*)", r"gen_vision_model.\1"),
    ]
    for pattern, replacement in rules:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, replacement, name)
    raise ValueError(name)


def weights(shapes, g):
    """Each tensor a view of one of four storages, in bf16."""
    sizes = {"wide": (12000, 0.4, 0.0), "narrow": (37000, 0.08, 0.0), "bias": (400, 0.1, 0.0), "norm": (400, 0.2, 1.0)}
    pools = {k: (torch.randn(n, generator=g) * s + m).bfloat16() for k, (n, s, m) in sizes.items()}
    out = {}
    for name, shape in shapes.items():
        n = shape.numel()
        kind = "bias" if name.endswith("bias") else "narrow" if len(shape) == 4 else "norm" if len(shape) == 1 else "wide"
        at = torch.randint(len(pools[kind]) - n + 1, (), generator=g).item()
        out[name] = pools[kind][at : at + n].view(shape)
    return out


def picture(g):
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    waves = [128 + 60 * torch.sin(x * a + y * b + c) for a, b, c in ((0.11, 0.05, 0), (0.02, 0.2, 1), (0.3, -0.1, 2))]
    noise = 40 * torch.randn(64, 64, 3, generator=g)
    return (torch.stack(waves, -1) + noise).clamp(0, 255).to(torch.uint8)


class Teaching:
    """Steps of training by autograd."""

    def __init__(self, name, model, stage, options, vectors):
        self.name, self.model, self.stage, self.vectors = name, model, stage, vectors
        self.options = dict(dropout=0.0, weight_decay=0.0, clip_norm=0.0, z_loss=0.0, embedding_learning_rate=0.01,
                            layer_learning_rate=1e-3, trainable="qkv", adaptation="full", lora_rank=4, layers=[],
                            train_embedding_in_layer_stage=False, batch_size=2, seed=1234567890123,
                            embedding_vectors=len(vectors)) | options
        self.state = {k: v for k, v in model.state_dict().items() if not UNUSED.match(k) and ".vqmodel." not in k}

    def order(self):
        """Weights as the library numbers them: layer by layer, then head and aligner."""
        parts = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj",
                 "mlp.down_proj"]
        names = [f"model.language_model.layers.{i}.{p}.weight" for i in range(LAYERS) for p in parts]
        return names + [f"model.{p}.weight" for p in ("generation_head.proj_out", "generation_head.vision_head",
                                                      "generation_aligner.fc1", "generation_aligner.hidden_layers.0")]

    def includes(self, name):
        if ".embed_tokens." in name or "generation_embeddings" in name or name == "model.language_model.norm.weight":
            return False
        roles = dict(qkv=r".*\.[qkv]_proj\..*", attention=r".*self_attn\..*", mlp=r".*\.mlp\..*",
                     head=r".*generation_head\..*", aligner=r".*generation_aligner\..*", all=r".*")
        return any(re.fullmatch(roles[r], name) for r in self.options["trainable"].split(","))

    def parameters(self):
        o, p = self.options, {}
        if self.stage == "embedding" or o["train_embedding_in_layer_stage"]:
            p["vectors"] = torch.tensor(self.vectors, dtype=torch.float64)
        if self.stage == "layers" and o["adaptation"] == "full":
            p |= {name: w.clone() for name, w in self.state.items() if self.includes(name)}
        elif self.stage == "layers":
            chosen = [name for name in self.order() if self.includes(name)]
            for number, name in enumerate(chosen):
                out, inner = self.state[name].shape
                rank = min(o["lora_rank"], out, inner)
                down = (2 * uniform(rank * inner, o["seed"], 1 + number) - 1) * inner**-0.5
                p[name + ".down"] = torch.tensor(down, dtype=torch.float64).view(rank, inner)
                p[name + ".up"] = torch.zeros(out, rank, dtype=torch.float64)
        return {k: v.requires_grad_() for k, v in p.items()}

    def loss(self, p, batch):
        vectors = p["vectors"] if "vectors" in p else torch.tensor(self.vectors, dtype=torch.float64)
        w = {name: value + p[name + ".up"] @ p[name + ".down"] if name + ".up" in p else p.get(name, value)
             for name, value in self.state.items()}
        part = lambda prefix: {k[len(prefix):]: v for k, v in w.items() if k.startswith(prefix)}
        m, total, count = self.model.model, 0.0, 0
        for prompt, codes in batch:
            table = w["model.language_model.embed_tokens.weight"]
            words = torch.stack([vectors[x[0]] if isinstance(x, list) else table[x] for x in prompt])
            rows = w["model.generation_embeddings.weight"][torch.tensor(codes[:-1])]
            seen = functional_call(m.generation_aligner, part("model.generation_aligner."), rows)
            x = torch.cat([words, seen])[None]
            call = dict(inputs_embeds=x, use_cache=False)
            hidden = functional_call(m.language_model, part("model.language_model."), (), call).last_hidden_state[0]
            logits = functional_call(m.generation_head, part("model.generation_head."), hidden[len(prompt) - 1 :])
            total = total + F.cross_entropy(logits, torch.tensor(codes), reduction="sum")
            total = total + self.options["z_loss"] * logits.logsumexp(-1).square().sum()
            count += len(codes)
        return total / count

    def run(self, steps, prompts, g):
        o, p = self.options, self.parameters()
        start = {k: v.detach().clone() for k, v in p.items()}
        groups = [dict(params=[v], lr=o["embedding_learning_rate"] if k == "vectors" else o["layer_learning_rate"],
                       weight_decay=0.0 if k == "vectors" else o["weight_decay"]) for k, v in p.items()]
        optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95))
        batches, losses, norms = [], [], []
        for step in range(steps):
            code = lambda: torch.randint(CODES, (GRID**2,), generator=g).tolist()
            batch = [(prompts[(step + i) % len(prompts)], code()) for i in range(2)]
            optimizer.zero_grad()
            loss = self.loss(p, batch)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(p.values(), o["clip_norm"] or float("inf"))
            optimizer.step()
            batches.append(batch), losses.append(loss.item()), norms.append(norm.item())
        tensors, lengths = {}, {}
        for k, v in p.items():
            for kind, value in (("change", v.detach() - start[k]), ("mean", optimizer.state[v]["exp_avg"])):
                key = f"{self.name}/{kind}.{k}"
                lengths[key] = value.norm().item()
                flat = value.flatten()
                tensors[key] = flat[:: max(1, len(flat) // SAMPLE)][:SAMPLE].float().clone()
        return dict(name=self.name, stage=self.stage, options=o, vectors=self.vectors, batches=batches, losses=losses,
                    norms=norms, lengths=lengths), tensors


def main():
    torch.manual_seed(11)
    g = torch.Generator().manual_seed(11)
    OUT.mkdir(parents=True, exist_ok=True)
    t = tokenizer()
    t.save(str(OUT / "tokenizer.json"))
    config = configuration(t)
    config.save_pretrained(OUT)
    model = JanusForConditionalGeneration(config).eval()
    shapes = {k: v.shape for k, v in model.state_dict().items() if not UNUSED.match(k)}
    made = weights(shapes, g)
    (OUT / "names.json").write_text(json.dumps({k: original(k) for k in made}, indent=0) + "\n")
    nan = torch.full((2, 3), float("nan"))
    unused = {"vision_model.vision_tower.blocks.0.attn.qkv.weight": nan, "aligner.layers.0.weight": nan,
              "gen_vision_model.quantize.codebook_used": torch.zeros(5, dtype=torch.int64),
              "language_model.lm_head.weight": made["model.language_model.embed_tokens.weight"]}
    torch.save({original(k): v for k, v in made.items()} | unused, OUT / "pytorch_model.bin")
    # As the original release describes itself, no more than it says.
    (OUT / "original.json").write_text(json.dumps({
        "model_type": "multi_modality", "architectures": ["MultiModalityCausalLM"],
        "gen_vision_config": {"cls": "VQ-16", "model_type": "gen_vision", "params": {"image_token_size": CODES, "n_embed": WIDTH}},
        "language_config": {"model_type": "llama", "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
                            "torch_dtype": "bfloat16", "vocab_size": ROWS},
        "vision_config": {"cls": "CLIPVisionTower", "params": {"image_size": 64}}}, indent=1) + "\n")
    missing, unexpected = model.load_state_dict(made, strict=False)
    assert not unexpected and all(UNUSED.match(m) for m in missing), (missing, unexpected)
    model.generation_config.update(bos_token_id=t.token_to_id(SPECIAL[0]), pad_token_id=t.token_to_id(SPECIAL[2]),
                                   eos_token_id=t.token_to_id(SPECIAL[1]), max_length=200)
    model.generation_config.generation_kwargs = {"boi_token_id": t.token_to_id("<begin_of_image>")}
    special = lambda name: t.token_to_id(name)

    # A prompt in the Pro template, by hand.
    ids = lambda text: t.encode(text, add_special_tokens=False).ids
    whole = lambda prompt: [special(SPECIAL[0])] + ids(f"<|User|>: {prompt}\n\n<|Assistant|>:") + [special("<begin_of_image>")]
    pads = lambda row: row[:1] + [special(SPECIAL[2])] * (len(row) - 2) + row[-1:]
    asked = whole(PROMPT)
    expected, tensors = dict(prompt=PROMPT, ids=asked, pads=pads(asked), words=ids(" fox")), {}

    greedy = model.generate(torch.tensor([asked]), attention_mask=torch.ones(1, len(asked), dtype=torch.long),
                            generation_mode="image", do_sample=False, guidance_scale=5.0, use_cache=True)
    expected["greedy"] = greedy[0].tolist()
    other = model.generate(torch.tensor([whole("a dog")]), attention_mask=torch.ones(1, len(whole("a dog")), dtype=torch.long),
                           generation_mode="image", do_sample=False, guidance_scale=1.5, use_cache=True)
    expected["greedy of a dog by 1.5"] = other[0].tolist()

    shown = picture(g)
    tensors["picture"] = shown
    x = (shown.permute(2, 0, 1)[None].float() / 127.5 - 1).double()
    with torch.no_grad():
        tensors["decoded"] = model.double().model.vqmodel.decode(greedy)[0].float()
        vq = model.model.vqmodel
        expected["codes of transformers"] = vq.encode(x).image_tokens.flatten().tolist()
        z = F.normalize(vq.quant_conv(vq.encoder(x))[0].flatten(1).T, dim=1)
        book = F.normalize(vq.quantize.embedding.weight, dim=1)
        distance = torch.cdist(z, book)
        expected["codes of the original"] = distance.argmin(1).tolist()
        two = distance.sort(1).values[:, :2]
        print("nearest code wins by at least", (two[:, 1] - two[:, 0]).min().item(),
              "rules agree on", sum(a == b for a, b in zip(expected["codes of transformers"], expected["codes of the original"])))

        # Logits of every place, with and without what is asked.
        logits = []
        for row in (asked, pads(asked)):
            words = model.get_input_embeddings()(torch.tensor([row]))
            seen = model.prepare_embeddings_for_image_generation(greedy[:, :-1])
            hidden = model.model.language_model(inputs_embeds=torch.cat([words, seen], 1), use_cache=False).last_hidden_state
            logits.append(model.model.generation_head(hidden[0, len(row) - 1 :]))
        tensors["logits"] = torch.stack(logits).float()
        print("logits of size", tensors["logits"].abs().max().item())
        nats = F.cross_entropy(logits[0], greedy[0])
        expected["score"] = nats.item()

    # Prompts with learned vectors, and one as the other branch of guidance sees it.
    learned = lambda before, rows, behind: [special(SPECIAL[0])] + ids("<|User|>: " + before) + [[r] for r in rows] + \
        ids(behind + "\n\n<|Assistant|>:") + [special("<begin_of_image>")]
    prompts = [learned("a photo of a", [0], " dog"), learned("a small", [0], " dog in the snow"), pads(whole("a photo of a dog"))]
    rows = torch.randn(1, HIDDEN, generator=g).tolist()
    layers = lambda name, **o: Teaching(name, model, "layers", o, rows)
    cases = [
        Teaching("embedding", model, "embedding", dict(z_loss=1e-3, clip_norm=1.0), rows),
        layers("qkv", trainable="qkv", weight_decay=0.1),
        layers("attention and mlp", trainable="attention,mlp", clip_norm=0.5),
        layers("head", trainable="head", z_loss=1e-3),
        layers("aligner", trainable="aligner"),
        layers("all with vectors", trainable="all", train_embedding_in_layer_stage=True, clip_norm=1.0),
        layers("low rank everywhere", trainable="attention,mlp,head,aligner", adaptation="low_rank", weight_decay=0.1),
    ]
    expected["teaching"] = []
    for case in cases:
        described, some = case.run(3, prompts, g)
        expected["teaching"].append(described)
        tensors |= some
        print(f"{case.name:25} losses {described['losses'][0]:.4f} .. {described['losses'][-1]:.4f} norm {described['norms'][0]:.3f}")
    (OUT / "expected.json").write_text(json.dumps(expected) + "\n")
    save_file({k: v.contiguous() for k, v in tensors.items()}, OUT / "expected.safetensors")


if __name__ == "__main__":
    main()
