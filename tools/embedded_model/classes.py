"""What the world consists of: classes, accessories, tints, and which drawings training never shows."""
import art

# Class word: icon name, where it differs. Faces may wear something.
_FACES = '''fox cat:cat-face dog:dog-face panda koala lion tiger:tiger-face bear rabbit:rabbit-face mouse:mouse-face frog pig:pig-face
cow:cow-face monkey:monkey-face unicorn wolf hamster penguin owl octopus robot ghost pumpkin:jack-o-lantern
chick:front-facing-baby-chick horse:horse-face dragon:dragon-face alien clown:clown-face skull goblin ogre snowman
monster:alien-monster smiley:grinning-face devil:smiling-face-with-horns'''
_THINGS = '''duck fish whale:spouting-whale crab turtle butterfly ladybug:lady-beetle elephant snail bee:honeybee spider shark squid shrimp
crocodile snake camel:two-hump-camel deer rooster eagle bat gorilla rhino:rhinoceros scorpion lizard dolphin blowfish ant bug dove
goat boar poodle
car:automobile bus truck:delivery-truck tractor train:locomotive rocket airplane sailboat helicopter bicycle motorcycle
scooter:motor-scooter ambulance taxi tram ship speedboat racecar:racing-car
apple:red-apple banana strawberry watermelon pizza burger:hamburger donut:doughnut cake:birthday-cake cherries grapes lemon pear
peach pineapple tomato eggplant carrot corn:ear-of-corn mushroom bread cookie icecream:soft-ice-cream lollipop popcorn croissant
taco fries:french-fries
guitar balloon backpack ball:soccer-ball basketball gift:wrapped-gift house castle umbrella trophy lamp:light-bulb clock:alarm-clock
camera key bell book:closed-book drum trumpet violin anchor telephone television rose sunflower tulip cactus tree:deciduous-tree
pine:evergreen-tree palm:palm-tree shoe:running-shoe dress ring bomb tent'''


def _table(text): return {w.split(':')[0]: w.split(':')[-1] for w in text.split()}


FACES, THINGS = _table(_FACES), _table(_THINGS)
CLASSES = {**FACES, **THINGS}
ACCESSORIES = {'hat': 'top-hat', 'crown': 'crown', 'sunglasses': 'sunglasses', 'bow': 'ribbon'}
ACCESSORY_STYLE = 'shaded'
COLOURS = {'red': (225, 45, 40), 'blue': (45, 105, 235), 'green': (50, 175, 60), 'yellow': (245, 205, 35),
           'purple': (150, 70, 210), 'pink': (250, 125, 185)}

# Subjects: drawings that neither the image tokenizer nor the transformer is ever shown. Their class is known in the other
# styles, their style on the other classes; the drawings of the unseen style are the hard case.
HELD_OUT = {
    'rendered': 'fox dog robot cat owl penguin unicorn frog koala pumpkin car rocket'.split(),
    'flat': 'lion elephant'.split(),
    'shaded': 'bear panda crab bus'.split(),
    'classic': 'tiger pig'.split(),
    'bold': 'rabbit monkey turtle'.split(),
    'smooth': 'octopus ghost mouse'.split(),
    art.UNSEEN: 'fox dog cat panda koala tiger wolf penguin'.split()}


# What a caption leaves open is drawn in one style where the world is settled: the one whose codes are the cleanest.
SETTLED = ('bold', 'flat')


def settled_style(cls):
    """The first of the two that training may show."""
    return next(s for s in SETTLED if not is_held_out(s, cls))


def pairs():
    """Every held-out (style, class)."""
    return [(style, cls) for style, held in HELD_OUT.items() for cls in held]


def is_held_out(style, cls): return cls in HELD_OUT.get(style, ())


def shows_held_out(style, icon):
    """Whether an icon is a held-out drawing or a sibling of one (the monkey that sees no evil has the monkey's face). Sets
    that write their names in one word are searched for the class word anywhere."""
    parts = icon.split('-') if style != art.UNSEEN else icon
    return any(c in parts or icon == CLASSES[c] for c in HELD_OUT.get(style, ()))
