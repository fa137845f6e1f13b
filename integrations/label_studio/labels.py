"""What a labelling config asks for: which images, which labels with which words, under which control names.

One ``ImageTarget`` per ``<Image>`` that a ``<RectangleLabels>`` points at. A label belongs to the first control that
lists it; controls that only exist for drawing prompts (``smartOnly``) are used where no other lists the label.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from backend.domain.records import Label
from backend.errors import LabelConfigError


@dataclass(frozen=True, slots=True)
class ImageTarget:
    """One image of a task: its tag's name, the key of the task's data, and the labels asked of it.

    ``controls`` tells for each label's name the ``<RectangleLabels>`` that its boxes belong to.
    """

    name: str
    data_key: str
    labels: tuple[Label, ...]
    controls: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class LabelingConfig:
    """A project's labelling config, as far as boxes go.

    Attributes:
        targets: the images that are served.
        prompt_controls: names of its ``<TextArea>`` tags.
        image_keys: name of each ``<Image>`` tag -> key of the task's data; None for one that is not served.
    """

    targets: tuple[ImageTarget, ...]
    prompt_controls: frozenset[str]
    image_keys: Mapping[str, str | None]

    @property
    def labels(self) -> tuple[Label, ...]:
        """What is asked of any of its images; where several list a name, as the first one asks it."""
        labels: dict[str, Label] = {}
        for target in self.targets:
            for label in target.labels:
                labels.setdefault(label.name, label)
        return tuple(labels.values())


def parse_labeling_config(xml: str) -> LabelingConfig:
    """Read a labelling config.

    A label is asked by its name and by its ``predicted_values`` (separated by commas); a ``prompt`` attribute
    replaces both (several prompts separated by ``|`` or commas).

    Raises:
        LabelConfigError: it is empty or malformed, or holds no image with labels; the message says what to add.
    """
    tags = list(_root(xml).iter())
    images = {tag.attrib["name"]: tag for tag in tags if _is(tag, "image") and tag.attrib.get("name")}
    if not images:
        raise LabelConfigError('the labelling config has no <Image>: add <Image name="image" value="$image"/>')
    controls = [tag for tag in tags if _is(tag, "rectanglelabels") and tag.attrib.get("name")]
    if not controls:
        raise LabelConfigError(
            "the labelling config has no <RectangleLabels>: add one with a <Label> for each class, toName an <Image>"
        )
    controls.sort(key=lambda control: control.attrib.get("smartOnly", "").lower() == "true")  # stable: others first
    targets = [_target(name, image, controls) for name, image in images.items()]
    answerable = tuple(target for target in targets if isinstance(target, ImageTarget))
    if not answerable:
        raise LabelConfigError(f"the labelling config cannot be served: {targets[0]}")
    prompt_controls = frozenset(tag.attrib["name"] for tag in tags if _is(tag, "textarea") and "name" in tag.attrib)
    served = {target.name: target.data_key for target in answerable}
    return LabelingConfig(answerable, prompt_controls, {name: served.get(name) for name in images})


def _root(xml: str) -> Element:
    if not xml.strip():
        raise LabelConfigError("the labelling config is empty: set one under Settings > Labeling Interface")
    try:
        return fromstring(xml, forbid_dtd=True)
    except ParseError as error:
        raise LabelConfigError(f"the labelling config is no XML: {error}") from error
    except DefusedXmlException as error:
        raise LabelConfigError("the labelling config holds a DTD or entities: remove the <!DOCTYPE>") from error


def _is(tag: Element, name: str) -> bool:
    return isinstance(tag.tag, str) and tag.tag.lower() == name


def _target(name: str, image: Element, controls: Iterable[Element]) -> ImageTarget | str:
    """The image with its labels, or why it cannot be answered."""
    if "valueList" in image.attrib:
        return f"<Image name={name!r}> shows a list of images (valueList): only single images can be pre-annotated"
    value = image.attrib.get("value", "")
    if not re.fullmatch(r"\$\w+", value):
        return f"<Image name={name!r}> has a value that names no key of the task's data: write it as in $image"
    mine = [control for control in controls if name in _words(control.attrib.get("toName", ""))]
    if not mine:
        return f"no <RectangleLabels> points at <Image name={name!r}>: set its toName"
    labels: dict[str, Label] = {}
    owners: dict[str, str] = {}
    for control in mine:
        for tag in control.iter():
            label = _label(tag) if _is(tag, "label") else None
            if label is not None and label.name not in labels:
                labels[label.name] = label
                owners[label.name] = control.attrib["name"]
    if not labels:
        return f"<RectangleLabels name={mine[0].attrib['name']!r}> holds no <Label value=...>: add one for each class"
    return ImageTarget(name, value[1:], tuple(labels.values()), owners)


def _label(tag: Element) -> Label | None:
    value = tag.attrib.get("value", "").strip()
    name = tag.attrib.get("alias") or tag.attrib.get("value", "")  # results carry the alias where there is one
    if not name.strip():
        return None
    override = _words(tag.attrib.get("prompt", ""), "[|,]")
    asked = override or [value or name.strip(), *_words(tag.attrib.get("predicted_values", ""))]
    distinct: dict[str, str] = {}
    for prompt in asked:
        distinct.setdefault(prompt.casefold(), prompt)
    prompts = tuple(distinct.values())
    return Label(name, () if prompts == (name,) else prompts)


def _words(text: str, separator: str = ",") -> list[str]:
    return [word.strip() for word in re.split(separator, text) if word.strip()]
