#!/usr/bin/env python3
"""Compares infinity.py with the published code on a small random model, and its text encoder with transformers'.

    python tools/golden/infinity_check.py CHECKOUT_OF_FOUNDATIONVISION_INFINITY

Needs einops and transformers; timm, flash_attn and the like are replaced by what is needed of them. The bf16 casts of the published
cross-attention are taken out. Last run with torch 2.15.0 and transformers 5.23.0 against Infinity 4c27bbb, all in f32: text
features differ by at most 7e-6 of 4, latents and decoder by 3e-6, labels under the same flips not at all, inputs by 5e-7, logits of
training by 2e-6 of 4, of drawing by 7e-6 of 13, pixels by 1; for the ratios 1, 1.5, 0.5, 3 and 0.333, and with spatial patchify.
"""

import os
import sys
import types

os.environ["TORCHDYNAMO_DISABLE"] = "1"
import torch
import torch.nn as nn
import torch.nn.functional as F

import infinity as ours


def stub(name, **things):
    module = types.ModuleType(name)
    module.__dict__.update(things)
    sys.modules[name] = module
    return module


class DropPath(nn.Module):
    def __init__(self, p=0.0):
        super().__init__()
        self.p, self.fixed = p, 1.0

    def forward(self, x):
        return x * self.fixed


def flash_attn_func(q, k, v, dropout_p=0.0, softmax_scale=None):
    raise NotImplementedError


def varlen(q, kv, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p=0, softmax_scale=None):
    out = []
    for b in range(len(cu_seqlens_q) - 1):
        qs = q[cu_seqlens_q[b]:cu_seqlens_q[b + 1]][None]
        k, v = kv[cu_seqlens_k[b]:cu_seqlens_k[b + 1]].unbind(1)
        out.append(ours.attend(qs, k[None], v[None], softmax_scale)[0])
    return torch.cat(out)


class Hide:
    """Not bf16: what the published cross-attention converts to."""

    def __getattr__(self, name):
        return torch.float32 if name == "bfloat16" else getattr(torch, name)


def published(path):
    sys.path.insert(0, path)
    stub("flash_attn", flash_attn_func=flash_attn_func, flash_attn_varlen_kvpacked_func=varlen)
    layers = stub("timm.models.layers", DropPath=DropPath, drop_path=None, to_2tuple=None)
    models = stub("timm.models", register_model=lambda f: f, layers=layers)
    stub("timm", models=models)
    for name in ("imageio", "cv2", "torchvision", "pytz", "tqdm", "seaborn", "colorama", "psutil", "wandb"):
        try:
            __import__(name)
        except ImportError:
            stub(name)
    tv = sys.modules["torchvision"]
    if not hasattr(tv, "transforms"):
        tv.transforms = stub("torchvision.transforms")
    # Helpers of several processes, of which there is one.
    identity = lambda *a, **k: None
    dist = stub("infinity.utils.dist", get_world_size=lambda: 1, get_rank=lambda: 0, get_device=lambda: "cpu",
                barrier=identity, allreduce=identity, for_visualize=lambda f: f, is_master=lambda: True)
    misc = stub("infinity.utils.misc")
    utils = stub("infinity.utils", dist=dist, misc=misc)
    utils.__path__ = [path + "/infinity/utils"]
    stub("infinity.models.flex_attn", FlexAttn=None)
    package = stub("infinity.models")
    package.__path__ = [path + "/infinity/models"]
    top = stub("infinity")
    top.__path__ = [path + "/infinity"]
    import infinity.models.basic as basic
    import infinity.models.infinity as model
    import infinity.models.bsq_vae.vae as vae
    import infinity.models.bitwise_self_correction as correction
    basic.torch = Hide()
    return model, vae, correction


def gap(name, a, b):
    print(f"{name}: {(a - b).abs().max().item():.2e} of {b.abs().max().item():.2f}")


