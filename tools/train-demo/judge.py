"""Does a picture show what its caption says? Judged without a network, by measuring.

The background is read off the frame. What differs from it is foreground; two objects are told apart
by the half of the picture they stand in. Each object's colour is the palette's nearest; how far
each pixel lies on the way from background to that colour is its cover, softened outlines included;
the covers are compared with all eight shapes, fitted in place and size. A picture that shows the
right things in the wrong places loses position only: objects are matched to the caption by what
they are, then their places are compared.
"""

import re
from dataclasses import dataclass

import torch
from torch.nn import functional as F

import pictures
from pictures import BACKGROUNDS, COLOURS, PAIR_OFFSET, RADIUS_ALONE, RADIUS_IN_PAIR, RELATIONS, SHAPES, SIZES, Scene

ASPECTS = ["background", "colour", "shape", "size", "position"]
FOREGROUND = 0.13  # a pixel this far (RGB, 0…1) from the background's colour is foreground
PURE = 0.7  # the share of an object's foreground that must be nearest to its colour
OVERLAP = 0.80  # intersection over union with the best-fitting shape
NEAR = 0.07  # how far, in picture widths, an object may stand from its place


@dataclass
class Verdict:
    background: bool
    colour: bool
    shape: bool
    size: bool
    position: bool
    edge_width: float  # mean width of the outlines' soft part, in pixels

    @property
    def all(self):
        return all(getattr(self, a) for a in ASPECTS)


def parse(text):
    """The scene of a canonical caption."""
    thing = rf"an? (?:(small|large) )?({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})"
    found = re.fullmatch(rf"{thing}(?: ({'|'.join(RELATIONS[1:])}) {thing})?(?: on a ({'|'.join(BACKGROUNDS)}) background)?", text.strip().lower().rstrip("."))
    if not found:
        raise ValueError(f"not a caption of the grammar: {text!r}")
    size1, colour1, shape1, relation, size2, colour2, shape2, background = found.groups()
    return Scene(
        SIZES.index(size1 or ""), COLOURS.index(colour1), SHAPES.index(shape1), RELATIONS.index(relation or ""),
        SIZES.index(size2 or ""), COLOURS.index(colour2) if colour2 else 0, SHAPES.index(shape2) if shape2 else 0,
        BACKGROUNDS.index(background) if background else -1,
    )


def unit_shapes(samples=256):
    """Area and centroid of each shape at radius 1."""
    line = (torch.arange(samples) + 0.5) / samples * 2.4 - 1.2
    y, x = torch.meshgrid(line, line, indexing="ij")
    inside = torch.stack([(pictures.distance(i, x, y) < 0).float() for i in range(len(SHAPES))])
    mass = inside.sum((1, 2))
    return mass * (2.4 / samples) ** 2, torch.stack([(inside * x).sum((1, 2)), (inside * y).sum((1, 2))], -1) / mass[:, None]


UNIT_AREA, UNIT_CENTROID = unit_shapes()


@dataclass
class Found:
    """One object as measured."""

    colour: int
    pure: bool
    shape: int
    overlap: float
    radius: float
    centre: tuple
    edge_width: float


def measure(rgb, background, region):
    """The object in the pixels of `region` [S,S], in a picture `rgb` [3,S,S] (0…1) on a background
    colour [3]; None if there is nothing."""
    side = rgb.shape[-1]
    foreground = region & ((rgb - background[:, None, None]).norm(dim=0) > FOREGROUND)
    if foreground.sum() < (0.04 * side) ** 2:
        return None
    nearest = torch.cdist(rgb[:, foreground].T, pictures.COLOUR_RGB).argmin(-1)
    counts = nearest.bincount(minlength=len(COLOURS))
    colour = counts.argmax().item()
    cover = cover_of(rgb, background, colour, region)
    area = cover.sum() / side**2
    line = (torch.arange(side) + 0.5) / side
    centroid = torch.stack([(cover.sum(0) * line).sum(), (cover.sum(1) * line).sum()]) / cover.sum()
    best = None
    for shape in range(len(SHAPES)):
        fitted = (area / UNIT_AREA[shape]).sqrt()
        for scale in (0.96, 1.0, 1.04):
            radius = fitted * scale
            centre = centroid - UNIT_CENTROID[shape] * radius
            x, y = (line[None, :] - centre[0]) / radius, (line[:, None] - centre[1]) / radius
            template = (0.5 - pictures.distance(shape, x, y) * radius * side).clamp(0, 1)
            overlap = (torch.minimum(template, cover).sum() / torch.maximum(template, cover).sum()).item()
            if best is None or overlap > best[0]:
                best = (overlap, shape, radius.item(), tuple(centre.tolist()))
    overlap, shape, radius, centre = best
    return Found(colour, counts[colour].item() >= PURE * counts.sum().item(), shape, overlap, radius, centre, edge_width(cover))


