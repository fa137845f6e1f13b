"""What is asked about a scene: a list of names with negatives (detection) or a sentence with spans (grounding)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from glip_model.pretraining.samples import CaptionedSample, SceneSample, Span
from glip_model.pretraining.scenes import Scene, Thing
from glip_model.pretraining.words import COLOURS, COUNT_WORDS, SHAPES, TEXTURES, WORDS_OF_PART, Looks, Phrase

_OPENINGS = ("", "there is ", "there are ", "a picture of ", "i see ", "look at ", "find ", "show ")
_LINKS = (" and ", ", ", " with ", " next to ", " beside ", " near ")
_MOST_NAMES = 12

Asked = TypeVar("Asked", str, Span)
"""What stands for a phrase: its text, or where it stands in the sentence."""


def describe(looks: Looks, rng: np.random.Generator) -> Phrase:
    """Name a thing at a random level of detail, from "triangle" to "small striped red triangle"."""
    shape = looks.shape if rng.random() < 0.93 else None
    colour = looks.colour if shape is None or rng.random() < 0.65 else None
    texture = looks.texture if rng.random() < (0.4 if looks.texture != "plain" else 0.06) else None
    size = looks.size if rng.random() < 0.25 else None
    return Phrase(shape, colour, texture, size)


def _changed(phrase: Phrase, rng: np.random.Generator) -> Phrase:
    """The same phrase with one part swapped: a negative that shares the rest."""
    parts = [name for name in WORDS_OF_PART if getattr(phrase, name)]
    part = parts[rng.integers(len(parts))] if parts else "shape"
    words = WORDS_OF_PART[part]
    return replace(phrase, **{part: words[int(rng.integers(len(words)))]})


def random_phrase(rng: np.random.Generator) -> Phrase:
    """Any phrase that training may name."""
    while True:
        colour = tuple(COLOURS)[rng.integers(len(COLOURS))] if rng.random() < 0.6 else None
        texture = TEXTURES[rng.integers(len(TEXTURES))] if rng.random() < 0.25 else None
        phrase = Phrase(SHAPES[rng.integers(len(SHAPES))], colour, texture)
        if not phrase.held_out:
            return phrase


def ask_names(scene: Scene, rng: np.random.Generator) -> SceneSample:
    """Ask for names that are there, at several levels of detail, and for others that are not.

    Half of the negatives share all but one part with a thing in the scene. A box answers to every asked name that fits;
    a thing that answers to none has a box only where a name is undecided.
    """
    phrases: dict[str, Phrase] = {}
    count = int(rng.integers(3, _MOST_NAMES + 1))
    for _ in range(3 * count):
        if len(phrases) == count:
            break
        draw = rng.random()
        near = scene.things[rng.integers(len(scene.things))].looks if scene.things else None
        if near is None or draw > 0.8:
            phrase = random_phrase(rng)
        else:
            phrase = describe(near, rng)
            if draw > 0.5:
                phrase = _changed(phrase, rng)
        if not phrase.held_out:
            phrases[phrase.text()] = phrase
    things, names, undecided = _answering(scene, phrases)
    looks = tuple(thing.looks for thing in things)
    return SceneSample(scene.rgb, _boxes_of(things), names, tuple(phrases), looks=looks, undecided=undecided)


def _answering(
    scene: Scene, asked: Mapping[Asked, Phrase]
) -> tuple[list[Thing], tuple[tuple[Asked, ...], ...], tuple[tuple[Asked, ...], ...]]:
    """The things that some phrase fits, or that leave one open; for each of them what fits and what is left open."""
    answers = []
    for thing in scene.things:
        fitting = tuple(key for key, phrase in asked.items() if phrase.fits(thing.looks))
        left_open = tuple(key for key, phrase in asked.items() if thing.looks.leaves_open(phrase))
        if fitting or left_open:
            answers.append((thing, fitting, left_open))
    return (
        [thing for thing, _, _ in answers],
        tuple(fitting for _, fitting, _ in answers),
        tuple(left_open for _, _, left_open in answers),
    )


def _boxes_of(things: Sequence[Thing]) -> NDArray[np.float32]:
    return np.array([thing.box_xyxy for thing in things], dtype=np.float32).reshape(-1, 4)


def _article(noun: str, rng: np.random.Generator) -> str:
    return ("an" if noun[0] in "aeiou" else "a", "the", "one")[rng.integers(3)]


def _relation(first: Thing, second: Thing) -> str:
    """Where the first stands as seen from the second, along the axis on which they are further apart."""
    ax, ay = (first.box_xyxy[0] + first.box_xyxy[2]) / 2, (first.box_xyxy[1] + first.box_xyxy[3]) / 2
    bx, by = (second.box_xyxy[0] + second.box_xyxy[2]) / 2, (second.box_xyxy[1] + second.box_xyxy[3]) / 2
    if abs(ax - bx) > abs(ay - by):
        return " to the left of " if ax < bx else " to the right of "
    return " above " if ay < by else " below "


def ask_sentence(scene: Scene, rng: np.random.Generator) -> CaptionedSample:
    """Ask with a sentence: counted phrases, joined by words or by true relations.

    A phrase points at every thing that it fits; two phrases of one sentence share no thing, so nothing is ambiguous.
    """
    text = _OPENINGS[rng.integers(len(_OPENINGS))]
    said: list[tuple[Span, list[int], Phrase]] = []
    used: set[int] = set()
    for index in rng.permutation(len(scene.things)):
        phrase = describe(scene.things[index].looks, rng)
        fitting = [i for i, thing in enumerate(scene.things) if phrase.fits(thing.looks)]
        if used & set(fitting) or len(fitting) > max(COUNT_WORDS):
            continue
        if said:
            alone = len(fitting) == 1 and len(said[-1][1]) == 1
            relation = alone and rng.random() < 0.5
            before = scene.things[said[-1][1][0]]
            text += _relation(before, scene.things[index]) if relation else _LINKS[rng.integers(len(_LINKS))]
        noun = phrase.text(len(fitting))
        determiner = COUNT_WORDS[len(fitting)] if len(fitting) > 1 else _article(noun, rng)
        start = len(text) + len(determiner) + 1
        text += f"{determiner} {noun}"
        said.append(((start, start + len(noun)), fitting, phrase))
        used |= set(fitting)
        if len(said) == 4 or rng.random() < 0.25:
            break
    things, spans, undecided = _answering(scene, {span: phrase for span, _, phrase in said})
    return CaptionedSample(
        scene.rgb,
        _boxes_of(things),
        text if said else "nothing",
        spans,
        undecided,
        tuple(thing.looks.words for thing in things),
        tuple(thing.looks.decided for thing in things),
    )