@torch.no_grad()
def transformer(path):
    model, vae_file, correction = published(path)
    torch.manual_seed(3)
    real = vae_file.AutoEncoder
    vae_file.AutoEncoder = lambda args: real(types.SimpleNamespace(**{**vars(args), "base_ch": 24}))
    # Channels change at each level.
    vae = vae_file.vae_model({}, "dynamic", 8, 2**8, patch_size=4, encoder_ch_mult=[2, 1, 4], decoder_ch_mult=[2, 1, 4])
    own_vae = ours.Vae({k: v for k, v in vae.state_dict().items() if "lfq" not in k})
    picture = torch.rand(1, 3, 64, 48) * 2 - 1
    raw = vae.encode_for_raw_features(picture, scale_schedule=None)[0]
    gap("latent", own_vae.encode(picture), raw.reshape(1, 8, 16, 12))
    z = torch.randn(1, 8, 5, 6)
    gap("decoder", own_vae.decode(z).clamp(-1, 1), vae.decode(z))

    # The published rotary tables are made for every ratio; turned ratios have keys of three digits.
    for ratio, chunks, patchify in ((1.0, 2, 0), (1.5, 2, 0), (0.5, 4, 0), (3.0, 2, 0), (0.333, 2, 0), (1.0, 2, 1)):
        torch.manual_seed(5)
        net = model.Infinity(
            vae_local=vae, text_channels=256, text_maxlen=40, shared_aln=True, raw_scale_schedule=None,
            checkpointing="full-block", customized_flash_attn=False, fused_norm=True, pad_to_multiplier=128,
            use_flex_attn=False, add_lvl_embeding_only_first_block=0 if chunks == 4 else 1, use_bit_label=1,
            rope2d_each_sa_layer=1, rope2d_normalized_by_hw=2, pn="0.06M", apply_spatial_patchify=patchify,
            inference_mode=True, train_h_div_w_list=[1.0], depth=4, embed_dim=64, num_heads=4, drop_path_rate=0.1,
            mlp_ratio=4, block_chunks=chunks, cond_drop_rate=0.0)
        for name, p in net.named_parameters():
            if p.ndim == 1 or "bias" in name or "scale_mul" in name:
                p.data += torch.randn_like(p) * 0.3
            else:
                p.data = torch.randn_like(p) * p.shape[-1] ** -0.5
        net.train()
        own = ours.Infinity(net.state_dict(), each_chunk=chunks == 4)
        pn = "0.06M"
        table = model.dynamic_resolution_h_w[ratio][pn]["scales"]
        scales = ours.scales_of(ratio, pn)
        full = ours.scales_of(ratio)[-1]
        assert [tuple(s[1:]) for s in table] == scales
        schedule = [(1, h, w) for h, w in scales]
        grid = [(1, 2 * h, 2 * w) for h, w in scales] if patchify else schedule
        texts = [torch.randn(5, 256), torch.randn(9, 256)]
        lengths = [len(t) for t in texts]
        cu = torch.tensor([0, lengths[0], sum(lengths)], dtype=torch.int32)
        compact = lambda: (torch.cat(texts).clone(), lengths, cu, max(lengths))

        latent = torch.randn(2, 8, *grid[-1][1:])
        flips = []
        rand = torch.rand
        torch.rand = lambda *shape, **k: flips.append(rand(*shape)) or flips[-1]
        args = types.SimpleNamespace(noise_apply_layers=13, noise_apply_requant=1, noise_apply_strength=0.3,
                                     apply_spatial_patchify=patchify, debug_bsc=0)
        import numpy as np
        np.random.seed(0)
        strengths = [np.random.randint(0, 100 * 0.3 + 1) * 0.01 for _ in scales]
        np.random.seed(0)
        inputs, labels = correction.BitwiseSelfCorrection(vae, args).flip_requant(grid, None, latent, "cpu")
        torch.rand = rand
        flips = [(f < s).float().squeeze(1).permute(0, 3, 1, 2) for f, s in zip(flips, strengths)]
        own_labels, own_inputs, _ = ours.quantise(latent, scales, flips, bool(patchify))
        wrong = sum((a != b).sum().item() for a, b in zip(own_labels, labels))
        print(f"{ratio} {'patchify' if patchify else ''}: {wrong} labels differ of {sum(b.numel() for b in labels)}")
        gap("  inputs", torch.cat(own_inputs, 1), inputs)
        logits = net(compact(), inputs, scale_schedule=schedule)
        for b, text in enumerate(texts):
            found = own.forward(text, [z[b:b + 1] for z in own_inputs], scales, full)
            gap("  training logits", found[0], logits[b])
        for cfg in (1.0, 3.0):
            chosen, seen = [], []
            def keep(l, **k):
                seen.append(l.clone())
                chosen.append((l.softmax(-1)[..., 1] > torch.rand(l.shape[:2])).long())
                return chosen[-1].unsqueeze(-1)
            model.sample_with_top_k_top_p_also_inplace_modifying_logits_ = keep
            single = (texts[0].clone(), [5], cu[:2], 5)
            _, _, image = net.autoregressive_infer_cfg(
                vae=vae, scale_schedule=schedule, label_B_or_BLT=single, B=1, g_seed=0, cfg_list=[cfg] * 7,
                tau_list=[1.0] * 7, top_k=900, top_p=0.97, returns_vemb=1, vae_type=8, inference_mode=True,
                cfg_insertion_layer=[0], gt_leak=0, ret_img=True)
            bits = [c.view(-1, 8 * (4 if patchify else 1)).float() for c in chosen]
            found, total = own.draw(texts[0], scales, full, cfg, lambda s, l: bits[s], patchify=bool(patchify))
            gap(f"  guided by {cfg}", torch.cat([f.view(1, -1, 2) for f in found], 1), torch.cat(seen, 1))
            own_image = ((own_vae.decode(total).clamp(-1, 1) + 1) / 2 * 255).to(torch.uint8)[0].permute(1, 2, 0).flip(2)
            print("  pixels differ by", (own_image.int() - image[0].int()).abs().max().item())


@torch.no_grad()
def text_encoder():
    from transformers import T5Config, T5EncoderModel
    config = dict(vocab_size=120, d_model=64, d_kv=8, d_ff=96, num_layers=3, num_heads=4, feed_forward_proj="gated-gelu",
                  relative_attention_num_buckets=32, relative_attention_max_distance=128, layer_norm_epsilon=1e-6)
    torch.manual_seed(1)
    theirs = T5EncoderModel(T5Config(**config)).eval()
    for p in theirs.parameters():
        p.data += torch.randn_like(p) * 0.1
    own = ours.T5(config, theirs.state_dict())
    for n in (1, 9, 300):
        ids = torch.randint(120, (n,))
        gap(f"text of {n}", own.forward(ids), theirs(ids[None]).last_hidden_state[0])


if __name__ == "__main__":
    text_encoder()
    transformer(sys.argv[1])
