"""What a run of pre-labelling leaves behind: COCO files, Label Studio tasks, drawings."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

from backend.domain.records import Prediction, Proposal, Region
from backend.services.prelabel import Found, Skipped
from integrations.coco import (
    CocoDataset,
    LabelledBox,
    LabelledImage,
    dataset_to_coco,
    labels_to_categories,
    results_to_coco,
)
from integrations.drawing import draw_proposals, label_colours
from integrations.label_studio.import_json import tasks_to_json
from integrations.label_studio.labels import ImageTarget
from integrations.written_aside import write_json, written_aside

_DRAWN_AS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}


@dataclass(frozen=True, slots=True)
class FoundIn:
    """What was found in the image with the number ``id`` and the name ``file_name``, relative, with slashes.

    It holds no pixels: a run may see more pictures than fit in memory.
    """

    id: int
    file_name: str
    width: int
    height: int
    sha256: str
    proposals: tuple[Proposal, ...]

    @classmethod
    def of(cls, number: int, name: str, found: Found) -> "FoundIn":
        """Keep all of ``found`` but its pixels."""
        picture = found.picture
        return cls(number, name, picture.width, picture.height, picture.sha256, found.proposals)


@dataclass(slots=True)
class Outcomes:
    """All that one model version found so far, and the pictures that could not be had."""

    model_version: str
    labels: tuple[str, ...]
    images: list[FoundIn] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    @property
    def boxes(self) -> int:
        return sum(len(image.proposals) for image in self.images)


def write_coco(outcomes: Outcomes, out: Path) -> list[Path]:
    """Write the data set to ``out`` and COCO results beside it, and return both paths.

    Raises:
        GlipLabelError: a file cannot be written.
    """
    categories = labels_to_categories(outcomes.labels)
    category_ids = {category.name: category.id for category in categories}
    images = tuple(_labelled_image(image, category_ids) for image in outcomes.images)
    description = f"boxes proposed by {outcomes.model_version}, not reviewed"
    results = results_path(out)
    write_json(out, dataset_to_coco(CocoDataset(categories, images, description)))
    write_json(results, results_to_coco(images))
    return [out, results]


def results_path(out: Path) -> Path:
    """Name the results file of the data set ``out``: ``boxes.json`` has ``boxes.results.json``."""
    return out.with_name(out.name.removesuffix(".json") + ".results.json")


def write_label_studio(outcomes: Outcomes, out: Path, target: ImageTarget, address_prefix: str) -> list[Path]:
    """Write tasks with pre-annotations for Label Studio's Import to ``out``, and return its path.

    Args:
        outcomes: what was found.
        out: the file to write.
        target: tag names of the project's labelling config.
        address_prefix: what stands before the quoted relative file name in an image's address.

    Raises:
        GlipLabelError: the file cannot be written.
    """
    tasks = [
        (address_prefix + quote(image.file_name), _prediction(image, outcomes.model_version))
        for image in outcomes.images
    ]
    write_json(out, tasks_to_json(tasks, target))
    return [out]


def drawing_path(name: str, folder: Path) -> Path:
    """Name the drawing of the image with this relative name: JPEG and PNG keep it, others get ``.jpg`` appended."""
    path = folder / name
    return path if path.suffix.lower() in _DRAWN_AS else path.with_name(path.name + ".jpg")


def draw(found: Found, name: str, folder: Path, labels: tuple[str, ...]) -> None:
    """Draw one image's boxes into ``folder``, under its relative ``name``, in the format of `drawing_path`.

    Raises:
        GlipLabelError: the file cannot be written.
    """
    path = drawing_path(name, folder)
    drawn = draw_proposals(found.picture, found.proposals, label_colours(labels))
    with written_aside(path) as aside:
        drawn.save(aside, _DRAWN_AS[path.suffix.lower()], quality=90)


def _labelled_image(image: FoundIn, category_ids: Mapping[str, int]) -> LabelledImage:
    boxes = tuple(
        LabelledBox(proposal.box, category_ids[proposal.label], round(proposal.score, 5))
        for proposal in image.proposals
    )
    return LabelledImage(image.id, image.file_name, image.width, image.height, boxes)


def _prediction(image: FoundIn, model_version: str) -> Prediction:
    """Give the proposals ids that are unique among all images and the same in every run."""
    identity = sha256(f"{model_version}\0{image.file_name}\0{image.sha256}".encode()).hexdigest()[:16]
    regions = tuple(Region(f"{identity}-{number}", proposal) for number, proposal in enumerate(image.proposals))
    return Prediction(image.id, model_version, image.width, image.height, regions, identity)
