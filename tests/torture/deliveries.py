"""What is sent and in which order: some of it twice, late, or spoiled."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from backend.domain.annotations import AnnotatedRegion, Annotation, PercentBox
from backend.domain.facts import Fact, ProjectState, TaskState, fact_to_json
from tests.torture.bodies import body_of, malformed
from tests.torture.world import CREATED, HEIGHT, WIDTH, Happening, happenings, images

DUPLICATES, REORDERED, MALFORMED = 0.2, 0.1, 0.02
_FURTHEST = 500  # places by which something comes late or again
_LONE_ID = 10**9  # tasks and annotations that nothing else tells of
_POISONED = 8  # of so many malformed events, one is well-formed but holds what PostgreSQL cannot keep


@dataclass(frozen=True)
class Event:
    """One event of the stream.

    Attributes:
        happening: what it tells; None where it is spoiled and has to be refused.
        body: what is sent, each time the same bytes.
        poisoned: it holds a label that PostgreSQL cannot keep, and may be set aside with the reason.
    """

    number: int
    happening: Happening | None
    body: bytes
    poisoned: bool = False

    @property
    def payload(self) -> str | None:
        """What the inbox has to hold of it."""
        return None if self.happening is None else fact_to_json(self.happening.fact)


@dataclass(frozen=True)
class Stream:
    """The events, and their numbers in the order of delivery; ``reordered`` is how many come late."""

    events: Sequence[Event]
    order: Sequence[int]
    reordered: int

    @property
    def duplicates(self) -> int:
        return len(self.order) - len(self.events)


def make_stream(number: int, seed: int) -> Stream:
    """Make so many events, and shuffle some of their deliveries."""
    random = Random(seed)
    told = happenings(random)
    spoiled = random.sample(range(number), int(MALFORMED * number))
    poisoned = spoiled[: len(spoiled) // _POISONED]
    events = [_sound(index, next(told)) for index in range(number)]
    for index in spoiled:
        events[index] = _poisoned(index) if index in poisoned else _spoiled(index, random)
    late = random.sample(range(number), int(REORDERED * number))
    twice = random.sample(range(number), int(DUPLICATES * number))

    def later(index: int) -> float:
        return index + random.uniform(1, _FURTHEST)

    places = [(later(index) if index in late else float(index), index) for index in range(number)]
    places += [(later(index), index) for index in twice]
    return Stream(events, [index for _, index in sorted(places)], len(late))


def _sound(number: int, happening: Happening) -> Event:
    return Event(number, happening, json.dumps(body_of(happening)).encode())


def _spoiled(number: int, random: Random) -> Event:
    return Event(number, None, malformed(body_of(_lone(number, "cat")), random))


def _poisoned(number: int) -> Event:
    return replace(_sound(number, _lone(number, "NUL \0 is no text")), poisoned=True)


def _lone(number: int, label: str) -> Happening:
    """An annotation with one box, on a task of its own."""
    key, project = _LONE_ID + number, ProjectState(f"7.{int(CREATED.timestamp())}", 7)
    box = AnnotatedRegion("r", "image", (label,), PercentBox(1.0, 2.0, 3.0, 4.0), WIDTH, HEIGHT, "manual")
    annotation = Annotation(key, key, 7, CREATED, CREATED, 1, False, False, 1.5, None, (box,))
    fact = Fact(project, (TaskState(key, CREATED, images(7, key)),), (annotation,))
    return Happening("ANNOTATION_CREATED", fact, {(key, CREATED): ("added",)})
