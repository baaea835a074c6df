#!/usr/bin/env python3
"""Makes the tiny Infinity models that the tests open, and what PyTorch makes of them.

    python tools/golden/infinity_goldens.py

writes tests/golden/infinity (transformer, image tokenizer, text encoder as they are published), tests/golden/infinity_folded
(the same with spatial patchify, flat names in safetensors, the text encoder in shards of pickles) and tests/golden/infinity.safetensors. All numbers
of the latter are computed in f64 from the bf16 weights in the files. Made with torch 2.15.0.
"""

import json
import shutil

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from infinity import (Infinity, T5, Vae, label_loss, quantise, scale_weights, scales_of, teacher_loss, TABLE)
from pathlib import Path

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden"
TEXT, WIDTH, HIDDEN, HEADS, DEPTH, BITS = 128, 32, 256, 2, 4, 8
# Scale weights of the tests' losses.
SCALE_WEIGHTS = [1.0, 1.0, 1.0, 1.0, 0.5]


def bf16(weights):
    return {k: v.to(torch.bfloat16).contiguous() for k, v in weights.items()}


def random_transformer(g, bits, depth, chunks, pool_heads):
    n = lambda *shape: torch.randn(shape, generator=g)
    matrix = lambda out, inner: n(out, inner) * inner**-0.5
    w = {}

    def linear(name, out, inner):
        w[name + ".weight"], w[name + ".bias"] = matrix(out, inner), n(out) * 0.2

    w["cfg_uncond"] = n(24, TEXT)
    w["text_norm.weight"] = 1 + 0.2 * n(TEXT)
    w["text_proj_for_sos.ca.mat_q"] = n(1, pool_heads, WIDTH // pool_heads)
    w["text_proj_for_sos.ca.mat_kv.weight"] = matrix(2 * WIDTH, TEXT)
    w["text_proj_for_sos.ca.v_bias"], w["text_proj_for_sos.ca.zero_k_bias"] = 0.2 * n(WIDTH), torch.zeros(WIDTH)
    linear("text_proj_for_sos.ca.proj", WIDTH, WIDTH)
    linear("text_proj_for_ca.0", WIDTH, TEXT)
    linear("text_proj_for_ca.2", WIDTH, WIDTH)
    w["pos_start"] = n(1, 1, WIDTH)
    w["lvl_embed.weight"] = n(15, WIDTH)
    linear("word_embed", WIDTH, bits)
    linear("shared_ada_lin.1", 6 * WIDTH, WIDTH)
    linear("head_nm.ada_lin.1", 2 * WIDTH, WIDTH)
    linear("head", 2 * bits, WIDTH)
    for i in range(depth):
        b = f"block_chunks.{i // (depth // chunks)}.module.{i % (depth // chunks)}."
        w[b + "ada_gss"] = 0.5 * n(1, 1, 6, WIDTH)
        w[b + "sa.scale_mul_1H11"] = 1.4 + 0.3 * n(1, HEADS, 1, 1)
        w[b + "sa.mat_qkv.weight"] = matrix(3 * WIDTH, WIDTH)
        for name in ("q_bias", "v_bias"):
            w[b + "sa." + name] = 0.2 * n(WIDTH)
        w[b + "sa.zero_k_bias"] = torch.zeros(WIDTH)
        linear(b + "sa.proj", WIDTH, WIDTH)
        w[b + "ca_norm.weight"], w[b + "ca_norm.bias"] = 1 + 0.2 * n(WIDTH), 0.2 * n(WIDTH)
        linear(b + "ca.mat_q", WIDTH, WIDTH)
        w[b + "ca.mat_kv.weight"] = matrix(2 * WIDTH, WIDTH)
        w[b + "ca.v_bias"], w[b + "ca.zero_k_bias"] = 0.2 * n(WIDTH), torch.zeros(WIDTH)
        linear(b + "ca.proj", WIDTH, WIDTH)
        linear(b + "ffn.fc1", HIDDEN, WIDTH)
        linear(b + "ffn.fc2", WIDTH, HIDDEN)
    # One head beyond the largest strength, which is 100.
    w["block_chunks.0.module.0.sa.scale_mul_1H11"][0, 0] = 5.0
    return w


def random_vae(g, bits, base, multipliers, nested, blocks=2):
    n = lambda *shape: torch.randn(shape, generator=g)
    conv_tail, norm_tail = (".conv", ".norm") if nested else ("", "")
    w = {}

    def conv(name, out, inner, side=3):
        w[f"{name}{conv_tail}.weight"] = n(out, inner, side, side) * (inner * side * side)**-0.5
        w[f"{name}{conv_tail}.bias"] = 0.1 * n(out)

    def norm(name, channels):
        w[f"{name}{norm_tail}.weight"], w[f"{name}{norm_tail}.bias"] = 1 + 0.1 * n(channels), 0.1 * n(channels)

    def block(name, inner, out):
        norm(name + ".norm1", inner)
        conv(name + ".conv1", out, inner)
        norm(name + ".norm2", out)
        conv(name + ".conv2", out, out)
        if inner != out:
            conv(name + ".nin_shortcut", out, inner, 1)

    levels = [base * m for m in multipliers]
    conv("encoder.conv_in", base, 3)
    inner = base
    for i, out in enumerate(levels):
        for j in range(blocks):
            block(f"encoder.down.{i}.block.{j}", inner, out)
            inner = out
        if i + 1 < len(levels):
            conv(f"encoder.down.{i}.downsample.conv", out, out)
    for half in ("encoder", "decoder"):
        block(half + ".mid.block_1", inner, inner)
        block(half + ".mid.block_2", inner, inner)
    norm("encoder.norm_out", inner)
    conv("encoder.conv_out", bits, inner)
    conv("decoder.conv_in", inner, bits)
    for i, out in reversed(list(enumerate(levels))):
        for j in range(blocks + 1):
            block(f"decoder.up.{i}.block.{j}", inner, out)
            inner = out
        if i > 0:
            conv(f"decoder.up.{i}.upsample.conv", out, out)
    norm("decoder.norm_out", inner)
    conv("decoder.conv_out", 3, inner)
    return w


T5_CONFIG = dict(model_type="t5", d_model=TEXT, d_kv=16, d_ff=96, num_layers=2, num_heads=4, vocab_size=112,
                 feed_forward_proj="gated-gelu", relative_attention_num_buckets=32, relative_attention_max_distance=128,
                 layer_norm_epsilon=1e-6, tie_word_embeddings=False)
WORDS = ("a the my of in on with to and photo picture drawing dog cat cup bear house tree sea sky snow beach night day red blue "
         "green black white big small old new").split()


def random_t5(g):
    n = lambda *shape: torch.randn(shape, generator=g)
    c, w = T5_CONFIG, {}
    inner = c["num_heads"] * c["d_kv"]
    w["shared.weight"] = n(c["vocab_size"], TEXT)
    for i in range(c["num_layers"]):
        p = f"encoder.block.{i}.layer."
        for s, shape in dict(q=(inner, TEXT), k=(inner, TEXT), v=(inner, TEXT), o=(TEXT, inner)).items():
            w[f"{p}0.SelfAttention.{s}.weight"] = n(*shape) * shape[1]**-0.5 * (0.5 if s in "qk" else 1)
        if i == 0:
            w[p + "0.SelfAttention.relative_attention_bias.weight"] = n(c["relative_attention_num_buckets"], c["num_heads"])
        w[p + "0.layer_norm.weight"], w[p + "1.layer_norm.weight"] = 1 + 0.1 * n(TEXT), 1 + 0.1 * n(TEXT)
        for s, shape in dict(wi_0=(c["d_ff"], TEXT), wi_1=(c["d_ff"], TEXT), wo=(TEXT, c["d_ff"])).items():
            w[f"{p}1.DenseReluDense.{s}.weight"] = n(*shape) * shape[1]**-0.5
    w["encoder.final_layer_norm.weight"] = 1 + 0.1 * n(TEXT)
    return w


def tokenizer():
    """A tokenizer.json of the kind that T5's is: pieces with scores, spaces as part of words, </s> behind."""
    pieces = [["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0], ["\u2581", -4.0]]
    pieces += [["\u2581" + w, -5.0 - 0.01 * i] for i, w in enumerate(WORDS)]
    pieces += [[c, -9.0] for c in "abcdefghijklmnopqrstuvwxyz,."]
    special = lambda i, s: dict(id=i, content=s, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    space = dict(type="Metaspace", replacement="\u2581", prepend_scheme="always", split=True)
    split = dict(type="Sequence", pretokenizers=[dict(type="WhitespaceSplit"), space])
    return dict(
        version="1.0", truncation=None, padding=None, normalizer=None, pre_tokenizer=split, decoder=space,
        added_tokens=[special(i, p[0]) for i, p in enumerate(pieces[:3])],
        post_processor=dict(type="TemplateProcessing", single=[{"Sequence": {"id": "A", "type_id": 0}},
                                                               {"SpecialToken": {"id": "</s>", "type_id": 0}}],
                            pair=[{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
                            special_tokens={"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}}),
        model=dict(type="Unigram", unk_id=2, vocab=pieces, byte_fallback=False))


def save_t5(weights, folder, sharded):
    """A text encoder as it is published, in one file of safetensors or in pickles with their index."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(T5_CONFIG, indent=1) + "\n")
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer(), indent=None) + "\n")
    if not sharded:
        return save_file(weights, folder / "model.safetensors")
    shards = {f"pytorch_model-0000{i + 1}-of-00002.bin": {} for i in range(2)}
    places = {name: list(shards)[name.startswith("encoder.block.1.")] for name in weights}
    for name, shard in places.items():
        shards[shard][name] = weights[name]
    for shard, part in shards.items():
        torch.save(part, folder / shard)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}) + "\n")


def sample(t, most=48):
    """Some numbers of a tensor, evenly spaced, and its length."""
    t = t.detach().flatten()
    step = max(1, t.numel() // most)
    return torch.cat([t[::step][:most], t.norm()[None]])


out = {}


def put(name, tensor):
    out[name] = tensor.detach().float().contiguous()


def whole(name, tensor):
    out[name] = tensor.detach().to(torch.uint8).contiguous()


def position_sums():
    """Of each ratio and scale: sums of (index + 1) x row and (index + 1) x column of the rotary positions."""
    sums = {}
    for ratio in [*TABLE, *(1 / r for r in TABLE if r != 1)]:
        scales = scales_of(ratio)
        full = scales[-1]
        for h, w in scales:
            row = (torch.arange(h).float() * (full[0] / h)).round().long()[:, None].expand(h, w).flatten()
            column = (torch.arange(w).float() * (full[1] / w)).round().long()[None].expand(h, w).flatten()
            index = torch.arange(1, h * w + 1)
            sums.setdefault(f"{full[0]}x{full[1]}", []).append([(index * row).sum().item(), (index * column).sum().item()])
    return sums


def drawings(name, net, g, features, patchify=False):
    """Labels, inputs, logits of scoring, logits of drawing with those labels as bits, for several ratios."""
    bits = BITS
    step = 5 if patchify else 2  # rows of logits that are kept
    for ratio in (1.0, 1.5, 0.5, 3.0) if not patchify else (1.0,):
        scales, full = scales_of(ratio, "0.06M"), scales_of(ratio)[-1]
        key = f"{name}.{scales[-1][0]}x{scales[-1][1]}."
        fold = 2 if patchify else 1
        grids = [(fold * h, fold * w) for h, w in scales]
        latent = torch.randn(1, bits, *grids[-1], generator=g).double()
        flips = [(torch.rand(1, bits, *size, generator=g) < 0.15).double() for size in grids]
        put(key + "latent", latent)
        whole(key + "flips", torch.cat([f.flatten() for f in flips]))
        plain, plain_inputs, total = quantise(latent, scales, None, patchify)
        whole(key + "labels", torch.cat(plain, 1)[0])
        put(key + "decoded", total[0])
        labels, inputs, _ = quantise(latent, scales, flips, patchify)
        whole(key + "flipped_labels", torch.cat(labels, 1)[0])
        put(key + "inputs", sample(torch.cat(inputs, 1), 2000))
        put(key + "logits", net.forward(features, plain_inputs, scales, full)[0, ::step])
        for guidance in (1.0, 3.0) if ratio == 1 else (3.0,):
            found, _ = net.draw(features, scales, full, guidance, lambda s, _: plain[s][0], patchify=patchify)
            put(f"{key}drawn{guidance:.0f}", torch.cat(found)[::step])
        if ratio == 1.5:
            net.each_chunk = True
            found, _ = net.draw(features, scales, full, 3.0, lambda s, _: plain[s][0], area=True)
            put(f"{key}arbooth", torch.cat(found)[::step])
            net.each_chunk = False
            found, _ = net.draw(features, scales, full, 1.0, lambda s, _: plain[s][0], area=True, apart=True)
            put(f"{key}apart", torch.cat(found)[::step])


def lessons(net, g, features):
    """Losses and gradients of two sequences with different texts, the first with two learned vectors in it."""
    scales, full = scales_of(1.5, "0.06M"), scales_of(1.5)[-1]
    latents = torch.randn(2, BITS, *scales[-1], generator=g).double()
    put("lesson.latents", latents)
    other = torch.randn(4, TEXT, generator=g).double()
    put("lesson.features", other)
    vectors = torch.randn(2, TEXT, generator=g).double().requires_grad_()
    put("lesson.vectors", vectors)
    drops = [(1.0, 1.0), (1.25, 1.0), (0.0, 1.25), (1.0, 0.0)]
    teacher = torch.randn(2, sum(h * w for h, w in scales), 2 * BITS, generator=g).double()
    put("lesson.teacher", teacher)
    net.w = {k: v.requires_grad_() for k, v in net.w.items()}
    weights = scale_weights(scales, SCALE_WEIGHTS).double()
    for kind in ("labels", "bits", "joint"):
        total = 0
        for i in range(2):
            labels, inputs, _ = quantise(latents[i:i + 1], scales)
            # The vectors take the place of the third feature.
            text = torch.cat([features[:2], vectors, features[3:]]) if i == 0 else other
            logits = net.forward(text, inputs, scales, full, drops if i == 0 else None)[0]
            if kind == "labels":
                total = total + label_loss(logits, torch.cat(labels, 1)[0], weights) / 2
            else:
                total = total + teacher_loss(logits, teacher[i], kind == "joint") / 2
        names = list(net.w)
        found = torch.autograd.grad(total, [vectors, *net.w.values()], allow_unused=True)
        put(f"lesson.{kind}.loss", total[None])
        put(f"lesson.{kind}.vectors", found[0])
        for k, gradient in zip(names, found[1:]):
            if gradient is not None and k.startswith("block_chunks"):
                put(f"lesson.{kind}.{k}", sample(gradient))


TRAINABLE = {
    "arbooth": lambda n: ".ca." in n or ".ffn." in n,
    "self_attention": lambda n: ".sa." in n,
    "all": lambda n: True,
}


def steps(weights, t5, g):
    """Three steps of AdamW on two pictures, the first under a prompt with two learned vectors."""
    scales, full = scales_of(0.5, "0.06M"), scales_of(0.5)[-1]
    latents = torch.randn(2, BITS, *scales[-1], generator=g).double()
    put("steps.latents", latents)
    first = torch.randn(2, TEXT, generator=g).double()
    put("steps.vectors", first)
    ids = lambda text: torch.tensor([VOCABULARY["\u2581" + w] if w != "[V]" else len(VOCABULARY) for w in text.split()] + [1])
    with_word, plain = (t5.forward(ids(text)) for text in ("a photo of a [V] dog", "a red cat in the snow"))
    token_weights = scale_weights(scales, [1.0] * 8 + [0.5]).double()
    for name, included in TRAINABLE.items():
        net = Infinity(weights, torch.float64)
        vectors = first.clone().requires_grad_()
        chosen = {k: v.requires_grad_() for k, v in net.w.items()
                  if k.startswith("block_chunks") and included(k) and "zero_k_bias" not in k}
        before = {k: v.detach().clone() for k, v in chosen.items()}
        optimizer = torch.optim.AdamW([vectors, *chosen.values()], lr=2e-3, betas=(0.9, 0.999), weight_decay=0.0)
        losses = []
        for _ in range(3):
            loss = 0
            for i, text in enumerate((torch.cat([with_word[:4], vectors, with_word[5:]]), plain)):
                labels, inputs, _ = quantise(latents[i:i + 1], scales)
                logits = net.forward(text, inputs, scales, full)[0]
                loss = loss + label_loss(logits, torch.cat(labels, 1)[0], token_weights) / 2
            optimizer.zero_grad()
            loss.backward()
            losses.append(loss.detach())
            optimizer.step()
        put(f"steps.{name}.losses", torch.stack(losses))
        put(f"steps.{name}.vectors", vectors.detach() - first)
        for k, v in chosen.items():
            put(f"steps.{name}.{k}", sample(v.detach() - before[k], 24))


def arbooth(weights, t5):
    """Three steps as arXiv 2504.02612 teaches: an update for a picture of the subject, and one for what a teacher predicted of
    the class. Its four vectors start at zero. Either teacher."""
    g = torch.Generator().manual_seed(17)
    scales, full = scales_of(0.5, "0.06M"), scales_of(0.5)[-1]
    latents = torch.randn(2, BITS, *scales[-1], generator=g).double()
    put("arbooth.latents", latents)
    teacher = torch.randn(sum(h * w for h, w in scales), 2 * BITS, generator=g).double()
    put("arbooth.teacher", teacher)
    ids = lambda text: torch.tensor([VOCABULARY["\u2581" + w] if w != "[V]" else len(VOCABULARY) for w in text.split()] + [1])
    with_word, plain = (t5.forward(ids(text)) for text in ("a photo of [V] dog", "a photo of dog"))
    token_weights = scale_weights(scales, SCALE_WEIGHTS).double()
    (labels, inputs, _), (_, class_inputs, _) = (quantise(latents[i:i + 1], scales) for i in range(2))
    for joint, name in ((False, "correct"), (True, "reference")):
        # What the released teacher gives its student is averaged.
        given = quantise(latents[1:2], scales, area=True)[1] if joint else class_inputs
        net = Infinity(weights, torch.float64)
        vectors = torch.zeros(4, TEXT).double().requires_grad_()
        chosen = {k: v.requires_grad_() for k, v in net.w.items()
                  if k.startswith("block_chunks") and TRAINABLE["arbooth"](k) and "zero_k_bias" not in k}
        before = {k: v.detach().clone() for k, v in chosen.items()}
        groups = [{"params": [vectors], "weight_decay": 0.0}, {"params": list(chosen.values()), "weight_decay": 0.005}]
        optimizer = torch.optim.AdamW(groups, lr=6e-3 / 256, betas=(0.9, 0.999))
        losses = []
        for _ in range(3):
            of_step = 0
            for subject in (True, False):
                text = torch.cat([with_word[:3], vectors, with_word[4:]]) if subject else plain
                logits = net.forward(text, inputs if subject else given, scales, full)[0]
                loss = (label_loss(logits, torch.cat(labels, 1)[0], token_weights) if subject
                        else 0.5 * teacher_loss(logits, teacher, joint))
                optimizer.zero_grad()
                loss.backward()
                # The class has no gradient for the vectors, which stay as they are then.
                optimizer.step()
                of_step = of_step + loss.detach()
            losses.append(of_step)
        put(f"arbooth.{name}.losses", torch.stack(losses))
        put(f"arbooth.{name}.vectors", vectors.detach())
        for k, v in chosen.items():
            put(f"arbooth.{name}.{k}", sample(v.detach() - before[k], 24))


VOCABULARY = {p[0]: i for i, p in enumerate(tokenizer()["model"]["vocab"])}


def main():
    g = torch.Generator().manual_seed(16)
    folder, folded = GOLDEN / "infinity", GOLDEN / "infinity_folded"
    for f in (folder, folded):
        shutil.rmtree(f, ignore_errors=True)
        f.mkdir()
    weights = bf16(random_transformer(g, BITS, DEPTH, 2, 1))
    torch.save(weights, folder / "infinity.pth")
    vae = bf16(random_vae(g, BITS, 24, [1, 1, 1], True))
    mask = {f"{q}.lfq.mask": 2 ** torch.arange(BITS - 1, -1, -1) for q in ("quantizer", "quantize")}
    torch.save({"vae": {**vae, **mask}, "trainer": {"step": 1}}, folder / "vae.pth")
    encoder = bf16(random_t5(g))
    save_t5(encoder, folder / "text_encoder", False)
    save_t5(encoder, folded / "flan-t5-xl", True)
    (folder / "sitter.json").write_text('{"sample": {"width": 64, "height": 64, "guidance": 3.0, "temperature": 0.5}}\n')

    t5 = T5(T5_CONFIG, encoder, torch.float64)
    ids = [VOCABULARY[p] for p in "\u2581a \u2581photo \u2581of \u2581a \u2581dog \u2581in \u2581the \u2581snow </s>".split()]
    whole("text.ids", torch.tensor(ids))
    features = t5.forward(torch.tensor(ids))
    put("text.features", features)
    long = torch.randint(4, 66, (200,), generator=g)
    whole("text.long_ids", long)
    put("text.long_features", t5.forward(long)[::7])

    published = weights
    net = Infinity(weights, torch.float64)
    source, pooled = net.text(features)
    put("text.source", source)
    put("text.pooled", pooled)
    put("text.adaptive", net.adaptive(pooled))
    own_vae = Vae(vae, None, torch.float64)
    picture = torch.randint(256, (1, 3, 64, 48), generator=g)
    picture = F.interpolate(picture.double(), size=(64, 48), mode="bilinear")
    whole("vae.picture", picture[0].permute(1, 2, 0))
    put("vae.latent", own_vae.encode(picture.to(torch.uint8).double() / 127.5 - 1)[0])
    z = torch.randn(1, BITS, 5, 6, generator=g).double()
    put("vae.z", z[0])
    put("vae.decoded", own_vae.decode(z)[0])
    drawings("draw", net, g, features)

    weights = bf16(random_transformer(g, 4 * BITS, 2, 2, 2))
    save_file(weights, folded / "transformer.safetensors")
    vae = bf16(random_vae(g, BITS, 8, [1, 2], False))
    save_file(vae, folded / "tokenizer.safetensors")
    settings = {"infinity": {"groups": 4}, "sample": {"width": 64, "height": 64}}
    (folded / "sitter.json").write_text(json.dumps(settings) + "\n")
    own_vae = Vae(vae, 4, torch.float64)
    put("folded.latent", own_vae.encode(picture.to(torch.uint8).double() / 127.5 - 1)[0, :, ::3])
    put("folded.decoded", own_vae.decode(z)[0])
    drawings("folded", Infinity(weights, torch.float64), g, features, True)

    lessons(net, g, features)
    steps(published, t5, g)
    arbooth(published, t5)
    out["positions"] = torch.tensor(list(json.dumps(position_sums()).encode()), dtype=torch.uint8)
    save_file(out, GOLDEN / "infinity.safetensors")


if __name__ == "__main__":
    main()
