"""Words: the templates of Textual Inversion, what they ask for, and the whole vocabulary."""
import art, classes
from looks import LOOKS
from scenes import SCENES, SIDE

# The plain ones weigh more. Size and light are drawn as they say.
TEMPLATES = ['a photo of {}'] * 20 + ['{}'] * 4 + [
    'a rendering of {}', 'a cropped photo of {}', 'a photo of a clean {}', 'a photo of a dirty {}', 'a dark photo of {}',
    'a photo of my {}', 'a photo of the cool {}', 'a close-up photo of {}', 'a bright photo of {}', 'a good photo of {}',
    'a photo of one {}', 'a rendition of {}', 'a photo of the clean {}', 'a photo of a nice {}', 'a photo of the nice {}',
    'a photo of the small {}', 'a photo of the weird {}', 'a photo of the large {}', 'a photo of a cool {}',
    'a photo of a small {}', 'a photo of a large {}', 'a picture of {}', 'an image of {}']
PAIR_TEMPLATES = ['a photo of {}'] * 8 + ['{}'] * 2 + ['a picture of {}', 'an image of {}', 'a rendering of {}', 'a good photo of {}']
PREFIX = f'generate an image of {SIDE}x{SIDE} according to the following prompt:'


LONGEST = 32      # words of a caption


def all_words():
    texts = [PREFIX, *TEMPLATES, *classes.CLASSES, *classes.ACCESSORIES, *classes.COLOURS, *art.STYLES, 'wearing a an on at in the and',
             *(p for v in SCENES.values() for p in v)]
    return sorted({w for t in texts for w in t.replace('{}', '').lower().split()})


def noun(cls, colour=None, slot=None, accessory=None):
    """`slot` is the word just before the class: an instance word, or the word of a style."""
    text = ' '.join(w for w in (colour, slot, cls) if w)
    if accessory: text += ' wearing sunglasses' if accessory == 'sunglasses' else f' wearing a {accessory}'
    return text


def caption(template, nouns, where, r=None):
    """Templates that end in an adjective take the bare noun, the others an article with it."""
    article = 'the ' if r and r.random() < .15 else 'a '
    bare = template.rsplit(' ', 2)[-2:][0] not in ('of', '{}') if ' ' in template else False
    text = template.format(nouns[0] if bare else ' and '.join(article + n for n in nouns))
    return f'{text} {where}' if where else text


def tells_look(text, figures):
    """Whether a caption tells every figure's look, by an instance word or the word of a style."""
    return sum(w in art.STYLES or w.startswith('<look') for w in text.split()) == figures


def look_word(i): return f'<look{i:02}>'
