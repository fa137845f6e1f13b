"""Builders of projects to export: a test states only what it is about."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from backend.domain.annotations import AnnotatedRegion, Annotation, PercentBox
from backend.domain.dataset import AnnotatedImage, AttributedAnnotation, DatasetLabel, ImageFile, Provenance
from backend.errors import ImageError
from backend.ports import AnnotatedImages
from backend.services.export import Export, ExportRequest
from backend.services.import_ import import_images
from integrations.coco_export import CocoFolder
from integrations.coco_import import ImportedDataset, read_dataset

START = datetime(2026, 1, 1, tzinfo=UTC)
LABELS = (DatasetLabel(1, "cat"), DatasetLabel(2, "dog"), DatasetLabel(3, "traffic light"))
WIDTH, HEIGHT = 640, 480
EVERYTHING = ExportRequest()


def make_region(
    x: float = 10,
    y: float = 10,
    width: float = 20,
    height: float = 10,
    rotation: float = 0,
    labels: Sequence[str] = ("cat",),
) -> AnnotatedRegion:
    """A region in percent, in an image whose size is told by the image alone."""
    return AnnotatedRegion("r", "image", tuple(labels), PercentBox(x, y, width, height, rotation), None, None)


def make_annotation(
    *regions: AnnotatedRegion,
    number: int = 1,
    annotator: int | None = 1,
    cancelled: bool = False,
    provenance: Provenance | None = None,
) -> AttributedAnnotation:
    moment = START + timedelta(hours=number)
    known = provenance or Provenance(number, number, annotator)
    return AttributedAnnotation(
        Annotation(number, number, 7, START, moment, annotator, cancelled, False, None, None, regions),
        (known,) * len(regions),
    )


def make_image(number: int, *annotations: AttributedAnnotation, reference: str | None = None) -> AnnotatedImage:
    name = f"d/{number}.png" if reference is None else reference
    return AnnotatedImage(number, name, WIDTH, HEIGHT, f"{number:064x}", number, annotations)


@dataclass
class FakeProject:
    """``ports.AnnotatedImages`` and ``ports.ImportedImages`` in memory."""

    stored: list[AnnotatedImage] = field(default_factory=list)
    known: tuple[DatasetLabel, ...] = LABELS

    def labels(self) -> Sequence[DatasetLabel]:
        return self.known

    def images(self) -> Iterator[AnnotatedImage]:
        yield from self.stored

    def add(self, labels: Sequence[DatasetLabel], images: Iterable[AnnotatedImage]) -> None:
        self.known = tuple(labels)
        self.stored = list(images)


def no_file(image: AnnotatedImage) -> ImageFile:
    raise ImageError(f"{image.reference}: cannot be had")


def export_to(folder: Path, project: AnnotatedImages, request: ExportRequest = EVERYTHING) -> Export:
    """Export without copying files, and return the export with its tally."""
    export = Export(project, request, no_file)
    parts = request.splits.names if request.splits else ()
    with CocoFolder(folder, export.labels, parts, request.predictions is not None) as written:
        for image, content in export.images():
            written.add(image, content)
        written.finish({})
    return export


def import_from(folder: Path, project: FakeProject, files: Sequence[str] = ("annotations.json",)) -> ImportedDataset:
    """Import what `export_to` wrote, without looking at image files."""
    found = read_dataset([folder / name for name in files])
    import_images(project, found.labels, found.images, START)
    return found
