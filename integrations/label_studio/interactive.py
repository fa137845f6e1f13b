"""What a person asks of the open task: words typed into a ``<TextArea>``, or a box or point drawn as an example."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from backend.domain.geometry import Box, iou
from backend.domain.records import Label, Prediction, Query, Region, Sentence, Span
from backend.errors import UsageError
from integrations.label_studio.fields import number, optional_text
from integrations.label_studio.labels import ImageTarget, LabelingConfig
from integrations.label_studio.regions import box_from_percent

_SAME_OBJECT = 0.5  # IoU from which a found box is the drawn one again


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question about one image of the open task, and which of the boxes found are answered.

    ``keep`` gets all regions and the image's width and height in pixels.
    """

    target: ImageTarget
    query: Query
    keep: Callable[[Sequence[Region], int, int], Sequence[Region]]

    def chosen(self, prediction: Prediction) -> Prediction:
        return replace(prediction, regions=tuple(self.keep(prediction.regions, prediction.width, prediction.height)))


_SHAPES = ("rectanglelabels", "rectangle", "keypointlabels", "keypoint")


def read_prompt(context: Sequence[Mapping[str, object]], config: LabelingConfig) -> Prompt | None:
    """Understand the newest item of an interactive request; None when it holds nothing this service answers.

    A typed text is answered as `text_query` says. A drawn box asks for the other objects of its label, a point for
    the object of its label under it.

    Raises:
        UsageError: the text is empty, or the drawn shape has no position or lies on an image that is not served.
    """
    for item in reversed(context):
        value = item.get("value")
        if not isinstance(value, dict):
            continue
        named = next((each for each in config.targets if each.name == item.get("to_name")), None)
        target, kind = named or config.targets[0], item.get("type")
        if named is None and kind in _SHAPES:
            raise UsageError("the prompt was drawn on an image that is not served, see docs/labeling-config.md")
        if kind == "textarea" and optional_text(item.get("from_name")) in config.prompt_controls:
            text = value.get("text")
            words = [line for line in (text if isinstance(text, list) else [text]) if isinstance(line, str)]
            return Prompt(target, text_query("\n".join(words), target), lambda regions, width, height: regions)
        if kind in ("rectanglelabels", "rectangle"):
            return Prompt(target, _drawn_labels(value, target), _others(_numbers(value, "width", "height")))
        if kind in ("keypointlabels", "keypoint"):
            return Prompt(target, _drawn_labels(value, target), _under(_numbers(value)))
    return None


def text_query(text: str, target: ImageTarget) -> Query:
    """Turn typed words into a query whose every answer has one of the config's labels.

    * ``a [cat] beside a [dog]``: the marked phrases, read within their sentence.
    * ``a cat beside a dog``, where several labels are mentioned: their mentions, read within the sentence.
    * ``fluffy kitten, dog``: names separated by commas, semicolons, full stops or new lines, each found by itself.

    A phrase belongs to the label it equals or mentions (the last one, where it mentions several), or to the one put
    before it, ``cat: fluffy kitten``. A phrase that says nothing about its label gets the config's first label.

    Raises:
        UsageError: the text is empty.
    """
    text = text.strip()
    if not re.search(r"\w", text):
        raise UsageError("the prompt is empty: type the names or a sentence of what is to be found")
    mentions = _Mentions(target.labels)
    if re.search(r"\[[^\[\]]*\w[^\[\]]*\]", text):
        return _marked_sentence(text, mentions)
    parts = [part.strip() for part in re.split(r"[\n;,]|\.(?:\s|$)", text) if part.strip()]
    if any(len({label for _, _, label in mentions.within(part)}) > 1 and ":" not in part for part in parts):
        return Sentence(text, tuple(Span(*found) for found in mentions.within(text)))
    prompts: dict[str, list[str]] = {}
    for part in parts:
        label, words = mentions.label_and_words(part)
        prompts.setdefault(label, []).append(words)
    return tuple(Label(label, tuple(dict.fromkeys(words))) for label, words in prompts.items())


class _Mentions:
    """Finds the labels that a text mentions, by name or by prompt, in singular or a plain plural."""

    def __init__(self, labels: Sequence[Label]) -> None:
        self._default = labels[0].name
        self._labels = {
            word.casefold(): label.name for label in reversed(labels) for word in (*label.asked, label.name)
        }
        self._longest_first = sorted(self._labels, key=len, reverse=True)
        # A group for each: what matches in any case need not be equal to it in lower case (the Turkish İ and ı).
        names = "|".join(f"({re.escape(word)})" for word in self._longest_first)
        self._pattern = re.compile(rf"(?<!\w)(?:{names})(?:e?s)?(?!\w)", re.IGNORECASE)

    def within(self, text: str) -> list[tuple[int, int, str]]:
        """Start, end and label of each mention, in order."""
        return [
            (found.start(), found.end(), self._labels[self._longest_first[(found.lastindex or 1) - 1]])
            for found in self._pattern.finditer(text)
        ]

    def label_and_words(self, phrase: str) -> tuple[str, str]:
        """The label a phrase belongs to, and the words to ask for."""
        before, colon, after = phrase.partition(":")
        named = self._labels.get(before.strip().casefold())
        if colon and named is not None and after.strip():
            return named, after.strip()
        found = self.within(phrase)
        return (found[-1][2] if found else self._default), phrase


def _marked_sentence(marked: str, mentions: _Mentions) -> Sentence:
    text = ""
    spans = []
    for piece in re.split(r"(\[[^\[\]]*\w[^\[\]]*\])", marked):
        if piece.startswith("["):
            label, words = mentions.label_and_words(piece[1:-1].strip())
            spans.append(Span(len(text), len(text) + len(words), label))
            text += words
        else:
            text += piece.replace("[", "").replace("]", "")
    return Sentence(text, tuple(spans))


def _drawn_labels(value: Mapping[str, object], target: ImageTarget) -> tuple[Label, ...]:
    """The labels that a drawn shape carries, or all where it carries none of the config's."""
    drawn = {name for names in value.values() if isinstance(names, list) for name in names if isinstance(name, str)}
    return tuple(label for label in target.labels if label.name in drawn) or target.labels


def _numbers(value: Mapping[str, object], *sizes: str) -> dict[str, float]:
    try:
        numbers = {key: number(value.get(key), key) for key in ("x", "y", *sizes)}
        box_from_percent({"width": 0.0, "height": 0.0, **numbers}, 100, 100)
    except (UsageError, ValueError):
        raise UsageError("the drawn shape has no position") from None
    return {"width": 0.0, "height": 0.0, **numbers}


def _others(drawn: Mapping[str, float]) -> Callable[[Sequence[Region], int, int], Sequence[Region]]:
    def keep(regions: Sequence[Region], width: int, height: int) -> Sequence[Region]:
        box = box_from_percent(drawn, width, height)
        return [region for region in regions if iou(region.proposal.box, box) < _SAME_OBJECT]

    return keep


def _under(point: Mapping[str, float]) -> Callable[[Sequence[Region], int, int], Sequence[Region]]:
    def keep(regions: Sequence[Region], width: int, height: int) -> Sequence[Region]:
        at = box_from_percent(point, width, height)
        return [region for region in regions if _holds(region.proposal.box, at)][:1]  # best score first

    return keep


def _holds(box: Box, point: Box) -> bool:
    return box.x1 <= point.x1 <= box.x2 and box.y1 <= point.y1 <= box.y2
