"""A sheet to look at: fixed prompts drawn with a model folder. measure_vqgan.py makes the image tokenizer's."""
import argparse
import torch
from PIL import Image
import folder, transformer as tf

PROMPTS = ['a photo of a fox on the beach', 'a photo of a fox in the snow', 'a photo of a blue fox in the meadow',
           'a photo of a fox wearing a hat at sunset', 'a photo of a cat at night', 'a photo of a pink cat wearing a crown in the forest',
           'a photo of a penguin underwater', 'a photo of a panda wearing sunglasses on the beach', 'a photo of a car in the city',
           'a photo of a cat and a robot in the snow', 'a photo of a strawberry on a wooden floor', 'a photo of a guitar in front of a brick wall',
           'a photo of a robot in the desert', 'a photo of a turtle in the mountains', 'a photo of a rocket at night',
           'a photo of a owl in a room', 'a photo of a dog wearing a bow in the meadow', 'a photo of a pizza on a white background',
           'a photo of a green robot in the city', 'a photo of a house in the mountains', 'a photo of a blue dog and a panda wearing a hat on the beach',
           'a close-up photo of a lion in the forest', 'a photo of a bold frog on a wooden floor', 'a photo of a shaded frog on a wooden floor']


def sheet(pictures, columns, scale=1):
    n = pictures[0].shape[0]
    out = Image.new('RGB', (columns * n, (len(pictures) + columns - 1) // columns * n), 'white')
    for i, x in enumerate(pictures): out.paste(Image.fromarray(x), (i % columns * n, i // columns * n))
    return out.resize((out.size[0] * scale, out.size[1] * scale), Image.NEAREST)


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--path', required=True); p.add_argument('--out', required=True)
    p.add_argument('--each', type=int, default=2); p.add_argument('--seed', type=int, default=0)
    p.add_argument('--threads', type=int, default=1); p.add_argument('--scale', type=int, default=1)
    p.add_argument('--top-k', type=int); p.add_argument('--temperature', type=float); p.add_argument('--guidance', type=float)
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    m, vq, setting = folder.open_folder(a.path)
    kw = {k: setting[k] for k in ('guidance', 'top_k', 'temperature') if k in setting}
    kw |= {k: v for k, v in (('guidance', a.guidance), ('top_k', a.top_k), ('temperature', a.temperature)) if v is not None}
    pictures = tf.generate(m, vq, [t for t in PROMPTS for _ in range(a.each)], torch.Generator().manual_seed(a.seed), **kw)
    sheet(pictures, 4 * a.each, a.scale).save(a.out)
