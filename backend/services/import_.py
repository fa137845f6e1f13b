"""Bring a data set that was annotated elsewhere in, as images with one reviewed annotation each."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from backend.domain.annotations import AnnotatedRegion, Annotation
from backend.domain.dataset import AnnotatedImage, AttributedAnnotation, DatasetImage, DatasetLabel, ImageState
from backend.domain.geometry import pixels_to_percent
from backend.ports import ImportedImages

IMAGE_TAG = "image"


def import_images(
    target: ImportedImages, labels: Sequence[DatasetLabel], images: Iterable[DatasetImage], moment: datetime
) -> None:
    """Add labels and images to a project; all or nothing.

    Args:
        target: the project.
        labels: with the ids they are to keep.
        images: with the ids they are to keep, in any order.
        moment: UTC, when the annotations count as made.

    Raises:
        UsageError: the project holds something already.
        StorageError: the database cannot be used.
    """
    names = {label.id: label.name for label in labels}
    target.add(labels, (annotated(image, names, moment) for image in images))


def annotated(image: DatasetImage, names: dict[int, str], moment: datetime) -> AnnotatedImage:
    """Turn an image of a data set into what is stored: percent, names instead of ids.

    A never reviewed image gets no annotation; every other gets one by nobody known, under the image's id.
    """
    annotation = Annotation(
        id=image.id,
        task_id=image.id,
        project_id=0,
        created_at=moment,
        updated_at=moment,
        annotator=None,
        cancelled=False,
        ground_truth=False,
        lead_time=None,
        parent_prediction=None,
        regions=tuple(_regions(image, names)),
    )
    attributed = AttributedAnnotation(annotation, tuple(box.provenance for box in image.boxes))
    return AnnotatedImage(
        id=image.id,
        reference=image.original,
        width=image.width,
        height=image.height,
        sha256=image.sha256,
        task_id=image.task_id,
        annotations=() if image.state is ImageState.NEVER_REVIEWED else (attributed,),
        file_name=image.file_name,
    )


def _regions(image: DatasetImage, names: dict[int, str]) -> Iterator[AnnotatedRegion]:
    for position, drawn in enumerate(image.boxes):
        yield AnnotatedRegion(
            id=f"imported-{image.id}-{position}",
            image=IMAGE_TAG,
            labels=tuple(names[number] for number in drawn.label_ids),
            value=pixels_to_percent(drawn.box, image.width, image.height),
            image_width=image.width,
            image_height=image.height,
        )
