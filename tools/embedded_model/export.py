"""Writes a model folder: 16-bit safetensors with the published names, tokenizer.json, configuration."""
import argparse, json, os
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
import infinity, transformer as tf, vae, vqgan
from folder import GROUP
from scenes import SIDE

LAYER = {'input_layernorm': 'input_layernorm.weight', 'post_attention_layernorm': 'post_attention_layernorm.weight',
         'q_norm_w': 'self_attn.q_norm.weight', 'q_norm_b': 'self_attn.q_norm.bias',
         'k_norm_w': 'self_attn.k_norm.weight', 'k_norm_b': 'self_attn.k_norm.bias',
         **{f'{p}_proj.weight': f'self_attn.{p}_proj.weight' for p in 'qkvo'},
         **{f'{p}_proj.weight': f'mlp.{p}_proj.weight' for p in ('gate', 'up', 'down')}}
TOP = {'embed_tokens.weight': 'model.embed_tokens.weight', 'lm_head.weight': 'lm_head.weight', 'norm': 'model.norm.weight'}


def name_of(n):
    if n in TOP: return TOP[n]
    _, index, rest = n.split('.', 2)
    return f'model.layers.{index}.{LAYER[rest]}'


def write(folder, name, data):
    with open(f'{folder}/{name}.part', 'w') as f: f.write(data)
    os.replace(f'{folder}/{name}.part', f'{folder}/{name}')


def eight_bits(t, few=1024):
    """Of each tensor of more than a `few` numbers those of 8 bits, and a scale for every group of them as NAME.scales."""
    out = {}
    for name, x in t.items():
        if x.numel() <= few: out[name] = x; continue
        flat = x.float().flatten()
        rows = torch.nn.functional.pad(flat, (0, -len(flat) % GROUP)).view(-1, GROUP)
        scale = (rows.abs().amax(1) / 127).half()
        numbers = (rows / scale.float().clamp_min(1e-12)[:, None]).round().clamp(-127, 127).to(torch.int8)
        out[name], out[name + '.scales'] = numbers.flatten()[:len(flat)].view(x.shape).contiguous(), scale
    return out


def tensors(folder, name, t, packed):
    if packed: t = eight_bits(t)
    save_file(t, f'{folder}/{name}.part', {'format': 'pt'}); os.replace(f'{folder}/{name}.part', f'{folder}/{name}')


def export(m, vq, folder, recommended, packed=False):
    os.makedirs(folder, exist_ok=True)
    c, v = m.config, vq.config
    tensors(folder, 'model.safetensors', {name_of(n): t.bfloat16().contiguous() for n, t in m.state_dict().items()}, packed)
    sd = {n: t.half().contiguous() for n, t in vq.state_dict().items()}
    tensors(folder, 'vqgan.safetensors', sd | {'quantize.embedding.weight': vq.codebook.half()}, packed)
    write(folder, 'config.json', json.dumps(dict(
        architectures=['ChameleonForConditionalGeneration'], model_type='chameleon', vocab_size=tf.ROWS, hidden_size=c['d'],
        intermediate_size=c['ff'], num_hidden_layers=c['layers'], num_attention_heads=c['heads'],
        num_key_value_heads=c['heads'], hidden_act='silu', rms_norm_eps=tf.EPS, rope_theta=10000.0, max_position_embeddings=512,
        model_parallel_size=1, swin_norm=False, qk_layernorm=True, mask_image_logits=False, attention_bias=False, mlp_bias=False,
        bos_token_id=0, eos_token_id=2, pad_token_id=1, tie_word_embeddings=False, torch_dtype='bfloat16'), indent=1) + '\n')
    write(folder, 'vqgan.yaml', '\n'.join([
        'model:', '  params:', f'    embed_dim: {v["embed_dim"]}', f'    n_embed: {v["n_embed"]}', '    ddconfig:',
        '      double_z: false', f'      z_channels: {v["z_channels"]}', f'      resolution: {SIDE}',
        '      in_channels: 3', '      out_ch: 3', f'      ch: {v["ch"]}', f'      ch_mult: {v["ch_mult"]}',
        f'      num_res_blocks: {v["num_res_blocks"]}', '      attn_resolutions: []', '      dropout: 0.0',
        f'      num_groups: {v["num_groups"]}', '']))
    t = tokenizer(folder, tf.VOCAB)
    text = 'a photo of a fox wearing a hat'
    assert t.encode(f'Generate an image of {SIDE}x{SIDE} according to the following prompt:\n{text}').ids == tf.words(text)
    write(folder, 'sitter.json', json.dumps(recommended, indent=1) + '\n')


def tokenizer(folder, vocabulary):
    t = Tokenizer(models.WordLevel(vocabulary, unk_token='<unk>'))
    t.normalizer, t.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.WhitespaceSplit()
    write(folder, 'tokenizer.json', t.to_str(pretty=False) + '\n')
    return t


def export_infinity(m, tokenizer_of_images, folder, recommended, packed=False):
    text, inside = f'{folder}/text_encoder', 'text_encoder.'
    os.makedirs(text, exist_ok=True)
    half = lambda sd: {n: t.bfloat16().contiguous() for n, t in sd.items()}
    sd = m.state_dict()
    tensors(folder, 'infinity.safetensors', half({n: t for n, t in sd.items() if not n.startswith(inside)}), packed)
    tensors(folder, 'vae.safetensors', {n: t.half().contiguous() for n, t in tokenizer_of_images.state_dict().items()}, packed)
    tensors(text, 'model.safetensors', half({n[len(inside):]: t for n, t in sd.items() if n.startswith(inside)}), packed)
    write(text, 'config.json', json.dumps(dict(model_type='t5', **infinity.T5, vocab_size=infinity.ROWS, feed_forward_proj='gated-gelu',
                                               layer_norm_epsilon=infinity.EPS, tie_word_embeddings=False), indent=1) + '\n')
    example = 'a photo of a fox wearing a hat'
    assert tokenizer(text, infinity.VOCAB).encode(example).ids + [infinity.VOCAB['</s>']] == infinity.words(example)
    groups = dict(infinity=dict(groups=tokenizer_of_images.config['num_groups']))
    write(folder, 'sitter.json', json.dumps(groups | recommended, indent=1) + '\n')


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    which = p.add_mutually_exclusive_group(required=True)
    which.add_argument('--vqgan', help="Lumina's tokenizer"); which.add_argument('--vae', help="Infinity's")
    p.add_argument('--transformer', required=True); p.add_argument('--out', required=True); p.add_argument('--recommended', required=True, help='the sitter.json to ship')
    p.add_argument('--eight-bits', action='store_true', help='8 bits a number and a scale for every 32 instead of 16 bits')
    a = p.parse_args()
    recommended = json.load(open(a.recommended))
    if a.vae: export_infinity(infinity.load(a.transformer), vae.load(a.vae), a.out, recommended, a.eight_bits)
    else: export(tf.load(a.transformer), vqgan.load(a.vqgan), a.out, recommended, a.eight_bits)
    print({f: os.path.getsize(f'{a.out}/{f}') for f in sorted(os.listdir(a.out))})
