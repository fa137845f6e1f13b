"""Free sentences with the phrases in them that are to be found.

A sentence marks its phrases with brackets: ``a [red car] behind [two dogs]``. Positions are characters,
end exclusive.
"""

import re
from dataclasses import dataclass


class CaptionError(ValueError):
    """Names or a sentence that no caption can be made of; the message names the words and the cure."""


@dataclass(frozen=True, slots=True)
class GroundedSentence:
    """A sentence without brackets, and the character range of every phrase that is to be found in it."""

    text: str
    spans: tuple[tuple[int, int], ...]

    @property
    def phrases(self) -> tuple[str, ...]:
        return tuple(self.text[start:end] for start, end in self.spans)


def parse_sentence(marked: str) -> GroundedSentence:
    """Read the phrases out of ``a [red car] behind [two dogs]``.

    Without brackets, names separated by commas or by ``. `` are the phrases; a sentence without those is one
    phrase.

    Raises:
        CaptionError: the sentence is empty, a bracket has no partner or is nested, or brackets hold no words.
    """
    if "[" in marked or "]" in marked:
        return _parse_brackets(marked)
    spans = []
    for part in re.finditer(r"(?:[^,.]|\.(?!\s|$))+", marked):
        words = part.group().strip()
        if words:
            start = part.start() + part.group().index(words)
            spans.append((start, start + len(words)))
    if not spans:
        raise CaptionError("the sentence is empty: name what is to be found")
    return GroundedSentence(marked, tuple(spans))


def _parse_brackets(marked: str) -> GroundedSentence:
    text = ""
    spans = []
    opened: int | None = None
    for character in marked:
        if character == "[":
            if opened is not None:
                raise CaptionError(f"brackets inside brackets in {marked!r}: mark each phrase once")
            opened = len(text)
        elif character == "]":
            if opened is None:
                raise CaptionError(f"a ']' without its '[' in {marked!r}")
            if not text[opened:].strip():
                raise CaptionError(f"empty brackets in {marked!r}: put the phrase to be found between them")
            spans.append((opened, len(text)))
            opened = None
        else:
            text += character
    if opened is not None:
        raise CaptionError(f"a '[' without its ']' in {marked!r}")
    return GroundedSentence(text, tuple(spans))
