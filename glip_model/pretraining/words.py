"""The words of the generated scenes, and which combinations of them training never sees.

A phrase is written size, texture, colour, shape: "small striped red triangle"; any part but the noun may be missing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 35, 40),
    "orange": (243, 140, 20),
    "yellow": (240, 222, 45),
    "green": (45, 155, 60),
    "cyan": (55, 205, 215),
    "blue": (40, 75, 210),
    "purple": (130, 55, 170),
    "pink": (247, 145, 185),
    "brown": (120, 75, 40),
    "white": (246, 246, 246),
    "black": (24, 24, 24),
    "gray": (130, 130, 130),
}
"""Colour name -> RGB, 0..255, before jitter."""

TEXTURES = ("plain", "striped", "dotted", "checkered", "hollow")
SIZES = ("small", "large")
SHAPES = (
    "circle", "square", "triangle", "star", "ring", "cross",
    "diamond", "hexagon", "heart", "crescent", "arrow", "rectangle",
)  # fmt: skip
ANY_SHAPE = "shape"
"""The noun that fits every shape, as in "red shape"."""

WORDS_OF_PART: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": tuple(COLOURS),
    "texture": TEXTURES,
    "size": SIZES,
}
"""The words that each part of :class:`Looks` and :class:`Phrase` may be."""

SCENE_WORDS = frozenset(word for words in WORDS_OF_PART.values() for word in words)
"""Each of these words either fits a generated thing or does not."""

IMPOSSIBLE = frozenset({("hollow", "circle"), ("hollow", "ring"), ("hollow", "crescent")})
"""(texture, shape) pairs that look like another shape, so nobody draws or names them."""

HELD_OUT_COLOURS = (
    ("red", "star"), ("blue", "heart"), ("green", "circle"), ("yellow", "square"), ("purple", "triangle"),
    ("orange", "ring"), ("pink", "cross"), ("cyan", "diamond"), ("brown", "hexagon"), ("white", "crescent"),
    ("black", "arrow"), ("gray", "rectangle"), ("red", "hexagon"), ("green", "arrow"),
)  # fmt: skip
HELD_OUT_TEXTURES = (
    ("striped", "heart"), ("dotted", "cross"), ("checkered", "circle"),
    ("hollow", "star"), ("striped", "arrow"), ("dotted", "hexagon"),
)  # fmt: skip
HELD_OUT = frozenset(HELD_OUT_COLOURS) | frozenset(HELD_OUT_TEXTURES)
"""(colour or texture, shape) pairs that training neither draws nor names."""

COUNT_WORDS = {2: "two", 3: "three", 4: "four", 5: "five"}


@dataclass(frozen=True)
class Looks:
    """How one drawn thing looks; ``size`` is None between small and large."""

    shape: str
    colour: str
    texture: str
    size: str | None

    @property
    def words(self) -> frozenset[str]:
        """The words of ``SCENE_WORDS`` that fit."""
        return frozenset(word for word in (self.shape, self.colour, self.texture, self.size) if word)

    @property
    def held_out(self) -> bool:
        """True where training must not draw it."""
        return (self.colour, self.shape) in HELD_OUT or (self.texture, self.shape) in HELD_OUT

    def leaves_open(self, phrase: "Phrase") -> bool:
        """True where training may not say whether the phrase fits: with what it names, the thing would be held out.

        As "red hexagon" is held out, no red thing is a hexagon; counted as wrong, "hexagon" would teach that nothing
        red ever is one.
        """
        named = {part: word for part, word in vars(phrase).items() if word is not None}
        return replace(self, **named).held_out

    @property
    def decided(self) -> frozenset[str]:
        """The words of ``SCENE_WORDS`` but those that it leaves open."""
        words = ((part, word) for part, words in WORDS_OF_PART.items() for word in words)
        return frozenset(word for part, word in words if not self.leaves_open(Phrase(**{part: word})))


@dataclass(frozen=True)
class Phrase:
    """A name for things: each part narrows it, None leaves it open."""

    shape: str | None = None
    colour: str | None = None
    texture: str | None = None
    size: str | None = None

    def text(self, count: int = 1) -> str:
        """Write it out; more than one makes the noun plural."""
        noun = self.shape or ANY_SHAPE
        if count > 1:
            noun += "es" if noun.endswith(("s", "x")) else "s"
        return " ".join(part for part in (self.size, self.texture, self.colour, noun) if part)

    def fits(self, looks: Looks) -> bool:
        """True where every part named is the thing's."""
        asked = (self.shape, self.colour, self.texture, self.size)
        shown = (looks.shape, looks.colour, looks.texture, looks.size)
        return all(a is None or a == s for a, s in zip(asked, shown, strict=True))

    @property
    def held_out(self) -> bool:
        """True where training must not name it."""
        return (self.colour, self.shape) in HELD_OUT or (self.texture, self.shape) in HELD_OUT


def possible_looks(held_out: bool = False) -> Iterator[tuple[str, str, str]]:
    """Every (shape, colour, texture) that training may draw, or with ``held_out`` every one that it may not."""
    for shape, colour, texture in product(SHAPES, COLOURS, TEXTURES):
        if (texture, shape) in IMPOSSIBLE:
            continue
        if Looks(shape, colour, texture, None).held_out == held_out:
            yield shape, colour, texture
