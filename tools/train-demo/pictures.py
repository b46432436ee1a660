"""The world of the demo cascade: scenes, the captions that describe them, and their exact pictures.

A scene is eight slots: one object, or two objects and the relation between them, on a background.
Everything else follows from the slots: `caption` and `paraphrase` put them into words, `place`
turns them into geometry, and `draw` samples that geometry on any pixel grid, so that the 64-, 256-
and 1024-pixel targets of the three stages show the same picture. No network and no file is
involved.
"""

import functools
import random
import zlib
from dataclasses import astuple, dataclass

import torch

SIZES = ["", "small", "large"]
COLOURS = ["red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "brown", "black"]
SHAPES = ["circle", "square", "triangle", "star", "ring", "cross", "diamond", "heart"]
RELATIONS = ["", "above", "below", "to the left of", "to the right of"]
BACKGROUNDS = ["white", "gray", "black", "cream", "mint", "navy"]

COLOUR_RGB = torch.tensor([
    [0.86, 0.12, 0.14], [0.98, 0.55, 0.08], [0.97, 0.87, 0.15], [0.13, 0.60, 0.22], [0.10, 0.78, 0.85],
    [0.13, 0.28, 0.85], [0.50, 0.17, 0.66], [0.97, 0.52, 0.72], [0.45, 0.26, 0.12], [0.06, 0.06, 0.07],
])
BACKGROUND_RGB = torch.tensor([
    [0.97, 0.97, 0.97], [0.60, 0.60, 0.62], [0.06, 0.06, 0.07], [0.96, 0.90, 0.76], [0.72, 0.92, 0.80], [0.10, 0.13, 0.33],
])

# Half the extent of an object, as a share of the picture's width, by SIZES (no word: medium).
RADIUS_ALONE = [0.25, 0.17, 0.36]
RADIUS_IN_PAIR = [0.175, 0.13, 0.225]
PAIR_OFFSET = 0.235  # how far each of two objects stands from the centre


@dataclass(frozen=True)
class Scene:
    """Indices into the lists above. With `relation` 0 the second object does not exist (its slots
    are 0). `background` -1 is a caption that names none; it is drawn white."""

    size1: int
    colour1: int
    shape1: int
    relation: int
    size2: int
    colour2: int
    shape2: int
    background: int

    @property
    def drawn_background(self):
        return max(self.background, 0)

    def possible(self):
        """Black on black cannot be seen, and two equal objects leave nothing to bind."""
        on_black = BACKGROUNDS[self.drawn_background] == "black"
        black = COLOURS.index("black")
        if on_black and (self.colour1 == black or (self.relation and self.colour2 == black)):
            return False
        return not (self.relation and (self.colour1, self.shape1) == (self.colour2, self.shape2))

    def held_out(self):
        """One scene in ten is never trained on, chosen by a hash of the slots so that every run
        agrees."""
        return zlib.crc32(repr(astuple(self)).encode()) % 10 == 0


def random_scene(rng: random.Random, pair_share=0.75):
    while True:
        pair = rng.random() < pair_share
        scene = Scene(
            rng.choice((0, 0, 1, 2)), rng.randrange(10), rng.randrange(8),
            rng.randrange(1, 5) if pair else 0,
            rng.choice((0, 0, 1, 2)) if pair else 0, rng.randrange(10) if pair else 0, rng.randrange(8) if pair else 0,
            rng.randrange(-1, 6),
        )
        if scene.possible():
            return scene


def random_training_scene(rng: random.Random, pair_share=0.75):
    while True:
        scene = random_scene(rng, pair_share)
        if not scene.held_out():
            return scene


def held_out_scenes(pairs, singles, seed=2205):
    """A fixed list of distinct scenes that training never sees: `pairs` of two objects, then
    `singles`."""
    rng, wanted, scenes = random.Random(seed), {True: pairs, False: singles}, {True: [], False: []}
    while any(len(scenes[k]) < wanted[k] for k in wanted):
        scene = random_scene(rng, 0.5)
        found = scenes[scene.relation > 0]
        if scene.held_out() and len(found) < wanted[scene.relation > 0] and scene not in found:
            found.append(scene)
    return scenes[True] + scenes[False]


# ---- words ---- A phrase is a list of (word, owner): owner 1 or 2 is the object that the word
# describes, 0 neither.

def text(phrase):
    return " ".join(word for word, _ in phrase)


def own(words, owner=0):
    return [(word, owner) for word in (words.split() if isinstance(words, str) else words) if word]


def caption(scene: Scene):
    """The canonical sentence of a scene, as a phrase."""
    def thing(owner, size, colour, shape):
        words = [w for w in (SIZES[size], COLOURS[colour], SHAPES[shape]) if w]
        return own(["an" if words[0][0] in "aeiou" else "a"] + words, owner)

    phrase = thing(1, scene.size1, scene.colour1, scene.shape1)
    if scene.relation:
        phrase += own(RELATIONS[scene.relation]) + thing(2, scene.size2, scene.colour2, scene.shape2)
    if scene.background >= 0:
        phrase += own(f"on a {BACKGROUNDS[scene.background]} background")
    return phrase


SIZE_WORDS = [["medium"], ["small", "little", "tiny"], ["large", "big", "huge"]]
COLOUR_WORDS = {"cyan": ["cyan", "turquoise"], "purple": ["purple", "violet"]}
SHAPE_WORDS = {"circle": ["circle", "disc", "disk"], "ring": ["ring", "hoop"], "cross": ["cross", "plus"], "diamond": ["diamond", "rhombus"]}
RELATION_WORDS = [
    [],
    ["above", "over", "on top of"],
    ["below", "under", "beneath", "underneath"],
    # What stands first is read, and drawn, first.
    ["to the left of", "left of", "on the left of", "next to", "beside", "and"],
    ["to the right of", "right of", "on the right of"],
]
BACKGROUND_WORDS = {"gray": ["gray", "grey"]}
OPENINGS = ["a picture of", "an image of", "a photo of", "a drawing of", "a painting of", "there is"]
UNKNOWN = "unheard"  # stands for any word outside the vocabulary


def paraphrase(scene: Scene, rng: random.Random):
    """A scene as people might put it, as a phrase: synonyms, other orders, dropped articles, now
    and then a word nobody taught the model."""
    def thing(owner, size, colour, shape):
        words = [rng.choice(("a", "a", "the", "one", ""))]
        if size or rng.random() < 0.1:
            words.append(rng.choice(SIZE_WORDS[size]))
        words += [rng.choice(COLOUR_WORDS.get(COLOURS[colour], [COLOURS[colour]])), rng.choice(SHAPE_WORDS.get(SHAPES[shape], [SHAPES[shape]]))]
        if words[0] == "a" and words[1] == "orange":
            words[0] = "an"
        return own(words, owner)

    phrase = thing(1, scene.size1, scene.colour1, scene.shape1)
    if scene.relation:
        second = thing(2, scene.size2, scene.colour2, scene.shape2)
        relation = rng.choice(RELATION_WORDS[scene.relation])
        if relation not in ("and", "next to", "beside") and rng.random() < 0.15:
            phrase = own(relation) + second + own(rng.choice(("is", ""))) + phrase
        else:
            phrase = phrase + own(rng.choice(("is", "", ""))) + own(relation) + second
    if scene.background >= 0:
        colour = BACKGROUNDS[scene.background]
        colour = rng.choice(BACKGROUND_WORDS.get(colour, [colour]))
        behind = own(rng.choice((f"on a {colour} background", f"on a {colour} background", f"on {colour}", f"with a {colour} background",
                                 f"in front of a {colour} background", f"{colour} background")))
        phrase = behind + phrase if rng.random() < 0.08 else phrase + behind
    if rng.random() < 0.05:
        phrase = own(rng.choice(OPENINGS)) + phrase
    for _ in range(rng.choice((0, 0, 0, 0, 0, 0, 0, 1, 1, 2))):
        phrase.insert(rng.randrange(len(phrase) + 1), (UNKNOWN, 0))
    return phrase


def vocabulary():
    """Every word that `caption` and `paraphrase` can say, and a few that cost nothing, in a fixed
    order."""
    lists = [*SIZE_WORDS, COLOURS, *COLOUR_WORDS.values(), SHAPES, *SHAPE_WORDS.values(), *RELATION_WORDS, BACKGROUNDS, *BACKGROUND_WORDS.values(), OPENINGS]
    phrases = [phrase for words in lists for phrase in words] + ["a", "an", "the", "one", "is", "on", "in", "front", "of", "with", "background"]
    return list(dict.fromkeys(word for phrase in phrases for word in phrase.split()))


# ---- geometry ----

def place(scenes, generator=None, position_jitter=0.010, size_jitter=0.03):
    """Geometry of a batch: `shape`, `colour` [B,2] i64, `rgb` [B,2,3], `centre` [B,2,2] (x right, y
    down, 0…1), `radius` [B,2] (0: absent), `background` [B,3]. With a generator, objects stray a
    little from their canonical places."""
    return place_slots(torch.tensor([astuple(s) for s in scenes]), generator, position_jitter, size_jitter)


def place_slots(slots, generator=None, position_jitter=0.010, size_jitter=0.03):
    """The same for scenes given as their slots [B,8] i64, on the slots' device, where the generator
    must be too."""
    tables = tables_on(slots.device)
    relation = slots[:, 3]
    pair = relation > 0
    direction = tables["direction"][relation]
    centre = 0.5 + PAIR_OFFSET * torch.stack([direction, -direction], 1)
    sizes = slots[:, 0::4]
    radius = torch.where(pair[:, None], tables["radius in pair"][sizes], tables["radius alone"][sizes])
    if generator is not None:
        uniform = lambda shape: torch.rand(shape, generator=generator, device=generator.device)
        centre = centre + position_jitter * (2 * uniform(centre.shape) - 1)
        radius = radius * (1 + size_jitter * (2 * uniform(radius.shape) - 1))
    radius[:, 1] *= pair
    colour = slots[:, 1::4]
    return {
        "shape": slots[:, 2::4], "colour": colour, "rgb": tables["colours"][colour], "centre": centre, "radius": radius,
        "background": tables["backgrounds"][slots[:, 7].clamp(min=0)],
    }


@functools.cache
def tables_on(device):
    """The constants that `place_slots` looks up; they go to a device once, since each copy would
    make it wait."""
    tables = {
        "direction": torch.tensor([[0.0, 0.0], [0.0, -1.0], [0.0, 1.0], [-1.0, 0.0], [1.0, 0.0]]),
        "radius in pair": torch.tensor(RADIUS_IN_PAIR), "radius alone": torch.tensor(RADIUS_ALONE),
        "colours": COLOUR_RGB, "backgrounds": BACKGROUND_RGB,
    }
    return {name: table.to(device) for name, table in tables.items()}


def distance(shape, x, y):
    """Signed distance (negative inside) to the outline of shape index `shape`, whose extent is
    about −1…1; exact or nearly so at the outline."""
    name = SHAPES[shape]
    if name == "circle":
        return (x * x + y * y).sqrt() - 0.95
    if name == "ring":
        return ((x * x + y * y).sqrt() - 0.75).abs() - 0.25
    if name == "square":
        return torch.maximum(x.abs(), y.abs()) - 0.84
    if name == "diamond":  # taller than wide, to differ from a square at a glance
        return (x.abs() * 1.25 + y.abs() - 1.0) / 1.6008
    if name == "cross":
        x, y = x.abs(), y.abs()
        return torch.minimum(torch.maximum(x - 0.95, y - 0.31), torch.maximum(x - 0.31, y - 0.95))
    if name == "triangle":  # apex up; sides of slope 2
        return torch.maximum((x.abs() * 1.8 - (y + 0.95)) / 2.0591, y - 0.80)
    if name == "star":  # fold the plane into half an arm, then it is one straight edge
        angle = torch.atan2(x, -y - 0.05)
        length = (x * x + (y + 0.05).square()).sqrt()
        tenth = torch.pi / 5
        angle = (torch.remainder(angle + tenth, 2 * tenth) - tenth).abs()
        px, py = length * angle.cos(), length * angle.sin()
        ax, ay = 1.02, 0.0  # an arm's tip; the notch lies at radius 0.45, a tenth of a turn on
        bx, by = 0.45 * 0.8090170, 0.45 * 0.5877853
        nx, ny = by - ay, ax - bx
        return ((px - ax) * nx + (py - ay) * ny) / (nx * nx + ny * ny) ** 0.5
    if name == "heart":  # a square on its corner with half-discs on its upper sides
        x, y = x.abs() / 0.87, y / 0.87 - 0.1
        body = (x + y.abs() - 0.94) / 2**0.5
        lobe = ((x - 0.47).square() + (y + 0.47).square()).sqrt() - 0.94 / 2**0.5
        return torch.minimum(body, lobe) * 0.87
    raise ValueError(f"no such shape: {name}")


def draw(geometry, xs, ys, pixel):
    """Sample pictures at points `xs`, `ys` (0…1, each broadcastable to [B,H,W]), softened at
    outlines over one pixel, `pixel` wide. Returns [B,3,H,W] in −1…1."""
    _, height, width = torch.broadcast_shapes(xs.shape, ys.shape)
    covers = (covers_shape_by_shape if xs.device.type == "cpu" else covers_at_once)(geometry, xs, ys, pixel)
    picture = geometry["background"][:, :, None, None].expand(-1, -1, height, width)
    for i in (1, 0):
        picture = picture + covers[i][:, None] * (geometry["rgb"][:, i, :, None, None] - picture)
    return picture * 2 - 1


def covers_shape_by_shape(geometry, xs, ys, pixel):
    """How much of each pixel the first and the second objects cover, [B,H,W] each. Only what a row
    shows is computed."""
    covers = []
    for i in (0, 1):
        cover = torch.zeros(torch.broadcast_shapes(xs.shape, ys.shape))
        radius = geometry["radius"][:, i]
        for shape in range(len(SHAPES)):
            chosen = ((geometry["shape"][:, i] == shape) & (radius > 0)).nonzero()[:, 0]
            if len(chosen):
                r = radius[chosen, None, None]
                x = (xs[chosen] - geometry["centre"][chosen, i, 0, None, None]) / r
                y = (ys[chosen] - geometry["centre"][chosen, i, 1, None, None]) / r
                cover[chosen] = (0.5 - distance(shape, x, y) * r / pixel).clamp(0, 1)
        covers.append(cover)
    return covers


def covers_at_once(geometry, xs, ys, pixel):
    """The same for a card, which computes every shape for every row sooner than it would tell the
    processor which rows need it."""
    radius = geometry["radius"][:, :, None, None]
    r = torch.where(radius > 0, radius, 1.0)
    x = (xs[:, None] - geometry["centre"][:, :, 0, None, None]) / r
    y = (ys[:, None] - geometry["centre"][:, :, 1, None, None]) / r
    nearest = distance(0, x, y)
    for shape in range(1, len(SHAPES)):
        nearest = torch.where(geometry["shape"][:, :, None, None] == shape, distance(shape, x, y), nearest)
    return ((0.5 - nearest * r / pixel).clamp(0, 1) * (radius > 0)).unbind(1)


def draw_whole(geometry, size):
    """The pictures at `size` × `size` pixels, [B,3,size,size] in −1…1."""
    line = torch.arange(size, device=geometry["radius"].device)
    centres = ((line + 0.5) / size).expand(len(geometry["radius"]), size)
    return draw(geometry, centres[:, None, :], centres[:, :, None], 1 / size)