def cover_of(rgb, background, colour, region):
    """How far each pixel of `region` lies on the way from the background's colour to the palette's
    `colour`: [S,S] in 0…1."""
    towards = pictures.COLOUR_RGB[colour] - background
    cover = ((rgb - background[:, None, None]) * towards[:, None, None]).sum(0) / towards.square().sum()
    return cover.clamp(0, 1) * region


def edge_width(cover):
    """Mean width of an outline's soft part in pixels: its area over the outline's length (an exact
    drawing has about 0.85)."""
    soft = ((cover > 0.1) & (cover < 0.9)).sum().item()
    solid = (cover > 0.5).float()
    outline = (solid[1:] - solid[:-1]).abs().sum().item() + (solid[:, 1:] - solid[:, :-1]).abs().sum().item()
    return soft / max(outline * torch.pi / 4, 1.0)


def judge(picture, scene: Scene):
    """`picture` [3,S,S] in −1…1 against its scene."""
    full = rgb = picture.float() / 2 + 0.5
    # Shapes are told apart at 256 pixels; outlines are measured as they are.
    if rgb.shape[-1] > 256:
        rgb = F.interpolate(rgb[None], size=(256, 256), mode="area")[0]
    side = rgb.shape[-1]
    rim = max(1, side // 50)
    frame = torch.ones(side, side, dtype=torch.bool)
    frame[rim:-rim, rim:-rim] = False
    nearest = torch.cdist(rgb[:, frame].T, pictures.BACKGROUND_RGB).argmin(-1)
    seen = nearest.bincount(minlength=len(BACKGROUNDS)).argmax().item()
    background = pictures.BACKGROUND_RGB[seen]
    background_right = scene.background in (-1, seen)

    near = torch.arange(side) < side / 2
    regions = [torch.ones(side, side, dtype=torch.bool)]
    if scene.relation == 0:
        wanted = [(scene.size1, scene.colour1, scene.shape1)]
        seen_objects = found = [measure(rgb, background, regions[0])]
        places, radii = [(0.5, 0.5)], RADIUS_ALONE
        relation_right = True
    else:
        wanted = [(scene.size1, scene.colour1, scene.shape1), (scene.size2, scene.colour2, scene.shape2)]
        foreground = ((rgb - background[:, None, None]).norm(dim=0) > FOREGROUND).float()
        line = (torch.arange(side) + 0.5) / side - 0.5
        vertical = (foreground.sum(1) * line.square()).sum() > (foreground.sum(0) * line.square()).sum()
        first = (near[:, None] if vertical else near[None, :]).expand(side, side)
        regions = [first, ~first]
        seen_objects = found = [measure(rgb, background, region) for region in regions]
        agreement = lambda order: sum(
            (f.colour == colour) + (f.shape == shape) for f, (_, colour, shape) in zip(order, wanted) if f is not None
        )
        upright, swapped = found, found[::-1]
        first_wanted_first = RELATIONS[scene.relation] in ("above", "to the left of")
        preferred, other = (upright, swapped) if first_wanted_first else (swapped, upright)
        found = other if agreement(other) > agreement(preferred) else preferred
        relation_right = found is preferred and bool(vertical) == (RELATIONS[scene.relation] in ("above", "below"))
        low, high = 0.5 - PAIR_OFFSET, 0.5 + PAIR_OFFSET
        ends = [(0.5, low), (0.5, high)] if vertical else [(low, 0.5), (high, 0.5)]
        places, radii = (ends if found is upright else ends[::-1]), RADIUS_IN_PAIR
    if any(f is None for f in found):
        return Verdict(background_right, False, False, False, False, 0.0)

    nearest_size = lambda r: min(range(len(SIZES)), key=lambda s: abs(torch.log(torch.tensor(r / radii[s])).item()))
    colour = all(f.colour == c and f.pure for f, (_, c, _) in zip(found, wanted))
    shape = all(f.shape == s and f.overlap >= OVERLAP for f, (_, _, s) in zip(found, wanted))
    size = all(s == 0 or nearest_size(f.radius) == s for f, (s, _, _) in zip(found, wanted))
    position = relation_right and all(max(abs(f.centre[0] - x), abs(f.centre[1] - y)) <= NEAR for f, (x, y) in zip(found, places))
    edges = [f.edge_width for f in found]
    if full.shape[-1] > side:
        widened = [F.interpolate(r[None, None].float(), size=full.shape[1:])[0, 0] > 0 for r in regions]
        edges = [edge_width(cover_of(full, background, f.colour, r)) for f, r in zip(seen_objects, widened)]
    return Verdict(background_right, colour, shape, size, position, sum(edges) / len(edges))
