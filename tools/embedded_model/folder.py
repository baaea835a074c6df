"""Reads a model folder as it ships, so that what is measured is what users get: the rounded files, of 16 bits or of 8."""
import json, re
from safetensors.torch import load_file
import vqgan

GROUP = 32      # numbers of 8 bits that share a scale


def unpack(t):
    """Numbers of 8 bits times the scale of their group, as export.py made them; other tensors as they are."""
    for name in [n for n in t if n.endswith('.scales')]:
        scales, of = t.pop(name).float(), name.removesuffix('.scales')
        t[of] = (t[of].float().flatten() * scales.repeat_interleave(GROUP)[:t[of].numel()]).view(t[of].shape)
    return t


def tensors(path): return {n: x.float() for n, x in unpack(load_file(path)).items()}


def yaml_number(text, name): return int(re.search(rf'^\s*{name}:\s*(\d+)', text, re.M).group(1))


def open_tokenizer(path):
    text = open(f'{path}/vqgan.yaml').read()
    c = {k: yaml_number(text, k) for k in ('ch', 'num_res_blocks', 'z_channels', 'embed_dim', 'n_embed', 'num_groups')}
    c['ch_mult'] = [int(x) for x in re.search(r'ch_mult:\s*\[(.*)\]', text).group(1).split(',')]
    vq, sd = vqgan.VQGAN(**c), tensors(f'{path}/vqgan.safetensors')
    vq.set_codebook(sd.pop('quantize.embedding.weight')); vq.load_state_dict(sd)
    return vq.eval()


def open_folder(path):
    vq = open_tokenizer(path)
    import export, transformer as tf
    k = json.load(open(f'{path}/config.json'))
    m = tf.Transformer(d=k['hidden_size'], layers=k['num_hidden_layers'], heads=k['num_attention_heads'], ff=k['intermediate_size'])
    sd = tensors(f'{path}/model.safetensors')
    m.load_state_dict({n: sd[export.name_of(n)] for n in m.state_dict()})
    return m.eval(), vq, json.load(open(f'{path}/sitter.json'))['sample']


def open_infinity(path):
    import infinity
    sd, text = tensors(f'{path}/infinity.safetensors'), tensors(f'{path}/text_encoder/model.safetensors')
    m = infinity.Infinity(width=sd['word_embed.weight'].shape[0], hidden=sd['block_chunks.0.module.0.ffn.fc1.weight'].shape[0])
    m.load_state_dict(sd | {f'text_encoder.{n}': t for n, t in text.items()})
    return m.eval()
